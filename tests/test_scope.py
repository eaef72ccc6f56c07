"""csrc/py/host/scope.c: whose cancel it is, and when it is delivered: shield(), fail_after(),
move_on_after(), and the scope of a context."""

from __future__ import annotations

import gc
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE, Thread, ended, eventually, parked, run_child

import gmprt
from gmprt import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    GoroutineCancelled,
    Mutex,
    Semaphore,
    WaitGroup,
    context,
    fail_after,
    go,
    move_on_after,
    select,
    shield,
)

SOON = 0.02
NEVER = 1000.0


# ---- all kinds of waits ------------------------------------------------------------------------


class Wait:
    """One kind: `wait` waits for ever, or until `release` is called."""

    def __init__(self, wait: Callable[[], object], release: Callable[[], object]) -> None:
        self.wait, self.release = wait, release


def of_chan() -> Iterator[Wait]:
    ch = Chan[int]()
    yield Wait(ch.recv, lambda: ch.send(1))


def of_send() -> Iterator[Wait]:
    ch = Chan[int]()
    yield Wait(lambda: ch.send(1), ch.recv)


def of_select() -> Iterator[Wait]:
    a, b = Chan[int](), Chan[int]()
    yield Wait(lambda: select(a, b), lambda: b.send(1))


def of_mutex() -> Iterator[Wait]:
    mutex = Mutex()
    mutex.lock()
    yield Wait(mutex.lock, mutex.unlock)


def of_semaphore() -> Iterator[Wait]:
    semaphore = Semaphore(0)
    yield Wait(semaphore.acquire, semaphore.release)


def of_waitgroup() -> Iterator[Wait]:
    group = WaitGroup()
    group.add()
    yield Wait(group.wait, group.done)


def of_join() -> Iterator[Wait]:
    ch = Chan[int]()
    g = go(ch.recv)
    yield Wait(g.join, lambda: ch.send(1))
    g.cancel()
    ended(g)


def of_lock() -> Iterator[Wait]:
    lock = threading.Lock()
    lock.acquire()
    yield Wait(lock.acquire, lock.release)


def of_event() -> Iterator[Wait]:
    event = threading.Event()
    yield Wait(event.wait, event.set)


def of_socket() -> Iterator[Wait]:
    a, b = socket.socketpair()
    with a, b:
        yield Wait(lambda: a.recv(1), lambda: b.send(b"x"))


def of_pipe() -> Iterator[Wait]:
    r, w = os.pipe()
    yield Wait(lambda: os.read(r, 1), lambda: os.write(w, b"x"))
    os.close(r)
    os.close(w)


def of_child() -> Iterator[Wait]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield Wait(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT), child.kill)
        child.kill()


