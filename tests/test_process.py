"""Processes and signals from inside: forks that go on, masks, multiprocessing, event loops."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import run_child

import gmprt

# ---- a forked child goes on where its parent was -------------------------------------------------

FORKS = """
import atexit, gmprt, os, signal, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("pass", 0),
        ("sys.exit(5)", 5),
        ("sys.exit('why')", 1),
        ("raise LookupError", 1),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_fork_in_the_main_goroutine(end: str, expected: int) -> None:
    """In the child, too, run() returns, a thread can be started, and functions of atexit run."""
    body = f"""
read, write = os.pipe()

def main():
    gmprt.go(gmprt.Chan().recv)
    gmprt.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        assert threading.current_thread() is threading.main_thread()
        assert gmprt.go(int, "3").result() == 3
        time.sleep(0.001)
    return pid

pid = gmprt.run(main)
if pid == 0:
    thread = threading.Thread(target=os.write, args=(write, b"thread "))
    thread.start()
    thread.join()
    assert gmprt.run(lambda: gmprt.go(int, "4").result()) == 4
    atexit.register(os.write, write, b"atexit")
    {end}
else:
    code = status(pid)
    os.close(write)
    print(code, os.read(read, 100).decode())
"""
    written = "thread atexit" if expected in (0, 1, 5) else "thread "
    assert run_child(FORKS + body).stdout.strip() == f"{expected} {written}".strip()


@pytest.mark.parametrize(
    ("end", "expected"),
    [("return", 0), ("sys.exit(5)", 5), ("raise LookupError", 1), ("os._exit(7)", 7)],
)
@pytest.mark.parametrize(
    "how", ["gmprt.run(lambda: gmprt.go(forks).result())", "gmprt.go(forks).result()"]
)
def test_fork_in_a_goroutine(end: str, expected: int, how: str) -> None:
    """Its end is the child's, with the status of a script that ends so."""
    body = f"""
def child():
    try:
        assert gmprt.num_goroutine() == 1
        gmprt.sleep(0.001)
        assert gmprt.go(int, "3").result() == 3
        {end}
    finally:
        os.write(1, b"finally ")

def forks():
    pid = os.fork()
    if pid == 0:
        child()
        return
    return status(pid)

code = {how}
if code is not None:
    print(code)
"""
    finally_ = "" if "_exit" in end else "finally "
    assert run_child(FORKS + body).stdout == f"{finally_}{expected}\n"


def test_a_signal_reaches_a_forked_child() -> None:
    """Handlers run in it, in its main goroutine, parked or not."""
    body = """
def main():
    pid = os.fork()
    if pid:
        assert os.read(read, 1) == b"r"
        os.kill(pid, signal.SIGUSR1)
        return status(pid)
    got = []
    signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    os.write(write, b"r")
    while not got:
        gmprt.sleep(0.01)
    os._exit(9)
read, write = os.pipe()
print(gmprt.run(main))
"""
    assert run_child(FORKS + body).stdout == "9\n"


# ---- masks and signals of children and threads ---------------------------------------------------

MASKS = """
def blocked(pid="self"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("SigBlk"):
            return int(line.split()[1], 16)

def of_a_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(blocked("thread-self")))
    thread.start()
    thread.join()
    return seen[0]

def of_a_fork():
    pid = os.fork()
    if pid == 0:
        os._exit(1 if blocked() else 0)
    return status(pid)

def of_a_child(**options):
    command = ["grep", "SigBlk", "/proc/self/status"]
    return int(subprocess.run(command, capture_output=True, **options).stdout.split()[1], 16)

def of_a_vforked_child():
    return of_a_child(start_new_session=True)
"""


@pytest.mark.parametrize("how", ["gmprt.run(work)", "gmprt.go(work).result()"])
def test_nobody_inherits_blocked_signals(how: str) -> None:
    body = f"""
def work():
    return [of() for of in (of_a_thread, of_a_fork, of_a_child, of_a_vforked_child)]
print({how})
"""
    assert run_child(FORKS + MASKS + body).stdout == "[0, 0, 0, 0]\n"


