"""run(), and the two ends: of a main goroutine and of the process.

The convention is asyncio.run's: what a main goroutine started does not outlive it.  Its descendants
are cancelled, so that their `finally` blocks run, and waited for.  At the end of the process the
same happens to everything that is still alive (detached goroutines and those of ordinary threads),
but only for a limited time.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import time

from gmprt import _core, debug
from gmprt._api.errors import Cancelled, GoroutineCancelled, RuntimeNotRunning
from gmprt._view.goroutine import creation, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

_WARN_AFTER = 5.0  # seconds until run() says who keeps it waiting
_EXIT_DEADLINE = 3.0  # seconds that goroutines get at the end of the process
_LOOK_AGAIN = 0.1  # seconds between two looks for goroutines that were started meanwhile, and
_LOOK_SHARE = 20  # at least so many times what a look takes: it keeps the goroutines from ending
_MOST_NAMED = 20  # goroutines in one message
_EXITING = "the process is exiting"  # the reason of cancels then


def run(main: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Run main(*args, **kwargs) as a goroutine, wait for it, and return its result.

    Or raise its exception.  The calling thread lends the goroutine its identity:
    threading.current_thread(), thread-locals and contextvars stay.  On the main thread signal
    handlers and Ctrl-C work inside, also while the goroutine is parked.

    When main has ended, goroutines that it or its descendants started and that are still alive are
    cancelled and waited for, but for those detached with g.detach().  After 5 seconds a message on
    sys.stderr names those that do not end; run() goes on waiting, as asyncio.run does.  Ctrl-C
    during that wait dumps all goroutines and ends the process with status 130.  Failures that
    nobody collected are then passed to gmprt.excepthook.

    Inside a goroutine this is just main(*args, **kwargs).  After goexit() in main, run() returns
    None.  TypeError if main cannot be called, GoroutineCancelled if somebody cancelled it, Deadlock
    if all goroutines wait for each other.
    """
    if not callable(main):
        raise TypeError(f"run(): main must be callable, not {type(main).__name__}")
    if _core.current() is not None:
        return main(*args, **kwargs)
    from gmprt._life import threads  # imports threading, which becoming active does

    main_thread = threads.main_here()
    try:
        return _core.lend(_call_main, main, args, kwargs)
    except GoroutineCancelled as cancelled:
        if cancelled.reason is _EXITING:
            # In a daemon thread, as no other runs now: it ends without a word, as those do.
            raise SystemExit from None
        raise
    except Cancelled as cancelled:
        # Cancelled is for the goroutine alone; here we are in an ordinary thread.
        raise GoroutineCancelled(cancelled.reason) from None
    finally:
        if main_thread is not None:
            threads.main_again(main_thread)


