"""The end of the process: goroutines in any situation neither crash it, hold it, nor change its
status."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Child, run_child

CC = os.environ.get("CC", "gcc").split()[0]

# ---- parked -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7])
def test_parked_goroutines_are_cancelled(status: int) -> None:
    """Their finally blocks run, and the status is what it was."""
    code = f"""
        import gmprt, sys
        def child(i):
            try:
                gmprt.Chan().recv()
            except gmprt.Cancelled as error:
                sys.stdout.write(f"{{i}} {{error.reason}}\\n")  # in one piece: print makes two
                raise
        gmprt._life.run._EXIT_DEADLINE = 1000.0  # it is not waited for
        kept = [gmprt.go(child, i) for i in range(3)]
        while any(g.state != "waiting" for g in kept):
            gmprt.sleep(0.001)
        sys.exit({status})
    """
    done = run_child(code, status=status)
    assert sorted(done.stdout.splitlines()) == [f"{i} the process is exiting" for i in range(3)]
    assert done.stderr == ""


def test_after_an_uncaught_exception() -> None:
    code = """
        import gmprt
        g = gmprt.go(gmprt.Chan().recv)
        gmprt.sleep(0.01)
        raise LookupError("the end")
    """
    done = run_child(code, status=1)
    assert done.stderr.count("LookupError: the end") == 1
    assert "gmprt: abandoned" not in done.stderr


def test_with_goroutines_that_have_not_started() -> None:
    code = """
        import gmprt
        for i in range(1000):
            gmprt.go(gmprt.Chan().recv)
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("", "")


def test_with_a_crowd_in_every_wait() -> None:
    code = """
        import gmprt
        m = gmprt.Mutex(); m.lock()
        w = gmprt.WaitGroup(); w.add()
        waits = [gmprt.Chan().recv, lambda: gmprt.Chan().send(1), lambda: gmprt.sleep(1000),
                 gmprt.select, lambda: gmprt.select(gmprt.Chan(), gmprt.Chan(), timeout=1000),
                 m.lock, gmprt.Semaphore(0).acquire, w.wait, lambda: gmprt.after(1000).recv(),
                 lambda: gmprt.go(gmprt.Chan().recv).join()]
        kept = [gmprt.go(waits[i % len(waits)]) for i in range(500)]
        gmprt.sleep(0.05)
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_finally_that_parks_is_waited_for() -> None:
    code = """
        import gmprt
        def child():
            try:
                gmprt.Chan().recv()
            finally:
                gmprt.sleep(0.3)
                print("cleaned up")
        g = gmprt.go(child)
        while g.state != "waiting":
            gmprt.sleep(0.001)
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("cleaned up\n", "")


def test_detached_goroutines_of_run() -> None:
    code = """
        import gmprt
        def child():
            try:
                gmprt.Chan().recv()
            finally:
                print("cleaned up")
        def main():
            gmprt.go(child).detach()
            gmprt.gosched()
        gmprt.run(main)
        print("run has returned")
    """
    assert run_child(code).stdout == "run has returned\ncleaned up\n"


# ---- not to be stopped -------------------------------------------------------------------------

STUBBORN = {
    "a loop": "while True: pass",
    "a loop with locks": "while True: lock.acquire(); lock.release()",
    "a blocking call": "ctypes.CDLL(None).sleep(1000)",
    "a finally that parks": """
    try:
        gmprt.Chan().recv()
    finally:
        gmprt.Chan().recv()""",
    "one that swallows Cancelled": """
    while True:
        try:
            gmprt.sleep(1000)
        except gmprt.Cancelled:
            pass""",
    "a loop of gosched": "while True: gmprt.gosched()",
}


@pytest.fixture(scope="module")
def stubborn() -> Iterator[dict[str, Child]]:
    """All of them, side by side: each takes its three seconds."""
    children = {}
    for kind, body in STUBBORN.items():
        children[kind] = Child(f"""
import ctypes, gmprt, sys, threading
lock = threading.Lock()
def stubborn():
    {body}
def polite():
    try:
        gmprt.sleep(1000)
    finally:
        print("polite")
polite_one = gmprt.go(polite)
while polite_one.state != "waiting":
    gmprt.sleep(0.001)
g = gmprt.go(stubborn)
while g.state not in ("waiting", "syscall") and g.cpu_time < 0.01:
    gmprt.sleep(0.001)
print("exits")
sys.exit(7)
""")
    yield children
    for child in children.values():
        child.__exit__(None, None, None)


