"""Once, OnceValue and once_value; the locks themselves are C types.

All follow Go's sync.Once: whoever comes while the first call runs waits for it, and calling itself
from inside is a deadlock.
"""

from __future__ import annotations

from gmprt._core import Mutex

TYPE_CHECKING = False  # importing typing takes longer than importing gmprt
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Generic, TypeVar

    _T = TypeVar("_T")

    class _Generic(Generic[_T]): ...
else:
    _T = None

    class _Generic:
        __slots__ = ()
        __class_getitem__ = classmethod(type(list[int]))


class Once:
    """Runs one function, once, whoever asks first."""

    __slots__ = ("_done", "_mutex")

    def __init__(self) -> None:
        self._mutex = Mutex()
        self._done = False

    def do(self, fn: Callable[[], object], /) -> None:
        """Call fn() if this is the first do() of this object; return when that first call has
        returned.

        A call that raises, which reaches only the first caller, counts as done: Go's rule for
        panics.  What cannot be called is a TypeError and counts as nothing.
        """
        if not callable(fn):
            raise TypeError(f"do(): fn must be callable, not {type(fn).__name__}")
        if self._done:
            return
        with self._mutex:
            if self._done:
                return
            try:
                fn()
            finally:
                # After fn, not before: a caller that sees it set must find fn's work finished.
                self._done = True


class OnceValue(_Generic[_T]):
    """Calls fn() the first time that it is called, and returns that value ever after.

    Or raises that same exception.  Go's sync.OnceValue, but that Cancelled, goexit(),
    KeyboardInterrupt and SystemExit, which concern the caller and not the value, reach the first
    caller only; the next one tries again.  Blocks while another caller runs fn.  fn is dropped when
    it has returned.
    """

    def __init__(self, fn: Callable[[], _T], /) -> None:
        if not callable(fn):  # else whoever asks first would be told
            raise TypeError(f"OnceValue(): fn must be callable, not {type(fn).__name__}")
        import functools

        functools.update_wrapper(self, fn)
        del self.__dict__["__wrapped__"]  # fn may be freed once it has returned
        self._fn: Callable[[], _T] | None = fn
        self._mutex = Mutex()
        self._value: _T
        self._error: tuple[Exception, TracebackType | None] | None = None

    def __call__(self) -> _T:
        if self._fn is not None:
            with self._mutex:
                if self._fn is not None:
                    self._call(self._fn)
        if self._error is not None:
            error, tb = self._error
            raise error.with_traceback(tb)  # else each raise would add to the traceback of the last
        return self._value

    def _call(self, fn: Callable[[], _T]) -> None:
        try:
            self._value = fn()
        except Exception as error:
            self._error = error, error.__traceback__
        self._fn = None  # last, for callers that do not take the mutex; and fn may now be freed


# Reprs and pickles name the public place, gmprt.Once, not this file.
for _class in (Once, OnceValue):
    _class.__module__ = "gmprt"
del _class


def once_value(fn: Callable[[], _T], /) -> OnceValue[_T]:
    """OnceValue(fn), as a decorator."""
    if not callable(fn):
        raise TypeError(f"once_value(): fn must be callable, not {type(fn).__name__}")
    return OnceValue(fn)
