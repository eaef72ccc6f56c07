"""One test module in one position, in this process: python -m tests.cpython.worker --help.

Each event goes to a file of JSON lines as it happens, so that whoever reads it after a crash knows
which test was running.  Lines are {"start": id}, {"test": id, "verdict": word, "text": ...} and
{"end": true}; those of forked children that came back into the test suite have "forked" in
addition.  Tests that the file has already are not run again.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import fnmatch
import importlib
import json
import os
import random
import sys
import threading
import traceback
import unittest
from collections.abc import Callable, Container
from types import TracebackType
from typing import Any

import test.support  # type: ignore[import-not-found]

from tests.cpython import find

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

# What the tests may use beyond the usual (python -m test --help).
RESOURCES = ("network", "cpu", "walltime", "subprocess", "decimal")

# Not run in any position.  Nobody answers on a kernel that offers vsock without a peer; the second
# waits five minutes for a thread if that has had time to begin its work.
EXCLUDED = (
    "test.test_socket.ThreadedVSOCKSocketStreamTest.*",
    "*.WithThreadsTestPool.test_terminate",
)

# Of the verdicts that one test collects (subtests, tearDown) the first of these is the one.
VERDICTS = ("error", "fail", "unexpected success", "skip", "expected failure", "ok")


class Recorder(unittest.TestResult):
    """Writes down what happens to each test, and arms the watchdog for it."""

    def __init__(self, path: str, limit: float) -> None:
        super().__init__()
        self.names: dict[int, str] = {}  # of the tests, by their id()
        self._path = path
        self._limit = limit
        self._pid = os.getpid()
        self._collected: list[tuple[str, str]] | None = None  # of the running test
        self._stderr = os.dup(2)

    def _name(self, test: unittest.TestCase) -> str:
        return self.names.get(id(test)) or test.id()

    def write(self, **event: object) -> None:
        forked = os.getpid() != self._pid
        if forked:
            event["forked"] = True
        # Opened anew each time: tests close descriptors, and move on to others.
        with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(event) + "\n")
        if forked:
            os._exit(1)  # the other tests are not its business

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.write(start=self._name(test))
        self._collected = []
        if self._limit:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._stderr)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if self._collected is None:
            return  # 3.12.1 does not start a test that is skipped, but stops it
        collected, self._collected = self._collected, None
        verdict, text = min(collected, key=lambda v: VERDICTS.index(v[0]), default=("ok", ""))
        self.write(test=self._name(test), verdict=verdict, text=text)
        if self._limit:
            faulthandler.cancel_dump_traceback_later()

    def _collect(self, test: unittest.TestCase, verdict: str, text: str = "") -> None:
        if self._collected is None:  # setUpClass, setUpModule and their like are no tests
            self.write(test=self._name(test), verdict=verdict, text=text)
        else:
            self._collected.append((verdict, text))

    def _describe(self, err: ExcInfo, test: unittest.TestCase) -> str:
        return str(self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._collect(test, "error", self._describe(err, test))

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._collect(test, "fail", self._describe(err, test))

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None
    ) -> None:
        if err is not None and err[0] is not None:
            verdict = "fail" if issubclass(err[0], test.failureException) else "error"
            self._collect(test, verdict, f"{subtest}\n{self._describe(err, test)}")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._collect(test, "skip", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._collect(test, "expected failure", self._describe(err, test))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._collect(test, "unexpected success")


# ---- what is run -------------------------------------------------------------------------------


def leaves(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for test_ in suite:
        found += leaves(test_) if isinstance(test_, unittest.TestSuite) else [test_]
    return found


def named(suite: unittest.TestSuite) -> dict[int, str]:
    """The name of each test, by its id(): test.id(), with a number if there are several."""
    seen: collections.Counter[str] = collections.Counter()
    names: dict[int, str] = {}
    for test_ in leaves(suite):
        name = test_.id()
        seen[name] += 1
        names[id(test_)] = name if seen[name] == 1 else f"{name} #{seen[name]}"
    return names


def keep(suite: unittest.TestSuite, wanted: Callable[[unittest.TestCase], bool]) -> None:
    """Take out what is not wanted, in place: some suites are of classes of their own."""
    tests: list[Any] = suite._tests
    for test_ in tests:
        if isinstance(test_, unittest.TestSuite):
            keep(test_, wanted)
    tests[:] = [t for t in tests if isinstance(t, unittest.TestSuite) or wanted(t)]


def within(name: str, names: Container[str]) -> bool:
    """Whether the test or its class or module is among `names`."""
    ends = [i for i, c in enumerate(name) if c == "."] + [len(name)]
    return any(name[:end] in names for end in ends)


def excluded(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in EXCLUDED)


def recorded(path: str) -> set[str]:
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8") as file:
        return {event.get("start") or event.get("test") for event in map(json.loads, file)}


def run(module: str, options: argparse.Namespace) -> None:
    """The tests of `module`, wherever the caller stands."""
    recorder = Recorder(options.events, options.limit)
    try:
        loaded = importlib.import_module(module)
    except unittest.SkipTest as skipped:
        recorder.write(test=module, verdict="skip", text=str(skipped))
    else:
        suite = unittest.defaultTestLoader.loadTestsFromModule(loaded)
        names = recorder.names = named(suite)
        only, done = set(options.only), recorded(options.events)

        def wanted(t: unittest.TestCase) -> bool:
            name = names[id(t)]
            return name not in done and (not only or within(name, only)) and not excluded(name)

        keep(suite, wanted)
        suite.run(recorder)
        test.support.gc_collect()
        test.support.reap_children()
    recorder.write(end=True)


# ---- where it is run -----------------------------------------------------------------------------


def stand(position: str, call: Callable[[], None]) -> None:
    if position == "plain":
        call()
    elif position == "thread":
        ended = threading.Event()
        threading.Thread(target=until, args=(ended, call), daemon=True).start()  # as goroutines are
        wait(ended.wait, ended.is_set)
    else:
        import gmprt

        if position == "threads":
            gmprt.debug.install_sigquit()
            gmprt.threads(True)
            call()
        elif position == "run":
            gmprt.run(call)
        else:
            gmprt.debug.install_sigquit()  # run() does it by itself
            goroutine = gmprt.go(deep, call, 4)  # as on a thread: some tests count frames
            wait(goroutine.join, goroutine.done)
            goroutine.result()


def until(ended: threading.Event, call: Callable[[], None]) -> None:
    """For one who must not join: a thread whose join() was interrupted may count as ended."""
    try:
        call()
    finally:
        ended.set()


def deep(call: Callable[[], None], frames: int) -> None:
    if frames > 1:
        deep(call, frames - 1)
    else:
        call()


def wait(join: Callable[[], object], ended: Callable[[], bool]) -> None:
    """Wait on the main thread: there signal handlers run, and raise what the tests wish."""
    while not ended():
        try:
            join()
        except (Exception, KeyboardInterrupt):
            traceback.print_exc()


def prepare() -> None:
    """What python -m test does before it runs a test."""
    faulthandler.enable()
    test.support.record_original_stdout(sys.stdout)
    test.support.verbose = 0
    test.support.use_resources = list(RESOURCES)
    random.seed(1)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.cpython.worker")
    parser.add_argument("module", help="as python -m test calls it, or a full name with a dot")
    parser.add_argument("position", help="plain, run, thread, go or threads")
    parser.add_argument("events", help="the file to write to")
    parser.add_argument("--limit", type=float, default=0, help="seconds for one test")
    parser.add_argument("--only", action="append", default=[], help="a test, class or module")
    parser.add_argument("--dir", default=".", help="where to run")
    return parser


def main() -> None:
    options = parser().parse_args()
    os.chdir(options.dir)
    prepare()
    module = find(options.module) or options.module
    stand(options.position, lambda: run(module, options))


if __name__ == "__main__":
    main()
