"""Goroutines for Python: Go's scheduler in C under ordinary, blocking Python functions.

Blocking calls park the goroutine, not the thread:

    import gmprt

    def main():
        ch = gmprt.Chan()
        gmprt.go(ch.send, "hello")
        print(ch.recv())

    gmprt.run(main)

Everything public is in this namespace, in gmprt.debug and in gmprt.native (C functions as
goroutines).
"""

# ruff: noqa: E402 - the C half must be loaded before the modules that import it
from __future__ import annotations

from gmprt._life.load import keep_package, load_core

load_core()

from gmprt import context, debug
from gmprt._api.closing import CancelCloses, cancel_closes
from gmprt._api.errors import (
    Cancelled,
    ChannelClosed,
    ContextCancelled,
    DeadlineExceeded,
    Deadlock,
    EndOfChannel,
    Error,
    GoroutineCancelled,
    RuntimeNotRunning,
    StackOverflow,
    Timeout,
    TooManyThreads,
    WouldBlock,
)
from gmprt._api.group import map_
from gmprt._api.sync import Once, OnceValue, once_value
from gmprt._api.time import AfterFunc, Ticker, Timer, after, after_func, tick
from gmprt._core import (
    AtomicInt,
    CancelScope,
    Chan,
    Cond,
    Goroutine,
    Group,
    Limiter,
    Mutex,
    Options,
    Recv,
    RecvView,
    Reservation,
    RLocker,
    RWMutex,
    Select,
    Selected,
    Semaphore,
    Send,
    SendView,
    WaitGroup,
    current,
    fail_after,
    gather,
    go,
    goexit,
    gomaxprocs,
    gosched,
    lock_os_thread,
    move_on_after,
    num_goroutine,
    options,
    select,
    set_max_stack,
    set_max_threads,
    shield,
    sleep,
    threads,
    unlock_os_thread,
)
from gmprt._life.run import run
from gmprt._view.stats import stats

__version__ = "0.1.0"

__all__ = [
    "AfterFunc",
    "AtomicInt",
    "CancelCloses",
    "CancelScope",
    "Cancelled",
    "Chan",
    "ChanStatistics",
    "ChannelClosed",
    "Cond",
    "ContextCancelled",
    "CreatedBy",
    "DeadlineExceeded",
    "Deadlock",
    "EndOfChannel",
    "Error",
    "ExceptHookArgs",
    "Executor",
    "Goroutine",
    "GoroutineCancelled",
    "Group",
    "Limiter",
    "Mutex",
    "Once",
    "OnceValue",
    "Options",
    "Pool",
    "RLocker",
    "RWMutex",
    "Recv",
    "RecvChan",
    "RecvView",
    "Reservation",
    "RuntimeNotRunning",
    "Select",
    "Selected",
    "Semaphore",
    "Send",
    "SendChan",
    "SendView",
    "StackOverflow",
    "Stats",
    "Ticker",
    "Timeout",
    "Timer",
    "TooManyThreads",
    "WaitGroup",
    "WouldBlock",
    "after",
    "after_func",
    "cancel_closes",
    "context",
    "current",
    "debug",
    "excepthook",
    "fail_after",
    "gather",
    "go",
    "goexit",
    "gomaxprocs",
    "gosched",
    "lock_os_thread",
    "map_",
    "move_on_after",
    "native",
    "num_goroutine",
    "once_value",
    "options",
    "run",
    "run_async",
    "select",
    "set_max_stack",
    "set_max_threads",
    "shield",
    "sleep",
    "stats",
    "threads",
    "tick",
    "unlock_os_thread",
]

TYPE_CHECKING = False  # importing typing takes longer than importing gmprt
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gmprt import native
    from gmprt._api.aio import run_async
    from gmprt._api.chan import RecvChan, SendChan
    from gmprt._api.executor import Executor
    from gmprt._api.pool import Pool
    from gmprt._life.excepthook import ExceptHookArgs
    from gmprt._life.excepthook import excepthook as _default_excepthook
    from gmprt._view.records import ChanStatistics, CreatedBy, Stats

    excepthook: Callable[[ExceptHookArgs], object] = _default_excepthook
    """Called with each failure that nobody can collect any more; assign another to replace it."""
else:
    # What few programs ask for by name and takes long to import; excepthook may be assigned to.
    _LATER = {
        "native": "native",
        "RecvChan": "_api.chan",
        "SendChan": "_api.chan",
        "Pool": "_api.pool",
        "Executor": "_api.executor",
        "run_async": "_api.aio",
        "ExceptHookArgs": "_life.excepthook",
        "excepthook": "_life.excepthook",
        "ChanStatistics": "_view.records",
        "CreatedBy": "_view.records",
        "Stats": "_view.records",
    }

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        module = importlib.import_module(f"gmprt.{_LATER[name]}")
        return module if name == "native" else globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


keep_package()
