"""The command line: `python -m gmprt run script.py`, `info`, `demo`."""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import io
import os
import platform
import resource
import runpy
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import gmprt
from gmprt import _core, demo


def _run(options: argparse.Namespace) -> int:
    """Run a script or a module as python does, but inside the main goroutine of gmprt.run()."""
    target: str = options.target
    if options.m:
        runner = _run_module
    elif os.path.isdir(target) or zipfile.is_zipfile(target):
        runner = _run_package
    elif unreadable := _why_unreadable(target):
        print(f"{sys.executable}: can't open file {unreadable}", file=sys.stderr)
        return 2
    else:
        runner = _run_script
    sys.argv = [target, *options.arguments]
    try:
        gmprt.run(runner, target)
    except Exception as error:
        # As python reports it, without the frames of this module and of runpy on top.
        tb = _of_program(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(tb), tb)
        return 1
    return 0


def _of_program(tb: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the program; None for a syntax error in the script."""
    own = (os.path.dirname(__file__) + os.sep, "<frozen runpy>", runpy.__file__)
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(own):
        tb = tb.tb_next
    return tb


def _why_unreadable(path: str) -> str:
    """What python says about a script that it cannot open; empty for one that it can."""
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return f"{os.path.abspath(path)!r}: [Errno {error.errno}] {error.strerror}"


def _run_module(name: str, /) -> None:
    # sys.path[0] is the current directory already: `python -m gmprt` put it there.
    if not _exists(name):
        sys.exit(f"{sys.executable}: No module named {name}")
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # not the module itself: something that its package imports
        return False


def _run_package(path: str, /) -> None:
    """A directory or a zip file with a __main__.py."""
    _drop_own_path()
    runpy.run_path(path, run_name="__main__")


def _run_script(path: str, /) -> None:
    with io.open_code(os.path.abspath(path)) as file:
        source = file.read()
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(path).resolve().parent)
    # Not runpy.run_path, which puts the old __main__ back at the end: threads and atexit functions
    # of the script, and pickle on their behalf, look for their module for as long as they live.
    module = _main_module(path)
    sys.modules["__main__"] = module
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _main_module(path: str) -> Any:
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    spec = importlib.machinery.ModuleSpec("__main__", loader, origin=path)
    module = importlib.util.module_from_spec(spec)
    # As for a script that python runs itself; multiprocessing tells scripts from modules by this.
    vars(module).update(__spec__=None, __file__=path, __cached__=None, __package__=None)
    return module


def _drop_own_path() -> None:
    """runpy puts the directory or zip file first; the current directory is not for these."""
    if not sys.flags.safe_path:
        del sys.path[0]


def _info(_: argparse.Namespace) -> int:
    # In a goroutine: how stacks are guarded is known once there is one.
    rows = gmprt.go(lambda: list(_facts())).result()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    for path, functions in _core.interposed().items():
        print(f"\ninterposed in {path}:")
        print(
            textwrap.fill(
                ", ".join(sorted(functions)), 100, initial_indent="  ", subsequent_indent="  "
            )
        )
    return 0


def _facts() -> Iterator[tuple[str, str]]:
    yield "gmprt", gmprt.__version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "compiler", platform.python_compiler()
    yield "executable", sys.executable
    yield "platform", f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}"
    yield "kernel", platform.release()
    yield "CPUs", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"
    yield "GOMAXPROCS", str(gmprt.gomaxprocs())
    yield from _core.features().items()
    yield "RLIMIT_NOFILE", _limit(resource.RLIMIT_NOFILE)
    yield "RLIMIT_AS", _limit(resource.RLIMIT_AS)
    yield "RLIMIT_STACK", _limit(resource.RLIMIT_STACK)
    for name in ("vm/max_map_count", "vm/overcommit_memory", "kernel/threads-max"):
        yield name.replace("/", "."), _kernel_setting(name)


def _limit(which: int) -> str:
    """Soft and hard limit."""
    words = [
        "unlimited" if n == resource.RLIM_INFINITY else str(n) for n in resource.getrlimit(which)
    ]
    return f"{words[0]} (at most {words[1]})"


def _kernel_setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text("ascii").strip()
    except OSError as error:  # containers hide some
        return f"unknown ({error.strerror})"


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
        usage="python -m gmprt run [-h] (SCRIPT | -m MODULE) [ARGUMENT ...]",
    )
    run.add_argument("-m", action="store_true", help="run a module instead of a script")
    run.add_argument("target", metavar="SCRIPT", help="script, directory, zip file or module")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's sys.argv[1:]")
    run.set_defaults(command=_run)

    info = commands.add_parser(
        "info",
        help="print what a bug report should contain",
        description="Print versions, what the runtime found on this machine, and its limits.",
    )
    info.set_defaults(command=_info)

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


if __name__ == "__main__":
    sys.exit(main())
