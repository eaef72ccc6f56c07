"""Checks for which one interpreter will do, or none: the C tests, the models, servers.

They belong to the suite, whoever runs it.  Who runs the suite for one interpreter after the other
names a folder in $GMPRT_TEST_MEMO: what has passed there, for the same files, is not repeated.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def passes_once(command: Sequence[str], folders: Iterable[str], timeout: float) -> None:
    """Fail with the command's output if it fails.  `folders`, below ROOT, hold what it depends on.

    "python" in it is the interpreter that runs us, whichever that is.  Two suites that run at the
    same time do not check the same thing twice: one waits.
    """
    memo = os.environ.get("GMPRT_TEST_MEMO")
    if memo is None:
        _passes(command, timeout)
        return
    path = Path(memo, _key(command, folders))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if file.read() != "passed":
            _passes(command, timeout)
            file.write("passed")


def _passes(command: Sequence[str], timeout: float) -> None:
    run = subprocess.run(
        [sys.executable if part == "python" else part for part in command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert run.returncode == 0, run.stdout


def _key(command: Sequence[str], folders: Iterable[str]) -> str:
    key = hashlib.sha256("\0".join(command).encode())
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file():
                key.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return key.hexdigest()