@pytest.mark.parametrize("how", ["gmprt.run(work)", "gmprt.go(work).result()"])
def test_what_was_blocked_is_inherited(how: str) -> None:
    body = f"""
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    bit = 1 << signal.SIGUSR2 - 1
    gmprt.sleep(0.001)
    seen = [of() == bit for of in (of_a_thread, of_a_child, of_a_vforked_child)]
    seen.append(gmprt.go(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])).result())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    return seen
print({how})
"""
    expected = "[True, True, True, {<Signals.SIGUSR2: 12>}]\n"
    assert run_child(FORKS + MASKS + body).stdout == expected


@pytest.mark.parametrize("how", ["gmprt.run(work)", "gmprt.go(work).result()"])
@pytest.mark.parametrize("options", ["", "start_new_session=True", "preexec_fn=int"])
def test_terminate(how: str, options: str) -> None:
    body = f"""
def work():
    child = subprocess.Popen(["sleep", "100"], {options})
    child.terminate()
    return child.wait()
print({how})
"""
    assert run_child(FORKS + body).stdout == "-15\n"


def test_wakeup_fd() -> None:
    """It is written to while the main goroutine is parked, and while it runs elsewhere."""
    body = """
import socket
def main():
    a, b = socket.socketpair()
    b.setblocking(False)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.set_wakeup_fd(b.fileno())
    other = gmprt.go(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert a.recv(10) == bytes([signal.SIGUSR1])
    other.join()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert a.recv(10) == bytes([signal.SIGUSR1])
    assert signal.set_wakeup_fd(-1) == b.fileno()
gmprt.run(main)
print("ok")
"""
    assert run_child(FORKS + body).stdout == "ok\n"


# ---- multiprocessing -----------------------------------------------------------------------------

POOL = """
import multiprocessing as mp, gmprt, sys, os, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)

def square(n):
    return n * n

def feed(queue, n):
    for i in range(n):
        queue.put(i)

def inside(n):  # the child uses the runtime itself
    return sum(g.result() for g in [gmprt.go(square, i) for i in range(n)])

def ends(code):
    sys.exit(code)

def work(method):
    ctx = mp.get_context(method)
    with ctx.Pool(2) as pool:
        assert pool.map(square, range(20)) == [n * n for n in range(20)]
        assert pool.apply(inside, (5,)) == 30
    queue = ctx.Queue()
    feeder = ctx.Process(target=feed, args=(queue, 50))
    feeder.start()
    assert [queue.get() for _ in range(50)] == list(range(50))
    feeder.join()
    child = ctx.Process(target=ends, args=(3,))
    child.start()
    child.join()
    sleeper = ctx.Process(target=time.sleep, args=(100,))
    sleeper.start()
    sleeper.terminate()
    sleeper.join()
    lock, event = ctx.Lock(), ctx.Event()
    with lock:
        waits = gmprt.go(lock.acquire)
        gmprt.sleep(0.002)
        assert not waits.done()
    assert waits.result()
    setter = ctx.Process(target=event.set)
    setter.start()
    assert event.wait(20)
    setter.join()
    return feeder.exitcode, child.exitcode, sleeper.exitcode

if __name__ == "__main__":
    method, how = sys.argv[1:]
    print(gmprt.run(work, method) if how == "run" else gmprt.go(work, method).result())
"""


@pytest.mark.parametrize("how", ["run", "go"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str, how: str) -> None:
    path = tmp_path / "pool.py"
    path.write_text(POOL)
    here = [str(Path(gmprt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {"PYTHONPATH": os.pathsep.join(here)}
    assert run_child(args=[str(path), method, how], env=env, timeout=50).stdout == "(0, 3, -15)\n"


# ---- asyncio -------------------------------------------------------------------------------------


def test_several_loops_in_several_goroutines() -> None:
    body = """
import asyncio
async def serve(n):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async def ask(i):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%d\\n" % i)
        line = await reader.readline()
        writer.close()
        return int(line)
    got = await asyncio.gather(*[ask(i) for i in range(n)])
    await asyncio.to_thread(time.sleep, 0.01)
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    server.close()
    return got == list(range(n))
def loop(n):
    return asyncio.run(serve(n))
def main():
    loops = [gmprt.go(loop, 10) for _ in range(5)]
    own = loop(10)
    return own, {g.result() for g in loops}
print(gmprt.run(main))
"""
    assert run_child(FORKS + body, timeout=50).stdout == "(True, {True})\n"
