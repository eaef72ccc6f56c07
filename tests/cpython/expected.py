"""Differences that are meant: the rows of an expected.toml, each with its reason.

A row says where it holds and why:

    [[difference]]
    test = "test.test_time.ThreadClockTest.*"    # with wildcards
    module = "test.test_time"                    # left out: all
    position = "go"                              # or "run"; left out: both
    python = "3.13"                              # left out: all
    reason = "..."
"""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from pathlib import Path

FILE = Path(__file__).with_name("expected.toml")


class Expectations:
    def __init__(self, file: Path = FILE) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        rows = tomllib.loads(file.read_text("utf-8")).get("difference", [])
        self._rows = [row for row in rows if row.get("python", version) == version]

    def reason(self, module: str, position: str, test: str) -> str:
        """Why `test` may differ in `position`; empty if it may not."""
        here = {"module": module, "position": position}
        for row in self._rows:
            holds = all(row.get(key, value) == value for key, value in here.items())
            if holds and fnmatch.fnmatchcase(test, row["test"]):
                return str(row["reason"])
        return ""
