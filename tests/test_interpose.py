"""csrc/py/interpose/objects.c: which objects are interposed, errno across threads, and calls of C
code."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import termios
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from scenes import Scene, Scenes, Stage, brief, moved
from support import PATIENCE, CGate, eventually, parked, run_child

import gmprt
from gmprt import go

SOURCE = Path(__file__).with_name("hook_probe.c")
CC = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-O2", "-Wall", "-shared", "-fPIC"]


def compiled(folder: Path, name: str) -> Path:
    library = folder / name
    subprocess.run([*CC, str(SOURCE), "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the name of a library in which goroutines may park."""
    return compiled(tmp_path_factory.mktemp("trusted"), "libpq-probe.so")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("unknown"), "libunknown.so")


@pytest.fixture(scope="module")
def probe(trusted: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(trusted))
    lib.probe_ppoll.argtypes = [ctypes.c_int, ctypes.c_double]
    lib.probe_ppoll_masked.argtypes = [ctypes.c_int, ctypes.c_double]
    lib.probe_pselect.argtypes = [ctypes.c_int, ctypes.c_double]
    lib.probe_select_left.argtypes = [ctypes.c_int, ctypes.c_double]
    return lib


# ---- calls of C code -----------------------------------------------------------------------------

scenes = Scenes()
lib: Any = None


@pytest.fixture(autouse=True)
def _lib(probe: ctypes.CDLL) -> None:
    global lib
    lib = probe


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    a, b = socket.socketpair()
    return stack.enter_context(a), stack.enter_context(b)


def tcp_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        a = stack.enter_context(socket.create_connection(server.getsockname()))
        return a, stack.enter_context(server.accept()[0])


def unread(s: socket.socket) -> int:
    """Bytes that have come and that nobody has taken."""
    number = array.array("i", [0])
    fcntl.ioctl(s, termios.FIONREAD, number)
    return number[0]


def reset(s: socket.socket) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


