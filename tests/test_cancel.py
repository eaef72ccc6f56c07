"""csrc/py/interpose/cancel.c: what a cancel ends, what it waits for, and that nobody loses anything
by it."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import logging
import multiprocessing.managers
import operator
import os
import pickle
import queue
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from support import PATIENCE, Thread, ended, eventually, parked, run_child

import gmprt
from gmprt import go

MUCH = 1 << 18


def is_cancelled(g: gmprt.Goroutine[Any]) -> bool:
    return isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)


def put_off(g: gmprt.Goroutine[Any]) -> None:
    """A cancel does not end this wait: the goroutine has looked at it, and waits on."""
    parked(g)
    g.cancel()
    for _ in range(100):
        gmprt.sleep(0)
    parked(g)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    r, w = os.pipe()
    try:
        yield r, w
    finally:
        for fd in (r, w):
            try:
                os.close(fd)
            except OSError:
                pass


def fill(w: int) -> int:
    os.set_blocking(w, False)
    n = 0
    try:
        while True:
            n += os.write(w, bytes(1 << 12))
    except BlockingIOError:
        os.set_blocking(w, True)
    return n


def drained(r: int) -> bytes:
    """All until the end."""
    data = b""
    while piece := os.read(r, 1 << 16):
        data += piece
    return data


# ---- who called ----------------------------------------------------------------------------------


def with_lock(lock: Any) -> None:
    with lock:
        raise AssertionError


class Derived(io.FileIO):
    def again(self) -> Any:
        return super().read(10)


DIRECT: dict[str, Callable[[Any, int], object]] = {
    "call": lambda lock, fd: lock.acquire(),
    "with": lambda lock, fd: with_lock(lock),
    "keyword": lambda lock, fd: lock.acquire(timeout=1000),
    "star": lambda lock, fd: lock.acquire(*(True, 1000)),
    "star star": lambda lock, fd: lock.acquire(**{"timeout": 1000}),
    "descriptor": lambda lock, fd: type(lock).acquire(lock),
    "method": lambda lock, fd: MethodType(type(lock).acquire, lock)(),
    "partial": lambda lock, fd: functools.partial(lock.acquire)(),
    "partial with arguments": lambda lock, fd: functools.partial(os.read, fd)(10),
    "partial with all": lambda lock, fd: functools.partial(os.read, fd, 10)(),
    "partial with a keyword": lambda lock, fd: functools.partial(lock.acquire, timeout=1000)(True),
    "partial with a keyword in the call": lambda lock, fd: functools.partial(lock.acquire, True)(
        timeout=1000
    ),
    "partial of a descriptor": lambda lock, fd: functools.partial(type(lock).acquire, lock)(
        True, 1000
    ),
    "partial and star": lambda lock, fd: functools.partial(os.read, fd)(*[10]),
    "partial with many": lambda lock, fd: functools.partial(select.select, [fd], [], [])(1000),
    "method of a partial": lambda lock, fd: MethodType(
        functools.partial(type(lock).acquire, lock), True
    )(1000),
    "partial of a method": lambda lock, fd: functools.partial(
        MethodType(type(lock).acquire, lock), True
    )(1000),
    "methodcaller": lambda lock, fd: operator.methodcaller("acquire")(lock),
    "methodcaller with arguments": lambda lock, fd: operator.methodcaller(
        "acquire", True, timeout=1000
    )(lock),
    "exit stack": lambda lock, fd: ExitStack().enter_context(lock),
    "sleep": lambda lock, fd: time.sleep(1000),
    "read": lambda lock, fd: os.read(fd, 10),
    "file": lambda lock, fd: io.FileIO(fd, closefd=False).read(10),
    "super": lambda lock, fd: Derived(fd, closefd=False).again(),
    "in a generator": lambda lock, fd: next(lock.acquire() for _ in range(1)),
    "in a key": lambda lock, fd: sorted([1, 2], key=lambda _: lock.acquire()),
    "in map": lambda lock, fd: list(map(lambda _: lock.acquire(), [1])),  # noqa: C417
}


@pytest.mark.parametrize("way", DIRECT)
def test_called_by_python(way: str) -> None:
    lock = threading.Lock()
    lock.acquire()
    with pipe() as (r, _):
        for _turn in range(12):  # the interpreter specialises calls that are made often
            g = go(DIRECT[way], lock, r)
            parked(g)
            g.cancel()
            assert is_cancelled(g)


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
@pytest.mark.parametrize("way", DIRECT)
def test_called_by_python_under_a_tracer(way: str, hook: str) -> None:
    """As preemption on 3.11 turns on for a moment: any call may be made meanwhile."""
    lock = threading.Lock()
    lock.acquire()

    def traced(r: int) -> None:
        getattr(sys, hook)(lambda *event: None)
        DIRECT[way](lock, r)

    with pipe() as (r, _):
        g = go(traced, r)
        parked(g)
        g.cancel()
        assert is_cancelled(g)


@pytest.mark.parametrize("way", ["method", "partial", "type"])
def test_a_goroutine_that_is_a_c_function(way: str) -> None:
    lock = threading.Lock()
    lock.acquire()
    if way == "method":
        g = go(lock.acquire)
    elif way == "partial":
        g = go(functools.partial(lock.acquire, timeout=1000))
    else:
        g = go(type(lock).acquire, lock, timeout=1000)
    parked(g)
    g.cancel()
    assert is_cancelled(g)


class PickledLate:
    """Has the pickler write what it has."""

    def __reduce__(self) -> Any:
        return (bytes, (bytes(MUCH),))


BY_C: dict[str, Any] = {
    "map": lambda r, w: list(map(functools.partial(os.read, r), [1])),
    "sorted": lambda r, w: sorted([1, 2], key=functools.partial(os.read, r)),
    "max": lambda r, w: max([1, 2], key=functools.partial(os.read, r)),
    "filter": lambda r, w: list(filter(functools.partial(os.read, r), [1])),
    "iter": lambda r, w: next(iter(functools.partial(os.read, r, 1), b"")),
    "reduce": lambda r, w: functools.reduce(os.read, [r, 1]),
    "unpickler": lambda r, w: pickle.load(io.FileIO(r, closefd=False)),
    "pickler": lambda r, w: pickle.dump(bytes(MUCH), io.FileIO(w, "w", closefd=False)),
}


@pytest.mark.parametrize("way", BY_C)
def test_called_by_c(way: str) -> None:
    """It may have a state that an exception destroys: the cancel waits for the next call."""
    with pipe() as (r, w):
        after: list[bool] = []

        def body() -> None:
            try:
                BY_C[way](r, w)
            except pickle.UnpicklingError:
                pass
            after.append(True)
            time.sleep(1000)

        if way == "pickler":
            fill(w)
        g = go(body)
        put_off(g)
        if way == "pickler":
            reader = go(lambda: [os.read(r, 1 << 16) for _ in iter(lambda: not after, False)])
            assert is_cancelled(g)
            os.write(w, b"end")
            ended(reader)
        else:
            os.write(w, b"xx")
            assert is_cancelled(g)
        assert after


# ---- what was written ----------------------------------------------------------------------------


def test_lines_of_others_are_not_lost(procs: int) -> None:
    """Writers of one text file into a full pipe; they are cancelled while they wait."""
    with pipe() as (r, w):
        file = os.fdopen(w, "w", 8192)  # less than the pipe holds
        done: list[int] = []
        got = b""
        for _round in range(5):
            enough: list[bool] = []

            def write(enough: list[bool] = enough) -> None:
                while not enough:
                    print(f"{len(done):06}", file=file)
                    done.append(len(done))
                time.sleep(1000)

            g = go(write)
            put_off(g)
            enough.append(True)
            got += os.read(r, 1 << 16)
            assert is_cancelled(g)
        closer = go(file.close)
        got += drained(r)
        ended(closer)
        assert [int(text) for text in got.splitlines()] == done


def text_print(f: Any, data: bytes) -> None:
    print(data.decode(), end="", file=f, flush=True)


def by_logging(f: Any, data: bytes) -> None:
    handler = logging.StreamHandler(f)
    handler.terminator = ""
    handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, data.decode(), (), None))


def by_csv(f: Any, data: bytes) -> None:
    csv.writer(f, lineterminator="").writerow([data.decode()])
    f.flush()


def by_json(f: Any, data: bytes) -> None:
    json.dump(data.decode(), f)
    f.flush()


def by_writelines(f: Any, data: bytes) -> None:
    f.writelines([data[:10], data[10:]])  # a flush of a binary file may be cancelled


WRITERS: dict[str, tuple[str, Callable[[Any, bytes], object]]] = {
    "print": ("w", text_print),
    "logging": ("w", by_logging),
    "csv": ("w", by_csv),
    "json": ("w", by_json),
    "writelines": ("wb", by_writelines),
    "pickle": ("wb", lambda f, data: pickle.dump(data, f)),
    "gzip": ("wb", lambda f, data: (f.write(data), f.flush())),
}


@pytest.mark.parametrize("where", ["pipe", "socket"])
@pytest.mark.parametrize("way", WRITERS)
def test_a_file_object_writes_all(way: str, where: str) -> None:
    """By whomever it is called, C or Python code in between: the cancel waits for the end."""
    mode, write = WRITERS[way]
    data = b"0123456789abcdef" * (MUCH // 16)
    with ExitStack() as stack:
        if where == "pipe":
            r, w = stack.enter_context(pipe())
            raw: Any = io.FileIO(w, "w", closefd=False)
            f: Any = open(w, mode, closefd=False)
        else:
            a, b = socket.socketpair()
            stack.enter_context(a)
            r = b.detach()
            f = a.makefile(mode)  # type: ignore[call-overload]
        if way == "gzip":
            raw, f = f, gzip.GzipFile(fileobj=f, mode="wb", compresslevel=0)
        after: list[bool] = []

        def body() -> None:
            write(f, data)
            after.append(True)
            time.sleep(1000)

        g = go(body)
        put_off(g)
        reader = go(drained, r)
        assert is_cancelled(g)
        assert after
        go(f.close).result(PATIENCE)
        if where == "pipe":
            if way == "gzip":
                raw.close()
            os.close(w)
        else:
            if way == "gzip":
                raw.close()
            a.close()
        got = reader.result(PATIENCE)
        if where == "socket":
            os.close(r)
        if way == "gzip":
            got = gzip.decompress(got)
        if way == "json":
            got = json.loads(got).encode()
        if way == "pickle":
            got = pickle.loads(got)
        assert got == data


@pytest.mark.parametrize("where", ["pipe", "socket"])
@pytest.mark.parametrize("way", ["write", "flush", "copyfileobj"])
def test_a_buffered_writer_keeps_what_it_has(way: str, where: str) -> None:
    """A write of its own ends, with a part of it done; what was written before stays."""
    a, b = socket.socketpair()
    with a, b:
        file: Any = a.makefile("wb") if where == "socket" else open(a.fileno(), "wb", closefd=False)
        a.setblocking(False)
        filled = 0
        try:
            while True:
                filled += a.send(bytes(1 << 12))
        except BlockingIOError:
            a.setblocking(True)
        file.write(b"others")
        if way == "write":
            g: gmprt.Goroutine[Any] = go(file.write, b"x" * MUCH)
        elif way == "flush":
            g = go(file.flush)
        else:
            g = go(shutil.copyfileobj, io.BytesIO(b"x" * MUCH), file)
        parked(g)
        g.cancel()
        assert is_cancelled(g)
        reader = go(drained, b.fileno())
        file.close()
        a.shutdown(socket.SHUT_WR)
        got = reader.result(PATIENCE)[filled:]
        assert got == b"others" + b"x" * (len(got) - 6)


def test_what_a_raw_write_has_written_is_said() -> None:
    """A write that has begun returns how much it has done, and the cancel waits."""
    with pipe() as (r, w):
        raw = io.FileIO(w, "w", closefd=False)
        written: list[int] = []

        def body() -> None:
            written.append(raw.write(bytes(MUCH)))
            time.sleep(1000)

        g = go(body)
        parked(g)
        g.cancel()
        assert is_cancelled(g)
        os.close(w)
        assert written == [len(drained(r))]
        assert 0 < written[0] < MUCH


# ---- what was read -------------------------------------------------------------------------------

READERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "read": ("rb", lambda f: f.read(10)),
    "read1": ("rb", lambda f: f.read1(10)),
    "peek": ("rb", lambda f: f.peek(10)),
    "readinto": ("rb", lambda f: f.readinto(bytearray(10))),
    "readline": ("rb", lambda f: f.readline()),
    "for": ("rb", lambda f: next(iter(f))),
    "in a loop": ("rb", lambda f: [line for line in f]),  # noqa: C416
    "all": ("rb", lambda f: f.read()),
    "text": ("r", lambda f: f.read(10)),
    "text readline": ("r", lambda f: f.readline()),
    "text in a loop": ("r", lambda f: [line for line in f]),  # noqa: C416
    "all text": ("r", lambda f: f.read()),
    "both ways": ("rwb", lambda f: f.readline()),
    "both ways for": ("rwb", lambda f: next(iter(f))),
    "raw": ("raw", lambda f: f.readline()),
    "raw for": ("raw", lambda f: next(iter(f))),
    "lines": ("rb", lambda f: f.readlines()),
    "text lines": ("r", lambda f: f.readlines()),
    "raw lines": ("raw", lambda f: f.readlines()),
    "lines of both ways": ("rwb", lambda f: f.readlines()),
}


TO_THE_END = ["all", "lines", "text lines", "raw lines", "lines of both ways"]
KEEP_WHAT_THEY_HAVE = ["read", "readline", "for", "text", "text readline", "both ways"]
KEEP_WHAT_THEY_HAVE += ["both ways for", "raw", "raw for"]


@contextmanager
def reader(where: str, mode: str) -> Iterator[tuple[Any, socket.socket, socket.socket]]:
    """A file object, its socket and the other end."""
    a, b = socket.socketpair()
    with a, b:
        if mode == "raw":
            in_c = where == "file"
            with io.FileIO(a.fileno(), closefd=False) if in_c else socket.SocketIO(a, "r") as f:
                yield f, a, b
        elif where == "socket":
            with a.makefile(mode) as f:  # type: ignore[call-overload]
                yield f, a, b
        elif mode == "rwb":
            half = io.FileIO(a.fileno(), "r", closefd=False)
            pair = io.BufferedRWPair(half, io.FileIO(a.fileno(), "w", closefd=False))
            yield pair, a, b
        else:
            with open(a.fileno(), mode, closefd=False) as f:
                yield f, a, b


@pytest.mark.parametrize("where", ["file", "socket"])
@pytest.mark.parametrize("way", READERS)
def test_a_reader_that_has_nothing_is_cancelled(way: str, where: str) -> None:
    mode, read = READERS[way]
    with reader(where, mode) as (f, _, theirs):
        theirs.sendall(b"first line\n")
        assert f.readline() in ("first line\n", b"first line\n")
        g = go(read, f)
        parked(g)
        g.cancel()
        assert is_cancelled(g)
        theirs.sendall(b"second line\n")
        assert go(f.readline).result(PATIENCE) in ("second line\n", b"second line\n")


@pytest.mark.parametrize("part", ["before", "meanwhile"])
@pytest.mark.parametrize("where", ["file", "socket"])
@pytest.mark.parametrize("way", KEEP_WHAT_THEY_HAVE)
def test_what_was_read_is_not_lost(way: str, where: str, part: str) -> None:
    """Half a line is there, in the object or on its way: the wait goes on, and the cancel waits."""
    mode, read = READERS[way]
    with reader(where, mode) as (f, ours, theirs):
        lines: list[Any] = []

        def body() -> None:
            lines.append(read(f))
            time.sleep(1000)

        if part == "before":
            theirs.sendall(b"first line\nhalf")
            assert f.readline() in ("first line\n", b"first line\n")
        g = go(body)
        parked(g)
        if part == "meanwhile":
            theirs.sendall(b"half")
            eventually(lambda: not select.select([ours], [], [], 0)[0])
        put_off(g)
        theirs.sendall(b" a li\n")
        assert is_cancelled(g)
        assert lines in (["half a li\n"], [b"half a li\n"])


@pytest.mark.parametrize("part", ["before", "meanwhile"])
@pytest.mark.parametrize("where", ["file", "socket"])
@pytest.mark.parametrize("way", TO_THE_END)
def test_who_reads_to_the_end_gives_it_all_up(way: str, where: str, part: str) -> None:
    """Also the half of a line that an object below has in hand: nobody may ever send the rest."""
    mode, read = READERS[way]
    with reader(where, mode) as (f, ours, theirs):
        if part == "before":
            theirs.sendall(b"first line\nhalf")
            assert f.readline() in ("first line\n", b"first line\n")
        g = go(read, f)
        parked(g)
        if part == "meanwhile":
            theirs.sendall(b"half")
            eventually(lambda: not select.select([ours], [], [], 0)[0])
        g.cancel()
        assert is_cancelled(g)


SHARED = ["read", "readinto", "readline", "for", "in a loop", "all"]
SHARED += ["text readline", "text in a loop"]
LOCKS_KNOW_THEIR_OWNER = sys.version_info < (3, 14)  # when a wait for one is over, it is had


@pytest.mark.skipif(not LOCKS_KNOW_THEIR_OWNER, reason="a file's lock may be lost again to others")
@pytest.mark.parametrize("when", ["at the lock", "behind it"])
@pytest.mark.parametrize("way", SHARED)
def test_a_reader_that_has_waited_for_another_one(way: str, when: str) -> None:
    """For the file object's own lock.  It has taken nothing by then."""
    mode, read = READERS[way]
    with reader("file", mode) as (f, _, theirs):
        first = go(read, f)
        parked(first)
        second = go(read, f)
        if when == "at the lock":
            put_off(second)
        parked(second)
        first.cancel()
        assert is_cancelled(first)
        if when == "behind it":
            eventually(lambda: second.wait_reason == "IO wait")
            second.cancel()
        assert is_cancelled(second)
        theirs.sendall(b"line\n")
        assert go(f.readline).result(PATIENCE) in ("line\n", b"line\n")