@pytest.mark.parametrize("kind", list(STUBBORN))
def test_those_who_do_not_end_are_abandoned(kind: str, stubborn: dict[str, Child]) -> None:
    """After three seconds, with a message that says who and where; the status is kept."""
    done = stubborn[kind].finish()
    assert done.returncode == 7, done.stderr
    assert "exits\n" in done.stdout
    assert "gmprt: abandoned at exit" in done.stderr
    assert "__main__.stubborn(...)" in done.stderr
    assert "created by <module>" in done.stderr
    if not kind.startswith("a loop"):  # these let nobody else run until they are preempted
        assert "polite\n" in done.stdout


def test_ctrl_c_beside_a_loop() -> None:
    """Main is parked and somebody hogs: two Ctrl-C, main's and the impatient one, end it."""
    code = """
        import gmprt
        def hog():
            print("ready")
            while True:
                pass
        def polite():
            try:
                gmprt.Chan().recv()
            except gmprt.Cancelled:
                print("cancelled")  # so main has left the function, and waits for the others
        def main():
            gmprt.go(polite)
            gmprt.go(hog)
            gmprt.Chan().recv(timeout=1000)
        gmprt.run(main)
    """
    with Child(code) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("cancelled")
        child.interrupt()
        done = child.finish()
    assert done.returncode == 130
    assert "hog(...)" in done.stderr


# ---- other ways to end -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["main", "goroutine", "run"])
def test_os_exit(where: str) -> None:
    call = {
        "main": "os._exit(5)",
        "goroutine": "gmprt.go(os._exit, 5).join()",
        "run": "gmprt.run(os._exit, 5)",
    }[where]
    code = f"""
        import gmprt, os
        for i in range(100):
            gmprt.go(gmprt.Chan().recv)
        gmprt.sleep(0.01)
        {call}
    """
    assert run_child(code, status=5).stderr == ""


@pytest.mark.parametrize("used", [False, True])
def test_with_a_subinterpreter(used: bool) -> None:
    """CPython 3.11 takes it down at the very end; if code there drops the GIL, the main thread ends
    when it takes it again. No thread of ours may then keep the process alive."""
    code = f"""
        if {used}:
            import gmprt
            gmprt.go(gmprt.Chan().recv)
            gmprt.go(gmprt.sleep, 0.001).join()
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        drops = "lambda self, sleep=time.sleep: sleep(0)"
        sub = interpreters.create()
        interpreters.run_string(
            sub, f"import time; late = type('Late', (), {{{{'__del__': {{drops}}}}}})()"
        )
    """
    run_child(code)


def test_a_signal_that_kills() -> None:
    code = "import gmprt\ndef main():\n  print('ready')\n  gmprt.sleep(9)\ngmprt.run(main)"
    with Child(code) as child:
        child.expect("ready")
        child.process.terminate()
        assert child.finish().returncode == -15


def test_go_during_exit() -> None:
    """Functions of atexit that run before ours may use goroutines; those after are told no."""
    code = """
        import atexit
        def last():
            for use in (lambda: gmprt.go(int), lambda: gmprt.run(int)):
                try:
                    use()
                except gmprt.RuntimeNotRunning as error:
                    print("refused:", error)
            print(gmprt.Chan(1).send_nowait(1), gmprt.current(), gmprt.num_goroutine())
        atexit.register(last)
        import gmprt
        atexit.register(lambda: print("first:", gmprt.go(int, "7").result(20)))
        gmprt.go(int).join()
    """
    done = run_child(code)
    lines = done.stdout.splitlines()
    assert lines[0] == "first: 7"
    assert [line.startswith("refused: ") for line in lines[1:3]] == [True, True]
    assert lines[3] == "None None 0"
    assert done.stderr == ""


