"""OS threads: ``threading``, ``queue.Queue``, semaphores for ping-pong; no select.

Their memory is taken from fewer threads, without what the kernel keeps for each (its stack); in the
hand-off cases there are 100 of them, since 1000 need a minute to start beside each other.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from threading import Event, Lock, Semaphore, Thread
from typing import Any

from bench import echo
from bench.common import (
    BATCH,
    CAPACITY,
    CROWD,
    NAP,
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


def _start(fn: Callable[..., Any], *args: Any) -> Thread:
    thread = Thread(target=fn, args=args)
    thread.start()
    return thread


def _join(threads: list[Thread]) -> None:
    for thread in threads:
        thread.join()


def _gosched(scale: Scale) -> Figures:
    def loop(n: int) -> None:
        sleep = time.sleep
        for _ in repeat(None, n):
            sleep(0)

    def run(n: int) -> float:
        start = time.perf_counter()
        _join([_start(loop, n) for _ in range(2)])
        return time.perf_counter() - start

    return metered(scale, run, per=2)


def _pingpong(scale: Scale) -> Figures:
    ping, pong = Semaphore(0), Semaphore(0)

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            ping.acquire()
            pong.release()

    def run(n: int) -> float:
        thread = _start(echo, n)
        start = time.perf_counter()
        for _ in repeat(None, n):
            ping.release()
            pong.acquire()
        seconds = time.perf_counter() - start
        thread.join()
        return seconds

    return metered(scale, run)


def _buffered(scale: Scale) -> Figures:
    items: queue.Queue[int] = queue.Queue(CAPACITY)

    def produce(n: int) -> None:
        for _ in repeat(None, n):
            items.put(1)

    def run(n: int) -> float:
        thread = _start(produce, n)
        start = time.perf_counter()
        for _ in repeat(None, n):
            items.get()
        seconds = time.perf_counter() - start
        thread.join()
        return seconds

    return metered(scale, run)


def _spawn(scale: Scale) -> Figures:
    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            _join([_start(nothing) for _ in range(BATCH)])
        return time.perf_counter() - start

    return metered(scale, run, per=BATCH)


def _mutex(scale: Scale) -> Figures:
    return metered(scale, free_lock(Lock()))


def _mutex_contended(scale: Scale) -> Figures:
    return metered(scale, contended(Lock(), _start, partial(time.sleep, 0)), per=CROWD)


def _memory(scale: Scale) -> Figures:
    items: queue.Queue[None] = queue.Queue()
    started: queue.Queue[None] = queue.Queue()

    def park() -> None:
        started.put(None)
        items.get()

    _start(nothing).join()
    before = memory_bytes()
    threads = [_start(park) for _ in range(scale.threads)]
    for _ in threads:
        started.get()
    hot = memory_bytes()
    time.sleep(scale.idle)
    idle = memory_bytes()
    for _ in threads:
        items.put(None)
    _join(threads)
    return each(before, hot, idle, scale.threads)


def _delays(block: Callable[[float], Any], scale: Scale) -> Figures:
    gaps = Gaps()

    begin = Event()

    def switcher() -> None:
        begin.wait()
        sleep, clock, append = time.sleep, time.perf_counter_ns, gaps.values.append
        last = clock()
        while not gaps.stop:
            sleep(0)
            now = clock()
            append(now - last)
            last = now

    threads = [_start(switcher) for _ in range(scale.switching_threads)]
    begin.set()
    time.sleep(WARM_UP)
    gaps.begin()
    _start(block, scale.block).join()
    gaps.stop = True
    _join(threads)
    return gaps.figures()


def _sleepers(count: int, _scale: Scale) -> Figures:
    start = time.perf_counter()
    _join([_start(time.sleep, NAP) for _ in range(count)])
    return {"value": time.perf_counter() - start}


def _lock_handover(scale: Scale) -> Figures:
    return metered(scale, handover(_start))


def _preemption_delay(scale: Scale) -> Figures:
    return Ticks(2 * scale.block).measured(_start, scale.switching_threads)


def cases() -> dict[str, CaseFn]:
    """All cases of threads; 100 000 of them are beyond the usual limits of a system."""
    return {
        "gosched": _gosched,
        "pingpong": _pingpong,
        "buffered": _buffered,
        "spawn": _spawn,
        "mutex": _mutex,
        "mutex_contended": _mutex_contended,
        "memory": _memory,
        "handoff": partial(_delays, time.sleep),
        "handoff_c": partial(_delays, sleep_in_c),
        "handoff_control": partial(_delays, time.sleep),
        "sleepers_10k": partial(_sleepers, 10_000),
        "sleepers_10k_unmodified": partial(_sleepers, 10_000),
        "lock_handover": _lock_handover,
        "echo": partial(echo.measured, _start, time.sleep),
        "preemption_delay": _preemption_delay,
    }