@pytest.mark.skipif(not LOCKS_KNOW_THEIR_OWNER, reason="a file's lock may be lost again to others")
def test_what_another_reader_has_left_is_not_lost() -> None:
    """(readline() loses it, as on threads: it looks what is there before it has the lock.)"""
    with reader("file", "rb") as (f, _, theirs):
        lines: list[bytes] = []

        def body() -> None:
            lines.append(f.read(12))
            time.sleep(1000)

        first = go(f.read, 5)
        parked(first)
        second = go(body)
        parked(second)
        theirs.sendall(b"line\nhalf")
        assert first.result(PATIENCE) == b"line\n"
        eventually(lambda: second.wait_reason == "IO wait")
        put_off(second)
        theirs.sendall(b" a line\n")
        assert is_cancelled(second)
        assert lines == [b"half a line\n"]


# ---- notified ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 1000.0])
def test_a_cancelled_wait_does_not_swallow_a_notify(timeout: float | None, procs: int) -> None:
    """Cancelled, it stands among the waiters until it has its lock back."""
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait(timeout)

    first = go(wait)
    parked(first)
    second = go(wait)
    parked(second)
    with condition:
        first.cancel()
        for _ in range(100):
            gmprt.sleep(0)
        parked(first)  # for the lock
        condition.notify()
    second.result(PATIENCE)
    assert is_cancelled(first)


