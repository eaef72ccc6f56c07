"""Blocking C code in a goroutine never stalls the others: it runs on while they go on."""

from __future__ import annotations

import ctypes
import hashlib
import lzma
import os
import select as select_module
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, CGate, c_sleep, ended, eventually, interruptions, parked, run_child

import gmprt
from gmprt import Chan, go


class Turns:
    """Counts how often others get a turn meanwhile, on both sides of a channel."""

    def __init__(self) -> None:
        self.count = 0
        self.stop = False
        there: Chan[int] = Chan()
        self.goroutines = [go(self._ping, there), go(self._pong, there)]

    def _ping(self, ch: Chan[int]) -> None:
        with ch:
            while not self.stop:
                ch.send(1)

    def _pong(self, ch: Chan[int]) -> None:
        for _ in ch:
            self.count += 1

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop = True
        ended(*self.goroutines)


def _fifty_at_once() -> None:
    """In C code that nobody knows, which none of them leaves before all are there."""
    gates = [CGate() for _ in range(50)]
    blocked = [go(gate.wait) for gate in gates]
    eventually(lambda: all(g.state == "syscall" for g in blocked), "fifty in C code")
    with Turns() as turns:
        eventually(lambda: turns.count > 1000, "the others go on")
    for gate in gates:
        gate.open()
    ended(*blocked)


@pytest.mark.parametrize("n", [1, 2])
def test_fifty_block_side_by_side(n: int) -> None:
    gmprt.gomaxprocs(n)
    before = gmprt.stats().handoffs
    gmprt.run(_fifty_at_once)
    assert gmprt.stats().handoffs > before


@pytest.mark.parametrize("n", [1, 2])
def test_fifty_started_by_a_thread(n: int) -> None:
    gmprt.gomaxprocs(n)
    _fifty_at_once()


def _usleep() -> None:
    ctypes.CDLL(None).usleep(100_000)


def _lock() -> None:
    lock = threading.Lock()
    assert lock.acquire()
    assert not lock.acquire(timeout=0.1)


def _select() -> None:
    assert select_module.select([], [], [], 0.1) == ([], [], [])


def _socket() -> None:
    a, b = socket.socketpair()
    with a, b:
        b.settimeout(0.1)
        with pytest.raises(TimeoutError):
            b.recv(1)


def _pipe() -> None:
    r, w = os.pipe()
    t = threading.Timer(0.1, os.write, (w, b"x"))
    t.start()
    assert os.read(r, 1) == b"x"
    t.join()
    os.close(r)
    os.close(w)


def _subprocess() -> None:
    subprocess.run(["sleep", "0.1"], check=True)


BLOCKERS: dict[str, Callable[[], Any]] = {
    "time.sleep": lambda: time.sleep(0.1),
    "ctypes usleep": _usleep,
    "threading.Event": lambda: threading.Event().wait(0.1),
    "threading.Lock": _lock,
    "select.select": _select,
    "socket with timeout": _socket,
    "os.read of a pipe": _pipe,
    "subprocess": _subprocess,
}


def _turns_beside(block: Callable[[], Any], turns: Turns) -> None:
    """Blocks until the others have had many turns, from before such a call to its end."""
    end = time.monotonic() + PATIENCE
    count = 0
    while count <= 200:
        assert time.monotonic() < end, count
        before = turns.count
        block()
        count += turns.count - before


@pytest.mark.parametrize("kind", list(BLOCKERS))
@pytest.mark.parametrize("n", [1, 2])
def test_others_go_on_while_one_blocks(kind: str, n: int) -> None:
    gmprt.gomaxprocs(n)

    def main() -> None:
        with Turns() as turns:
            go(_turns_beside, BLOCKERS[kind], turns).result()

    gmprt.run(main)


@pytest.mark.parametrize("kind", list(BLOCKERS))
def test_many_block_side_by_side(kind: str) -> None:
    """More than there are processors."""
    gmprt.gomaxprocs(2)
    inside = most = 0

    def block() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        BLOCKERS[kind]()
        inside -= 1

    goroutines = [go(block) for _ in range(20 if kind == "subprocess" else 100)]
    for g in goroutines:
        g.result(PATIENCE)
    assert most > 6


def test_main_blocks_and_the_others_go_on() -> None:
    def main() -> None:
        with Turns() as turns:
            _turns_beside(lambda: c_sleep(0.1), turns)

    for n in (1, 2):
        gmprt.gomaxprocs(n)
        gmprt.run(main)


def _zlib(data: bytes) -> Any:
    return zlib.decompress(zlib.compress(data, 6)) == data


def _hashlib(data: bytes) -> Any:
    return hashlib.sha256(data * 20).hexdigest() == hashlib.sha256(data * 20).hexdigest()


def _lzma(data: bytes) -> Any:
    part = data[: 1 << 18]
    return lzma.decompress(lzma.compress(part, preset=1)) == part


