"""trio: memory channels (capacity 0 is unbuffered) and nurseries; it has no select."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import repeat

import trio  # type: ignore[import-not-found, unused-ignore]
import trio.testing  # type: ignore[import-not-found, unused-ignore]

from bench.common import (
    BATCH,
    CAPACITY,
    CROWD,
    LIMIT,
    NAP,
    WARM_UP,
    CaseFn,
    Figures,
    Gaps,
    Meter,
    Scale,
    each,
    memory_bytes,
    sleep_in_c,
)

AsyncCase = Callable[[Scale], Awaitable[Figures]]


async def _metered(scale: Scale, run: Callable[[int], Awaitable[float]], per: int = 1) -> Figures:
    meter = Meter(scale, per)
    for n in meter:
        meter.add(await run(n))
    return meter.ns()


async def _gosched(scale: Scale) -> Figures:
    async def loop(n: int) -> None:
        for _ in repeat(None, n):
            await trio.lowlevel.checkpoint()

    async def run(n: int) -> float:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop, n)
            nursery.start_soon(loop, n)
        return time.perf_counter() - start

    return await _metered(scale, run, per=2)


async def _pingpong(scale: Scale) -> Figures:
    ping_in, ping = trio.open_memory_channel[int](0)
    pong_in, pong = trio.open_memory_channel[int](0)

    async def echo(n: int) -> None:
        for _ in repeat(None, n):
            await pong_in.send(await ping.receive())

    async def run(n: int) -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, n)
            start = time.perf_counter()
            for _ in repeat(None, n):
                await ping_in.send(1)
                await pong.receive()
            return time.perf_counter() - start

    return await _metered(scale, run)


async def _buffered(scale: Scale) -> Figures:
    sender, receiver = trio.open_memory_channel[int](CAPACITY)

    async def produce(n: int) -> None:
        for _ in repeat(None, n):
            await sender.send(1)

    async def run(n: int) -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, n)
            start = time.perf_counter()
            for _ in repeat(None, n):
                await receiver.receive()
            return time.perf_counter() - start

    return await _metered(scale, run)


async def _spawn(scale: Scale) -> Figures:
    async def nothing() -> None:
        pass

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            async with trio.open_nursery() as nursery:
                for _ in range(BATCH):
                    nursery.start_soon(nothing)
        return time.perf_counter() - start

    return await _metered(scale, run, per=BATCH)


async def _fail_after(scale: Scale) -> Figures:
    sender, receiver = trio.open_memory_channel[int](1)

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            await sender.send(1)
            with trio.fail_after(LIMIT):
                await receiver.receive()
        return time.perf_counter() - start

    return await _metered(scale, run)


async def _mutex(scale: Scale) -> Figures:
    lock = trio.Lock()

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            async with lock:
                pass
        return time.perf_counter() - start

    return await _metered(scale, run)


async def _mutex_contended(scale: Scale) -> Figures:
    lock = trio.Lock()

    async def work(n: int) -> None:
        for _ in repeat(None, n):
            async with lock:
                await trio.lowlevel.checkpoint()

    async def run(n: int) -> float:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(CROWD):
                nursery.start_soon(work, n)
        return time.perf_counter() - start

    return await _metered(scale, run, per=CROWD)


async def _memory(scale: Scale) -> Figures:
    sender, receiver = trio.open_memory_channel[None](0)

    async def park() -> None:
        async for _ in receiver:
            pass

    before = memory_bytes()
    async with trio.open_nursery() as nursery:
        for _ in range(scale.parked):
            nursery.start_soon(park)
        await trio.testing.wait_all_tasks_blocked()
        hot = memory_bytes()
        await trio.sleep(scale.idle)
        idle = memory_bytes()
        sender.close()
    return each(before, hot, idle, scale.parked)


async def _delays(scale: Scale, block: Callable[[float], Awaitable[None]]) -> Figures:
    gaps = Gaps()

    async def switcher() -> None:
        clock, append = time.perf_counter_ns, gaps.values.append
        last = clock()
        while not gaps.stop:
            await trio.lowlevel.checkpoint()
            now = clock()
            append(now - last)
            last = now

    async def blocker() -> None:
        await trio.sleep(WARM_UP)
        gaps.begin()
        await block(scale.block)
        gaps.stop = True

    async with trio.open_nursery() as nursery:
        for _ in range(scale.switchers):
            nursery.start_soon(switcher)
        nursery.start_soon(blocker)
    return gaps.figures()


async def _handoff(scale: Scale) -> Figures:
    async def block(seconds: float) -> None:
        time.sleep(seconds)  # blocks the loop, as it would

    return await _delays(scale, block)


async def _handoff_c(scale: Scale) -> Figures:
    async def block(seconds: float) -> None:
        sleep_in_c(seconds)

    return await _delays(scale, block)


async def _handoff_control(scale: Scale) -> Figures:
    return await _delays(scale, trio.sleep)


async def _sleepers(count: int, _scale: Scale) -> Figures:
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(trio.sleep, NAP)
    return {"value": time.perf_counter() - start}


_ASYNC: dict[str, AsyncCase] = {
    "gosched": _gosched,
    "pingpong": _pingpong,
    "buffered": _buffered,
    "spawn": _spawn,
    "fail_after": _fail_after,
    "group": _spawn,
    "mutex": _mutex,
    "mutex_contended": _mutex_contended,
    "memory": _memory,
    "handoff": _handoff,
    "handoff_c": _handoff_c,
    "handoff_control": _handoff_control,
    "sleepers_10k": partial(_sleepers, 10_000),
    "sleepers_100k": partial(_sleepers, 100_000),
}


def _run(case: AsyncCase, scale: Scale) -> Figures:
    figures: Figures = trio.run(case, scale)
    return figures


def cases() -> dict[str, CaseFn]:
    """The cases as ordinary functions."""
    return {name: partial(_run, case) for name, case in _ASYNC.items()}
