"""Scenarios for test_faults.py, and the driver that plays each with one call refused.

A program by itself, with fault.c preloaded: `fault_scenarios.py NAME SEED SECONDS [N COUNT]`.

The scenario is played once to count the calls that could be refused, then once for each of them, or
for as many as there is time for, in an order that the seed gives (SECONDS 0: all of them); or once
with calls N to N+COUNT-1 refused (COUNT < 0: all for so many ms).  Each play is in a forked child
of this process, in which the runtime has not been started yet.

What a child must show: the scenario succeeds or ends with a clear exception; everything that it
started comes to an end; played again with nothing refused it succeeds, and leaves as many
goroutines, threads, descriptors and mappings as it does where nothing was ever refused; and the
process ends well.
"""

from __future__ import annotations

import asyncio
import ctypes
import encodings.idna  # noqa: F401 - no import while calls are refused: Python remembers that it failed
import errno
import faulthandler
import gc
import hashlib
import importlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import gmprt
from gmprt import Chan, Recv, Send, context, go
from gmprt import select as select_

PATIENCE = 20.0
LIMIT = 35.0  # for one play
PERSISTENT_MS = 150  # memory that is short for a while, not for one call
REFUSED = (
    "malloc,calloc,realloc,posix_memalign,mmap,madvise,mprotect,epoll_create1,epoll_ctl,eventfd,"
    "pthread_create,pthread_attr_init,pthread_key_create,pthread_setspecific,sigaltstack,fork,fopen"
)

Scenario = Callable[["Crew"], object]

_fault = ctypes.CDLL(None)
_fault.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_long]
_fault.fault_disarm.restype = ctypes.c_long
_fault.fault_where.restype = ctypes.c_char_p


class Lost(Exception):
    """Something is wrong that no refusal excuses."""


# ---- what a scenario starts ----------------------------------------------------------------------


class _Thread(threading.Thread):
    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(daemon=True)
        self._call = (fn, args)
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        fn, args = self._call
        try:
            self.value = fn(*args)
        except BaseException as error:
            self.error = error


class Crew:
    """Goroutines and threads that depend on each other: if one fails, all are sent home."""

    def __init__(self) -> None:
        self._goroutines: list[gmprt.Goroutine[Any]] = []
        self._threads: list[_Thread] = []
        self._closed: list[Callable[[], object]] = []
        self._leaving = False

    def go(self, fn: Callable[..., Any], *args: Any) -> gmprt.Goroutine[Any]:
        g = go(fn, *args)
        self._goroutines.append(g)
        return g

    def thread(self, fn: Callable[..., Any], *args: Any) -> None:
        thread = _Thread(fn, args)
        thread.start()
        self._threads.append(thread)

    def at_failure(self, close: Callable[[], object]) -> None:
        """What sends threads home: goroutines are cancelled."""
        self._closed.append(close)
        if self._leaving:  # who comes so late has not been told
            close()

    def _failure(self) -> BaseException | None:
        """The first, but not that of a peer who has closed the connection, if there is another."""
        errors = [g.exception(PATIENCE) for g in self._goroutines if g.done()]
        errors += [thread.error for thread in self._threads]
        failures = [error for error in errors if error is not None]
        peers = ConnectionError | gmprt.GoroutineCancelled
        return next((e for e in failures if not isinstance(e, peers)), next(iter(failures), None))

    def _alive(self) -> int:
        alive = sum(not g.done() for g in self._goroutines)
        return alive + sum(t.is_alive() for t in self._threads)

    def results(self) -> list[Any]:
        """Of all, goroutines first; the first failure if there is one."""
        deadline = time.monotonic() + PATIENCE
        while self._alive():
            if self._failure():
                break
            if time.monotonic() > deadline:
                raise Lost(f"{self._alive()} do not end\n{gmprt.debug.dump_string()}")
            time.sleep(0.001)
        if isinstance(self._failure(), ConnectionError):
            self.send_home()  # so whoever has closed the connection has ended, too
        if failure := self._failure():
            raise failure
        return [g.result(0) for g in self._goroutines] + [t.value for t in self._threads]

    def send_home(self) -> None:
        self._leaving = True
        for close in list(self._closed):
            try:
                close()
            except (gmprt.ChannelClosed, OSError):
                pass  # it is already
        deadline = time.monotonic() + PATIENCE
        while self._alive():
            for g in self._goroutines:
                if not g.done():
                    g.cancel()
            if time.monotonic() > deadline:
                faulthandler.dump_traceback()
                raise Lost(f"{self._alive()} do not go home\n{gmprt.debug.dump_string()}")
            time.sleep(0.001)
        for g in self._goroutines:
            g.exception(PATIENCE)


