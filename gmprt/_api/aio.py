"""run_async(): coroutines from goroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_R = TypeVar("_R")


def run_async(coro: Coroutine[Any, Any, _R], /) -> _R:
    """Run a coroutine in an event loop of its own, and return its result or raise its exception.

    In a goroutine or a thread, as asyncio.run does: the loop belongs to the caller, its context is
    a copy of the caller's, and it is closed at the end.  Blocks.  A cancel() of the goroutine comes
    when the loop waits: it cancels the coroutine and all other tasks of the loop, waits for them,
    and then raises Cancelled.  TypeError if it is no coroutine, RuntimeError where a loop runs.
    """
    if not asyncio.iscoroutine(coro):
        raise TypeError(f"run_async(): coro must be a coroutine, not {type(coro).__name__}")
    if asyncio.events._get_running_loop() is not None:
        coro.close()
        raise RuntimeError("run_async() cannot be called where an event loop runs: await it there")
    # Cancelled comes out of the selector, through the loop, and leaves the tasks as they are; the
    # end of the `with` cancels them and runs the loop until they have ended.
    with asyncio.Runner() as runner:
        return runner.run(coro)
