"""Native goroutines: C functions that run on the same scheduler without the GIL, on all cores.

`go` starts one from a cffi function pointer; `chan` makes a channel of C values that both sides can
use.  Extension modules compile against gmprt.h in include_dir() and reach the same functions
through api_pointer(), without linking.  `ffi` and `lib` are gmprt's own cffi pair.

    lib = my_extension.lib                      # void work(void *arg)
    results = native.chan("double", 8)
    native.go(my_extension.ffi.addressof(lib, "work"), results.ptr)
    print(results.recv())

Arrays go through such a channel as they lie in memory, with no Python object for an element:

    block = numpy.empty(4096)                   # or array.array("d", ...), or a memoryview
    n = results.recv_into(block)                # block[:n] has come

What C holds, Python does not see: keep an `arg` or a channel alive for as long as C uses it.
"""

from __future__ import annotations

import errno
import operator
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from gmprt import _core
from gmprt._api.errors import (
    ChannelClosed,
    EndOfChannel,
    Error,
    RuntimeNotRunning,
    Timeout,
    WouldBlock,
)
from gmprt._native import ffi, lib

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["NativeChan", "api_pointer", "chan", "ffi", "go", "include_dir", "lib"]

# Makes `T *` from a T that only another cffi module knows by name; ffi.typeof() could not.
_new_pointer_type: Any = import_module("_cffi_backend").new_pointer_type

_ENTRY = ffi.typeof("void (*)(void *)")
_BOOL = ffi.typeof("_Bool")
_MAX_ELEMENT = 65535  # bytes, as in Go


def go(cfunc: Any, arg: Any = None, /) -> None:
    """Start cfunc(arg) as a native goroutine.

    `cfunc` is a cffi function pointer `void (*)(void *)`: ffi.addressof(lib, "name") or a cast.
    `arg` is a cffi pointer or array, None for NULL.  TypeError for anything else,
    RuntimeNotRunning if the runtime cannot start, MemoryError if there is no stack to be had.
    """
    if not _is_cdata(cfunc) or ffi.typeof(cfunc) is not _ENTRY:
        raise TypeError(
            "go(): cfunc must be a cffi function pointer 'void (*)(void *)', not "
            f"{_describe(cfunc)}; "
            "of a function in a cffi module, ffi.addressof(lib, 'name') gives it"
        )
    if not cfunc:
        raise ValueError("go(): cfunc must not be NULL")
    if arg is None:
        arg = ffi.NULL
    elif not _is_cdata(arg) or ffi.typeof(arg).kind not in ("pointer", "array"):
        # cffi would take bytes as well, and pass an address that dies with this call.
        raise TypeError(f"go(): arg must be a cffi pointer or None, not {_describe(arg)}")
    _start()
    if lib.gm_go(cfunc, arg) != lib.GM_OK:
        raise MemoryError("no memory for a native goroutine")


def chan(ctype: Any, capacity: int = 0) -> NativeChan:
    """A channel of C values: chan("int64_t", 16), chan(ffi.typeof("struct point")).

    `ctype` is a declaration that gmprt's ffi understands or any cffi type, of 1 to 65535 bytes.
    TypeError for what is no type, ValueError for one without a usable size and for a bad capacity,
    MemoryError.
    """
    return NativeChan(ctype, capacity)


def include_dir() -> str:
    """The folder of gmprt.h, for the include_dirs of an extension module."""
    return str(Path(__file__).parent / "include")


def api_pointer() -> int:
    """Address of the `gm_api` of gmprt.h: the table of functions for extension modules."""
    return int(ffi.cast("uintptr_t", lib.gm_api_table()))


