"""gmprt beside its peers: ``python -m bench.peers``; README.md says what each row means."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from pathlib import Path

from bench import machine, runner
from bench.catalog import CASES, COLUMNS, PEERS, Case, Column
from bench.report import Report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        epilog="cases: " + ", ".join(case.name for case in CASES),
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs, one round")
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", help="these cases; wildcards allowed: 'native_*'"
    )
    parser.add_argument("--peers", nargs="+", metavar="NAME", choices=PEERS, help=", ".join(PEERS))
    parser.add_argument("--rounds", type=_positive, help="rounds over the peers (5; quick: 1)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for each process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables as Markdown"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def chosen_cases(patterns: list[str] | None) -> list[Case]:
    """The cases that `patterns` name; ``ValueError`` for one that names none."""
    if not patterns:
        return list(CASES)
    for pattern in patterns:
        if not any(fnmatch.fnmatch(case.name, pattern) for case in CASES):
            raise ValueError(f"no case {pattern!r}; there are {', '.join(c.name for c in CASES)}")
    return [case for case in CASES if any(fnmatch.fnmatch(case.name, p) for p in patterns)]


class _Progress:
    """One line on stderr for each process, with the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run and print; 1 if anything crashed, hung or could not be imported."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        cases = chosen_cases(args.only)
    except ValueError as error:
        parser.error(str(error))
    names = args.peers or PEERS
    rounds = args.rounds or (1 if args.quick else 5)
    progress = _Progress()
    facts = machine.facts()
    peers = {name: runner.find(name) for name in PEERS if name in names}
    for peer in peers.values():
        progress(f"{peer.name}: {peer.status()}")
    results = runner.run_all(
        cases,
        _columns(peers),
        peers,
        runner.Settings(rounds, args.quick, args.timeout),
        progress,
    )
    facts["pace after"] = machine.pace()
    report = Report(facts, peers, results)
    print(report.text(), end="")
    if args.json:
        options = {"quick": args.quick, "rounds": rounds, "cases": [case.name for case in cases]}
        args.json.write_text(report.json(options), encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(report.markdown(), encoding="utf-8")
    return 1 if report.failed() else 0


def _columns(peers: dict[str, runner.Peer]) -> list[Column]:
    """The columns of the peers that can be measured."""
    usable = {name for name, peer in peers.items() if peer.installed and not peer.error}
    return [column for column in COLUMNS if column.peer in usable]


if __name__ == "__main__":
    sys.exit(main())
