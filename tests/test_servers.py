"""tests/threaded: servers and pools of threads as goroutines, some hundred clients of each.

All of them, with thousands: python -m tests.threaded (docs/servers.md).
"""

from __future__ import annotations

import pytest
from once import passes_once

CLIENTS = 300

CORE = {
    "gunicorn": "gunicorn",
    "gunicorn-restart": "gunicorn",
    "flask": "flask",
    "waitress": "waitress",
    "cheroot": "cheroot",
    "http.server": None,
    "executor": None,
    "to_thread": None,
    "apscheduler": "apscheduler",
}
"""Cases of tests/threaded/cases.py, and the package that each needs."""


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """The command has a limit of its own."""


@pytest.mark.parametrize("case", list(CORE))
def test_server(case: str) -> None:
    if package := CORE[case]:
        pytest.importorskip(package)
    command = ["python", "-m", "tests.threaded", case, f"--clients={CLIENTS}", "--limit=120"]
    passes_once(command, ["csrc", "gmprt/_life", "tests/threaded"], timeout=150)
