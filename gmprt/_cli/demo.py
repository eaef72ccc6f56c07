"""The demonstration behind `python -m gmprt demo`: a channel pipeline, then a crowd that waits.

The pipeline counts the tokens of Python files.  One goroutine per file reads it; a few workers
tokenize; one function adds up.  They are joined by two channels, whose closing is what ends it:

    reader, one per file  --sources-->  worker, a few  --counts-->  count_concurrently()

The result is compared with that of a plain loop.  On an interpreter with a GIL the loop is as fast:
tokenizing is Python code.  The point is that thousands of goroutines cost next to nothing.
"""

from __future__ import annotations

import gc
import io
import keyword
import os
import sys
import sysconfig
import time
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gmprt import Chan, RecvChan, Semaphore, SendChan, Stats, WaitGroup, go, run, sleep, stats

_OPEN_FILES = 64  # at once: there are more goroutines than a process may have descriptors
_MOST_FREQUENT = 10
_SKIPPED = {"site-packages", "dist-packages", "__pycache__"}
_KB_NEEDED = 12  # memory to have at hand for each parked goroutine


@dataclass
class Source:
    """A file that was read; no data if it could not be."""

    data: bytes | None


@dataclass
class Count:
    """What is counted, of one file or of all."""

    files: int = 0
    size: int = 0
    tokens: int = 0
    errors: int = 0
    names: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: Count) -> None:
        self.files += other.files
        self.size += other.size
        self.tokens += other.tokens
        self.errors += other.errors
        self.names.update(other.names)


class Progress:
    """A bar on a terminal; nothing elsewhere."""

    _WIDTH = 40
    _INTERVAL = 0.1  # seconds between two paintings

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._next = 0.0
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + self._INTERVAL
            full = self._WIDTH * self._done // max(self._total, 1)
            bar = "#" * full + "." * (self._WIDTH - full)
            self._paint(f"{self._what} [{bar}] {self._done}/{self._total}")

    def clear(self) -> None:
        if self._shown:
            self._paint("")

    def _paint(self, line: str) -> None:
        sys.stderr.write(f"\r{line}\x1b[K")  # back to the margin; erase what was longer
        sys.stderr.flush()


def standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def python_files(folder: Path) -> list[Path]:
    """The .py files below `folder`, in a fixed order, without installed packages."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED)
        found += [Path(parent, name) for name in sorted(files) if name.endswith(".py")]
    return found


def read(path: Path) -> Source:
    try:
        return Source(path.read_bytes())
    except OSError:
        return Source(None)


def count(source: Source) -> Count:
    """Count one file.  What does not tokenize is counted as far as it goes, and as an error."""
    if source.data is None:
        return Count(files=1, errors=1)
    one = Count(files=1, size=len(source.data))
    try:
        for token in tokenize.tokenize(io.BytesIO(source.data).readline):
            one.tokens += 1
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                one.names[token.string] += 1
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        one.errors = 1
    return one


def count_sequentially(paths: list[Path]) -> Count:
    total = Count()
    progress = Progress("checking", len(paths))
    for path in paths:
        total.add(count(read(path)))
        progress.step()
    progress.clear()
    return total


def count_concurrently(paths: list[Path], workers: int) -> Count:
    """The pipeline.  Call it in a goroutine or in an ordinary thread."""
    sources: Chan[Source] = Chan(workers, name="sources")
    counts: Chan[Count] = Chan(workers, name="counts")
    open_files = Semaphore(_OPEN_FILES)
    readers, counters = WaitGroup(), WaitGroup()
    for path in paths:
        readers.go(_reader, path, open_files, sources.sender)
    for _ in range(workers):
        counters.go(_worker, sources.receiver, counts.sender)
    go(_close_after, readers, sources.sender)
    go(_close_after, counters, counts.sender)
    return _sum(counts.receiver, Progress("counting", len(paths)))


def _reader(path: Path, open_files: Semaphore, out: SendChan[Source]) -> None:
    with open_files:
        source = read(path)
    out.send(source)


def _worker(sources: RecvChan[Source], out: SendChan[Count]) -> None:
    for source in sources:
        out.send(count(source))


def _close_after(senders: WaitGroup, ch: SendChan[Source] | SendChan[Count]) -> None:
    """A channel may be closed when nobody sends any more."""
    senders.wait()
    ch.close()


def _sum(counts: Iterable[Count], progress: Progress) -> Count:
    total = Count()
    for one in counts:
        total.add(one)
        progress.step()
    progress.clear()
    return total


@dataclass(frozen=True)
class Crowd:
    """What many parked goroutines cost."""

    goroutines: int
    start_seconds: float
    """From the first go() until the last goroutine is parked."""
    memory_kb: float
    """Of each one: resident memory and page tables, in KB."""
    end_seconds: float
    """From the close of their channel until the last one has ended."""


def park(goroutines: int) -> Crowd:
    """Park `goroutines` on one channel, then wake all by closing it.  Call it in a goroutine."""
    gate: Chan[None] = Chan(name="gate")
    ended = WaitGroup()
    ended.add(goroutines)
    gc.collect()
    before = memory_kb()
    start = time.perf_counter()
    for _ in range(goroutines):
        go(_stand_at, gate.receiver, ended)
    while gate.waiting()[1] < goroutines:
        sleep(0.001)
    parked = time.perf_counter()
    used = memory_kb() - before
    closing = time.perf_counter()
    gate.close()
    ended.wait()
    end = time.perf_counter()
    return Crowd(goroutines, parked - start, used / max(goroutines, 1), end - closing)


def _stand_at(gate: RecvChan[None], ended: WaitGroup) -> None:
    gate.recv_ok()
    ended.done()


def memory_kb() -> int:
    """Resident memory of this process, page tables included: deep address space costs those."""
    wanted = ("VmRSS:", "VmPTE:")
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith(wanted))


def _available_kb() -> int:
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1])
    return sys.maxsize


def demo(folder: Path, workers: int, parked: int) -> int:
    """Run all of it and print the results; return the process's exit status."""
    paths = python_files(folder)
    if not paths:
        print(f"no Python files below {folder}", file=sys.stderr)
        return 2
    before, start = stats(), time.perf_counter()
    total = run(count_concurrently, paths, workers)
    seconds = time.perf_counter() - start
    print("\n".join(_pipeline_report(folder, total, seconds, workers)))
    print("\n".join(_runtime_report(before, stats())))
    start = time.perf_counter()
    same = count_sequentially(paths) == total
    seconds = time.perf_counter() - start
    verdict = "checked: equal to" if same else "FAILED: differs from"
    print(f"{verdict} a sequential run of {seconds:.2f} s")
    if parked:
        print("\n".join(_crowd_report(run(park, _affordable(parked)))))
    return 0 if same else 1


def _affordable(parked: int) -> int:
    most = _available_kb() // _KB_NEEDED
    if parked > most:
        print(f"memory for {most} parked goroutines only, not for {parked}")
    return min(parked, most)


def _pipeline_report(folder: Path, total: Count, seconds: float, workers: int) -> Iterator[str]:
    yield f"{folder}: {total.files} files by {workers} workers in {seconds:.2f} s"
    yield f"  {total.size / 1e3:,.0f} KB, {total.tokens} tokens, {len(total.names)} different names"
    yield f"  {total.errors} files could not be read or do not tokenize"
    # Equal counts in a fixed order, whatever the order in which files arrived.
    ranked = sorted(total.names.items(), key=lambda item: (-item[1], item[0]))
    frequent = ", ".join(f"{name} {n}" for name, n in ranked[:_MOST_FREQUENT])
    yield f"  most frequent names: {frequent}"


def _runtime_report(before: Stats, after: Stats) -> Iterator[str]:
    yield (
        f"  {after.started - before.started} goroutines, {after.parks - before.parks} parks, "
        f"{after.steals - before.steals} steals, {after.handoffs - before.handoffs} hand-offs, "
        f"{after.threads} threads"
    )


def _crowd_report(crowd: Crowd) -> Iterator[str]:
    n = crowd.goroutines
    yield (
        f"{n} goroutines parked on one channel in {crowd.start_seconds:.2f} s, "
        f"{crowd.memory_kb:.1f} KB each"
    )
    yield f"all of them woken and ended in {crowd.end_seconds:.2f} s"
