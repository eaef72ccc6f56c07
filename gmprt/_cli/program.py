"""`python -m gmprt run`: a program as python would run it, inside the main goroutine of run()."""

from __future__ import annotations

import argparse
import builtins
import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import runpy
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, TypeAlias, cast

import gmprt

_Traceback: TypeAlias = TracebackType | None
_Hook: TypeAlias = Callable[[type[BaseException], BaseException, _Traceback], object]

# What a traceback begins with before it comes to the program.
_OWN = (os.path.dirname(gmprt.__file__) + os.sep, "<frozen runpy>", runpy.__file__)


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
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
    if options.threads:
        gmprt.threads(True)
    sys.argv = [target, *options.arguments]
    try:
        gmprt.run(runner, target)
    except KeyboardInterrupt:
        # It is the interpreter's to print, for then the process ends by the signal.
        sys.excepthook = partial(_report, sys.excepthook)
        raise
    except Exception as error:
        if isinstance(error, ImportError) and _of_program(error.__traceback__) is None:
            print(f"{sys.executable}: {error}", file=sys.stderr)  # runpy finds no __main__
        else:
            _report(sys.excepthook, type(error), error, error.__traceback__)
        return 1
    return 0


def _report(hook: _Hook, kind: type[BaseException], error: BaseException, tb: _Traceback) -> None:
    """As python reports it, without the frames of gmprt and of runpy on top."""
    tb = _of_program(tb)
    hook(kind, error.with_traceback(tb), tb)


def _of_program(tb: _Traceback) -> _Traceback:
    """The part of a traceback that begins in the program; None for a syntax error in the script."""
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OWN):
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
    path = _absolute(path)
    code = _code_of(path)
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(path).resolve().parent)
    # Not runpy.run_path, which puts the old __main__ back at the end: threads and atexit functions
    # of the script, and pickle on their behalf, look for their module for as long as they live.
    module = _main_module(path)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def _absolute(path: str) -> str:
    """As python makes __file__ of a script: what it finds by that is there after a chdir, too."""
    return os.path.join(os.getcwd(), path)


def _code_of(path: str) -> CodeType:
    with io.open_code(path) as file:
        content = file.read()  # once: it may be a pipe
    code = cast("CodeType | None", pkgutil.read_code(io.BytesIO(content)))
    if code is None:
        if path.endswith(".pyc"):
            raise RuntimeError("Bad magic number in .pyc file")
        code = compile(content, path, "exec", dont_inherit=True)
    return code


def _main_module(path: str) -> Any:
    machinery = importlib.machinery
    compiled = path.endswith(".pyc")
    loader = (machinery.SourcelessFileLoader if compiled else machinery.SourceFileLoader)(
        "__main__", path
    )
    spec = importlib.machinery.ModuleSpec("__main__", loader, origin=path)
    module = importlib.util.module_from_spec(spec)
    # As for a script that python runs itself; multiprocessing tells scripts from modules by this.
    vars(module).update(__spec__=None, __file__=path, __cached__=None, __package__=None)
    vars(module)["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        vars(module)["__annotations__"] = {}
    return module


def _drop_own_path() -> None:
    """runpy puts the directory or zip file first; the current directory is not for these."""
    if not sys.flags.safe_path:
        del sys.path[0]