KINDS = {
    name: contextmanager(globals()[f"of_{name}"])
    for name in (
        *("chan", "send", "select", "mutex", "semaphore", "waitgroup", "join"),
        *("lock", "event", "socket", "pipe", "child"),
    )
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_shielded_wait_goes_on(kind: str) -> None:
    """The cancel is kept, and ends the first wait after the block."""
    with KINDS[kind]() as it:
        steps: list[str] = []

        def body() -> None:
            with shield():
                it.wait()
                steps.append("waited")
            steps.append("left")
            gmprt.sleep(NEVER)

        g = go(body)
        parked(g)
        assert g.cancel("why")
        for _ in range(50):
            gmprt.sleep(0)
        parked(g)
        assert not steps
        it.release()
        error = g.exception(PATIENCE)
        assert isinstance(error, GoroutineCancelled)
        assert (error.reason, steps) == ("why", ["waited", "left"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_ends_in_time(kind: str) -> None:
    def body(it: Wait) -> None:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"deadline exceeded: the block had 0\.02 s"):
            with fail_after(SOON) as scope:
                it.wait()
        assert time.monotonic() - before >= SOON
        assert scope.expired
        with move_on_after(SOON) as scope:
            it.wait()
            raise AssertionError
        assert scope.expired
        releaser = go(it.release)  # nobody stands there any more
        with fail_after(PATIENCE) as scope:
            it.wait()
        assert not scope.expired
        ended(releaser)
        gmprt.sleep(0.001)

    with KINDS[kind]() as it:
        go(body, it).result(PATIENCE)


@pytest.mark.parametrize("sleep", [time.sleep, gmprt.sleep])
def test_sleeps(sleep: Callable[[float], object]) -> None:
    def body() -> None:
        with move_on_after(SOON) as scope:
            sleep(NEVER)
        assert scope.expired
        with move_on_after(SOON):
            with shield():
                before = time.monotonic()
                sleep(3 * SOON)
                assert time.monotonic() - before >= 3 * SOON
            sleep(NEVER)

    go(body).result(PATIENCE)


# ---- shield ------------------------------------------------------------------------------------


def test_shields_nest() -> None:
    steps: list[int] = []

    def body() -> None:
        me = gmprt.current()
        assert me
        with shield():
            with shield():
                me.cancel(1)
                gmprt.sleep(0.001)
            steps.append(1)
            gmprt.sleep(0.001)
            steps.append(2)
            me.cancel(2)  # before the first was delivered: one
        steps.append(3)
        with pytest.raises(Cancelled) as caught:
            gmprt.sleep(NEVER)
        steps.append(caught.value.reason)  # type: ignore[arg-type]
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)
    assert steps == [1, 2, 3, 2]


def test_a_cancel_that_is_pending_waits_too() -> None:
    def body() -> None:
        me = gmprt.current()
        assert me
        me.cancel()
        with shield():
            gmprt.sleep(0.001)
            time.sleep(0.001)
        with pytest.raises(Cancelled):
            time.sleep(NEVER)

    go(body).result(PATIENCE)


def test_one_that_is_pending_when_a_cond_is_waited_for() -> None:
    """The knock is for nothing there; no signal is lost by it."""
    mutex, signalled = Mutex(), list[int]()
    cond = gmprt.Cond(mutex)

    def signal() -> None:
        with mutex:
            signalled.append(1)
            cond.signal()

    def body() -> None:
        me = gmprt.current()
        assert me
        me.cancel()
        with shield(), mutex:
            helper = go(signal)
            while not signalled:
                cond.wait()
        with pytest.raises(Cancelled):
            with mutex:
                cond.wait()
        ended(helper)

    go(body).result(PATIENCE)


def test_a_block_in_a_shield_has_a_deadline_of_its_own() -> None:
    """To say goodbye, but not for ever."""

    def body() -> None:
        me = gmprt.current()
        assert me
        me.cancel("outside")
        with shield():
            with move_on_after(SOON) as scope:
                gmprt.sleep(NEVER)
            assert scope.expired
            gmprt.sleep(0.001)
        with pytest.raises(Cancelled) as caught:
            gmprt.sleep(NEVER)
        assert caught.value.reason == "outside"

    go(body).result(PATIENCE)


def test_a_deadline_that_passes_under_a_shield() -> None:
    def body() -> None:
        with move_on_after(SOON) as scope:
            with shield():
                gmprt.sleep(3 * SOON)
            assert not scope.expired
            gmprt.sleep(NEVER)
        assert scope.expired
        with move_on_after(SOON) as scope:
            with shield():
                gmprt.sleep(3 * SOON)  # and the block ends without a wait
        assert not scope.expired
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_in_a_thread_there_is_nothing_to_shield_from(where: Callable[[Any], Any]) -> None:
    def body() -> None:
        with shield() as scope:
            gmprt.sleep(0.001)
        assert not scope.expired

    where(body)


def test_a_deadlock_is_found_under_a_shield() -> None:
    done = run_child(
        """
        import gmprt
        def main():
            with gmprt.shield():
                gmprt.Chan().recv()
        try:
            gmprt.run(main)
        except gmprt.Deadlock:
            print("found")
        """
    )
    assert done.stdout == "found\n"


def test_run_cancels_when_the_shield_is_left() -> None:
    steps: list[str] = []

    def child() -> None:
        try:
            with shield():
                gmprt.sleep(3 * SOON)
            steps.append("shield")
            gmprt.sleep(NEVER)
        finally:
            steps.append("finally")

    def main() -> None:
        parked(go(child))

    gmprt.run(main)
    assert steps == ["shield", "finally"]


# ---- whose cancel it is --------------------------------------------------------------------------


@pytest.mark.parametrize("inner_first", [True, False])
def test_nested_deadlines(inner_first: bool) -> None:
    def body() -> None:
        with move_on_after(NEVER if inner_first else SOON) as outer:
            with move_on_after(SOON if inner_first else NEVER) as inner:
                gmprt.sleep(NEVER)
            assert inner.expired
        assert (outer.expired, inner.expired) == (not inner_first, inner_first)
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_both_are_over() -> None:
    """The outer one counts, and nothing is left of the other."""

    def body() -> None:
        inner = move_on_after(0.005)

        def blocks() -> None:
            with fail_after(0.01), inner:
                deadline = time.monotonic() + 0.03
                while time.monotonic() < deadline:
                    pass
                gmprt.sleep(NEVER)

        with pytest.raises(DeadlineExceeded, match=r"the block had 0\.01 s"):
            blocks()
        assert not inner.expired
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_somebody_elses_cancel_passes() -> None:
    seen: list[Any] = []

    def body() -> None:
        try:
            with fail_after(NEVER) as outer, move_on_after(NEVER) as inner:
                gmprt.sleep(NEVER)
        finally:
            seen.extend((outer.expired, inner.expired))

    g = go(body)
    parked(g)
    g.cancel("mine")
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert error.reason == "mine"
    assert seen == [False, False]


def test_a_cancel_that_comes_besides_is_not_lost() -> None:
    """While the block is being left for its deadline."""

    def body() -> None:
        me = gmprt.current()
        assert me
        with move_on_after(SOON) as scope:
            try:
                gmprt.sleep(NEVER)
            finally:
                me.cancel("besides")
        assert scope.expired
        with pytest.raises(Cancelled) as caught:
            gmprt.sleep(NEVER)
        assert caught.value.reason == "besides"
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_a_cancel_comes_before_a_deadline_that_is_over() -> None:
    def body() -> None:
        me = gmprt.current()
        assert me
        with move_on_after(0) as scope:
            me.cancel("first")
            with pytest.raises(Cancelled) as caught:
                gmprt.sleep(NEVER)
            assert caught.value.reason == "first"
            gmprt.sleep(NEVER)  # and now the deadline's
        assert scope.expired
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_it_is_told_by_the_exception_itself() -> None:
    """One of another block, raised again here, is not ours."""

    def body() -> None:
        kept: list[BaseException] = []
        with move_on_after(0):
            try:
                gmprt.sleep(NEVER)
            except Cancelled as error:
                kept.append(error)
                raise
        with pytest.raises(Cancelled):
            with move_on_after(NEVER) as scope:
                raise kept[0]
        assert not scope.expired

    go(body).result(PATIENCE)


def test_who_swallows_it_goes_on() -> None:
    """Once: as g.cancel() is."""

    def body() -> str:
        with fail_after(0) as scope:
            with pytest.raises(Cancelled) as caught:
                gmprt.sleep(NEVER)
            assert caught.value.reason == "deadline exceeded"
            gmprt.sleep(0.001)
            assert scope.expired
        return "left in peace"

    assert go(body).result(PATIENCE) == "left in peace"


def test_another_exception_goes_on() -> None:
    def block() -> None:
        with fail_after(0):
            try:
                gmprt.sleep(NEVER)
            except Cancelled:
                raise ZeroDivisionError from None

    def body() -> None:
        with pytest.raises(ZeroDivisionError):
            block()
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_deadline_exceeded() -> None:
    def body() -> None:
        with pytest.raises(TimeoutError) as caught:
            with fail_after(0):
                gmprt.sleep(NEVER)
        error = caught.value
        assert isinstance(error, DeadlineExceeded)
        assert isinstance(error, gmprt.Error)
        assert isinstance(error.__cause__, Cancelled)
        assert error.__cause__.__traceback__ is not None  # it says which wait it was

    go(body).result(PATIENCE)


# ---- taken back --------------------------------------------------------------------------------


def test_what_does_not_wait_is_not_ended() -> None:
    """And what has fired meanwhile is taken back."""

    def body() -> None:
        ch = Chan[int](1)
        with fail_after(0.005) as scope:
            deadline = time.monotonic() + 0.02
            while time.monotonic() < deadline:
                ch.send(1)
                ch.recv()
        assert not scope.expired
        gmprt.sleep(0.001)
        with fail_after(0) as scope:
            pass
        assert not scope.expired
        time.sleep(0.001)

    go(body).result(PATIENCE)


def test_what_is_put_off_is_taken_back() -> None:
    """Below C code of another kind a cancel waits; the block may be left before it is delivered."""

    def body() -> None:
        with fail_after(SOON) as scope:
            list(map(time.sleep, [3 * SOON]))
        assert not scope.expired
        time.sleep(0.001)
        with move_on_after(SOON) as scope:
            list(map(time.sleep, [3 * SOON]))
            time.sleep(NEVER)
        assert scope.expired

    go(body).result(PATIENCE)


def test_the_first_cancel_of_a_process_is_a_deadlines() -> None:
    """What calls C functions is learned before."""
    done = run_child(
        """
        import gmprt, threading
        def main():
            lock = threading.Lock()
            lock.acquire()
            with gmprt.move_on_after(0.01) as scope:
                lock.acquire()
            print(scope.expired)
        gmprt.run(main)
        """
    )
    assert done.stdout == "True\n"


# ---- use and misuse ----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [fail_after, move_on_after])
def test_arguments(block: Any) -> None:
    name = block.__name__
    for wrong in ("1", {}, 1j):
        with pytest.raises(
            TypeError, match=rf"^{name}\(\): seconds must be a number of seconds or"
        ):
            block(wrong)
    for wrong in (-1, -0.1, float("-inf"), float("nan"), -(10**400)):
        with pytest.raises(ValueError, match=rf"^{name}\(\): seconds must not be (negative|NaN)$"):
            block(wrong)
    with pytest.raises(TypeError):
        block()
    with pytest.raises(TypeError):
        gmprt.CancelScope()

    def body() -> None:
        for unlimited in (None, float("inf"), 10**400, 1e300):
            with block(unlimited) as scope:
                gmprt.sleep(0.001)
            assert not scope.expired

    go(body).result(PATIENCE)


@pytest.mark.parametrize("block", [fail_after, move_on_after])
def test_in_a_thread(block: Any) -> None:
    def body() -> None:
        with pytest.raises(RuntimeError, match=rf"^{block.__name__}\(\) works in goroutines only"):
            with block(1):
                raise AssertionError

    body()
    Thread(body).result()


def test_a_scope_is_entered_once_at_a_time() -> None:
    def body() -> None:
        scope = move_on_after(0)
        for _ in range(3):
            with scope:
                with pytest.raises(RuntimeError, match="entered already"):
                    scope.__enter__()
                gmprt.sleep(NEVER)
            assert scope.expired
        assert repr(scope) == "<gmprt.CancelScope move_on_after(0) expired>"

    go(body).result(PATIENCE)


def test_left_in_another_goroutine() -> None:
    scope = shield()

    def other() -> None:
        with pytest.raises(RuntimeError, match="left in another goroutine"):
            scope.__exit__(None, None, None)

    def body() -> None:
        scope.__enter__()
        go(other).result()
        gmprt.sleep(NEVER)  # no shield any more

    g = go(body)
    parked(g, "sleep")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), GoroutineCancelled)


