"""Who a goroutine is to the rest of Python: idents, locks with owners, thread-locals, thread
objects, and what goes by them."""

from __future__ import annotations

import _thread
import decimal
import io
import logging
import random
import sys
import threading
import warnings
from typing import Any

import pytest
from support import PATIENCE, Thread, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import Chan, go


def test_idents_are_unique_and_constant(procs: int) -> None:
    gate: Chan[int] = Chan()

    def work() -> tuple[set[int], int]:
        seen = set()
        for _ in range(10):
            seen.add(threading.get_ident())
            seen.add(_thread.get_ident())
            gmprt.sleep(0.0001)
        gate.recv()
        seen.add(threading.get_ident())
        me = gmprt.current()
        assert me is not None
        return seen, me.ident

    goroutines = [go(work) for _ in range(50)]
    for g in goroutines:
        parked(g, "chan receive")
    alive = {g.ident for g in goroutines}
    for _ in goroutines:
        gate.send(1)
    results = [g.result(PATIENCE) for g in goroutines]
    assert all(seen == {ident} for seen, ident in results)
    assert len(alive) == 50
    assert {ident for _, ident in results} == alive
    assert threading.get_ident() not in alive
    assert threading.main_thread().ident == threading.get_ident()


def test_idents_across_blocking_calls() -> None:
    """Also when the goroutine changes its OS thread."""

    def work() -> set[int]:
        import time

        seen = {threading.get_ident()}
        for _ in range(5):
            time.sleep(0.001)
            seen.add(threading.get_ident())
            gmprt.gosched()
            seen.add(threading.get_ident())
        return seen

    assert [len(g.result(PATIENCE)) for g in [go(work) for _ in range(20)]] == [1] * 20


def test_an_rlock_has_an_owner(procs: int) -> None:
    lock = threading.RLock()
    gate: Chan[int] = Chan()
    held: Chan[int] = Chan()

    def owner() -> None:
        with lock, lock:
            held.send(1)
            gate.recv()
            with lock:
                gmprt.gosched()

    g = go(owner)
    held.recv()
    assert not lock.acquire(blocking=False)
    assert go(lock.acquire, blocking=False).result(PATIENCE) is False
    assert go(lock.acquire, timeout=0.005).result(PATIENCE) is False
    thief = go(lock.release)
    assert isinstance(thief.exception(PATIENCE), RuntimeError)
    assert isinstance(Thread(lock.release).exception(), RuntimeError)
    gate.send(1)
    ended(g)
    assert lock.acquire(blocking=False)
    lock.release()


@pytest.mark.parametrize("kind", [threading.RLock, threading._RLock])  # type: ignore[attr-defined]
def test_rlocks_exclude(procs: int, kind: Any) -> None:
    """C's and Python's, contended by goroutines and threads that park while they hold it."""
    lock = kind()
    inside = total = 0

    def work() -> None:
        nonlocal inside, total
        for i in range(40):
            with lock:
                with lock:
                    inside += 1
                    assert inside == 1
                    if i % 4 == 0:
                        gmprt.sleep(0.00005)
                    else:
                        gmprt.gosched()
                    inside -= 1
                    total += 1

    for t in [mixed(i, work) for i in range(6)]:
        t.result(PATIENCE)
    assert total == 240


def test_conditions(procs: int) -> None:
    cond = threading.Condition()
    ready = 0

    def waiter() -> int:
        with cond:
            assert cond.wait_for(lambda: ready, PATIENCE)
            gmprt.gosched()
            return ready

    tasks = [mixed(i, waiter) for i in range(8)]
    gmprt.sleep(0.002)
    with cond:
        ready = 7
        cond.notify_all()
    assert [t.result(PATIENCE) for t in tasks] == [7] * 8


def test_thread_locals_are_separate(procs: int) -> None:
    local = threading.local()
    local.x = "main"

    def work(i: int) -> bool:
        if hasattr(local, "x"):
            return False
        local.x = i
        for _ in range(10):
            gmprt.gosched()
            if local.x != i:
                return False
        return True

    assert all(t.result(PATIENCE) for t in [mixed(i, work, i) for i in range(50)])
    assert local.x == "main"


def test_thread_locals_end_with_the_goroutine() -> None:
    local = threading.local()
    died: list[int] = []

    class Value:
        def __init__(self, i: int) -> None:
            self.i = i

        def __del__(self) -> None:
            died.append(self.i)

    def work(i: int) -> None:
        local.x = Value(i)

    ended(*[go(work, i) for i in range(20)])
    eventually(lambda: len(died) == 20)
    assert not hasattr(local, "x")


def test_a_subclass_of_local_is_initialised_in_each() -> None:
    class Local(threading.local):
        def __init__(self) -> None:
            gmprt.gosched()
            self.items: list[int] = []

    local = Local()

    def work(i: int) -> list[int]:
        local.items.append(i)
        gmprt.gosched()
        return local.items

    assert [g.result(PATIENCE) for g in [go(work, i) for i in range(10)]] == [
        [i] for i in range(10)
    ]


def test_current_thread(procs: int) -> None:
    """threading.current_thread() is one object for the life of a goroutine, and no other's."""

    def work() -> tuple[int, bool]:
        me = threading.current_thread()
        gmprt.sleep(0.0001)
        same = threading.current_thread() is me
        return id(me) if me is not threading.main_thread() else 0, same and me.is_alive()

    gate: Chan[int] = Chan()

    def held() -> tuple[int, bool]:
        result = work()
        gate.recv()
        return result

    goroutines = [go(held) for _ in range(20)]
    for _ in goroutines:
        gate.send(1)
    results = [g.result(PATIENCE) for g in goroutines]
    assert all(ok for _, ok in results)
    assert len({i for i, _ in results}) == 20
    assert 0 not in {i for i, _ in results}