class NativeChan:
    """A channel of C values, with the methods of gmprt.Chan; made by chan().

    A value is sent as ffi.new(ctype + " *", value) would take it, so conversion errors (TypeError,
    OverflowError) are raised before anything is sent.  Received numbers are Python numbers;
    structs, pointers and arrays are cdata.  send_from() and recv_into() move many values between
    the channel and a buffer.  Between Python functions a Chan is faster for single ones.  It
    cannot stand in select().

    `timeout` is in seconds, None for ever, 0 polls; its end raises Timeout.
    """

    __slots__ = ("__weakref__", "_address", "_closed", "_pointer", "ctype", "ptr")

    ctype: Any
    """The element's type, a cffi ctype."""
    ptr: Any
    """The `gm_chan *` for C.  The channel lives as long as this object or its NativeChan does."""

    def __init__(self, ctype: Any, capacity: int = 0) -> None:
        self.ctype = _ctype(ctype)
        size = _element_size(self.ctype)
        if not hasattr(type(capacity), "__index__"):
            kind = type(capacity).__name__
            raise TypeError(f"chan(): capacity must be an integer, not {kind}")
        capacity = operator.index(capacity)
        most = (2**63 - 1) // size
        if not 0 <= capacity <= most:
            raise ValueError(f"chan(): capacity must be between 0 and {most}")
        _start()
        made = lib.gm_chan_make(size, capacity)
        if made == ffi.NULL:
            raise MemoryError(f"no memory for {capacity} elements of {size} bytes")
        self.ptr = ffi.gc(made, lib.gm_chan_free, size * capacity)
        self._address = int(ffi.cast("uintptr_t", made))
        # An array is a buffer already; everything else is reached through a pointer.
        is_array = self.ctype.kind == "array"
        self._pointer: Any = None if is_array else _new_pointer_type(self.ctype)
        self._closed = False

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """No copies: one would use the channel after this object has freed it."""
        raise TypeError("cannot copy or pickle 'NativeChan' object")

    def send(self, value: Any, *, timeout: float | None = None) -> None:
        """Send, waiting for a receiver or room in the buffer.  ChannelClosed, Timeout."""
        self._send(value, timeout, Timeout)

    def send_nowait(self, value: Any) -> None:
        """Send, or raise WouldBlock.  ChannelClosed."""
        self._send(value, 0, WouldBlock)

    def recv(self, *, timeout: float | None = None) -> Any:
        """Receive, waiting for a value.  EndOfChannel when closed and drained, Timeout."""
        return self._recv(timeout, Timeout)

    def recv_nowait(self) -> Any:
        """Receive, or raise WouldBlock.  EndOfChannel."""
        return self._recv(0, WouldBlock)

    def send_from(self, buffer: ReadableBuffer, /, *, timeout: float | None = None) -> int:
        """Send all elements of a buffer, in order, as they lie there; returns how many.

        Waits whenever there is no room, behind those who wait already.  ChannelClosed, Timeout (for
        all together) and Cancelled say in .sent how many had gone: the first ones.  `buffer` is a
        contiguous array of the channel's type: NumPy's, array.array, memoryview.  Others read it
        until this returns.  BufferError, TypeError and ValueError for one that does not fit.
        """
        with _view("send_from", buffer) as view:
            self._fits("send_from", view)
            # Whoever receives another could not read it, and it would be gone.
            if _item_type(self.ctype) is _BOOL and view.tobytes().translate(None, b"\0\1"):
                raise ValueError("send_from(): buffer must have 0 and 1 only, as '_Bool'")
            return _core.native_send_from(self._address, view, timeout)

    def recv_into(self, buffer: WriteableBuffer, /, *, timeout: float | None = None) -> int:
        """Wait for an element, then take what is there into the buffer; returns how many.

        From its beginning, in order, at most as many as it has room for.  EndOfChannel when closed
        and drained; Timeout, with nothing taken.  `buffer` as for send_from(), but writable.
        """
        with _view("recv_into", buffer) as view:
            self._fits("recv_into", view)
            if view.readonly:
                raise BufferError("recv_into(): buffer must be writable")
            if view.nbytes == 0:
                raise ValueError("recv_into(): buffer must have room for one element at least")
            return _core.native_recv_into(self._address, view, timeout)

    def recv_ok(
        self, *, timeout: float | None = None
    ) -> tuple[Any, Literal[True]] | tuple[None, Literal[False]]:
        """Receive as Go's `v, ok := <-ch`: (None, False) when closed and drained.  Timeout."""
        try:
            return self._recv(timeout, Timeout), True
        except EndOfChannel:
            return None, False

    def close(self) -> None:
        """Wake all waiters; what is buffered is still delivered.  ChannelClosed if closed."""
        if lib.gm_chan_close(self.ptr) != lib.GM_OK:
            self._closed = True
            raise ChannelClosed("close of a closed channel")
        self._closed = True

    @property
    def capacity(self) -> int:
        """Size of the buffer."""
        return int(lib.gm_chan_cap(self.ptr))

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(lib.gm_chan_closed(self.ptr))

    def __len__(self) -> int:
        return int(lib.gm_chan_len(self.ptr))

    def __bool__(self) -> bool:
        return True  # an empty channel is a channel

    def __iter__(self) -> Iterator[Any]:
        """Receive until closed and drained."""
        while True:
            value, ok = self.recv_ok()
            if not ok:
                return
            yield value

    def __enter__(self) -> NativeChan:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None:
        if not self.closed:  # the block may have closed it itself
            self.close()

    def __repr__(self) -> str:
        closed = " closed" if self.closed else ""
        name = ffi.getctype(self.ctype)
        return f"<gmprt.native.NativeChan of {name!r} {len(self)}/{self.capacity}{closed}>"

    def _fits(self, fn: str, view: memoryview) -> None:
        """Raises if the view is no array of the channel's type."""
        if not view.c_contiguous:
            raise BufferError(f"{fn}(): buffer must be contiguous")
        # A record's format has its fields' names; a union of ctypes has that of bytes.
        if "O" in re.sub(":[^:]*:", "", view.format) or _is_ctypes_with_objects(view.obj):
            raise TypeError(f"{fn}(): buffer must not hold Python objects")
        size, item = ffi.sizeof(self.ctype), _item_type(self.ctype)
        untyped = item.kind != "primitive" and view.itemsize == 1
        if view.itemsize not in (size, ffi.sizeof(item)) and not untyped:
            name = ffi.getctype(self.ctype)
            raise ValueError(
                f"{fn}(): buffer must have items of {size} bytes, as {name!r}, not {view.itemsize}"
            )
        if view.nbytes % size:
            raise ValueError(
                f"{fn}(): buffer must have whole elements of {size} bytes, not {view.nbytes} bytes"
            )
        ours, theirs = _kind_of_type(item), _kind_of_format(view.format)
        if ours != theirs and "" not in (ours, theirs):
            raise TypeError(f"{fn}(): buffer must have {ours} items, not {view.format!r}")
        if ours == theirs != "" and view.itemsize != ffi.sizeof(item):  # one number is no array
            name = ffi.getctype(item)
            raise TypeError(f"{fn}(): buffer must have {name!r} items, not {view.format!r}")

    def _send(self, value: Any, timeout: float | None, late: type[Error]) -> None:
        if self._pointer is not None:
            element = ffi.new(self._pointer, value)
        else:
            element = ffi.new(self.ctype, value)
        result = _core.native_send(self._address, ffi.buffer(element), timeout)
        if result == lib.GM_CLOSED:
            self._closed = True
            raise ChannelClosed("send on a closed channel")
        if result != lib.GM_OK:
            raise _late(late)

    def _recv(self, timeout: float | None, late: type[Error]) -> Any:
        element = ffi.new(self._pointer or self.ctype)
        result = _core.native_recv(self._address, ffi.buffer(element), timeout)
        if result == lib.GM_CLOSED:
            self._closed = True
            raise EndOfChannel("receive on a closed and drained channel")
        if result != lib.GM_OK:
            raise _late(late)
        return element[0] if self._pointer is not None else element