def test_never_left() -> None:
    """It ends with its goroutine, or with the generator that holds it open."""
    scopes: list[Any] = []

    def generator() -> Iterator[int]:
        with move_on_after(SOON):
            yield 1

    def body() -> None:
        scopes.append(move_on_after(SOON).__enter__())
        kept = generator()
        next(kept)
        scopes.append(kept)
        move_on_after(SOON).__enter__()  # nobody holds it: it goes at once
        gc.collect()

    go(body).result(PATIENCE)
    time.sleep(2 * SOON)
    scopes[0].__exit__(None, None, None)
    scopes[1].close()

    def interleaved() -> None:
        it = generator()
        next(it)
        with move_on_after(NEVER):
            it.close()
            gmprt.sleep(0.001)
        it = generator()
        with move_on_after(NEVER) as scope:
            next(it)
        gmprt.sleep(0.001)
        with pytest.raises(Cancelled):  # the generator's block still lasts
            gmprt.sleep(NEVER)
        it.close()
        assert not scope.expired

    go(interleaved).result(PATIENCE)


def test_in_a_done_callback() -> None:
    seen: list[bool] = []

    def callback(_: Any) -> None:
        with move_on_after(SOON) as scope:
            gmprt.sleep(NEVER)
        seen.append(scope.expired)

    g = go(int)
    g.add_done_callback(callback)
    ended(g)
    eventually(lambda: seen == [True])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_forked_child() -> None:
    """A deadline counts there too; one that the parent's other goroutines have does no harm."""
    done = run_child(
        """
        import gmprt, os, sys
        scopes = []
        def other():
            with gmprt.move_on_after(60) as scope:
                scopes.append(scope)
                gmprt.sleep(1000)
        def main():
            gmprt.go(other)
            gmprt.sleep(0.01)
            with gmprt.move_on_after(0.05) as scope:
                pid = os.fork()
                if pid == 0:
                    scopes.clear()
                gmprt.sleep(1000)
            os.write(1, b"%s %s\\n" % (b"parent" if pid else b"child", str(scope.expired).encode()))
            if pid == 0:
                with gmprt.move_on_after(0.01):
                    gmprt.sleep(1000)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        gmprt.run(main)
        """
    )
    assert sorted(done.stdout.split()) == ["True", "True", "child", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("what", ["context", "group", "shield"])
def test_blocks_of_others_in_a_forked_child(what: str) -> None:
    """They are nobody's there, whoever still knows them."""
    done = run_child(
        f"""
        import gmprt, os
        from gmprt import context
        ctx, group, shield = context.with_cancel(), gmprt.Group(), gmprt.shield()
        blocks = {{"context": ctx.scope(), "group": group, "shield": shield}}
        def waits():
            with blocks[{what!r}]:
                gmprt.sleep(1000)
        def main():
            g = gmprt.go(waits)
            while g.state != "waiting":
                gmprt.sleep(0.001)
            if {what!r} == "shield":
                g.cancel()
            pid = os.fork()
            if pid == 0:
                if {what!r} == "context":
                    ctx.cancel()
                if {what!r} == "group":
                    group.cancel()
                if {what!r} == "shield":
                    shield.__exit__(None, None, None)
                os._exit(0)
            os.write(1, b"%d" % os.waitpid(pid, 0)[1])
            os._exit(0)
        gmprt.run(main)
        """
    )
    assert done.stdout == "0"


MODES = {
    "nothing replaced": {"GMPRT_INTERPOSE": "none"},
    "nothing parks": {"GMPRT_INTERPOSE": "0"},
    "no preemption": {"GMPRT_PREEMPT": "0"},
    "threads": {"AS_THREADS": "1"},
}


@pytest.mark.parametrize("mode", MODES)
def test_in_other_modes(mode: str) -> None:
    """A thread that is a goroutine is one."""
    done = run_child(
        """
        import gmprt, os, threading
        def body(steps):
            with gmprt.move_on_after(0.01) as scope:
                gmprt.Chan().recv()
            with gmprt.move_on_after(0.01):
                with gmprt.Group() as group:
                    group.go(gmprt.sleep, 1000)
                    with gmprt.shield():
                        gmprt.sleep(0.02)
                    gmprt.sleep(1000)
            steps.append(scope.expired)
        def main():
            steps = []
            if "AS_THREADS" in os.environ:
                gmprt.threads(True)
                thread = threading.Thread(target=body, args=(steps,))
                thread.start()
                thread.join()
            else:
                body(steps)
            gmprt.sleep(0.001)
            print(steps)
        gmprt.run(main)
        """,
        env=MODES[mode],
    )
    assert done.stdout == "[True]\n", done.stderr


# ---- the scope of a context ----------------------------------------------------------------------


def test_a_context_ends_waits() -> None:
    ctx = context.with_cancel()
    why = ZeroDivisionError("why")

    def body() -> None:
        with pytest.raises(gmprt.ContextCancelled) as caught:
            with ctx.scope() as scope:
                time.sleep(NEVER)
        assert caught.value.__cause__ is why
        assert scope.expired
        with pytest.raises(gmprt.ContextCancelled):  # it is done: the first wait
            with ctx.scope():
                gmprt.sleep(NEVER)
        with ctx.scope():
            pass
        gmprt.sleep(0.001)

    gs = [go(body) for _ in range(5)]
    for g in gs:
        parked(g)
    ctx.cancel(why)
    for g in gs:
        g.result(PATIENCE)


def test_a_contexts_deadline_ends_waits() -> None:
    def body() -> None:
        with context.with_timeout(SOON) as parent, context.with_cancel(parent) as ctx:
            with pytest.raises(DeadlineExceeded):
                with context.with_value("a", 1, ctx).scope():
                    time.sleep(NEVER)
            assert isinstance(parent.err(), DeadlineExceeded)
        with context.background().scope():
            gmprt.sleep(0.001)
        with context.with_cancel() as ctx:
            with ctx.scope():
                pass
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)
    with pytest.raises(RuntimeError, match=r"^scope\(\) works in goroutines only"):
        with context.background().scope():
            raise AssertionError


