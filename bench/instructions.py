"""Instructions of Python-level operations of several builds: what a change costs, at any load.

    python -m bench.instructions [--only OPERATION ...] [--runs N] [DIRECTORY ...]

A directory holds a package `gmprt` with its module built: a source tree after `pip install .`, or a
site-packages.  Without any it is the package that is installed.  The last column compares the last
with the first.

The operations (operations.py) run under callgrind with GOMAXPROCS=1 and without preemption, each
at two lengths, whose difference leaves out what start and end cost.  sysmon looks in by the clock,
so the least of a few runs counts; the figures then differ by half a percent from time to time.
They depend on the interpreter and on the compiler: compare builds of one kind, by one interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.operations import OPERATIONS

_CHILD = Path(__file__).with_name("operations.py")
_SHORT, _LONG = 1000, 6000
_MARKS = 3  # of each operation: dumps before the short run, the long one, and behind that


def _totals(directory: str, parts: int) -> list[int]:
    """What was executed up to each mark, since the one before."""
    texts = (Path(directory, f"out.{part}").read_text() for part in range(1, parts + 1))
    found = [re.search(r"^totals: (\d+)", text, re.MULTILINE) for text in texts]
    return [int(match.group(1)) if match else 0 for match in found]


def _prices(build: str | None, names: list[str]) -> list[float]:
    """Instructions of one round of each operation."""
    env = {**os.environ, "GOMAXPROCS": "1", "GMPRT_PREEMPT": "0", "PYTHONHASHSEED": "0"}
    if build is not None:
        env["PYTHONPATH"] = os.path.abspath(build)
    with tempfile.TemporaryDirectory() as directory:
        callgrind = [
            "valgrind",
            "--tool=callgrind",
            "--dump-before=getppid",
            f"--callgrind-out-file={directory}/out",
        ]
        # -P: without the folder of the script, which has no package to offer.
        child = [sys.executable, "-P", str(_CHILD), *names, str(_SHORT), str(_LONG)]
        done = subprocess.run([*callgrind, *child], env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"failed under callgrind:\n{done.stdout}{done.stderr}")
        totals = _totals(directory, _MARKS * len(names))
    short, long = totals[1::_MARKS], totals[2::_MARKS]
    return [(more - less) / (_LONG - _SHORT) for less, more in zip(short, long, strict=True)]


def _least(build: str | None, names: list[str], runs: int) -> list[float]:
    counts = [_prices(build, names) for _ in range(runs)]
    return [min(prices) for prices in zip(*counts, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of Python-level operations.")
    parser.add_argument("--only", nargs="+", choices=list(OPERATIONS), metavar="OPERATION")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="the least of N counts")
    parser.add_argument("builds", nargs="*", metavar="DIRECTORY", help="that holds gmprt/")
    args = parser.parse_args()
    names: list[str] = args.only or list(OPERATIONS)
    columns = [_least(build, names, args.runs) for build in args.builds or [None]]
    for name, *prices in zip(names, *columns, strict=True):
        change = f"{100 * (prices[-1] / prices[0] - 1):+6.1f} %" if len(prices) > 1 else ""
        print(f"{name:14}", *(f"{price:9.1f}" for price in prices), change)


if __name__ == "__main__":
    main()
