"""The C tests of the runtime (tests/c), with its own checks on."""

import os
import shutil

import pytest
from once import passes_once


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """Each C test has a watchdog of its own; all together take longer than a Python test may."""


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "gcc")) is None, reason="no C compiler")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_runtime() -> None:
    """tests/c/run.sh prints what has failed. Its asan and tsan builds are a matter for .ci/run."""
    folders = ["csrc", "gmprt/include", "tests/c"]
    passes_once(["bash", "tests/c/run.sh", "debug"], folders, timeout=900)
