"""The protocols hold in their Spin models, and every variant that breaks a rule is caught."""

import shutil

import pytest
from once import passes_once

pytestmark = pytest.mark.skipif(shutil.which("spin") is None, reason="spin not installed")


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """Millions of states take as long as the machine makes it: see the time limit below."""


@pytest.mark.parametrize("model", ["idle", "licence", "park", "stw"])
def test_model(model: str) -> None:
    passes_once(["sh", "tests/models/run.sh", model], ["tests/models"], timeout=600)
