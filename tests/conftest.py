"""Fixtures: a watchdog for every test, nothing left behind, callers of every kind."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from support import PATIENCE, Spawn, Thread

import gmprt

T = TypeVar("T")

_EXAMPLES = int(os.environ.get("GMPRT_TEST_EXAMPLES", "40"))
_LIMIT = int(3 * PATIENCE * max(1, _EXAMPLES / 400))  # seconds for one test

settings.register_profile(
    "gmprt",
    max_examples=_EXAMPLES,
    deadline=None,  # threads and a loaded machine: the watchdog is the deadline
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("gmprt")


_stderr = 2  # the real one, not what pytest captures: for the last words of a process that hangs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-all", action="store_true", help="refuse every call of test_faults.py's scenarios"
    )


def pytest_configure(config: pytest.Config) -> None:
    global _stderr
    _stderr = os.dup(2)
    # A shell that runs us in the background has had them ignored: children would inherit that.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # so that the collection after each test has only its own objects to look at


class Hung(BaseException):
    """A test has exceeded its time. Not an Exception: the code under test must not swallow it."""


def _hung(signum: int, frame: FrameType | None) -> None:
    sys.stderr.write("\n--- the test hangs; all goroutines:\n")
    gmprt.debug.dump()
    faulthandler.dump_traceback(all_threads=True)
    raise Hung(f"more than {_LIMIT} s")


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """Ends a test that hangs, with a dump; if even that cannot run, ends the process."""
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(_LIMIT)
    faulthandler.dump_traceback_later(_LIMIT + 15, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _not_ended(goroutines: list[gmprt.Goroutine[Any]]) -> list[gmprt.Goroutine[Any]]:
    """For whom five seconds are not enough: for all together, or the watchdog would come first."""
    deadline = time.monotonic() + PATIENCE / 4
    return [g for g in goroutines if not g.join(max(0.0, deadline - time.monotonic()))]


@pytest.fixture(autouse=True)
def _nothing_left(_watchdog: None) -> Iterator[None]:
    """Each test joins what it starts, and its failures are collected; the next one starts clean."""
    reported: list[gmprt.ExceptHookArgs] = []
    before = gmprt.excepthook
    gmprt.excepthook = reported.append
    first = gmprt.go(int)
    first.join()
    procs = gmprt.gomaxprocs()
    yield
    gmprt.gomaxprocs(procs)
    left = _not_ended(gmprt.debug.goroutines())
    described = "\n".join(gmprt.debug.block(g) for g in left)
    for g in left:
        g.cancel("the test is over")
    _not_ended(left)
    gc.collect()
    gc.freeze()  # what is left lives on, and need not be looked at again
    for g in gmprt.debug.goroutines():  # reporters of dropped failures
        g.join(PATIENCE)
    gmprt.excepthook = before
    assert not left, f"goroutines left behind:\n{described}"
    # What a test that failed has left in its traceback may be dropped, and reported, only now.
    reported = [args for args in reported if args.goroutine.id > first.id]
    assert not reported, f"failures nobody collected: {reported}"


@pytest.fixture(params=["main", "thread", "run", "goroutine"])
def where(request: pytest.FixtureRequest) -> Callable[[Callable[[], T]], T]:
    """where(fn) calls fn in one kind of caller after the other: all must work in each."""

    def in_goroutine(fn: Callable[[], T]) -> T:
        return gmprt.go(fn).result(50)

    def in_thread(fn: Callable[[], T]) -> T:
        return Thread(fn).result(50)

    callers: dict[str, Callable[[Callable[[], Any]], Any]] = {
        "main": lambda fn: fn(),
        "thread": in_thread,
        "run": gmprt.run,
        "goroutine": in_goroutine,
    }
    return callers[request.param]


@pytest.fixture(params=["goroutine", "thread"])
def spawn(request: pytest.FixtureRequest) -> Spawn:
    """spawn(fn, *args): a goroutine or an OS thread; the result has join, result and exception."""
    return gmprt.go if request.param == "goroutine" else Thread


@pytest.fixture(params=[1, 2, 4])
def procs(request: pytest.FixtureRequest) -> int:
    """The test runs with that GOMAXPROCS."""
    gmprt.gomaxprocs(request.param)
    return int(request.param)
