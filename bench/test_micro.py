"""Microbenchmarks for pytest-benchmark: ``pytest bench/``.

Each runs inside ``gmprt.run``, as a user's code does, and measures one operation of the main
goroutine together with what its partner does for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")
gmprt: Any = pytest.importorskip("gmprt", exc_type=ImportError)

Benchmark = Callable[..., Any]

BATCH = 1000


def nothing() -> None:
    """What a spawned goroutine does."""


def test_gosched(benchmark: Benchmark) -> None:
    """To the other goroutine and back: two switches."""
    stop = False

    def other() -> None:
        while not stop:
            gmprt.gosched()

    def main() -> None:
        nonlocal stop
        partner = gmprt.go(other)
        benchmark(gmprt.gosched)
        stop = True
        partner.result()

    gmprt.run(main)


def test_sleep_zero(benchmark: Benchmark) -> None:
    """sleep(0) with nobody to switch to."""
    gmprt.run(benchmark, gmprt.sleep, 0)


def test_pingpong(benchmark: Benchmark) -> None:
    """A round trip over two unbuffered channels."""

    def main() -> None:
        ping, pong = gmprt.Chan(), gmprt.Chan()

        def echo() -> None:
            for value in ping:
                pong.send(value)

        def trip() -> None:
            ping.send(1)
            pong.recv()

        partner = gmprt.go(echo)
        benchmark(trip)
        ping.close()
        partner.result()

    gmprt.run(main)


def test_buffered_same_goroutine(benchmark: Benchmark) -> None:
    """A send and a receive that both find what they need: no switch."""

    def main() -> None:
        items = gmprt.Chan(1)

        def pair() -> None:
            items.send(1)
            items.recv()

        benchmark(pair)

    gmprt.run(main)


def test_buffered(benchmark: Benchmark) -> None:
    """1000 items from another goroutine through a buffer of 128."""

    def main() -> None:
        items = gmprt.Chan(128)

        def produce() -> None:
            for i in range(BATCH):
                items.send(i)

        def transfer() -> None:
            gmprt.go(produce)
            for _ in range(BATCH):
                items.recv()

        benchmark(transfer)

    gmprt.run(main)


def test_spawn_join_one(benchmark: Benchmark) -> None:
    """One goroutine, started and joined."""
    gmprt.run(benchmark, lambda: gmprt.go(nothing).join())


def test_spawn_join_batch(benchmark: Benchmark) -> None:
    """1000 goroutines started, then joined."""

    def batch() -> None:
        for goroutine in [gmprt.go(nothing) for _ in range(BATCH)]:
            goroutine.join()

    gmprt.run(benchmark, batch)


def test_select(benchmark: Benchmark) -> None:
    """A send, and a select over four channels of which that one is ready."""

    def main() -> None:
        channels = [gmprt.Chan(1) for _ in range(4)]
        ready = channels[2]

        def send_and_select() -> None:
            ready.send(1)
            gmprt.select(*channels)

        benchmark(send_and_select)

    gmprt.run(main)


def test_select_default(benchmark: Benchmark) -> None:
    """A select over four channels of which none is ready."""

    def main() -> None:
        channels = [gmprt.Chan() for _ in range(4)]
        benchmark(gmprt.select, *channels, default=True)

    gmprt.run(main)


def test_mutex(benchmark: Benchmark) -> None:
    """Lock and unlock of a free mutex."""

    def main() -> None:
        mutex = gmprt.Mutex()

        def section() -> None:
            with mutex:
                pass

        benchmark(section)

    gmprt.run(main)


def test_mutex_handover(benchmark: Benchmark) -> None:
    """1000 sections each of two goroutines that yield inside the lock."""

    def main() -> None:
        mutex = gmprt.Mutex()

        def sections() -> None:
            for _ in range(BATCH):
                with mutex:
                    gmprt.gosched()

        def both() -> None:
            partner = gmprt.go(sections)
            sections()
            partner.result()

        benchmark(both)

    gmprt.run(main)