# ---- scenarios -----------------------------------------------------------------------------------

SCENARIOS: dict[str, Scenario] = {}


def scenario(fn: Scenario) -> Scenario:
    SCENARIOS[fn.__name__] = fn
    return fn


@scenario
def start(crew: Crew) -> None:
    assert go(len, "abc").result(PATIENCE) == 3


@scenario
def run(crew: Crew) -> None:
    def main(n: int, *, k: int) -> int:
        gmprt.gosched()
        return n + k

    assert gmprt.run(main, 1, k=2) == 3
    assert gmprt.run(lambda: go(abs, -5).result(PATIENCE)) == 5


@scenario
def join(crew: Crew) -> None:
    def fails() -> None:
        raise LookupError("as it should")

    ended: list[int] = []
    g = crew.go(sum, [1, 2])
    g.add_done_callback(lambda g: ended.append(g.id))
    bad = go(fails)
    joiners = [crew.go(g.result, PATIENCE) for _ in range(5)]
    crew.thread(g.join, PATIENCE)
    named = crew.go(lambda: gmprt.current().name)  # type: ignore[union-attr]
    named.name = "somebody"
    crew.results()
    assert [j.result(0) for j in (g, *joiners)] == [3] * 6
    assert isinstance(bad.exception(PATIENCE), LookupError)


@scenario
def thousand(crew: Crew) -> None:
    ch: Chan[int] = Chan()
    crew.at_failure(ch.close)
    for i in range(1000):
        crew.go(lambda i=i: ch.recv() * 0 + i)
    for _ in range(1000):
        ch.send(1)
    assert crew.results() == list(range(1000))


@scenario
def channels(crew: Crew) -> None:
    def body(start: Callable[..., object], capacity: int) -> None:
        there: Chan[int] = Chan(capacity)
        back: Chan[int] = Chan(capacity)
        crew.at_failure(there.close)
        crew.at_failure(back.close)

        def produce() -> None:
            for i in range(20):
                there.send(i, timeout=PATIENCE)
            there.close()

        def double() -> None:
            for i in there:
                back.send(2 * i)
            back.close()

        start(produce)
        crew.go(double)
        assert list(back) == [2 * i for i in range(20)]

    for capacity in (0, 3):
        for start in (crew.go, crew.thread):
            go_on = crew.go(body, start, capacity)
            while not go_on.join(0.01):
                if crew._failure():
                    crew.results()
            go_on.result(0)
    crew.results()


@scenario
def batches(crew: Crew) -> None:
    """Many values at once, and who waits for a Cond or an RWMutex; what is refused loses none."""
    ch: Chan[int] = Chan(5)
    crew.at_failure(ch.close)
    changed, table = gmprt.Cond(gmprt.Mutex()), gmprt.RWMutex()
    got: list[int] = []

    def receive() -> None:
        while len(got) < 200:
            part = ch.recv_many(30, timeout=PATIENCE)
            with table.lock(timeout=PATIENCE):
                got.extend(part)
            with changed:
                changed.broadcast()

    def watch() -> None:
        while True:
            with changed:
                with table.rlock():
                    if len(got) == 200:
                        return
                changed.wait(timeout=PATIENCE)

    crew.go(watch)
    crew.go(watch)
    crew.thread(receive)
    crew.go(ch.send_many, range(100))
    crew.go(ch.send_many, range(100, 200))
    crew.results()
    assert sorted(got) == list(range(200))


