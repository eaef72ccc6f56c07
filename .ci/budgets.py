"""Instruction budgets: what the runtime's fast paths cost, compared with .ci/budgets.json.

    .ci/budgets.py [--record] [native | python]

Native paths: tests/c/budget_main.c runs one path N times under callgrind, counted on the one thread
that runs the goroutines.  Python paths: bench/instructions.py counts the runtime's own lines, in
the gmprt that is installed for the interpreter that runs this, as `pip install .` builds it.  Both
are counted at two lengths, so that start and end cancel out.  Time is not measured: the figures are
the same on a loaded machine, and from run to run within 0.1 % (native) or 1 %.  A path that costs
over 3 % more than recorded fails.  They depend on the compiler, those of Python on the interpreter,
too: with others than recorded nothing is compared, and --record makes the record anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECORD = HERE / "budgets.json"
CPU = {"x86_64": "amd64", "aarch64": "arm64"}
COMPILER = os.environ.get("CC", "gcc")
# As build_native.py and setup.py have them.
FLAGS = [
    "-std=gnu11",
    "-O2",
    "-flto",
    "-fvisibility=hidden",
    "-fno-semantic-interposition",
    "-fno-strict-aliasing",
]
SHORT, LONG = 20_000, 60_000  # rounds; long enough that what is rare evens out
TOLERANCE = 1.03
# Of bench/operations.py.
PYTHON_PATHS = [
    "yields",
    "pingpong",
    "buffered",
    "spawn",
    "selects",
    "select_parks",
    "sockets",
    "with_lock",
    "handover",
]
RUNTIME = ("base", "mem", "sched", "sync", "api")


Figures = dict[str, float]


def native_conditions() -> dict[str, str]:
    version = subprocess.run(
        [COMPILER, "-dumpversion"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {"cpu": platform.machine(), "compiler": f"{COMPILER} {version}"}


def build(directory: Path) -> Path:
    program = directory / "budget_main"
    sources = [
        *(p for d in RUNTIME for p in sorted((ROOT / "csrc" / d).glob("*.c"))),
        *sorted((ROOT / "csrc" / "arch" / CPU[platform.machine()]).glob("*.[cS]")),
        ROOT / "tests" / "c" / "budget_main.c",
    ]
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'gmprt' / 'include'}"]
    subprocess.run([COMPILER, *FLAGS, *includes, *sources, "-o", program, "-pthread"], check=True)
    return program


def instructions(program: Path, path: str, rounds: int) -> int:
    """Instructions of the busiest thread: the one M, for GOMAXPROCS is 1."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        command = [
            "valgrind",
            "--tool=callgrind",
            "--separate-threads=yes",
            f"--callgrind-out-file={out}",
            str(program),
            path,
            str(rounds),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{path} failed under callgrind:\n{done.stdout}{done.stderr}")
        totals = [
            int(match.group(1))
            for file in Path(directory).iterdir()
            if (match := re.search(r"^totals: (\d+)", file.read_text(), re.MULTILINE))
        ]
    return max(totals)


def measure_native() -> Figures:
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        program = build(Path(directory))
        listed = subprocess.run([program, "list"], check=True, capture_output=True, text=True)
        names = listed.stdout.split()
        short = pool.map(lambda name: instructions(program, name, SHORT), names)
        long = pool.map(lambda name: instructions(program, name, LONG), names)
        return {
            name: round((more - less) / (LONG - SHORT), 1)
            for name, less, more in zip(names, short, long, strict=True)
        }


# ---- Python ------------------------------------------------------------------------------------


def python_conditions() -> dict[str, str]:
    """How the module is compiled depends on the interpreter, down to its flags."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    flags = str(sysconfig.get_config_var("CFLAGS"))
    return {**native_conditions(), "python": name, "flags": flags}


def measure_python() -> Figures:
    command = [sys.executable, "-m", "bench.instructions", "--json", "--only", *PYTHON_PATHS]
    # What is installed comes before the sources here, which need not be compiled.
    path = os.pathsep.join([sysconfig.get_path("platlib"), str(ROOT)])
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{sys.executable}: no figures; is gmprt installed (pip install .)?")
    found: Figures = json.loads(done.stdout)
    return found


# ---- both --------------------------------------------------------------------------------------


@dataclass
class Group:
    """Paths that depend on the same conditions."""

    name: str  # in the record
    conditions: Callable[[], dict[str, str]]
    measure: Callable[[], Figures]


GROUPS = (
    Group("native", native_conditions, measure_native),
    Group("python", python_conditions, measure_python),
)


Record = dict[str, dict[str, Any]]  # by the group's name: conditions, instructions


def compare(found: Figures, recorded: Figures) -> int:
    """Prints; how many cost too much, or are not recorded."""
    failed = 0
    for name, price in found.items():
        allowed = recorded.get(name)
        if allowed is None:
            print(f"  {name:12} {price:9.1f}  not recorded: --record")
            failed += 1
            continue
        verdict = "ok" if price <= allowed * TOLERANCE else "FAILED"
        failed += verdict == "FAILED"
        change = 100 * (price / allowed - 1)
        print(f"  {name:12} {price:9.1f} {allowed:9.1f} {change:+6.1f} %  {verdict}")
    return failed


def check(group: Group, record: Record) -> int:
    """How many of its paths fail."""
    here, old = group.conditions(), record[group.name]
    if old["conditions"] != here:
        print(f"{group.name}: nothing compared; recorded with {old['conditions']}, this is {here}")
        return 0
    print(f"{group.name}:", flush=True)
    return compare(group.measure(), old["instructions"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Instruction budgets of the fast paths.")
    parser.add_argument("--record", action="store_true", help="write .ci/budgets.json")
    names = [group.name for group in GROUPS]
    parser.add_argument("group", nargs="?", choices=names, help="only this one")
    args = parser.parse_args()
    groups = [group for group in GROUPS if args.group in (None, group.name)]
    record: Record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if args.record:
        for group in groups:
            record[group.name] = {
                "conditions": group.conditions(),
                "instructions": group.measure(),
            }
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        return 0
    return int(sum([check(group, record) for group in groups]) > 0)


if __name__ == "__main__":
    sys.exit(main())
