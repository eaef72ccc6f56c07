"""Cond: what Go's cond_test.go checks; no signal is lost by time-outs, cancels and Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Child, Spawn, Task, ended, mixed, parked, run_child

import gmprt
from gmprt import Chan, Cond, Mutex, RWMutex, go


def test_signal_wakes_one(spawn: Spawn) -> None:
    """Go's TestCondSignal."""
    c = Cond(Mutex())
    running: Chan[int] = Chan(2)
    awake: Chan[int] = Chan(2)

    def waiter() -> None:
        with c:
            running.send(1)
            assert c.wait() is True
            awake.send(1)

    tasks = [spawn(waiter) for _ in range(2)]
    for _ in tasks:
        running.recv(timeout=PATIENCE)
    for _ in tasks:
        assert len(awake) == 0
        with c:
            c.signal()
        awake.recv(timeout=PATIENCE)
        assert len(awake) == 0, "too many are awake"
    c.signal()
    ended(*tasks)  # type: ignore[arg-type]


def test_generations() -> None:
    """Go's TestCondSignalGenerations: a signal goes to those who waited before."""
    c = Cond(Mutex())
    running: Chan[int] = Chan(100)
    awake: Chan[int] = Chan(100)

    def waiter(i: int) -> None:
        with c:
            running.send(1)
            c.wait()
            awake.send(i)

    tasks: list[Task[None]] = []
    for i in range(100):
        tasks.append(mixed(i, waiter, i))
        if i > 0:
            assert awake.recv(timeout=PATIENCE) == i - 1
        running.recv(timeout=PATIENCE)
        with c:
            c.signal()
    ended(*tasks)  # type: ignore[arg-type]


def test_broadcast(procs: int) -> None:
    """Go's TestCondBroadcast."""
    n = 20
    c = Cond(Mutex())
    running: Chan[int] = Chan(n)
    awake: Chan[int] = Chan(n)
    leave = False

    def waiter(me: int) -> None:
        with c:
            while not leave:
                running.send(me)
                c.wait()
                awake.send(me)

    tasks: list[Task[None]] = [mixed(i, waiter, i) for i in range(n)]
    for i in range(n):
        for _ in range(n):
            running.recv(timeout=PATIENCE)
        with c:
            leave = i == n - 1
            assert len(awake) == 0
            c.broadcast()
        assert sorted(awake.recv(timeout=PATIENCE) for _ in range(n)) == list(range(n))
    ended(*tasks)  # type: ignore[arg-type]
    assert len(running) == 0
    c.broadcast()


def test_three_in_turn() -> None:
    """Go's TestRace."""
    x = 0
    c = Cond(Mutex())

    def first() -> None:
        nonlocal x
        with c:
            x = 1
            c.wait()
            assert x == 2
            x = 3
            c.signal()

    def second() -> None:
        nonlocal x
        while True:
            with c:
                if x == 1:
                    x = 2
                    c.signal()
                    return
            gmprt.gosched()

    def third() -> None:
        while True:
            with c:
                if x == 2:
                    c.wait()
                    assert x == 3
                    return
                if x == 3:
                    return
            gmprt.gosched()

    for g in [go(first), go(second), go(third)]:
        g.result(PATIENCE)


def test_a_broadcast_is_not_stolen() -> None:
    """Go's TestCondSignalStealing."""
    for _ in range(100):
        c = Cond(Mutex())
        ch: Chan[int] = Chan()
        done: list[bool] = []

        def waiter(c: Cond = c, ch: Chan[int] = ch) -> None:
            with c:
                ch.send(1)
                c.wait()
            ch.send(2)

        def thief(c: Cond = c, done: list[bool] = done) -> None:
            with c:
                while not done:
                    c.wait()

        first = go(waiter)
        ch.recv(timeout=PATIENCE)
        with c:
            pass
        others = [go(c.broadcast), go(thief)]
        assert ch.recv(timeout=PATIENCE) == 2
        with c:
            done.append(True)
        c.broadcast()
        ended(first, *others)