@scenario
def selects(crew: Crew) -> None:
    many: list[Chan[int]] = [Chan() for _ in range(40)]
    out: Chan[int] = Chan(100)
    for ch in many:
        crew.at_failure(ch.close)

    def gather(n: int, timeout: float | None) -> None:
        for _ in range(n):
            got = select_(*[Recv(ch) for ch in many], timeout=timeout)
            out.send(got.value)

    crew.go(gather, 20, None)
    crew.go(gather, 20, PATIENCE)
    crew.thread(gather, 20, PATIENCE)
    for i in range(60):
        if i % 2:
            crew.go(many[i % 40].send, i)
        else:
            crew.go(lambda i=i: select_(Send(many[i % 40], i), Send(many[(i + 1) % 40], i)))
    crew.results()
    assert sorted(out.recv() for _ in range(60)) == list(range(60))


@scenario
def timers(crew: Crew) -> None:
    def reset() -> None:
        timer = gmprt.Timer(60)
        timer.reset(0.001)
        timer.c.recv(timeout=PATIENCE)
        assert not timer.stop()

    def ticks() -> None:
        ticker = gmprt.Ticker(0.001)
        for _ in range(3):
            ticker.c.recv()
        ticker.stop()

    called: Chan[int] = Chan(1)
    crew.go(lambda: gmprt.after(0.001).recv())
    crew.go(reset)
    crew.go(ticks)
    crew.thread(ticks)
    for i in range(150):
        crew.go(time.sleep if i % 2 else gmprt.sleep, 0.001 + i * 1e-5)
    waits = gmprt.after_func(0.001, called.send, 1)
    while True:
        try:
            assert called.recv(timeout=0.05) == 1
            break
        except gmprt.Timeout:
            if unheard:  # the call has failed, and nobody can collect that
                raise unheard[0] from None
    waits.stop()
    crew.results()


@scenario
def locks(crew: Crew) -> None:
    mutex, group, semaphore = gmprt.Mutex(), gmprt.WaitGroup(), gmprt.Semaphore(2)
    inside = [0, 0]
    total = 0

    def one() -> None:
        nonlocal total
        try:
            for _ in range(5):
                with mutex:
                    inside[0] += 1
                    try:
                        if inside[0] != 1:
                            raise Lost("two hold the Mutex")
                        seen = total
                        gmprt.sleep(0.0001)
                        total = seen + 1
                    finally:
                        inside[0] -= 1
                assert semaphore.acquire(timeout=PATIENCE)
                inside[1] += 1
                if inside[1] > 2:
                    raise Lost("three hold the Semaphore")
                gmprt.gosched()
                inside[1] -= 1
                semaphore.release()
        finally:
            group.done()

    for i in range(8):
        group.add()
        (crew.thread if i % 4 == 3 else crew.go)(one)
    crew.go(group.wait)
    crew.results()
    assert total == 40


@scenario
def threading_locks(crew: Crew) -> None:
    lock, condition, event = threading.Lock(), threading.Condition(), threading.Event()
    inside = 0
    turns = 0
    over = False

    def one() -> None:
        nonlocal inside, turns
        for _ in range(3):
            with lock:
                inside += 1
                alone, seen = inside == 1, turns
                time.sleep(0.0002)
                inside -= 1
                turns = seen + 1
            if not alone:
                raise Lost("two hold the Lock")
        event.wait(PATIENCE)
        with condition:
            while turns < 24 and not over:
                condition.wait(PATIENCE)

    def home() -> None:
        nonlocal over
        event.set()
        with condition:
            over = True
            condition.notify_all()

    crew.at_failure(home)
    for i in range(8):
        (crew.thread if i % 4 == 3 else crew.go)(one)
    crew.go(event.set)
    while turns < 24 and not crew._failure():
        time.sleep(0.001)
    with condition:
        condition.notify_all()
    crew.results()
    assert turns == 24


