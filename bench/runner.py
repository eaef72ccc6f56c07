"""Runs cases in processes of their own and collects what they measured."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import echo, golang
from bench.catalog import COLUMNS, SPEEDUP, Case, Column

_ROOT = str(Path(__file__).resolve().parent.parent)

# An installed gmprt goes before the source tree, which may not be built: the tree comes last.
_BOOT = "import sys; sys.path.append({root!r}); from bench.case import main; sys.exit(main())"
_PYTHON = [sys.executable, "-P", "-c", _BOOT.format(root=_ROOT)]

TIMEOUT = "timeout"
_DUMP_SECONDS = 2.0
_TAIL = 4000


@dataclass
class Peer:
    """A peer as the probe found it."""

    name: str
    installed: bool = False
    version: str = ""
    error: str = ""
    cases: frozenset[str] = frozenset()
    command: list[str] = field(default_factory=list)

    def status(self) -> str:
        """Its version, or why it has none."""
        if self.error:
            return f"error: {self.error}"
        return self.version if self.installed else "not installed"


@dataclass
class Cell:
    """One row of one column: a value for each round, and what went wrong."""

    values: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def best(self, most: bool = False) -> float | None:
        """What the least disturbed round gave (most: the more the better); none if one failed."""
        if not self.values or self.errors:
            return None
        return max(self.values) if most else min(self.values)

    def median(self) -> float | None:
        """None if a round failed."""
        return statistics.median(self.values) if self.values and not self.errors else None

    def spread(self) -> float | None:
        """How far apart the rounds are, as a share of their median."""
        middle = self.median()
        return (max(self.values) - min(self.values)) / abs(middle) if middle else None


@dataclass
class Outcome:
    """How one process ended."""

    answer: dict[str, Any] | None
    error: str = ""  # in two or three words
    detail: str = ""  # the end of what it wrote


@dataclass(frozen=True)
class Settings:
    """How much to run."""

    rounds: int
    quick: bool
    timeout: float | None  # None: what the catalog says


Row = tuple[str, str]  # case, figure
Results = dict[Row, dict[str, Cell]]


def call(
    command: list[str], env: dict[str, str], timeout: float, cpus: set[int] | None = None
) -> Outcome:
    """Run `command`, which prints one line of JSON; it is gone on return, whatever happened."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cpus) if cpus else None,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return Outcome(None, f"{TIMEOUT} {timeout:g} s", _end(process)[-_TAIL:])
    except BaseException:
        _kill(process)
        process.wait()
        raise
    return _outcome(process.returncode, out, err)


def _outcome(status: int, out: str, err: str) -> Outcome:
    if status:
        return Outcome(None, _status(status), err[-_TAIL:])
    try:
        answer = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Outcome(None, "no figures", (out + err)[-_TAIL:])
    return Outcome(answer)


def _status(status: int) -> str:
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _kill(process: subprocess.Popen[str]) -> None:
    """The process leads a group of its own, which it takes along."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[str]) -> str:
    """End what takes too long; SIGQUIT first, at which gmprt and Go dump their goroutines."""
    with contextlib.suppress(OSError):  # others die of it, and need not leave a core
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
    process.send_signal(signal.SIGQUIT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=_DUMP_SECONDS)[1]
    _kill(process)
    return process.communicate()[1]


def last_line(text: str) -> str:
    """Usually the exception of a traceback."""
    return (text.strip().splitlines() or [""])[-1]


def find(name: str, timeout: float = 120.0) -> Peer:
    """Look for a peer, in a process of its own: importing some of them has effects."""
    if name == "go":
        return _find_go(timeout)
    peer = Peer(name, command=[*_PYTHON, name])
    return _probed(peer, call([*_PYTHON, name, "--probe"], {}, timeout))


def _find_go(timeout: float) -> Peer:
    go = golang.find_go()
    if go is None:
        return Peer("go")
    try:
        command = golang.build(go)
    except (RuntimeError, OSError) as error:
        return Peer("go", installed=True, error=str(error))
    return _probed(Peer("go", command=command), call([*command, "-list"], {}, timeout))


def _probed(peer: Peer, outcome: Outcome) -> Peer:
    if outcome.answer is None:
        peer.installed, peer.error = True, f"{outcome.error} {last_line(outcome.detail)}"
        return peer
    peer.installed = bool(outcome.answer.get("installed", True))
    peer.version = str(outcome.answer.get("version", ""))
    peer.cases = frozenset(outcome.answer.get("cases", ()))
    return peer


def run_all(
    cases: list[Case],
    columns: list[Column],
    peers: dict[str, Peer],
    settings: Settings,
    progress: Callable[[str], None],
) -> Results:
    """Every case in every column; the rounds of one case go round the columns."""
    results: Results = {(case.name, figure): {} for case in cases for figure in case.figures}
    for case, column, turn in _order(cases, columns, settings.rounds):
        peer = peers[column.peer]
        if case.name not in peer.cases or _given_up(results, case, column):
            continue
        progress(f"{case.name}: {column.name}, round {turn + 1}")
        outcome = _run_case(case, column, peer, settings)
        if outcome.error:
            progress(f"{case.name}: {column.name}: {outcome.error}")
        _record(results, case, column, outcome)
    _add_speedup(results)
    return results


def _run_case(case: Case, column: Column, peer: Peer, settings: Settings) -> Outcome:
    flags = ["--quick"] if settings.quick else []
    # Options first: the peer in Go knows them only there.
    command = [*peer.command, *flags, case.name]
    cpus, env = echo.placed() if case.placed else (None, {})
    return call(command, column.env | env, settings.timeout or case.timeout, cpus)


def _order(
    cases: list[Case], columns: list[Column], rounds: int
) -> Iterator[tuple[Case, Column, int]]:
    for case in cases:
        for turn in range(min(rounds, case.most_rounds)):
            for column in columns:
                yield case, column, turn


def _given_up(results: Results, case: Case, column: Column) -> bool:
    """Whether an earlier round took too long; a crash is tried again, to show how often."""
    cell = results[case.name, case.figures[0]].get(column.name)
    return cell is not None and any(error.startswith(TIMEOUT) for error in cell.errors)


def _record(results: Results, case: Case, column: Column, outcome: Outcome) -> None:
    for figure in case.figures:
        cell = results[case.name, figure].setdefault(column.name, Cell())
        if outcome.answer is not None and figure in outcome.answer:
            cell.values.append(float(outcome.answer[figure]))
        else:
            cell.errors.append(outcome.error or f"no figure {figure!r}")
            cell.details.append(outcome.detail)


def _add_speedup(results: Results) -> None:
    """The tree's time at one P over that at two, round by round, in the column of two."""
    tree = results.get(("native_tree", "value"))
    if tree is None:
        return
    row: dict[str, Cell] = {}
    for one, two in _widened():
        if one in tree and two in tree:
            pairs = zip(tree[one].values, tree[two].values, strict=False)
            row[two] = Cell(
                [single / double for single, double in pairs],
                tree[one].errors + tree[two].errors,
            )
    results["native_tree", SPEEDUP] = row


def _widened() -> list[tuple[str, str]]:
    """Columns of one peer at one and at two Ps."""
    names = [column.name for column in COLUMNS]
    return [(name, f"{name[:-1]}2") for name in names if name.endswith("P=1")]
