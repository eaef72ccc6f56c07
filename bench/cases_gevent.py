"""gevent: greenlets on a hub, ``gevent.queue.Channel`` (unbuffered) and ``Queue``; no select.

In the hand-off cases the time module is patched first, as a gevent program does; a C function
that gevent does not know stays what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import gevent  # type: ignore[import-untyped, import-not-found, unused-ignore]
import gevent.queue  # type: ignore[import-untyped, import-not-found, unused-ignore]
from gevent import monkey  # type: ignore[import-untyped, import-not-found, unused-ignore]

from bench import echo
from bench.common import (
    BATCH,
    CAPACITY,
    NAP,
    WARM_UP,
    CaseFn,
    Figures,
    Gaps,
    Scale,
    each,
    memory_bytes,
    metered,
    nothing,
    sleep_in_c,
)


def _gosched(scale: Scale) -> Figures:
    def loop(n: int) -> None:
        sleep = gevent.sleep
        for _ in repeat(None, n):
            sleep(0)

    def run(n: int) -> float:
        start = time.perf_counter()
        gevent.joinall([gevent.spawn(loop, n) for _ in range(2)], raise_error=True)
        return time.perf_counter() - start

    return metered(scale, run, per=2)


def _pair(first: Callable[[int], float], second: Callable[[int], None], n: int) -> float:
    """Seconds that `first(n)` measures while `second(n)` runs beside it."""
    other = gevent.spawn(second, n)
    main = gevent.spawn(first, n)
    gevent.joinall([main, other], raise_error=True)
    seconds: float = main.value
    return seconds


def _pingpong(scale: Scale) -> Figures:
    ping: Any = gevent.queue.Channel()
    pong: Any = gevent.queue.Channel()

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            pong.put(ping.get())

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            ping.put(1)
            pong.get()
        return time.perf_counter() - start

    return metered(scale, lambda n: _pair(drive, echo, n))


def _buffered(scale: Scale) -> Figures:
    queue: Any = gevent.queue.Queue(CAPACITY)

    def produce(n: int) -> None:
        for _ in repeat(None, n):
            queue.put(1)

    def consume(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            queue.get()
        return time.perf_counter() - start

    return metered(scale, lambda n: _pair(consume, produce, n))


def _spawn(scale: Scale) -> Figures:
    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            gevent.joinall([gevent.spawn(nothing) for _ in range(BATCH)])
        return time.perf_counter() - start

    return metered(scale, run, per=BATCH)


def _memory(scale: Scale) -> Figures:
    queue: Any = gevent.queue.Queue()

    def park() -> None:
        queue.get()

    gevent.spawn(nothing).join()
    before = memory_bytes()
    greenlets = [gevent.spawn(park) for _ in range(scale.parked)]
    gevent.idle()
    hot = memory_bytes()
    gevent.sleep(scale.idle)
    idle = memory_bytes()
    for _ in greenlets:
        queue.put(None)
    gevent.joinall(greenlets, raise_error=True)
    return each(before, hot, idle, scale.parked)


def _delays(block: Callable[[float], Any], scale: Scale) -> Figures:
    monkey.patch_time()
    gaps = Gaps()

    def switcher() -> None:
        sleep, clock, append = gevent.sleep, time.perf_counter_ns, gaps.values.append
        last = clock()
        while not gaps.stop:
            sleep(0)
            now = clock()
            append(now - last)
            last = now

    greenlets = [gevent.spawn(switcher) for _ in range(scale.switchers)]
    gevent.sleep(WARM_UP)
    gaps.begin()
    gevent.spawn(block, scale.block).get()
    gaps.stop = True
    gevent.joinall(greenlets, raise_error=True)
    return gaps.figures()


def _time_sleep(seconds: float) -> None:
    """``time.sleep`` as it is when called: patched by then."""
    time.sleep(seconds)


def _sleepers(count: int, _scale: Scale) -> Figures:
    start = time.perf_counter()
    gevent.joinall([gevent.spawn(gevent.sleep, NAP) for _ in range(count)])
    return {"value": time.perf_counter() - start}


def _sleepers_unmodified(count: int, _scale: Scale) -> Figures:
    monkey.patch_time()
    start = time.perf_counter()
    gevent.joinall([gevent.spawn(_time_sleep, NAP) for _ in range(count)])
    return {"value": time.perf_counter() - start}


def _echo(scale: Scale) -> Figures:
    monkey.patch_socket()
    return echo.measured(gevent.spawn, gevent.sleep, scale)


def cases() -> dict[str, CaseFn]:
    """All cases of gevent."""
    return {
        "gosched": _gosched,
        "pingpong": _pingpong,
        "buffered": _buffered,
        "spawn": _spawn,
        "memory": _memory,
        "handoff": partial(_delays, _time_sleep),
        "handoff_c": partial(_delays, sleep_in_c),
        "handoff_control": partial(_delays, gevent.sleep),
        "sleepers_10k": partial(_sleepers, 10_000),
        "sleepers_100k": partial(_sleepers, 100_000),
        "sleepers_10k_unmodified": partial(_sleepers_unmodified, 10_000),
        "echo": _echo,
    }
