"""Programs in pages of docs/, and what these say that they print.

In a page a block of code that begins with a name of a file in a comment is that file; a block
after it that begins with "$" shows commands and what they print.  A file belongs to its section.
"..." stands for anything, as in a doctest; "(hangs)" at the end for nothing more, ever.
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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import PATIENCE, shortened

import gmprt

DOCS = Path(__file__).parents[1] / "docs"
PATH = os.pathsep.join(
    filter(None, [str(Path(gmprt.__file__).parents[1]), os.environ.get("PYTHONPATH")])
)
GO = os.environ.get("GMPRT_TEST_GO", "")
"""A `go` command.  Not looked for: the first program takes it half a minute."""
HANGS = "(hangs)"
SILENCE = 2.0
"""Seconds without a word, and without an end, that count as hanging: much more than any pause."""


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
        if self.command.startswith("go "):
            return ["go"]
        text = self.command + "".join(self.files[n] for n in self.files if n in self.command)
        return [name for name in ("gevent", "grpc") if re.search(rf"\b{name}\b", text)]


def transcripts(page: str) -> Iterator[Transcript]:
    text = (DOCS / page).read_text("utf-8")
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        files: dict[str, str] = {}
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", part, re.DOTALL | re.MULTILINE):
            if named := re.match(r"(?:#|//) (\S+\.(?:py|go))\n", block):
                files[named[1]] = block
            elif language == "console":
                for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                    command, _, expected = shown.partition("\n")
                    yield Transcript(part.partition("\n")[0], command, expected, files)


def run(transcript: Transcript, folder: Path) -> str:
    """What it prints, both streams; with HANGS behind it if it hangs, or is late."""
    folder.mkdir()
    for name, text in transcript.files.items():
        (folder / name).write_text(text)
    words = shlex.split(transcript.command)
    words[0] = {"python": sys.executable, "go": GO}[words[0]]
    path = folder / "output"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}  # lines stay whole
    env["GRPC_VERBOSITY"] = "NONE"  # whether its clients hear the server stop is luck
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
            process.wait(PATIENCE * (10 if words[0] == GO else 1))
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


def run_all(transcripts: Mapping[str, Transcript], folder: Path) -> dict[str, str]:
    """What those print that can run here: they mostly wait, so they do so together."""
    able = {n: t for n, t in transcripts.items() if not any(map(missing, t.needs()))}
    with ThreadPoolExecutor(6) as pool:
        outputs = pool.map(run, able.values(), [folder / str(i) for i in range(len(able))])
        return dict(zip(able, outputs, strict=True))


def missing(name: str) -> bool:
    """Whether a package is not there, or nobody wants Go's half to be run."""
    return not (GO if name == "go" else importlib.util.find_spec(name))


def check(transcript: Transcript, got: str | None) -> None:
    """Fail unless it has printed what its page says; None: it could not run."""
    if got is None:
        pytest.skip(f"without {', '.join(filter(missing, transcript.needs()))}")
    same = doctest.OutputChecker().check_output(transcript.expected, got, doctest.ELLIPSIS)
    assert same, f"expected:\n{transcript.expected}\nprinted:\n{shortened(got)}"
