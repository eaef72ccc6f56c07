"""The protocols hold in their Spin models, and every variant that breaks a rule is caught."""

import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "models" / "run.sh"

pytestmark = pytest.mark.skipif(shutil.which("spin") is None, reason="spin not installed")


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """Millions of states take as long as the machine makes it: see the time limit below."""


@pytest.mark.parametrize("model", ["licence", "park", "stw"])
def test_model(model: str) -> None:
    run = subprocess.run(
        ["sh", str(RUN), model],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout
