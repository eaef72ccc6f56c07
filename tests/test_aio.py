"""Bridges to asyncio: arecv, asend, `await g`, run_async; cancels in both directions."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support import PATIENCE, Thread, eventually, parked, run_child, waiting

import gmprt
from gmprt import Chan, go, run_async

Where = Callable[[Callable[[], Any]], Any]
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")


async def many(*coros: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*coros), PATIENCE)


# ---- arecv, asend ------------------------------------------------------------------------------


def test_at_once(where: Where) -> None:
    async def body() -> None:
        ch: Chan[int] = Chan(2)
        await ch.asend(1)
        await ch.sender.asend(2)
        assert await ch.arecv() == 1
        assert await ch.receiver.arecv() == 2

    where(lambda: asyncio.run(body()))


def test_waiting_does_not_stop_the_loop(where: Where) -> None:
    async def body() -> None:
        ch: Chan[int] = Chan()
        got: list[int] = []

        async def receiver() -> None:
            for _ in range(100):
                got.append(await ch.arecv())

        async def sender() -> None:
            for n in range(100):
                await ch.asend(n)

        await many(receiver(), sender())
        assert got == list(range(100))

    where(lambda: asyncio.run(body()))


def test_with_goroutines_and_threads() -> None:
    async def body() -> int:
        numbers: Chan[int] = Chan(3)
        squares: Chan[int] = Chan()

        def work() -> None:
            for n in numbers:
                squares.send(n * n)

        workers = [go(work), Thread(work)]

        async def feed() -> None:
            for n in range(50):
                await numbers.asend(n)
            numbers.close()

        feeding = asyncio.create_task(feed())
        total = 0
        for _ in range(50):
            total += await asyncio.wait_for(squares.arecv(), PATIENCE)
        await feeding
        for w in workers:
            w.join(PATIENCE)
        return total

    assert asyncio.run(body()) == sum(n * n for n in range(50))


def test_closed() -> None:
    async def body() -> None:
        ch: Chan[int] = Chan()
        receiver = asyncio.create_task(ch.arecv())
        sender = asyncio.create_task(Chan[int].asend(other := Chan[int](), 1))
        while ch.waiting() != (0, 1) or other.waiting() != (1, 0):
            await asyncio.sleep(0.001)
        ch.close()
        other.close()
        with pytest.raises(gmprt.EndOfChannel):
            await receiver
        with pytest.raises(gmprt.ChannelClosed):
            await sender
        with pytest.raises(gmprt.EndOfChannel):
            await ch.arecv()
        with pytest.raises(gmprt.ChannelClosed):
            await ch.asend(1)

    asyncio.run(body())


def test_without_a_loop() -> None:
    ch: Chan[int] = Chan()
    for coro in (ch.arecv(), ch.asend(1)):
        with pytest.raises(RuntimeError, match="no running event loop"):
            coro.send(None)
    assert ch.waiting() == (0, 0)


def test_a_cancelled_arecv_has_received_nothing() -> None:
    async def body() -> None:
        ch: Chan[int] = Chan()
        task = asyncio.create_task(ch.arecv())
        while ch.waiting() != (0, 1):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ch.waiting() == (0, 0)
        with pytest.raises(gmprt.WouldBlock):
            ch.send_nowait(1)

    asyncio.run(body())


@pytest.mark.parametrize("capacity", [0, 1, 3])
@pytest.mark.parametrize("closed", [False, True])
def test_a_value_that_had_come_goes_back_in_front(capacity: int, closed: bool) -> None:
    async def body() -> None:
        ch: Chan[int] = Chan(capacity)
        task = asyncio.create_task(ch.arecv())
        while ch.waiting() != (0, 1):
            await asyncio.sleep(0.001)
        # The loop runs nothing before our next await: 1 has been received when it is cancelled.
        ch.send(1)
        later = [ch.send_nowait(n) for n in range(2, 2 + capacity)]
        sender = None if closed else go(ch.send, 99)
        if sender is not None:
            waiting(ch, senders=1)
        else:
            ch.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ch) == capacity + 1
        if sender is not None:
            assert ch.waiting() == (1, 0), "no room for it"
            with pytest.raises(gmprt.WouldBlock):
                ch.send_nowait(5)
        got = [ch.recv(timeout=PATIENCE) for _ in range(1 + len(later))]
        assert got == list(range(1, 2 + capacity))
        if sender is not None:
            assert ch.recv(timeout=PATIENCE) == 99
            assert sender.result(PATIENCE) is None
            for n in range(2 * capacity):  # the ring turns
                ch.send_nowait(n)
                assert ch.recv_nowait() == n
        assert len(ch) == 0

    asyncio.run(body())


def test_given_back_to_one_who_waits() -> None:
    async def body() -> None:
        ch: Chan[int] = Chan()
        task = asyncio.create_task(ch.arecv())
        while ch.waiting() != (0, 1):
            await asyncio.sleep(0.001)
        other = go(ch.recv)
        waiting(ch, receivers=2)
        ch.send(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert other.result(PATIENCE) == 1

    asyncio.run(body())


def test_a_cancelled_asend_says_whether_it_went() -> None:
    async def body() -> None:
        for goes in (0, 1):
            ch: Chan[int] = Chan()
            task = asyncio.create_task(ch.asend(1))
            while ch.waiting() != (1, 0):
                await asyncio.sleep(0.001)
            if goes:
                assert ch.recv() == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.sent == goes  # type: ignore[attr-defined]
            assert ch.waiting() == (0, 0)

    asyncio.run(body())


# ---- loops that were closed ---------------------------------------------------------------------


def left(coro: Coroutine[Any, Any, Any], waits: Callable[[], bool]) -> asyncio.Task[Any]:
    """A task that waits for ever: its loop is stopped as soon as it does so, and closed."""
    loop = asyncio.new_event_loop()

    async def stop() -> None:
        while not waits():
            await asyncio.sleep(0.001)
        loop.stop()

    task = loop.create_task(coro)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it will be, and is meant to
    stopping = loop.create_task(stop())
    loop.run_forever()
    assert stopping.done()
    loop.close()
    return task


@pytest.mark.parametrize("capacity", [0, 2])
def test_what_comes_when_the_loop_was_closed_goes_back(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    others = gmprt.num_goroutine()
    task = left(ch.arecv(), lambda: ch.waiting() == (0, 1))
    ch.send(1, timeout=PATIENCE)
    assert ch.recv(timeout=PATIENCE) == 1
    eventually(lambda: gmprt.num_goroutine() <= others)
    del task
    gc.collect()
    assert (len(ch), ch.waiting()) == (0, (0, 0)), "it goes back once"


def test_what_comes_for_closed_loops_goes_to_who_waits() -> None:
    ch: Chan[int] = Chan()
    tasks = [left(ch.arecv(), lambda n=n: ch.waiting() == (0, n)) for n in (1, 2, 3)]
    receiver = go(ch.recv)
    waiting(ch, receivers=4)
    ch.send(1, timeout=PATIENCE)
    assert receiver.result(PATIENCE) == 1
    del tasks
    gc.collect()
    assert (len(ch), ch.waiting()) == (0, (0, 0))


def test_what_came_before_the_loop_was_closed_goes_back_with_the_task() -> None:
    ch: Chan[int] = Chan()
    others = gmprt.num_goroutine()

    def waits() -> bool:
        if ch.waiting() != (0, 1):
            return False
        ch.send(1)  # the loop is told, but runs nothing more before it is closed
        eventually(lambda: gmprt.num_goroutine() <= others)
        return True

    task = left(ch.arecv(), waits)
    del task
    gc.collect()
    assert ch.recv_nowait() == 1


CLOSED_LOOPS = """
import asyncio, gmprt
from gmprt import Chan, go

def left(coro, waits):
    loop = asyncio.new_event_loop()
    async def stop():
        while not waits():
            await asyncio.sleep(0.001)
        loop.stop()
    task, stopping = loop.create_task(coro), loop.create_task(stop())
    task._log_destroy_pending = False
    loop.run_forever()
    loop.close()
    return task

async def when(g):
    return await g

sends, closed, full, asked = Chan(), Chan(), Chan(), Chan()
g = go(asked.recv)
tasks = [
    left(sends.asend(1), lambda: sends.waiting() == (1, 0)),
    left(closed.arecv(), lambda: closed.waiting() == (0, 1)),
    left(full.asend(1), lambda: full.waiting() == (1, 0)),
    left(when(g), lambda: asked.waiting() == (0, 1)),
]
assert sends.recv() == 1
closed.close()
full.close()
asked.send("told")
assert g.result() == "told"
while gmprt.num_goroutine() > 0:
    gmprt.sleep(0.001)
print("done")
"""


def test_a_closed_loop_is_no_error() -> None:
    """Neither at once nor at the end of the process, when the tasks are dropped."""
    child = run_child(CLOSED_LOOPS)
    assert (child.stdout, child.stderr) == ("done\n", "")


STORM = """
import asyncio, random, gmprt
from gmprt import Chan, go
ch, sent, got = Chan(CAPACITY), [], []

