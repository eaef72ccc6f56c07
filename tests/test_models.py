"""The protocols hold in Spin models and litmus tests; variants that break a rule are caught."""

import shutil

import pytest
from once import passes_once


@pytest.fixture(autouse=True)
def _watchdog() -> None:
    """Millions of states take as long as the machine makes it: see the time limit below."""


@pytest.mark.skipif(shutil.which("spin") is None, reason="spin not installed")
@pytest.mark.parametrize("model", ["idle", "licence", "park", "stw"])
def test_model(model: str) -> None:
    passes_once(["sh", "tests/models/run.sh", model], ["tests/models"], timeout=600)


@pytest.mark.skipif(shutil.which("herd7") is None, reason="herd7 not installed")
def test_litmus() -> None:
    passes_once(["sh", "tests/models/litmus.sh"], ["tests/models"], timeout=300)
