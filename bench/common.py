"""What every case shares: sizes, calibrated timing, delays between turns, memory from /proc.

A case is a function ``(Scale) -> Figures``; it runs in a process of its own.  Nothing here knows
which peer is being measured, so all peers are measured by the same code.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Figures = dict[str, float]

BATCH = 1000
CAPACITY = 128
SELECT_CHANNELS = 4
NAP = 0.5
WARM_UP = 0.05


@dataclass(frozen=True)
class Scale:
    """How long and how large: the same for all peers in one run."""

    budget: float  # seconds that one timed run should take
    repeats: int  # timed runs in one process; their median counts
    parked: int  # goroutines, tasks or greenlets in the memory case
    threads: int  # the same for OS threads, which cost too much for more
    switching_threads: int  # and in the hand-off cases
    idle: float  # seconds before memory is read a second time
    switchers: int  # goroutines that take turns in the hand-off cases
    block: float  # seconds the blocking call beside them takes


FULL = Scale(0.2, 3, 100_000, 2_000, 100, 3.0, 1000, 1.0)
QUICK = Scale(0.04, 3, 10_000, 500, 100, 1.5, 1000, 1.0)

CaseFn = Callable[[Scale], Figures]


class Meter:
    """Operation counts to run, first to find a long enough run, then for the timed runs.

    ::

        for n in meter:
            meter.add(seconds_for(n))
        return meter.ns()

    The loop is the caller's, so that it may ``await``.  `per` is the number of operations that one
    count stands for (1000 for a batch of 1000).
    """

    def __init__(self, scale: Scale, per: int = 1) -> None:
        self._scale = scale
        self._per = per
        self._seconds = 0.0
        self._runs: list[float] = []

    def __iter__(self) -> Iterator[int]:
        n = 1
        yield n
        while self._seconds < self._scale.budget / 4:
            n = min(n * 16, self._scaled(n, self._scale.budget / 2))
            yield n
        n = self._scaled(n, self._scale.budget)
        for _ in range(self._scale.repeats):
            yield n
            self._runs.append(self._seconds / n)

    def _scaled(self, n: int, seconds: float) -> int:
        return max(1, math.ceil(n * seconds / max(self._seconds, 1e-7)))

    def add(self, seconds: float) -> None:
        """The run just asked for took `seconds`."""
        self._seconds = seconds

    def ns(self) -> Figures:
        """Nanoseconds per operation, the median of the timed runs."""
        return {"value": statistics.median(self._runs) / self._per * 1e9}


def metered(scale: Scale, run: Callable[[int], float], per: int = 1) -> Figures:
    """Nanoseconds per operation of `run(n) -> seconds`."""
    meter = Meter(scale, per)
    for n in meter:
        meter.add(run(n))
    return meter.ns()


class Gaps:
    """Delays between the turns of many goroutines, and the flag that ends them."""

    __slots__ = ("stop", "values")

    def __init__(self) -> None:
        self.values = array("q")
        self.stop = False

    def begin(self) -> None:
        """Forget the turns before the block: everybody has started."""
        del self.values[:]

    def figures(self) -> Figures:
        """Percentiles in milliseconds."""
        ordered = sorted(self.values)
        if not ordered:
            raise RuntimeError("nobody had a turn")
        return {
            "p50": _rank(ordered, 0.50) / 1e6,
            "p99": _rank(ordered, 0.99) / 1e6,
            "p99.9": _rank(ordered, 0.999) / 1e6,
            "max": ordered[-1] / 1e6,
        }


def _rank(ordered: list[int], share: float) -> int:
    """The nearest-rank percentile."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def memory_bytes() -> int:
    """Resident memory and page tables of this process."""
    gc.collect()
    total = 0
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(("VmRSS:", "VmPTE:")):
                total += int(line.split()[1]) * 1024
    return total


def each(before: int, hot: int, idle: int, n: int) -> Figures:
    """Bytes per parked goroutine, at once and after a while."""
    return {"hot": (hot - before) / n, "idle": (idle - before) / n}


def nothing() -> None:
    """What a spawned goroutine does in the spawn cases."""


def sleep_in_c(seconds: float) -> None:
    """Block in a C function that no peer knows or patches, with the GIL released, as a driver for
    a database or a device would."""
    import ctypes

    usleep = ctypes.CDLL(None).usleep
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        usleep(min(int(left * 1e6) + 1, 999_999))
