"""csrc/sched/hibernate.c, csrc/py/host/hibernate.c: goroutines that sleep without a stack."""

from __future__ import annotations

import contextvars
import gc
import queue
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FrameType
from typing import Any

import pytest
from support import PATIENCE, Thread, ended, eventually, parked, run_child

import gmprt
from gmprt import Chan, go, native

# A byte and the parking lot (3.13.5), not a semaphore of the C library in the heap (3.13.0).
LOCKS_ON_STACK = type(threading.Lock()).__basicsize__ < 32


def asleep(n: int = 1) -> None:
    """Until n more than those that sleep anyway do."""
    eventually(lambda: gmprt.stats().hibernating >= n, "nobody falls asleep")


def falls_asleep(fn: Callable[..., Any], *args: Any) -> gmprt.Goroutine[Any]:
    before = gmprt.stats().hibernating
    g = go(fn, *args)
    parked(g)
    asleep(before + 1)
    return g


def stays_awake(fn: Callable[..., Any], *args: Any) -> gmprt.Goroutine[Any]:
    """Somebody who has parked later sleeps, so it was looked at."""
    before = gmprt.stats().hibernating
    g = go(fn, *args)
    parked(g)
    gate = Chan[None]()
    later = falls_asleep(gate.recv)
    assert gmprt.stats().hibernating == before + 1
    gate.send(None)
    ended(later)
    return g


# ---- what waits ----

Stage = tuple[Callable[[], Any], Callable[[], Any], Any]
"""The wait, what ends it, what it then returns."""


def chan_recv(stack: ExitStack) -> Stage:
    ch = Chan[str]()
    return ch.recv, lambda: ch.send("value"), "value"


def chan_send(stack: ExitStack) -> Stage:
    ch = Chan[str]()
    return lambda: ch.send("value"), ch.recv, None


def chan_loop(stack: ExitStack) -> Stage:
    ch = Chan[int]()

    def give() -> None:
        ch.send(1)
        ch.send(2)
        ch.close()

    return lambda: sum(ch), give, 3


def select(stack: ExitStack) -> Stage:
    ours, other = Chan[str](), Chan[str]()
    return lambda: gmprt.select(other, ours).value, lambda: ours.send("value"), "value"


def select_with_timeout(stack: ExitStack) -> Stage:
    ours, other = Chan[str](), Chan[str]()
    return (
        lambda: gmprt.select(other, gmprt.Send(ours, "value"), timeout=PATIENCE).index,
        ours.recv,
        1,
    )


def native_recv(stack: ExitStack) -> Stage:
    ch = native.chan("int64_t")
    return ch.recv, lambda: ch.send(5), 5


def native_recv_into(stack: ExitStack) -> Stage:
    ch, block = native.chan("int64_t"), array("q", [0] * 4)

    def receive() -> list[int]:
        return block[: ch.recv_into(block)].tolist()

    return receive, lambda: ch.send_from(array("q", [5, 6, 7])), [5, 6, 7]


def chan_recv_many(stack: ExitStack) -> Stage:
    ch = Chan[int]()
    return lambda: ch.recv_many(9), lambda: ch.send_many([5, 6, 7]), [5, 6, 7]


def mutex(stack: ExitStack) -> Stage:
    lock = gmprt.Mutex()
    lock.lock()
    return lock.lock, lock.unlock, True


def semaphore(stack: ExitStack) -> Stage:
    sem = gmprt.Semaphore(0)
    return sem.acquire, sem.release, True


def waitgroup(stack: ExitStack) -> Stage:
    wg = gmprt.WaitGroup()
    wg.add(1)
    return wg.wait, wg.done, True


def join(stack: ExitStack) -> Stage:
    gate = Chan[str]()
    other = go(gate.recv)
    return other.result, lambda: gate.send("value"), "value"


def socket_recv(stack: ExitStack) -> Stage:
    a, b = (stack.enter_context(s) for s in socket.socketpair())
    return lambda: a.recv(10), lambda: b.send(b"data"), b"data"


def socket_accept(stack: ExitStack) -> Stage:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def accept() -> bool:
        with listener.accept()[0]:
            return True

    return accept, lambda: socket.create_connection(listener.getsockname()).close(), True


def lock(stack: ExitStack) -> Stage:
    held = threading.Lock()
    held.acquire()
    return held.acquire, held.release, True


def event(stack: ExitStack) -> Stage:
    ready = threading.Event()
    return ready.wait, ready.set, True


STAGES = [
    chan_recv,
    chan_send,
    chan_loop,
    select,
    select_with_timeout,
    native_recv,
    native_recv_into,
    chan_recv_many,
    mutex,
    semaphore,
    waitgroup,
    join,
    socket_recv,
    socket_accept,
]


