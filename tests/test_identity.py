"""Who a goroutine is to the rest of Python: idents, locks with owners, thread-locals, thread
objects, and what goes by them."""

from __future__ import annotations

import _thread
import contextlib
import decimal
import io
import logging
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEBUG,
    PATIENCE,
    Child,
    Thread,
    c_sleep,
    ended,
    eventually,
    mixed,
    parked,
    run_child,
)

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
    for g in goroutines:
        parked(g, "chan receive")
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


def test_async_exceptions_reach_each_of_several() -> None:
    """Up to 3.12 the interpreter forgets the others when it raises the first."""
    code = """
        import ctypes, gmprt, time

        class Stop(Exception):
            pass

        def spin(begun):
            begun.append(True)
            while True:
                pass

        def main():
            begun = []
            gs = [gmprt.go(spin, begun) for _ in range(4)]
            while len(begun) < 4:
                time.sleep(0.001)
            set_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
            for g in gs:
                assert set_exc(ctypes.c_ulong(g.ident), ctypes.py_object(Stop)) == 1
            for g in gs:
                assert isinstance(g.exception(20), Stop)

        gmprt.run(main)
    """
    run_child(code)


def test_a_hundred_thousand_that_logged_leave_nothing() -> None:
    """Neither in threading's tables, nor in logging's, nor in memory."""
    batches = 20 if DEBUG else 100  # a debug build takes ten times as long
    code = """
        import gc, gmprt, logging, sys, threading

        class Nowhere(logging.Handler):
            lines = 0
            def emit(self, record):
                assert record.threadName.startswith("goroutine"), record.threadName
                Nowhere.lines += 1

        logger = logging.getLogger("many")
        logger.addHandler(Nowhere())
        logger.setLevel(logging.INFO)
        logger.propagate = False

        def work(i):
            logger.info("%d", i)
            if i % 3 == 0:
                gmprt.gosched()
            logger.info("%d", i)

        def batch():
            for g in [gmprt.go(work, i) for i in range(1000)]:
                g.join()

        def main():
            batch()
            gc.collect()
            def tables():
                return set(threading._active), len(threading._dangling), len(gc.get_objects())
            active, dangling, objects = tables()
            blocks = sys.getallocatedblocks()
            for _ in range(int(sys.argv[1]) - 1):
                batch()
            gc.collect()
            after = tables()
            assert after[0] == active, len(after[0])
            assert after[1] == dangling
            assert after[2] < objects + 1000, (objects, after[2])
            assert sys.getallocatedblocks() < blocks + 5000, (blocks, sys.getallocatedblocks())
            print(Nowhere.lines)
        gmprt.run(main)
    """
    assert run_child(code, args=[str(batches)], timeout=50).stdout == f"{2000 * batches}\n"


def test_faulthandler_shows_goroutines() -> None:
    """Parked ones, one that blocks in C, and the one that asks."""
    code = """
        import ctypes, faulthandler, gmprt, os, sys
        read, write = os.pipe()
        def parks_here(ch):
            ch.recv()
        def blocks_here():
            ctypes.CDLL(None).read(read, ctypes.create_string_buffer(1), 1)
        def asks_here():
            faulthandler.dump_traceback(all_threads=True)
        ch = gmprt.Chan()
        parks, blocks = gmprt.go(parks_here, ch), gmprt.go(blocks_here)
        while (parks.state, blocks.state) != ("waiting", "syscall"):
            gmprt.sleep(0.001)
        print(f"0x{parks.ident:016x} 0x{blocks.ident:016x}")
        gmprt.go(asks_here).result()
        os.close(write)
        ch.send(1)
        blocks.join()
    """
    done = run_child(code)
    for ident, name in zip(done.stdout.split(), ("parks_here", "blocks_here"), strict=True):
        block = done.stderr.split(f"Thread {ident} ")[1].split("\n\n")[0]
        assert name in block, done.stderr
    current = done.stderr.split("Current thread ")[1].split("\n\n")[0]
    assert "asks_here" in current, done.stderr


def test_current_frames_are_those_of_now() -> None:
    """Asked from a goroutine, while others run, park and end."""
    stop = False

    def churn() -> None:
        while not stop:
            ended(*[go(gmprt.gosched) for _ in range(3)])

    def look() -> None:
        me = threading.get_ident()
        for _ in range(200):
            frames = sys._current_frames()
            assert frames[me].f_code is look.__code__
            del frames
            gmprt.gosched()

    churners = [go(churn) for _ in range(3)]
    ended(*[go(look) for _ in range(3)])
    stop = True
    ended(*churners)


