"""What code may call where nobody expects it: in callbacks, destructors, handlers, at the very end.

A program of its own, for test_tail.py: `python tails.py PLACE` calls every function of HOOKS in
that place, one after the other, checks what each gives and that nothing is left, and prints "ok".
"""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

atexit.register(lambda: _ended_by("late_atexit", end=True))  # called after gmprt's own

import gmprt  # noqa: E402

Hook = Callable[[], object]
PATIENCE = 20.0

_threading: Any = threading
_local = threading.local()
_variable: contextvars.ContextVar[object] = contextvars.ContextVar("tails")
_at_the_end = False  # of the process: no goroutine can be started, and perhaps no thread


# ---- what is called ------------------------------------------------------------------------------


def _soon(fn: Callable[[], object]) -> None:
    """Somebody else calls fn while we wait."""

    def later() -> None:
        time.sleep(0.002)
        fn()

    if _place in _IN_THREADS:  # the interpreter may start no thread any more
        fn()
    elif gmprt.current() is None:
        threading.Thread(target=later).start()
    else:
        gmprt.go(later)


def sleep() -> None:
    began = time.monotonic()
    time.sleep(0.002)
    assert time.monotonic() - began >= 0.002


def file() -> None:
    with tempfile.TemporaryFile("w+") as f:
        f.write("text")
        f.flush()
        f.seek(0)
        assert f.read() == "text"


def pipe() -> None:
    r, w = os.pipe()
    _soon(lambda: os.write(w, b"12"))
    assert os.read(r, 2) == b"12"
    os.close(r)
    os.close(w)


def sockets() -> None:
    a, b = socket.socketpair()
    _soon(lambda: b.sendall(b"abc"))
    assert a.recv(3) == b"abc"
    a.sendall(b"x")
    assert b.recv(1) == b"x"
    a.close()
    b.close()


def connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.socket() as c:
            c.settimeout(PATIENCE)
            c.connect(server.getsockname())
            s, _ = server.accept()
            s.close()
            assert c.recv(1) == b""


def polling() -> None:
    r, w = os.pipe()
    poll = select.poll()
    poll.register(r, select.POLLIN)
    with select.epoll() as epoll:
        epoll.register(r, select.EPOLLIN)
        assert poll.poll(1) == []
        assert epoll.poll(0.001) == []
        assert select.select([r], [], [], 0.001) == ([], [], [])
        _soon(lambda: os.write(w, b"1"))
        assert poll.poll(PATIENCE * 1000) == [(r, select.POLLIN)]
        assert epoll.poll(PATIENCE) == [(r, select.EPOLLIN)]
        assert select.select([r], [], [], PATIENCE) == ([r], [], [])
    os.close(r)
    os.close(w)


def lock() -> None:
    held = threading.Lock()
    assert held.acquire()
    if _at_the_end and sys.version_info >= (3, 15):  # no lock can be waited for any more
        try:
            held.acquire(timeout=0.001)
        except RuntimeError:  # PythonFinalizationError
            return
    assert not held.acquire(timeout=0.001)
    _soon(held.release)
    assert held.acquire(timeout=PATIENCE)
    q: queue.SimpleQueue[int] = queue.SimpleQueue()
    _soon(lambda: q.put(3))
    assert q.get(timeout=PATIENCE) == 3


def child() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    if _place != "shutdown":  # no imports
        assert subprocess.run(["sh", "-c", "exit 5"], timeout=PATIENCE).returncode == 5
    assert os.waitstatus_to_exitcode(os.system("exit 4")) == 4


def thread() -> None:
    if _place in _IN_THREADS:
        return
    seen: list[int] = []
    t = threading.Thread(target=lambda: seen.append(threading.get_ident()))
    t.start()
    t.join()
    assert seen == [t.ident]


def ids() -> None:
    assert threading.get_native_id() > 0
    ident = threading.get_ident()
    time.sleep(0.001)
    assert threading.get_ident() == ident