if not LOCKS_ON_STACK:
    STAGES += [lock, event]

OTHERS = 1  # what is joined sleeps, too


def test_they_go_on_as_if_nothing_had_been() -> None:
    def work(wait: Callable[[], Any], here: list[str]) -> tuple[Any, ...]:
        local = {"a": [1, 2, 3]}
        got = wait()
        return got, local, here, sum(i for i in range(10))

    with ExitStack() as stack:
        before = gmprt.stats().hibernating
        scenes = [build(stack) for build in STAGES]
        goroutines = [
            go(work, wait, [build.__name__])
            for build, (wait, _, _) in zip(STAGES, scenes, strict=True)
        ]
        asleep(before + len(STAGES) + OTHERS)
        gc.collect()
        for build, g, (_, wake, value) in zip(STAGES, goroutines, scenes, strict=True):
            wake()
            assert g.result(PATIENCE) == (value, {"a": [1, 2, 3]}, [build.__name__], 45)


def test_cancels_come_through() -> None:
    with ExitStack() as stack:
        before = gmprt.stats().hibernating
        scenes = [build(stack) for build in STAGES if build is not chan_loop]
        goroutines = [go(wait) for wait, _, _ in scenes]
        asleep(before + len(scenes) + OTHERS)
        for g, (wait, wake, _) in zip(goroutines, scenes, strict=True):
            assert g.cancel("enough")
            with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
                g.result(PATIENCE)
            again = go(wait)  # nobody stands in its place
            parked(again)
            wake()
            again.result(PATIENCE)


@pytest.mark.parametrize("sleep", [gmprt.sleep, time.sleep])
def test_its_time_comes(sleep: Callable[[float], None]) -> None:
    g = falls_asleep(lambda: sleep(1.5) or "slept")
    assert g.result(PATIENCE) == "slept"


def test_its_timeout_comes() -> None:
    ch = Chan[int]()
    g = falls_asleep(lambda: ch.recv(timeout=1.5))
    with pytest.raises(gmprt.Timeout):
        g.result(PATIENCE)


# ---- what lives on its stack ----


def test_beside_work_that_never_rests() -> None:
    """There is always somebody runnable, so nobody comes by who has nothing better to do."""
    ch = Chan[int]()
    resting = False

    def work() -> None:
        while not resting:
            gmprt.gosched()

    workers = [go(work) for _ in range(2)]
    g = falls_asleep(ch.recv)
    resting = True
    ended(*workers)
    ch.send(1)
    assert g.result(PATIENCE) == 1


def test_deep_below_many_frames() -> None:
    ch = Chan[int]()

    def down(n: int) -> int:
        return ch.recv() if n == 0 else n + down(n - 1)

    g = falls_asleep(down, 50)
    ch.send(7)
    assert g.result(PATIENCE) == 7 + 50 * 51 // 2


def test_blocks_and_contexts() -> None:
    ch = Chan[str]()
    var = contextvars.ContextVar[str]("var")
    local = threading.local()
    log: list[str] = []

    class Block:
        def __enter__(self) -> None:
            log.append("enter")

        def __exit__(self, *args: object) -> None:
            log.append(f"exit {args[1]!r}")

    def work() -> tuple[str, str, str]:
        var.set("mine")
        local.value = "mine, too"
        try:
            with Block():
                got = ch.recv()
                raise KeyError(got)
        except KeyError as e:
            return e.args[0], var.get(), local.value

    g = falls_asleep(work)
    ch.send("value")
    assert g.result(PATIENCE) == ("value", "mine", "mine, too")
    assert log == ["enter", "exit KeyError('value')"]


def test_again_and_again() -> None:
    ch = Chan[int]()
    before = gmprt.stats()

    def work() -> list[int]:
        return [ch.recv() for _ in range(3)]

    g = go(work)
    for i in range(3):
        asleep(before.hibernating + 1)
        ch.send(i)
        eventually(lambda i=i: gmprt.stats().rousings > before.rousings + i, "never roused")
    assert g.result(PATIENCE) == [0, 1, 2]
    assert gmprt.stats().hibernating == before.hibernating


# ---- who must keep its stack ----


def test_somebody_holds_a_frame() -> None:
    ch = Chan[int]()
    held: list[FrameType] = []

    def work() -> int:
        held.append(sys._getframe())
        return ch.recv()

    g = stays_awake(work)
    assert held[0].f_locals["ch"] is ch
    assert held[0].f_back is None
    ch.send(1)
    assert g.result(PATIENCE) == 1


