"""Instructions of Python-level operations of several builds: what a change costs, at any load.

    python -m bench.instructions [--only OPERATION ...] [--runs N] [DIRECTORY ...]

A directory holds a package `gmprt` with its module built: a source tree after `pip install .`, or a
site-packages.  Without any it is the package that is installed.  In brackets stand the instructions
of the runtime's own lines; the last column compares the last build with the first.  --json prints
those of the first build only, as .ci/budgets.py wants them.

The operations (operations.py) run under callgrind with GOMAXPROCS=1 and without preemption, each
at two lengths, whose difference leaves out what start and end cost; the least of a few runs counts.
All instructions differ by half a percent from time to time, since sysmon looks in by the clock; our
own, sysmon left out, by less.  They depend on the interpreter and on the compiler: compare builds
of one kind, by one interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.operations import OPERATIONS

_CHILD = Path(__file__).with_name("operations.py")
_SHORT, _LONG = 1000, 6000
_MARKS = 3  # of each operation: dumps before the short run, the long one, and behind that


@dataclass
class Price:
    """Instructions of one round."""

    total: float
    ours: float  # of lines in csrc/


_OURS, _SYSMON = "csrc/", "sched/sysmon.c"
_FUNCTION = ("fn", "cfn")
_FILE = ("fl", "fi", "fe", "cfi", "cfl")
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


def count(lines: Iterable[str]) -> Price:
    """What a dump of callgrind has counted.

    Ours is told by the line, not by the function or the object: callgrind follows calls, and after
    a switch of stacks it takes code for that of another function.  On sysmon's stack nothing
    switches, so there the function is right.
    """
    names: dict[str, str] = {}  # of functions and files, which count on their own
    function = file = ""
    total = ours = 0
    inclusive = False  # the line below `calls=`: what was counted there already
    for line in lines:
        if line[:1].isdigit() or line[:1] in tuple("+-*"):
            if not inclusive:
                cost = int(line.split()[1])
                total += cost
                if _OURS in file and not (function.startswith("sysmon") or _SYSMON in file):
                    ours += cost
            inclusive = False
            continue
        key, _, value = line.rstrip().partition("=")
        inclusive = key == "calls"
        if key in _FUNCTION or key in _FILE:
            match = _NAME.match(value)
            assert match is not None, line
            handle = ("fn" if key in _FUNCTION else "fl") + match[1]
            if match[2] is not None:
                names[handle] = match[2]
            if key == "fn":
                function = names[handle]
            elif key in ("fl", "fi", "fe"):
                file = names[handle]
    return Price(total, ours)


def _counts(directory: str, parts: int) -> list[Price]:
    """What was executed up to each mark, since the one before."""
    prices = []
    for part in range(1, parts + 1):
        with open(Path(directory, f"out.{part}"), encoding="utf-8", errors="replace") as lines:
            prices.append(count(lines))
    return prices


def _prices(build: str | None, names: list[str]) -> list[Price]:
    """One round of each operation."""
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
        counts = _counts(directory, _MARKS * len(names))
    rounds = _LONG - _SHORT
    return [
        Price((more.total - less.total) / rounds, (more.ours - less.ours) / rounds)
        for less, more in zip(counts[1::_MARKS], counts[2::_MARKS], strict=True)
    ]


def _least(build: str | None, names: list[str], runs: int) -> list[Price]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda _: _prices(build, names), range(runs)))
    return [
        Price(min(price.total for price in prices), min(price.ours for price in prices))
        for prices in zip(*found, strict=True)
    ]


def _change(prices: list[Price]) -> str:
    if len(prices) < 2:
        return ""
    first, last = prices[0], prices[-1]
    ours = f" ({100 * (last.ours / first.ours - 1):+.1f} %)" if first.ours else ""
    return f"{100 * (last.total / first.total - 1):+6.1f} %{ours}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of Python-level operations.")
    parser.add_argument("--only", nargs="+", choices=list(OPERATIONS), metavar="OPERATION")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="the least of N counts")
    parser.add_argument("--json", action="store_true", help="our own, of the first build")
    parser.add_argument("builds", nargs="*", metavar="DIRECTORY", help="that holds gmprt/")
    args = parser.parse_args()
    names: list[str] = args.only or list(OPERATIONS)
    columns = [_least(build, names, args.runs) for build in args.builds or [None]]
    if args.json:
        own = {name: round(p.ours, 1) for name, p in zip(names, columns[0], strict=True)}
        print(json.dumps(own))
        return
    for name, *prices in zip(names, *columns, strict=True):
        cells = (f"{price.total:9.1f} ({price.ours:.1f})".ljust(20) for price in prices)
        print(f"{name:14}", *cells, _change(prices))


if __name__ == "__main__":
    main()
