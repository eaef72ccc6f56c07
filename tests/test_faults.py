"""System calls that fail, threads that are refused: an exception, and nothing is lost.

fault.c, preloaded, lets the Nth call of one function fail.  Whatever fails, goroutines that have
nothing to do with it go on, and the process ends well.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import run_child

from gmprt import native

HERE = Path(__file__).parent
CC = os.environ.get("CC", "gcc")

pytestmark = pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fault") / "fault.so"
    source = str(HERE / "fault.c")
    subprocess.run([CC, "-shared", "-fPIC", "-O1", source, "-o", str(path), "-ldl"], check=True)
    return str(path)


PROGRAM = """
import ctypes, errno, hashlib, socket, threading, time
import gmprt
from gmprt import Chan, go

on = ctypes.c_int.in_dll(ctypes.CDLL(None), "fault_on")

def conversation(server, turns):
    with socket.create_connection(server.getsockname()) as s:
        for i in range(turns):
            s.sendall(b"%d" % i)
            assert s.recv(100) == b"%d" % i
    return "done"

def serve(connection):
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)

def accept(server, served, n):
    failures = 0
    while len(served) < n:
        try:
            served.append(go(serve, server.accept()[0]))
        except OSError as e:
            failures += 1
            last = e.errno
    return failures

def outcome(g):
    e = g.exception(20)
    return (type(e).__name__, getattr(e, "errno", None)) if e else g.result()

def others():
    '''Sleeps, a lock, a channel, a blocking call: all that does not depend on sockets.'''
    lock, ch = threading.Lock(), Chan(1)
    def one(i):
        time.sleep(0.001)
        with lock:
            gmprt.sleep(0.0001)
        ch.send(hashlib.sha256(bytes(100_000)).digest()[0] + i)
    goroutines = [go(one, i) for i in range(10)]
    total = sum(ch.recv(timeout=20) for _ in goroutines)
    for g in goroutines:
        g.result(20)
    return total

def talk(n=10, turns=20):
    '''The outcomes that are not "done", and how often accept failed.'''
    with socket.create_server(("127.0.0.1", 0)) as server:
        served = []
        acceptor = go(accept, server, served, n)
        clients = [go(conversation, server, turns) for _ in range(n)]
        unlike = [o for g in clients if (o := outcome(g)) != "done"]
        for _ in unlike:
            try:  # a client that never came: let the acceptor end
                socket.create_connection(server.getsockname()).close()
            except OSError:
                pass
        failures = acceptor.result(20)
        unlike += [o for g in served if (o := outcome(g)) is not None]
    return unlike, failures
"""


def run(library: str, fault: str, body: str) -> str:
    env = {"LD_PRELOAD": library, "FAULT": fault}
    return run_child(PROGRAM + body, env=env, timeout=50).stdout


@pytest.mark.parametrize("n", [1, 2, 5, 50])
@pytest.mark.parametrize(
    ("function", "number", "name"),
    [
        ("recv", errno.ECONNRESET, "ConnectionResetError"),
        ("sendto", errno.ENOBUFS, "OSError"),
        ("connect", errno.ENETUNREACH, "OSError"),
    ],
)
def test_one_call_fails(library: str, function: str, number: int, name: str, n: int) -> None:
    """Its own goroutine hears of it; the other end of that connection sees it closed."""
    body = """
unlike, failures = gmprt.run(lambda: (setattr(on, "value", 1), talk())[1])
on.value = 0
print(unlike, failures)
assert others() == gmprt.run(others)
"""
    out = run(library, f"{function}:{n}:{number}", body)
    if function == "connect" and n == 50:
        assert out == "[] 0\n", "there are not so many"
    else:
        assert f"('{name}', {number})" in out
    assert out.count("Error") <= 3, out


@pytest.mark.parametrize("n", [1, 3])
def test_accept_fails(library: str, n: int) -> None:
    body = """
def main():
    on.value = 1
    print(*talk())
gmprt.run(main)
"""
    assert run(library, f"accept4:{n}:{errno.EMFILE}", body) == "[] 1\n"


@pytest.mark.parametrize("count", [1, 0])
@pytest.mark.parametrize("n", [1, 4, 15])
def test_the_poller_takes_no_more(library: str, n: int, count: int) -> None:
    """What it cannot watch, a thread waits for."""
    body = """
def main():
    on.value = 1
    print(*talk())
    print(others() > 0)
gmprt.run(main)
"""
    assert run(library, f"epoll_ctl:{n}:{errno.ENOSPC}:{count}", body) == "[] 0\nTrue\n"


@pytest.mark.parametrize("function", ["epoll_create1", "eventfd"])
def test_no_descriptors_to_start_with(library: str, function: str) -> None:
    """The first go() raises, and works later."""
    body = """
on.value = 1
try:
    go(len, "abc").result(20)
except Exception as e:
    print("raised", isinstance(e, (OSError, gmprt.Error, MemoryError)))
on.value = 0
print(go(len, "abc").result(20), others() > 0)
"""
    out = run(library, f"{function}:1:{errno.EMFILE}:0", body)
    assert out == "raised True\n3 True\n"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_a_thread_is_refused(library: str, n: int) -> None:
    """Once: goroutines wait for those that there are, or `go` says so; later all is well."""
    body = """
def storm():
    goroutines = [go(time.sleep, 0.01) for _ in range(20)]
    goroutines += [go(lambda: hashlib.sha256(bytes(3_000_000)).digest()) for _ in range(5)]
    for g in goroutines:
        g.result(20)
on.value = 1
for _ in range(2):
    try:
        storm()
    except gmprt.TooManyThreads:
        print("refused")
