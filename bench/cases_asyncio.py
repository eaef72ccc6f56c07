"""asyncio, on its own loop or on uvloop's.

There is no unbuffered channel; ping-pong uses two queues of one.  There is no select over queues
that takes exactly one value, so that row is empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from itertools import repeat
from typing import Any

from bench import echo
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

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
AsyncCase = Callable[[Scale], Coroutine[Any, Any, Figures]]


async def _metered(scale: Scale, run: Callable[[int], Awaitable[float]], per: int = 1) -> Figures:
    meter = Meter(scale, per)
    for n in meter:
        meter.add(await run(n))
    return meter.ns()


async def _gosched(scale: Scale) -> Figures:
    async def loop(n: int) -> None:
        for _ in repeat(None, n):
            await asyncio.sleep(0)

    async def run(n: int) -> float:
        start = time.perf_counter()
        tasks = [asyncio.create_task(loop(n)) for _ in range(2)]
        for task in tasks:
            await task
        return time.perf_counter() - start

    return await _metered(scale, run, per=2)


async def _pingpong(scale: Scale) -> Figures:
    ping: asyncio.Queue[int] = asyncio.Queue(1)
    pong: asyncio.Queue[int] = asyncio.Queue(1)

    async def echo(n: int) -> None:
        for _ in repeat(None, n):
            await pong.put(await ping.get())

    async def run(n: int) -> float:
        task = asyncio.create_task(echo(n))
        start = time.perf_counter()
        for _ in repeat(None, n):
            await ping.put(1)
            await pong.get()
        seconds = time.perf_counter() - start
        await task
        return seconds

    return await _metered(scale, run)


async def _buffered(scale: Scale) -> Figures:
    queue: asyncio.Queue[int] = asyncio.Queue(CAPACITY)

    async def produce(n: int) -> None:
        for _ in repeat(None, n):
            await queue.put(1)

    async def run(n: int) -> float:
        task = asyncio.create_task(produce(n))
        start = time.perf_counter()
        for _ in repeat(None, n):
            await queue.get()
        seconds = time.perf_counter() - start
        await task
        return seconds

    return await _metered(scale, run)


async def _spawn(scale: Scale) -> Figures:
    async def nothing() -> None:
        pass

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            tasks = [asyncio.create_task(nothing()) for _ in range(BATCH)]
            for task in tasks:
                await task
        return time.perf_counter() - start

    return await _metered(scale, run, per=BATCH)


async def _fail_after(scale: Scale) -> Figures:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            await queue.put(1)
            async with asyncio.timeout(LIMIT):
                await queue.get()
        return time.perf_counter() - start

    return await _metered(scale, run)


async def _group(scale: Scale) -> Figures:
    async def nothing() -> None:
        pass

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            async with asyncio.TaskGroup() as group:
                for _ in range(BATCH):
                    group.create_task(nothing())
        return time.perf_counter() - start

    return await _metered(scale, run, per=BATCH)


async def _mutex(scale: Scale) -> Figures:
    lock = asyncio.Lock()

    async def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            async with lock:
                pass
        return time.perf_counter() - start

    return await _metered(scale, run)


async def _mutex_contended(scale: Scale) -> Figures:
    lock = asyncio.Lock()

    async def work(n: int) -> None:
        for _ in repeat(None, n):
            async with lock:
                await asyncio.sleep(0)

    async def run(n: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(work(n) for _ in range(CROWD)))
        return time.perf_counter() - start

    return await _metered(scale, run, per=CROWD)


async def _memory(scale: Scale) -> Figures:
    queue: asyncio.Queue[None] = asyncio.Queue()

    async def park() -> None:
        await queue.get()

    before = memory_bytes()
    tasks = [asyncio.create_task(park()) for _ in range(scale.parked)]
    await asyncio.sleep(0)
    hot = memory_bytes()
    await asyncio.sleep(scale.idle)
    idle = memory_bytes()
    for _ in tasks:
        queue.put_nowait(None)
    for task in tasks:
        await task
    return each(before, hot, idle, scale.parked)


async def _delays(scale: Scale, block: Callable[[float], Coroutine[Any, Any, None]]) -> Figures:
    gaps = Gaps()

    async def switcher() -> None:
        clock, append = time.perf_counter_ns, gaps.values.append
        last = clock()
        while not gaps.stop:
            await asyncio.sleep(0)
            now = clock()
            append(now - last)
            last = now

    tasks = [asyncio.create_task(switcher()) for _ in range(scale.switchers)]
    await asyncio.sleep(WARM_UP)
    gaps.begin()
    await asyncio.create_task(block(scale.block))
    gaps.stop = True
    for task in tasks:
        await task
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
    return await _delays(scale, asyncio.sleep)


async def _sleepers(count: int, _scale: Scale) -> Figures:
    start = time.perf_counter()
    tasks = [asyncio.create_task(asyncio.sleep(NAP)) for _ in range(count)]
    for task in tasks:
        await task
    return {"value": time.perf_counter() - start}


async def _echo(scale: Scale) -> Figures:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(echo.CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, echo.LOCAL, 0, backlog=echo.BACKLOG)
    async with server:
        load = echo.Load(server.sockets[0].getsockname()[1], scale)
        while not load.ended():
            await asyncio.sleep(echo.NAP)
        return load.figures()


CASES: dict[str, AsyncCase] = {
    "gosched": _gosched,
    "pingpong": _pingpong,
    "buffered": _buffered,
    "spawn": _spawn,
    "fail_after": _fail_after,
    "group": _group,
    "mutex": _mutex,
    "mutex_contended": _mutex_contended,
    "memory": _memory,
    "handoff": _handoff,
    "handoff_c": _handoff_c,
    "handoff_control": _handoff_control,
    "sleepers_10k": partial(_sleepers, 10_000),
    "sleepers_100k": partial(_sleepers, 100_000),
    "sleepers_10k_unmodified": partial(_sleepers, 10_000),
    "echo": _echo,
}


def cases(loop_factory: LoopFactory | None = None) -> dict[str, CaseFn]:
    """The cases as ordinary functions that run on a loop from `loop_factory`."""

    def on_loop(case: AsyncCase, scale: Scale) -> Figures:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(case(scale))

    return {name: partial(on_loop, case) for name, case in CASES.items()}
