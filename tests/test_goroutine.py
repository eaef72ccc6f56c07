"""go(), the handle, what it tells about a goroutine, and how a goroutine ends."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import operator
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    PATIENCE,
    CGate,
    Spawn,
    Thread,
    compiled,
    ended,
    eventually,
    mixed,
    parked,
    run_child,
    undisturbed,
)

import gmprt
from gmprt import Chan, Deadlock, Goroutine, GoroutineCancelled, Timeout, go

Where = Callable[[Callable[[], Any]], Any]


# ---- go ----------------------------------------------------------------------------------------


def test_arguments_and_result(where: Where) -> None:
    def everything(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def body() -> None:
        assert go(everything).result(PATIENCE) == ((), {})
        assert go(everything, 1).result(PATIENCE) == ((1,), {})
        assert go(everything, *range(20)).result(PATIENCE) == (tuple(range(20)), {})
        many = {f"k{i}": i for i in range(20)}
        assert go(everything, 1, 2, **many).result(PATIENCE) == ((1, 2), many)
        # Names that go() might have kept for itself.
        own = {"fn": 1, "name": 2, "self": 3, "timeout": 4}
        assert go(everything, **own).result(PATIENCE) == ((), own)

    where(body)


def test_any_callable(where: Where) -> None:
    class Callable_:
        def __call__(self, x: int) -> int:
            return x + 1

        def method(self, x: int) -> int:
            return x + 2

    def body() -> None:
        assert go(len, "abc").result(PATIENCE) == 3
        assert go(Callable_(), 1).result(PATIENCE) == 2
        assert go(Callable_().method, 1).result(PATIENCE) == 3
        assert go(functools.partial(operator.mul, 6), 7).result(PATIENCE) == 42
        assert go(dict, a=1).result(PATIENCE) == {"a": 1}
        assert go([3, 1, 2].sort).result(PATIENCE) is None

    where(body)


@pytest.mark.parametrize("fn", [None, 1, "f", object(), [], NotImplemented])
def test_what_cannot_be_called(fn: Any) -> None:
    before = gmprt.stats().started
    with pytest.raises(TypeError):
        go(fn)
    with pytest.raises(TypeError):
        go(fn, 1, x=2)
    assert gmprt.stats().started == before


def test_go_without_anything() -> None:
    with pytest.raises(TypeError):
        go()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        go(fn=print)  # type: ignore[call-arg]


def test_wrong_arguments_are_the_goroutines_error() -> None:
    g = go(lambda: None, 1)  # type: ignore[call-arg]
    assert isinstance(g.exception(PATIENCE), TypeError)


def test_a_new_goroutine_is_runnable_not_running() -> None:
    def main() -> tuple[list[str], str, bool, list[str]]:
        log: list[str] = []
        g = go(log.append, "ran")
        before = list(log), g.state, g.done()
        g.join()
        return *before, log

    gmprt.gomaxprocs(1)
    assert undisturbed(lambda: gmprt.run(main)) == ([], "runnable", False, ["ran"])


def test_goroutines_start_goroutines() -> None:
    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(g.result() for g in [go(tree, depth - 1) for _ in range(3)])

    assert go(tree, 6).result(PATIENCE) == 3**6


def test_the_last_started_runs_next_the_others_in_order() -> None:
    """Go's runnext: what is started last is likely hot, so it comes first."""

    def main() -> list[int]:
        log: list[int] = []
        goroutines = [go(log.append, i) for i in range(5)]
        for g in goroutines:
            g.join()
        return log

    gmprt.gomaxprocs(1)
    assert undisturbed(lambda: gmprt.run(main)) == [4, 0, 1, 2, 3]


# ---- results and exceptions --------------------------------------------------------------------


def test_exception(where: Where) -> None:
    def fail() -> None:
        raise LookupError("reason")

    def body() -> None:
        g = go(fail)
        error = g.exception(PATIENCE)
        assert isinstance(error, LookupError)
        assert g.exception() is error
        with pytest.raises(LookupError) as caught:
            g.result()
        assert caught.value is error
        assert g.join() is True
        assert g.done()
        assert not g.cancelled()
        names = [f.name for f in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "fail" or "fail" in names

    where(body)


def test_traceback_and_context_are_kept() -> None:
    def inner() -> None:
        try:
            {}["key"]
        except KeyError as error:
            gmprt.gosched()
            raise ValueError("outer") from error

    error = go(inner).exception(PATIENCE)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, KeyError)
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[-1].name == "inner"
    assert frames[-1].line == 'raise ValueError("outer") from error'


def test_exception_of_a_success_is_none() -> None:
    g = go(int, "7")
    assert g.exception(PATIENCE) is None
    assert g.result() == 7


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException]
)
def test_base_exceptions_are_results_too(error: Any) -> None:
    def fail() -> None:
        raise error

    g = go(fail)
    got = g.exception(PATIENCE)
    assert got is error or type(got) is error
    with pytest.raises(type(got)):
        g.result()
    assert not g.cancelled()


def test_returned_exceptions_are_results() -> None:
    value = ValueError("a value")
    assert go(lambda: value).result(PATIENCE) is value


def test_result_many_times_by_many() -> None:
    gate: Chan[int] = Chan()
    g = go(gate.recv)
    tasks = [mixed(i, g.result) for i in range(20)]
    gate.send(7)
    assert [t.result(PATIENCE) for t in tasks] == [7] * 20