TOKENS = 300


def _semaphore() -> tuple[Callable[[], object], Callable[[], object]]:
    semaphore = threading.Semaphore(0)
    return semaphore.acquire, semaphore.release


def _queue() -> tuple[Callable[[], object], Callable[[], object]]:
    q: queue.Queue[int] = queue.Queue()
    return q.get, lambda: q.put(1)


def _full_queue() -> tuple[Callable[[], object], Callable[[], object]]:
    q: queue.Queue[int] = queue.Queue(1)
    q.put(0)
    return lambda: q.put(1), q.get


def _simple_queue() -> tuple[Callable[[], object], Callable[[], object]]:
    q: queue.SimpleQueue[int] = queue.SimpleQueue()
    return q.get, lambda: q.put(1)


def _lock() -> tuple[Callable[[], object], Callable[[], object]]:
    """A lock that is handed from one to the next."""
    lock = threading.Lock()
    lock.acquire()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    free.put(1)

    def take() -> None:
        lock.acquire()
        free.put(1)

    return take, lambda: (free.get(), lock.release())


def _condition() -> tuple[Callable[[], object], Callable[[], object]]:
    """By hand: the number of notifies that nobody has been waiting for yet."""
    condition = threading.Condition()
    left = 0

    def take() -> None:
        nonlocal left
        with condition:
            while left == 0:
                condition.wait()
            left -= 1

    def give() -> None:
        nonlocal left
        with condition:
            left += 1
            condition.notify()

    return take, give