@scenes(select.POLLIN << 8 | 1)
def poll(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    return lambda: lib.probe_poll(a.fileno(), select.POLLIN, -1), lambda: b.send(b"x")


@scenes(0, wakes=False)
def poll_times_out(stack: ExitStack) -> Stage:
    a, _ = pair(stack)
    return lambda: lib.probe_poll(a.fileno(), select.POLLIN, int(brief() * 1000)), None


@scenes(1)
def ppoll(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    return lambda: lib.probe_ppoll(a.fileno(), -1), lambda: b.send(b"x")


@scenes(0, wakes=False)
def ppoll_times_out(stack: ExitStack) -> Stage:
    a, _ = pair(stack)
    return lambda: lib.probe_ppoll(a.fileno(), brief()), None


@scenes(-errno.EINVAL, parks=False)
def ppoll_wrong(stack: ExitStack) -> Stage:
    a, _ = pair(stack)
    return lambda: lib.probe_ppoll_wrong(a.fileno()), None


@scenes(0, parks=False)
def ppoll_masked(stack: ExitStack) -> Stage:
    a, _ = pair(stack)
    return lambda: lib.probe_ppoll_masked(a.fileno(), 0.05), None


@scenes(1 << 8 | 1)
def pselect(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    return lambda: lib.probe_pselect(a.fileno(), -1), lambda: b.send(b"x")


@scenes(0, wakes=False)
def pselect_times_out(stack: ExitStack) -> Stage:
    a, _ = pair(stack)
    return lambda: lib.probe_pselect(a.fileno(), brief()), None


@scenes(True)
def select_counts_down(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    return lambda: 0 < lib.probe_select_left(a.fileno(), 60) < 60_000, lambda: b.send(b"x")


@scenes(1, parks=False)
def select_leaves_the_sets_when_it_fails(stack: ExitStack) -> Stage:
    def call() -> Any:
        a, b = socket.socketpair()
        number = b.fileno()
        b.close()
        with a:
            return lib.probe_select_sets(a.fileno(), number)

    return call, None


@scenes(5)
def recv(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    buffer = ctypes.create_string_buffer(100)
    return lambda: lib.probe_recv(a.fileno(), buffer, 100), lambda: b.send(b"hello")


@scenes(-errno.ECONNRESET)
def recv_fails(stack: ExitStack) -> Stage:
    a, b = tcp_pair(stack)
    buffer = ctypes.create_string_buffer(100)
    return lambda: lib.probe_recv(a.fileno(), buffer, 100), lambda: reset(b)


@scenes(7)
def readv(stack: ExitStack) -> Stage:
    a, b = pair(stack)
    x, y = ctypes.create_string_buffer(3), ctypes.create_string_buffer(9)
    return lambda: lib.probe_readv(a.fileno(), x, 3, y, 9), lambda: b.send(b"7 bytes")


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


def test_errno_of_a_second_call_on_another_thread() -> None:
    """One C function: its first call comes back elsewhere, its second one fails there."""

    def build(stack: ExitStack) -> Stage:
        a, b = tcp_pair(stack)
        buffer = ctypes.create_string_buffer(100)

        def wake() -> None:
            b.send(b"first")
            eventually(lambda: unread(a) == 0, "the first call's return")
            reset(b)

        return lambda: lib.probe_recv_twice(a.fileno(), buffer, 100), wake

    assert moved(build) == -errno.ECONNRESET


def receive(s: socket.socket) -> int:
    n: int = lib.probe_recv(s.fileno(), ctypes.create_string_buffer(9), 9)
    return n


def beside(
    call: Callable[[socket.socket], int],
    ends: int,
    stays: Callable[[Any, Any], int],
    wake: Callable[[socket.socket, Any], None],
) -> int:
    """What `stays` returns on the thread that `call` has left, which ends so on another thread."""

    def move() -> tuple[bool, int]:
        flags = (ctypes.c_int * 2)()
        entered, stop = (ctypes.byref(flags, i * ctypes.sizeof(ctypes.c_int)) for i in range(2))

        def other() -> tuple[int, int]:
            return threading.get_native_id(), stays(entered, stop)

        def body() -> tuple[int, int, gmprt.Goroutine[tuple[int, int]]]:
            left = threading.get_native_id()
            g = go(other)  # runs next, on this thread, when the call parks
            with suppress(FileNotFoundError):
                Path("/there is no such file").stat()
            assert call(a) == ends
            return left, threading.get_native_id(), g

        with ExitStack() as stack:
            a, b = tcp_pair(stack)
            g = go(body)
            eventually(lambda: flags[0])
            parked(g)
            wake(b, flags)
            left, back, beside = g.result(PATIENCE)
            flags[1] = 1
            thread, number = beside.result(PATIENCE)
        return left == thread != back, number

    for _ in range(100):
        happened, number = move()
        if happened:
            return number
    raise AssertionError("never on the same thread")


def test_a_success_elsewhere_leaves_errno_alone() -> None:
    """Whose wait ends on another thread must not touch what its first thread has come to since."""

    def wake(s: socket.socket, flags: Any) -> None:
        s.send(b"hello")

    assert beside(receive, 5, lib.probe_errno_stays, wake) == errno.EXDEV


def stays_running(entered: Any, stop: Any) -> int:
    number: int = lib.probe_errno_stays_running(entered, stop, 600)
    return number


def test_a_failure_elsewhere_waits_for_a_call_that_runs() -> None:
    """A thread that the system lets wait for a CPU between a failing call and the look at errno."""

    def wake(s: socket.socket, flags: Any) -> None:
        flags[1] = 1
        reset(s)

    for _ in range(5):
        assert beside(receive, -errno.ECONNRESET, stays_running, wake) == errno.EXDEV


def test_a_failure_at_once_stays_on_its_thread() -> None:
    """While it waits for the thread where it was before."""

    def call(s: socket.socket) -> int:
        s.setblocking(False)
        number: int = lib.probe_poll_then_recv(s.fileno())
        return number

    def wake(s: socket.socket, flags: Any) -> None:
        flags[1] = 1
        s.send(b"hello")

    for _ in range(5):
        assert beside(call, -errno.EAGAIN, stays_running, wake) == errno.EXDEV


def test_a_handler_below_c_code_stays_on_its_thread() -> None:
    """time.sleep() calls it after EINTR, and will look at the errno of that thread."""
    gmprt.gomaxprocs(1)
    gate = CGate()
    threads: list[Path] = []

    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        if threads:
            raise Enough
        threads.append(Path("/proc/thread-self").readlink())
        blocker = go(gate.wait)  # runs next, on this thread if the sleep would let it go
        gmprt.sleep(0.01)
        threads.append(Path("/proc/thread-self").readlink())
        gate.open()
        blocker.result(PATIENCE)

    def main() -> None:
        me = gmprt.current()
        assert me is not None

        def send() -> None:
            for calls in range(2):
                eventually(lambda n=2 * calls: len(threads) == n)  # type: ignore[misc]
                parked(me)
                os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            sender = go(send)
            with pytest.raises(Enough):
                time.sleep(1000)
            sender.result(PATIENCE)
        finally:
            signal.signal(signal.SIGUSR1, before)

    gmprt.run(main)
    assert len(threads) == 2
    assert threads[0] == threads[1]


def test_without_a_shim_a_cancel_waits() -> None:
    """C code would take a made-up failure for a result."""
    with ExitStack() as stack:
        a, b = pair(stack)
        got: list[int] = []

        def body() -> None:
            got.append(lib.probe_recv(a.fileno(), ctypes.create_string_buffer(9), 9))
            gmprt.sleep(3600)

        g = go(body)
        parked(g, "IO wait")
        g.cancel()
        gmprt.sleep(0.01)
        assert g.wait_reason == "IO wait"
        b.send(b"hello")
        with pytest.raises(gmprt.GoroutineCancelled):
            g.result(PATIENCE)
        assert got == [5]


# ---- which objects -------------------------------------------------------------------------------


def test_a_library_that_nobody_knows_blocks_its_thread(unknown: Path, procs: int) -> None:
    other = ctypes.CDLL(str(unknown))
    with ExitStack() as stack:
        a, b = pair(stack)
        g = go(other.probe_recv, a.fileno(), ctypes.create_string_buffer(9), 9)
        eventually(lambda: g.state == "syscall")
        assert go(int).join(PATIENCE)
        b.send(b"hello")
        assert g.result(PATIENCE) == 5


RECV = """
    import ctypes, os, socket, sys
    {imports}
    library = sys.argv[1]
    {loads}
    a, b = socket.socketpair()
    c, d = socket.socketpair()

    def main():
        g = gmprt.go(lib.probe_recv, a.fileno(), ctypes.create_string_buffer(9), 9)
        s = gmprt.go(c.recv, 9)
        while {until}:
            gmprt.sleep(0.001)
        b.send(b"hello")
        d.send(b"hello")
        assert s.result() == b"hello"
        assert g.result() == 5

    gmprt.run(main)
"""


PARKED = "g.state != 'waiting' or s.state != 'waiting'"
HANDED_OFF = "gmprt.stats().handoffs < 2 or g.state != 'syscall' or s.state != 'syscall'"
LOAD = "lib = ctypes.CDLL(library)"


@pytest.mark.parametrize("first", [True, False])
def test_loaded_before_and_after(trusted: Path, first: bool) -> None:
    imports, loads = ("import gmprt", LOAD) if first else ("", f"{LOAD}; import gmprt")
    run_child(RECV.format(imports=imports, loads=loads, until=PARKED), args=[str(trusted)])


def test_loaded_by_a_goroutine(trusted: Path) -> None:
    loads = "lib = gmprt.go(ctypes.CDLL, library).result()"
    run_child(RECV.format(imports="import gmprt", loads=loads, until=PARKED), args=[str(trusted)])


def test_switched_off(trusted: Path) -> None:
    """GMPRT_INTERPOSE=0: every blocking call is handed off, and all comes out the same."""
    code = RECV.format(imports="import gmprt", loads=LOAD, until=HANDED_OFF)
    run_child(code, args=[str(trusted)], env={"GMPRT_INTERPOSE": "0"})


def test_identity_stays_when_it_is_switched_off() -> None:
    code = """
        import threading, gmprt
        lock, held = threading.RLock(), gmprt.Chan()

        def hold():
            with lock:
                held.send(threading.get_ident())
                held.send(None)

        g = gmprt.go(hold)
        assert held.recv() != threading.get_ident()
        assert not gmprt.go(lock.acquire, timeout=0.05).result()
        held.recv()
        assert gmprt.go(lock.acquire).result()
        g.join()
    """
    run_child(code, env={"GMPRT_INTERPOSE": "0"})


def test_nothing_is_put_back_by_who_looks() -> None:
    """At the end of the process the stand-ins go, for good."""
    code = """
        import gmprt
        from gmprt import _core
        gmprt.go(int).join()
        assert len(_core.interposed()) > 0
        _core.stop(1.0)
        print(_core.interposed(), _core.interposed())
    """
    assert run_child(code).stdout == "{} {}\n"


def test_what_is_interposed_where(trusted: Path) -> None:
    code = """
        import ctypes, gmprt, socket, sys
        from gmprt import _core
        ctypes.CDLL(sys.argv[1])
        gmprt.go(int).join()
        for path, names in _core.interposed().items():
            print(path, *names)
    """
    for switch, parks in (("1", True), ("0", False)):
        out = run_child(code, args=[str(trusted)], env={"GMPRT_INTERPOSE": switch}).stdout
        rows = {path: names for path, *names in map(str.split, out.splitlines())}
        own = [names for path, names in rows.items() if "pthread_self" in names]
        assert len(own) == 1, "the interpreter, and nothing else"
        assert ("clock_nanosleep" in own[0]) == parks
        assert "posix_spawn" in own[0]
        module = next((names for path, names in rows.items() if "/_socket." in path), [])
        assert ("accept4" in module) == parks or "accept4" in own[0]  # it may be linked in
        assert ("recv" in rows.get(str(trusted), [])) == parks


NO_TABLE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>

typedef int visitor(struct dl_phdr_info *, size_t, void *);
typedef struct { visitor *visit; void *arg; } call;

/* No object has a dynamic section. */
static int without(struct dl_phdr_info *info, size_t size, void *arg) {
  call *c = arg;
  struct dl_phdr_info seen = *info;
  ElfW(Phdr) headers[64];
  seen.dlpi_phnum = 0;
  for (int i = 0; i < info->dlpi_phnum && seen.dlpi_phnum < 64; i++)
    if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) headers[seen.dlpi_phnum++] = info->dlpi_phdr[i];
  seen.dlpi_phdr = headers;
  return c->visit(&seen, size, c->arg);
}

int dl_iterate_phdr(visitor *visit, void *arg) {
  int (*real)(visitor *, void *) = (int (*)(visitor *, void *))dlsym(RTLD_NEXT, "dl_iterate_phdr");
  call c = {visit, arg};
  return real(without, &c);
}
"""

NO_OBJECTS = "int dl_iterate_phdr(void *visit, void *arg) { return 0; }"


def preloaded(folder: Path, source: str) -> dict[str, str]:
    """The environment of a process in which the C library's functions are those of `source`."""
    library = folder / "preloaded.so"
    command = [*CC, "-w", "-xc", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=source, text=True, check=True)
    return {"LD_PRELOAD": str(library)}


def test_where_it_cannot_work(tmp_path: Path) -> None:
    """It is said once; blocking calls are handed off; channels, sleep and run() are as ever."""
    code = """
        import os, time, warnings
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            import gmprt, gmprt.native
            from gmprt import _core
            def main():
                r, w = os.pipe()
                blocked = [gmprt.go(os.read, r, 1) for _ in range(20)]
                ch = gmprt.Chan()
                gmprt.go(ch.send, 7)
                assert ch.recv() == 7
                while {g.state for g in blocked} != {"syscall"}:  # not one after the other
                    gmprt.sleep(0.001)
                gmprt.go(time.sleep, 0.01).join()
                os.close(w)
                for g in blocked:
                    assert g.result() == b""
                os.close(r)
            gmprt.run(main)
            gmprt.go(main).result()
        print(*{w.category.__name__ for w in seen}, len(seen))
        print(seen[0].message)
        print(_core.interposed(), _core.features()["blocking calls"])
        print(_core.features()["interposition"])
    """
    out = run_child(code, env=preloaded(tmp_path, NO_TABLE)).stdout.splitlines()
    assert out[0] == "RuntimeWarning 1"
    assert "blocking calls" in out[1]
    assert out[2] == "{} are handed off"
    assert out[3].startswith("not possible")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has one global current thread state")
def test_an_interpreter_whose_current_state_is_not_found(tmp_path: Path) -> None:
    done = run_child("import gmprt", env=preloaded(tmp_path, NO_OBJECTS), status=1)
    assert "ImportError: gmprt cannot find" in done.stderr


SECOND_LOAD = """
    import ctypes, _ctypes, os, shutil, socket, sys
    import gmprt
    a, b = socket.socketpair()

    def received(path, state):
        '''By a library loaded now, while the goroutine is in that state.'''
        lib = ctypes.CDLL(path)
        def main():
            before = gmprt.stats().handoffs
            g = gmprt.go(lib.probe_recv, a.fileno(), ctypes.create_string_buffer(9), 9)
            # One that parks has tried first, and was outside then, too.
            while g.state != state or state == "syscall" and gmprt.stats().handoffs == before:
                gmprt.sleep(0.001)
            b.send(b"hello")
            assert g.result() == 5
        gmprt.run(main)
        _ctypes.dlclose(lib._handle)

    # One takes the place of the other in memory, again and again.
    trusted, unknown = sys.argv[1:]
    for _ in range(5):
        received(unknown, "syscall")
        received(trusted, "waiting")
    print("done")
"""


def test_an_object_at_the_address_of_another(trusted: Path, unknown: Path) -> None:
    """What was visited is remembered, but not beyond the unloading of anything."""
    done = run_child(SECOND_LOAD, args=[str(trusted), str(unknown)])
    assert done.stdout == "done\n"


def test_no_python_object_is_made_with_the_linkers_lock() -> None:
    """A collection there runs Python code, which may wait for another thread to load things."""
    code = """
        import ctypes, gc, threading
        from gmprt import _core

        def load():
            ctypes.CDLL("libc.so.6")

        def collecting(phase, info):
            if phase == "start":
                thread = threading.Thread(target=load)
                thread.start()
                thread.join()

        load()
        gc.callbacks.append(collecting)
        gc.set_threshold(1)
        kept = []
        for _ in range(5):
            kept.append([[] for _ in range(200)])  # so that no list is at hand
            kept.append(_core.interposed())
        gc.callbacks.clear()
        print("done")
    """
    assert run_child(code).stdout == "done\n"
