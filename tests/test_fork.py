"""fork: the child has the forking goroutine and a fresh runtime, the parent notices nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import run_child

PRELUDE = """
import gmprt, multiprocessing, os, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads

def pipeline(n):
    ch = gmprt.Chan()
    def produce():
        with ch:
            for i in range(n):
                ch.send(i)
    gmprt.go(produce)
    return sum(ch)

def fork(child):
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            child()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def check(expected: str, body: str, **options: object) -> None:
    """What the program prints."""
    assert run_child(PRELUDE + body, **options).stdout == expected  # type: ignore[arg-type]


def test_before_anything_was_started() -> None:
    body = """
def child():
    assert pipeline(10) == 45
    assert gmprt.run(pipeline, 10) == 45
print(fork(child))
assert pipeline(10) == 45
"""
    check("0\n", body)


@pytest.mark.parametrize("where", ["main", "another"])
def test_a_cancel_is_the_parents(where: str) -> None:
    """As signals that are pending are: a worker of multiprocessing would end with it."""
    body = f"""
pids = []
def forks():
    gmprt.current().cancel()
    pids.append(os.fork())
    if pids[0] == 0:
        try:
            time.sleep(0.001)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(1000)
try:
    gmprt.run(forks if {where!r} == "main" else lambda: gmprt.go(forks).result())
except gmprt.GoroutineCancelled:
    print(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
"""
    check("0\n", body)


@pytest.mark.parametrize("procs", ["1", "4"])
def test_from_the_main_thread_with_goroutines(procs: str) -> None:
    body = """
gate = gmprt.Chan()
parked = [gmprt.go(gate.recv) for _ in range(10)]
blocked = gmprt.go(time.sleep, 1000)
done = gmprt.go(int, "7")
while not done.done() or any(g.state != "waiting" for g in [*parked, blocked]):
    gmprt.sleep(0.001)

def child():
    assert gmprt.num_goroutine() == 0
    assert gmprt.debug.goroutines() == []
    for g in [*parked, blocked]:
        assert g.done() and g.join(0)
        error = g.exception()
        assert isinstance(error, gmprt.Error), error
        assert "fork" in str(error)
        assert g.cancel() is False
    assert done.result() == 7
    assert pipeline(100) == 4950
    assert gmprt.run(pipeline, 100) == 4950
    # The parent's waiters are gone from the child's copy of the channel.
    assert gate.statistics().waiting_receivers == 0, gate.statistics()
    try:
        gate.send_nowait(1)
    except gmprt.WouldBlock:
        pass
    else:
        raise AssertionError("sent to somebody who does not exist")
    for g in [gmprt.go(time.sleep, 0.02) for _ in range(5)]:
        assert g.join(20)

print(fork(child))
for i in range(10):
    gate.send(i)
assert sorted(g.result() for g in parked) == list(range(10))
assert blocked.cancel() and blocked.join(20)
"""
    check("0\n", body, env={"GOMAXPROCS": procs})


def test_from_the_main_goroutine() -> None:
    """Daemons and pre-forking servers do that: the child goes on in its main goroutine."""
    body = """
def main():
    gmprt.go(gmprt.Chan().recv)
    gmprt.gosched()
    def child():
        assert gmprt.current() is not None
        assert threading.current_thread() is threading.main_thread()
        gmprt.sleep(0.001)
        assert pipeline(100) == 4950
        time.sleep(0.001)
        assert pipeline(100) == 4950
    print(fork(child))
    assert pipeline(100) == 4950
gmprt.run(main)
print("parent")
"""
    check("0\nparent\n", body)


CC = os.environ.get("CC", "gcc").split()[0]

LATE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

typedef int create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

/* A new thread has long begun when its maker goes on. */
int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  create *real = (create *)dlsym(RTLD_NEXT, "pthread_create");
  int error = real(id, attr, fn, arg);
  usleep(20000);
  return error;
}
"""


@pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")
@pytest.mark.parametrize("where", ["gmprt.run(main)", "gmprt.go(main).result()"])
def test_the_runtime_is_started_once_in_the_child(where: str, tmp_path: Path) -> None:
    """By a thread that is not done with that when the goroutine already runs on another one."""
    library = tmp_path / "late.so"
    command = [CC, "-w", "-shared", "-fPIC", "-xc", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=LATE, text=True, check=True)
    body = f"""
def main():
    def child():
        gmprt.sleep(0.001)
        assert pipeline(100) == 4950
        end = time.monotonic() + 20
        # This thread, sysmon, and the Ms: one that starts is counted before it is there.
        while len(os.listdir("/proc/self/task")) != 2 + gmprt.stats().threads:
            assert time.monotonic() < end, (os.listdir("/proc/self/task"), gmprt.stats())
            gmprt.sleep(0.001)
    print([fork(child) for _ in range(3)])
{where}
"""
    check("[0, 0, 0]\n", body, env={"LD_PRELOAD": str(library)})


def test_from_a_goroutine() -> None:
    body = """