def test_destructors_during_exit() -> None:
    """Objects in channels, in frames and in results go with the interpreter, whatever they do."""
    code = """
        import gmprt
        class Noisy:
            def __init__(self, name): self.name = name
            def __del__(self):
                try:
                    ch.send_nowait(1)
                    gmprt.go(int)
                except Exception:
                    pass
                print(self.name)
        ch = gmprt.Chan(10)
        ch.send(Noisy("in a channel"))
        def child(noisy):
            gmprt.Chan().recv()
        gmprt.go(child, Noisy("in a frame"))
        g = gmprt.go(Noisy, "a result")
        while not g.done():
            gmprt.sleep(0.001)
    """
    done = run_child(code)
    assert sorted(done.stdout.splitlines()) == ["a result", "in a channel", "in a frame"]


def test_threads_are_waited_for_first() -> None:
    """A thread that is no daemon goes on using goroutines when the main module has ended."""
    code = """
        import gmprt, threading
        def thread():
            ch = gmprt.Chan()
            threading.main_thread().join()
            gmprt.go(lambda: (gmprt.sleep(0.05), ch.send("from a goroutine")))
            print(ch.recv())
        threading.Thread(target=thread).start()
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("from a goroutine\n", "")


def test_daemon_threads_in_our_waits() -> None:
    code = """
        import gmprt, threading
        ch = gmprt.Chan()
        def forever():
            while True:
                try:
                    ch.recv(timeout=0.0001)
                except TimeoutError:
                    pass
        for wait in (ch.recv, gmprt.select, lambda: gmprt.sleep(1000), forever, forever,
                     lambda: gmprt.run(ch.recv), lambda: gmprt.run(forever)):
            threading.Thread(target=wait, daemon=True).start()
        gmprt.sleep(0.05)
        print("exits")
    """
    done = run_child(code)
    assert done.stdout == "exits\n"


def test_daemon_threads_that_start_goroutines() -> None:
    """At the end: they end without a word, as daemon threads do; others are told."""
    code = """
        import atexit, threading
        ended, ready = threading.Event(), threading.Semaphore(0)
        def late():  # registered first, so it is called when the runtime has been stopped
            ended.set()
            for thread in threads:
                thread.join()
            try:
                gmprt.go(int)
            except gmprt.RuntimeNotRunning as error:
                print(error)
        atexit.register(late)
        import gmprt
        def starts(fn):
            gmprt.go(int).join()
            ready.release()
            ended.wait()
            fn()
            print("not reached")
        calls = [lambda: gmprt.go(int), lambda: gmprt.run(int), lambda: gmprt.gomaxprocs(1)]
        calls.append(lambda: gmprt.after_func(0, int))
        threads = [threading.Thread(target=starts, args=(c,), daemon=True) for c in calls]
        for thread in threads:
            thread.start()
        for _ in threads:
            ready.acquire()
    """
    done = run_child(code)
    assert done.stderr == ""
    assert done.stdout == "the runtime has been stopped: the interpreter is exiting\n"


def test_imported_and_never_used() -> None:
    done = run_child("import gmprt; print(gmprt.stats().threads, gmprt.num_goroutine())")
    assert (done.stdout, done.stderr) == ("0 0\n", "")


def test_what_was_printed_is_flushed() -> None:
    code = """
        import gmprt, sys
        sys.stdout.reconfigure(line_buffering=False, write_through=False)
        def child():
            try:
                gmprt.Chan().recv()
            finally:
                print("finally")
        g = gmprt.go(child)
        while g.state != "waiting":
            gmprt.sleep(0.001)
        print("main")
    """
    assert run_child(code, env={"PYTHONUNBUFFERED": ""}).stdout == "main\nfinally\n"


@pytest.mark.parametrize("procs", ["1", "4"])
def test_exit_in_the_middle_of_everything(procs: str) -> None:
    code = """
        import gmprt, hashlib, threading, time, zlib
        ch = gmprt.Chan(3)
        data = bytes(1 << 20)
        def talk():
            while True:
                ch.send(ch.recv())
        def select():
            while True:
                gmprt.select(ch, gmprt.Send(ch, 1), timeout=0.001)
        def compress():
            while True:
                zlib.compress(data), hashlib.sha256(data)
                gmprt.gosched()
        def churn():
            while True:
                [g.join() for g in [gmprt.go(time.sleep, 0.001) for _ in range(10)]]
        for fn in (talk, talk, select, select, compress, churn, churn):
            gmprt.go(fn)
        ch.send(1)
        ch.send(2)
        gmprt.sleep(0.2)
        print("exits")
    """
    done = run_child(code, env={"GOMAXPROCS": procs})
    assert done.stdout == "exits\n"
    assert "Fatal" not in done.stderr


def test_again_and_again() -> None:
    """Starting and ending is a race against the runtime's threads; many short lives."""
    code = (
        "import gmprt\ndef main():\n for i in range(3): gmprt.go(gmprt.sleep, i)\ngmprt.run(main)"
    )
    for _ in range(10):
        done = run_child(code)
        assert (done.stdout, done.stderr) == ("", "")


