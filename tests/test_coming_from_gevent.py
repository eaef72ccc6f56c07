"""docs/coming-from-gevent.md: its programs print what the page says, there and here.

In the page a block of Python that begins with a name of a file in a comment is that file; a block
after it that begins with "$" shows commands and what they print.  "..." stands for anything, as in
a doctest; "(hangs)" at the end for nothing more, ever.  All that is read out of the page.
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import EMULATOR, PATIENCE, shortened

import gmprt

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-gevent.md"
PATH = os.pathsep.join(
    filter(None, [str(Path(gmprt.__file__).parents[1]), os.environ.get("PYTHONPATH")])
)
HANGS = "(hangs)"
SILENCE = 2.0
"""Seconds without a word, and without an end, that count as hanging: much more than any pause."""

if EMULATOR or sys.version_info[:2] != (3, 12):
    pytest.skip("once is enough: with CPython 3.12", allow_module_level=True)


@dataclass
class Transcript:
    """A command and what it prints, with the files of its section."""

    section: str
    command: str
    expected: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def hangs(self) -> bool:
        return self.expected.endswith(HANGS + "\n")

    @property
    def name(self) -> str:
        return f"{self.section}: {self.command}"

    def needs(self) -> list[str]:
        """Packages that the command uses, beyond ours."""
        text = self.command + "".join(self.files[n] for n in self.files if n in self.command)
        return [name for name in ("gevent", "grpc") if re.search(rf"\b{name}\b", text)]


def transcripts(text: str) -> Iterator[Transcript]:
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        files: dict[str, str] = {}
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", part, re.DOTALL | re.MULTILINE):
            if named := re.match(r"# (\S+\.py)\n", block):
                files[named[1]] = block
            elif language == "console":
                for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                    command, _, expected = shown.partition("\n")
                    yield Transcript(part.partition("\n")[0], command, expected, files)


ALL = list(transcripts(PAGE.read_text("utf-8")))


def run(transcript: Transcript, folder: Path) -> str:
    """What it prints, both streams; with HANGS behind it if it hangs, or is late."""
    folder.mkdir()
    for name, text in transcript.files.items():
        (folder / name).write_text(text)
    words = shlex.split(transcript.command)
    words[0] = {"python": sys.executable}[words[0]]
    path = folder / "output"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}  # lines stay whole
    with open(path, "wb") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env={**env, "PYTHONPATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        if transcript.hangs:
            _silence(process, path, transcript.expected.removesuffix(HANGS + "\n"))
        else:
            process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    late = process.poll() is None
    try:
        os.killpg(process.pid, signal.SIGKILL)  # and its children
    except ProcessLookupError:
        pass
    process.wait()
    return path.read_text(errors="replace").expandtabs() + (f"{HANGS}\n" if late else "")


def _silence(process: subprocess.Popen[bytes], path: Path, expected: str) -> None:
    """Wait until it has printed what is expected, and then nothing for a while; or has ended."""
    deadline = time.monotonic() + PATIENCE
    while not matches(expected, path.read_text(errors="replace")) and time.monotonic() < deadline:
        if process.poll() is not None:
            return
        time.sleep(0.05)
    process.wait(SILENCE)


def matches(expected: str, printed: str) -> bool:
    if not expected:
        return True  # nothing may come before "(hangs)": it is looked at in the end
    return doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of all of them, by name: they mostly wait, so they do so together."""
    folder = tmp_path_factory.mktemp("pages")
    able = [t for t in ALL if all(map(importlib.util.find_spec, t.needs()))]
    with ThreadPoolExecutor(6) as pool:
        outputs = pool.map(run, able, [folder / str(i) for i in range(len(able))])
        return {t.name: output for t, output in zip(able, outputs, strict=True)}


@pytest.mark.parametrize("transcript", ALL, ids=lambda t: t.name)
def test_as_the_page_says(transcript: Transcript, printed: dict[str, str]) -> None:
    for name in transcript.needs():
        pytest.importorskip(name)
    got = printed[transcript.name]
    same = doctest.OutputChecker().check_output(transcript.expected, got, doctest.ELLIPSIS)
    assert same, f"expected:\n{transcript.expected}\nprinted:\n{shortened(got)}"


def test_both_sides_are_there() -> None:
    """Each section with programs runs them on both."""
    for section in {t.section for t in ALL}:
        commands = [t.command for t in ALL if t.section == section]
        files = next(t.files for t in ALL if t.section == section)
        assert any("gevent" in c for c in commands), section
        assert any("gmprt" in c for c in commands), section
        assert all(any(name in c for c in commands) for name in files), section
