"""The bridge from channels to asyncio: arecv() and asend() of `Chan` call these.

What need not wait is done at once.  Else a goroutine waits in the task's place.  When the task is
cancelled that goroutine is, and has ended before the CancelledError goes on; so it is known whether
the operation took place.  It may have, a moment before.  A value that was received then goes back
to the channel, in front of all others (csrc/sync/chan.c): a cancelled arecv() has received nothing.
A value that was sent cannot come back: the error of a cancelled asend() says in `sent` whether it
went.

Rejected: to return the value and cancel the task again ("what was done wins").  The result of a
task that is cancelled is dropped: create_task(ch.arecv()), and wait_for() on 3.11, would lose it.
"""

from __future__ import annotations

from gmprt import _core
from gmprt._api.errors import Cancelled, WouldBlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _T = TypeVar("_T")


async def arecv(ch: _core.Chan[_T], /) -> _T:
    """Await a value in an asyncio task: what recv() returns or raises."""
    try:
        return ch.recv_nowait()
    except WouldBlock:
        pass
    waiter = _core.go(ch.recv)
    try:
        return await waiter.aresult()
    except BaseException:
        _settle(waiter)
        if waiter.exception() is None:
            _core.chan_give_back(ch, waiter.result())
        raise


async def asend(ch: _core.Chan[_T], value: _T, /) -> None:
    """Send in an asyncio task: what send() returns or raises."""
    try:
        ch.send_nowait(value)
        return
    except WouldBlock:
        pass
    waiter = _core.go(ch.send, value)
    try:
        await waiter.aresult()
    except BaseException as error:
        _settle(waiter)
        error.sent = int(waiter.exception() is None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _settle(waiter: _core.Goroutine[Any]) -> None:
    """End it, if it has not ended: soon, for it can go on."""
    waiter.cancel()
    cancelled: Cancelled | None = None
    while not waiter.done():
        try:
            waiter.join()
        except Cancelled as error:  # the goroutine in which the loop runs: it hears of it later
            cancelled = error
    me = _core.current()
    if cancelled is not None and me is not None:
        me.cancel(cancelled.reason)
