"""docs/coming-from-gevent.md: its programs print what the page says, there and here."""

from __future__ import annotations

import sys

import pytest
from pages import check, run_all, transcripts
from support import EMULATOR

if EMULATOR or sys.version_info[:2] != (3, 12):
    pytest.skip("once is enough: with CPython 3.12", allow_module_level=True)

ALL = {t.name: t for t in transcripts("coming-from-gevent.md")}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_all(ALL, tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("name", ALL)
def test_as_the_page_says(name: str, printed: dict[str, str]) -> None:
    check(ALL[name], printed.get(name))


def test_both_sides_are_there() -> None:
    """Each section with programs runs them on both."""
    for section in {t.section for t in ALL.values()}:
        commands = [t.command for t in ALL.values() if t.section == section]
        files = next(t.files for t in ALL.values() if t.section == section)
        assert any("gevent" in c for c in commands), section
        assert any("gmprt" in c for c in commands), section
        assert all(any(name in c for c in commands) for name in files), section