def test_an_exception_is_handled() -> None:
    """Its traceback has the frame."""
    ch = Chan[int]()

    def work() -> bool:
        try:
            raise KeyError
        except KeyError as e:
            ch.recv()
            frame = e.__traceback__.tb_frame if e.__traceback__ else None
        return frame is sys._getframe()

    g = stays_awake(work)
    ch.send(1)
    assert g.result(PATIENCE)


def test_in_a_generator() -> None:
    ch = Chan[int]()

    def numbers() -> Iterator[int]:
        yield ch.recv()

    g = stays_awake(lambda: list(numbers()))
    ch.send(1)
    assert g.result(PATIENCE) == [1]


COLLECTOR = """
import gc, time, gmprt
N = 200
resurrected, ch = [], gmprt.Chan()
class Cycle:
    def __init__(self, number):
        self.me, self.number = self, number
    def __del__(self):
        resurrected.append(self)
        if self.number == N // 2:
            ch.recv()
def main():
    gc.collect()
    gc.disable()
    for number in range(1, N + 1):
        Cycle(number)
    g = gmprt.go(gc.collect)
    until = time.monotonic() + 1.5  # a goroutine is looked at after half a second
    while len(resurrected) < N // 2 or (time.monotonic() < until and not gmprt.stats().hibernating):
        gmprt.sleep(0.05)
    gmprt.sleep(0.05)  # its page is dropped
    for x in resurrected[:50]:  # they stand first in a list of the collector's
        x.me = None
    del x, resurrected[:50]
    ch.send(None)
    g.result()
    return gc.collect() >= 0, len(resurrected)
print(*gmprt.run(main))
"""


def test_who_collects_garbage() -> None:
    """Its finalizer waits, and others free what stands first in a list of the collector's."""
    assert run_child(COLLECTOR).stdout == "True 150\n"


def test_the_main_goroutine() -> None:
    ch = Chan[int]()

    def main() -> int:
        sleeper = falls_asleep(Chan[None](0).recv)  # main parks in it as well
        go(lambda: (gmprt.sleep(1.2), ch.send(1))).detach()
        got = ch.recv()
        sleeper.cancel()
        ended(sleeper)
        return got

    assert gmprt.run(main) == 1


@pytest.mark.skipif(not LOCKS_ON_STACK, reason="locks are semaphores in the heap")
def test_who_waits_for_a_lock() -> None:
    held = threading.Lock()
    held.acquire()
    g = stays_awake(held.acquire)
    held.release()
    assert g.result(PATIENCE)


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="only from 3.13 on it is listed on its stack"
)
def test_who_waits_in_the_parking_lot() -> None:
    items = queue.SimpleQueue[int]()
    g = stays_awake(items.get)
    items.put(5)
    assert g.result(PATIENCE) == 5


# ---- seen from outside ----


def test_its_stack_is_told() -> None:
    ch = Chan[int]()

    def outer() -> int:
        return inner()

    def inner() -> int:
        return ch.recv()

    g = falls_asleep(outer)
    assert [f.name for f in g.stack()] == ["outer", "inner"]
    frame = g.frame()
    assert frame is not None
    assert frame.f_code.co_name == "inner"
    assert frame.f_back is not None
    assert (g.state, g.wait_reason) == ("waiting", "chan receive")
    del frame
    ch.send(3)
    assert g.result(PATIENCE) == 3


@pytest.mark.parametrize("looker", ["goroutine", "thread"])
def test_who_asks_for_all_frames_sees_it(looker: str) -> None:
    ch = Chan[int]()
    g = falls_asleep(lambda: ch.recv())

    def look() -> None:
        frame = sys._current_frames()[g.ident]
        assert frame.f_code.co_name == "<lambda>"
        assert frame.f_back is None

    (go(look) if looker == "goroutine" else Thread(look)).result(PATIENCE)
    ch.send(3)
    assert g.result(PATIENCE) == 3


def test_faulthandler_sees_it() -> None:
    """In a process with few threads: it tells of a hundred."""
    code = """
        import faulthandler, time, gmprt
        def sleeper():
            ch.recv()
        ch = gmprt.Chan()
        g = gmprt.go(sleeper)
        while not gmprt.stats().hibernating:
            time.sleep(0.05)
        faulthandler.dump_traceback(all_threads=True)
    """
    assert " in sleeper\n" in run_child(code).stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_who_monitors_all_code_hears_of_it() -> None:
    """The interpreter changes the code that its states run at that moment."""
    code = """
import sys, time, gmprt
monitoring, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
def sleeper():
    ch.recv()
    return 5
def line(code, number):
    if code is sleeper.__code__:
        lines.append(number - code.co_firstlineno)
ch, lines = gmprt.Chan(), []
g = gmprt.go(sleeper)
while not gmprt.stats().hibernating:
    time.sleep(0.05)
monitoring.use_tool_id(tool, "test")
monitoring.register_callback(tool, monitoring.events.LINE, line)
monitoring.set_events(tool, monitoring.events.LINE)
ch.send(None)
print(g.result(), lines)
"""
    assert run_child(code).stdout == "5 [2]\n"