def _call_main(main: Callable[..., _R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _R:
    """What runs in the main goroutine."""
    me = _core.current()
    if me is None:
        raise AssertionError("not in a goroutine")
    try:
        return main(*args, **kwargs)
    finally:
        # The try is here, not in the function called, so that no Ctrl-C falls between the two.
        try:
            _end_descendants(me.run_id, me.id)
        except KeyboardInterrupt:
            _give_up()
        _report_uncollected(me.run_id)


def _report_uncollected(run_id: int = 0) -> None:
    from gmprt._life.excepthook import report_uncollected  # imported by the first go()

    report_uncollected(run_id)


def _end_descendants(run_id: int, main_id: int) -> None:

    def descendants(these: list[_core.Goroutine[Any]]) -> list[_core.Goroutine[Any]]:
        return [g for g in these if g.run_id == run_id and g.id != main_id and not g.detached]

    ending = _Ending(
        lambda: [g for g in descendants(_core.goroutines()) if not g.done()],
        "the main goroutine has ended",
        lambda: descendants(_core.leaving()),
    )
    left = ending.wait(time.monotonic() + _WARN_AFTER)
    if left:
        _say_who_stays(left)
        ending.wait(math.inf)


def _say_who_stays(goroutines: list[_core.Goroutine[Any]]) -> None:
    lines = [f"gmprt.run() waits for {len(goroutines)} cancelled goroutine(s) that do not end:\n"]
    for g in goroutines[:_MOST_NAMED]:
        creator = creation(g)
        created = f" created by {place(*creator)}" if creator else ""
        lines.append(f"  {debug.header(g)}{created}\n")
    if len(goroutines) > _MOST_NAMED:
        lines.append(f"  ... and {len(goroutines) - _MOST_NAMED} more\n")
    _warn("".join(lines))


def _give_up() -> NoReturn:
    """Somebody has pressed Ctrl-C because the leftovers do not end."""
    try:
        _warn(
            "gmprt.run(): interrupted while waiting for cancelled goroutines; all goroutines:\n\n"
        )
        debug.dump()
        if sys.stdout is not None:
            sys.stdout.flush()
    finally:
        os._exit(130)  # 128 + SIGINT, as a shell reports it


def _warn(message: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(message)
        sys.stderr.flush()


class _Ending:
    """Cancels goroutines, once each, and waits for their ends: all at once, and new ones too.

    Then for those that are done but for their callbacks: what these were to do is not lost.
    """

    def __init__(
        self,
        alive: Callable[[], list[_core.Goroutine[Any]]],
        reason: str,
        leaving: Callable[[], list[_core.Goroutine[Any]]] = list,
    ) -> None:
        self._alive = alive  # those still to end; called again for those that appear meanwhile
        self._leaving = leaving  # likewise
        self._reason = reason
        self._cancelled: set[int] = set()  # ids
        self._hurried: set[int] = set()  # ids of those whose callbacks' waits were cancelled
        self._count = _core.WaitGroup()

    def wait(self, deadline: float) -> list[_core.Goroutine[Any]]:
        """Wait until none is left, or time.monotonic() is `deadline`; return those left."""
        while True:
            began = time.monotonic()
            alive = self._alive()
            looked = time.monotonic() - began
            leaving = [] if alive else self._leaving()
            if not alive and not leaving:
                return []
            self._cancel(alive)
            self._hurry(leaving)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._sleep(leaving, min(left, max(_LOOK_AGAIN, _LOOK_SHARE * looked)))
        return [g for g in alive if not g.done()] + leaving

    def _cancel(self, goroutines: list[_core.Goroutine[Any]]) -> None:
        for g in goroutines:
            if g.id not in self._cancelled:
                self._cancelled.add(g.id)
                self._count.add(1)
                g.add_done_callback(self._ended)
                g.cancel(self._reason)

    def _ended(self, _: _core.Goroutine[Any]) -> None:
        self._count.done()

    def _hurry(self, goroutines: list[_core.Goroutine[Any]]) -> None:
        for g in goroutines:
            if g.id not in self._hurried:
                self._hurried.add(g.id)
                _core.cancel_leaving(g)

    def _sleep(self, leaving: list[_core.Goroutine[Any]], seconds: float) -> None:
        try:
            if leaving:
                _core.join_leaving(leaving[0], seconds)
            else:
                self._count.wait(timeout=seconds)
        except Cancelled:
            # The main goroutine itself was cancelled, which is under way already.
            pass


def _shutdown() -> None:
    """The end of the process: no goroutine may touch an interpreter that is being taken down."""
    if not _core.running():
        _core.stop(0.0)  # a forked child may be a goroutine and have started nothing
        return
    deadline = time.monotonic() + _EXIT_DEADLINE
    try:
        for g in _Ending(_others, _EXITING, _others_leaving).wait(deadline):
            _warn(
                f"gmprt: abandoned at exit, {_EXIT_DEADLINE:g} s after cancel: {debug.block(g)}\n"
            )
        _report_uncollected()
    finally:
        _core.stop(max(deadline - time.monotonic(), 0.0))


def stopped() -> BaseException:
    """What go() raises from then on."""
    import threading

    if _core.current() is None and threading.current_thread().daemon:
        return SystemExit()  # it would print the other while nobody waits for it
    return RuntimeNotRunning("the runtime has been stopped: the interpreter is exiting")


def _others() -> list[_core.Goroutine[Any]]:
    me = _core.current()  # not None if C code inside a goroutine ends the process
    return [g for g in _core.goroutines() if not g.done() and _ends_here(g, me)]


def _others_leaving() -> list[_core.Goroutine[Any]]:
    me = _core.current()
    return [g for g in _core.leaving() if _ends_here(g, me)]


def _ends_here(g: _core.Goroutine[Any], me: _core.Goroutine[Any] | None) -> bool:
    """Of threads that are goroutines `threading` has waited for those that are no daemons."""
    return not g.is_thread and (me is None or g.id != me.id)


atexit.register(_shutdown)