@pytest.mark.parametrize(
    "build", [_condition, _semaphore, _queue, _full_queue, _simple_queue, _lock]
)
@pytest.mark.parametrize("givers", ["goroutine", "thread"])
def test_what_is_given_is_taken(build: Any, givers: str, procs: int) -> None:
    """A storm of cancels while things are given: each is taken by somebody who knows it."""
    take, give = build()
    taken = 0

    def taker() -> None:
        nonlocal taken
        while True:
            take()
            taken += 1

    def storm() -> None:
        goroutines = [go(taker) for _ in range(8)]
        while taken < TOKENS:
            goroutines.pop(0).cancel()
            goroutines.append(go(taker))
            gmprt.sleep(0)
        for g in goroutines:
            g.cancel()
        for g in goroutines:
            g.join()

    def giver() -> None:
        for i in range(TOKENS):
            give()
            if i % 3 == 0:
                gmprt.sleep(0)

    stormy = go(storm)
    giving = Thread(giver) if givers == "thread" else go(giver)
    ended(giving)
    eventually(lambda: taken == TOKENS, f"taken {taken}")
    ended(stormy)
    assert taken == TOKENS


def test_an_event_and_a_future_wake_those_who_are_left() -> None:
    event = threading.Event()
    future: Future[int] = Future()
    for wait, wake in ((event.wait, event.set), (future.result, lambda: future.set_result(1))):
        goroutines = [go(wait) for _ in range(4)]
        for g in goroutines:
            parked(g)
        goroutines[0].cancel()
        wake()
        ended(*goroutines)  # the first has been cancelled, or woken