def test_who_traces_hears_of_a_frame_that_slept_when_tracing_began() -> None:
    """Since 3.12 the first tracer changes that code, too; a debug build asserts that it was."""
    code = """
import sys, time, gmprt
def tracer(frame, event, arg):
    lines.append(frame.f_lineno - sleeper.__code__.co_firstlineno)
    return tracer
def sleeper():
    ch.recv()
    sys._getframe().f_trace = tracer
    sys.settrace(tracer)
    a = 1
    return a
ch, lines = gmprt.Chan(), []
g = gmprt.go(sleeper)
while not gmprt.stats().hibernating:
    time.sleep(0.05)
sys.settrace(lambda *event: None)
ch.send(None)
print(g.result(), lines[:2])
"""
    assert run_child(code).stdout == "1 [4, 5]\n"


def test_nobody_stumbles_over_it() -> None:
    ch = Chan[int]()
    g = falls_asleep(lambda: ch.recv())
    gc.collect()
    sys._current_exceptions()
    assert any(t is g for t in gmprt.debug.goroutines())
    assert "chan receive" in gmprt.debug.block(g)
    ch.send(3)
    assert g.result(PATIENCE) == 3


# ---- crowds ----

CROWD = """
import gmprt, time
N = {n}
def status(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(key))
def memory():
    return status("VmRSS") + status("VmPTE")
def main():
    ch = gmprt.Chan()
    before = memory()
    goroutines = [gmprt.go(lambda i=i: ch.recv() + i) for i in range(N)]
    while gmprt.stats().hibernating < N:
        time.sleep(0.1)
    each = (memory() - before) / N
    for _ in range(N):
        ch.send(1)
    assert sum(g.result() for g in goroutines) == N + N * (N - 1) // 2
    return each
print(gmprt.run(main))
"""


def test_a_crowd_costs_little() -> None:
    """A page of stack and its page-table page are 8 KiB, of which these have none."""
    each = float(run_child(CROWD.format(n=5000), timeout=3 * PATIENCE).stdout)
    assert each < 4096, each


STORM = """
import random, time, gmprt
gmprt.gomaxprocs({procs})
rounds, crowd = 40, 60
def worker(ch, out):
    total = 0
    try:
        for v in ch:
            total += v
            gmprt.sleep(random.random() * 0.005)
    finally:
        out.append(total)
def main():
    sent = 0
    out = []
    ch = gmprt.Chan()
    workers = [gmprt.go(worker, ch, out) for _ in range(crowd)]
    for r in range(rounds):
        for i in range(crowd):
            ch.send(i)
            sent += i
        time.sleep(0.01)
        if r % 10 == 9:
            workers[r].stack()
    ch.close()
    for w in workers:
        w.join()
    assert sum(out) == sent, (sum(out), sent)
    return gmprt.stats().rousings
print(gmprt.run(main))
"""


@pytest.mark.parametrize("procs", [1, 2, 4])
def test_a_storm(procs: int) -> None:
    """With chaos whoever parks falls asleep at the next look."""
    env = {"GMPRT_CHAOS": str(procs)}
    done = run_child(STORM.format(procs=procs), env=env, timeout=3 * PATIENCE)
    assert int(done.stdout) > 0


def test_forks_and_the_end_beside_sleepers() -> None:
    code = """
import os, gmprt, time
ch = gmprt.Chan()
goroutines = [gmprt.go(ch.recv) for _ in range(50)]
while gmprt.stats().hibernating < 50:
    time.sleep(0.05)
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        again = gmprt.Chan(1)
        g = gmprt.go(again.recv)
        gmprt.go(again.send, 5)
        os._exit(g.result() + gmprt.stats().hibernating)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
for g in goroutines[:10]:
    ch.send(1)
print("end")
"""
    assert run_child(code, timeout=2 * PATIENCE).stdout == "end\n"


