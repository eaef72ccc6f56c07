"""The examples run, and docs/patterns.md shows them and what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE

import gmprt

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SECTION = re.compile(
    r"^\[examples/(\w+\.py)\]\(\.\./examples/\1\)\n\n"
    r"```python\n(.*?)^```\n\n```text\n(.*?)^```$",
    re.M | re.S,
)


def shown() -> dict[str, tuple[str, str]]:
    """By file: the program, and what it prints."""
    text = (ROOT / "docs" / "patterns.md").read_text()
    return {name: (code, output) for name, code, output in SECTION.findall(text)}


def test_all_are_shown() -> None:
    assert sorted(shown()) == [path.name for path in EXAMPLES]
    assert len(EXAMPLES) == 11


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("chaos", ["", "20261130"])
def test_example(path: Path, chaos: str) -> None:
    code, output = shown()[path.name]
    assert path.read_text() == code
    package = str(Path(gmprt.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(path)],
        env={"PYTHONPATH": package, "GMPRT_CHAOS": chaos},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == (output, "")
