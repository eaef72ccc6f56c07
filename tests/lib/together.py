"""Many goroutines in blocking calls at the same time; what it took, and of what."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import gmprt

T = TypeVar("T")

COUNT = 200
PAUSE = 0.1
"""What each call takes."""


def _waited_for_a_cpu() -> float:
    """Seconds that threads of this process were ready to run and did not: the machine's doing."""
    total = 0
    for stat in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # that one has ended meanwhile
            total += int(stat.read_text().split()[1])
    return total / 1e9


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Meter:
    """Measures a block, and prints it for the parent as one line of JSON.

    elapsed: seconds; delayed: those of them that the machine had no CPU for us; threads: how many
    the runtime has started meanwhile; handoffs: how often a P was taken from a blocked thread;
    interrupted: how often the machine took a CPU from a thread, whose call then looks like one that
    blocks.
    """

    def __enter__(self) -> Meter:
        self._stats = gmprt.stats()
        self._delay = _waited_for_a_cpu()
        self._interrupted = _interruptions()
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        elapsed = time.perf_counter() - self._begun
        now = gmprt.stats()
        if exc[0] is not None:
            return
        figures = {
            "elapsed": elapsed,
            "delayed": _waited_for_a_cpu() - self._delay,
            "threads": now.threads_started - self._stats.threads_started,
            "interrupted": _interruptions() - self._interrupted,
            "handoffs": now.handoffs - self._stats.handoffs,
        }
        print(json.dumps(figures), flush=True)


def together(fn: Callable[[int], T], count: int = COUNT) -> list[T]:
    """The results of fn(0) ... fn(count - 1), each in a goroutine of its own."""
    goroutines = [gmprt.go(fn, i) for i in range(count)]
    return [g.result() for g in goroutines]
