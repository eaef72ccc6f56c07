"""csrc/py/interpose/hooks/fork.c: forks in libraries, and what their handlers of pthread_atfork
do."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import run_child

SOURCE = Path(__file__).with_name("atfork.c")
CC = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-O1", "-shared", "-fPIC"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """By the name of an extension module, so that its forks are seen."""
    suffix: str = sysconfig.get_config_var("EXT_SUFFIX")
    out = tmp_path_factory.mktemp("atfork") / f"atfork{suffix}"
    include = sysconfig.get_paths()["include"]
    subprocess.run([*CC, f"-I{include}", str(SOURCE), "-o", str(out)], check=True)
    return str(out)


PRELUDE = """
import ctypes, faulthandler, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
faulthandler.dump_traceback_later(20, exit=True)
if sys.argv[2] == "before":
    lib = ctypes.PyDLL(sys.argv[1])
    lib.install()
import gmprt
if sys.argv[2] == "after":
    gmprt.go(int).join()
if sys.argv[2] != "before":
    lib = ctypes.PyDLL(sys.argv[1])
    lib.install()

def everywhere(fn):
    fn()
    gmprt.go(int).join()  # the runtime runs
    fn()
    assert gmprt.go(fn).result() is None
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()
    gmprt.run(fn)
    stop = gmprt.Chan()
    def spin():
        while not stop.closed:
            gmprt.sleep(0.0001)
    busy = [gmprt.go(spin) for _ in range(3)]
    gmprt.run(lambda: [g.result() for g in [gmprt.go(fn) for _ in range(5)]])
    stop.close()
    [g.result() for g in busy]

def forked(child, status=0):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(98)
        os._exit(status)
    got = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert got == status, got

def works():
    ch = gmprt.Chan()
    gmprt.go(ch.send, 7)
    assert ch.recv() == 7
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=0.001)
    time.sleep(0.001)
"""

WORKS = """
import gmprt, threading, time
ch = gmprt.Chan()
gmprt.go(ch.send, 7)
assert ch.recv() == 7
lock = threading.Lock()
with lock:
    assert not lock.acquire(timeout=0.001)
time.sleep(0.001)
"""


@pytest.mark.parametrize("interpose", ["1", "0"])
@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_a_handler_that_tells_the_interpreter(library: str, order: str, interpose: str) -> None:
    """PyOS_AfterFork_Child() inside the C library's fork, as uvloop has it."""
    body = """
lib.set(None, None, None, 1)
everywhere(lambda: check(lib.spawn(None, 7)))
everywhere(lambda: check(lib.spawn(WORKS.encode(), 7)))
everywhere(lambda: forked(works, 5))
print("done")
"""
    head = f"WORKS = {WORKS!r}\ndef check(status): assert status == 7, status\n"
    done = run_child(
        PRELUDE + head + body, args=[library, order], env={"GMPRT_INTERPOSE": interpose}
    )
    assert done.stdout == "done\n", done.stderr


LIGHT = """
import gmprt, threading
threading.Lock().acquire()
ch = gmprt.Chan(1)
ch.send(7)
assert ch.recv() == 7 and threading.get_native_id() > 0
"""
# 3.13 holds a lock around a fork that every new thread state needs: Python code there may hang.
PARENTS = sys.version_info < (3, 13)


@pytest.mark.parametrize("interpose", ["1", "0"])
def test_handlers_that_run_python(library: str, interpose: str) -> None:
    """Before a fork and after it, in the parent and in the child: what threads may do there."""
    body = """
code = WORKS.encode()
lib.set(code if PARENTS else None, code if PARENTS else None, code, 1)
everywhere(lambda: check(lib.spawn(None, 7)))
everywhere(lambda: check(lib.spawn(WORKS.encode(), 7)))
print("done")
"""
    head = f"PARENTS, WORKS = {PARENTS}, {WORKS!r}\ndef check(status): assert status == 7, status\n"
    env = {"GMPRT_INTERPOSE": interpose}
    done = run_child(PRELUDE + head + body, args=[library, "after"], env=env)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("order", ["before", "between"])
