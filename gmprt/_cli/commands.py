"""The parser of `python -m gmprt` and its commands: run script.py, serve, info, demo."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import gmprt
from gmprt._cli import demo, info, program, serve


def _demo(options: argparse.Namespace) -> int:
    return demo.demo(options.dir, options.workers, options.parked)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    return number


def _folder(text: str) -> Path:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"no such directory: {text!r}")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gmprt", description="Goroutines for Python.")
    parser.add_argument("--version", action="version", version=f"gmprt {gmprt.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a script or module inside the main goroutine",
        description="Run a program as python does, inside the main goroutine of gmprt.run(): "
        "when it ends, the goroutines that it has started are cancelled.",
        usage="python -m gmprt run [-h] [--threads] (SCRIPT | -m MODULE) [ARGUMENT ...]",
    )
    run.add_argument(
        "--threads",
        action="store_true",
        help="make goroutines of the threads that it starts: gmprt.threads(True)",
    )
    run.add_argument("-m", action="store_true", help="run a module instead of a script")
    run.add_argument("target", metavar="SCRIPT", help="script, directory, zip file or module")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's sys.argv[1:]")
    run.set_defaults(command=program.run)

    serve.add_to(commands)

    facts = commands.add_parser(
        "info",
        help="print what a bug report should contain",
        description="Print versions, what the runtime found on this machine, and its limits.",
    )
    facts.set_defaults(command=info.info)

    show = commands.add_parser(
        "demo",
        help="count tokens by a pipeline, then park many goroutines",
        description="Tokenize Python files with one goroutine per file, check the result against "
        "a sequential run, then park many goroutines on one channel.",
    )
    show.add_argument(
        "dir",
        nargs="?",
        metavar="DIR",
        type=_folder,
        default=demo.standard_library(),
        help="where to look for .py files (default: the standard library)",
    )
    show.add_argument(
        "--workers",
        type=_at_least(1),
        default=8,
        metavar="N",
        help="goroutines that tokenize (default: %(default)s)",
    )
    show.add_argument(
        "--parked",
        type=_at_least(0),
        default=100_000,
        metavar="N",
        help="goroutines to park at the end, 0 for none (default: %(default)s)",
    )
    show.set_defaults(command=_demo)
    return parser


def main() -> int:
    options = _parser().parse_args()
    return int(options.command(options))