def test_thread_objects_do_not_pile_up() -> None:
    """Idents are used again, so there are never more than goroutines at one time."""
    ended(*[go(threading.current_thread) for _ in range(500)])
    before = len(threading.enumerate())
    for _ in range(5):
        ended(*[go(threading.current_thread) for _ in range(500)])
    assert len(threading.enumerate()) <= max(before, 510)


def test_threads_started_by_goroutines(procs: int) -> None:
    def work(i: int) -> int:
        got: list[int] = []
        t = threading.Thread(target=lambda: got.append(i))
        t.start()
        gmprt.gosched()
        t.join()
        return got[0]

    assert [g.result(PATIENCE) for g in [go(work, i) for i in range(20)]] == list(range(20))


def test_decimal_contexts_are_separate() -> None:
    def work(precision: int) -> str:
        with decimal.localcontext() as ctx:
            ctx.prec = precision
            gmprt.sleep(0.0001)
            return str(decimal.Decimal(1) / decimal.Decimal(3))

    goroutines = [go(work, p) for p in range(3, 20)]
    assert [len(g.result(PATIENCE)) for g in goroutines] == [p + 2 for p in range(3, 20)]


def test_catch_warnings_and_random() -> None:
    """Modules with global state and locks inside work from many goroutines."""

    def work(i: int) -> float:
        rng = random.Random(i)
        gmprt.gosched()
        warnings.warn_explicit("w", UserWarning, "file", i)
        return rng.random()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = [g.result(PATIENCE) for g in [go(work, i) for i in range(20)]]
    assert got == [random.Random(i).random() for i in range(20)]


# ---- output ------------------------------------------------------------------------------------


def test_print_from_two_hundred_goroutines() -> None:
    """Whole lines, none lost, in a process of its own with a real pipe.

    Unbuffered: before 3.13 the buffer of sys.stdout is not safe against other threads, or
    goroutines, that print while its contents are being written.
    """
    code = """
        import gmprt
        def work(i):
            for j in range(5):
                print(f"{i}:{j}:" + "x" * 50 + "\\n", end="")
                gmprt.gosched()
        def main():
            for g in [gmprt.go(work, i) for i in range(200)]:
                g.join()
        gmprt.run(main)
    """
    lines = run_child(code, env={"PYTHONUNBUFFERED": "1"}).stdout.splitlines()
    assert sorted(lines) == sorted(f"{i}:{j}:" + "x" * 50 for i in range(200) for j in range(5))


def test_buffered_io_of_many() -> None:
    """The lock inside a buffered writer goes by ident, and is held across a hand-off."""
    raw = io.BytesIO()

    class Slow(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            gmprt.sleep(0.0001)
            return raw.write(data)

    out = io.BufferedWriter(Slow(), 64)

    def work(i: int) -> None:
        for _ in range(10):
            out.write(f"{i:03d}\n".encode())

    for t in [mixed(i, work, i) for i in range(20)]:
        t.result(PATIENCE)
    out.flush()
    lines = raw.getvalue().decode().splitlines()
    assert sorted(lines) == sorted(f"{i:03d}" for i in range(20) for _ in range(10))


def test_logging_from_two_hundred_goroutines(procs: int) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("test_identity")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(threadName)s %(thread)d %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    idents: dict[int, int] = {}

    def work(i: int) -> None:
        idents[i] = threading.get_ident()
        for j in range(3):
            logger.info("%d:%d", i, j)
            gmprt.gosched()

    try:
        ended(*[go(work, i) for i in range(200)])
    finally:
        logger.removeHandler(handler)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 600
    for line in lines:
        _, ident, message = line.rsplit(" ", 2)
        assert idents[int(message.split(":")[0])] == int(ident)


# ---- the interpreter's view --------------------------------------------------------------------


def test_current_frames() -> None:
    """sys._current_frames() has an entry for each goroutine that has begun, by its ident."""

    def waits_here(ch: Chan[int]) -> None:
        ch.recv()

    ch: Chan[int] = Chan()
    goroutines = [go(waits_here, ch) for _ in range(3)]
    for g in goroutines:
        parked(g)
    frames = sys._current_frames()
    for g in goroutines:
        assert frames[g.ident].f_code.co_name == "waits_here"
    for i in range(3):
        ch.send(i)
    ended(*goroutines)


def test_thread_count() -> None:
    """Goroutines are no threads: threading does not count them."""
    gate: Chan[int] = Chan()
    before = threading.active_count(), _thread._count()
    goroutines = [go(gate.recv) for _ in range(20)]
    for g in goroutines:
        parked(g)
    assert (threading.active_count(), _thread._count()) == before
    for i in range(20):
        gate.send(i)
    ended(*goroutines)


def test_excepthook_of_threads_is_not_ours() -> None:
    called: list[Any] = []
    before, threading.excepthook = threading.excepthook, called.append
    try:
        g = go(lambda: 1 / 0)
        assert isinstance(g.exception(PATIENCE), ZeroDivisionError)
    finally:
        threading.excepthook = before
    assert called == []


def test_async_exceptions_reach_a_goroutine_by_its_ident() -> None:
    """PyThreadState_SetAsyncExc, as debuggers and servers use it."""
    import ctypes

    class Stop(Exception):
        pass

    def spin() -> str:
        try:
            while True:
                gmprt.gosched()
        except Stop:
            return "stopped"

    g = go(spin)
    eventually(lambda: g.cpu_time > 0)
    set_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_exc(ctypes.c_ulong(g.ident), ctypes.py_object(Stop)) == 1
    assert g.result(PATIENCE) == "stopped"
