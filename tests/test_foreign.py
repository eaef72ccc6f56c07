"""Ordinary OS threads as full citizens: they wait, wake and are woken beside goroutines."""

from __future__ import annotations

import ctypes
import queue
import random
import threading
import time
from typing import Any

import pytest
from support import PATIENCE, Child, Thread, ended, mixed, run_child, waiting

import gmprt
from gmprt import Chan, go

FIRST_WAITS = {
    "recv": "gmprt.Chan().recv(timeout=0.01)",
    "recv_ok": "gmprt.Chan().recv_ok(timeout=0.01)",
    "send": "gmprt.Chan().send(1, timeout=0.01)",
    "select": "gmprt.select(gmprt.Chan(), gmprt.Send(gmprt.Chan(), 1), timeout=0.01)",
    "select without cases": "gmprt.select(timeout=0.01)",
    "sleep": "gmprt.sleep(0.01); raise TimeoutError",
    "sleep(0)": "gmprt.sleep(0); raise TimeoutError",
    "gosched": "gmprt.gosched(); raise TimeoutError",
    "timer": "assert gmprt.after(0.01).recv() > 0; raise TimeoutError",
    "mutex": "m = gmprt.Mutex(); m.lock(); assert not m.lock(timeout=0.01); raise TimeoutError",
    "semaphore": "assert not gmprt.Semaphore(0).acquire(timeout=0.01); raise TimeoutError",
    "waitgroup": "w = gmprt.WaitGroup(); w.add(); assert not w.wait(0.01); raise TimeoutError",
    "close": "c = gmprt.Chan(); c.close(); assert c.recv_ok() == (None, False); raise TimeoutError",
    "stats": "gmprt.stats(); gmprt.debug.dump(); gmprt.num_goroutine(); raise TimeoutError",
}


@pytest.mark.parametrize("kind", list(FIRST_WAITS))
def test_waiting_before_anything_was_started(kind: str) -> None:
    """The very first use of gmprt is a wait, in the main thread and then in another."""
    code = f"""
import gmprt, threading
def body():
    try:
        {FIRST_WAITS[kind]}
    except TimeoutError:
        print("served")
body()
t = threading.Thread(target=body)
t.start()
t.join()
print(gmprt.go(int, "7").result(20))
"""
    assert run_child(code).stdout == "served\nserved\n7\n"


def test_two_threads_without_any_goroutine() -> None:
    code = """
        import gmprt, threading
        ch, back = gmprt.Chan(), gmprt.Chan()
        def echo():
            for v in ch:
                back.send(v)
            back.close()
        t = threading.Thread(target=echo)
        t.start()
        for i in range(1000):
            ch.send(i)
            assert back.recv() == i
        ch.close()
        t.join()
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_many_threads_wait_at_once() -> None:
    ch: Chan[int] = Chan()
    threads = [Thread(ch.recv) for _ in range(100)]
    waiting(ch, receivers=100)
    g = go(lambda: [ch.send(i) for i in range(100)])
    assert sorted(t.result() for t in threads) == list(range(100))
    ended(g, *threads)


def test_threads_come_and_go(procs: int) -> None:
    """A thread's record is used again by later threads; nothing of the old one sticks to it."""
    ch: Chan[int] = Chan()
    for round_ in range(30):
        late = [Thread(ch.recv, timeout=0.001) for _ in range(4)]
        for t in late:
            assert isinstance(t.exception(), gmprt.Timeout)
        receivers = [Thread(ch.recv) for _ in range(4)]
        waiting(ch, receivers=4)
        g = go(lambda r=round_: [ch.send(r) for _ in range(4)])  # type: ignore[misc]
        assert [t.result() for t in receivers] == [round_] * 4
        ended(g)
    waiting(ch)


def test_threads_and_goroutines_in_every_mix(procs: int) -> None:
    """Random operations with random patience from everybody; the books must balance."""
    chans: list[Chan[tuple[int, int]]] = [Chan(c) for c in (0, 0, 1, 4)]
    sent: dict[int, int] = {}
    got: dict[int, int] = {}

    def player(me: int) -> None:
        rng = random.Random(me)
        sent[me] = got[me] = 0
        for turn in range(200):
            ch = rng.choice(chans)
            timeout = rng.choice([0, 0.0005, 0.002])
            try:
                if rng.random() < 0.5:
                    ch.send((me, turn), timeout=timeout)
                    sent[me] += 1
                else:
                    ch.recv(timeout=timeout)
                    got[me] += 1
            except gmprt.Timeout:
                pass

    for p in [mixed(i, player, i) for i in range(10)]:
        p.result(PATIENCE)
    left = 0
    for ch in chans:
        waiting(ch)
        left += len(ch)
        ch.close()
        assert len(list(ch)) <= ch.capacity
    assert sum(sent.values()) == sum(got.values()) + left
    assert sum(got.values()) > 50