@scenario
def sockets(crew: Crew) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    def accept() -> None:
        global lost
        for _ in range(4):
            try:
                fd, _ = server._accept()  # type: ignore[attr-defined]
            except MemoryError:
                lost += 1
                raise
            try:
                connection = socket.socket(fileno=fd)
            except MemoryError:  # socket.accept() would lose it
                os.close(fd)
                raise
            crew.go(serve, connection)

    def talk() -> None:
        with socket.create_connection(server.getsockname(), timeout=PATIENCE) as s:
            crew.at_failure(lambda: s.shutdown(socket.SHUT_RDWR))
            for i in range(5):
                s.sendall(b"%d" % i)
                select.select([s], [], [], PATIENCE)
                answer = s.recv(100)
                if not answer:
                    raise ConnectionResetError("the server has closed: its call was refused")
                if answer != b"%d" % i:
                    raise Lost("a wrong answer")

    def readers() -> None:
        with ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(20)]
            for end in [end for pair in pairs for end in pair]:
                stack.enter_context(end)
            poll = select.poll()
            for a, _ in pairs:
                poll.register(a, select.POLLIN)
            crew.go(pairs[7][1].send, b"x")
            assert poll.poll(PATIENCE * 1000) == [(pairs[7][0].fileno(), select.POLLIN)]

    with server:
        crew.at_failure(lambda: server.shutdown(socket.SHUT_RDWR))
        crew.go(accept)
        crew.go(readers)
        for _ in range(3):
            crew.go(talk)
        crew.thread(talk)
        try:
            crew.results()
        except BaseException:
            crew.send_home()
            raise


@scenario
def processes(crew: Crew) -> None:
    def one() -> None:
        done = subprocess.run(["cat"], input=b"abc", stdout=subprocess.PIPE, check=True)
        if done.stdout != b"abc":
            raise Lost(f"{done}")

    crew.go(one)
    crew.go(one)
    crew.results()


@scenario
def blocking(crew: Crew) -> None:
    usleep = ctypes.CDLL(None).usleep
    crew.go(lambda: [gmprt.sleep(0.001) for _ in range(10)])
    for _ in range(8):
        crew.go(usleep, 5000)
        crew.go(lambda: hashlib.sha256(bytes(300_000)).digest())
    crew.results()


@scenario
def procs(crew: Crew) -> None:
    before = gmprt.gomaxprocs()
    try:
        for n in (4, 1, 6, 2):
            for _ in range(20):
                crew.go(time.sleep, 0.001)
            gmprt.gomaxprocs(n)
            crew.results()
    finally:
        gmprt.gomaxprocs(before)


@scenario
def natives(crew: Crew) -> None:
    from test_native import Probe, int_chan  # has been imported

    probe = Probe(os.environ["FAULT_PROBE"])  # type: ignore[arg-type]
    kept.append(probe)  # and with it the memory that its goroutines use
    there, back, slept = int_chan(), int_chan(2), int_chan(20)
    try:
        for _ in range(20):
            probe.go("sleeper", out=slept, n=1_000_000)
        probe.go("echo", **{"in": there, "out": back})

        def feed() -> None:
            try:
                for i in range(10):
                    there.send(i)
            finally:
                there.close()

        crew.go(feed)
        got = list(back)
        crew.results()
        if got != list(range(1, 11)):
            raise Lost(f"{got}")
    finally:
        for ch in (there, back):  # whoever is left sends no more, and waits for no more
            with suppress(gmprt.ChannelClosed):  # echo closes, too
                ch.close()
        deadline = time.monotonic() + PATIENCE
        while gmprt.num_goroutine() and time.monotonic() < deadline:
            time.sleep(0.001)


lost = 0
"""Descriptors that the interpreter may have lost: of accept(), without memory for the address."""

kept: list[object] = []
unheard: list[BaseException] = []


def reported(args: gmprt.ExceptHookArgs) -> None:
    unheard.append(args.exc_value)


@scenario
def os_thread(crew: Crew) -> None:
    def locked() -> None:
        gmprt.lock_os_thread()
        tid = threading.get_native_id()
        for _ in range(3):
            gmprt.sleep(0.001)
            if threading.get_native_id() != tid:
                raise Lost("moved")
        gmprt.unlock_os_thread()

    for _ in range(3):
        crew.go(locked)
    crew.results()
    gmprt.run(locked)