def test_join(where: Where) -> None:
    def body() -> None:
        gate: Chan[int] = Chan()
        g = go(gate.recv)
        begun = time.monotonic()
        assert g.join(timeout=0.02) is False
        assert g.join(0.001) is False
        assert time.monotonic() - begun >= 0.02
        assert g.join(0) is False
        for waiting in (g.result, g.exception):
            for timeout in (0, 0.002):
                with pytest.raises(Timeout):
                    waiting(timeout)
                with pytest.raises(Timeout):
                    waiting(timeout=timeout)
        gate.send(1)
        assert g.join(PATIENCE) is True
        assert g.join(0) is True
        assert g.join(None) is True
        assert (g.result(0), g.exception(0)) == (1, None)

    where(body)


def test_join_never_raises_its_error() -> None:
    g = go(lambda: 1 / 0)
    assert g.join(PATIENCE) is True
    assert isinstance(g.exception(), ZeroDivisionError)


@pytest.mark.parametrize("method", ["join", "result", "exception"])
def test_bad_timeouts(method: str) -> None:
    call = getattr(go(int), method)
    for timeout in (-1, math.nan, -math.inf):
        with pytest.raises(ValueError):
            call(timeout)
    for garbage in ("1", [], 1j):
        with pytest.raises(TypeError):
            call(garbage)
    for args, kwargs in (((1, 2), {}), ((), {"wait": 1}), ((1,), {"timeout": 1})):
        with pytest.raises(TypeError):
            call(*args, **kwargs)


@pytest.mark.parametrize("method", ["join", "result", "exception"])
def test_waiting_for_oneself_is_a_deadlock(method: str) -> None:
    def main() -> None:
        me = gmprt.current()
        with pytest.raises(Deadlock) as caught:
            getattr(me, method)()
        assert "itself" in str(caught.value)

    go(main).result(PATIENCE)
    gmprt.run(main)


def test_handles_are_not_made_by_hand() -> None:
    with pytest.raises(TypeError):
        Goroutine()


def test_generic() -> None:
    assert Goroutine[int].__origin__ is Goroutine


# ---- goexit ------------------------------------------------------------------------------------


def test_goexit_runs_finally() -> None:
    log: list[str] = []

    def leave() -> None:
        try:
            try:
                gmprt.goexit()
            except Exception:
                log.append("caught as an error")
        finally:
            log.append("finally")

    g = go(leave)
    assert g.result(PATIENCE) is None
    assert log == ["finally"]
    assert not g.cancelled()


def test_goexit_in_an_ordinary_thread() -> None:
    with pytest.raises(RuntimeError):
        gmprt.goexit()


# ---- current, attributes -----------------------------------------------------------------------


def test_current(spawn: Spawn) -> None:
    assert gmprt.current() is None
    g = go(gmprt.current)
    assert g.result(PATIENCE) is g

    def both() -> bool:
        before = gmprt.current()
        gmprt.sleep(0.001)
        return gmprt.current() is before

    assert spawn(both).result(PATIENCE)


def test_ids_are_unique_and_grow() -> None:
    goroutines = [go(int) for _ in range(500)]
    ids = [g.id for g in goroutines]
    assert ids == sorted(set(ids))
    ended(*goroutines)
    assert go(int).id > ids[-1]
    assert [g.id for g in goroutines] == ids


def test_name() -> None:
    gate: Chan[int] = Chan()
    g = go(gate.recv)
    assert isinstance(g.name, str)
    g.name = "fetch"
    assert g.name == "fetch"
    assert "fetch" in repr(g)
    assert f" {g.id} " in repr(g)
    for garbage in (None, 1, b"x"):
        with pytest.raises(TypeError):
            g.name = garbage  # type: ignore[assignment]
    with pytest.raises((TypeError, AttributeError)):
        del g.name
    assert g.name == "fetch"
    gate.send(1)
    ended(g)
    g.name = "late"
    assert g.name == "late"