def test_a_barrier_counts_those_who_are_left() -> None:
    barrier = threading.Barrier(3)
    first, second = go(barrier.wait), go(barrier.wait)
    parked(first)
    parked(second)
    first.cancel()
    assert is_cancelled(first)
    last = [go(barrier.wait) for _ in range(2)]
    # Their numbers say who was there before them: one of the first two was, and either can have
    # been the first.
    assert sorted(g.result(PATIENCE) for g in last) == [1, 2]
    assert second.result(PATIENCE) in (0, 1)


# ---- children ------------------------------------------------------------------------------------


def _children() -> set[int]:
    me = os.getpid()
    found: set[int] = set()
    for task in Path(f"/proc/{me}/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that has ended meanwhile; its children are another's now
    return found


SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]


def _popen() -> None:
    with subprocess.Popen(SLEEP) as process:
        try:
            process.wait()
        finally:
            process.kill()


def _communicate(**more: Any) -> None:
    with subprocess.Popen(
        SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    ) as process:
        try:
            process.communicate(bytes(MUCH))
        finally:
            process.kill()


def _run_with_input() -> None:
    subprocess.run(SLEEP, input=bytes(MUCH), stdout=subprocess.DEVNULL)


CHILDREN: dict[str, Callable[[], object]] = {
    "run": lambda: subprocess.run(SLEEP),
    "preexec_fn": lambda: subprocess.run(SLEEP, preexec_fn=lambda: time.sleep(0.01)),
    "shell": lambda: subprocess.run("exec sleep 1000", shell=True),
    "input": _run_with_input,
    "captured": lambda: subprocess.run(SLEEP, capture_output=True),
    "timeout": lambda: subprocess.run(SLEEP, capture_output=True, timeout=1000),
    "check_output": lambda: subprocess.check_output(SLEEP),
    "call": lambda: subprocess.call(SLEEP),
    "Popen": _popen,
    "communicate": _communicate,
    "communicate preexec_fn": lambda: _communicate(preexec_fn=lambda: None),
}


