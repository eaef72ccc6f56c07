"""CPython's own tests in goroutines: some of them, and whether what differs would be seen.

All of them: python -m tests.cpython run (docs/cpython-tests.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

MODULES = [
    "test_thread",
    "test_threading_local",
    "test_threadsignals",
    "test_fork1",
    "test_select",
    "test_epoll",
    "test_socketserver",
    "test_urllib2_localnet",
    "test_fileio",
    "test_context",
    "test_sched",
    "test_generators",
    "test_coroutines",
]


def run(
    tmp_path: Path, modules: list[str], position: str, limit: int, status: int
) -> tuple[dict[str, Any], str]:
    """What the runner wrote about the modules, and what it printed."""
    output = tmp_path / "output.json"
    command = [sys.executable, "-m", "tests.cpython", "run", *modules, f"--position={position}"]
    command += ["--jobs=4", f"--limit={limit}"]  # they sleep, mostly
    command += [f"--logs={tmp_path / 'logs'}", f"--output={output}"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, f"{done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(output.read_text())["modules"]
    return found, done.stdout


@pytest.mark.parametrize("position", ["run", "go", "threads"])
def test_as_on_a_thread(tmp_path: Path, position: str) -> None:
    found, printed = run(tmp_path, MODULES, position, limit=60, status=0)
    if not any(found.values()):
        pytest.skip("the interpreter's tests are not installed")
    for module in filter(None, found.values()):
        assert len(module["outcomes"]) == 2, printed
        assert all(outcome["tests"] for outcome in module["outcomes"].values()), printed


# ---- the runner itself -------------------------------------------------------------------------

BAD = """
import os
import sys
import time
import unittest

IN_GOROUTINE = "gmprt" in sys.modules

class Tests(unittest.TestCase):
    def test_1_passes(self):
        pass

    def test_2_fails(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertFalse(IN_GOROUTINE and i == 1)

    def test_3_crashes(self):
        if IN_GOROUTINE:
            os.abort()

    def test_4_hangs(self):
        if IN_GOROUTINE:
            time.sleep(1000)

    def test_5_is_lucky(self):
        # Fails the first time only.
        mark = os.environ["MARK"] + str(IN_GOROUTINE)
        if IN_GOROUTINE and not os.path.exists(mark):
            open(mark, "w").close()
            self.fail()

    @unittest.skipIf(IN_GOROUTINE, "skipped")
    def test_6_is_skipped(self):
        pass

    def test_7_comes_back_from_a_fork(self):
        if IN_GOROUTINE and os.fork():
            os.wait()

    def test_8_fails_everywhere(self):
        self.fail()
"""


@pytest.mark.parametrize("position", ["run", "go", "threads"])
def test_differences_are_seen(
    tmp_path: Path, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text("")
    (tmp_path / "bad" / "tests.py").write_text(textwrap.dedent(BAD))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    modules, _ = run(tmp_path, ["bad.tests"], position, limit=3, status=1)
    found = modules["bad.tests"]
    name = "bad.tests.Tests.test_"
    seen = {
        d["test"].removeprefix(name): (d["was"], d["now"], d["flaky"]) for d in found["differences"]
    }
    assert seen == {
        "2_fails": ("ok", "fail", False),
        "3_crashes": ("ok", "crashes", False),
        "4_hangs": ("ok", "hangs", False),
        "5_is_lucky": ("ok", "fail", True),
        "6_is_skipped": ("ok", "skip", False),
        "7_comes_back_from_a_fork (in a forked child)": ("not run", "ok", False),
    }
    tests = found["outcomes"][position]["tests"]
    assert tests[name + "8_fails_everywhere"] == "fail"