@scenario
def forking(crew: Crew) -> None:
    """The child goes on with goroutines of its own."""

    def child() -> None:
        try:
            assert go(len, "abc").result(PATIENCE) == 3
            ch: Chan[int] = Chan()
            go(lambda: (time.sleep(0.001), ch.send(1)))
            assert ch.recv(timeout=PATIENCE) == 1
            with socket.socketpair()[0] as s:
                s.settimeout(0.001)
                try:
                    s.recv(1)
                except TimeoutError:
                    pass
        except BaseException as error:
            status = 0 if excused(error) else 1
            if status:
                traceback.print_exc()
            os._exit(status)
        os._exit(0)

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            child()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == FLUSH_FAILED:
            raise MemoryError("at the child's end")
        if status not in (0, FATAL):
            raise Lost(f"the child ended with {status}")

    crew.go(gmprt.sleep, 0.002)
    crew.go(fork)
    crew.results()
    gmprt.run(fork)
    fork()


@scenario
def threads(crew: Crew) -> None:
    """Of Python, as goroutines; what cannot be one is a thread."""
    gmprt.threads(True)
    lock = threading.Lock()
    local = threading.local()

    def one(i: int) -> int:
        local.i = i
        with lock:
            time.sleep(0.0005)
        return int(local.i)

    try:
        for i in range(5):
            crew.thread(one, i)
        assert sum(crew.results()) == 10
    finally:
        gmprt.threads(False)


@scenario
def cancelling(crew: Crew) -> None:
    ch: Chan[int] = Chan()
    lock = threading.Lock()
    a, b = socket.socketpair()
    with a, b:
        with lock:
            waits = [
                go(ch.recv),
                go(ch.recv, timeout=PATIENCE),
                go(time.sleep, PATIENCE),
                go(gmprt.sleep, PATIENCE),
                go(select_, *[Recv(Chan()) for _ in range(10)]),
                go(a.recv, 1),
                go(lock.acquire),
                go(gmprt.after(60).recv),
            ]
            gmprt.sleep(0.002)
            for g in waits:
                g.cancel("enough")
            b.send(b"x")  # a thread has to wait in recv() if the poller has no memory for that
            if waits[5].exception(PATIENCE) is None:
                del waits[5]
            for g in waits:
                error = g.exception(PATIENCE)
                if not isinstance(error, gmprt.GoroutineCancelled | gmprt.Cancelled):
                    if error is None:
                        raise Lost(f"{g!r} was not cancelled")
                    raise error


@scenario
def scopes(crew: Crew) -> None:
    def body() -> None:
        with gmprt.move_on_after(0.001) as scope:
            gmprt.sleep(PATIENCE)
        assert scope.expired
        with context.with_timeout(0.001) as ctx:
            assert ctx.done().recv_ok() == (None, False)
        with context.with_cancel() as parent, context.with_timeout(60, parent) as ctx:
            waiter = go(ctx.done().recv_ok)
            parent.cancel()
            assert waiter.result(PATIENCE) == (None, False)
            assert ctx.err() is parent.err()
        try:
            with gmprt.shield(), gmprt.fail_after(0.001):
                time.sleep(PATIENCE)
        except gmprt.DeadlineExceeded:
            pass

    crew.go(body)
    crew.results()


@scenario
def groups(crew: Crew) -> None:
    def fails() -> None:
        raise LookupError("as it should")

    def body() -> None:
        with gmprt.Group(limit=3) as group:
            members = [group.go(abs, -i) for i in range(6)]
        assert [g.result() for g in members] == list(range(6))
        with gmprt.Group() as group:
            sleeper = group.go(gmprt.sleep, PATIENCE)
            group.go(fails)
            sleeper.join()

    def tried() -> list[int]:
        try:
            body()
        except LookupError:
            pass
        except BaseExceptionGroup as errors:
            raise next(e for e in errors.exceptions if not isinstance(e, LookupError)) from None
        return list(gmprt.map_(abs, range(-5, 0), limit=2))

    for result in (crew.go(tried), crew.thread(tried)):
        assert result is None or result.result(PATIENCE) == [5, 4, 3, 2, 1]
    crew.results()


@scenario
def deep(crew: Crew) -> None:
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    def by_sorting(n: int) -> int:
        return 0 if n == 0 else sorted([n], key=lambda n: by_sorting(n - 1))[0]

    for _ in range(5):
        crew.go(down, 800)
        crew.go(by_sorting, 40)
    assert sum(crew.results()) == 5 * 840


