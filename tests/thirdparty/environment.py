"""A virtual environment and the tests of a library, made once and kept.

gmprt is not installed there: a file names a folder with links to what is built in the project, so
the same environment serves after a change.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cpython.processes import ROOT
from tests.lib import servers
from tests.thirdparty.suites import Suite

LINKS = {"gmprt": ROOT / "gmprt", "gmprt_recorder.py": ROOT / "tests/thirdparty/recorder.py"}

USUAL = ("pytest>=8,<9", "cffi>=1.16")  # few libraries pass with the newest pytest


class Failed(Exception):
    """The library, or its tests, are not to be had here."""


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "gmprt-thirdparty")


@dataclass
class Environment:
    python: Path
    source: Path
    """Where the tests are, and where they run."""

    @property
    def installed(self) -> Path:
        (folder,) = self.python.parents[1].glob("lib/python*/site-packages")
        return folder


@contextmanager
def served(name: str) -> Iterator[str]:
    """The address of a server, if there is to be one."""
    start: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
        "": (nullcontext, lambda _: ""),
        "redis": (servers.redis, lambda server: server.address),
        "mariadb": (lambda: servers.mariadb(100, ["test1", "test2"]), str),
        "postgres": (lambda: servers.postgres(100), lambda server: server.tcp),
    }
    make, address = start[name]
    try:
        with make() as server:
            yield address(server)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise Failed(str(error)) from None


def prepare(suite: Suite, folder: Path, log: Path) -> Environment:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    here = folder / f"{suite.name}-{suite.version}-{minor}"
    made = Environment(here / "venv/bin/python", here / "source")
    # What is made does not depend on how the tests are run, nor on where those links lead.
    row = {k: v for k, v in dataclasses.asdict(suite).items() if k not in _HOW}
    row["usual"] = USUAL
    ready, recipe = here / "ready.json", json.dumps(row)
    if not ready.exists() or ready.read_text("utf-8") != recipe:
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        _fetch(suite, here, log)
        _install(suite, made, log)
        ready.write_text(recipe, "utf-8")
    _link(here / "links", made.installed)
    return made


_HOW = ("tests", "arguments", "variables", "files", "server", "core")


def write_files(suite: Suite, made: Environment) -> None:
    for name, text in suite.files.items():
        (made.source / name).write_text(text, "utf-8")


def _link(links: Path, installed: Path) -> None:
    links.mkdir(exist_ok=True)
    for name, target in LINKS.items():
        (links / name).unlink(missing_ok=True)
        (links / name).symlink_to(target)
    (installed / "gmprt_links.pth").write_text(f"{links}\n", "utf-8")


def _fetch(suite: Suite, here: Path, log: Path) -> None:
    source = here / "source"
    if suite.git:
        clone = ["git", "clone", "-q", "--depth", "1", "-b", suite.tag, suite.git, str(source)]
        _call(clone, log)
    else:
        # The archive of this one only: what it is built with may come as wheels.
        download = ["download", "-q", "--no-deps", "--no-binary", suite.name, "-d", str(here)]
        _call([*_pip(), *download, f"{suite.name}=={suite.version}"], log)
        (archive,) = here.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(here / "unpacked", filter="data")
        (unpacked,) = (here / "unpacked").iterdir()
        unpacked.rename(source)
    if missing := [name for name in suite.tests if not (source / name.split("::")[0]).exists()]:
        raise Failed(f"no {', '.join(missing)} in its source")
    for name in suite.remove:
        shutil.rmtree(source / name)


def _install(suite: Suite, made: Environment, log: Path) -> None:
    venv.create(made.python.parents[1], symlinks=True)
    install = ["--python", str(made.python), "install", "-q"]
    _call([*_pip(), *install, suite.requirement, *USUAL, *suite.requires], log)


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def _call(command: list[str], log: Path) -> None:
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if done.returncode:
        raise Failed(f"{' '.join(command[:5])} ...: status {done.returncode}, see {log}")