# ---- in the middle of calls that park ------------------------------------------------------------

CALLS = {
    "sleep": "time.sleep(1000)",
    "lock": "held.acquire()",
    "rlock": "with hers: pass",
    "event": "threading.Event().wait()",
    "condition": "c = threading.Condition(); c.acquire(); c.wait(1000)",
    "queue": "queue.Queue().get()",
    "simple queue": "queue.SimpleQueue().get()",
    "barrier": "threading.Barrier(2).wait()",
    "recv": "a.recv(1)",
    "recv with a timeout": "a.settimeout(1000); a.recv(1)",
    "accept": "server.accept()",
    "select": "select.select([a], [], [])",
    "poll": "p = select.poll(); p.register(a, select.POLLIN); p.poll()",
    "epoll": "p = select.epoll(); p.register(a, select.EPOLLIN); p.poll()",
    "selectors": "s = selectors.DefaultSelector(); s.register(a, selectors.EVENT_READ); s.select()",
    "asyncio": "asyncio.run(asyncio.sleep(1000))",
    "pipe": "os.read(read, 1)",
    "file object": "open(read, 'rb', closefd=False).read(1)",
    "child": "child.wait()",
    "communicate": "child.communicate()",
    "waitpid": "os.waitpid(child.pid, 0)",
}


@pytest.fixture(scope="module")
def in_calls() -> Iterator[dict[str, Child]]:
    children = {}
    for kind, call in CALLS.items():
        children[kind] = Child(f"""
import asyncio, gmprt, os, queue, select, selectors, socket, subprocess, sys, threading, time
held = threading.Lock(); held.acquire()
hers = threading.RLock()
read, write = os.pipe()
a, b = socket.socketpair()
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
quiet = {{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}}
child = subprocess.Popen(["sleep", "30"], **quiet)
def calls():
    try:
        {call}
    finally:
        sys.stdout.write("finally\\n")
ready = gmprt.Chan()
def holds():
    with hers:
        ready.send(1)
        gmprt.sleep(1000)
holder = gmprt.go(holds)
ready.recv()
goroutines = [gmprt.go(calls) for _ in range(3)]
while any(g.state != "waiting" for g in goroutines):
    gmprt.sleep(0.001)
sys.exit(7)
""")
    yield children
    for child in children.values():
        child.__exit__(None, None, None)


@pytest.mark.parametrize("kind", list(CALLS))
def test_in_a_call_that_parks(kind: str, in_calls: dict[str, Child]) -> None:
    """It ends with a cancel, its finally blocks run, and the status is kept."""
    done = in_calls[kind].finish()
    assert done.returncode == 7, done.stderr
    assert done.stdout == "finally\n" * 3, (done.stdout, done.stderr)
    assert "abandoned" not in done.stderr, done.stderr


