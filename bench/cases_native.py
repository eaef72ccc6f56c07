"""The native rows: native_bench.c, compiled with cffi against gmprt.h.

They are driven from an ordinary thread, not from ``gmprt.run``: the work is all in native
goroutines, and the caller waits for it on a channel, in C and without the GIL.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import gmprt
from bench.cache import built
from bench.common import CaseFn, Figures, Scale, metered, nothing
from gmprt import native

_MODULE = "_gmprt_bench"
_SOURCE = Path(__file__).with_name("native_bench.c")
_TREES = 7


def _compile(directory: Path, source: str, include: str) -> None:
    from cffi import FFI  # type: ignore[import-untyped, import-not-found, unused-ignore]

    ffi = FFI()
    ffi.cdef("int64_t nb_run(uintptr_t table, const char *name, int64_t n);")
    ffi.cdef("int nb_park(uintptr_t table, const char *how, int64_t n);")
    ffi.set_source(
        _MODULE,
        source,
        include_dirs=[include],
        extra_compile_args=["-O2", "-std=gnu11"],
        py_limited_api=False,
    )
    ffi.compile(tmpdir=str(directory))


@cache
def _library() -> Any:
    """The compiled module's ``lib``."""
    source = _SOURCE.read_text(encoding="utf-8")
    include = str(native.include_dir())
    header = Path(include, "gmprt.h").read_bytes()
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    directory = built(
        "native",
        [source.encode(), header, suffix.encode(), sys.version.encode()],
        partial(_compile, source=source, include=include),
    )
    loader = importlib.machinery.ExtensionFileLoader(_MODULE, str(directory / (_MODULE + suffix)))
    spec = importlib.util.spec_from_loader(_MODULE, loader)
    if spec is None:
        raise ImportError(f"cannot load {_MODULE}")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.lib  # type: ignore[attr-defined, unused-ignore]


def _run(name: str) -> Callable[[int], float]:
    """Seconds that `n` operations of the named benchmark take."""
    gmprt.go(nothing).join()  # the runtime's start is no part of any figure
    library, table = _library(), int(native.api_pointer())

    def run(n: int) -> float:
        nanoseconds: int = library.nb_run(table, name.encode(), n)
        if nanoseconds < 0:
            raise RuntimeError(f"native_bench.c refused {name!r}: another version of gmprt.h?")
        return nanoseconds / 1e9

    return run


def park(how: str, count: int) -> None:
    """Start `count` goroutines that wait for ever."""
    gmprt.go(nothing).join()
    if _library().nb_park(int(native.api_pointer()), how.encode(), count):
        raise RuntimeError(f"native_bench.c knows no {how!r}: another version of gmprt.h?")


def _per_operation(name: str, per: int, scale: Scale) -> Figures:
    return metered(scale, _run(name), per)


def _tree(_scale: Scale) -> Figures:
    """Milliseconds for one tree, the best of several after one to warm up."""
    run = _run("tree")
    run(1)
    return {"value": min(run(1) for _ in range(_TREES)) * 1e3}


def cases() -> dict[str, CaseFn]:
    """The native cases of gmprt."""
    return {
        "native_yield": partial(_per_operation, "yield", 2),
        "native_pingpong": partial(_per_operation, "pingpong", 1),
        "native_spawn": partial(_per_operation, "spawn", 1),
        "native_buffered": partial(_per_operation, "buffered", 1),
        "native_select": partial(_per_operation, "select", 1),
        "native_tree": _tree,
    }