def sender(me):
    for n in range(150):
        ch.send((me, n))
        sent.append((me, n))
        if n % 10 == 0:
            gmprt.sleep(0.0005)

async def asender(me):
    rng = random.Random(me)
    for n in range(100):
        task = asyncio.create_task(ch.asend((me, n)))
        await asyncio.sleep(rng.choice([0, 0, 0.0002]))
        if rng.random() < 0.5:
            task.cancel()
        try:
            await task
            went = 1
        except asyncio.CancelledError as e:
            went = getattr(e, "sent", 0)   # without: it had not begun
        if went:
            sent.append((me, n))

async def receiver(me):
    rng = random.Random(me)
    while True:
        task = asyncio.create_task(ch.arecv())
        await asyncio.sleep(rng.choice([0, 0, 0.0002]))
        if rng.random() < 0.5:
            task.cancel()
        try:
            got.append(await task)
        except asyncio.CancelledError:
            pass
        except gmprt.EndOfChannel:
            return

async def main():
    senders = [go(sender, i) for i in range(3)]
    receivers = [asyncio.create_task(receiver(i)) for i in range(5)]
    await asyncio.gather(*[asender(i) for i in range(10, 13)])
    await asyncio.gather(*senders)
    ch.close()
    await asyncio.gather(*receivers)
    got.extend(ch)
    assert sorted(got) == sorted(sent), (len(got), len(sent))
    print("done")

gmprt.run(asyncio.run, main()) if IN_RUN else asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("capacity", "in_run", "chaos"), [(0, True, ""), (2, False, ""), (2, True, "20261130")]
)
def test_storm_of_cancels(capacity: int, in_run: bool, chaos: str) -> None:
    code = STORM.replace("CAPACITY", str(capacity)).replace("IN_RUN", str(in_run))
    assert run_child(code, env={"GMPRT_CHAOS": chaos}, timeout=50).stdout == "done\n"


def test_timeouts_keep_the_order() -> None:
    """One consumer that gives up again and again: each value comes once, in order."""
    ch: Chan[int] = Chan(2)

    def send() -> None:
        with ch:
            for n in range(300):
                ch.send(n)
                if n % 3 == 0:
                    gmprt.sleep(0.0003)

    async def body() -> list[int]:
        got: list[int] = []
        while True:
            try:
                got.append(await asyncio.wait_for(ch.arecv(), 0.0003))
            except TimeoutError:
                pass
            except gmprt.EndOfChannel:
                return got

    g = go(send)
    assert asyncio.run(body()) == list(range(300))
    assert g.join(PATIENCE)


