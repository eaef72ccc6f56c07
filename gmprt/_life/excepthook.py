"""Failures that nobody can collect any more: gmprt.excepthook, after threading.excepthook.

A goroutine's exception belongs to whoever holds its handle.  When the last handle is dropped
without result() or exception(), the C half calls `report` from an ordinary goroutine; what is left
at the end of run() or of the process is reported then.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any, NamedTuple

import gmprt
from gmprt import _core
from gmprt._api.errors import Cancelled, GoExit
from gmprt._view.goroutine import creation, given_name, place

if sys.version_info >= (3, 15):
    __import__("_colorize")  # else traceback would when it first prints, perhaps at the very end


class ExceptHookArgs(NamedTuple):
    """What gmprt.excepthook is called with."""

    exc_type: type[BaseException]
    """Its class."""
    exc_value: BaseException
    """The exception that has ended the goroutine."""
    exc_traceback: TracebackType | None
    """Where it was raised."""
    goroutine: _core.Goroutine[Any]
    """The handle; its function has ended."""


# Reprs and pickles name the public place, gmprt.ExceptHookArgs, not this file.
ExceptHookArgs.__module__ = "gmprt"


def excepthook(args: ExceptHookArgs, /) -> None:
    """Print the exception, its goroutine and where that was created to sys.stderr.

    Assign another function to `gmprt.excepthook` to replace it.  It is called in a goroutine or, at
    the end of the process, in the main thread; Cancelled and SystemExit never reach it.
    """
    stderr = sys.stderr
    if stderr is None:  # as under pythonw or a daemon that closed it
        return
    # One write: two reports must not mix their lines.
    stderr.write("".join(_report_lines(args)))
    stderr.flush()


def _report_lines(args: ExceptHookArgs) -> list[str]:
    goroutine = args.goroutine
    name = given_name(goroutine)
    lines = [f"Exception in goroutine {goroutine.id}{f' ({name})' if name else ''}:\n"]
    lines += traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
    creator = creation(goroutine)
    if creator is not None:
        lines.append(f"created by {place(*creator)}\n")
    return lines


def report(goroutine: _core.Goroutine[Any], /) -> None:
    """Hand the failure of an ended goroutine to gmprt.excepthook.  The C half calls this."""
    if goroutine.cancelled():
        return
    exc = goroutine.exception(timeout=0)
    if exc is None or isinstance(exc, (Cancelled, SystemExit)):
        return
    args = ExceptHookArgs(type(exc), exc, exc.__traceback__, goroutine)
    # Looked up at each call: users replace it by assignment.
    hook = gmprt.excepthook
    try:
        hook(args)
    except (Cancelled, GoExit):  # meant for the goroutine we run in
        raise
    except BaseException:
        _hook_failed(hook, args)


def _hook_failed(hook: object, args: ExceptHookArgs) -> None:
    """Print the error of a user's hook, then the one it was called for: no error is lost."""
    if sys.stderr is not None:
        sys.stderr.write(f"Exception in gmprt.excepthook:\n{traceback.format_exc()}")
    if hook is not excepthook:
        excepthook(args)


def report_uncollected(run_id: int = 0) -> None:
    """Report the failures that wait for it: at the end of run() those of its descendants, at the
    end of the process all.
    """
    for goroutine in _core.failures(run_id):
        report(goroutine)


_core.set_reporter(report)
