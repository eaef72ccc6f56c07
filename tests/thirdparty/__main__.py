"""The command line: python -m tests.thirdparty --help."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cpython import results
from tests.cpython.compare import Difference, differences
from tests.cpython.expected import Expectations
from tests.cpython.processes import Outcome, Work, work
from tests.thirdparty import POSITIONS, environment, report, suites
from tests.thirdparty.environment import Environment
from tests.thirdparty.suites import Suite

HERE = Path(__file__).parent

FRONT = {"plain": [], "run": ["-m", "gmprt", "run"], "threads": ["-m", "gmprt", "run", "--threads"]}

# Whatever the project's own settings say: one process, and no plugins that are not installed.
USUAL = ("-o", "addopts=", "--continue-on-collection-errors")


@dataclass
class Runner:
    """The tests of one library."""

    suite: Suite
    made: Environment
    logs: Path
    limit: float

    def _root(self) -> Path:
        """What names of tests begin at: of installed ones (--pyargs) they would lack the file."""
        return self.made.source if self.suite.tests else self.made.installed

    def run(self, module: str, position: str, only: Sequence[str] = ()) -> Outcome:
        log = self.logs / f"{module}.{position}{'.again' if only else ''}.log"

        def command(events: Path, folder: Path) -> list[str]:
            front = [str(self.made.python), *FRONT[position], "-m", "pytest"]
            own = ["-p", "gmprt_recorder", f"--gmprt-events={events}"]
            own += [
                f"--gmprt-limit={self.limit:g}",
                f"--rootdir={self._root()}",
                f"--basetemp={folder / 'b'}",
                f"--override-ini=cache_dir={folder / 'c'}",
            ]
            own += [f"--gmprt-only={name}" for name in only if name]
            return [*front, *own, *USUAL, *self.suite.arguments, *self.suite.tests]

        variables = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", **self.suite.variables}
        what = Work(module, position, self.made.source, log, self.limit, variables)
        return work(command, what)


def _run(options: argparse.Namespace) -> int:
    options.logs.mkdir(parents=True, exist_ok=True)
    rows = suites.load()
    if unknown := set(options.names) - set(rows):
        sys.exit(f"not in suites.toml: {', '.join(sorted(unknown))}")
    wanted = options.names or [n for n, s in rows.items() if s.core or not options.core]
    expectations = Expectations(HERE / "expected.toml")
    saved = results.load(options.output)
    logs: Path = options.logs.resolve()
    bad = 0

    def one(name: str) -> tuple[dict[str, Outcome], list[Difference]]:
        made = environment.prepare(
            rows[name], options.cache.resolve(), logs / f"{name}.install.log"
        )
        with environment.served(rows[name].server) as address:
            suite = rows[name].at(address)
            environment.write_files(suite, made)
            runner = Runner(suite, made, logs, options.limit)
            outcomes = {position: runner.run(name, position) for position in POSITIONS}
            found = [
                d
                for position in POSITIONS[1:]
                for d in differences(runner, expectations, name, outcomes, (POSITIONS[0], position))
            ]
        return outcomes, found

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(one, name): name for name in wanted}
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            try:
                outcomes, found = future.result()
            except environment.Failed as error:
                print(f"{name}: {error}", flush=True)
                bad += 1
                continue
            bad += sum(not d.explained for d in found)
            results.show(name, outcomes, found)
            results.keep(saved, name, outcomes, found)
            results.save(saved, options.output)
    return 1 if bad else 0


def _report(options: argparse.Namespace) -> int:
    result = json.loads(options.results.read_text("utf-8"))
    sys.stdout.write(report.document(result, suites.load()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.thirdparty")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run the tests of libraries, and say what differs between positions",
        description="Run the tests of libraries plain, in the main goroutine, and with their "
        "threads as goroutines. Status 1 if verdicts differ that are neither flaky nor expected.",
    )
    run.add_argument("names", nargs="*", metavar="LIBRARY", help="default: all of suites.toml")
    run.add_argument("--core", action="store_true", help="only those that take seconds")
    run.add_argument(
        "--limit", type=float, default=60, metavar="SECONDS", help="for one test (%(default)g)"
    )
    run.add_argument("--jobs", "-j", type=int, default=1, metavar="N", help="libraries at once")
    run.add_argument("--output", type=Path, metavar="FILE", help="verdicts, as JSON; updated")
    run.add_argument(
        "--logs", type=Path, metavar="DIR", default=Path("thirdparty-logs"), help="what is printed"
    )
    run.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=environment.cache(),
        help="environments and sources (%(default)s)",
    )
    run.set_defaults(command=_run)

    show = commands.add_parser("report", help="print docs/thirdparty.md")
    show.add_argument("results", type=Path, metavar="FILE", help="of run --output")
    show.set_defaults(command=_report)
    return parser


def main() -> int:
    options = _parser().parse_args()
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