def test_options(where: Where) -> None:
    def body() -> None:
        def everything(*args: Any, **kwargs: Any) -> Any:
            g = gmprt.current()
            assert g is not None
            return g.name, g.detached, args, kwargs

        named = gmprt.options(name="fetch")
        for _ in range(2):
            g = named.go(everything, 1, name=2, detach=3)
            assert g.result(PATIENCE) == ("fetch", False, (1,), {"name": 2, "detach": 3})
        assert g.created_by is not None
        assert g.created_by.filename == __file__
        plain = gmprt.options(detach=True).go(everything)
        assert plain.result(PATIENCE) == (f"goroutine-{plain.id}", True, (), {})
        assert repr(named) == "gmprt.options(name='fetch', detach=False)"
        with pytest.raises(TypeError, match=r"^options\(\): name must be a str or None, not int$"):
            gmprt.options(name=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^go\(\): fn must be callable, not int$"):
            named.go(1)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            gmprt.Options()

    where(body)


def test_attributes_are_read_only() -> None:
    g = go(int)
    ended(g)
    for name in ("id", "state", "wait_reason", "cpu_time", "context", "created_by", "other"):
        with pytest.raises(AttributeError):
            setattr(g, name, 1)


def test_states() -> None:
    gate = CGate()
    seen: list[str] = []

    def work() -> None:
        me = gmprt.current()
        assert me is not None
        seen.append(me.state)
        gate.wait()

    g = go(work)
    assert gate.entered()
    eventually(lambda: g.state == "syscall")
    assert g.wait_reason == ""
    gate.open()
    ended(g)
    assert seen == ["running"]
    assert g.state == "dead"
    assert g.wait_reason == ""


WAITS: dict[str, tuple[str, Callable[[], Any]]] = {
    "recv": ("chan receive", lambda: Chan().recv()),
    "recv_ok": ("chan receive", lambda: Chan().recv_ok()),
    "recv timeout": ("chan receive", lambda: Chan().recv(timeout=1000)),
    "iteration": ("chan receive", lambda: list(Chan())),
    "send": ("chan send", lambda: Chan().send(1)),
    "send timeout": ("chan send", lambda: Chan().send(1, timeout=1000)),
    "select": ("select", lambda: gmprt.select(Chan(), Chan())),
    "select timeout": ("select", lambda: gmprt.select(Chan(), Chan(), timeout=1000)),
    "select one": ("select", lambda: gmprt.select(Chan())),
    "select none": ("select (no cases)", lambda: gmprt.select()),
    "select nil": ("select (no cases)", lambda: gmprt.select(None)),
    "Select": ("select", lambda: gmprt.Select(Chan(), gmprt.Send(Chan(), 1))()),
    "sleep": ("sleep", lambda: gmprt.sleep(1000)),
    "timer": ("chan receive", lambda: gmprt.after(1000).recv()),
    "mutex": ("sync.Mutex.Lock", lambda: _twice(gmprt.Mutex().lock)),
    "mutex with": ("sync.Mutex.Lock", lambda: _nested(gmprt.Mutex())),
    "semaphore": ("semacquire", lambda: gmprt.Semaphore(0).acquire()),
    "semaphore with": ("semacquire", lambda: _nested(gmprt.Semaphore(1))),
    "waitgroup": ("sync.WaitGroup.Wait", lambda: _waitgroup().wait()),
    "join": ("join", lambda: _never.join()),
    "result": ("join", lambda: _never.result(1000)),
}

_never: Goroutine[Any]


def _twice(lock: Callable[[], Any]) -> None:
    lock()
    lock()


def _nested(lock: Any) -> None:
    with lock, lock:
        pass


def _waitgroup() -> gmprt.WaitGroup:
    wg = gmprt.WaitGroup()
    wg.add()
    return wg


@pytest.fixture
def never() -> Any:
    global _never
    _never = go(Chan().recv)
    yield _never
    _never.cancel()
    ended(_never)


@pytest.mark.parametrize("kind", list(WAITS))
def test_wait_reason_and_cancel(kind: str, never: Goroutine[Any]) -> None:
    """Every wait says in Go's words what it is, and ends with Cancelled when cancelled."""
    reason, wait = WAITS[kind]
    got: list[BaseException] = []

    def waiter() -> None:
        try:
            wait()
        except BaseException as error:
            got.append(error)
            raise

    g = go(waiter)
    parked(g)
    assert g.wait_reason == reason
    assert g.state == "waiting"
    assert g.cancel("stop it") is True
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert error.reason == "stop it"
    assert [type(e) for e in got] == [gmprt.Cancelled]
    assert got[0].reason == "stop it"  # type: ignore[attr-defined]
    with pytest.raises(GoroutineCancelled) as caught:
        g.result()
    assert caught.value.reason == "stop it"
    assert g.cancelled()
    assert g.done()


def test_stack_while_parked() -> None:
    def outer(ch: Chan[int]) -> None:
        inner(ch)  # the line of outer

    def inner(ch: Chan[int]) -> None:
        ch.recv()  # the line of inner

    ch: Chan[int] = Chan()
    g = go(outer, ch)
    parked(g)
    stack = g.stack()
    assert isinstance(stack, traceback.StackSummary)
    assert [(f.name, f.line) for f in stack] == [
        ("outer", "inner(ch)  # the line of outer"),
        ("inner", "ch.recv()  # the line of inner"),
    ]
    assert stack[0].filename == __file__
    assert stack[1].lineno == inner.__code__.co_firstlineno + 1
    assert g.stack() == stack, "the goroutine is not disturbed by being looked at"
    ch.send(1)
    ended(g)
    assert list(g.stack()) == []


def test_stack_in_other_states() -> None:
    def main() -> None:
        me = gmprt.current()
        assert me is not None
        names = [f.name for f in me.stack()]
        assert names[-1] == "main"
        new = go(int)
        assert list(new.stack()) == []
        new.join()

        entered = threading.Event()
        release = threading.Event()

        def blocked() -> None:
            entered.set()
            release.wait()

        g = go(blocked)
        while not entered.is_set():
            gmprt.gosched()
        assert "blocked" in [f.name for f in g.stack()]
        release.set()
        g.join()

    gmprt.run(main)


def test_stack_survives_a_deep_one() -> None:
    def dive(depth: int, ch: Chan[int]) -> None:
        if depth:
            dive(depth - 1, ch)
        else:
            ch.recv()

    ch: Chan[int] = Chan()
    g = go(dive, 300, ch)
    parked(g)
    assert [f.name for f in g.stack()].count("dive") == 301
    ch.send(1)
    ended(g)


def test_created_by() -> None:
    def child() -> int:
        return 1

    def parent() -> Goroutine[int]:
        return go(child)  # here

    p = go(parent)
    c = p.result(PATIENCE)
    ended(c)
    by = c.created_by
    assert by is not None
    assert by.function.endswith("parent")
    assert by.filename == __file__
    assert by.lineno == parent.__code__.co_firstlineno + 1
    assert by.goroutine_id == p.id == c.parent_id
    assert f"in goroutine {p.id} at {__file__}:{by.lineno}" in str(by)
    outer = p.created_by
    assert outer is not None
    assert outer.goroutine_id == p.parent_id == 0
    assert outer.function == "test_created_by"


def test_cpu_time() -> None:
    gate: Chan[int] = Chan()

    def work() -> None:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        gate.recv()

    g = go(work)
    assert g.cpu_time >= 0  # who has been asked keeps the time exactly
    parked(g)
    after_work = g.cpu_time
    assert after_work >= 0.02
    gmprt.sleep(0.05)
    assert g.cpu_time == pytest.approx(after_work, rel=1e-3), "it does not grow while parked"
    gate.send(1)
    ended(g)
    assert g.cpu_time >= after_work


def test_cpu_time_grows_while_running() -> None:
    stop = False

    def work() -> None:
        while not stop:
            pass

    g = go(work)
    eventually(lambda: g.cpu_time > 0)
    first = g.cpu_time
    eventually(lambda: g.cpu_time > first)
    stop = True
    ended(g)


def test_function_and_handle_of_a_parked_one() -> None:
    ch: Chan[int] = Chan()
    recv = ch.recv
    g = go(recv)
    assert g.function is recv
    parked(g)
    assert g.since >= 0
    ch.send(1)
    ended(g)


# ---- contextvars -------------------------------------------------------------------------------

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")


def test_the_callers_context_is_copied(where: Where) -> None:
    def child() -> str:
        before = var.get()
        var.set("child")
        gmprt.sleep(0.001)
        assert var.get() == "child"
        return before

    def body() -> None:
        token = var.set("parent")
        try:
            g = go(child)
            var.set("later")
            assert g.result(PATIENCE) == "parent", "the value at go()"
            assert var.get() == "later", "a copy"
            assert g.context is not None
            assert g.context[var] == "child"
        finally:
            var.reset(token)

    where(body)


def test_contexts_do_not_mix(procs: int) -> None:
    def work(i: int) -> bool:
        var.set(str(i))
        for _ in range(20):
            gmprt.gosched()
            if var.get() != str(i):
                return False
        return True

    goroutines = [go(work, i) for i in range(100)]
    assert all(g.result(PATIENCE) for g in goroutines)
    assert var.get() == "default"


def test_context_run_inside() -> None:
    ctx = contextvars.copy_context()
    ctx.run(var.set, "ctx")

    def child() -> tuple[str, str]:
        gmprt.gosched()
        inside = ctx.run(lambda: (gmprt.sleep(0.001), var.get())[1])
        return inside, var.get()

    assert go(child).result(PATIENCE) == ("ctx", "default")
    assert ctx.run(lambda: go(child_get).result(PATIENCE)) == "ctx"


def child_get() -> str:
    return var.get()


# ---- exception state ---------------------------------------------------------------------------


def test_the_handled_exception_is_each_ones_own() -> None:
    """sys.exc_info() inside `except` survives switches and does not leak to others."""

    def work(i: int) -> bool:
        try:
            raise LookupError(i)
        except LookupError as error:
            for _ in range(20):
                gmprt.gosched()
                if sys.exc_info()[1] is not error:
                    return False
            try:
                raise ValueError(i)
            except ValueError as second:
                gmprt.gosched()
                if second.__context__ is not error:
                    return False
        gmprt.gosched()
        return sys.exc_info() == (None, None, None)

    goroutines = [go(work, i) for i in range(50)]
    assert all(g.result(PATIENCE) for g in goroutines)


def test_started_inside_except_without_its_context() -> None:
    def child() -> Any:
        return sys.exc_info()

    try:
        raise KeyError
    except KeyError:
        g = go(child)
        assert g.result(PATIENCE) == (None, None, None)


def test_generators_park() -> None:
    """A generator may park in one goroutine and go on in another."""
    ch: Chan[int] = Chan(10)

    def values() -> Any:
        for _ in range(4):
            yield ch.recv()

    gen = values()
    for i in range(4):
        g = go(next, gen)
        ch.send(i)
        assert g.result(PATIENCE) == i
    assert go(next, gen, "end").result(PATIENCE) == "end"


def test_a_generator_that_runs_elsewhere() -> None:
    ch: Chan[int] = Chan()

    def values() -> Any:
        yield ch.recv()

    gen = values()
    g = go(next, gen)
    parked(g)
    with pytest.raises(ValueError, match="already executing"):
        next(gen)
    ch.send(1)
    assert g.result(PATIENCE) == 1


# ---- cancel ------------------------------------------------------------------------------------


def test_cancel_without_reason() -> None:
    g = go(Chan().recv)
    parked(g)
    g.cancel()
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert error.reason is None
    assert str(error) == ""
    assert error.__cause__ is not None or error.__context__ is None


def test_cancelled_is_not_an_exception() -> None:
    assert not issubclass(gmprt.Cancelled, Exception)
    assert not issubclass(gmprt.Cancelled, gmprt.Error)
    assert issubclass(GoroutineCancelled, gmprt.Error)


def test_cancel_before_the_first_park() -> None:
    def main() -> list[str]:
        log: list[str] = []

        def work() -> None:
            log.append("started")
            sum(range(1000))
            log.append("computed")
            try:
                gmprt.sleep(1000)
            finally:
                log.append("cancelled")

        g = go(work)
        assert g.cancel()
        assert isinstance(g.exception(), GoroutineCancelled)
        return log

    gmprt.gomaxprocs(1)
    assert gmprt.run(main) == ["started", "computed", "cancelled"]


def test_cancel_is_delivered_even_if_the_park_would_be_short() -> None:
    """A pending cancel meets the next wait, not the next operation that need not wait."""

    def main() -> list[Any]:
        log: list[Any] = []
        ch: Chan[int] = Chan(1)

        def work() -> None:
            gmprt.gosched()
            log.append("gosched is no wait")
            ch.send(1)
            log.append(ch.recv())
            ch.recv()

        g = go(work)
        g.cancel("r")
        assert isinstance(g.exception(), GoroutineCancelled)
        return log

    gmprt.gomaxprocs(1)
    assert gmprt.run(main) == ["gosched is no wait", 1]


def test_cancel_never_at_a_bytecode() -> None:
    stop = False

    def spin() -> int:
        n = 0
        while not stop:
            n += 1
        return n

    g = go(spin)
    eventually(lambda: g.cpu_time > 0.001)
    g.cancel()
    assert not g.join(0.05)
    stop = True
    assert g.result(PATIENCE) > 0
    assert not g.cancelled()


def test_once_per_call() -> None:
    """A goroutine that swallows Cancelled goes on, until it is cancelled again."""
    ch: Chan[int] = Chan()
    reasons: list[Any] = []

    def stubborn() -> int:
        while True:
            try:
                return ch.recv()
            except gmprt.Cancelled as error:
                reasons.append(error.reason)

    g = go(stubborn)
    for i in range(3):
        parked(g)
        g.cancel(i)
        eventually(lambda n=i: len(reasons) == n + 1)  # type: ignore[misc]
    parked(g)
    ch.send(7)
    assert g.result(PATIENCE) == 7
    assert reasons == [0, 1, 2]
    assert not g.cancelled()


def test_finally_may_park() -> None:
    log: list[str] = []
    gate: Chan[int] = Chan()

    def work() -> None:
        try:
            Chan().recv()
        finally:
            gate.recv()
            log.append("cleaned up")

    g = go(work)
    parked(g)
    g.cancel()
    gate.send(1, timeout=PATIENCE)
    ended(g)
    assert log == ["cleaned up"]
    assert g.cancelled()


def test_cancel_of_a_dead_one() -> None:
    g = go(int)
    ended(g)
    assert g.cancel() is False
    assert g.result() == 0
    assert not g.cancelled()


def test_cancel_of_oneself() -> None:
    def work() -> None:
        me = gmprt.current()
        assert me is not None
        me.cancel("my own")
        gmprt.gosched()
        gmprt.sleep(1000)

    error = go(work).exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert error.reason == "my own"


def test_cancelled_and_replaced() -> None:
    """Another exception on the way out is what the goroutine ended with."""

    def work() -> None:
        try:
            Chan().recv()
        finally:
            raise LookupError("on the way")

    g = go(work)
    parked(g)
    g.cancel()
    error = g.exception(PATIENCE)
    assert isinstance(error, LookupError)
    assert isinstance(error.__context__, gmprt.Cancelled)
    assert not g.cancelled()


def test_cancel_and_value_race(procs: int) -> None:
    """Either the value is received or the sender still has it."""
    for _ in range(300):
        ch: Chan[int] = Chan()
        g = go(ch.recv)
        s = go(ch.send, 1)
        g.cancel()
        received = g.exception(PATIENCE) is None
        if received:
            ended(s)
            assert s.exception() is None
        else:
            assert ch.recv(timeout=PATIENCE) == 1
            ended(s)


def test_cancel_by_many_at_once(procs: int) -> None:
    goroutines = [go(Chan().recv) for _ in range(100)]
    cancellers = [mixed(i, lambda: [g.cancel(1) for g in goroutines]) for i in range(4)]
    for c in cancellers:
        c.result(PATIENCE)
    assert all(isinstance(g.exception(PATIENCE), GoroutineCancelled) for g in goroutines)


def test_cancel_bad_arguments() -> None:
    g = go(int)
    ended(g)
    with pytest.raises(TypeError):
        g.cancel(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        g.cancel(why=1)  # type: ignore[call-arg]


def test_the_last_reason_counts() -> None:
    def main() -> Any:
        g = go(Chan().recv)
        g.cancel("first")
        g.cancel("second")
        error = g.exception()
        assert isinstance(error, GoroutineCancelled)
        return error.reason

    gmprt.gomaxprocs(1)
    assert undisturbed(lambda: gmprt.run(main)) == "second"


# ---- done callbacks and asyncio ----------------------------------------------------------------


def test_done_callbacks() -> None:
    gate: Chan[int] = Chan()
    calls: list[tuple[int, Goroutine[Any]]] = []
    g = go(gate.recv)
    for i in range(3):
        g.add_done_callback(lambda h, i=i: calls.append((i, h)))  # type: ignore[misc]
    gate.send(1)
    ended(g)
    eventually(lambda: len(calls) == 3)
    assert calls == [(0, g), (1, g), (2, g)]
    g.add_done_callback(lambda h: calls.append((3, h)))
    assert calls[-1] == (3, g), "at once if it has ended"
    with pytest.raises(TypeError):
        g.add_done_callback(None)  # type: ignore[arg-type]


def test_aresult_in_the_main_thread() -> None:
    async def main() -> list[Any]:
        got: list[Any] = []
        gate: Chan[int] = Chan()
        g = go(gate.recv)
        waiter = asyncio.ensure_future(g.aresult())
        await asyncio.sleep(0)
        gate.send(7, timeout=PATIENCE)
        got.append(await asyncio.wait_for(waiter, PATIENCE))
        got.append(await g.aresult())
        with pytest.raises(ZeroDivisionError):
            await go(lambda: 1 / 0).aresult()
        stuck = go(gate.recv)
        parked(stuck)
        stuck.cancel("r")
        with pytest.raises(GoroutineCancelled):
            await stuck.aresult()
        got.append(await asyncio.gather(*[go(int, str(i)).aresult() for i in range(20)]))
        return got

    assert asyncio.run(main()) == [7, 7, list(range(20))]


def test_aresult_in_threads_and_goroutines(spawn: Spawn) -> None:
    async def main(n: int) -> int:
        goroutines = [go(lambda i=i: (gmprt.sleep(0.001), i)[1]) for i in range(n)]
        return sum([await g.aresult() for g in goroutines])

    tasks = [spawn(asyncio.run, main(n)) for n in range(5, 8)]
    assert [t.result(PATIENCE) for t in tasks] == [10, 15, 21]


def test_asyncio_in_the_main_goroutine() -> None:
    async def main() -> int:
        return await go(lambda: (gmprt.sleep(0.005), 7)[1]).aresult()

    assert gmprt.run(lambda: asyncio.run(main())) == 7


def test_cancelling_the_task_leaves_the_goroutine() -> None:
    async def main() -> int:
        gate: Chan[int] = Chan()
        g = go(gate.recv)
        task = asyncio.ensure_future(g.aresult())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not g.done()
        gate.send(3, timeout=PATIENCE)
        return await g.aresult()

    assert asyncio.run(main()) == 3


def test_aresult_outside_a_loop() -> None:
    g = go(int)
    ended(g)
    with pytest.raises(RuntimeError):
        g.aresult().send(None)


# ---- recursion without end ---------------------------------------------------------------------

RECURSIONS = {
    "python": """
        def dive():
            return dive()
    """,
    "getattr": """
        class Deep:
            def __getattr__(self, name):
                return getattr(self, name + "x")
        def dive():
            Deep().x
    """,
    "sorted key": """
        def key(x):
            return sorted([1, 2], key=key)
        def dive():
            key(1)
    """,
    "map": """
        def again(x):
            return list(map(again, [x]))
        def dive():
            again(1)
    """,
    "repr of a nested list": """
        nested = []
        for _ in range(200_000):
            nested = [nested]
        def dive():
            repr(nested)
    """,
    "class body and __eq__": """
        class Same:
            def __eq__(self, other):
                return [Same()] == [Same()]
            __hash__ = None
        def dive():
            Same() == Same()
    """,
    "parking on the way down": """
        def dive():
            gmprt.gosched()
            return dive()
    """,
    "through select and callbacks": """
        import functools
        def step(a, b):
            gmprt.sleep(0)
            return functools.reduce(step, [1, 2])
        def dive():
            step(1, 2)
    """,
    "json": """
        import json
        nested = "[" * 100_000
        def dive():
            json.loads(nested)
    """,
}


@pytest.mark.parametrize("kind", list(RECURSIONS))
def test_recursion_without_end(kind: str) -> None:
    """RecursionError in the goroutine, from Python and through C; the process lives on."""
    code = f"""
import gmprt
{RECURSIONS[kind].replace(chr(10) + "        ", chr(10))}

goroutines = [gmprt.go(dive) for _ in range(5)]
for g in goroutines:
    error = g.exception(20)
    assert isinstance(error, RecursionError), repr(error)

def main():
    try:
        dive()
    except RecursionError:
        return "main too"

print(gmprt.run(main))
assert gmprt.go(sum, [1, 2]).result(20) == 3
print("lives")
"""
    assert run_child(code).stdout == "main too\nlives\n"


@pytest.mark.parametrize("limit", [5_000, 100_000, 2_000_000])
def test_a_high_recursion_limit_is_no_crash(limit: int) -> None:
    """Beyond what the stack holds there is a RecursionError all the same."""
    code = f"""
        import sys, gmprt
        sys.setrecursionlimit({limit})

        def key(depth):
            if depth == 0:
                return 0
            return max([depth - 1], key=key)

        def dive():
            key({limit})

        for _ in range(3):
            error = gmprt.go(dive).exception(20)
            assert isinstance(error, RecursionError), repr(error)
        assert gmprt.go(key, 100).result(20) == 99
        print("lives")
    """
    assert run_child(code).stdout == "lives\n"


def test_the_recursion_limit_counts_for_each_goroutine() -> None:
    """Depth is each one's own: many can be halfway down at once."""
    ch: Chan[int] = Chan()

    def dive(depth: int) -> int:
        return ch.recv() if depth == 0 else dive(depth - 1)

    depth = sys.getrecursionlimit() // 2
    goroutines = [go(dive, depth) for _ in range(20)]
    for g in goroutines:
        parked(g)
    for i in range(20):
        ch.send(i)
    assert sorted(g.result(PATIENCE) for g in goroutines) == list(range(20))


UNCOUNTED = {
    "map": "for _ in range(n): x = map(abs, x)\nnext(x)",
    "the end of generators": "for _ in range(n): x = (lambda y: (yield from y))(x)\ndel x",
    "the hash of a tuple": "for _ in range(n): x = (x,)\nhash(x)",
}


@pytest.mark.parametrize("kind", list(UNCOUNTED))
def test_recursion_that_the_interpreter_does_not_count(kind: str) -> None:
    """A goroutine's stack is as deep as a thread's: a megabyte would not do."""
    code = f"""
        import gmprt
        code, n = {UNCOUNTED[kind]!r}, 20_000
        gmprt.go(exec, code, {{"x": iter([1]), "n": n}}).result(20)
        print("lives")
    """
    assert run_child(code).stdout == "lives\n"


def test_a_thousand_levels_through_c() -> None:
    """Counted ones: as in a thread."""
    code = """
        import json, gmprt
        text = "[" * 950 + "]" * 950
        def levels():
            try:
                return len(json.dumps(json.loads(text)))
            except RecursionError:
                return "too deep"
        from threading import Thread
        seen = []
        thread = Thread(target=lambda: seen.append(levels()))
        thread.start()
        thread.join()
        assert gmprt.go(levels).result(20) == seen[0], seen
    """
    run_child(code)


def test_foreign_code_that_overruns_the_stack(tmp_path: Path) -> None:
    """The process dies, and says where."""
    library = compiled(
        tmp_path, "int deep(int n) { volatile char a[500]; a[0] = 0; return deep(n + 1) + a[0]; }"
    )
    code = f"""
        import ctypes, gmprt
        deep = ctypes.CDLL({str(library)!r}).deep
        def below(levels):
            return below(levels - 1) if levels else deep(0)
        gmprt.go(below, 200).join()
    """
    done = run_child(code, status=-signal.SIGSEGV)
    first, second, *frames = done.stderr.splitlines()
    assert (first, second) == ("fatal: goroutine stack overflow", "\tgoroutine 1")
    assert all(line.endswith(" in below") for line in frames[:50]), frames[:51]
    assert frames[50] == "  ... 101 more ...", frames[50]


# ---- exhaustion --------------------------------------------------------------------------------


def test_no_memory_for_goroutines() -> None:
    """With its address space used up go() raises MemoryError, and nothing is lost."""
    code = """
        import resource, gmprt
        def main():
            gate = gmprt.Chan()
            running = [gmprt.go(gate.recv) for _ in range(10)]
            gmprt.sleep(0.001)
            pages = int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (8 << 20), -1))
            error = None
            while error is None:
                try:
                    running.append(gmprt.go(gate.recv))
                except (MemoryError, gmprt.Error) as caught:
                    error = caught
                if len(running) > 300_000:
                    raise AssertionError("no limit met")
            before = gmprt.num_goroutine()
            for _ in range(100):
                try:
                    gmprt.go(gate.recv)
                except (MemoryError, gmprt.Error):
                    pass
                else:
                    raise AssertionError("memory from nowhere")
            assert gmprt.num_goroutine() == before == len(running) + 1
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            running.append(gmprt.go(gate.recv))
            for i in range(len(running)):
                gate.send(i)
            assert sorted(g.result() for g in running) == list(range(len(running)))
            print(type(error).__name__)
        gmprt.run(main)
    """
    assert run_child(code, timeout=50).stdout == "MemoryError\n"


def test_no_threads_to_start_with() -> None:
    """The very first go() without memory for the runtime's thread: an exception, later it works."""
    code = """
        import resource, gmprt
        from gmprt._life import activate  # what the first go() imports
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096, -1))
        for _ in range(3):
            try:
                gmprt.go(int)
            except (MemoryError, gmprt.Error, OSError) as error:
                print("refused")
            else:
                print("started without memory")
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(gmprt.go(int, "7").result(20))
    """
    assert run_child(code).stdout == "refused\n" * 3 + "7\n"


def test_max_threads() -> None:
    """At the limit blocking calls wait for a thread; everything ends and nothing crashes."""
    code = """
        import time, gmprt
        assert gmprt.set_max_threads(3) == 10000
        assert gmprt.set_max_threads(3) == 3
        def main():
            blocked = [gmprt.go(time.sleep, 0.05) for _ in range(10)]
            turns = 0
            while not all(g.done() for g in blocked):
                gmprt.gosched()
                turns += 1
            for g in blocked:
                assert g.exception() is None, g.exception()
            assert gmprt.stats().threads <= 3, gmprt.stats()
            print("done")
        gmprt.run(main)
    """
    assert run_child(code).stdout == "done\n"


def test_max_threads_and_goroutines_that_keep_theirs() -> None:
    """lock_os_thread() fails before all threads are taken: the others go on, to Ctrl-C as well."""
    code = """
        import signal, sys, threading, time
        import gmprt
        from gmprt import Chan, go, run
        gmprt.set_max_threads(5)
        def keeps(ch):
            gmprt.lock_os_thread()
            return ch.recv()
        def main():
            ch = Chan()
            gs = [go(keeps, ch) for _ in range(20)]
            while not all(g.done() or g.state == "waiting" for g in gs):
                gmprt.sleep(.001)
            failed = [g for g in gs if g.done()]
            assert all(isinstance(g.exception(), gmprt.TooManyThreads) for g in failed)
            assert len(gs) - len(failed) == 4, failed
            try:
                signal.raise_signal(signal.SIGINT)
                ch.recv()
            except KeyboardInterrupt:
                pass
            gmprt.lock_os_thread()  # the calling thread is none of the runtime's
            for _ in range(4):
                ch.send(1)
            assert [g.result() for g in gs if g not in failed] == [1] * 4
            gmprt.set_max_threads(100)
            gs = [go(keeps, ch) for _ in range(20)]
            for _ in gs:
                ch.send(2)
            assert [g.result() for g in gs] == [2] * 20
            print("done")
        run(main)
    """
    for procs in "1", "2", "4":
        assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "done\n"


def test_max_threads_and_waits_below_c_code() -> None:
    """They keep their threads, too, as long as they last."""
    code = """
        import ctypes, gmprt
        from gmprt import Chan, go, run
        gmprt.set_max_threads(5)
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object)
        def wait_below(ch):
            result = []
            def inner(ch):
                try:
                    result.append(ch.recv())
                except Exception as error:
                    result.append(error)
                return 0
            callback(inner)(ch)
            return result[0]
        def main():
            ch = Chan()
            gs = [go(wait_below, ch) for _ in range(20)]
            while not all(g.done() or g.state == "waiting" for g in gs):
                gmprt.sleep(.001)
            failed = [g for g in gs if g.done()]
            assert all(isinstance(g.result(), gmprt.TooManyThreads) for g in failed)
            assert len(gs) - len(failed) == 4, failed
            for _ in range(4):
                ch.send(1)
            assert [g.result() for g in gs if g not in failed] == [1] * 4
            print("done")
        run(main)
    """
    for procs in "1", "2":
        assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "done\n"


def test_at_the_limit_work_goes_on_when_a_thread_returns() -> None:
    """All are in C code that blocks: what is ready waits for one of them, and for nothing else."""
    code = """
        import ctypes, os, time, gmprt
        from gmprt import Chan, go, run
        libc = ctypes.CDLL(None)
        gmprt.set_max_threads(3)
        def blocks(fd):
            return libc.read(fd, ctypes.create_string_buffer(1), 1)
        ends = [os.pipe() for _ in range(3)]
        gs = [go(blocks, r) for r, w in ends]
        while any(g.state != "syscall" for g in gs):  # the last one may have no thread yet
            time.sleep(.002)
        ready = [go(int) for _ in range(10)]
        assert not ready[-1].join(timeout=.1)
        os.write(ends[0][1], b"x")
        began = time.monotonic()
        for g in ready:
            g.result(20)
        assert time.monotonic() - began < 5
        for r, w in ends:
            os.write(w, b"x")
        assert [g.result(20) for g in gs] == [1, 1, 1]
        print("done")
    """
    for procs in "1", "3":
        assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "done\n"


@pytest.mark.parametrize("n", [-1, 0, 10**9, 2**70])
def test_limits_of_a_bad_value(n: int) -> None:
    for limit in (gmprt.set_max_threads, gmprt.set_max_stack):
        with pytest.raises(ValueError):
            limit(n if n != 10**9 or limit is gmprt.set_max_threads else 2**40)


@pytest.mark.parametrize("garbage", ["1", 1.5, None, []])
def test_limits_of_the_wrong_type(garbage: Any) -> None:
    for limit in (gmprt.set_max_threads, gmprt.set_max_stack):
        with pytest.raises(TypeError):
            limit(garbage)


def test_a_larger_stack() -> None:
    code = """
        import sys, gmprt
        old = gmprt.set_max_stack(64 << 20)
        assert gmprt.set_max_stack(64 << 20) == 64 << 20 != old
        sys.setrecursionlimit(100_000)
        def key(depth):
            return 0 if depth == 0 else max([depth - 1], key=key)
        g = gmprt.go(key, 5000)
        print(g.result(20))
    """
    assert run_child(code).stdout == "4999\n"


def test_a_thread_may_start_goroutines_and_end() -> None:
    gate: Chan[int] = Chan()
    t = Thread(lambda: [go(gate.recv) for _ in range(5)])
    goroutines = t.result()
    ended(t)
    for i in range(5):
        gate.send(i)
    assert sorted(g.result(PATIENCE) for g in goroutines) == list(range(5))


# ---- numbers -----------------------------------------------------------------------------------


def test_num_goroutine_and_stats() -> None:
    gate: Chan[int] = Chan()
    before = gmprt.stats()
    assert gmprt.num_goroutine() == 0
    goroutines = [go(gate.recv) for _ in range(7)]
    for g in goroutines:
        parked(g)
    now = gmprt.stats()
    assert gmprt.num_goroutine() == now.goroutines == now.waiting == 7
    assert now.started - before.started == 7
    assert now.parks > before.parks
    assert sorted(g.id for g in gmprt.debug.goroutines()) == [g.id for g in goroutines]
    for i in range(7):
        gate.send(i)
    ended(*goroutines)
    eventually(lambda: gmprt.num_goroutine() == 0)
    assert gmprt.stats().ended - before.ended == 7
    with pytest.raises((AttributeError, TypeError)):
        now.parks = 0  # type: ignore[misc]


def test_gomaxprocs() -> None:
    old = gmprt.gomaxprocs()
    assert gmprt.gomaxprocs(3) == old
    assert gmprt.gomaxprocs(n=None) == 3
    assert gmprt.gomaxprocs(n=2) == 3
    assert gmprt.stats().procs == 2
    for n in (0, -1, 10**6, 2**70):
        with pytest.raises(ValueError):
            gmprt.gomaxprocs(n)
    for garbage in ("2", 2.0, []):
        with pytest.raises(TypeError):
            gmprt.gomaxprocs(garbage)  # type: ignore[arg-type]
    assert gmprt.gomaxprocs() == 2


@pytest.mark.parametrize(("value", "expected"), [("1", "1"), ("3", "3"), ("", None), ("x", None)])
def test_gomaxprocs_from_the_environment(value: str, expected: str | None) -> None:
    import os

    code = "import gmprt; gmprt.go(int).join(); print(gmprt.gomaxprocs())"
    got = run_child(code, env={"GOMAXPROCS": value}).stdout.strip()
    assert got == (expected or str(len(os.sched_getaffinity(0))))
