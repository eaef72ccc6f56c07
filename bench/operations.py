"""What bench.instructions counts: operations of Python programs, each n times in one goroutine.

As few modules as can be: some libraries make every park look at the stack
(csrc/py/interpose/affinity.c)."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from itertools import repeat
from typing import Any

import gmprt
from gmprt import Chan, Select, go, gosched, select

_BATCH = 100


def _beside(first: Callable[[int], Any], second: Callable[[int], Any], n: int) -> None:
    """Both, each in a goroutine."""
    for goroutine in [go(first, n), go(second, n)]:
        goroutine.result()


def _nothing() -> None:
    pass


def loop(n: int) -> None:
    for _ in repeat(None, n):
        _nothing()


def yields(n: int) -> None:
    def turns(n: int) -> None:
        for _ in repeat(None, n):
            gosched()

    _beside(turns, turns, n // 2)


def pingpong(n: int) -> None:
    ping: Chan[int] = Chan()
    pong: Chan[int] = Chan()

    def drive(n: int) -> None:
        for _ in repeat(None, n):
            ping.send(1)
            pong.recv()

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            pong.send(ping.recv())

    _beside(drive, echo, n)


def buffered(n: int) -> None:
    items: Chan[int] = Chan(128)

    def produce(n: int) -> None:
        for _ in repeat(None, n):
            items.send(1)

    def consume(n: int) -> None:
        for _ in repeat(None, n):
            items.recv()

    _beside(consume, produce, n)


def spawn(n: int) -> None:
    for _ in repeat(None, n // _BATCH):
        for goroutine in [go(_nothing) for _ in range(_BATCH)]:
            goroutine.join()


def spawn_one(n: int) -> None:
    for _ in repeat(None, n):
        go(_nothing).join()


def selects(n: int) -> None:
    channels: list[Chan[int]] = [Chan(1) for _ in range(4)]
    first, second, third, fourth = channels
    for _ in repeat(None, n // 4):
        for channel in channels:
            channel.send(1)
            select(first, second, third, fourth)


def select_object(n: int) -> None:
    channels: list[Chan[int]] = [Chan(1) for _ in range(4)]
    select_one = Select(*channels)
    for _ in repeat(None, n // 4):
        for channel in channels:
            channel.send(1)
            select_one()


def select_parks(n: int) -> None:
    first: Chan[int] = Chan()
    second: Chan[int] = Chan()

    def feed(n: int) -> None:
        for _ in repeat(None, n // 2):
            first.send(1)
            second.send(1)

    def take(n: int) -> None:
        for _ in repeat(None, n):
            select(first, second)

    _beside(take, feed, n)


def sockets(n: int) -> None:
    a, b = socket.socketpair()

    def drive(n: int) -> None:
        for _ in repeat(None, n):
            a.send(b"x")
            a.recv(1)

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            b.send(b.recv(1))

    with a, b:
        _beside(drive, echo, n // 2)


def with_lock(n: int) -> None:
    lock = threading.Lock()
    for _ in repeat(None, n):
        with lock:
            pass


def with_mutex(n: int) -> None:
    lock = gmprt.Mutex()
    for _ in repeat(None, n):
        with lock:
            pass


def handover(n: int) -> None:
    here, there = threading.Lock(), threading.Lock()
    here.acquire()
    there.acquire()

    def drive(n: int) -> None:
        for _ in repeat(None, n):
            there.release()
            here.acquire()

    def echo(n: int) -> None:
        for _ in repeat(None, n):
            there.acquire()
            here.release()

    _beside(drive, echo, n)


def sleepers(n: int) -> None:
    for goroutine in [go(gmprt.sleep, 0.5) for _ in range(n)]:
        goroutine.join()


def cancels(n: int) -> None:
    never: Chan[None] = Chan()

    def wait() -> None:
        try:
            never.recv()
        except gmprt.Cancelled:
            pass

    for _ in repeat(None, n):
        goroutine = go(wait)
        gosched()
        goroutine.cancel()
        goroutine.join()


OPERATIONS: dict[str, Callable[[int], None]] = {
    operation.__name__: operation
    for operation in (
        loop,
        yields,
        pingpong,
        buffered,
        spawn,
        spawn_one,
        selects,
        select_object,
        select_parks,
        sockets,
        with_lock,
        with_mutex,
        handover,
        sleepers,
        cancels,
    )
}


def main() -> None:
    """NAME ... SHORT LONG: each to warm up, then at both lengths, between calls of getppid()."""
    *names, short, long = sys.argv[1:]
    lengths = int(short), int(long)

    def all_of_them() -> None:
        for operation in map(OPERATIONS.__getitem__, names):
            operation(lengths[0])
            os.getppid()
            for n in lengths:
                operation(n)
                os.getppid()

    gc.disable()
    gmprt.run(lambda: go(all_of_them).result())


if __name__ == "__main__":
    main()
