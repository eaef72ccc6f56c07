"""Scenes: a call that blocks, what ends its wait, and the outcome that it has on a thread.

A scene is played in every position: on a thread; in a goroutine; in a goroutine that comes back on
another thread, because its own is meanwhile blocked in C code that nobody knows; in the main
goroutine of run().  The outcome must be the same, errno included, also when a signal handler runs
in between.  A cancel ends the wait instead, and the next call on the same stage is none the worse.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support import PATIENCE, CGate, Thread, eventually, parked

import gmprt
from gmprt import go

Call = Callable[[], Any]
Wake = Callable[[], object]
Stage = tuple[Call, Wake | None]
Build = Callable[[ExitStack], Stage]
"""Sets the stage; returns the call and what ends its wait (None: time does, or nothing need)."""


def failure(kind: type[BaseException], number: int | None = None) -> tuple[str, int | None]:
    """The outcome of a call that raises."""
    return kind.__name__, number


def outcome(call: Call) -> Any:
    """What a call returns, or type and errno of what it raises."""
    try:
        return call()
    except Exception as error:
        return failure(type(error), getattr(error, "errno", None))


# ---- time ----------------------------------------------------------------------------------------

_lasting = False


def brief() -> float:
    """Seconds until the time of a scene's call is up."""
    return 1000.0 if _lasting else 0.05


@contextmanager
def lasting() -> Iterator[None]:
    """Nobody's time is up: something else is to end the wait, however late it comes."""
    global _lasting
    _lasting = True
    try:
        yield
    finally:
        _lasting = False


# ---- positions -----------------------------------------------------------------------------------