@scenario
def asyncs(crew: Crew) -> None:
    lost: list[BaseException] = []

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(error := context.get("exception"), MemoryError):
            lost.append(error)  # a callback of asyncio's own: whoever waits for it waits for ever
            loop.stop()

    async def main() -> list[int]:
        asyncio.get_running_loop().set_exception_handler(failed)

        async def one(i: int) -> int:
            await asyncio.sleep(0.001)
            return i

        gs = [go(lambda i=i: (gmprt.sleep(0.001), i)[1]) for i in range(3)]
        return [*await asyncio.gather(*map(one, range(3))), *[await g.aresult() for g in gs]]

    def run() -> list[int]:
        try:
            return asyncio.run(main())
        except RuntimeError:
            if lost:
                raise lost[0] from None
            raise

    crew.go(run)
    assert crew.results() == [[0, 1, 2, 0, 1, 2]]


@scenario
def leaving(crew: Crew) -> None:
    """The process ends while goroutines are parked and threads wait."""
    ch: Chan[int] = Chan()
    for _ in range(20):
        go(ch.recv)
        go(time.sleep, 60)
    go(threading.Lock().acquire)
    gmprt.sleep(0.001)


# ---- the child -----------------------------------------------------------------------------------

FATAL = 2
"""The status of a process that could not go on: see `fatal` in csrc/base/base.h."""
FLUSH_FAILED = 120  # of the standard streams, at the end of an interpreter


def excused(error: BaseException) -> bool:
    """Is that what a program may get when memory, threads or descriptors are short?"""
    if isinstance(error, MemoryError | gmprt.TooManyThreads):
        return True
    if isinstance(error, TimeoutError):
        return False
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENOSPC)
    if isinstance(error, gmprt.RuntimeNotRunning):
        return any(os.strerror(e) in str(error) for e in (errno.ENOMEM, errno.EAGAIN))
    if isinstance(error, RuntimeError) and isinstance(error.__context__, MemoryError):
        return (
            True  # a block that cannot be left as it was entered: the interpreter let go and failed
        )
    if isinstance(error, RuntimeError):
        return "can't start new thread" in str(error) or "can't allocate" in str(error)
    return False


def numbers() -> dict[str, int]:
    with open("/proc/self/maps") as maps:
        mappings = sum(1 for _ in maps)
    stats = gmprt.stats()
    return {
        "goroutines": stats.goroutines,
        "timers": stats.timers,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")) - stats.threads,
        "mappings": mappings - len(os.listdir("/proc/self/task")) * 4,
    }


def settled(wanted: dict[str, int] | None) -> dict[str, int]:
    """The numbers, when they are as wanted, or when nothing changes them any more."""
    deadline = time.monotonic() + (5 if wanted else 0.5)
    while True:
        now = numbers()
        if wanted and all(now[k] <= wanted[k] for k in now if k != "mappings"):
            return now
        if time.monotonic() > deadline or (not wanted and not now["goroutines"] + now["timers"]):
            return now
        time.sleep(0.005)


def play(fn: Scenario) -> BaseException | None:
    crew = Crew()
    try:
        fn(crew)
    except BaseException as error:
        return error
    finally:
        if fn is not SCENARIOS["leaving"]:
            crew.send_home()
    return None


