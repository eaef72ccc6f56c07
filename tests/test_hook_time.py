"""csrc/py/interpose/hooks/time.c: time.sleep and signal.pause."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import Any

import pytest
from scenes import Bell, Scene, Scenes, Stage, brief, broken_off, failure, handler
from support import PATIENCE, eventually, parked

import gmprt
from gmprt import go

scenes = Scenes()


@scenes(None)
def sleep(stack: ExitStack) -> Stage:
    return lambda: time.sleep(brief()), None


@scenes(None, parks=False)
def sleep_zero(stack: ExitStack) -> Stage:
    return lambda: time.sleep(0), None


@scenes(None, parks=False)
def sleep_a_nanosecond(stack: ExitStack) -> Stage:
    return lambda: time.sleep(1e-9), None


@scenes(failure(ValueError), parks=False)
def sleep_negative(stack: ExitStack) -> Stage:
    return lambda: time.sleep(-1), None


@scenes(failure(OverflowError), parks=False)
def sleep_too_long(stack: ExitStack) -> Stage:
    return lambda: time.sleep(1e20), None


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


def _for_ever(stack: ExitStack) -> Stage:
    return lambda: time.sleep(3600), None


def test_cancelled() -> None:
    g = go(time.sleep, 3600)
    parked(g, "sleep")
    g.cancel("enough")
    with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
        g.result(PATIENCE)


def test_a_handler_that_raises_ends_a_sleep() -> None:
    assert broken_off(_for_ever) == failure(Bell)


def test_a_sleep_goes_on_after_a_signal() -> None:
    """PEP 475: the whole time is slept, whatever is handled meanwhile."""
    handled: list[int] = []

    def main() -> float:
        me = gmprt.current()
        assert me is not None

        def helper() -> None:
            for _ in range(3):
                parked(me)
                handled.clear()
                send()
                eventually(lambda: handled)

        g = go(helper)
        begun = time.monotonic()
        time.sleep(0.3)
        took = time.monotonic() - begun
        g.result(PATIENCE)
        return took

    with handler(lambda number, frame: handled.append(number)) as send:
        took = gmprt.run(main)
    assert took >= 0.3


@pytest.mark.parametrize("n", [1, 2])
def test_ten_thousand_sleep_on_few_threads(n: int) -> None:
    gmprt.gomaxprocs(n)
    before = gmprt.stats().threads

    def main() -> float:
        begun = time.monotonic()
        goroutines = [go(time.sleep, 0.5) for _ in range(10_000)]
        for g in goroutines:
            g.result(PATIENCE)
        return time.monotonic() - begun

    assert gmprt.run(main) >= 0.5
    assert gmprt.stats().threads <= before + 10


def test_pause_until_a_signal_is_handled() -> None:
    handled: list[int] = []

    def main() -> list[int]:
        me = gmprt.current()
        assert me is not None

        def helper() -> None:
            parked(me)
            send()

        g = go(helper)
        signal.pause()
        g.result(PATIENCE)
        return list(handled)

    with handler(lambda number, frame: handled.append(number)) as send:
        assert gmprt.run(main) == [signal.SIGUSR1]


def test_a_pause_is_cancelled() -> None:
    g = go(signal.pause)
    parked(g)
    g.cancel("enough")
    with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
        g.result(PATIENCE)
