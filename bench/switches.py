"""What a part of gmprt costs: the same work in child processes with that part switched on and off.

The children take turns, and each reports its best of many short runs, in CPU time: what is added on
top of that is the machine's.  The row compares the best of all: a virtual machine has seconds in
which everything takes twice as long, and medians compare those.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from itertools import repeat
from pathlib import Path

import gmprt
from bench.common import CaseFn, Figures, Scale, nothing

_ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = "import sys; sys.path.append({root!r}); from bench.switches import {name}; print({name}())"

_RECEIVES = 20_000
_ADDITIONS = 1_000_000
_RUNS = 30


def receive() -> float:
    """Nanoseconds of a `recv` in an ordinary thread, beside a runtime that is at work."""
    gmprt.go(nothing).join()
    a, b = socket.socketpair()
    b.send(b"x")
    buffer, runs = bytearray(1), []

    def measure() -> None:
        receive, flags, clock = a.recv_into, socket.MSG_PEEK, time.process_time
        for _ in range(_RUNS):
            start = clock()
            for _ in repeat(None, _RECEIVES):
                receive(buffer, 1, flags)
            runs.append(clock() - start)

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    return min(runs) / _RECEIVES * 1e9


def compute() -> float:
    """Seconds of a computation that one goroutine makes: several of sysmon's slices."""

    def measure() -> float:
        runs, clock = [], time.process_time
        for _ in range(_RUNS // 2):
            start = clock()
            total = 0
            for i in range(_ADDITIONS):
                total += i & 7
            runs.append(clock() - start)
        return min(runs)

    return gmprt.run(lambda: gmprt.go(measure).result())


def _child(name: str, switch: str, value: str) -> float:
    command = [sys.executable, "-P", "-c", _BOOT.format(root=_ROOT, name=name)]
    env = {**os.environ, switch: value}
    return float(subprocess.run(command, env=env, capture_output=True, check=True).stdout)


def _bests(name: str, switch: str, pairs: int) -> tuple[float, float]:
    """Switched on and off."""
    turns = [(_child(name, switch, "1"), _child(name, switch, "0")) for _ in range(pairs)]
    on, off = zip(*turns, strict=True)
    return min(on), min(off)


def _recv_overhead(scale: Scale) -> Figures:
    on, off = _bests("receive", "GMPRT_INTERPOSE", scale.pairs)
    return {"added": on - off, "without": off}


def _preemption_cost(scale: Scale) -> Figures:
    on, off = _bests("compute", "GMPRT_PREEMPT", scale.pairs)
    return {"value": (on / off - 1) * 100}


def cases() -> dict[str, CaseFn]:
    """The rows about switches."""
    return {"recv_overhead": _recv_overhead, "preemption_cost": _preemption_cost}