def test_signals_do_not_lose_values() -> None:
    """The main thread, waiting as an ordinary one, is interrupted all the time."""
    code = """
        import gmprt, signal
        ticks = 0
        def tick(number, frame):
            global ticks
            ticks += 1
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        ch, back = gmprt.Chan(), gmprt.Chan(2)
        def peer():
            for i in range(3000):
                ch.send(i)
                if i % 100 == 0:
                    gmprt.sleep(0.001)
                assert back.recv() == -i
        g = gmprt.go(peer)
        for i in range(3000):
            v = ch.recv() if i % 2 else gmprt.select(ch, gmprt.Chan()).value
            assert v == i, (v, i)
            back.send(-i)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert g.join(20) and g.exception() is None
        print(ticks > 10)
    """
    assert run_child(code).stdout == "True\n"


def test_a_handler_that_raises_out_of_a_wait() -> None:
    """The wait is over: whoever sends next does not send to somebody who has left."""
    code = """
        import gmprt, signal
        class Out(Exception): pass
        def out(number, frame): raise Out
        signal.signal(signal.SIGALRM, out)
        ch = gmprt.Chan()
        for wait in (ch.recv, lambda: gmprt.select(ch, gmprt.Chan()), lambda: ch.send(1),
                     lambda: gmprt.select(gmprt.Send(ch, 1)), lambda: gmprt.sleep(1000),
                     gmprt.Semaphore(0).acquire):
            for where in ("thread", "goroutine"):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.02)
                    wait() if where == "thread" else gmprt.run(wait)
                except Out:
                    pass
                assert ch.waiting() == (0, 0), (where, ch.waiting())
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_a_thread_that_c_made() -> None:
    """A pthread that Python did not start calls into Python and waits there for a goroutine."""
    libc = ctypes.CDLL(None, use_errno=True)
    ch: Chan[int] = Chan()
    got: list[Any] = []

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    def start(arg: int) -> int:
        got.append(gmprt.current())
        got.append(ch.recv())
        got.append(go(lambda: (gmprt.sleep(0.001), 8)[1]).result())
        return 0

    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
    waiting(ch, receivers=1)
    go(ch.send, 7).result(PATIENCE)
    assert libc.pthread_join(thread, None) == 0
    assert got == [None, 7, 8]


def test_a_thread_ends_while_its_goroutines_run() -> None:
    gate: Chan[int] = Chan()
    for _ in range(20):
        t = Thread(lambda: go(gate.recv))
        g = t.result()
        ended(t)
        gate.send(1)
        assert g.result(PATIENCE) == 1


def test_queue_and_locks_of_the_standard_library() -> None:
    """Waits that are not ours block an OS thread each; goroutines and threads may share them."""
    q: queue.Queue[int] = queue.Queue(2)
    cond = threading.Condition()
    count = 0

    def produce(first: int) -> None:
        for i in range(first, first + 50):
            q.put(i)

    def consume() -> list[int]:
        return [q.get() for _ in range(50)]

    def counter() -> None:
        nonlocal count
        for _ in range(50):
            with cond:
                count += 1
                cond.notify_all()

    consumers = [mixed(i, consume) for i in range(4)]
    producers = [mixed(i, produce, 50 * i) for i in range(4)]
    for p in producers:
        p.result(PATIENCE)
    assert sorted(v for c in consumers for v in c.result(PATIENCE)) == list(range(200))
    counters = [mixed(i, counter) for i in range(4)]
    with cond:
        assert cond.wait_for(lambda: count == 200, PATIENCE)
    for c in counters:
        c.result(PATIENCE)


def test_barriers_and_events_in_goroutines(procs: int) -> None:
    barrier = threading.Barrier(8)
    event = threading.Event()

    def work() -> int:
        i = barrier.wait(PATIENCE)
        if i == 0:
            event.set()
        assert event.wait(PATIENCE)
        return i

    assert sorted(t.result(PATIENCE) for t in [mixed(i, work) for i in range(8)]) == list(range(8))


def test_ctrl_c_in_a_waiting_main_thread() -> None:
    code = """
        import gmprt
        gmprt.go(int).join()
        waits = [gmprt.Chan().recv, lambda: gmprt.Chan().recv(timeout=1000), gmprt.select,
                 lambda: gmprt.sleep(1000), gmprt.Semaphore(0).acquire,
                 gmprt.go(gmprt.Chan().recv).join]
        for i, wait in enumerate(waits):
            try:
                print("ready", i)
                wait()
            except KeyboardInterrupt:
                print("interrupted", i)
    """
    with Child(code) as child:
        for i in range(6):
            child.expect(f"ready {i}")
            time.sleep(0.01)
            child.interrupt()
            child.expect(f"interrupted {i}")
        assert child.finish().returncode == 0
