"""docs/tutorial.md and the guides: every program on them runs, and prints what the page says.

The pieces in README.md and docs/api.md, which show what they print in comments, run to their end.
"""

from __future__ import annotations

import re

import pytest
from pages import DOCS, Transcript, check, run_all, transcripts
from support import EMULATOR

PAGES = ("tutorial", "from-asyncio", "from-threads", "from-go", "memory-model")
ALL = {f"{page} {t.name}": t for page in PAGES for t in transcripts(f"{page}.md")}
END = "that was all"


def pieces(page: str) -> list[Transcript]:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.M | re.S)
    files = {
        f"piece{i}.py": f"{block}print({END!r})\n"
        for i, block in enumerate(blocks, 1)
        if "press Ctrl-C" not in block
    }
    return [Transcript(page, f"python {name}", f"...{END}\n", files) for name in files]


PIECES = {t.name: t for page in ("../README.md", "api.md") for t in pieces(page)}

if EMULATOR:
    pytest.skip("nothing that depends on the CPU", allow_module_level=True)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_all(ALL | PIECES, tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("name", ALL)
def test_as_the_page_says(name: str, printed: dict[str, str]) -> None:
    check(ALL[name], printed.get(name))


@pytest.mark.parametrize("name", PIECES)
def test_piece(name: str, printed: dict[str, str]) -> None:
    check(PIECES[name], printed.get(name))
    assert "Traceback" not in printed[name]


@pytest.mark.parametrize("page", PAGES)
def test_all_programs_run(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    programs = re.findall(r"^```python\n(.*)", text, re.MULTILINE)
    run = {f"# {n}" for t in transcripts(f"{page}.md") for n in t.files if n in t.command}
    assert [first for first in programs if first not in run] == []
