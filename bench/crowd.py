"""Goroutines parked on one channel: ``python -m bench.crowd [COUNT]``, a million of them.

It runs in a child process, whose resident memory and page tables are looked at from outside
meanwhile: that takes nothing from it, and finds the peak.  A million needs 4 GB of memory.

parked     the seconds from the first `go` until all wait
asleep     until nobody falls asleep any more
ended      from the close of the channel until all are joined
later      memory ten seconds after that, and after some more, with no goroutine left
"""

from __future__ import annotations

import argparse
import platform
import select
import subprocess
import sys
import time

import gmprt
from bench.common import nothing
from gmprt import Chan, go

AFTER = 10.0
LOOK = 0.05
QUIET = 2.0  # nobody has fallen asleep for so long: nobody will


def memory(pid: int | str = "self") -> int:
    """Resident memory and page tables, bytes; 0: it has ended."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        lines = [line.split() for line in status if line.startswith(("VmRSS:", "VmPTE:"))]
    return sum(int(words[1]) for words in lines) * 1024


def mark(stage: str, seconds: float = 0.0) -> None:
    """Tell whoever looks from outside."""
    cpu = time.process_time()
    print(stage, round(seconds, 2), memory(), gmprt.stats().hibernating, round(cpu, 2), flush=True)


def fall_asleep() -> None:
    """Until nobody does any more."""
    seen, since = -1, time.perf_counter()
    while time.perf_counter() - since < QUIET:
        gmprt.sleep(LOOK)
        now = gmprt.stats().hibernating
        if now != seen:
            seen, since = now, time.perf_counter()


def crowd(count: int) -> None:
    """What is measured."""
    items: Chan[None] = Chan()
    go(nothing).join()
    mark("before")
    begin = time.perf_counter()
    goroutines = [go(items.recv_ok) for _ in range(count)]
    while items.waiting()[1] < count:
        gmprt.sleep(LOOK)
    mark("parked", time.perf_counter() - begin)
    begin = time.perf_counter()
    fall_asleep()
    mark("asleep", time.perf_counter() - begin - QUIET)
    begin = time.perf_counter()
    items.close()
    for goroutine in goroutines:
        goroutine.join()
    mark("ended", time.perf_counter() - begin)
    goroutines.clear()
    for _ in range(2):
        time.sleep(AFTER)
        mark("later", AFTER)


def watched(count: int) -> None:
    """A table: the stages of a child, and the most memory up to each."""
    command = [sys.executable, "-m", "bench.crowd", "--child", str(count)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    peak, cpu, stages = 0.0, 0.0, child.stdout
    print(f"{count} goroutines, Python {platform.python_version()}, gmprt {gmprt.__version__}")
    print(f"{'':8}{'seconds':>9}{'CPU, s':>9}{'memory, MB':>12}{'highest':>9}{'asleep':>10}")
    while True:
        ready, _, _ = select.select([stages], [], [], LOOK)
        if not ready:
            peak = max(peak, memory(child.pid))
            continue
        words = stages.readline().split()
        if not words:
            break
        stage, (seconds, now, asleep, total) = words[0], map(float, words[1:])
        peak = max(peak, now)
        print(
            f"{stage:8}{seconds:9.2f}{total - cpu:9.2f}"
            f"{now / 1e6:12.0f}{peak / 1e6:9.0f}{asleep:10.0f}",
            flush=True,
        )
        cpu = total
    if child.wait():
        raise SystemExit(f"the child ended with {child.returncode}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        gmprt.run(crowd, args.count)
    else:
        watched(args.count)


if __name__ == "__main__":
    main()