@pytest.mark.parametrize("way", CHILDREN)
def test_no_child_is_left(way: str) -> None:
    """Cancelled at the first wait, the second, and so on until it waits for the child's end."""
    before = _children()
    for k in range(12):
        g = go(CHILDREN[way])
        for _ in range(k):
            gmprt.sleep(0)
        if k == 11:
            parked(g)
        g.cancel()
        assert is_cancelled(g)
        eventually(lambda: not _children() - before, f"children left after wait {k}")


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_manager_is_started() -> None:
    """A server that nobody has heard of yet would keep the process from ending."""
    before = _children()
    manager = multiprocessing.managers.SyncManager(ctx=multiprocessing.get_context("fork"))

    def body() -> None:
        manager.start(initializer=os.read, initargs=(r, 1))
        with manager:
            time.sleep(1000)

    with pipe() as (r, w):
        g = go(body)
        put_off(g)
        os.write(w, b"x")
        assert is_cancelled(g)
    assert not _children() - before


def test_a_pipe_to_a_child_is_closed() -> None:
    """os.popen: its end is waited for when the file is closed."""
    before = _children()

    def body() -> None:
        with os.popen("read x; read x", "w") as file:
            file.write("x\n")
            time.sleep(1000)

    g = go(body)
    parked(g, "sleep")
    g.cancel()
    assert is_cancelled(g)
    eventually(lambda: not _children() - before)


