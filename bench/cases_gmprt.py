"""gmprt: everything runs inside ``gmprt.run(main)``, but for the native rows (cases_native)
and those that compare gmprt with a part of itself switched off (switches)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import gmprt
from bench import cases_native, echo, switches
from bench.common import (
    BATCH,
    CAPACITY,
    CROWD,
    LIMIT,
    NAP,
    SELECT_CHANNELS,
    WARM_UP,
    CaseFn,
    Figures,
    Gaps,
    Scale,
    Ticks,
    contended,
    each,
    free_lock,
    handover,
    memory_bytes,
    metered,
    nothing,
    sleep_in_c,
)
from gmprt import Chan, Group, Mutex, Select, fail_after, go, gosched, select


def _join(goroutines: list[gmprt.Goroutine[Any]]) -> None:
    for goroutine in goroutines:
        goroutine.join()


def _results(goroutines: list[gmprt.Goroutine[Any]]) -> None:
    """Join, and raise what went wrong."""
    for goroutine in goroutines:
        goroutine.result()


def _pair(first: Callable[[int], float], second: Callable[[int], None], n: int) -> float:
    """Seconds that `first(n)` measures while `second(n)` runs beside it."""
    other = go(second, n)
    seconds: float = go(first, n).result()
    other.result()
    return seconds


def _gosched(scale: Scale) -> Figures:
    def loop(n: int) -> None:
        for _ in repeat(None, n):
            gosched()

    def run(n: int) -> float:
        start = time.perf_counter()
        _results([go(loop, n) for _ in range(2)])
        return time.perf_counter() - start

    return metered(scale, run, per=2)


def _pingpong(scale: Scale) -> Figures:
    ping: Chan[int] = Chan()
    pong: Chan[int] = Chan()

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            pong.send(ping.recv())

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            ping.send(1)
            pong.recv()
        return time.perf_counter() - start

    return metered(scale, lambda n: _pair(drive, echo, n))


def _buffered(scale: Scale) -> Figures:
    items: Chan[int] = Chan(CAPACITY)

    def produce(n: int) -> None:
        for _ in repeat(None, n):
            items.send(1)

    def consume(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            items.recv()
        return time.perf_counter() - start

    return metered(scale, lambda n: _pair(consume, produce, n))


def _spawn(scale: Scale) -> Figures:
    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            _join([go(nothing) for _ in range(BATCH)])
        return time.perf_counter() - start

    return metered(scale, run, per=BATCH)


def _result(fn: Callable[[int], float], n: int) -> float:
    """Seconds that `fn(n)` measures in a goroutine."""
    seconds: float = go(fn, n).result()
    return seconds


def _select(scale: Scale) -> Figures:
    channels: list[Chan[int]] = [Chan(1) for _ in range(SELECT_CHANNELS)]
    first, second, third, fourth = channels

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            for channel in channels:
                channel.send(1)
                select(first, second, third, fourth)
        return time.perf_counter() - start

    return metered(scale, partial(_result, drive), per=SELECT_CHANNELS)


def _select_object(scale: Scale) -> Figures:
    channels: list[Chan[int]] = [Chan(1) for _ in range(SELECT_CHANNELS)]
    select_one = Select(*channels)

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            for channel in channels:
                channel.send(1)
                select_one()
        return time.perf_counter() - start

    return metered(scale, partial(_result, drive), per=SELECT_CHANNELS)


def _select_timeout(scale: Scale) -> Figures:
    channels: list[Chan[int]] = [Chan(1) for _ in range(SELECT_CHANNELS)]
    first, second, third, fourth = channels

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            for channel in channels:
                channel.send(1)
                select(first, second, third, fourth, timeout=LIMIT)
        return time.perf_counter() - start

    return metered(scale, partial(_result, drive), per=SELECT_CHANNELS)


def _many(scale: Scale) -> Figures:
    items: Chan[int] = Chan(BATCH)
    batch = list(range(BATCH))

    def produce(n: int) -> None:
        for _ in repeat(None, n):
            items.send_many(batch)

    def consume(n: int) -> float:
        start = time.perf_counter()
        left = n * BATCH
        while left:
            left -= len(items.recv_many(BATCH))
        return time.perf_counter() - start

    return metered(scale, lambda n: _pair(consume, produce, n), per=BATCH)


def _fail_after(scale: Scale) -> Figures:
    items: Chan[int] = Chan(1)

    def drive(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            items.send(1)
            with fail_after(LIMIT):
                items.recv()
        return time.perf_counter() - start

    return metered(scale, partial(_result, drive))


def _group(scale: Scale) -> Figures:
    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            with Group() as group:
                for _ in range(BATCH):
                    group.go(nothing)
        return time.perf_counter() - start

    return metered(scale, partial(_result, run), per=BATCH)


def _mutex(scale: Scale) -> Figures:
    return metered(scale, partial(_result, free_lock(Mutex())))


def _mutex_contended(scale: Scale) -> Figures:
    return metered(scale, contended(Mutex(), go, gosched), per=CROWD)


def _memory(scale: Scale) -> Figures:
    items: Chan[None] = Chan()

    def park() -> None:
        items.recv_ok()

    go(nothing).join()
    before = memory_bytes()
    goroutines = [go(park) for _ in range(scale.parked)]
    while any(goroutine.state != "waiting" for goroutine in goroutines):
        gosched()
    hot = memory_bytes()
    gmprt.sleep(scale.idle)
    idle = memory_bytes()
    items.close()
    _results(goroutines)
    return each(before, hot, idle, scale.parked)


def _delays(block: Callable[[float], Any], scale: Scale) -> Figures:
    gaps = Gaps()

    def switcher() -> None:
        clock, append = time.perf_counter_ns, gaps.values.append
        last = clock()
        while not gaps.stop:
            gosched()
            now = clock()
            append(now - last)
            last = now

    goroutines = [go(switcher) for _ in range(scale.switchers)]
    gmprt.sleep(WARM_UP)
    gaps.begin()
    go(block, scale.block).result()
    gaps.stop = True
    _results(goroutines)
    return gaps.figures()


def _sleepers(sleep: Callable[[float], Any], count: int, _scale: Scale) -> Figures:
    start = time.perf_counter()
    _results([go(sleep, NAP) for _ in range(count)])
    return {"value": time.perf_counter() - start}


def _lock_handover(scale: Scale) -> Figures:
    return metered(scale, partial(_result, handover(go)))


def _preemption_delay(scale: Scale) -> Figures:
    return Ticks(2 * scale.block).measured(go, scale.switchers)


_PYTHON: dict[str, CaseFn] = {
    "gosched": _gosched,
    "pingpong": _pingpong,
    "buffered": _buffered,
    "spawn": _spawn,
    "select": _select,
    "select_object": _select_object,
    "select_timeout": _select_timeout,
    "many": _many,
    "fail_after": _fail_after,
    "group": _group,
    "mutex": _mutex,
    "mutex_contended": _mutex_contended,
    "memory": _memory,
    "handoff": partial(_delays, time.sleep),
    "handoff_c": partial(_delays, sleep_in_c),
    "handoff_control": partial(_delays, gmprt.sleep),
    "sleepers_10k": partial(_sleepers, gmprt.sleep, 10_000),
    "sleepers_100k": partial(_sleepers, gmprt.sleep, 100_000),
    "sleepers_10k_unmodified": partial(_sleepers, time.sleep, 10_000),
    "lock_handover": _lock_handover,
    "echo": partial(echo.measured, go, time.sleep),
    "preemption_delay": _preemption_delay,
}


def _inside(case: CaseFn, scale: Scale) -> Figures:
    return gmprt.run(case, scale)


def cases() -> dict[str, CaseFn]:
    """All cases of gmprt."""
    inside: dict[str, CaseFn] = {name: partial(_inside, case) for name, case in _PYTHON.items()}
    return inside | cases_native.cases() | switches.cases()
