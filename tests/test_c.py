"""The C tests of the runtime (tests/c), with its own checks on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "c" / "run.sh"


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """Each C test has a watchdog of its own; all together take longer than a Python test may."""


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "gcc")) is None, reason="no C compiler")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_runtime() -> None:
    """tests/c/run.sh prints what has failed. Its asan and tsan builds are a matter for .ci/run."""
    run = subprocess.run(
        ["bash", str(RUN), "debug"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout
