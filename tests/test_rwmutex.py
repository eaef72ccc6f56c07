"""RWMutex: what Go's rwmutex_test.go checks, who comes next, time-outs and cancels."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Spawn, Task, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import Chan, RWMutex, go

Where = Callable[[Callable[[], Any]], Any]


def test_one_after_the_other(where: Where) -> None:
    def body() -> None:
        rw = RWMutex()
        assert rw.lock()
        assert rw.locked
        assert not rw.try_lock()
        assert not rw.try_rlock()
        assert not rw.lock(timeout=0)
        assert not rw.rlock(timeout=0.001)
        rw.unlock()
        assert rw.rlock()
        assert rw.try_rlock()
        assert (rw.readers, rw.locked) == (2, False)
        assert not rw.try_lock()
        assert not rw.lock(timeout=0.001)
        rw.runlock()
        rw.runlock()
        assert rw.try_lock()
        rw.unlock()

    where(body)


def test_with(where: Where) -> None:
    def body() -> None:
        rw = RWMutex()
        with rw.rlock() as held, rw.rlock(timeout=1):
            assert held
            assert rw.readers == 2
        with rw.lock():
            assert rw.locked
            late = rw.rlock(timeout=0)
            assert not late
            with pytest.raises(gmprt.Timeout), late:
                pytest.fail("without the lock")
            assert rw.readers == 0
        with pytest.raises(KeyError), rw.lock():
            raise KeyError
        assert rw.try_lock()

    where(body)


def test_unlock_of_unlocked() -> None:
    rw = RWMutex()
    for misuse in (rw.unlock, rw.runlock, rw.rlocker().unlock):
        with pytest.raises(RuntimeError, match="of unlocked RWMutex"):
            misuse()
    rw.rlock()
    with pytest.raises(RuntimeError, match=r"^unlock of"):
        rw.unlock()
    rw.runlock()
    rw.lock()
    with pytest.raises(RuntimeError, match=r"^runlock of"):
        rw.runlock()
    assert rw.locked


def test_wrong_arguments() -> None:
    rw: Any = RWMutex()
    for call in (
        lambda: RWMutex(1),  # type: ignore[call-arg]
        lambda: rw.lock(1),
        lambda: rw.rlock(True),
        lambda: rw.lock(timeout="1"),
        lambda: rw.rlock(timeout=True),
        lambda: rw.lock(blocking=True),
        lambda: rw.rlocker().lock(1),
        lambda: gmprt.RLocker(),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="negative"):
        rw.lock(timeout=-1)
    assert rw.try_lock()


def test_parallel_readers(procs: int, spawn: Spawn) -> None:
    rw = RWMutex()
    locked: Chan[int] = Chan()
    leave: Chan[int] = Chan()

    def reader() -> None:
        with rw.rlock():
            locked.send(1)
            leave.recv()

    tasks = [spawn(reader) for _ in range(4)]
    for _ in tasks:
        locked.recv(timeout=PATIENCE)
    assert rw.readers == 4
    for _ in tasks:
        leave.send(1, timeout=PATIENCE)
    ended(*tasks)  # type: ignore[arg-type]
    assert rw.readers == 0


@pytest.mark.parametrize("readers", [1, 3, 10])
def test_hammer(procs: int, readers: int) -> None:
    """Go's HammerRWMutex, with yields inside: a reader counts 1, a writer 10 000."""
    rw = RWMutex()
    activity = gmprt.AtomicInt()
    rounds = 100

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rounds):
            with rw.rlock():
                assert 1 <= activity.add(1) < 10000
                if rng.random() < 0.3:
                    gmprt.gosched()
                activity.add(-1)

    def write(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rounds):
            with rw.lock():
                assert activity.add(10000) == 10000
                if rng.random() < 0.5:
                    gmprt.gosched()
                activity.add(-10000)

    tasks: list[Task[None]] = [mixed(i, read, i) for i in range(readers)]
    tasks += [mixed(i, write, i) for i in range(2)]
    for t in tasks:
        t.result(PATIENCE)
    assert (rw.readers, rw.locked, activity.load()) == (0, False, 0)


def test_rlocker() -> None:
    """Go's TestRLocker."""
    rw = RWMutex()
    reader = rw.rlocker()
    wlocked: Chan[bool] = Chan(1)
    rlocked: Chan[bool] = Chan(1)
    n = 10

    def other() -> None:
        for _ in range(n):
            assert reader.lock() is True
            assert reader.lock(timeout=1)
            rlocked.send(True)
            rw.lock()
            wlocked.send(True)

    g = go(other)
    for _ in range(n):
        rlocked.recv(timeout=PATIENCE)
        reader.unlock()
        assert len(wlocked) == 0, "rlocker() has not locked it"
        reader.unlock()
        wlocked.recv(timeout=PATIENCE)
        assert len(rlocked) == 0, "rlocker() does not respect the writer"
        rw.unlock()
    ended(g)
    with reader as same:
        assert same is reader
        assert rw.readers == 1
        assert reader.try_lock()
        reader.unlock()