def sides() -> dict[str, Callable[[], tuple[Any, Callable[[], bool]]]]:
    """A lock, and whether it is locked as it is to be."""

    def mutex() -> tuple[Any, Callable[[], bool]]:
        m = Mutex()
        return m, m.locked

    def writer() -> tuple[Any, Callable[[], bool]]:
        rw = RWMutex()
        return rw, lambda: rw.locked

    def reader() -> tuple[Any, Callable[[], bool]]:
        rw = RWMutex()
        return rw.rlocker(), lambda: rw.readers == 1

    return {"mutex": mutex, "writer": writer, "reader": reader}


@pytest.mark.parametrize("side", sides())
def test_over_each_lock(side: str, spawn: Spawn) -> None:
    lock, is_locked = sides()[side]()
    c = Cond(lock)
    assert c.lock is lock
    assert not is_locked()

    def waiter() -> bool:
        with c as same:
            assert same is c
            woken = c.wait(timeout=PATIENCE)
            return woken and is_locked()

    t = spawn(waiter)
    while not t.join(0):
        c.signal()
        gmprt.sleep(0.001)
    assert t.result(PATIENCE) is True
    assert not is_locked()
    for wait in (c.wait, lambda: c.wait(timeout=0), lambda: c.wait(timeout=1)):
        with pytest.raises(RuntimeError, match="not locked"):
            wait()
    with c:
        assert c.wait(timeout=0) is False
        assert c.wait(timeout=0.001) is False
        assert is_locked()


def test_wrong_arguments() -> None:
    for wrong in (None, 1, object(), Chan()):
        with pytest.raises(TypeError, match=r"^Cond\(\): lock must be a Mutex"):
            Cond(wrong)  # type: ignore[arg-type]
    c = Cond(Mutex())
    with c:
        for call in (lambda: c.wait(1), lambda: c.wait(timeout="1"), lambda: c.signal(1)):  # type: ignore[call-arg, arg-type]
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError):
            c.wait(timeout=-1)


def test_a_cancelled_wait_takes_no_signal() -> None:
    m = Mutex()
    c = Cond(m)

    def waiter() -> bool:
        with c:
            return c.wait()

    first, second = go(waiter), go(waiter)
    parked(first, "sync.Cond.Wait")
    parked(second, "sync.Cond.Wait")
    first.cancel()
    c.signal()
    assert second.result(PATIENCE) is True
    assert isinstance(first.exception(PATIENCE), gmprt.GoroutineCancelled)
    assert not m.locked()


def test_a_cancel_after_the_signal_waits_for_the_next_wait() -> None:
    """The signal was taken, so the waiter must act on it."""
    m = Mutex()
    c = Cond(m)
    acted: list[bool] = []

    def waiter() -> None:
        with c:
            acted.append(c.wait())
            acted.append(m.locked())
        gmprt.sleep(PATIENCE)

    g = go(waiter)
    parked(g, "sync.Cond.Wait")
    with c:
        c.signal()
        parked(g, "sync.Mutex.Lock")
        g.cancel("late")
        assert not g.join(0.002), "it does not come back without the lock"
    error = g.exception(PATIENCE)
    assert isinstance(error, gmprt.GoroutineCancelled)
    assert error.reason == "late"
    assert acted == [True, True]
    assert not m.locked()


def test_a_cancel_that_is_put_off_is_no_signal() -> None:
    """It has knocked before the shield; nothing wakes the wait but a signal."""
    c = Cond(Mutex())
    woken: list[bool] = []

    def waiter() -> None:
        me = gmprt.current()
        assert me
        me.cancel("later")
        with gmprt.shield(), c:
            woken.append(c.wait())
        gmprt.sleep(PATIENCE)

    g = go(waiter)
    parked(g, "sync.Cond.Wait")
    assert not woken
    with c:
        c.signal()
    error = g.exception(PATIENCE)
    assert isinstance(error, gmprt.GoroutineCancelled)
    assert (error.reason, woken) == ("later", [True])


def test_cancelled_it_has_the_lock_again() -> None:
    m = Mutex()
    c = Cond(m)
    held: list[bool] = []

    def waiter() -> None:
        with c:
            try:
                c.wait()
            finally:
                held.append(m.locked())

    g = go(waiter)
    parked(g, "sync.Cond.Wait")
    m.lock()
    g.cancel()
    parked(g, "sync.Mutex.Lock")
    m.unlock()
    ended(g)
    assert g.cancelled()
    assert held == [True]
    assert not m.locked()