def _view(fn: str, buffer: ReadableBuffer) -> memoryview:
    try:
        return memoryview(buffer)
    except TypeError:
        kind = type(buffer).__name__
        raise TypeError(f"{fn}(): buffer must be an array or another buffer, not {kind}") from None


def _item_type(ctype: Any) -> Any:
    """Of what an array is made; else the type itself."""
    while ctype.kind == "array":
        ctype = ctype.item
    return ctype


# What the formats of numbers mean, for those as wide as each other.  Others count as bytes.
_KINDS = {
    **dict.fromkeys("efdg", "floating-point"),
    **dict.fromkeys(("Zf", "Zd", "Zg", *"FDG"), "complex"),  # the latter in ctypes and struct
    **dict.fromkeys("hilqn", "signed"),
    **dict.fromkeys("HILQNP", "unsigned"),
}


def _kind_of_format(code: str) -> str:
    """Of a buffer's format; "": anything of that size."""
    order = ">" if sys.byteorder == "little" else "<"
    kind = _KINDS.get(code.lstrip("@=<>!"), "")
    return "byte-swapped" if kind and code[0] in (order, "!") else kind


@cache
def _kind_of_type(ctype: Any) -> str:
    if ctype.kind != "primitive" or ffi.sizeof(ctype) == 1:
        return ""
    if ctype.cname in ("float", "double", "long double"):
        return "floating-point"
    value = ffi.new(_new_pointer_type(ctype))[0]
    if isinstance(value, complex):
        return "complex"
    if not isinstance(value, int):  # a character
        return ""
    return "signed" if int(ffi.cast(ctype, -1)) < 0 else "unsigned"