def test_a_thread_is_started() -> None:
    """start() waits until the thread runs, which could not be joined before."""
    enough = threading.Event()

    class Slow(threading.Thread):
        def _bootstrap(self) -> None:
            enough.wait()
            super()._bootstrap()  # type: ignore[misc]

    thread = Slow()

    def body() -> None:
        thread.start()
        thread.join()
        time.sleep(1000)

    g = go(body)
    put_off(g)
    enough.set()
    assert is_cancelled(g)
    assert not thread.is_alive()


def test_two_threads_make_the_first_cancel() -> None:
    """What calls functions is learned then, in Python code: the other comes in the midst of it."""
    done = run_child(
        """
import sys, threading
import gmprt

def main():
    locks = [threading.Lock(), threading.Lock()]
    for lock in locks:
        lock.acquire()
    a, b = [gmprt.go(lock.acquire) for lock in locks]
    while not a.state == b.state == "waiting":
        gmprt.sleep(0.001)
    others = []

    def tracer(frame, event, arg):
        if not others:
            others.append(threading.Thread(target=b.cancel))
            others[0].start()
            others[0].join()

    sys.settrace(tracer)
    a.cancel()
    sys.settrace(None)
    print(len(others), a.join(10), b.join(10), flush=True)
    for lock in locks:
        lock.release()

gmprt.run(main)
"""
    )
    assert done.stdout == "1 True True\n"