def test_sqlite_checks_the_thread(procs: int) -> None:
    """A connection belongs to the goroutine that made it, on whichever thread it runs."""
    made: Chan[sqlite3.Connection] = Chan()
    tried: Chan[None] = Chan()

    def owner() -> list[tuple[int]]:
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            db.execute("create table t (x)")
            made.send(db)
            tried.recv()
            for i in range(20):
                c_sleep(0.0002)
                gmprt.gosched()
                db.execute("insert into t values (?)", (i,))
            return db.execute("select count(*) from t").fetchall()

    g = go(owner)
    db = made.recv()
    for use in (go(db.execute, "select 1"), Thread(db.execute, "select 1")):
        with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
            use.result(PATIENCE)
    tried.send(None)
    assert g.result(PATIENCE) == [(20,)]


def test_decimal_contexts_across_everything(procs: int) -> None:
    """Traps, flags and precision stay with the goroutine when it is preempted or comes back."""

    def work(precision: int) -> int:
        ctx = decimal.getcontext()
        ctx.prec = precision
        ctx.clear_flags()
        for _ in range(3):
            end = time.thread_time() + 0.004
            while time.thread_time() < end:
                assert len(str(decimal.Decimal(2).sqrt())) == precision + 1
            c_sleep(0.0005)
            gmprt.gosched()
            assert decimal.getcontext() is ctx
        assert ctx.flags[decimal.Inexact]
        return ctx.prec

    before = decimal.getcontext().prec
    goroutines = [go(work, p) for p in range(5, 15)]
    assert [g.result(PATIENCE) for g in goroutines] == list(range(5, 15))
    assert decimal.getcontext().prec == before


def test_clock_of_a_goroutine() -> None:
    """pthread_getcpuclockid: of the thread it runs on; one that does not run has none."""
    gate: Chan[None] = Chan()
    g = go(gate.recv)
    parked(g)
    with pytest.raises(OSError, match="No such process"):
        time.pthread_getcpuclockid(g.ident)
    gate.send(None)
    ended(g)

    def own() -> None:
        clock = time.pthread_getcpuclockid(threading.get_ident())
        before = time.clock_gettime(clock)
        while time.clock_gettime(clock) < before + 0.001:
            pass

    ended(go(own))
    clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
    assert time.clock_gettime(clock) > 0


def test_pthread_kill() -> None:
    """0 asks whether there is such a thread; a signal to a goroutine runs the handler."""
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    gate: Chan[None] = Chan()
    try:
        g = go(gate.recv)
        parked(g)
        signal.pthread_kill(g.ident, 0)
        go(lambda: signal.pthread_kill(threading.get_ident(), 0)).result(PATIENCE)
        go(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).result(PATIENCE)
        eventually(lambda: handled == [signal.SIGUSR1])
        signal.pthread_kill(g.ident, signal.SIGUSR1)
        eventually(lambda: len(handled) == 2)
        gate.send(None)
        ended(g)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_pthread_kill_of_who_blocks_it() -> None:
    """It is pending for the goroutine, wherever that runs, and for nobody else."""
    code = """
        import signal, threading, time
        import gmprt
        from gmprt import Chan, go
        ONE, TWO = signal.SIGUSR1, signal.SIGUSR2
        handled = []

        def block(*signals):
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)

        def itself(wait):
            block(ONE, TWO)
            signal.pthread_kill(threading.get_ident(), ONE)
            signal.pthread_kill(threading.get_ident(), TWO)
            for _ in range(10):
                gmprt.sleep(0.0001)
            assert signal.sigpending() == {ONE, TWO}, signal.sigpending()
            assert wait([TWO]) == TWO
            assert signal.sigpending() == {ONE}
            assert wait([ONE, TWO]) == ONE
            assert not signal.sigpending()
            assert signal.sigtimedwait([ONE, TWO], 0) is None

        def waits(signals, idents):
            block(ONE, TWO)
            idents.send(threading.get_ident())
            return signal.sigwait(signals)

        def others():
            idents = Chan(8)
            gs = [go(waits, [sig], idents) for sig in (ONE, TWO, ONE, TWO)]
            assert len([idents.recv() for _ in gs]) == 4
            for g, sig in reversed(list(zip(gs, (ONE, TWO, ONE, TWO)))):
                signal.pthread_kill(g.ident, TWO if sig == ONE else ONE)  # not what it waits for
                signal.pthread_kill(g.ident, sig)
                assert g.result(20) == sig

        def unblocks():
            block(ONE)
            signal.pthread_kill(threading.get_ident(), ONE)
            assert not handled
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [ONE])

        def main():
            infos = lambda s: signal.sigwaitinfo(s).si_signo
            timed = lambda s: signal.sigtimedwait(s, 20).si_signo
            for wait in (signal.sigwait, infos, timed):
                for g in [go(itself, wait) for _ in range(10)]:
                    g.result(20)
            go(others).result(60)
            signal.signal(ONE, lambda number, frame: handled.append(number))
            go(unblocks).result(20)
            while handled != [ONE]:
                time.sleep(0.001)
            print("ok")
        gmprt.run(main)
    """
    for procs in ("1", "4"):
        assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "ok\n"


LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

atomic_int ended, go_on;

/* The time is over, but who waited does not know it yet. */
int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *t) {
  int (*real)(const sigset_t *, siginfo_t *, const struct timespec *);
  real = dlsym(RTLD_NEXT, "sigtimedwait");
  int r = real(set, info, t);
  for (ended = 1; !go_on;) nanosleep(&(struct timespec){0, 100000}, NULL);
  return r;
}
"""


def test_pthread_kill_of_who_has_just_ceased_to_wait(tmp_path: Path) -> None:
    """It stays pending for the goroutine; its thread would give it to whoever waits there next."""
    late = tmp_path / "late.so"
    cc = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-shared", "-fPIC", "-x", "c", "-"]
    subprocess.run([*cc, "-o", str(late), "-ldl"], input=LATE, text=True, check=True)
    code = """
        import ctypes, signal, threading
        import gmprt
        ONE = signal.SIGUSR1
        late = ctypes.CDLL(None)
        ended, go_on = (ctypes.c_int.in_dll(late, name) for name in ("ended", "go_on"))

        def on_the_thread():
            with open("/proc/thread-self/status") as f:
                return next(line.split()[1] for line in f if line.startswith("SigPnd"))

        def waits():
            signal.pthread_sigmask(signal.SIG_BLOCK, [ONE])
            gmprt.lock_os_thread()
            assert signal.sigtimedwait([ONE], 0.001) is None
            assert int(on_the_thread(), 16) == 0
            assert signal.sigpending() == {ONE}
            assert signal.sigwait([ONE]) == ONE
            return "ok"

        def main():
            g = gmprt.go(waits)
            while not ended.value:
                gmprt.sleep(0.001)
            signal.pthread_kill(g.ident, ONE)
            go_on.value = 1
            print(g.result())

        gmprt.run(main)
    """
    assert run_child(code, env={"LD_PRELOAD": str(late)}).stdout == "ok\n"


def test_py_spy_sees_goroutines() -> None:
    """An outside profiler reads thread states; goroutines have them."""
    spy = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
    if not spy:
        pytest.skip("py-spy is not installed")
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0":
        pytest.skip("the kernel lets nobody look into other processes")
    code = """
        import gmprt, sys
        def parks_here(ch):
            ch.recv()
        def main():
            ch = gmprt.Chan()
            kept = [gmprt.go(parks_here, ch) for _ in range(3)]
            while any(g.state != "waiting" for g in kept):
                gmprt.sleep(0.001)
            print("ready")
            gmprt.sleep(60)
        gmprt.run(main)
    """
    with Child(code) as child:
        child.expect("ready")
        command = [spy, "dump", "--pid", str(child.process.pid)]
        dump = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert dump.returncode == 0, dump.stderr
    _, stacks = dump.stdout.split("Python v")
    assert stacks.count("parks_here") == 3, stacks


def test_a_decimal_context_is_inherited_as_a_copy() -> None:
    """Of the one who started it, as it was then."""
    code = """
        import gmprt
        assert gmprt.go(int).result() == 0  # before decimal is known
        import contextvars, decimal
        var = contextvars.ContextVar("var")
        var.set(1)
        decimal.getcontext().prec = 7

        def child(precision):
            mine = decimal.getcontext()
            assert mine.prec == 7
            mine.prec = precision
            gmprt.gosched()
            assert decimal.getcontext() is mine
            assert gmprt.go(lambda: decimal.getcontext().prec).result() == precision
            return len(str(decimal.Decimal(2).sqrt())), var.get()

        children = [gmprt.go(child, p) for p in (3, 11)]
        assert [g.result() for g in children] == [(4, 1), (12, 1)]
        assert decimal.getcontext().prec == 7
        with decimal.localcontext() as ctx:
            ctx.prec = 5
            assert gmprt.go(lambda: decimal.getcontext().prec).result() == 5
        def main():  # is the thread itself
            decimal.getcontext().prec = 9
        gmprt.run(main)
        assert decimal.getcontext().prec == 9
    """
    run_child(code)


def test_run_uses_no_idents_up() -> None:
    """There is room for so many; what lies behind them is other threads' memory."""
    done = run_child(
        """
import gmprt

def idents(n):
    stop = gmprt.Chan()
    goroutines = [gmprt.go(stop.recv_ok) for _ in range(n)]
    while any(g.state != "waiting" for g in goroutines):
        gmprt.sleep(0.001)
    found = [g.ident for g in goroutines]
    stop.close()
    for g in goroutines:
        g.join()
    return found

before = idents(1)
for _ in range(1000):
    gmprt.run(int)
print(max(idents(5)) - min(before) < 100 * 64)
"""
    )
    assert done.stdout == "True\n"