def child():
    assert gmprt.current() is not None
    gmprt.sleep(0.001)
    assert pipeline(100) == 4950
def work():
    return fork(child)
goroutines = [gmprt.go(work) for _ in range(5)]
print([g.result(20) for g in goroutines])
def main():
    return gmprt.go(work).result()
print(gmprt.run(main))
"""
    check("[0, 0, 0, 0, 0]\n0\n", body)


@pytest.mark.parametrize("how", ["gmprt.run(work)", "gmprt.go(work).result()"])
def test_child_waits_for_a_thread(how: str) -> None:
    """That is no deadlock: the thread in the child is one that can wake its only goroutine."""
    body = f"""
def child():
    done = threading.Event()
    def wake():
        time.sleep(0.3)
        done.set()
    threading.Thread(target=wake).start()
    done.wait()
def work():
    return fork(child)
print({how})
"""
    check("0\n", body)


def test_from_a_thread() -> None:
    body = """
statuses = []
gate = gmprt.Chan()
g = gmprt.go(gate.recv)
def child():
    assert pipeline(100) == 4950
t = threading.Thread(target=lambda: statuses.append(fork(child)))
t.start()
t.join()
gate.send(1)
g.join()
print(statuses)
"""
    check("[0]\n", body)


def test_new_threads_are_not_taken_for_the_one_that_forked() -> None:
    """It has the ident of the thread in run(), which does not exist in the child: the C library
    gives the place of that one to the next thread that is started."""
    body = """
def child():
    me = threading.get_ident()
    for _ in range(3):
        threads = [threading.Thread(target=gmprt.sleep, args=(0.001,)) for _ in range(5)]
        for t in threads:
            t.start()
        assert me not in [t.ident for t in threads]
        for t in threads:
            t.join()
    assert threading.get_ident() == me
def grandchild():
    child()
    assert fork(child) == 0
t = threading.Thread(target=lambda: print(gmprt.run(fork, grandchild)))
t.start()
t.join()
"""
    check("0\n", body)


def test_whoever_forked_is_the_outermost_in_the_child() -> None:
    """run() was called by a thread that is not in the child; new ones get its stack."""
    body = """
import traceback
def look():
    for _ in range(3):
        threads = [threading.Thread(target=sum, args=([1],)) for _ in range(5)]
        for t in threads: t.start()
        for t in threads: t.join()
        names = [f.name for f in traceback.extract_stack()]
        assert names[-1] == "look" and "forked" in names and "outside" not in names, names
def forked(depth):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return "parent"
    look()
    if depth: forked(depth - 1)
    # and returns: the process ends as a script does
def outside(): print(gmprt.run(forked, 2))
t = threading.Thread(target=outside)
t.start()
t.join()
"""
    done = run_child(PRELUDE + body)
    assert done.stdout == "parent\n"
    assert done.stderr == "", "of the children's ends"


def test_grandchildren() -> None:
    body = """
def grandchild():
    assert pipeline(10) == 45
def child():
    assert pipeline(10) == 45
    assert fork(grandchild) == 0
    assert pipeline(10) == 45
pipeline(10)
print(fork(child))
"""
    check("0\n", body)


def test_grandchildren_wait_for_themselves() -> None:
    """A goroutine forks twice before it parks: each process has a poller of its own."""
    body = """
def echo(pipes):
    for _ in range(200):
        os.write(pipes[3], os.read(pipes[0], 1))
def child(pipes):
    pid = os.fork()
    echo(pipes[:4] if pid else pipes[4:])
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)
def main():
    pipes = [fd for _ in range(4) for fd in os.pipe()]
    pid = os.fork()
    if pid == 0:
        child(pipes)
    for i in range(200):
        os.write(pipes[1], b"x")
        os.write(pipes[5], b"x")
        os.read(pipes[2], 1)
        os.read(pipes[6], 1)
    print(os.waitpid(pid, 0)[1])
gmprt.go(main).result()
"""
    check("0\n", body)


def test_thread_objects_in_the_child() -> None:
    """They are what objects of threads are there: one is the main thread, the others are dead."""
    body = """
def child():
    mine, other = objects
    assert threading.current_thread() is threading.main_thread() is mine
    assert mine.is_alive() and mine.name == "forks"
    assert not other.is_alive() and other.name == "other"
    assert threading.enumerate() == [mine]
    other.join()
    for _ in range(2):
        thread = threading.Thread(target=objects.clear)
        thread.start()
        thread.join()
    assert not objects
    print("child", flush=True)