# ---- await g -----------------------------------------------------------------------------------


def test_await_a_goroutine() -> None:
    async def body() -> None:
        assert await go(int, "42") == 42
        with pytest.raises(ValueError):
            await go(int, "x")
        assert await asyncio.wait_for(go(gmprt.sleep, 0.001), PATIENCE) is None
        g = go(gmprt.sleep, 3600)
        task = asyncio.ensure_future(g)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not g.done(), "it is left alone"
        g.cancel("enough")
        with pytest.raises(gmprt.GoroutineCancelled):
            await g

    asyncio.run(body())
    with pytest.raises(RuntimeError, match="no running event loop"):
        go(int).__await__().send(None)


def test_who_asks_in_vain_leaves_nothing(where: Where) -> None:
    """A timeout that is over, again and again, beside a goroutine that does not end."""

    async def body() -> None:
        gate: Chan[int] = Chan()
        g = go(gate.recv)
        others: list[object] = []
        g.add_done_callback(others.append)
        for _ in range(10):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(g.aresult(), 0)
            task = asyncio.create_task(g.aresult())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        (callbacks,) = [x for x in gc.get_referents(g) if isinstance(x, list)]
        assert callbacks == [others.append]
        gate.send(5)
        assert await g == 5

    where(lambda: asyncio.run(body()))


# ---- run_async ---------------------------------------------------------------------------------


def test_run_async(where: Where) -> None:
    async def body(n: int) -> tuple[int, str, threading.Thread]:
        await asyncio.sleep(0.001)
        return n + 1, var.get(), threading.current_thread()

    def call() -> None:
        var.set("mine")
        result, value, thread = run_async(body(1))
        assert (result, value) == (2, "mine")
        assert thread is threading.current_thread()

        async def change() -> None:
            var.set("theirs")
            raise LookupError

        with pytest.raises(LookupError):
            run_async(change())
        assert var.get() == "mine"

    where(lambda: contextvars.copy_context().run(call))


def test_many_loops_beside_each_other() -> None:
    async def body(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    gs = [go(run_async, body(n)) for n in range(50)]
    assert [g.result(PATIENCE) for g in gs] == list(range(50))


def test_what_is_no_coroutine() -> None:
    for wrong in (None, 1, body := test_many_loops_beside_each_other):
        with pytest.raises(TypeError, match=r"^run_async\(\): coro must be a coroutine"):
            run_async(wrong)  # type: ignore[arg-type]
    del body

    async def inner() -> None:
        with pytest.raises(RuntimeError, match="where an event loop runs"):
            run_async(asyncio.sleep(0))

    asyncio.run(inner())


def test_a_cancel_cancels_the_coroutine_and_waits() -> None:
    log: list[str] = []

    async def other() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("task")

    async def body() -> None:
        task = asyncio.create_task(other())
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.005)
            log.append("cleaned up")
            raise
        finally:
            del task

    g = go(run_async, body())
    parked(g, "IO wait")
    g.cancel("enough")
    error = g.exception(PATIENCE)
    assert isinstance(error, gmprt.GoroutineCancelled)
    assert error.reason == "enough"
    assert sorted(log) == ["cleaned up", "task"]


def test_a_cancel_reaches_arecv_in_it() -> None:
    ch: Chan[int] = Chan()

    async def body() -> int:
        return await ch.arecv()

    g = go(run_async, body())
    waiting(ch, receivers=1)
    parked(g, "IO wait")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    eventually(lambda: ch.waiting() == (0, 0))


def test_contexts_cross_the_bridges() -> None:
    async def body() -> None:
        var.set("task")
        assert await go(var.get) == "task"
        ch: Chan[str] = Chan()
        go(lambda: ch.send(var.get()))
        assert await ch.arecv() == "task"
        assert await asyncio.to_thread(var.get) == "task"

    contextvars.copy_context().run(run_async, body())
