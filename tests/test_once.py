"""tests/once.py: a check that passed is not repeated for the same files, one that failed is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import once
import pytest


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(once, "ROOT", tmp_path)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "a.c").write_text("int a;")
    return tmp_path


def check(command: str) -> None:
    once.passes_once(["sh", "-c", f"echo run >>log; {command}"], ["sources"], 20)


def runs(root: Path) -> int:
    return (root / "log").read_text().count("run")


def test_without_a_memo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMPRT_TEST_MEMO", raising=False)
    for _ in range(2):
        check("true")
    assert runs(root) == 2
    with pytest.raises(AssertionError, match="so it is"):
        check("echo so it is; false")


def test_with_this_interpreter() -> None:
    with pytest.raises(AssertionError, match=re.escape(sys.executable)):
        once.passes_once(["python", "-c", "import sys; sys.exit(sys.executable)"], ["sources"], 20)


def test_with_a_memo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMPRT_TEST_MEMO", str(root / "memo"))
    for _ in range(3):
        check("true")
    assert runs(root) == 1
    for _ in range(2):
        with pytest.raises(AssertionError):
            check("false")
    assert runs(root) == 3
    (root / "sources" / "a.c").write_text("int b;")
    check("true")
    assert runs(root) == 4
    (root / "sources" / "b.c").touch()
    check("true")
    assert runs(root) == 5
