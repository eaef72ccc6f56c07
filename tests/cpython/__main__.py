"""The command line: python -m tests.cpython --help."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from pathlib import Path

from tests.cpython import PAIRS, find, report, results
from tests.cpython.compare import Difference, differences
from tests.cpython.expected import Expectations
from tests.cpython.processes import Outcome, Runner

MODULES = [
    "test_thread",
    "test_threading",
    "test_threading_local",
    "test_queue",
    "test_sched",
    "test_context",
    "test_contextlib",
    "test_logging",
    "test_socket",
    "test_ssl",
    "test_socketserver",
    "test_httplib",
    "test_httpservers",
    "test_urllib2_localnet",
    "test_select",
    "test_selectors",
    "test_poll",
    "test_epoll",
    "test_asyncio",
    "test_subprocess",
    "test_signal",
    "test_threadsignals",
    "test_fork1",
    "test_os",
    "test_io",
    "test_fileio",
    "test_concurrent_futures",
    "test_multiprocessing_fork",
    "test_multiprocessing_spawn",
    "test_sqlite3",
    "test_decimal",
    "test_json",
    "test_pickle",
    "test_re",
    "test_gc",
    "test_weakref",
    "test_generators",
    "test_coroutines",
    "test_exceptions",
    "test_traceback",
    "test_sys",
    "test_sys_settrace",
    "test_sys_setprofile",
    "test_faulthandler",
    "test_tracemalloc",
]


def _run(options: argparse.Namespace) -> int:
    options.logs.mkdir(parents=True, exist_ok=True)
    runner = Runner(options.logs.resolve(), options.limit)
    pairs = [pair for pair in PAIRS if pair[1] in options.position]
    expectations = Expectations()
    saved = results.load(options.output)
    bad = 0

    def one(module: str) -> tuple[dict[str, Outcome], list[Difference]]:
        outcomes = {p: runner.run(module, p) for pair in pairs for p in pair}
        found = [
            d for pair in pairs for d in differences(runner, expectations, module, outcomes, pair)
        ]
        return outcomes, found

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        modules = options.modules or MODULES
        futures = {module: pool.submit(one, module) for module in modules if find(module)}
        for module in modules:
            if module not in futures:
                print(f"{module}: not installed", flush=True)
                saved["modules"][module] = None
            else:
                outcomes, found = futures[module].result()
                bad += sum(not d.explained for d in found)
                results.show(module, outcomes, found)
                results.keep(saved, module, outcomes, found)
            results.save(saved, options.output)
    return 1 if bad else 0


def _report(options: argparse.Namespace) -> int:
    found = [json.loads(file.read_text("utf-8")) for file in options.results]
    sys.stdout.write(report.document(found, MODULES))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run test modules, and say what differs between positions",
        description="Run modules of CPython's tests with this interpreter, in the main goroutine "
        "and on a main thread, in a goroutine and in a thread, and with threads that are "
        "goroutines. Status 1 if verdicts differ that are neither flaky nor expected.",
    )
    run.add_argument("modules", nargs="*", metavar="MODULE", help="default: those of the table")
    run.add_argument(
        "--position",
        action="append",
        choices=[pair[1] for pair in PAIRS],
        help="only this one and what it is compared with",
    )
    run.add_argument(
        "--limit", type=float, default=180, metavar="SECONDS", help="for one test (%(default)g)"
    )
    run.add_argument("--jobs", "-j", type=int, default=1, metavar="N", help="modules at once")
    run.add_argument("--output", type=Path, metavar="FILE", help="verdicts, as JSON; updated")
    run.add_argument(
        "--logs", type=Path, metavar="DIR", default=Path("cpython-logs"), help="what tests print"
    )
    run.set_defaults(command=_run)

    show = commands.add_parser("report", help="print docs/cpython-tests.md")
    show.add_argument("results", nargs="+", type=Path, metavar="FILE", help="of run --output")
    show.set_defaults(command=_report)
    return parser


def main() -> int:
    options = _parser().parse_args()
    if getattr(options, "position", True) is None:
        options.position = [pair[1] for pair in PAIRS]
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