def test_a_writer_that_waits_keeps_readers_out() -> None:
    rw = RWMutex()
    order: list[str] = []

    def write() -> None:
        with rw.lock():
            order.append("w")

    def read() -> None:
        with rw.rlock():
            order.append("r")

    rw.rlock()
    writer = go(write)
    parked(writer, "sync.RWMutex.Lock")
    assert not rw.try_rlock()
    readers = [go(read) for _ in range(3)]
    for g in readers:
        parked(g, "sync.RWMutex.RLock")
    second = go(write)
    parked(second, "sync.RWMutex.Lock")
    rw.runlock()
    ended(writer, second, *readers)
    assert order == ["w", "r", "r", "r", "w"], "readers that waited go before the next writer"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_readers_go_on_when_the_writer_gives_up(how: str) -> None:
    rw = RWMutex()
    rw.rlock()
    writer = go(rw.lock, timeout=0.2 if how == "timeout" else None)
    parked(writer, "sync.RWMutex.Lock")
    reader = go(rw.rlock)
    parked(reader, "sync.RWMutex.RLock")
    if how == "cancel":
        writer.cancel()
    assert reader.result(PATIENCE)
    assert rw.readers == 2
    if how == "timeout":
        assert not writer.result(PATIENCE)
    else:
        assert isinstance(writer.exception(PATIENCE), gmprt.GoroutineCancelled)
    rw.runlock()
    rw.runlock()
    assert rw.try_lock()


def test_a_cancelled_reader_does_not_hold_it() -> None:
    rw = RWMutex()
    rw.lock()
    readers = [go(rw.rlock) for _ in range(3)]
    for g in readers:
        parked(g, "sync.RWMutex.RLock")
    readers[1].cancel()
    rw.unlock()
    ended(*readers)
    assert readers[1].cancelled()
    assert rw.readers == 2
    writer = go(rw.lock)
    parked(writer)
    rw.runlock()
    assert not writer.done()
    rw.runlock()
    assert writer.result(PATIENCE)


STORM = """
import random, gmprt
from gmprt import RWMutex, go
rw, inside, done = RWMutex(), [0, 0], gmprt.AtomicInt()

def worker(seed):
    rng = random.Random(seed)
    while rounds.add(-1) > 0:
        writes = rng.random() < 0.3
        try:
            held = (rw.lock if writes else rw.rlock)(timeout=rng.choice([None, 0, 0.0002]))
            if not held:
                continue
            inside[writes] += 1
            assert not (inside[0] and inside[1]) and inside[1] <= 1, inside
            try:
                if rng.random() < 0.3:
                    gmprt.sleep(rng.choice([0, 0.0001]))
            finally:
                inside[writes] -= 1
                (rw.unlock if writes else rw.runlock)()
        except gmprt.Cancelled:
            done.add(1)

def main():
    workers = [go(worker, i) for i in range(24)]
    rng = random.Random(99)
    while not all(g.done() for g in workers):
        rng.choice(workers).cancel()
        gmprt.sleep(0.0002)
    for g in workers:
        g.result()
    assert inside == [0, 0] and rw.readers == 0 and not rw.locked
    assert rw.try_lock() and done.load() > 0
    print("done")

rounds = gmprt.AtomicInt(3000)
gmprt.run(main)
"""


@pytest.mark.parametrize(("procs", "chaos"), [("1", ""), ("4", "20261130")])
def test_storm_of_cancels(procs: str, chaos: str) -> None:
    env = {"GOMAXPROCS": procs, "GMPRT_CHAOS": chaos}
    assert run_child(STORM, env=env, timeout=50).stdout == "done\n"


def test_a_deadlock_names_it() -> None:
    code = """
        import gmprt
        def main():
            rw = gmprt.RWMutex()
            rw.rlock()
            rw.lock()
        gmprt.run(main)
        """
    stderr = run_child(code, status=1).stderr
    assert "gmprt.Deadlock" in stderr
    assert "goroutine 1 [sync.RWMutex.Lock]" in stderr


def test_threads_are_woken(spawn: Spawn) -> None:
    rw = RWMutex()
    rw.lock()
    tasks = [spawn(rw.rlock) for _ in range(3)]
    assert not any(t.join(0.005) for t in tasks)
    rw.unlock()
    assert all(t.result(PATIENCE) for t in tasks)
    eventually(lambda: rw.readers == 3)
