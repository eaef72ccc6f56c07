"""The source archive: it holds what the build and the tests need, which is all that is tracked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the archive has and the checkout has not: metadata that setuptools writes.
WRITTEN = ("PKG-INFO", "setup.cfg", "gmprt.egg-info/")

# What a build and a run of the tests leave behind, and no archive must take along.
LEFT = (
    "gmprt/_native.cpython-311-x86_64-linux-gnu.so",
    "gmprt/_native.c",
    "gmprt/_life/__pycache__/run.cpython-311.pyc",
    "csrc/sync/chan.o",
    "tests/__pycache__/support.cpython-311.pyc",
    "build/lib/gmprt/_life/run.py",
    "venv/pyvenv.cfg",
    ".pytest_cache/README.md",
)


def tracked() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git checkout to compare with")
    # Safe whoever owns the files: as root in a container they are often somebody else's.
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def described(metadata: str) -> None:
    """What an index shows: the README, and who can install it."""
    head, _, body = metadata.partition("\n\n")
    fields = head.splitlines()
    assert body.strip() == (ROOT / "README.md").read_text().strip()
    assert "Description-Content-Type: text/markdown" in fields
    assert "Requires-Python: <3.16,>=3.11" in fields
    for minor in (11, 12, 13):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}" in fields


def test_everything_tracked_is_in_the_archive_and_nothing_else(tmp_path: Path) -> None:
    names = tracked()
    copy = tmp_path / "copy"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    for name in LEFT:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("left behind\n")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    made = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        metadata = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert metadata is not None
        described(metadata.read().decode())
        files = [member.name.partition("/")[2] for member in tar if member.isfile()]
    archived = {name for name in files if not name.startswith(WRITTEN)}
    assert archived == set(names)
