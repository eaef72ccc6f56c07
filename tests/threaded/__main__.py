"""Servers and pools that are made of threads, with these as goroutines, and many clients.

Each is started as its users do, holds all clients at the same time, each in a thread of its own
that waits for a backend, answers them, and is stopped.  Every answer is checked.  Status 1 if one
case fails: then its programs' logs are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.threaded.cases import CASES
from tests.threaded.crowd import Backend
from tests.threaded.process import HOW
from tests.threaded.stage import Figures, Stage

FEW = 150
"""OS threads of a process at any time; a machine with other work makes some seem blocked."""


async def _play(name: str, options: argparse.Namespace, folder: Path) -> Figures:
    async with Backend() as backend:
        stage = Stage(options.clients, options.how, folder, backend)
        try:
            async with asyncio.timeout(options.limit):
                await CASES[name].play(stage)
            stage.figures.most = max(stage.program.most, stage.figures.threads)
            assert options.how == "os" or stage.program.most <= FEW, f"{stage.program.most} threads"
        except BaseException:
            print(
                f"---- {name}: {backend.arrived} were there, {stage.program.most} threads at most"
            )
            for program in stage.programs:
                print(f"-- {' '.join(program.command)}\n{program.log[-8000:]}")
            raise
        finally:
            for program in stage.programs:
                program.kill()
    return stage.figures


def _case(name: str, options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="gmprt-", ignore_cleanup_errors=True) as folder:
        try:
            figures = asyncio.run(_play(name, options, Path(folder)))
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"{name:18} FAILED", flush=True)
            return False
    f = figures
    print(
        f"{name:18} {f.count:6} at once, {f.processes} processes, {f.threads} OS threads in one"
        f" ({f.most} at most), {f.memory / 1e6:.0f} MB, there after {f.arrived:.1f} s, answered"
        f" after {f.answered:.1f} s, {f.processor:.1f} s of CPU",
        flush=True,
    )
    if options.json:
        with options.json.open("a") as out:
            row = {"case": name, "how": options.how, "python": platform.python_version()}
            print(json.dumps(row | asdict(f)), file=out)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.threaded", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"default: all of {' '.join(CASES)}"
    )
    parser.add_argument("--clients", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument(
        "--how",
        choices=HOW,
        default="run",
        help="run --threads (the default), GMPRT_THREADS=1, or OS threads, to compare",
    )
    parser.add_argument(
        "--limit", type=float, default=300, metavar="S", help="seconds for one case"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="append the figures, a line a case"
    )
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {' '.join(sorted(unknown))}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    passed = failed = 0
    for name in options.cases or CASES:
        if missing := CASES[name].missing():
            print(f"{name:18} skipped: no {', '.join(missing)}", flush=True)
        elif _case(name, options):
            passed += 1
        else:
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