def say(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def child(name: str, n: int, count: int, wanted: dict[str, int] | None) -> dict[str, Any]:
    """One play with the n-th call refused, two with none.  What came of it."""
    fn = SCENARIOS[name]
    gmprt.excepthook = reported
    problems: list[str] = []
    _fault.fault_arm(REFUSED.encode(), n, count)
    outcome = None
    crew = Crew()
    try:
        fn(crew)
    except BaseException as error:
        outcome = error
    if name == "leaving":
        if outcome is not None and not excused(outcome):
            problems.append(say(outcome))
        return {"outcome": repr(outcome), "problems": problems, "calls": 0, "where": ""}
    calls = _fault.fault_disarm()
    where = _fault.fault_where().decode()
    try:
        crew.send_home()
        if outcome is not None and not (where and excused(outcome)):
            problems.append(say(outcome))
        text = repr(outcome)
        outcome = None  # with its traceback, and what that refers to
        for g in gmprt.debug.goroutines():
            g.cancel()
        del crew
        for _ in range(2):
            if (error := play(fn)) is not None:
                problems.append("later: " + say(error))
        error = None
        gc.collect()  # tracebacks, with what their frames refer to
        now = settled(wanted)
        if wanted:
            # A refused guard makes the runtime take the other kind, which splits mappings.
            slack = {"mappings": 1 << 20 if "madvise" in where else 100, "descriptors": lost}
            more = {k: (v, wanted[k]) for k, v in now.items() if v > wanted[k] + slack.get(k, 0)}
            if more:
                problems.append(f"left behind (is, should be): {more}")
    except BaseException as error:
        problems.append("afterwards: " + say(error))
        text, now = "", {}
    return {"outcome": text, "problems": problems, "calls": calls, "where": where, "now": now}


# ---- the driver ----------------------------------------------------------------------------------


@contextmanager
def silent(file: Any) -> Iterator[None]:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    yield


def excerpt(text: str) -> str:
    return text if len(text) < 7000 else text[:5000] + "\n...\n" + text[-2000:]


def fork_child(name: str, n: int, count: int, wanted: dict[str, int] | None) -> dict[str, Any]:
    """child() in a child; problems include how it ended."""
    with tempfile.TemporaryFile() as said:
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(r)
            with silent(said):
                came = child(name, n, count, wanted)
                came["problems"] = [excerpt(text) for text in came["problems"]]
                came["outcome"] = came["outcome"][:1000]
                answer = json.dumps(came).encode()  # fits into the pipe
                os.write(w, answer)
                os.close(w)
                sys.exit(0)
        os.close(w)
        pidfd = os.pidfd_open(pid)
        late = not select.select([pidfd], [], [], LIMIT)[0]
        os.close(pidfd)
        if late:
            os.kill(pid, signal.SIGQUIT)
            time.sleep(1)
            os.kill(pid, signal.SIGABRT)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with open(r, "rb") as pipe:
            answer = pipe.read()
        said.seek(0)
        text = said.read().decode(errors="replace")
    done: dict[str, Any] = (
        json.loads(answer) if answer else {"problems": [], "where": "", "outcome": "none"}
    )
    clean = status == 0 or (status == FATAL and re.search(r"^fatal: gmprt: .+$", text, re.M))
    if late:
        done["problems"].append(f"hangs\n{excerpt(text)}")
    elif not clean:
        done["problems"].append(f"status {status}\n{excerpt(text)}")
    elif done["problems"]:
        done["problems"].append(excerpt(text))
    return done


LEAST = 3  # plays, however busy the machine is


def main() -> int:
    name, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    faulthandler.enable()
    if name == "natives":
        importlib.import_module("test_native")
    began = time.monotonic()
    reference = fork_child(name, 0, 1, None)
    if reference["problems"]:
        print("with nothing refused:", *reference["problems"], sep="\n")
        return 1
    calls = reference["calls"] or 120
    plays = [(n, count) for count in (1, -PERSISTENT_MS) for n in range(1, calls + 1)]
    random.Random(seed).shuffle(plays)
    if len(sys.argv) > 4:
        plays = [(int(sys.argv[4]), int(sys.argv[5]))]
    bad, played = 0, 0
    outcomes: dict[str, int] = {}
    for n, count in plays:
        if seconds and played >= LEAST and time.monotonic() - began > seconds:
            break
        played += 1
        done = fork_child(name, n, count, reference.get("now"))
        kind = done["outcome"].partition("(")[0]
        outcomes[kind] = outcomes.get(kind, 0) + 1
        if os.environ.get("FAULT_VERBOSE"):
            print(n, count, done["outcome"], done["where"], flush=True)
        if done["problems"]:
            bad += 1
            print(f"--- {name}: call {n} refused ({count}), outcome {done['outcome']}")
            print(done["where"])
            print(*done["problems"], sep="\n", flush=True)
    took = time.monotonic() - began
    print(f"{name}: {calls} calls, {played} of {len(plays)} plays, seed {seed}, {took:.1f} s")
    print(f"{outcomes}, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
