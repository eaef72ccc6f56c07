"""csrc/py/hook_fork.c: forks in libraries, and what their handlers of pthread_atfork do."""

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
@pytest.mark.parametrize("order", ["before", "after"])
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


def test_handlers_of_before_that_run_python(library: str) -> None:
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
        PRELUDE + f"PARENTS, LIGHT = {PARENTS}, {LIGHT!r}\n" + body, args=[library, "before"]
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("order", ["before", "after"])
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