STORM = """
import random, gmprt
from gmprt import Cond, Mutex, go
c = Cond(Mutex())
stock = sold = refused = 0
TOTAL = 600

def consumer(seed):
    global stock, sold, refused
    rng = random.Random(seed)
    while True:
        try:
            with c:
                while stock == 0:
                    if sold == TOTAL:
                        return
                    if not c.wait(timeout=rng.choice([None, 0.0003])):
                        refused += 1
                stock -= 1
                sold += 1
                if sold == TOTAL:
                    c.broadcast()
        except gmprt.Cancelled:
            refused += 1

def main():
    global stock
    rng = random.Random(5)
    consumers = [go(consumer, i) for i in range(12)]
    for _ in range(TOTAL):
        with c:
            stock += 1
        c.signal()              # one for each: none may be lost
        if rng.random() < 0.5:
            rng.choice(consumers).cancel()
        gmprt.sleep(rng.choice([0, 0.0001]))
    for g in consumers:
        g.result(30)
    assert (stock, sold) == (0, TOTAL) and refused > 0 and not c.lock.locked()
    print("done")

gmprt.run(main)
"""


@pytest.mark.parametrize(("procs", "chaos"), [("1", ""), ("4", "20261130")])
def test_storm_of_cancels(procs: str, chaos: str) -> None:
    env = {"GOMAXPROCS": procs, "GMPRT_CHAOS": chaos}
    assert run_child(STORM, env=env, timeout=50).stdout == "done\n"


def test_a_wake_during_a_signal_handler_is_not_missed() -> None:
    """The handler of a signal takes the waiter out of the queue while it runs."""
    run_child(
        """
        import os, signal, gmprt
        c, broadcasts = gmprt.Cond(gmprt.Mutex()), [False, True]

        def handler(number, frame):
            g = gmprt.go(c.broadcast if broadcasts.pop() else c.signal)
            g.join()

        def main():
            signal.signal(signal.SIGUSR1, handler)
            for _ in range(2):
                def kill():
                    while gmprt.debug.goroutines()[0].wait_reason != "sync.Cond.Wait":
                        gmprt.sleep(0.001)
                    os.kill(os.getpid(), signal.SIGUSR1)
                g = gmprt.go(kill)
                with c:
                    assert c.wait(timeout=20) is True
                g.join()

        gmprt.run(main)
        """
    )


def test_a_signal_handler_has_the_cancel_that_ended_the_wait() -> None:
    """Nothing is left to be raised: the wait ends as if it had been signalled."""
    run_child(
        """
        import os, signal, gmprt
        c, seen, began = gmprt.Cond(gmprt.Mutex()), [], []

        def handler(number, frame):
            began.append(True)
            for _ in range(2):
                try:
                    gmprt.sleep(1000)
                except gmprt.Cancelled:
                    seen.append(True)

        def holds(main):
            with c:
                while main.wait_reason != "sync.Mutex.Lock":
                    gmprt.sleep(0.001)
                os.kill(os.getpid(), signal.SIGUSR1)
                while not began or main.wait_reason != "sleep":
                    gmprt.sleep(0.001)
                main.cancel()  # what is due is raised, one after the other
                while len(seen) < 2:
                    gmprt.sleep(0.001)

        def main():
            signal.signal(signal.SIGUSR1, handler)
            with gmprt.move_on_after(0.05) as block, c:
                gmprt.go(holds, gmprt.current())
                assert c.wait() is True
            assert block.expired

        gmprt.run(main)
        """
    )


def test_ctrl_c() -> None:
    """It ends the wait with the lock held, and the next signal goes to somebody else."""
    code = """
        import gmprt
        m = gmprt.Mutex()
        c = gmprt.Cond(m)

        def main():
            def other():
                with c:
                    assert c.wait(timeout=20)
            try:
                with c:
                    print("waits")
                    try:
                        c.wait(timeout=20)  # without, it would be a deadlock
                    finally:
                        assert m.locked()
            except KeyboardInterrupt:
                assert not m.locked()
            g = gmprt.go(other)
            while g.wait_reason != "sync.Cond.Wait":
                gmprt.sleep(0.001)
            c.signal()
            g.result()
            print("done")

        gmprt.run(main)
        """
    with Child(code) as child:
        child.expect("waits")
        child.interrupt()
        assert child.finish().stdout == "waits\ndone\n"
