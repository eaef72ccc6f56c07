"""Seeing goroutines: who is alive, where each one stands, and what it waits for.

A dump has Go's format, so that eyes (and tools) trained on Go read it: one block per goroutine, the
caller's first, innermost frame first.

    goroutine 19 "fetch" [chan receive, 3 minutes]:
    shop.fetch(...)
            /srv/shop.py:61
    created by main in goroutine 1
            /srv/shop.py:21
"""

from __future__ import annotations

import sys

from gmprt import _core
from gmprt._view.goroutine import creation, frames, given_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, TextIO

__all__ = ["dump", "dump_string", "goroutines", "install_sigquit"]

# Go prints this many frames of the inner and of the outer end of a deep stack.
_FRAMES_EACH_END = 50


def goroutines() -> list[_core.Goroutine[Any]]:
    """All goroutines that are alive, by id.  Blocks nothing."""
    return _core.goroutines()


def dump(file: TextIO | None = None) -> None:
    """Print every goroutine with its stack to `file`, sys.stderr by default.

    Others go on running meanwhile; each block is true for its own moment.
    """
    out = sys.stderr if file is None else file
    if out is None:
        return
    if not callable(getattr(out, "write", None)):
        raise TypeError(f"dump(): file must be a text file or None, not {type(out).__name__}")
    separator = ""
    for text in _blocks():
        out.write(separator + text)
        separator = "\n"
    flush = getattr(out, "flush", None)  # print() does without, too
    if flush is not None:
        flush()


def dump_string() -> str:
    """What dump() prints."""
    return "\n".join(_blocks())


def install_sigquit() -> bool:
    """Make SIGQUIT (`Ctrl-\\`) dump all goroutines to sys.stderr; run() does this by itself.

    False if the program has its own use for the signal, which is then left alone.
    """
    return _core.install_sigquit()


def header(g: _core.Goroutine[Any]) -> str:
    """The first line of a goroutine's block, without its colon."""
    name = given_name(g)
    quoted = f' "{name}"' if name else ""
    return f"goroutine {g.id}{quoted} [{', '.join(_status(g))}]"


def block(g: _core.Goroutine[Any]) -> str:
    """One goroutine as it stands in a dump; never raises for what happens to `g` meanwhile."""
    try:
        lines = [header(g), ":\n"]
        lines += _frame_lines(g)
        creator = creation(g)
    except Exception as error:  # a dump is for bad times: say what is missing and go on
        return f"goroutine {g.id}: no details ({type(error).__name__}: {error})\n"
    if creator is not None:
        function, filename, lineno, parent = creator
        where = f" in goroutine {parent}" if parent else ""
        lines.append(f"created by {function}{where}\n\t{filename}:{lineno}\n")
    return "".join(lines)


def _blocks() -> Iterator[str]:
    current = _core.current()
    if current is not None:
        yield block(current)
    for g in _core.goroutines():
        # The list was made a moment ago: some of it may have ended.
        if g.state != "dead" and (current is None or g.id != current.id):
            yield block(g)


def _status(g: _core.Goroutine[Any]) -> Iterator[str]:
    state = g.state
    yield g.wait_reason or state if state == "waiting" else state
    if state in ("waiting", "syscall"):
        seconds = int(g.since)
        if seconds >= 60:
            yield f"{seconds // 60} minutes"
        elif seconds >= 1:
            yield f"{seconds} seconds"
    if g.is_thread:
        yield "thread"
    if g.locked_to_thread:
        yield "locked to thread"


def _frame_lines(g: _core.Goroutine[Any]) -> Iterator[str]:
    found = frames(g)
    elided = len(found) - 2 * _FRAMES_EACH_END
    for index, (frame, lineno) in enumerate(found):
        if elided > 0 and index == _FRAMES_EACH_END:
            yield f"...{elided} frames elided...\n"
        if index < _FRAMES_EACH_END or index >= len(found) - _FRAMES_EACH_END:
            yield f"{_function(frame)}(...)\n\t{frame.f_code.co_filename}:{lineno}\n"


def _function(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__")
    qualname = frame.f_code.co_qualname
    return f"{module}.{qualname}" if isinstance(module, str) else qualname


_core.set_dumper(dump)
_core.set_deadlock_dump(dump_string)