def test_all_frames_in_a_forked_child() -> None:
    """The parent's sleepers are not there: they are not roused with the child's own."""
    code = """
import os, sys, time, gmprt
def sleepers(n):
    goroutines = [gmprt.go(lambda: gmprt.Chan().recv()) for _ in range(n)]
    while gmprt.stats().hibernating < n:
        time.sleep(0.05)
    return goroutines
parents = sleepers(40)
pid = os.fork()
if pid == 0:
    own = sleepers(1)
    there = sys._current_frames()
    os._exit(own[0].ident not in there or gmprt.stats().hibernating)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("end")
"""
    assert run_child(code, timeout=2 * PATIENCE).stdout == "end\n"


# ---- threads that are goroutines ----

THREADS = """
import gc, os, queue, socket, sys, threading, time
import gmprt
gmprt.threads(True)

def asleep(n):
    while gmprt.stats().hibernating < n:
        time.sleep(0.05)

def started(fn, *args, **options):
    t = threading.Thread(target=fn, args=args, **options)
    t.start()
    return t

# A byte and the parking lot (3.13.5), not a semaphore of the C library in the heap (3.13.0).
LOCKS_ON_STACK = type(threading.Lock()).__basicsize__ < 32
"""

WAITS = """
ours, theirs = socket.socketpair()
ch, semaphore = gmprt.Chan(), gmprt.Semaphore(0)
waits = [
    (lambda: ours.recv(10), lambda: theirs.send(b"data"), b"data"),
    (ch.recv, lambda: ch.send("value"), "value"),
    (semaphore.acquire, semaphore.release, True),
    (lambda: time.sleep(2), lambda: None, None),
]
if not LOCKS_ON_STACK:
    lock, event, other = threading.Lock(), threading.Event(), threading.Event()
    condition, items = threading.Condition(), queue.Queue()
    lock.acquire()
    def notified():
        with condition:
            return condition.wait()
    def notify():
        with condition:
            condition.notify()
    waits += [
        (lock.acquire, lock.release, True),
        (event.wait, event.set, True),
        (lambda: other.wait(100), other.set, True),
        (notified, notify, True),
        (items.get, lambda: items.put(5), 5),
    ]
local, seen = threading.local(), {}
def work(number, wait):
    local.number, ident = number, threading.get_ident()
    try:
        raise KeyError(wait())
    except KeyError as e:
        assert local.number == number and ident == threading.get_ident()
        assert threading.current_thread() is threads[number]
        seen[number] = e.args[0], sum(i for i in range(10))
threads = {}
for number, (wait, _, _) in enumerate(waits):
    threads[number] = threading.Thread(target=work, args=(number, wait))
    threads[number].start()
asleep(len(waits))
gc.collect()
if LOOK:
    frames = sys._current_frames()
    for t in threads.values():
        names, frame = set(), frames[t.ident]
        while frame:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        assert names >= {"_bootstrap", "run", "work"}, names
for _, wake, _ in waits:
    wake()
for t in threads.values():
    t.join()
assert seen == {n: (value, 45) for n, (_, _, value) in enumerate(waits)}, seen
print("end")
"""


@pytest.mark.parametrize("look", [False, True])
def test_threads_go_on_as_if_nothing_had_been(look: bool) -> None:
    code = f"{THREADS}LOOK = {look}\n{WAITS}"
    assert run_child(code, timeout=2 * PATIENCE).stdout == "end\n"


def test_forks_and_the_end_beside_threads_that_sleep() -> None:
    code = """
gate = gmprt.Semaphore(0)
threads = [started(gate.acquire, daemon=True) for _ in range(50)]
asleep(50)
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        assert threading.active_count() == 1
        again = gmprt.Semaphore(0)
        t = started(again.acquire)
        again.release()
        t.join()
        os._exit(gmprt.stats().hibernating)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
gate.release(40)
until = time.monotonic() + 20
while sum(t.is_alive() for t in threads) > 10:
    assert time.monotonic() < until
    time.sleep(0.01)
print("end")
"""
    assert run_child(THREADS + code, timeout=2 * PATIENCE).stdout == "end\n"


THREADS_CROWD = """
N = 3000
def status(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(key))
def memory():
    return status("VmRSS") + status("VmPTE")
wait, wake = (ch := gmprt.Chan()).recv, ch.close
if not LOCKS_ON_STACK:
    event = threading.Event()
    wait, wake = event.wait, event.set
def work():
    try:
        wait()
    except gmprt.EndOfChannel:
        pass
before = memory()
threads = [started(work, daemon=True) for _ in range(N)]
asleep(N)
each = (memory() - before) / N
wake()
for t in threads:
    t.join()
print(each)
"""


def test_a_crowd_of_threads_costs_little() -> None:
    """Most of it is the interpreter's: the thread's object, its locks, its state."""
    each = float(run_child(THREADS + THREADS_CROWD, timeout=3 * PATIENCE).stdout)
    assert each < 10 * 1024, each