def _is_ctypes_with_objects(exporter: object) -> bool:
    ctypes = sys.modules.get("ctypes")
    if ctypes is None:
        return False
    kinds = (ctypes.Structure, ctypes.Union, ctypes.Array)
    return isinstance(exporter, kinds) and _has_objects(type(exporter))


def _has_objects(kind: Any) -> bool:
    """Whether such a type of ctypes holds a py_object; what is pointed to is not held."""
    if hasattr(kind, "_length_"):
        return _has_objects(kind._type_)
    fields = [f for base in kind.__mro__ for f in base.__dict__.get("_fields_", ())]
    return getattr(kind, "_type_", None) == "O" or any(_has_objects(f[1]) for f in fields)


def _late(error: type[Error]) -> Error:
    return error("timed out" if error is Timeout else "the operation would block")


def _start() -> None:
    """C functions do not start the runtime by themselves, as Python's do."""
    err = lib.gm_start()
    if err == errno.ENOMEM:
        raise MemoryError
    if err:
        raise RuntimeNotRunning(f"the runtime cannot start: {os.strerror(err)}")


def _is_cdata(value: object) -> bool:
    return isinstance(value, ffi.CData)


def _describe(value: object) -> str:
    return repr(ffi.typeof(value)) if _is_cdata(value) else type(value).__name__


def _ctype(ctype: Any) -> Any:
    if isinstance(ctype, ffi.CType):
        return ctype
    if not isinstance(ctype, str):
        kind = type(ctype).__name__
        raise TypeError(f"chan(): ctype must be a C type or its declaration, not {kind}")
    try:
        return ffi.typeof(ctype)
    except ffi.error as error:
        raise TypeError(f"chan(): ctype must be a C type, not {ctype!r}") from error


def _element_size(ctype: Any) -> int:
    try:
        size = int(ffi.sizeof(ctype))
    except ffi.error:  # void, incomplete structs, arrays without a length
        size = 0
    if not 0 < size <= _MAX_ELEMENT:
        name = ffi.getctype(ctype)
        raise ValueError(f"chan(): ctype must have 1 to {_MAX_ELEMENT} bytes; {name!r} has not")
    return size