def _file(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        for _ in range(5):
            path.write_bytes(data)
            if path.read_bytes() != data:
                return False
    return True


@pytest.mark.parametrize("work", [_zlib, _hashlib, _lzma, _file])
def test_work_in_c_beside_others(work: Callable[[bytes], Any], procs: int) -> None:
    """C code that computes without the GIL: right results from all, and turns for the others."""
    data = os.urandom(1 << 12) * 256

    def all_right() -> None:
        goroutines = [go(work, data) for _ in range(6)]
        results = [g.result(PATIENCE) for g in goroutines]
        assert all(results)

    def main() -> None:
        with Turns() as turns:
            _turns_beside(all_right, turns)

    gmprt.run(main)


def test_a_blocked_goroutine_comes_back_to_its_waits(procs: int) -> None:
    """Block, park, block, park: each rejoins at its next park."""
    ch: Chan[int] = Chan()

    def work(i: int) -> None:
        for turn in range(5):
            time.sleep(0.002)
            ch.send(100 * i + turn)
            gmprt.sleep(0.001)

    goroutines = [go(work, i) for i in range(10)]
    got = [ch.recv(timeout=PATIENCE) for _ in range(50)]
    ended(*goroutines)
    assert sorted(got) == [100 * i + t for i in range(10) for t in range(5)]


def test_a_wait_for_a_descriptor_after_a_blocking_call(procs: int) -> None:
    """Its thread has lost its P, and nobody else was in the poller: somebody must be sent there."""
    a, b = socket.socketpair()
    with a, b:

        def body() -> bytes:
            c_sleep(0.1)
            return a.recv(1)

        g = go(body)
        parked(g, "IO wait")
        b.send(b"x")
        assert g.result(PATIENCE) == b"x"


def test_blocked_goroutines_do_not_count_as_procs() -> None:
    """With all processors' worth of goroutines in blocking calls, others still run."""
    gmprt.gomaxprocs(1)
    release = threading.Event()
    blocked = [go(release.wait) for _ in range(20)]
    g = go(lambda: [gmprt.sleep(0.001) for _ in range(10)])
    assert g.join(PATIENCE)
    release.set()
    ended(*blocked)


def test_threads_are_reused() -> None:
    """Blocking again and again does not start a thread each time."""

    def main() -> int:
        before = gmprt.stats().threads_started
        for _ in range(100):
            ended(*[go(time.sleep, 0.001) for _ in range(4)])
        return gmprt.stats().threads_started - before

    assert gmprt.run(main) < 30


def test_short_calls_are_not_handed_off_needlessly() -> None:
    """Thousands of calls that release the GIL for a moment only."""

    def main() -> int:
        before, by_kernel = gmprt.stats().handoffs, interruptions()
        for _ in range(5000):
            os.stat(".")
        return gmprt.stats().handoffs - before - (interruptions() - by_kernel)

    assert gmprt.run(main) < 500


def test_many_short_calls_are_not_one_long_one() -> None:
    """A goroutine that is seen outside twice need not have been in the same call."""
    gmprt.gomaxprocs(1)

    def body() -> None:
        for _ in range(300):
            for _ in range(200):
                os.stat(".")
            gmprt.gosched()

    before, by_kernel = gmprt.stats().handoffs, interruptions()
    ended(*[go(body) for _ in range(5)])
    assert gmprt.stats().handoffs - before < 150 + interruptions() - by_kernel


def test_blocked_longer_than_a_slice_while_python_threads_compete() -> None:
    """Ordinary threads hog the GIL; goroutines still get their share of it."""
    stop = False

    def hog() -> None:
        while not stop:
            pass

    hogs = [threading.Thread(target=hog) for _ in range(2)]
    for t in hogs:
        t.start()
    try:
        g = go(lambda: [gmprt.gosched() or time.sleep(0.001) for _ in range(20)])
        s = go(lambda: [gmprt.sleep(0.001) for _ in range(20)])
        ended(g, s)
    finally:
        stop = True
        for t in hogs:
            t.join()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before 3.13 no state keeps a request")
def test_a_late_request_for_the_gil_is_forgotten() -> None:
    """A thread that waits for the GIL looks who has it, then asks that state to drop it. If the
    goroutine has been parked in between it keeps the request, for a moment when nobody waits."""
    code = """
        import ctypes, gmprt
        current = ctypes.pythonapi.PyThreadState_Get
        current.restype = ctypes.c_void_p
        DROP = 1  # _PY_GIL_DROP_REQUEST_BIT of eval_breaker, which follows prev, next and interp
        def ask(state, ch):
            breaker = ctypes.c_size_t.from_address(state + 3 * ctypes.sizeof(ctypes.c_void_p))
            breaker.value |= DROP
            ch.send("done")
        def main():
            ch = gmprt.Chan()
            gmprt.go(ask, current(), ch)
            print(ch.recv())
        gmprt.run(main)
    """
    assert run_child(code, timeout=10).stdout == "done\n"


def test_the_last_free_thread_sleeps_in_the_poller() -> None:
    """Until a far deadline: what becomes ready meanwhile is its own, if no other is to be had."""
    code = """
        import os, tempfile
        import gmprt
        gmprt.set_max_threads(2)
        questions, answers = gmprt.Chan(), gmprt.Chan(1)
        def echo():
            for x in questions:
                answers.send(x)
        echoes = gmprt.go(echo)
        sleeper = gmprt.go(gmprt.sleep, 1e6)
        while not echoes.state == sleeper.state == "waiting":
            gmprt.sleep(0.001)
        fifo = os.path.join(tempfile.mkdtemp(), "fifo")
        os.mkfifo(fifo)
        reader = gmprt.go(open, fifo, "rb")
        while reader.state != "syscall":
            gmprt.sleep(0.001)
        for i in range(100):
            questions.send(i)
            assert answers.recv(timeout=20) == i
        open(fifo, "wb").close()
        reader.result().close()
        print("ok")
    """
    assert run_child(code).stdout == "ok\n"
