"""Mutex, Semaphore, WaitGroup, Once, OnceValue, once_value: between goroutines and threads."""

from __future__ import annotations

import gc
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Spawn, Thread, ended, mixed, parked

import gmprt
from gmprt import (
    AtomicInt,
    Chan,
    Mutex,
    Once,
    OnceValue,
    Select,
    Semaphore,
    WaitGroup,
    go,
    once_value,
)

Where = Callable[[Callable[[], Any]], Any]

BAD_TIMEOUTS = [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), ([], TypeError)]


# ---- Mutex -------------------------------------------------------------------------------------


def test_mutex(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        m = Mutex()
        assert not m.locked()
        assert m.lock() is True
        assert m.locked()
        assert not m.try_lock()
        assert m.lock(timeout=0) is False
        assert m.lock(0.01) is False
        t = spawn(m.lock)
        assert not t.join(0.01)
        m.unlock()
        assert t.result(PATIENCE) is True
        assert m.locked()
        m.unlock()
        assert m.try_lock()
        m.unlock()
        assert m.lock(timeout=0) is True
        m.unlock()

    where(body)


def test_mutex_as_context(where: Where) -> None:
    def body() -> None:
        m = Mutex()
        with m as same:
            assert same is m
            assert m.locked()
        assert not m.locked()
        with pytest.raises(KeyError), m:
            raise KeyError
        assert not m.locked()

    where(body)


def test_unlock_of_unlocked() -> None:
    m = Mutex()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            m.unlock()
    assert m.lock(timeout=0), "still usable"


def test_another_may_unlock(spawn: Spawn) -> None:
    m = Mutex()
    m.lock()
    spawn(m.unlock).result(PATIENCE)
    assert not m.locked()


def test_mutex_is_not_reentrant() -> None:
    m = Mutex()
    with m:
        assert m.lock(timeout=0.005) is False


@pytest.mark.parametrize(("timeout", "error"), BAD_TIMEOUTS)
def test_mutex_bad_timeout(timeout: Any, error: type[Exception]) -> None:
    m = Mutex()
    with pytest.raises(error):
        m.lock(timeout)
    with pytest.raises(error):
        m.lock(timeout=timeout)
    assert not m.locked()


def test_mutex_wrong_arguments() -> None:
    m: Any = Mutex()
    for call in (
        lambda: Mutex(1),  # type: ignore[call-arg]
        lambda: m.lock(1, 2),
        lambda: m.lock(blocking=True),
        lambda: m.try_lock(1),
        lambda: m.unlock(1),
    ):
        with pytest.raises(TypeError):
            call()


def test_mutex_excludes(procs: int) -> None:
    """With parks inside the critical section, from goroutines and threads."""
    m = Mutex()
    inside = 0
    total = 0

    def work(n: int) -> None:
        nonlocal inside, total
        for i in range(n):
            with m:
                inside += 1
                assert inside == 1
                before = total
                if i % 7 == 0:
                    gmprt.gosched()
                if i % 50 == 0:
                    gmprt.sleep(0.0001)
                total = before + 1
                inside -= 1

    for t in [mixed(i, work, 200) for i in range(8)]:
        t.result(PATIENCE)
    assert total == 1600
    assert not m.locked()


def test_mutex_waiters_do_not_starve() -> None:
    """Somebody who unlocks and locks again at once does not keep a waiter out for ever."""
    m = Mutex()
    got: list[int] = []

    def hog() -> None:
        while not got:
            with m:
                gmprt.sleep(0.0001)

    def waiter() -> None:
        with m:
            got.append(1)

    m.lock()
    hogs = [gmprt.go(hog) for _ in range(3)]
    for g in hogs:
        parked(g, "sync.Mutex.Lock")
    w = gmprt.go(waiter)
    parked(w, "sync.Mutex.Lock")
    m.unlock()
    ended(w, *hogs)


def test_a_hog_does_not_keep_the_mutex() -> None:
    """Go's TestMutexFairness: ten times in turn with somebody who never leaves it alone."""
    m, stop = Mutex(), AtomicInt()

    def hog() -> None:
        while not stop.load():
            with m:
                gmprt.sleep(0.0001)

    def other() -> None:
        for _ in range(10):
            gmprt.sleep(0.0001)
            with m:
                pass

    g = go(hog)
    h = go(other)
    h.result(PATIENCE)
    stop.store(1)
    ended(g)


def test_mutex_hammer(procs: int) -> None:
    """Go's HammerMutex: each third time it is only tried."""
    m, inside = Mutex(), AtomicInt()

    def hammer() -> None:
        for i in range(200):
            if i % 3:
                m.lock()
            elif not m.try_lock():
                continue
            assert inside.add(1) == 1
            if i % 10 == 0:
                gmprt.gosched()
            inside.add(-1)
            m.unlock()

    for t in [mixed(i, hammer) for i in range(10)]:
        t.result(PATIENCE)
    assert not m.locked()


def test_a_mutex_timeout_takes_nothing(procs: int) -> None:
    """Timeouts race with unlocks: the lock is never lost."""
    m = Mutex()
    held = 0

    def work(i: int) -> None:
        nonlocal held
        for turn in range(100):
            if m.lock(timeout=0.0001 * (turn % 5)):
                held += 1
                gmprt.gosched()
                m.unlock()

    for t in [mixed(i, work, i) for i in range(6)]:
        t.result(PATIENCE)
    assert held > 0
    assert m.try_lock()


def test_cancel_while_locking() -> None:
    m = Mutex()
    m.lock()
    g = gmprt.go(m.lock)
    parked(g, "sync.Mutex.Lock")
    h = gmprt.go(m.lock)
    parked(h)
    g.cancel("no more")
    error = g.exception(PATIENCE)
    assert isinstance(error, gmprt.GoroutineCancelled)
    assert error.reason == "no more"
    m.unlock()
    assert h.result(PATIENCE) is True


# ---- Semaphore ---------------------------------------------------------------------------------


def test_semaphore(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        s = Semaphore(2)
        assert s.value == 2
        assert s.acquire()
        assert s.try_acquire()
        assert not s.try_acquire()
        assert s.acquire(timeout=0) is False
        assert s.acquire(timeout=0.01) is False
        assert s.value == 0
        t = spawn(s.acquire)
        assert not t.join(0.01)
        s.release()
        assert t.result(PATIENCE) is True
        s.release(3)
        assert s.value == 3
        with s as same:
            assert same is s
            assert s.value == 2
        assert s.value == 3

    where(body)


def test_semaphore_starts_at_one() -> None:
    s = Semaphore()
    assert s.value == 1
    assert Semaphore(value=0).value == 0


def test_semaphore_serves_in_order() -> None:
    s = Semaphore(0)
    order: Chan[int] = Chan()

    def take(i: int) -> None:
        s.acquire()
        order.send(i)

    tasks = []
    for i in range(5):
        tasks.append(gmprt.go(take, i))
        parked(tasks[-1], "semacquire")
    for i in range(5):
        s.release()
        assert order.recv(timeout=PATIENCE) == i
    ended(*tasks)


def test_release_of_many_wakes_many() -> None:
    s = Semaphore(0)
    tasks = [mixed(i, s.acquire, timeout=PATIENCE) for i in range(10)]
    s.release(10)
    assert all(t.result(PATIENCE) for t in tasks)
    assert s.value == 0


@pytest.mark.parametrize("value", [-1, 2**32, 2**62, -(2**62)])
def test_semaphore_bad_value(value: int) -> None:
    with pytest.raises(ValueError):
        Semaphore(value)


@pytest.mark.parametrize("value", ["1", 1.0, None, []])
def test_semaphore_value_of_the_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError):
        Semaphore(value)


def test_semaphore_bad_release() -> None:
    s = Semaphore(1)
    for n in (0, -1, 2**32, 2**32 - 1):
        with pytest.raises(ValueError):
            s.release(n)
    with pytest.raises(TypeError):
        s.release("1")  # type: ignore[arg-type]
    assert s.value == 1


@pytest.mark.parametrize(("timeout", "error"), BAD_TIMEOUTS)
def test_semaphore_bad_timeout(timeout: Any, error: type[Exception]) -> None:
    s = Semaphore()
    with pytest.raises(error):
        s.acquire(timeout=timeout)
    assert s.value == 1


def test_semaphore_bounds(procs: int) -> None:
    s = Semaphore(3)
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        for i in range(100):
            with s:
                inside += 1
                most = max(most, inside)
                if i % 10 == 0:
                    gmprt.sleep(0.0002)
                else:
                    gmprt.gosched()
                inside -= 1

    for t in [mixed(i, work) for i in range(8)]:
        t.result(PATIENCE)
    assert 1 < most <= 3
    assert s.value == 3


def test_semaphore_timeouts_lose_nothing(procs: int) -> None:
    s = Semaphore(1)

    def work() -> None:
        for turn in range(100):
            if s.acquire(timeout=0.0001 * (turn % 4)):
                gmprt.gosched()
                s.release()

    for t in [mixed(i, work) for i in range(6)]:
        t.result(PATIENCE)
    assert s.value == 1


def test_cancel_while_acquiring() -> None:
    s = Semaphore(0)
    g = gmprt.go(s.acquire)
    parked(g, "semacquire")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    s.release()
    assert s.value == 1


# ---- WaitGroup ---------------------------------------------------------------------------------


def test_waitgroup(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        wg = WaitGroup()
        assert wg.wait() is True
        wg.add(2)
        wg.add()
        assert wg.count == 3
        assert wg.wait(timeout=0) is False
        assert wg.wait(0.01) is False
        waiters = [spawn(wg.wait) for _ in range(3)]
        wg.done()
        wg.add(-1)
        assert not any(w.join(0.002) for w in waiters)
        wg.done()
        assert [w.result(PATIENCE) for w in waiters] == [True] * 3
        wg.add()  # usable again
        assert wg.wait(0) is False
        wg.done()
        assert wg.wait(0) is True

    where(body)


def test_waitgroup_go(where: Where) -> None:
    def body() -> None:
        wg = WaitGroup()
        results: list[int] = []

        def work(i: int, *, factor: int) -> int:
            gmprt.sleep(0.001)
            results.append(i * factor)
            return i

        goroutines = [wg.go(work, i, factor=10) for i in range(20)]
        assert wg.wait(PATIENCE)
        assert sorted(results) == [10 * i for i in range(20)]
        assert [g.result(PATIENCE) for g in goroutines] == list(range(20))

    where(body)


def test_waitgroup_go_and_the_collector() -> None:
    """The collector's callbacks may let a goroutine end in the middle of its go()."""

    def pause(phase: str, info: object) -> None:
        time.sleep(0.0002)

    wg = WaitGroup()
    gc.callbacks.append(pause)
    try:
        for _ in range(5000):
            wg.go(int)
    finally:
        gc.callbacks.remove(pause)
    assert wg.wait(5), wg.count


def test_waitgroup_counts_failures_and_cancels() -> None:
    wg = WaitGroup()
    bad = wg.go(lambda: 1 / 0)
    stuck = wg.go(Chan().recv)
    exits = wg.go(gmprt.goexit)
    parked(stuck)
    stuck.cancel()
    assert wg.wait(PATIENCE)
    assert isinstance(bad.exception(), ZeroDivisionError)
    assert stuck.cancelled()
    ended(exits)


def test_waitgroup_below_zero() -> None:
    wg = WaitGroup()
    with pytest.raises(ValueError):
        wg.done()
    with pytest.raises(ValueError):
        wg.add(-1)
    wg.add(2)
    with pytest.raises(ValueError):
        wg.add(-3)
    assert wg.count == 2


def test_waitgroup_bad_arguments() -> None:
    wg: Any = WaitGroup()
    calls: list[Callable[[], Any]] = [
        lambda: WaitGroup(1),  # type: ignore[call-arg]
        lambda: wg.add("1"),
        lambda: wg.add(1.5),
        lambda: wg.done(1),
        lambda: wg.go(),
        lambda: wg.go(None),
        lambda: wg.wait("1"),
        lambda: wg.wait(1, 2),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    wg.add(2**62)
    with pytest.raises(ValueError):
        wg.add(2**63 - 1)
    assert wg.wait(0) is False
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError):
            wg.wait(timeout)
    wg.add(-wg.count)
    assert wg.wait()


def test_cancel_while_waiting() -> None:
    wg = WaitGroup()
    wg.add()
    g = gmprt.go(wg.wait)
    parked(g, "sync.WaitGroup.Wait")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    wg.done()
    assert wg.wait(0)


def test_waitgroup_in_a_crowd(procs: int) -> None:
    wg = WaitGroup()
    count = 0

    def work() -> None:
        nonlocal count
        count += 1

    for _ in range(2000):
        wg.go(work)
    waiters = [mixed(i, wg.wait, PATIENCE) for i in range(4)]
    assert all(w.result(PATIENCE) for w in waiters)
    assert count == 2000


def test_waitgroup_is_a_barrier(procs: int) -> None:
    """Go's TestWaitGroup: two of them, used eight times."""
    one, two, n = WaitGroup(), WaitGroup(), 16
    for _ in range(8):
        one.add(n)
        two.add(n)
        exited: Chan[int] = Chan(n)

        def work(exited: Chan[int] = exited) -> None:
            one.done()
            two.wait()
            exited.send(1)

        tasks = [mixed(i, work) for i in range(n)]
        assert one.wait(PATIENCE)
        for _ in range(n):
            assert len(exited) == 0, "released too soon"
            two.done()
        assert [exited.recv(timeout=PATIENCE) for _ in range(n)] == [1] * n
        for t in tasks:
            t.result(PATIENCE)


def test_waitgroup_wakes_nobody_too_soon(procs: int) -> None:
    """Go's TestWaitGroupRace."""
    for i in range(100):
        wg, n = WaitGroup(), AtomicInt()

        def work(wg: WaitGroup = wg, n: AtomicInt = n) -> None:
            n.add(1)
            wg.done()

        tasks = []
        for k in range(2):
            wg.add(1)
            tasks.append(mixed(k * (i % 10 == 0), work))
        assert wg.wait(PATIENCE)
        assert n.load() == 2
        for t in tasks:
            t.result(PATIENCE)


# ---- Once --------------------------------------------------------------------------------------


def test_once(procs: int) -> None:
    once = Once()
    calls: list[int] = []
    seen: list[int] = []

    def first() -> None:
        gmprt.sleep(0.005)
        calls.append(1)

    def use() -> None:
        once.do(first)
        seen.append(len(calls))

    for t in [mixed(i, use) for i in range(20)]:
        t.result(PATIENCE)
    assert calls == [1]
    assert seen == [1] * 20, "nobody passes before the call has returned"


def test_once_that_fails_counts_as_done() -> None:
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.do(lambda: 1 / 0)
    once.do(lambda: pytest.fail("again"))


def test_once_of_garbage() -> None:
    once = Once()
    for fn in (None, 1, "f"):
        with pytest.raises(TypeError, match=r"\(\): fn must be callable, not "):
            once.do(fn)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"\(\): fn must be callable, not "):
            once_value(fn)  # type: ignore[arg-type]
    calls: list[int] = []
    once.do(lambda: calls.append(1))
    assert calls == [1], "garbage counts as nothing"


def test_once_value() -> None:
    calls: list[int] = []

    @once_value
    def answer() -> object:
        """The docstring."""
        calls.append(1)
        gmprt.sleep(0.002)
        return object()

    got = [t.result(PATIENCE) for t in [mixed(i, answer) for i in range(10)]]
    assert len(set(map(id, got))) == 1
    assert calls == [1]
    assert answer.__doc__ == "The docstring."
    assert answer.__name__ == "answer"


class Resource:
    def make(self) -> str:
        return "made"

    def fail(self) -> None:
        raise LookupError


@pytest.mark.parametrize("fails", [False, True])
def test_once_value_lets_its_function_go(fails: bool) -> None:
    """Go's TestOnceXGC."""
    held = Resource()
    gone = weakref.ref(held)
    value: OnceValue[Any] = OnceValue(held.fail if fails else held.make)
    del held
    gc.collect()
    assert gone() is not None
    if fails:
        with pytest.raises(LookupError) as caught:
            value()
        caught.value.with_traceback(None)
        del caught
        value._error = LookupError(), None
    else:
        assert value() == "made"
    gc.collect()
    assert gone() is None


def test_once_value_by_its_class() -> None:
    @once_value
    def answer() -> int:
        return 42

    assert isinstance(answer, OnceValue)
    assert answer() == OnceValue(lambda: 42)() == 42
    assert OnceValue[int].__origin__ is OnceValue  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^OnceValue\(\): fn must be callable, not int$"):
        OnceValue(1)  # type: ignore[arg-type]


def test_once_value_that_fails() -> None:
    calls: list[int] = []

    @once_value
    def answer() -> None:
        calls.append(1)
        raise LookupError("no")

    errors = []
    for _ in range(3):
        with pytest.raises(LookupError) as caught:
            answer()
        errors.append(caught.value)
    assert errors[0] is errors[1] is errors[2]
    assert calls == [1]
    depth = 0
    tb = errors[0].__traceback__
    while tb:
        depth += 1
        tb = tb.tb_next
    assert depth < 8, "the traceback grows with each raise"


def test_once_value_shows_where_it_failed() -> None:
    """Go's TestOnceFuncPanicTraceback; and so the next time."""

    def the_culprit() -> None:
        raise LookupError

    value = OnceValue(the_culprit)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            value()
        assert "the_culprit" in [entry.name for entry in caught.traceback]


def test_once_and_goexit() -> None:
    """Go's TestOnceFuncGoexit.  Once has done it; a value that did not come is asked for again."""
    calls: list[int] = []

    def leave() -> None:
        calls.append(1)
        gmprt.goexit()

    value, once = OnceValue(leave), Once()
    for use, times in ((value, 2), (lambda: once.do(leave), 1)):
        calls.clear()
        for _ in range(2):
            assert go(use).result(PATIENCE) is None
        assert len(calls) == times


def test_once_value_cancelled_is_tried_again() -> None:
    gate: Chan[int] = Chan()

    @once_value
    def answer() -> int:
        return gate.recv()

    g = gmprt.go(answer)
    parked(g, "chan receive")
    h = gmprt.go(answer)
    parked(h, "sync.Mutex.Lock")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    gate.send(42, timeout=PATIENCE)
    assert h.result(PATIENCE) == 42
    assert answer() == 42


# ---- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Mutex", "Semaphore", "WaitGroup"])
def test_a_wait_with_patience_is_short_when_served(kind: str) -> None:
    """A wait with a timeout ends when served, not when the time is over."""
    if kind == "Mutex":
        m = Mutex()
        m.lock()
        wait, serve = m.lock, m.unlock
    elif kind == "Semaphore":
        s = Semaphore(0)
        wait, serve = s.acquire, s.release
    else:
        wg = WaitGroup()
        wg.add()
        wait, serve = wg.wait, wg.done
    begun = time.monotonic()
    tasks: list[Any] = [gmprt.go(wait, timeout=1000.0)]
    if kind != "Mutex":
        tasks.append(Thread(wait, timeout=1000.0))
    parked(tasks[0])
    for _ in range(1 if kind != "Semaphore" else 2):
        serve()
    assert all(t.result(PATIENCE) for t in tasks)
    assert time.monotonic() - begun < 500


def test_what_is_no_timeout() -> None:
    """True is what threading's acquire() calls blocking; errors name the argument."""
    semaphore = Semaphore()
    for wrong in (True, False, 1, None):
        with pytest.raises(TypeError, match="by name"):
            semaphore.acquire(wrong)  # type: ignore[call-arg]
    strict: list[Callable[..., object]] = [
        semaphore.acquire,
        Mutex().lock,
        WaitGroup().wait,
        go(int).join,
        go(int).result,
        go(int).exception,
    ]
    others: list[Callable[..., object]] = [
        lambda timeout: Chan(1).send(1, timeout=timeout),
        Chan().recv,
        Chan().recv_ok,
        gmprt.select,
        Select(),
        gmprt.native.chan("int").recv,
    ]
    for call in strict:
        with pytest.raises(TypeError, match=r"timeout must be .* not bool"):
            call(timeout=True)
    for call in strict + others:
        for wrong in ("1", [], 1j, object()):
            with pytest.raises(TypeError, match=f"timeout must be .* not {type(wrong).__name__}"):
                call(timeout=wrong)
        for wrong in (-1, math.nan):
            with pytest.raises(ValueError, match="timeout"):
                call(timeout=wrong)
    assert semaphore.value == 1
    for seconds in (gmprt.sleep, gmprt.after, gmprt.Timer, gmprt.Ticker, gmprt.tick):
        for wrong in ("1", None):
            with pytest.raises(TypeError, match=f"seconds must be .* {type(wrong).__name__}"):
                seconds(wrong)  # type: ignore[operator]
    with pytest.raises(TypeError, match="seconds must be"):
        gmprt.after_func("1", int)  # type: ignore[arg-type]