def remember(gate=None):
    objects.append(threading.current_thread())
    if gate:
        gate.recv()
def main():
    remember()
    gate = gmprt.Chan()
    gmprt.go(remember, gate).name = "other"
    while len(objects) < 2:
        gmprt.gosched()
    p = multiprocessing.get_context("fork").Process(target=child)
    p.start()
    p.join()
    print(p.exitcode)
objects = []
g = gmprt.go(main)
g.name = "forks"
g.result()
"""
    check("child\n0\n", body)


def test_preempted_during_the_fork() -> None:
    """The goroutine was asked to yield, and in the child nobody is left to yield to."""
    body = """
import functools
def hog():
    while os.getpid() == parent:
        pass
    print("a goroutine of the parent runs in the child", flush=True)
    os._exit(1)
# In C, and longer than a slice.
os.register_at_fork(before=functools.partial(sum, range(3_000_000)))
parent = os.getpid()
gmprt.go(hog)
print(gmprt.go(lambda: [fork(int) for _ in range(5)]).result())
os._exit(0)
"""
    check(f"{[0] * 5}\n", body)


def test_while_everybody_works() -> None:
    """Forks at any moment of a busy runtime."""
    body = """
stop = False
def talk(ch):
    while not stop:
        ch.send(1)
        ch.recv()
def blocks():
    while not stop:
        time.sleep(0.0005)
gmprt.gomaxprocs(4)
ch = gmprt.Chan(2)
goroutines = [gmprt.go(talk, ch) for _ in range(4)] + [gmprt.go(blocks) for _ in range(4)]
def child():
    assert pipeline(50) == 1225
print({fork(child) for _ in range(20)})
stop = True
for g in goroutines:
    assert g.join(20)
"""
    check("{0}\n", body, timeout=50)


def test_multiprocessing() -> None:
    body = """
def target(conn, n):
    conn.send(pipeline(n))
def work(n):
    ctx = multiprocessing.get_context("fork")
    ours, theirs = ctx.Pipe()
    p = ctx.Process(target=target, args=(theirs, n))
    p.start()
    got = ours.recv()
    p.join()
    return got, p.exitcode
print(work(10), gmprt.go(work, 10).result(20), gmprt.run(work, 10))
"""
    check("(45, 0) (45, 0) (45, 0)\n", body)


def test_subprocesses() -> None:
    body = """
def work(i):
    return subprocess.run(["echo", str(i)], capture_output=True, text=True).stdout
def main():
    goroutines = [gmprt.go(work, i) for i in range(20)]
    return [g.result().strip() for g in goroutines]
print(gmprt.run(main) == [str(i) for i in range(20)])
"""
    check("True\n", body)


def test_the_end_of_a_slice_during_a_fork() -> None:
    """A request to yield that is open then is not answered in the child.

    The parent's other goroutines stand in its copy of the queue, and none of them exists there.
    """
    body = """
import functools
parent = os.getpid()
# C code that keeps the GIL for longer than a slice, right before the system call
os.register_at_fork(before=functools.partial(sum, range(2_000_000)))
def other():
    while True:
        if os.getpid() != parent:
            os.write(2, b"a goroutine of the parent runs in the child")
            os._exit(9)
        gmprt.sleep(0.0001)
        gmprt.gosched()
def main():
    others = [gmprt.go(other) for _ in range(3)]
    return {gmprt.go(fork, lambda: pipeline(10)).result() for _ in range(5)} | {fork(int)}
print(gmprt.run(main))
"""
    check("{0}\n", body)


CC = os.environ.get("CC", "gcc").split()[0]


@pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")
def test_while_a_thread_gets_its_state(tmp_path: Path) -> None:
    """A thread of the runtime that starts has the list of states locked, without the GIL.

    In the child nobody would ever unlock it, and CPython 3.11 waits for it there.
    """
    library = tmp_path / "slow.so"
    source = Path(__file__).with_name("slow.c")
    subprocess.run(
        [CC, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True
    )
    body = """
import ctypes
slow, holding = (ctypes.c_int.in_dll(ctypes.CDLL(None), name) for name in ("slow", "holding"))
usleep = ctypes.CDLL(None).usleep
def main():
    results = set()
    slow.value = 1
    for crew in range(2, 12):
        blocked = [gmprt.go(usleep, 100_000) for _ in range(crew)]  # more threads than there are
        while not holding.value and not all(g.done() for g in blocked):
            gmprt.gosched()
        results.add(fork(lambda: pipeline(10)))
        for g in blocked:
            g.join()
    slow.value = 0
    return results
print(gmprt.run(main))
"""
    check("{0}\n", body, env={"LD_PRELOAD": str(library)})
