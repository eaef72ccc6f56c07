"""Locks of the interpreter held across everything that may happen to a goroutine.

Whoever holds one parks, is preempted, blocks in C code, and comes back on another thread; the lock
stays his, and nobody else's.
"""

from __future__ import annotations

import importlib
import io
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import DEBUG_311, PATIENCE, c_sleep, compiled, mixed, run_child

import gmprt
from gmprt import go


def busy() -> None:
    """Longer than a slice: if others wait, this is where it is preempted."""
    end = time.thread_time() + 0.012
    while time.thread_time() < end:
        pass


AWAY: list[Callable[[], object]] = [
    gmprt.gosched,
    lambda: gmprt.sleep(0.0002),
    lambda: time.sleep(0.0002),
    lambda: c_sleep(0.0005),
    lambda: go(int).join(),
    lambda: [gmprt.gosched() for _ in range(5)],
]


class Away:
    """Ways to be away for a moment; now and then a long stretch of work."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __call__(self) -> None:
        if self.random.random() < 0.02:
            busy()
        else:
            self.random.choice(AWAY)()


def all_done(tasks: list[Any]) -> None:
    for task in tasks:
        task.result(PATIENCE)


@pytest.mark.parametrize("kind", [threading.RLock, threading._RLock])  # type: ignore[attr-defined]
def test_rlock(kind: Any, procs: int) -> None:
    lock = kind()
    owner: int | None = None
    turns = 0

    def work(i: int) -> None:
        nonlocal owner, turns
        away = Away(i)
        me = threading.get_ident()
        for _ in range(15):
            assert not lock._is_owned()
            with lock:
                assert owner is None
                owner = me
                away()
                with lock:
                    assert owner == me == threading.get_ident()
                    away()
                assert lock._is_owned()
                assert owner == me
                owner = None
                turns += 1
            with pytest.raises(RuntimeError):
                lock.release()

    all_done([mixed(i % 4 == 0, work, i) for i in range(20)])
    assert turns == 300
    assert lock.acquire(blocking=False)
    lock.release()


def test_condition(procs: int) -> None:
    """A buffer of three places, by the book."""
    cond = threading.Condition()
    buffer: deque[int] = deque()
    got: list[int] = []
    inside = 0

    def alone(away: Away) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        away()
        assert inside == 1
        inside -= 1

    def produce(i: int) -> None:
        away = Away(i)
        for n in range(20):
            with cond:
                assert cond.wait_for(lambda: len(buffer) < 3, PATIENCE)
                alone(away)
                buffer.append(i * 100 + n)
                assert len(buffer) <= 3
                cond.notify_all()

    def consume(i: int) -> None:
        away = Away(-i)
        for _ in range(20):
            with cond:
                assert cond.wait_for(lambda: buffer, PATIENCE)
                alone(away)
                got.append(buffer.popleft())
                cond.notify_all()

    producers = [mixed(i % 3 == 0, produce, i) for i in range(6)]
    consumers = [mixed(i % 3 == 0, consume, i) for i in range(6)]
    all_done(producers + consumers)
    assert sorted(got) == sorted(i * 100 + n for i in range(6) for n in range(20))
    assert not buffer


def test_buffered_writer(procs: int) -> None:
    """Its lock is held while its raw file is away."""
    written = bytearray()
    inside = 0
    away = Away(1)

    class Raw(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            nonlocal inside
            inside += 1
            assert inside == 1
            data = bytes(data)[:50]  # the writer comes again for the rest
            away()
            written.extend(data)
            assert inside == 1
            inside -= 1
            return len(data)

    out = io.BufferedWriter(Raw(), 128)

    def work(i: int) -> None:
        for n in range(30):
            out.write(f"{i:03d}:{n:03d}\n".encode())
            if n % 10 == 0:
                out.flush()

    all_done([mixed(i % 4 == 0, work, i) for i in range(16)])
    out.flush()
    lines = written.decode().splitlines()
    assert sorted(lines) == sorted(f"{i:03d}:{n:03d}" for i in range(16) for n in range(30))


MODULE = """
import gmprt, time
from test_locks import Away
runs = globals().get("runs", 0) + 1
away = Away({seed})
for _ in range(10):
    away()
{imports}
complete = True
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Modules that take their time, some of which import each other in circles."""
    name = f"slow_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    imports = {
        "a": f"from {name} import b",
        "b": f"import {name}.c",
        "c": f"import {name}.a",  # a circle
        "d": f"from {name} import a, e",
        "e": "",
        "__init__": "",
    }
    for seed, (module, text) in enumerate(imports.items()):
        (folder / f"{module}.py").write_text(MODULE.format(seed=seed, imports=text))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return name


def test_import_in_progress(package: str, procs: int) -> None:
    """Everybody waits for the one who imports, whatever that one goes through; once is enough."""

    def work(i: int) -> list[Any]:
        names = ["d", "a", "e", "c", "b"]
        random.Random(i).shuffle(names)
        modules = [importlib.import_module(f"{package}.{name}") for name in names]
        return [(m.__name__, m.runs) for m in modules if m.__name__.endswith(("d", "e"))]

    try:
        tasks = [mixed(i % 4 == 0, work, i) for i in range(20)]
        results = [task.result(PATIENCE) for task in tasks]
        expected = [(f"{package}.d", 1), (f"{package}.e", 1)]
        assert [sorted(result) for result in results] == [expected] * 20
        for name in "abcde":
            assert sys.modules[f"{package}.{name}"].complete  # type: ignore[attr-defined]
            assert sys.modules[f"{package}.{name}"].runs == 1  # type: ignore[attr-defined]
    finally:
        for module in [m for m in sys.modules if m.startswith(package)]:
            del sys.modules[module]


def test_they_did_go_through_it(procs: int) -> None:
    """These tests are worth something: there are preemptions and other threads."""
    lock = threading.RLock()
    before = gmprt.stats().preemptions
    moved = 0

    def work(i: int) -> None:
        nonlocal moved
        away = Away(i)
        for _ in range(4):
            with lock:
                first = threading.get_native_id()
                busy()
                away()
                c_sleep(0.0005)
                gmprt.gosched()
                moved += threading.get_native_id() != first

    end = time.monotonic() + PATIENCE
    while (not DEBUG_311 and gmprt.stats().preemptions == before) or moved == 0:
        assert time.monotonic() < end, moved
        all_done([go(work, i) for i in range(6)])


# ---- the locks of the parking lot itself ---------------------------------------------------------

BUCKET = r"""
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
typedef void unpark(void *, void *, int);
void _PyParkingLot_Unpark(const void *, unpark *, void *);
static char spot;
static atomic_int held, begun, tids[2];
static int asleep(int i) {
  char path[64], text[512] = "";
  int tid = atomic_load(&tids[i]);
  if (!tid) return 0;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  char *end = strrchr(text, ')');
  return end && end[2] == 'S';
}
static void nothing(void *arg, void *parked, int more) {}
static void hold(void *arg, void *parked, int more) {
  atomic_store(&held, 1);
  while (!asleep(0) || !asleep(1)) usleep(100);
}
static void want(int i) {
  atomic_store(&tids[i], (int)syscall(SYS_gettid));
  _PyParkingLot_Unpark(&spot, nothing, NULL);
}
/* The first has the bucket; behind it, in this order, one that has the GIL, one that has not. */
void first(void) { _PyParkingLot_Unpark(&spot, hold, NULL); }
void with_gil(void) {
  while (!atomic_load(&held)) usleep(100);
  want(0);
}
int has_begun(void) { return atomic_load(&begun); }
void without_gil(void) {
  atomic_store(&begun, 1);
  while (!asleep(0)) usleep(100);
  want(1);
}
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="locks are semaphores of the C library")
@pytest.mark.parametrize("procs", [1, 4])
def test_who_wants_a_bucket_of_the_parking_lot_needs_no_gil(tmp_path: Path, procs: int) -> None:
    """The last comer is told alone; before him one waits who keeps the GIL."""
    code = """
        import ctypes, sys, threading, gmprt
        gmprt.gomaxprocs(int(sys.argv[2]))
        free, kept = ctypes.CDLL(sys.argv[1]), ctypes.PyDLL(sys.argv[1])
        first = threading.Thread(target=free.first)
        first.start()
        last = gmprt.go(free.without_gil)
        while not free.has_begun():
            gmprt.gosched()
        gmprt.go(kept.with_gil).join()
        last.join()
        first.join()
        print("done")
    """
    library = compiled(tmp_path, BUCKET)
    assert run_child(code, args=[str(library), str(procs)]).stdout == "done\n"


