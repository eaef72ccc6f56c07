"""tools/gmprt-gdb.py: goroutines in gdb."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CPU = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gdb_main.c and the runtime, with symbols."""
    out = tmp_path_factory.mktemp("gdb") / "gdb_main"
    runtime = ("base", "mem", "sched", "sync", "api", f"arch/{CPU}")
    sources = [p for d in runtime for p in sorted((ROOT / "csrc" / d).glob("*.[cS]"))]
    flags = ["-std=gnu11", "-g", "-O1", "-fno-strict-aliasing", "-pthread"]
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'gmprt' / 'include'}"]
    program = [str(ROOT / "tests" / "gdb_main.c"), *map(str, sources)]
    subprocess.run(["gcc", *flags, *include, *program, "-o", str(out), "-lm"], check=True)
    return out


def gdb(program: Path, *commands: str) -> str:
    """What the commands print when all goroutines but one wait."""
    words = ["gdb", "-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"]
    one_p = "set environment GOMAXPROCS 1"  # so that the others have parked when it looks
    source = f"source {ROOT}/tools/gmprt-gdb.py"
    first = ["set pagination off", one_p, "break look_now", "run", source]
    for command in [*first, *commands]:
        words += ["-ex", command]
    done = subprocess.run([*words, str(program)], capture_output=True, text=True, timeout=100)
    if "ptrace" in done.stderr:
        pytest.skip("this system does not let one process trace another")
    return done.stdout + done.stderr


def test_info_goroutines(program: Path) -> None:
    lines = [" ".join(line.split()) for line in gdb(program, "info goroutines").splitlines()]
    assert "1 native waiting: chan receive" in lines
    assert "2 native waiting: chan send" in lines
    assert any(line.startswith("3 native running on M ") for line in lines)
    assert sum("native waiting: chan receive" in line for line in lines) == 301


def test_backtrace_of_a_parked_goroutine_and_of_a_running_one(program: Path) -> None:
    waits = gdb(program, "goroutine 1 bt")
    assert "in waits_for_a_value" in waits
    assert "gm_entry" in waits  # the outermost frame: nothing is made up behind it
    assert "waits_for_room" not in waits
    assert "in main_goroutine" in gdb(program, "goroutine 3 bt").split("look_now", 2)[2]


def test_all_and_the_thread_is_left_as_it_was(program: Path) -> None:
    out = gdb(program, "goroutine all bt", "echo here\\n", "bt 2", "continue")
    listing, after = out.split("here\n", 1)
    assert "in waits_for_a_value" in listing
    assert "in waits_for_room" in listing
    assert after.startswith("#0  look_now")
    assert "exited normally" in after


def test_wrong_use_is_explained(program: Path) -> None:
    assert "no goroutine 999" in gdb(program, "goroutine 999 bt")
    assert "usage: goroutine ID|all COMMAND" in gdb(program, "goroutine 1")
    commands = [f"source {ROOT}/tools/gmprt-gdb.py", "info goroutines"]
    words = [word for command in commands for word in ("-ex", command)]
    no_runtime = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", *words, sys.executable],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "no symbols of gmprt here" in no_runtime.stderr