def test_handlers_of_before_that_run_python(library: str, order: str) -> None:
    """They run while the runtime stands still: blocking calls block, free locks are taken."""
    # In the child, before the interpreter knows of the fork, Python code must not be asked to drop
    # the GIL: it would wait until somebody else has taken it. On a slow machine others ask.
    body = """
sys.setswitchinterval(1000)
code = LIGHT.encode()
lib.set(code if PARENTS else None, code if PARENTS else None, code, 1)
everywhere(lambda: forked(works, 5))
print("done")
"""
    done = run_child(
        PRELUDE + f"PARENTS, LIGHT = {PARENTS}, {LIGHT!r}\n" + body, args=[library, order]
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.skipif(not PARENTS, reason="Python code there may hang from 3.13 on")
def test_a_handler_that_makes_the_first_go(library: str) -> None:
    """The runtime starts in the middle of a fork, in the parent; the child has a copy of it."""
    body = """
lib.set(b"import gmprt; gmprt.go(int).join()", None, None, 1)
forked(works, 5)
lib.set(None, None, None, 1)
forked(works, 5)
works()
print("done")
"""
    done = run_child(PRELUDE + body, args=[library, "between"])
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_a_handler_that_takes_a_lock(library: str, order: str) -> None:
    """Which a goroutine holds that blocks, and comes back to the runtime."""
    body = """
def hold():
    for _ in range(20):
        ctypes.CDLL(sys.argv[1]).hold(1000)
        gmprt.gosched()

def main():
    holders = [gmprt.go(hold) for _ in range(3)]
    for _ in range(10):
        forked(works, 5)
    [g.result() for g in holders]

gmprt.run(main)
print("done")
"""
    done = run_child(PRELUDE + body, args=[library, order])
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("interpose", ["1", "0"])
def test_subprocesses_of_uvloop(interpose: str) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")
    code = """
        import asyncio, gmprt, threading, uvloop

        async def main():
            ps = [await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3") for _ in range(5)]
            return [await p.wait() for p in ps]

        def run():
            assert uvloop.run(main()) == [3] * 5

        run()
        gmprt.go(int).join()
        run()
        gmprt.run(run)
        gmprt.go(run).result()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        print("done")
    """
    assert run_child(code, env={"GMPRT_INTERPOSE": interpose}).stdout == "done\n"


# ---- handlers that were registered before ours ---------------------------------------------------

EARLY = """
import multiprocessing, os, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
order, seen = sys.argv[1], []

def in_child():
    # What any code of the program may do: yield, wait, start goroutines.
    seen.append(os.getpid())
    gmprt.gosched()
    gmprt.sleep(0.001)
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=0.001)
    ch = gmprt.Chan()
    gmprt.go(ch.send, 7)
    assert ch.recv() == 7
    assert not busy or busy[0].done(), "of the parent, and not ended"

busy = []
if order == "before import":
    os.register_at_fork(after_in_child=in_child)
import gmprt
if order == "before the first go":
    os.register_at_fork(after_in_child=in_child)

def forked():
    pid = os.fork()
    if pid == 0:
        os._exit(5 if seen == [os.getpid()] else 6)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5

def processes():
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(5))
    process.start()
    process.join()
    assert process.exitcode == 5

def preexec():
    done = subprocess.run(["/bin/sh", "-c", "exit 5"], preexec_fn=lambda: seen[0])
    assert done.returncode == 5

def spin(stop):
    while not stop.closed:
        gmprt.sleep(0.0001)

def all_of_them():
    for fork in (forked, processes, preexec):
        fork()
        gmprt.go(fork).result()

stop = gmprt.Chan()
busy += [gmprt.go(spin, stop) for _ in range(3)]
all_of_them()
gmprt.run(all_of_them)
gmprt.run(lambda: [g.result() for g in [gmprt.go(forked) for _ in range(5)]])
stop.close()
for g in busy:
    g.join()
print("done")
"""


@pytest.mark.parametrize("interpose", ["1", "0", "none"])
@pytest.mark.parametrize("order", ["before import", "before the first go"])
def test_earlier_handlers_of_the_interpreter_may_wait(order: str, interpose: str) -> None:
    done = run_child(EARLY, args=[order], env={"GMPRT_INTERPOSE": interpose})
    assert done.stdout == "done\n", done.stderr


def test_an_earlier_handler_that_is_traced() -> None:
    """The trace function yields at its first line."""
    code = """
        import os, sys, threading
        def trace(frame, event, arg):
            gmprt.gosched()
            return trace
        def in_child():
            x = 1
        os.register_at_fork(after_in_child=in_child)
        import gmprt
        def main():
            sys.settrace(trace)
            pid = os.fork()
            if pid == 0:
                os._exit(5)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(gmprt.go(main).result(), gmprt.run(main))
    """
    assert run_child(code, flags=["-W", "ignore"]).stdout == "5 5\n"


def test_what_the_child_drops_finds_new_locks() -> None:
    """The parent's goroutines go when all handlers have run: their destructors log, say."""
    code = """
        import os, threading, gmprt
        lock = threading.Lock()
        os.register_at_fork(after_in_child=lock._at_fork_reinit)
        class Logs:
            def __del__(self):
                with lock:
                    os.getpid() != parent and os.write(1, b"dropped ")
        parent = os.getpid()
        def main():
            held, ending = gmprt.Chan(), gmprt.Chan()
            def hold():
                with lock:
                    held.close()
                    ending.recv()
            holder = gmprt.go(hold)
            held.recv_ok()
            gmprt.go(id, Logs())  # it has not begun when we fork
            pid = os.fork()
            if pid == 0:
                assert not lock.locked()
                os._exit(5)
            ending.send(0)
            holder.result()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(gmprt.run(main))
    """
    done = run_child(code, flags=["-W", "ignore"], env={"GMPRT_PREEMPT": "0"})
    assert done.stdout == "dropped 5\n"


@pytest.mark.parametrize("where", ["f()", "gmprt.run(f)", "gmprt.go(f).result()"])
def test_what_a_child_of_vfork_closes_and_resets_stays_with_the_parent(where: str) -> None:
    """It shares our memory: its descriptors and its signals' handlers are not ours.

    Whoever calls vfork, an ordinary thread as well.
    """
    code = f"""
        import os, signal, socket, subprocess, time
        import gmprt
        a, b = socket.socketpair()
        reader = gmprt.go(a.recv, 5)
        while reader.state != "waiting":
            gmprt.sleep(0.001)
        seen = []
        for sig in (signal.SIGURG, signal.SIGUSR1):
            signal.signal(sig, lambda number, frame: seen.append(number))
        def f():
            subprocess.run(["/bin/true"], check=True, close_fds=True)
        {where}
        for sig in (signal.SIGURG, signal.SIGUSR1):
            os.kill(os.getpid(), sig)
        while len(seen) < 2:
            time.sleep(0.001)
        assert reader.state == "waiting", reader
        b.send(b"hello")
        assert reader.result() == b"hello"
        print("ok")
    """
    assert run_child(code).stdout == "ok\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the warning came with 3.12")
@pytest.mark.parametrize("where", ["f()", "gmprt.run(f)", "gmprt.go(f).result()"])
def test_a_fork_is_warned_of_beside_threads_of_python_only(where: str) -> None:
    """Those of the runtime stand still meanwhile."""
    code = f"""
        import os, threading, warnings
        import gmprt
        gmprt.go(int).join()
        def f():
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            {where}
            assert not seen, seen
            end = threading.Event()
            thread = threading.Thread(target=end.wait)
            thread.start()
            {where}
            assert [w.category for w in seen] == [DeprecationWarning], seen
        end.set()
        thread.join()
        print("ok")
    """
    assert run_child(code).stdout == "ok\n"