# ---- taken without the interpreter: csrc/py/interpose/lock.c ----------------------------------


def test_release_knows_how_a_lock_was_taken() -> None:
    """Free or handed over, by either way: it is locked, and can be released once."""
    lock = threading.Lock()

    def handed_over(take: Callable[[], object]) -> None:
        with lock:
            waiter = go(take)
            gmprt.gosched()
            assert not waiter.done()
        assert waiter.result(PATIENCE) is True
        assert lock.locked()
        lock.release()
        assert not lock.locked()
        with pytest.raises(RuntimeError, match="unlocked"):
            lock.release()

    def scene() -> None:
        for take in (lock.acquire, lock.__enter__, lambda: lock.acquire(True)):
            assert take() is True
            assert lock.locked()
            assert not lock.acquire(blocking=False)
            lock.release()
            with pytest.raises(RuntimeError, match="unlocked"):
                lock.release()
            handed_over(take)

    go(scene).result(PATIENCE)


def test_who_asks_takes_it_if_it_is_free() -> None:
    """acquire(False), which parses nothing; all other ways to say so."""
    lock = threading.Lock()
    ways: list[Callable[[], bool]] = [
        lambda: lock.acquire(False),
        lambda: lock.acquire(blocking=False),
        lambda: lock.acquire(0),
        lambda: lock.acquire_lock(False),
        lambda: lock.acquire(False, -1),
        lambda: lock.acquire(True, 0),
    ]

    def asked() -> None:
        for way in ways:
            assert (way(), lock.locked(), way(), lock.locked()) == (True, True, False, True)
            lock.release()
            assert not lock.locked()
        with pytest.raises(RuntimeError):
            lock.release()
        with pytest.raises(ValueError):
            lock.acquire(False, 1)

    go(asked).result(PATIENCE)
    asked()  # on this thread
    assert lock.acquire(False)
    waiter = go(lock.acquire)  # taken so, it is handed over as ever
    gmprt.gosched()
    lock.release()
    assert waiter.result(PATIENCE)
    assert lock.locked()


