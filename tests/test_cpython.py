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
    "test_queue",
    "test_select",
    "test_poll",
    "test_epoll",
    "test_fork1",
    "test_threadsignals",
    "test_context",
    "test_generators",
]


def run(
    tmp_path: Path, module: str, position: str, limit: int, status: int
) -> tuple[dict[str, Any], str]:
    """What the runner wrote about the module, and what it printed."""
    output = tmp_path / "output.json"
    command = [sys.executable, "-m", "tests.cpython", "run", module, f"--position={position}"]
    command += [f"--limit={limit}", f"--logs={tmp_path / 'logs'}", f"--output={output}"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == status, f"{done.stdout}{done.stderr}"
    return json.loads(output.read_text())["modules"][module], done.stdout


@pytest.mark.parametrize("position", ["run", "go"])
@pytest.mark.parametrize("module", MODULES)
def test_as_on_a_thread(tmp_path: Path, module: str, position: str) -> None:
    found, printed = run(tmp_path, module, position, limit=40, status=0)
    if found is None:
        pytest.skip("not installed")
    assert len(found["outcomes"]) == 2, printed
    assert not [d for d in found["differences"] if not d["flaky"] and not d["reason"]]


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


@pytest.mark.parametrize("position", ["run", "go"])
def test_differences_are_seen(
    tmp_path: Path, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text("")
    (tmp_path / "bad" / "tests.py").write_text(textwrap.dedent(BAD))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    found, _ = run(tmp_path, "bad.tests", position, limit=3, status=1)
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
