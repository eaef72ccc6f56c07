"""A plugin of pytest: writes down what happens to each test, as tests/cpython/worker.py does.

It is imported by its link in the environment of the library, so it needs nothing of the project.
"""

from __future__ import annotations

import faulthandler
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

# Of the verdicts of a test's phases (and subtests) the first of these is the one.
VERDICTS = ("error", "fail", "skip", "expected failure", "ok")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gmprt")
    group.addoption("--gmprt-events", metavar="FILE")
    group.addoption("--gmprt-only", metavar="TEST", action="append", default=[])
    group.addoption("--gmprt-limit", type=float, default=0.0, metavar="SECONDS")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--gmprt-events")
    if path:
        config.pluginmanager.register(Recorder(path, config.getoption("--gmprt-limit")))


class Recorder:
    def __init__(self, path: str, limit: float) -> None:
        self._path = path
        self._limit = limit
        self._pid = os.getpid()
        self._stderr = os.dup(2)
        self._collected: list[tuple[str, str]] = []  # of the running test
        self._done = set(self._recorded())

    def _recorded(self) -> Iterator[str]:
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                for event in map(json.loads, file):
                    yield event.get("start") or event.get("test", "")

    def _write(self, **event: object) -> None:
        forked = os.getpid() != self._pid
        if forked:
            event["forked"] = True
        with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(event) + "\n")
        if forked:
            os._exit(1)  # the other tests are not its business

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        only = set(config.getoption("--gmprt-only"))
        wanted = {i.nodeid for i in items if not only or i.nodeid in only} - self._done
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in wanted])
        items[:] = [i for i in items if i.nodeid in wanted]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and report.nodeid not in self._done:
            self._write(test=report.nodeid, verdict="error", text=report.longreprtext)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._collected = []
        self._write(start=nodeid)
        if self._limit:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._stderr)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collected.append((verdict(report), report.longreprtext))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self._limit:
            faulthandler.cancel_dump_traceback_later()
        word, text = min(self._collected, key=lambda v: VERDICTS.index(v[0]), default=("ok", ""))
        self._write(test=nodeid, verdict=word, text=text)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._write(end=True)
        session.exitstatus = 0  # failures are recorded


def verdict(report: pytest.TestReport) -> str:
    if report.failed:
        return "fail" if report.when == "call" else "error"
    if hasattr(report, "wasxfail"):
        return "expected failure"  # or a pass: a strict one that passes has failed
    return "skip" if report.skipped else "ok"
