"""The bridge from channels to asyncio: arecv() and asend() of `Chan` call these.

What need not wait is done at once.  Else a goroutine waits in the task's place.  When the task is
cancelled that goroutine is, and has ended before the CancelledError goes on; so it is known whether
the operation took place.  It may have, a moment before.  A value that was received then goes back
to the channel, in front of all others (csrc/sync/chan.c): a cancelled arecv() has received nothing.
A value that was sent cannot come back: the error of a cancelled asend() says in `sent` whether it
went.

A task whose event loop was closed is not cancelled, and its goroutine waits on.  What that receives
goes back likewise, when it finds the loop closed.  Was the loop closed a moment later, before it
told the task, then the value goes back when the task is dropped: asyncio tells nobody before.

Rejected: to return the value and cancel the task again ("what was done wins").  The result of a
task that is cancelled is dropped: create_task(ch.arecv()), and wait_for() on 3.11, would lose it.
"""

from __future__ import annotations

from gmprt import _core
from gmprt._api.errors import Cancelled, WouldBlock
from gmprt._view.goroutine import aresult

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
    claim = [ch]  # whoever takes it gives back: a task without a loop may be dropped later

    def give_back(waiter: _core.Goroutine[_T]) -> None:
        if waiter.exception() is None and claim:
            _core.chan_give_back(claim.pop(), waiter.result())

    try:
        return await aresult(waiter, give_back)
    except BaseException:
        _settle(waiter)
        give_back(waiter)
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
        await aresult(waiter, type(waiter).exception)  # which nobody else will ask for
    except BaseException as error:
        _settle(waiter)
        error.sent = int(waiter.exception() is None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _settle(waiter: _core.Goroutine[Any]) -> None:
    """End it, if it has not ended: soon, for it can go on."""
    if not waiter.done():  # a task may be dropped so late that a cancel could not import its module
        waiter.cancel()
    cancelled: Cancelled | None = None
    while not waiter.done():
        try:
            waiter.join()
        except Cancelled as error:  # the goroutine in which the loop runs: it hears of it later
            cancelled = error
    if cancelled is not None and (me := _core.current()) is not None:
        me.cancel(cancelled.reason)
