"""Workers: started, watched, and started again behind a test that took one down.

A worker is any process that writes the events of worker.py and leaves out what is recorded in them:
those of tests/thirdparty run pytest.

A test that exceeds its time is ended from three sides, each for when the one before cannot: gmprt's
dump is asked for by SIGQUIT, the worker's own faulthandler dumps its threads and ends it, and at
last it is killed from here.  The dumps are in the log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Seconds that the sides mentioned above get after each other; less if tests have little time.
GRACE = 15.0

TEXT = 4000  # characters kept of a log or a traceback


@dataclass
class Outcome:
    """What became of one module in one position."""

    tests: dict[str, str] = field(default_factory=dict)
    """The verdict of each test by its name: those of unittest, "hangs" or "crashes"."""
    texts: dict[str, str] = field(default_factory=dict)
    """The traceback, the reason or the end of the log, for tests that are not "ok"."""
    end: str = ""
    """How the process ended if not by itself, with status 0."""
    seconds: float = 0.0

    def count(self, *verdicts: str) -> int:
        return sum(verdict in verdicts for verdict in self.tests.values())


class Runner:
    """Runs modules; `limit` is the time for one test."""

    def __init__(self, logs: Path, limit: float) -> None:
        self._logs = logs
        self._limit = limit

    def run(self, module: str, position: str, only: Sequence[str] = ()) -> Outcome:
        log = self._logs / f"{module}.{position}{'.again' if only else ''}.log"

        def command(events: Path, folder: Path) -> list[str]:
            arguments = [module, position, str(events), f"--dir={folder}"]
            arguments += [f"--limit={self._limit}", *(f"--only={name}" for name in only)]
            return [sys.executable, "-m", "tests.cpython.worker", *arguments]

        return work(command, Work(module, position, ROOT, log, self._limit))


@dataclass
class Work:
    """What a worker is to do, but for its command."""

    module: str
    position: str
    cwd: Path
    log: Path
    limit: float
    """Seconds for one test."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment."""


Command = Callable[[Path, Path], list[str]]
"""The command of a worker, by the file for its events and the folder for its temporary files."""


def work(command: Command, what: Work) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cpt-", ignore_cleanup_errors=True) as name:
        worker = _Worker(Path(name), command, what)
        worker.run_to_end()
        outcome = worker.outcome()
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


class _Worker:
    """One module in one position, in as many processes as it takes."""

    def __init__(self, folder: Path, command: Command, what: Work) -> None:
        self._what = what
        self._events = folder / "events"
        self._limit = what.limit
        self._grace = min(GRACE, what.limit / 2)
        self._end = ""
        self._folder = folder / "t"  # short: tests bind Unix sockets in it
        self._folder.mkdir()
        self._command = command(self._events, self._folder)

    def run_to_end(self) -> None:
        done = -1
        with open(self._what.log, "wb") as log:
            while not self._ended() and done < (done := len(self._judged())):
                status, late = self._run_process(log)
                if late or status:
                    self._settle(status, late)

    def _run_process(self, log: Any) -> tuple[int, bool]:
        """The exit status, and whether it had to be ended."""
        process = subprocess.Popen(
            self._command,
            cwd=self._what.cwd,
            env={**os.environ, "TMPDIR": str(self._folder), "PYTHONUNBUFFERED": "1"}
            | self._what.variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            late = self._watch(process)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # and what the tests have left behind
            except ProcessLookupError:
                pass
            process.wait()
        return process.returncode, late

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        size, since, asked = -1, time.monotonic(), False
        while process.poll() is None:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
            now = self._events.stat().st_size if self._events.exists() else 0
            if now != size:
                size, since, asked = now, time.monotonic(), False
            waited = time.monotonic() - since
            has_gmprt = self._what.position in ("run", "go", "threads")
            if waited > self._limit - self._grace and not asked and has_gmprt:
                process.send_signal(signal.SIGQUIT)
                asked = True
            if waited > self._limit + self._grace:
                return True
        return time.monotonic() - since > self._limit - 1

    # ---- events ----

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._events.exists():
            with open(self._events, encoding="utf-8") as file:
                yield from map(json.loads, file)

    def _verdicts(self) -> list[dict[str, Any]]:
        return [event for event in self._read() if "verdict" in event]

    def _judged(self) -> set[str]:
        """The tests that have a verdict: who gets to none adds nothing the second time."""
        return {event["test"] for event in self._verdicts()}

    def _ended(self) -> bool:
        return any("end" in event for event in self._read())

    def _running(self) -> str:
        """The test that was running when the process ended; empty if none was."""
        running = ""
        for event in self._read():
            if "forked" not in event:
                running = event.get("start", "")
        return running

    def _settle(self, status: int, late: bool) -> None:
        """The process has not ended well: whose fault is it?"""
        how = "hangs" if late else "crashes"
        name = f"signal {-status}" if status < 0 else f"status {status}"
        text = f"{name}\n{self._what.log.read_text('utf-8', 'replace')[-TEXT:]}"
        if self._ended():
            self._end = f"{how} at exit" if late or status < 0 else name
            return
        test = self._running() or f"{self._what.module} (between tests)"
        with open(self._events, "a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "verdict": how, "text": text}) + "\n")

    def outcome(self) -> Outcome:
        outcome = Outcome(end=self._end)
        for event in self._verdicts():
            name = event["test"] + (" (in a forked child)" if "forked" in event else "")
            outcome.tests[name] = event["verdict"]
            if event["verdict"] != "ok":
                outcome.texts[name] = event.get("text", "")[-TEXT:]
        return outcome