def asleep(tid: int) -> bool:
    """Whether the kernel lets that thread of ours wait."""
    stat = Path(f"/proc/self/task/{tid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def on_a_thread(build: Build) -> Any:
    with ExitStack() as stack:
        call, wake = build(stack)
        tids: list[int] = []

        def body() -> Any:
            tids.append(threading.get_native_id())
            return outcome(call)

        thread = Thread(body)
        if wake:
            eventually(lambda: tids and asleep(tids[0]))
            wake()
        return thread.result()


def in_a_goroutine(build: Build) -> Any:
    with ExitStack() as stack:
        call, wake = build(stack)
        g = go(outcome, call)
        if wake:
            parked(g)
            wake()
        return g.result(PATIENCE)


def in_run(build: Build, before: Wake | None = None) -> Any:
    """In the main goroutine; another one calls `before`, then wakes it."""
    with ExitStack() as stack:
        call, wake = build(stack)

        def main() -> Any:
            me = gmprt.current()
            assert me is not None

            def helper() -> None:
                parked(me)
                if before:
                    before()
                    parked(me)
                assert wake
                wake()

            g = go(helper) if wake else None
            result = outcome(call)
            if g:
                g.result(PATIENCE)
            return result

        return gmprt.run(main)


def moved(build: Build) -> Any:
    """In a goroutine whose thread is blocked when its wait ends: it goes on on another one.

    Which thread takes the blocker is the scheduler's business, nearly always the right one.  If
    not, the scene is played again from the start.
    """
    for _ in range(100):
        result, happened = move_once(build)
        if happened:
            return result
    raise AssertionError("never on the same thread")


def move_once(build: Build) -> tuple[Any, bool]:
    """The outcome, and whether the goroutine came back on another thread, its own being blocked."""
    gate = CGate()

    def block() -> int:
        tid = threading.get_native_id()
        gate.wait()
        return tid

    def body() -> tuple[int, Any, int, gmprt.Goroutine[int]]:
        left = threading.get_native_id()
        blocker = go(block)  # runs next, on this thread, when the call parks
        result = outcome(call)
        return left, result, threading.get_native_id(), blocker

    with ExitStack() as stack:
        call, wake = build(stack)
        stack.callback(gate.open)
        g = go(body)
        if wake:
            parked(g)
            assert gate.entered()
            wake()
        left, result, back, blocker = g.result(PATIENCE)
    return result, left == blocker.result(PATIENCE) != back


# ---- scenes --------------------------------------------------------------------------------------


@dataclass
class Scene:
    build: Build
    expected: Any
    parks: bool  # in a goroutine
    wakes: bool  # something ends its wait, not only time
    cancels: bool
    partial: bool  # something is done by the time it waits: a signal or a cancel ends it with that

    @property
    def name(self) -> str:
        return self.build.__name__.strip("_")


@dataclass
class Scenes:
    """The scenes of one file of tests."""

    all: list[Scene] = field(default_factory=list)

    def __call__(
        self,
        expected: Any,
        *,
        parks: bool = True,
        wakes: bool = True,
        cancels: bool = True,
        partial: bool = False,
    ) -> Callable[[Build], Build]:
        """Decorator: this function builds a scene with that outcome."""

        def register(build: Build) -> Build:
            self.all.append(Scene(build, expected, parks, wakes, cancels, partial))
            return build

        return register

    def everywhere(self) -> pytest.MarkDecorator:
        """Parametrises a test with `scene` and `play`, which plays it in one of the positions."""
        positions = {"thread": on_a_thread, "goroutine": in_a_goroutine, "run": in_run}
        pairs = [
            pytest.param(scene, play, id=f"{scene.name}-{name}")
            for scene in self.all
            for name, play in [*positions.items(), ("moved", moved)]
            if scene.parks or play is not moved
        ]
        return pytest.mark.parametrize(("scene", "play"), pairs)

    def parking(self) -> pytest.MarkDecorator:
        return _each([s for s in self.all if s.parks])

    def waking(self) -> pytest.MarkDecorator:
        return _each([s for s in self.all if s.parks and s.wakes and not s.partial])

    def cancellable(self) -> pytest.MarkDecorator:
        return _each([s for s in self.all if s.parks and s.cancels and not s.partial])

    def partial(self) -> pytest.MarkDecorator:
        return _each([s for s in self.all if s.partial])


def _each(scenes: list[Scene]) -> pytest.MarkDecorator:
    """Parametrises a test with `scene`."""
    return pytest.mark.parametrize("scene", scenes, ids=[scene.name for scene in scenes])


# ---- what may come in between --------------------------------------------------------------------


@contextmanager
def handler(handle: Callable[[int, FrameType | None], object]) -> Iterator[Wake]:
    """Handles SIGUSR1 so; gives a function that sends it.

    To the main thread: of a signal for the process the kernel may choose any thread.
    """
    before = signal.signal(signal.SIGUSR1, handle)
    main = threading.get_ident()
    try:
        yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupted(build: Build) -> Any:
    """In the main goroutine; a signal handler runs during the call, which goes on."""
    handled: list[int] = []

    with handler(lambda number, frame: handled.append(number)) as send:

        def before() -> None:
            send()
            eventually(lambda: handled)

        result = in_run(build, before)
    assert handled == [signal.SIGUSR1]
    return result


class Bell(Exception):
    """What a signal handler raises."""


def broken_off(build: Build) -> Any:
    """In the main goroutine; a signal handler raises."""

    def raises(number: int, frame: FrameType | None) -> None:
        raise Bell

    with handler(raises) as send, ExitStack() as stack:
        call, _ = build(stack)

        def main() -> Any:
            me = gmprt.current()
            assert me is not None

            def helper() -> None:
                parked(me)
                send()

            g = go(helper)
            result = outcome(call)
            g.result(PATIENCE)
            return result

        return gmprt.run(main)


def cancelled(scene: Scene) -> None:
    """A goroutine is cancelled in the call; a second one, on the same stage, is none the worse."""
    with lasting(), ExitStack() as stack:
        call, wake = scene.build(stack)
        cancel(go(call))
        if wake:
            second = go(outcome, call)
            parked(second)
            wake()
            assert second.result(PATIENCE) == scene.expected
        else:
            cancel(go(call))


def cancel(g: gmprt.Goroutine[Any]) -> None:
    """It ends with that when it waits."""
    parked(g)
    g.cancel("enough")
    with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
        g.result(PATIENCE)