on.value = 0
storm()
print(others() > 0)
"""
    out = run(library, f"pthread_create:{n}:{errno.EAGAIN}", body)
    assert out in ("True\n", "refused\nTrue\n"), out


def test_no_thread_at_all(library: str) -> None:
    body = """
on.value = 1
for _ in range(3):
    try:
        go(len, "abc")
    except gmprt.TooManyThreads:
        print("refused")
on.value = 0
print(go(len, "abc").result(20))
"""
    out = run(library, f"pthread_create:1:{errno.EAGAIN}:0", body)
    assert out == "refused\n" * 3 + "3\n"


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_memory_for_stacks(library: str, n: int) -> None:
    """`go` raises MemoryError or does what it should; what was started is not lost."""
    body = """
ch = Chan()
def waits(i):
    return ch.recv() + i
def main():
    on.value = 1
    started, refused = [], 0
    for i in range(3000):
        try:
            started.append(go(waits, i))
        except MemoryError:
            refused += 1
    on.value = 0
    for _ in started:
        ch.send(1)
    sums = [g.result(20) for g in started]
    assert len(set(sums)) == len(sums) and set(sums) <= set(range(1, 3001))
    print(len(started) + refused, refused < 3000)
gmprt.run(main)
"""
    assert run(library, f"mmap:{n}:{errno.ENOMEM}", body) == "3000 True\n"


KEEPS = """
def keeps(ch):
    gmprt.lock_os_thread()
    return ch.recv()
def main():
    ch = Chan()
    go(int).result(20)
    on.value = 1
    goroutines = [go(keeps, ch) for _ in range(20)]
    try:
        ch.recv(timeout=0.05)
    except gmprt.Timeout:
        print("in time")
    failed = [g for g in goroutines if g.done()]
    print({type(g.exception()).__name__ for g in failed})
    on.value = 0
    for _ in range(len(goroutines) - len(failed)):
        ch.send(1)
    goroutines = [go(keeps, ch) for _ in range(20)]
    for _ in goroutines:
        ch.send(2)
    print({g.result(20) for g in goroutines})
gmprt.run(main)
"""


def test_no_thread_for_those_that_keep_theirs(library: str) -> None:
    """The one that would take the last hears of it."""
    out = run(library, f"pthread_create:1:{errno.EAGAIN}:0", KEEPS)
    assert out == "in time\n{'TooManyThreads'}\n{2}\n"


def test_threads_are_to_be_had_again(library: str) -> None:
    """All threads block and no other is to be had: what is ready waits, and not for those alone."""
    body = """
import ctypes, os
libc = ctypes.CDLL(None)
entered = []
def blocks(fd):
    entered.append(fd)
    return libc.read(fd, ctypes.create_string_buffer(1), 1)
go(int).result(20)
on.value = 1
r, w = os.pipe()
blocked = [go(blocks, r) for _ in range(10)]
while len(entered) < gmprt.stats().threads:
    time.sleep(0.001)
ready = go(int)
print(ready.join(timeout=0.3))
on.value = 0
print(ready.result(5))  # sysmon sleeps for ten seconds when all is quiet
os.write(w, bytes(10))
print(sum(g.result(20) for g in blocked))
"""
    out = run(library, f"pthread_create:1:{errno.EAGAIN}:0", body)
    assert out == "False\n0\n10\n"


def test_threads_without_memory_for_their_state(library: str) -> None:
    """The interpreter keeps it in thread-specific data, and aborts where that is refused."""
    body = """
import ctypes, os
libc = ctypes.CDLL(None)
entered = []
def blocks(fd):
    entered.append(fd)
    return libc.read(fd, ctypes.create_string_buffer(1), 1)
go(int).result(20)
on.value = 1
r, w = os.pipe()
blocked = [go(blocks, r) for _ in range(10)]
while len(entered) < 1:
    time.sleep(0.001)
ready = go(int)
ready.join(timeout=0.3)
on.value = 0
print(ready.result(20))
os.write(w, bytes(10))
print(sum(g.result(20) for g in blocked))
"""
    out = run(library, f"pthread_setspecific:1:{errno.ENOMEM}:0", body)
    assert out == "0\n10\n"


# ---- each call that can be refused ---------------------------------------------------------------

PROGRAM_OF_SCENARIOS = str(HERE / "fault_scenarios.py")
SCENARIOS = [
    *("start", "run", "join", "thousand", "channels", "batches", "selects", "timers", "locks"),
    *("threading_locks", "sockets", "processes", "blocking", "procs", "natives", "os_thread"),
    *("forking", "threads", "cancelling", "scopes", "groups", "deep", "asyncs", "leaving"),
]
SECONDS = 2.0  # of plays, for each scenario


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("native") / "probe.so")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    source = str(HERE / "native_probe.c")
    include = f"-I{native.include_dir()}"
    command = [*compiler[:1], "-O1", "-shared", "-fPIC", include, source, "-o", path]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_call_refused(
    library: str, probe: str, scenario: str, request: pytest.FixtureRequest
) -> None:
    """Whatever is refused, at whichever call: see fault_scenarios.py.

    With --fault-all every call of every scenario, which takes long; else as many as there is time
    for, in an order that GMPRT_FAULT_SEED chooses.
    """
    everything = request.config.getoption("--fault-all")
    if everything:  # the watchdog is for tests that take seconds
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    seed = os.environ.get("GMPRT_FAULT_SEED", "1")
    env = {
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",
        "FAULT_PROBE": probe,
        "GOMAXPROCS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = run_child(
        env=env,
        args=[PROGRAM_OF_SCENARIOS, scenario, seed, "0" if everything else str(SECONDS)],
        timeout=7200 if everything else 50,
        status=None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