def test_a_cancel_ends_the_wait_and_leaves_the_lock() -> None:
    lock = threading.Lock()

    def scene() -> None:
        with lock:
            waiters = [go(lock.acquire) for _ in range(3)]
            gmprt.gosched()
            waiters[0].cancel()
            with pytest.raises(gmprt.GoroutineCancelled):
                waiters[0].result(PATIENCE)
        others = set(waiters[1:])
        while others:
            done = next((waiter for waiter in others if waiter.done()), None)
            if done is None:
                gmprt.gosched()
                continue
            others.remove(done)
            assert done.result() is True
            assert lock.locked()
            assert not any(waiter.done() for waiter in others)
            lock.release()
        assert not lock.locked()

    go(scene).result(PATIENCE)


def test_a_lock_changes_hands_between_goroutines_and_threads() -> None:
    """Both kinds wait for the same semaphore, each in its own way: no post is lost."""
    lock, turns, mine = threading.Lock(), 300, [0]

    def take() -> None:
        for _ in range(turns):
            with lock:
                seen = mine[0]
                gmprt.gosched()
                mine[0] = seen + 1

    def ordinary() -> None:
        for _ in range(turns):
            with lock:
                mine[0] += 1

    threads = [threading.Thread(target=ordinary) for _ in range(2)]
    goroutines = [go(take) for _ in range(3)]
    for thread in threads:
        thread.start()
    all_done(goroutines)
    for thread in threads:
        thread.join(PATIENCE)
    assert mine == [5 * turns]