def signal_mask() -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    assert signal.SIGUSR2 not in old
    time.sleep(0.001)
    assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    if not _at_the_end:
        inherited = gmprt.go(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        assert signal.SIGUSR2 in inherited.result(PATIENCE)
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    os.kill(os.getpid(), 0)
    assert signal.sigpending() == set()


def names() -> None:
    # bytes: at the very end there are no codecs
    assert socket.getaddrinfo(b"127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        "127.0.0.1",
        "80",
    )


def fork() -> None:
    if _place in _IN_THREADS and sys.version_info >= (3, 12):
        return  # the interpreter refuses
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def go() -> None:
    if _at_the_end:
        try:
            gmprt.go(int)
        except gmprt.RuntimeNotRunning:
            return
        raise AssertionError("a goroutine was started")
    me = gmprt.current()
    many = [gmprt.go(gmprt.current) for _ in range(100)]  # more than are pooled
    for g in many:
        assert g.result(PATIENCE) is g
        assert g.parent_id == (me.id if me is not None else 0)
        assert g.run_id == (me.run_id if me is not None else 0)


def who() -> None:
    g = gmprt.current()
    assert (g is None) == (_place in _IN_THREADS)
    if g is not None:
        assert g.id == _id
        gmprt.sleep(0.001)
        now = gmprt.current()
        assert now is not None
        assert now.id == g.id


def current_thread() -> None:
    t = threading.current_thread()
    assert t.ident == threading.get_ident()
    assert threading.current_thread() is t
    if gmprt.current() is not None and _place not in _IN_MAIN:
        assert t.name == f"goroutine-{_id}", t.name


def channel() -> None:
    if _at_the_end:
        return
    ch: gmprt.Chan[int] = gmprt.Chan()
    g = gmprt.go(ch.send, 5)
    assert ch.recv(timeout=PATIENCE) == 5
    assert g.join(PATIENCE)
    assert gmprt.select(gmprt.after(0.001), timeout=PATIENCE).ok
    m = gmprt.Mutex()
    with m:
        assert not m.lock(timeout=0.001)


def leaves_things() -> None:
    """What the next goroutine must not see."""
    if gmprt.current() is None or _place in _IN_MAIN:
        return
    _local.left = True
    _variable.set("left")
    sys.set_coroutine_origin_tracking_depth(3)
    sys.set_asyncgen_hooks(print, print)
    sys.settrace(_tracing if _place == "trace_function" else lambda *_: None)
    gmprt.lock_os_thread()


HOOKS: list[Hook] = [
    sleep, file, pipe, sockets, connection, polling, lock, child, thread, ids, signal_mask, names,
    fork, go, who, current_thread, channel, leaves_things,
]  # fmt: skip


# ---- calling it ----------------------------------------------------------------------------------

_place = ""
_id = 0  # of the goroutine
_ended: list[tuple[str, str]] = []  # (name, error)


class Once:
    """Calls the hook, the first time that it is called itself."""

    def __init__(self, hook: Hook) -> None:
        self._hook: Hook | None = hook

    def __call__(self, *_: object) -> None:
        hook, self._hook = self._hook, None
        if hook is None:
            return
        error = ""
        try:
            hook()
        except BaseException as e:
            error = repr(e) if _place == "shutdown" else traceback.format_exc()
        _ended.append((hook.__name__, error))


class Dying:
    def __init__(self, hook: Hook) -> None:
        self._call = Once(hook)

    def __del__(self) -> None:
        self._call()


class DyingName(str):
    call: Once

    def __del__(self) -> None:
        self.call()


class DyingError(Exception):
    def __init__(self, hook: Hook) -> None:
        self.held = Dying(hook)


class DyingFunction:
    def __init__(self, hook: Hook) -> None:
        self._held = Dying(hook)

    def __call__(self) -> None:
        _begin()


class Target:
    """Can be referred to weakly."""


def _begin() -> None:
    global _id
    g = gmprt.current()
    assert g is not None
    _id = g.id


def in_callback(hook: Hook) -> None:
    g = gmprt.go(_begin)
    g.add_done_callback(Once(hook))


def in_callback_of_a_held_handle(hook: Hook) -> None:
    g = gmprt.go(_begin)
    g.add_done_callback(Once(hook))
    g.result()


def in_result(hook: Hook) -> None:
    gmprt.go(lambda: (_begin(), Dying(hook)))


def in_exception(hook: Hook) -> None:
    gmprt.excepthook = lambda _: None

    def fail() -> None:
        _begin()
        raise DyingError(hook)

    gmprt.go(fail)


def in_excepthook(hook: Hook) -> None:
    call = Once(hook)
    gmprt.excepthook = lambda _: call()

    def fail() -> None:
        _begin()
        raise ValueError

    gmprt.go(fail)


def in_argument(hook: Hook) -> None:
    gmprt.go(lambda _: _begin(), Dying(hook))


def in_keyword_argument(hook: Hook) -> None:
    gmprt.go(lambda held: _begin(), held=Dying(hook))


def in_function(hook: Hook) -> None:
    gmprt.go(DyingFunction(hook))


def in_local(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        held = Dying(hook)
        assert held

    gmprt.go(fn)


def in_generator(hook: Hook) -> None:
    def steps() -> Any:
        try:
            yield 1
        finally:
            Once(hook)()

    def fn() -> Any:
        _begin()
        it = steps()
        next(it)
        return it

    gmprt.go(fn)


def in_thread_local(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        _local.held = Dying(hook)

    gmprt.go(fn)


def in_context_variable(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        _variable.set(Dying(hook))

    gmprt.go(fn)


def in_inherited_context(hook: Hook) -> None:
    _variable.set(Dying(hook))
    gmprt.go(_begin)
    _variable.set(None)


def in_name(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        g = gmprt.current()
        assert g is not None
        name = DyingName("name")
        name.call = Once(hook)
        g.name = name

    gmprt.go(fn)


def in_thread_object(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        t: Any = threading.current_thread()
        t.held = Dying(hook)

    gmprt.go(fn)


_references: list[Any] = []


def in_weak_callback_of_result(hook: Hook) -> None:
    def fn() -> Target:
        _begin()
        target = Target()
        _references.append(weakref.ref(target, Once(hook)))
        return target

    gmprt.go(fn)


def in_weak_callback_of_handle(hook: Hook) -> None:
    def fn() -> None:
        _begin()
        _references.append(weakref.ref(gmprt.current(), Once(hook)))

    gmprt.go(fn)


def in_weak_callback_of_code(hook: Hook) -> None:
    scope: dict[str, Any] = {}
    exec("def start(): return go(begin)", {"go": gmprt.go, "begin": _begin}, scope)
    start: Any = scope.pop("start")
    _references.append(weakref.ref(start.__code__, Once(hook)))
    start()


_tracing: Any = None


def in_trace_function(hook: Hook) -> None:
    global _tracing
    call = Once(hook)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name == "traced" and event == "return":
            call()
        return trace

    _tracing = trace

    def traced() -> int:
        return 1

    def fn() -> None:
        _begin()
        sys.settrace(trace)
        traced()

    gmprt.go(fn)


def in_profile_function(hook: Hook) -> None:
    call = Once(hook)

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code.co_name == "profiled" and event == "return":
            call()

    def profiled() -> int:
        return 1

    def fn() -> None:
        _begin()
        sys.setprofile(profile)
        profiled()

    gmprt.go(fn)


def _signalled(hook: Hook, wait: Callable[[Callable[[], bool]], None]) -> None:
    _begin()
    n = len(_ended)
    call = Once(hook)
    signal.signal(signal.SIGUSR1, call)
    if hook is lock:  # signals interrupt no acquire() for good: the wait goes on
        gmprt.go(os.kill, os.getpid(), signal.SIGUSR1)
    else:
        os.kill(os.getpid(), signal.SIGUSR1)
    wait(lambda: len(_ended) > n)


def in_signal_handler(hook: Hook) -> None:
    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            gmprt.sleep(0.001)

    _signalled(hook, wait)


def in_signal_handler_below_a_call(hook: Hook) -> None:
    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.001)

    _signalled(hook, wait)


def in_callback_of_main(hook: Hook) -> None:
    """A run() of its own, on another thread."""

    def main() -> None:
        _begin()
        g = gmprt.current()
        assert g is not None
        g.add_done_callback(Once(hook))

    t = threading.Thread(target=gmprt.run, args=(main,))
    t.start()
    t.join()


PLACES: dict[str, Callable[[Hook], None]] = {
    name.removeprefix("in_"): fn for name, fn in list(globals().items()) if name.startswith("in_")
}
_IN_MAIN = ("signal_handler", "signal_handler_below_a_call", "callback_of_main")
_IN_THREADS = ("atexit", "late_atexit", "shutdown")


def _check_clean(before: set[int]) -> None:
    """A goroutine that starts now sees nothing of those before, nor does the process."""
    deadline = time.monotonic() + PATIENCE
    while gmprt.num_goroutine() > 1 and time.monotonic() < deadline:
        gmprt.sleep(0.001)
    assert gmprt.num_goroutine() == 1, gmprt.debug.dump_string()
    assert set(_threading._active) == before

    def look() -> list[object]:
        me = gmprt.current()
        return [
            vars(_local),
            _variable.get(None),
            sys.get_coroutine_origin_tracking_depth(),
            tuple(sys.get_asyncgen_hooks()),
            sys.gettrace(),
            sys.getprofile(),
            signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask,
            me is not None and me.locked_to_thread,
        ]

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for g in [gmprt.go(look) for _ in range(5)]:
        assert g.result() == [{}, None, 0, (None, None), None, None, True, False], g.result()


def _in_goroutines(place: Callable[[Hook], None]) -> None:
    threading.current_thread()
    for hook in HOOKS:
        before = set(_threading._active)
        n = len(_ended)
        place(hook)
        deadline = time.monotonic() + PATIENCE
        while len(_ended) == n:
            assert time.monotonic() < deadline, (hook, gmprt.debug.dump_string())
            gmprt.sleep(0.001)
        _variable.set(None)
        _check_clean(before)
    _report()


def _report() -> None:
    for name, error in _ended:
        assert not error, f"{name}:\n{error}"
    assert [name for name, _ in _ended] == [hook.__name__ for hook in HOOKS]
    os.write(1, b"ok\n")


def _ended_by(place: str, end: bool) -> None:
    """Calls all, if it is this that is tested."""
    global _at_the_end
    if place == _place:
        _at_the_end = end
        for hook in HOOKS:
            Once(hook)()
        _report()


class Last:
    """Ends with the module's globals."""

    def __del__(self) -> None:
        _ended_by("shutdown", end=True)


last = Last()
atexit.register(lambda: _ended_by("atexit", end=False))  # called before gmprt's own


def main() -> None:
    global _place
    _place = sys.argv[1]
    gmprt.run(gmprt.sleep, 0.001)  # the runtime runs
    if _place not in _IN_THREADS:
        gmprt.run(_in_goroutines, PLACES[_place])


if __name__ == "__main__":
    main()
