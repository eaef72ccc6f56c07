"""Raw greenlets: no scheduler, no channels.  What a switch, a start and a parked stack cost."""

from __future__ import annotations

import time
from itertools import repeat

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped, import-not-found, unused-ignore]

from bench.common import BATCH, CaseFn, Figures, Scale, each, memory_bytes, metered, nothing


def _gosched(scale: Scale) -> Figures:
    def run(n: int) -> float:
        def back() -> None:
            switch = first.switch
            while True:
                switch()

        def forth() -> None:
            switch = second.switch
            for _ in repeat(None, n):
                switch()

        first, second = greenlet(forth), greenlet(back)
        start = time.perf_counter()
        first.switch()
        return time.perf_counter() - start

    return metered(scale, run, per=2)


def _spawn(scale: Scale) -> Figures:
    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            for one in [greenlet(nothing) for _ in range(BATCH)]:
                one.switch()
        return time.perf_counter() - start

    return metered(scale, run, per=BATCH)


def _memory(scale: Scale) -> Figures:
    main = getcurrent()

    def park() -> None:
        main.switch()

    greenlet(nothing).switch()
    before = memory_bytes()
    parked = [greenlet(park) for _ in range(scale.parked)]
    for one in parked:
        one.switch()
    hot = memory_bytes()
    time.sleep(scale.idle)
    idle = memory_bytes()
    for one in parked:
        one.switch()
    return each(before, hot, idle, scale.parked)


def cases() -> dict[str, CaseFn]:
    """All cases of raw greenlets."""
    return {"gosched": _gosched, "spawn": _spawn, "memory": _memory}
