"""What every case shares: sizes, calibrated timing, delays between turns, memory from /proc.

A case is a function ``(Scale) -> Figures``; it runs in a process of its own.  Nothing here knows
which peer is being measured, so all peers are measured by the same code.
"""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import repeat
from threading import Lock
from typing import Any

Figures = dict[str, float]

BATCH = 1000
CAPACITY = 128
SELECT_CHANNELS = 4
NAP = 0.5
LIMIT = 1  # seconds that never pass
MARGIN = 1.1  # the run that is calibrated on may have been a slow one
WARM_UP = 0.05
TICK = 0.1


@dataclass(frozen=True)
class Scale:
    """How long and how large: the same for all peers in one run."""

    budget: float  # seconds that one timed run should take, at least
    repeats: int  # timed runs in one process; the best counts
    parked: int  # goroutines, tasks or greenlets in the memory case
    threads: int  # the same for OS threads, which cost too much for more
    switching_threads: int  # and in the hand-off cases
    idle: float  # seconds before memory is read a second time
    switchers: int  # goroutines that take turns in the hand-off cases
    block: float  # seconds the blocking call beside them takes
    echo: float  # seconds of load
    pairs: int  # of child processes, with a feature of gmprt switched on and off


FULL = Scale(0.5, 3, 100_000, 2_000, 100, 3.0, 1000, 1.0, 3.0, 9)
QUICK = Scale(0.04, 3, 10_000, 500, 100, 1.5, 1000, 1.0, 1.0, 3)

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
        n = self._scaled(n, self._scale.budget * MARGIN)
        for _ in range(self._scale.repeats):
            yield n
            self._runs.append(self._seconds / n)

    def _scaled(self, n: int, seconds: float) -> int:
        return max(1, math.ceil(n * seconds / max(self._seconds, 1e-7)))

    def add(self, seconds: float) -> None:
        """The run just asked for took `seconds`."""
        self._seconds = seconds

    def ns(self) -> Figures:
        """Nanoseconds per operation, the best of the timed runs: what disturbs only adds."""
        return {"value": min(self._runs) / self._per * 1e9}


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


def handover(start: Callable[..., Any]) -> Callable[[int], float]:
    """Seconds for n round trips of a `threading.Lock` from the caller to what `start` starts."""
    there, back = Lock(), Lock()
    there.acquire()
    back.acquire()

    def answer(n: int) -> None:
        for _ in repeat(None, n):
            there.acquire()
            back.release()

    def run(n: int) -> float:
        other = start(answer, n)
        begin = time.perf_counter()
        for _ in repeat(None, n):
            there.release()
            back.acquire()
        seconds = time.perf_counter() - begin
        other.join()
        return seconds

    return run


CROWD = 8


def free_lock(lock: AbstractContextManager[Any]) -> Callable[[int], float]:
    """Seconds for locking and unlocking n times what nobody else has."""

    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, n):
            with lock:
                pass
        return time.perf_counter() - start

    return run


def contended(
    lock: AbstractContextManager[Any], start: Callable[..., Any], give_way: Callable[[], Any]
) -> Callable[[int], float]:
    """Seconds for n turns of each of CROWD, of whom one has the lock and gives way meanwhile."""

    def work(n: int) -> None:
        for _ in repeat(None, n):
            with lock:
                give_way()

    def run(n: int) -> float:
        begin = time.perf_counter()
        crowd = [start(work, n) for _ in range(CROWD)]
        for one in crowd:
            one.join()
        return time.perf_counter() - begin

    return run


# Alone in its process: no GIL to wait for, and nothing to do but to sleep.
_CONTROL = """
import gc, time
gc.disable()
print("ready", flush=True)
worst, end = 0.0, time.perf_counter() + {seconds}
while (now := time.perf_counter()) < end:
    time.sleep(0.001)
    worst = max(worst, time.perf_counter() - now - 0.001)
print(worst)
"""


class Control:
    """What the machine itself adds to a sleep meanwhile, at worst."""

    def __init__(self, seconds: float) -> None:
        command = [sys.executable, "-S", "-c", _CONTROL.format(seconds=seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def worst(self) -> float:
        """Seconds."""
        return float(self._process.communicate()[0])


class Ticks:
    """Sleepers that note how late they wake, beside a loop that never gives way."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late: array[int] = array("q")
        self._hogs = 0

    def tick(self) -> None:
        """Sleep again and again, as long as the hog runs."""
        clock, append, sleep = time.perf_counter_ns, self._late.append, time.sleep
        while self._hogs:
            due = clock() + round(TICK * 1e9)
            sleep(TICK)
            append(clock() - due)

    def hog(self) -> None:
        """Compute, with no call that blocks or gives way."""
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            pass
        self._hogs -= 1

    def measured(self, start: Callable[..., Any], count: int) -> Figures:
        """`count` sleepers and a hog, started with `start(fn)`; lateness in milliseconds."""
        self._hogs = 1
        sleepers = [start(self.tick) for _ in range(count)]
        time.sleep(TICK)  # all have begun
        control = Control(self._seconds)
        del self._late[:]
        start(self.hog).join()
        for sleeper in sleepers:
            sleeper.join()
        ordered = sorted(self._late)
        return {
            "p99": _rank(ordered, 0.99) / 1e6,
            "worst": ordered[-1] / 1e6,
            "machine": control.worst() * 1e3,
        }
