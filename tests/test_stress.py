"""Crowds, and everything at once."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest
from support import PATIENCE, Thread, ended, eventually, mixed, run_child

import gmprt
from gmprt import Chan, Mutex, Semaphore, WaitGroup, go, select


def test_a_hundred_thousand_goroutines() -> None:
    """Parked on one channel and woken one by one; in a process of its own, for its memory."""
    code = """
        import gmprt
        n = 100_000
        def main():
            gate, done = gmprt.Chan(), gmprt.Chan(1000)
            def work():
                done.send(gate.recv())
            for _ in range(n):
                gmprt.go(work)
            while gate.statistics().waiting_receivers < n:
                gmprt.gosched()
            assert gmprt.num_goroutine() == n + 1
            def feed():
                for i in range(n):
                    gate.send(i)
            gmprt.go(feed)
            total = sum(done.recv() for _ in range(n))
            assert total == n * (n - 1) // 2
        gmprt.run(main)
        gmprt.run(main)
        print(gmprt.num_goroutine(), gmprt.stats().started >= 2 * n)
    """
    assert run_child(code, timeout=50).stdout == "0 True\n"


def test_a_hundred_thousand_woken_by_a_close() -> None:
    code = """
        import gmprt
        n = 100_000
        def main():
            gate, wg = gmprt.Chan(), gmprt.WaitGroup()
            for _ in range(n):
                wg.go(gate.recv_ok)
            while gate.statistics().waiting_receivers < n:
                gmprt.gosched()
            gate.close()
            assert wg.wait(20)
        gmprt.run(main)
        print(gmprt.num_goroutine())
    """
    assert run_child(code, timeout=50).stdout == "0\n"


def test_many_start_and_end(procs: int) -> None:
    wg = WaitGroup()
    for _ in range(20_000):
        wg.go(int)
    assert wg.wait(PATIENCE), (wg.count, gmprt.stats())


def test_ping_pong_of_many_pairs(procs: int) -> None:
    def pair() -> int:
        there: Chan[int] = Chan()
        back: Chan[int] = Chan()

        def echo() -> None:
            for v in there:
                back.send(v + 1)

        go(echo)
        v = 0
        for _ in range(50):
            there.send(v)
            v = back.recv()
        there.close()
        return v

    goroutines = [go(pair) for _ in range(200)]
    assert [g.result(PATIENCE) for g in goroutines] == [50] * 200
    eventually(lambda: gmprt.num_goroutine() == 0)


def test_a_daisy_chain() -> None:
    """The classic: ten thousand goroutines, each adds one."""

    def link(left: Chan[int], right: Chan[int]) -> None:
        left.send(1 + right.recv())

    def main(n: int) -> int:
        leftmost: Chan[int] = Chan()
        left = right = leftmost
        for _ in range(n):
            right = Chan()
            go(link, left, right)
            left = right
        go(right.send, 0)
        return leftmost.recv()

    assert gmprt.run(main, 10_000) == 10_000


def test_gomaxprocs_changes_while_everybody_works() -> None:
    """Also in between blocking calls, timers, and from several callers at once."""
    stop = False
    ch: Chan[int] = Chan(2)

    def talk() -> int:
        n = 0
        while not stop:
            select(gmprt.Send(ch, 1), ch, timeout=0.001)
            n += 1
        return n

    def block() -> int:
        n = 0
        while not stop:
            time.sleep(0.0002)
            gmprt.sleep(0.0002)
            n += 1
        return n

    def change(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            gmprt.gomaxprocs(rng.randint(1, 8))
            gmprt.sleep(0.001)

    workers = [go(talk) for _ in range(5)] + [go(block) for _ in range(4)] + [Thread(talk)]
    try:
        for t in [mixed(i, change, i) for i in range(3)]:
            t.result(PATIENCE)
    finally:
        stop = True
    assert all(w.result(PATIENCE) > 0 for w in workers)
    assert 1 <= gmprt.gomaxprocs() <= 8
    assert gmprt.stats().stop_the_worlds > 0


@pytest.mark.parametrize("chaos", ["", "7"])
def test_everything_at_once(chaos: str) -> None:
    """All operations, blocking calls, timers, cancels, failures and dumps, for a second."""
    code = """
        import gmprt, hashlib, random, sys, threading, time
        stop = time.monotonic() + 1
        gmprt.excepthook = lambda args: failures.append(args.exc_type)
        failures = []
        chans = [gmprt.Chan(c) for c in (0, 0, 1, 8)]
        m, s = gmprt.Mutex(), gmprt.Semaphore(2)
        done = gmprt.WaitGroup()
        lock = threading.RLock()

        def operation(rng):
            ch, other = rng.choice(chans), rng.choice(chans)
            wait = rng.choice([0, 0.0002, 0.002])
            which = rng.randrange(13)
            if which < 3:
                ch.send(which, timeout=wait)
            elif which < 6:
                ch.recv(timeout=wait)
            elif which == 6:
                gmprt.select(ch, gmprt.Send(other, 1), gmprt.after(wait), timeout=1)
            elif which == 7 and m.lock(timeout=wait):
                gmprt.gosched()
                m.unlock()
            elif which == 8 and s.acquire(timeout=wait):
                try:
                    gmprt.sleep(wait)
                finally:
                    s.release()
            elif which == 9:
                time.sleep(wait)
            elif which == 10:
                with lock:
                    gmprt.gosched()
            elif which == 11:
                hashlib.sha256(bytes(200_000)).digest()
            elif which == 12:
                g = gmprt.go(gmprt.Chan().recv)
                g.cancel()
                g.join()
                gmprt.go(lambda: 1 / 0)

        def worker(seed):
            rng = random.Random(seed)
            while time.monotonic() < stop:
                try:
                    operation(rng)
                except (gmprt.Timeout, gmprt.Cancelled):
                    pass

        def main():
            workers = [gmprt.go(worker, i) for i in range(20)]
            threads = [threading.Thread(target=worker, args=(100 + i,)) for i in range(4)]
            for t in threads:
                t.start()
            rng = random.Random(0)
            while time.monotonic() < stop:
                gmprt.debug.dump_string()
                gmprt.gomaxprocs(rng.randint(1, 4))
                rng.choice(workers).cancel()
                gmprt.sleep(0.01)
            for t in threads:
                t.join()
            for g in workers:
                assert g.exception() is None or isinstance(g.exception(), gmprt.GoroutineCancelled)
            for ch in chans:
                assert ch.waiting() == (0, 0) and len(ch) <= ch.capacity
            assert not m.locked() and s.value == 2

        gmprt.run(main)
        assert set(failures) <= {ZeroDivisionError}, set(failures)
        assert gmprt.num_goroutine() == 0
        print("done")
    """
    assert run_child(code, env={"GMPRT_CHAOS": chaos}, timeout=40).stdout == "done\n"


def test_many_threads_run_at_once(procs: int) -> None:
    """run() in many threads, each with its own crowd."""

    def main(n: int) -> int:
        ch: Chan[int] = Chan()
        for i in range(n):
            go(ch.send, i)
        return sum(ch.recv() for _ in range(n))

    got: dict[int, Any] = {}

    def thread(i: int) -> None:
        got[i] = [gmprt.run(main, 20) for _ in range(5)]

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == {i: [190] * 5 for i in range(8)}


def test_a_lock_of_every_kind_in_a_crowd(procs: int) -> None:
    mutex, sem, lock = Mutex(), Semaphore(1), threading.Lock()
    total = [0, 0, 0]

    def work() -> None:
        for _ in range(30):
            for i, guard in enumerate((mutex, sem, lock)):
                with guard:
                    before = total[i]
                    gmprt.gosched()
                    total[i] = before + 1

    ended(*[go(work) for _ in range(20)])
    assert total == [600, 600, 600]