ENDS = {
    "the end": ("", 0),
    "sys.exit": ("sys.exit(7)", 7),
    "an exception": ("raise LookupError('the end')", 1),
    "sys.exit in run": ("gmprt.run(sys.exit, 7)", 7),
    "an exception in run": ("gmprt.run(lambda: 1 / 0)", 1),
    "os._exit in a goroutine": ("gmprt.go(os._exit, 7).join()", 7),
    "a signal": ("signal.raise_signal(signal.SIGTERM)", -15),
}


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("procs", ["1", "4"])
def test_in_the_middle_of_all(end: str, procs: str) -> None:
    """Everything at once: hogs, calls of C code, locks held, threads, functions of atexit."""
    how, status = ENDS[end]
    code = f"""
        import atexit, gmprt, os, signal, socket, sys, threading, time, zlib
        ch, lock, data = gmprt.Chan(), threading.RLock(), bytes(1 << 20)
        a, b = socket.socketpair()
        def hog():
            while True:
                if stop: return
        def holds():
            with lock:
                gmprt.Chan().recv()
        def waits():
            with lock:
                pass
        def computes():
            while not stop:
                zlib.compress(data)
        def swallows():
            try:
                a.recv(1)
            except gmprt.Cancelled:
                time.sleep(0.01)
                gmprt.go(int).join()
        def churns():
            while True:
                gmprt.go(time.sleep, 0.0001).join()
        stop = False
        @atexit.register
        def first():  # before gmprt's own
            global stop
            gmprt.go(ch.send, "from a goroutine").detach()
            print(ch.recv())
            stop = True
        for fn in (hog, holds, waits, computes, swallows, churns):
            gmprt.go(fn).detach()
        threading.Thread(target=a.recv, args=(1,), daemon=True).start()
        threading.Thread(target=waits, daemon=True).start()
        threading.Thread(target=lambda: gmprt.go(gmprt.sleep, 0.02).join()).start()
        gmprt.sleep(0.03)
        {how}
    """
    done = run_child(code, env={"GOMAXPROCS": procs}, status=status)
    quick = status == -15 or "os._exit" in how
    assert done.stdout == ("" if quick else "from a goroutine\n")
    assert "Fatal" not in done.stderr
    assert "abandoned" not in done.stderr, done.stderr


def test_a_daemon_thread_in_run_ends_without_a_word() -> None:
    """Its main goroutine is cancelled at exit; nobody waits for what run() raises there."""
    done = run_child("""
        import atexit, threading

        atexit.register(lambda: thread.join(20))  # called after gmprt's own
        import gmprt

        def main():
            thread.start()
            while gmprt.num_goroutine() < 2:
                gmprt.sleep(0.001)

        thread = threading.Thread(target=gmprt.run, args=(gmprt.Chan().recv,), daemon=True)
        gmprt.run(main)
        """)
    assert done.stderr == ""


LATE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

typedef int poller(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);

/* A thread that waits in run() wakes late, but not the main thread. */
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *time, const sigset_t *mask) {
  poller *real = (poller *)dlsym(RTLD_NEXT, "ppoll");
  int ready = real(fds, n, time, mask);
  if (ready > 0 && gettid() != getpid()) usleep(1000000);
  return ready;
}
"""


def preloaded(folder: Path, source: str) -> dict[str, str]:
    """An environment with that library behind those that are preloaded anyway (a sanitizer's)."""
    library = folder / "late.so"
    command = [CC, "-w", "-shared", "-fPIC", "-xc", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=source, text=True, check=True)
    return {"LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()}


@pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")
def test_a_daemon_thread_that_is_late(tmp_path: Path) -> None:
    """Its thread state is gone when it comes back from run(). (asan.sh sees who touches it.)"""
    code = """
        import ctypes, gmprt, sys, threading

        class Last:
            def __del__(self, usleep=ctypes.CDLL(None).usleep):
                usleep(1_500_000)

        def main():
            while thread.ident is None or gmprt.num_goroutine() < 2:
                gmprt.sleep(0.001)

        thread = threading.Thread(target=gmprt.run, args=(gmprt.Chan().recv,), daemon=True)
        thread.start()
        gmprt.run(main)
        sys.last = Last()
        print("exits", flush=True)
        """
    done = run_child(code, env=preloaded(tmp_path, LATE))
    assert (done.stdout, done.stderr) == ("exits\n", "")
