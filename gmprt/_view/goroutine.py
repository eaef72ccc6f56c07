"""What a goroutine's handle can do without C: its stack, who created it, a bridge to asyncio.

`Goroutine` is a C type; its methods stack() and aresult() and its property created_by call the
functions below.
"""

from __future__ import annotations

import sys

from gmprt import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import traceback
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, TypeVar

    from gmprt._view.records import CreatedBy

    _R = TypeVar("_R")


def given_name(g: _core.Goroutine[Any]) -> str:
    """The name that somebody gave to `g`; empty for the one it is born with."""
    name = g.name
    if name != f"goroutine-{g.id}":
        return name
    return _thread_name(g) if g.is_thread else ""


def _thread_name(g: _core.Goroutine[Any]) -> str:
    """What `threading` calls the thread that `g` is; empty if it knows none, or not yet."""
    known: dict[int, Any] = getattr(sys.modules.get("threading"), "_active", {})
    thread = known.get(g.ident)
    return str(thread.name) if thread is not None else ""


def creation(g: _core.Goroutine[Any]) -> tuple[str, str, int, int] | None:
    """Function, file and line of the go() call that started `g`, and the goroutine it was made in.

    The latter is 0 for an ordinary thread.  None for the main goroutine of run() and where C code
    did it.
    """
    found = g.creation()
    if found is None or g.is_main:
        return None
    code, lineno = found
    return code.co_qualname, code.co_filename, lineno, g.parent_id


def place(function: str, filename: str, lineno: int, goroutine_id: int) -> str:
    """A creation in words."""
    where = f" in goroutine {goroutine_id}" if goroutine_id else ""
    return f"{function}{where} at {filename}:{lineno}"


def created_by(g: _core.Goroutine[Any], /) -> CreatedBy | None:
    """Where `g` was started; None for the main goroutine of run() and where C code did it."""
    from gmprt._view.records import CreatedBy

    found = creation(g)
    return CreatedBy(*found) if found else None


def stack(g: _core.Goroutine[Any], /) -> traceback.StackSummary:
    """The Python frames of `g`, outermost first, as traceback.extract_stack() gives for the caller.

    Works for a goroutine in any state; one that has ended or has not begun has no frames.  A
    goroutine that runs meanwhile may have gone on by the time this returns.
    """
    import traceback  # it has been, by the first go()

    return traceback.StackSummary.extract(iter(reversed(frames(g))))


def frames(g: _core.Goroutine[Any]) -> list[tuple[FrameType, int]]:
    """The frames of `g` with their lines, innermost first, without those of this very call."""
    frame = g.frame()
    current = _core.current()
    if current is not None and current.id == g.id:
        while frame is not None and _is_ours(frame):
            frame = frame.f_back
    # All lines in one go, before anything that might let `g` run on (reading source files, say).
    found: list[tuple[FrameType, int]] = []
    while frame is not None:
        found.append((frame, frame.f_lineno or frame.f_code.co_firstlineno))
        frame = frame.f_back
    return found


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("gmprt.")


async def aresult(
    g: _core.Goroutine[_R], /, unheard: Callable[[_core.Goroutine[_R]], object] | None = None
) -> _R:
    """Await the result of `g` in an asyncio task: what result() returns or raises.

    Cancelling the awaiting task does not cancel `g`.  RuntimeError without a running event loop.
    unheard(g) is called when `g` has ended and the loop had been closed: nobody awaits any more.
    """
    import asyncio  # whoever awaits has imported it already; others need not pay for it

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake(_: _core.Goroutine[_R]) -> None:
        # In whatever thread or goroutine `g` ended.
        try:
            loop.call_soon_threadsafe(_settle, ended)
        except RuntimeError:  # the loop is closed
            if unheard is not None:
                unheard(g)

    _core.asking(g, 1)
    try:
        g.add_done_callback(wake)
        await ended
        return g.result(timeout=0)
    except BaseException:
        _core.forget_callback(g, wake)  # or each wait_for() that is over would leave one
        raise
    finally:
        _core.asking(g, -1)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():  # the awaiting task may have been cancelled
        future.set_result(None)
