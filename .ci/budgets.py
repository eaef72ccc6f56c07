"""Instruction budgets: what the runtime's fast paths cost, compared with .ci/budgets.json.

    .ci/budgets.py [--record] [PATH ...]

tests/c/budget_main.c runs one path N times under callgrind; counted at two lengths, so that start
and end cancel out, and on the one thread that runs the goroutines.  Time is not measured: the
figures are the same on a loaded machine, and from run to run within 0.1 %.  A path that costs over
5 % more than recorded fails.  They depend on the compiler: with another one than recorded nothing
is compared, and --record makes a new file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
TOLERANCE = 1.05
RUNTIME = ("base", "mem", "sched", "sync", "api")


def conditions() -> dict[str, str]:
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


def measure(paths: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        program = build(Path(directory))
        listed = subprocess.run([program, "list"], check=True, capture_output=True, text=True)
        known = listed.stdout.split()
        if unknown := set(paths) - set(known):
            raise SystemExit(f"no such path: {', '.join(unknown)}; there are {', '.join(known)}")
        names = paths or known
        short = pool.map(lambda name: instructions(program, name, SHORT), names)
        long = pool.map(lambda name: instructions(program, name, LONG), names)
        return {
            name: round((more - less) / (LONG - SHORT), 1)
            for name, less, more in zip(names, short, long, strict=True)
        }


def compare(found: dict[str, float], recorded: dict[str, float]) -> int:
    failed = 0
    for name, price in found.items():
        allowed = recorded.get(name)
        if allowed is None:
            print(f"{name:12} {price:9.1f}  not recorded: --record")
            failed += 1
            continue
        verdict = "ok" if price <= allowed * TOLERANCE else "FAILED"
        failed += verdict == "FAILED"
        change = 100 * (price / allowed - 1)
        print(f"{name:12} {price:9.1f} {allowed:9.1f} {change:+6.1f} %  {verdict}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Instruction budgets of the fast paths.")
    parser.add_argument("--record", action="store_true", help="write .ci/budgets.json")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="only these")
    args = parser.parse_args()
    here = conditions()
    old = {"conditions": here, "instructions": {}}
    if RECORD.exists():
        old = json.loads(RECORD.read_text())
    if not args.record and old["conditions"] != here:
        print(f"recorded with {old['conditions']}, this is {here}: nothing compared")
        return 0
    found = measure(args.paths)
    if args.record:
        kept = old["instructions"] if args.paths and old["conditions"] == here else {}
        record = {"conditions": here, "instructions": {**kept, **found}}
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        print(f"recorded {', '.join(found)}")
        return 0
    failed = compare(found, old["instructions"])
    print(f"{len(found) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