# ---- against a model ---------------------------------------------------------------------------


class Entry:
    """A block, as the model has it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ctx = context.with_cancel()
        self.scope = shield() if kind == "shield" else self.ctx.scope()
        self.fired = self.delivered = False


class Model:
    """Blocks are entered and left, cancels come, waits are made: what is delivered, and to whom."""

    def __init__(self) -> None:
        me = gmprt.current()
        assert me
        self.me = me
        self.stack: list[Entry] = []
        self.direct = 0
        self.reason = 0

    def due(self) -> Entry | str | None:
        found: Entry | str | None = None
        for entry in reversed(self.stack):
            if entry.kind == "shield":
                return found
            if entry.fired and not entry.delivered:
                found = entry
        return "direct" if self.direct else found

    def enter(self, kind: str) -> None:
        entry = Entry(kind)
        entry.scope.__enter__()
        self.stack.append(entry)

    def leave(self) -> None:
        if self.stack:
            assert not self.stack.pop().scope.__exit__(None, None, None)

    def fire(self, which: int) -> None:
        if self.stack:
            entry = self.stack[which % len(self.stack)]
            entry.ctx.cancel()
            entry.fired = entry.kind != "shield"

    def cancel(self) -> None:
        self.reason += 1
        self.direct = self.reason
        self.me.cancel(self.reason)

    def wait(self, swallow: bool) -> None:
        due = self.due()
        with pytest.raises((gmprt.Timeout, Cancelled)) as caught:
            Chan[int]().recv(timeout=1e-6)
        error = caught.value
        if due is None:
            assert isinstance(error, gmprt.Timeout)
            return
        assert isinstance(error, Cancelled)
        if isinstance(due, Entry):
            assert isinstance(error.reason, gmprt.ContextCancelled)
            due.delivered = True
        else:
            assert error.reason == self.direct
            self.direct = 0
        if not swallow:
            self.unwind(error, due)

    def unwind(self, error: BaseException, due: Entry | str) -> None:
        while self.stack:
            entry = self.stack.pop()
            try:
                assert not entry.scope.__exit__(type(error), error, error.__traceback__)
            except gmprt.ContextCancelled:
                assert entry is due
                return
            assert entry is not due
        assert due == "direct"

    def end(self) -> None:
        while self.stack:
            self.leave()
        self.wait(True)
        assert self.due() is None
        self.wait(True)


STEPS = st.one_of(
    st.tuples(st.just("enter"), st.sampled_from(["shield", "context", "context"])),
    st.tuples(st.just("leave")),
    st.tuples(st.just("fire"), st.integers(0, 9)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("wait"), st.booleans()),
)


@given(st.lists(STEPS, max_size=30))
def test_as_the_model_has_it(steps: list[tuple[Any, ...]]) -> None:
    def body() -> None:
        model = Model()
        for name, *args in steps:
            getattr(model, name)(*args)
        model.end()

    go(body).result(PATIENCE)


# ---- storms --------------------------------------------------------------------------------------

LITTLE = float(os.environ.get("GMPRT_TEST_STORM", "0.15"))
"""Seconds that a storm lasts: more by hand.  GMPRT_TEST_STORM=10 pytest tests/test_scope.py"""


def until(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() < deadline


def storm_of_values(seconds: float, seed: int) -> None:
    """Receivers whose time is up at any moment: each value arrives once."""
    rng = random.Random(seed)
    ch, got, goes_on = Chan[int](2), list[int](), until(seconds)
    sent = [0]

    def send() -> None:
        while goes_on():
            with move_on_after(rng.random() * 1e-4):
                ch.send(sent[0])
                sent[0] += 1  # nothing can end it between the two

    def receive() -> None:
        while True:
            with move_on_after(rng.random() * 1e-4):
                value = ch.recv()
                if value < 0:
                    return
                got.append(value)

    receivers = [go(receive) for _ in range(3)]
    sender = go(send)
    ended(sender)
    sender.result()
    for _ in receivers:
        ch.send(-1)
    ended(*receivers)
    for g in receivers:
        g.result()
    assert sorted(got) == list(range(sent[0]))


def storm_of_locks(seconds: float, seed: int) -> None:
    """Who has got a lock holds it, who has not does not."""
    rng = random.Random(seed)
    goes_on = until(seconds)
    mutex, lock = Mutex(), threading.Lock()
    inside = [0, 0]

    def work(which: int, it: Any) -> None:
        while goes_on():
            with move_on_after(rng.random() * 2e-4):
                with it:
                    inside[which] += 1
                    assert inside[which] == 1
                    with shield():
                        gmprt.sleep(rng.random() * 1e-4)
                    inside[which] -= 1

    gs = [go(work, i % 2, (mutex, lock)[i % 2]) for i in range(6)]
    ended(*gs)
    for g in gs:
        g.result()
    assert (inside, mutex.locked(), lock.locked()) == ([0, 0], False, False)


def storm_of_cancels(seconds: float, seed: int) -> None:
    """Deadlines and cancels at any moment: each cancel is seen once, outside of the blocks."""
    rng = random.Random(seed)
    goes_on = until(seconds)
    seen, enough = Chan[Any](), [False]
    a, b = socket.socketpair()
    a.setblocking(True)
    waits: list[Callable[[], object]] = [
        lambda: gmprt.sleep(rng.random() * 1e-4),
        lambda: time.sleep(rng.random() * 1e-4),
        lambda: Chan[int]().recv(),
        lambda: a.recv(1),
        lambda: list(map(time.sleep, [1e-5])),
    ]

    def work() -> None:
        while not enough[0]:
            try:
                with move_on_after(rng.random() * 1e-3):
                    with move_on_after(rng.random() * 2e-4):
                        rng.choice(waits)()
                    if rng.random() < 0.3:
                        with shield():
                            gmprt.sleep(1e-5)
                    gmprt.sleep(rng.random() * 1e-4)
            except Cancelled as error:
                with shield():
                    seen.send(error.reason)
        with move_on_after(0.001) as scope:
            gmprt.sleep(NEVER)
        assert scope.expired

    g = go(work)

    def strike() -> int:
        n = 0
        while goes_on():
            n += 1
            assert g.cancel(n)
            assert seen.recv(timeout=PATIENCE) == n
            time.sleep(rng.random() * 5e-4)
        enough[0] = True
        return n

    assert Thread(strike).result() > 0
    g.result(PATIENCE)
    a.close()
    b.close()


STORMS = {"values": storm_of_values, "locks": storm_of_locks, "cancels": storm_of_cancels}


@pytest.mark.parametrize("name", STORMS)
def test_storm(name: str, procs: int) -> None:
    STORMS[name](LITTLE, procs)


def test_storms_with_chaos() -> None:
    tests = str(Path(__file__).parent)
    run_child(
        f"""
        import sys
        sys.path.insert(0, {tests!r})
        import test_scope
        for storm in test_scope.STORMS.values():
            storm({LITTLE}, 7)
        """,
        env={"GMPRT_CHAOS": "7"},
    )
