"""A plugin of pytest for asan.sh: prints what the sanitizers report after the test that it is from.

A report goes to a file "$ASAN_REPORTS.<pid>": the stderr of a child is the test's own affair.
"""

from __future__ import annotations

import glob
import inspect
import os

import pytest

_printed: dict[str, int] = {}
"""How much of each file: undefined behaviour is reported and the process goes on."""

_IMPOSSIBLE = {
    "RLIMIT_AS": "the sanitizer needs address space, too",
    "LD_PRELOAD": "the sanitizer must be the first library",
    "/statm": "the sanitizer keeps freed memory",
    "EARLY": "another thread may have had the sanitizer's heap locked when this one forked",
    ".hibernating": "the sanitizer keeps books of stacks: nobody sleeps without one",
}
"""What a test contains, and why it cannot run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        source = inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
        for text, reason in _IMPOSSIBLE.items():
            if text in source:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "teardown":
        return
    for path in sorted(glob.glob(os.environ["ASAN_REPORTS"] + ".*")):
        with open(path, errors="replace") as file:
            file.seek(_printed.get(path, 0))
            text = file.read()
            _printed[path] = file.tell()
        if text:
            print(f"\n--- the sanitizer, in or before {report.nodeid}\n{text}", flush=True)
