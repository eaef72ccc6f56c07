"""csrc/py/types/context.c: contexts.  What Go's context_test.go, afterfunc_test.go and x_test.go
check, in goroutines and threads."""

from __future__ import annotations

import gc
import math
import random
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Thread, eventually, mixed, parked, run_child

import gmprt
from gmprt import Chan, Cond, ContextCancelled, DeadlineExceeded, Mutex, context, go, select
from gmprt.context import (
    CancelContext,
    Context,
    after_func,
    background,
    cause,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)

Where = Callable[[Callable[[], Any]], Any]

SOON = 0.02


def not_done(*contexts: Context) -> None:
    for ctx in contexts:
        assert ctx.err() is None
        assert cause(ctx) is None
        assert not ctx.done().closed
        assert select(ctx.done(), default=True).index == -1


def done(error: type[BaseException], *contexts: Context, why: BaseException | None = None) -> None:
    for ctx in contexts:
        assert type(ctx.err()) is error
        assert ctx.err() is ctx.err()
        assert cause(ctx) is (why or ctx.err())
        assert ctx.done().closed
        assert ctx.done().recv_ok() == (None, False)
        assert select(ctx.done(), default=True)[:] == (0, None, False)


# ---- the root ----------------------------------------------------------------------------------


def test_background(where: Where) -> None:
    def body() -> None:
        ctx = background()
        assert ctx is background()
        not_done(ctx)
        assert (ctx.deadline(), ctx.value("a")) == (None, None)
        assert ctx.done() == background().done()
        with ctx as same:
            assert same is ctx
        not_done(ctx)
        assert repr(ctx) == "<gmprt.context.background>"
        assert not hasattr(ctx, "cancel")

    where(body)


# ---- cancelling --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [with_cancel, with_cancel_cause])
def test_cancel(make: Callable[..., CancelContext], where: Where) -> None:
    def body() -> None:
        first = make()
        second = make(with_value("a", 1, first))
        not_done(first, second)
        assert first.done() == first.done() != second.done()
        first.cancel()
        done(ContextCancelled, first, second)
        assert second.err() is first.err()
        first.cancel()
        second.cancel(ZeroDivisionError())
        done(ContextCancelled, first, second)

    where(body)


def test_a_parent_ends_its_children() -> None:
    parent = with_cancel()
    value = with_value("key", "value", parent)
    children = [with_cancel(parent), value, with_timeout(10000 * 3600, value)]
    not_done(parent, *children)
    parent.cancel()
    done(ContextCancelled, parent, *children)
    # One that is made below a context that is done is done.
    late = [with_value("key", "value", parent), with_cancel(parent), with_timeout(1000, parent)]
    done(ContextCancelled, *late)


@pytest.mark.parametrize("under", ["background", "cancel", "value"])
def test_a_child_ends_first(under: str) -> None:
    with with_cancel() as cancelable:
        parent: Context = {
            "background": background(),
            "cancel": cancelable,
            "value": with_value("a", 1, cancelable),
        }[under]
        child = with_cancel(parent)
        not_done(child, parent)
        child.cancel()
        done(ContextCancelled, child)
        not_done(parent)


def test_it_is_synchronous(procs: int) -> None:
    """Whoever looks when cancel() has returned finds the whole tree done; nobody a part of it."""
    for _ in range(20):
        root = with_cancel()
        leaf: Context = root
        for i in range(30):
            leaf = with_cancel(with_value(i, i, leaf))
        stop, wrong = [False], list[str]()

        def look(root: Context, leaf: Context, stop: list[bool], wrong: list[str]) -> None:
            while not stop[0]:
                before = root.err()
                if before is not None and leaf.err() is None:
                    wrong.append("leaf")
                if leaf.err() is not None and root.err() is None:
                    wrong.append("root")
                gmprt.sleep(0)

        lookers = [mixed(i, look, root, leaf, stop, wrong) for i in range(2)]
        waiter = go(leaf.done().recv_ok)
        parked(waiter)
        root.cancel()
        done(ContextCancelled, root, leaf)
        stop[0] = True
        for looker in lookers:
            looker.result(PATIENCE)
        assert waiter.result(PATIENCE) == (None, False)
        assert not wrong


def test_many_at_once(procs: int) -> None:
    """Go's TestSimultaneousCancels."""
    tree = [with_cancel()]
    for ctx in tree:
        if len(tree) < 100:
            tree += [with_cancel(ctx) for _ in range(4)]
    order = random.sample(tree, len(tree))
    cancels = [mixed(i // 8, ctx.cancel) for i, ctx in enumerate(order)]
    for ctx in random.sample(tree, len(tree)):
        assert ctx.done().recv_ok(timeout=PATIENCE) == (None, False)
    for task in cancels:
        task.result(PATIENCE)
    done(ContextCancelled, *tree)


def test_the_first_cancel_wins(procs: int) -> None:
    for _ in range(20):
        ctx = with_cancel_cause()
        reasons = [ValueError(i) for i in range(6)]
        child = with_cancel(ctx)
        cancels = [mixed(i, ctx.cancel, why) for i, why in enumerate(reasons)]
        for task in cancels:
            task.result(PATIENCE)
        assert cause(ctx) in reasons
        done(ContextCancelled, ctx, child, why=cause(ctx))


def test_each_cancels_the_other(procs: int) -> None:
    """Go's TestInterlockedCancels."""
    for i in range(10):
        parent = with_cancel()
        child = with_cancel(parent)

        def when_it_is_done(parent: Context = parent, child: CancelContext = child) -> None:
            parent.done().recv_ok()
            child.cancel()

        task = mixed(i, when_it_is_done)
        parent.cancel()
        assert child.done().recv_ok(timeout=PATIENCE) == (None, False)
        task.result(PATIENCE)


def test_a_parent_that_is_cancelled_meanwhile(procs: int) -> None:
    """Go's TestWithCancelSimultaneouslyCanceledParent, and TestWithCancelCanceledParent."""
    why = ValueError("because")
    for i in range(50):
        parent = with_cancel_cause()
        task = mixed(i, parent.cancel, why)
        child = with_cancel(parent)
        assert child.done().recv_ok(timeout=PATIENCE) == (None, False)
        done(ContextCancelled, child, why=why)
        task.result(PATIENCE)
        done(ContextCancelled, with_cancel(parent), why=why)


def test_who_asks_again_and_again(procs: int) -> None:
    """Go's TestContextErrDoneRace and TestCauseRace: with err() all the rest is there."""
    why = ValueError("because")
    for i in range(10):
        ctx = with_cancel_cause()
        channel = ctx.done()
        task = mixed(i, ctx.cancel, why)
        while (err := ctx.err()) is None:
            gmprt.sleep(0)
        assert isinstance(err, ContextCancelled)
        assert channel.closed
        assert cause(ctx) is why
        task.result(PATIENCE)
        ctx = with_cancel_cause()
        task = mixed(i, ctx.cancel, why)
        while (got := cause(ctx)) is None:
            gmprt.sleep(0)
        assert got is why
        task.result(PATIENCE)


def test_a_deep_tree() -> None:
    root = with_cancel()
    leaf: Context = root
    for i in range(100_000):
        leaf = with_cancel(leaf) if i % 2 else with_value(i, i, leaf)
    assert leaf.value(0) == 0
    root.cancel()
    done(ContextCancelled, leaf)
    del leaf, root
    leaf = background()
    for i in range(100_000):
        leaf = with_value(i, i, leaf)
    del leaf


# ---- with --------------------------------------------------------------------------------------


def test_a_block_cancels_at_its_end(where: Where) -> None:
    def body() -> None:
        with with_cancel() as ctx:
            not_done(ctx)
            with with_value("a", 1, ctx) as value:  # it is not its own to end
                assert value.value("a") == 1
            not_done(ctx)
        done(ContextCancelled, ctx)
        with pytest.raises(ZeroDivisionError):
            with with_timeout(1000) as ctx:
                raise ZeroDivisionError
        done(ContextCancelled, ctx)

    where(body)


# ---- deadlines ---------------------------------------------------------------------------------


def over(ctx: Context) -> None:
    assert ctx.done().recv_ok(timeout=PATIENCE) == (None, False)
    done(DeadlineExceeded, ctx)


def test_deadline(where: Where) -> None:
    def body() -> None:
        now = time.monotonic()
        ctx = with_deadline(now + SOON)
        assert ctx.deadline() == pytest.approx(now + SOON)
        over(ctx)
        assert time.monotonic() >= now + SOON
        below = with_deadline(now + 4000, with_value("a", 1, with_deadline(now + 2 * SOON)))
        assert below.deadline() == pytest.approx(now + 2 * SOON)
        over(below)
        for past in (now - 1, now, 0, -1e300, -math.inf):
            done(DeadlineExceeded, with_deadline(past))
        for none in (math.inf, 1e300):
            assert with_deadline(none).deadline() is None
            assert with_timeout(none).deadline() is None

    where(body)


def test_timeout(where: Where) -> None:
    def body() -> None:
        ctx = with_timeout(SOON)
        not_done(ctx)
        over(ctx)
        over(with_value("a", 1, with_timeout(SOON)))
        over(with_timeout(1000, with_timeout(SOON)))
        over(with_timeout(SOON, with_timeout(1000)))
        done(DeadlineExceeded, with_timeout(0), with_timeout(-1), with_timeout(-math.inf))

    where(body)


def test_a_timeout_that_is_cancelled() -> None:
    parent = with_timeout(1000)
    ctx = with_timeout(2000, parent)
    waiter = go(ctx.done().recv_ok)
    parked(waiter)
    ctx.cancel()
    assert waiter.result(PATIENCE) == (None, False)
    done(ContextCancelled, ctx)
    not_done(parent)
    assert ctx.deadline() == parent.deadline()


def test_who_looks_sees_that_it_is_over() -> None:
    """Without a timer: from the top down, whoever looks first, and wherever."""
    look: dict[str, Callable[[Context, Context], Any]] = {
        "err of the child": lambda parent, child: child.err(),
        "err of the parent": lambda parent, child: parent.err(),
        "a child of it": lambda parent, child: with_cancel(child),
        "cancel": lambda parent, child: child.cancel(),  # type: ignore[attr-defined]
        "done": lambda parent, child: child.done(),
    }
    for how in look.values():
        parent = with_timeout(0.002)
        child = with_cancel(parent)
        time.sleep(0.004)
        how(parent, child)
        done(DeadlineExceeded, child, parent)
        assert child.err() is parent.err()


def test_many_wait_for_one_deadline(procs: int) -> None:
    parent = with_timeout(SOON)
    child = with_cancel(parent)
    waiters = [mixed(i, (parent, child)[i // 2 % 2].done().recv_ok) for i in range(8)]
    selecting = [mixed(i, select, Chan[int](), child.done(), gmprt.after(1000)) for i in range(2)]
    for waiter in waiters:
        assert waiter.result(PATIENCE) == (None, False)
    for task in selecting:
        assert task.result(PATIENCE)[:] == (1, None, False)
    done(DeadlineExceeded, parent, child)


def test_the_channel_is_enough() -> None:
    """Who keeps only that hears of the deadline, and of a cancel from above."""
    channel = with_timeout(SOON).done()
    gc.collect()
    assert channel.recv_ok(timeout=PATIENCE) == (None, False)
    with with_cancel() as parent:
        below = with_timeout(1000, with_cancel(parent)).done()
        gc.collect()
    assert below.closed


def test_it_is_a_timeout_to_everybody() -> None:
    """Go's TestDeadlineExceededSupportsTimeout and TestDeadlineExceededIsNetError."""
    error = with_timeout(0).err()
    assert isinstance(error, TimeoutError)
    assert isinstance(error, OSError)
    assert not isinstance(error, ContextCancelled)


# ---- values ------------------------------------------------------------------------------------


def test_values() -> None:
    class Key:
        def __init__(self, number: int) -> None:
            self.number = number

    k1, k2, k3 = Key(1), (1, "k2"), "k3"
    first = with_value(k1, "c1k1")
    second = with_value(k2, "c2k2", first)
    third = with_value(k3, "c3k3", with_cancel(second))
    hidden = with_value(k1, None, third)

    def of(ctx: Context) -> list[Any]:
        return [ctx.value(k) for k in (k1, (1, "k2"), "k3")]

    assert of(background()) == [None, None, None]
    assert of(first) == ["c1k1", None, None]
    assert of(second) == ["c1k1", "c2k2", None]
    assert of(third) == ["c1k1", "c2k2", "c3k3"]
    assert of(hidden) == [None, "c2k2", "c3k3"]
    assert of(without_cancel(hidden)) == of(hidden)
    assert third.value(Key(1)) is None
    assert repr(first).startswith("<gmprt.context.Context with <")


def test_keys() -> None:
    with pytest.raises(TypeError, match=r"^with_value\(\): key must not be None$"):
        with_value(None, 1)
    with pytest.raises(TypeError, match="unhashable"):
        with_value([], 1)

    class Broken:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_value(Broken(), 1).value("other")


def test_layers() -> None:
    """Go's testLayers."""
    for times_out in (False, True):
        rng = random.Random(7)
        ctx: Context = background()
        keys, cancels, timed = list[object](), list[CancelContext](), 0
        while len(keys) + len(cancels) < 30 or not (timed and cancels and keys):
            kind = rng.randrange(3)
            if kind == 0:
                keys.append(object())
                ctx = with_value(keys[-1], keys[-1], ctx)
            else:
                timed += kind == 2
                ctx = with_timeout(0.05, ctx) if kind == 2 else with_cancel(ctx)
                assert isinstance(ctx, CancelContext)
                cancels.append(ctx)
        not_done(ctx)
        assert all(ctx.value(key) is key for key in keys)
        if times_out:
            over(ctx)
        else:
            rng.choice(cancels).cancel()
            done(ContextCancelled, ctx)
        assert all(ctx.value(key) is key for key in keys)


# ---- cause -------------------------------------------------------------------------------------

PARENT, CHILD = ValueError("parent"), ValueError("child")


def test_cause() -> None:
    """The table of Go's TestCause."""
    parent = with_cancel_cause()
    child = with_cancel_cause(parent)
    not_done(parent, child)
    parent.cancel(PARENT)
    done(ContextCancelled, parent, child, why=PARENT)

    parent = with_cancel_cause()
    child = with_cancel_cause(parent)
    child.cancel(CHILD)
    parent.cancel(PARENT)
    done(ContextCancelled, parent, why=PARENT)
    done(ContextCancelled, child, why=CHILD)

    ctx = with_cancel_cause()
    ctx.cancel(None)
    done(ContextCancelled, ctx)

    parent = with_cancel_cause()
    ctx = with_timeout(0, parent)
    parent.cancel(PARENT)
    done(DeadlineExceeded, ctx)

    parent = with_cancel_cause()
    parent.cancel(PARENT)
    done(ContextCancelled, with_timeout(0, parent), with_timeout(1000, parent), why=PARENT)

    ctx = with_timeout(0)
    with_cancel_cause(ctx).cancel(CHILD)
    ctx.cancel(PARENT)
    done(DeadlineExceeded, ctx, with_cancel_cause(ctx))

    assert cause(without_cancel(with_timeout(0))) is None


@pytest.mark.parametrize("first", ["parent", "child"])
@pytest.mark.parametrize("parents", [None, PARENT])
@pytest.mark.parametrize("childs", [None, CHILD])
def test_cause_is_that_of_the_first(
    first: str, parents: ValueError | None, childs: ValueError | None
) -> None:
    """Go's TestCause: parent and child are both cancelled, with and without a cause."""
    parent = with_cancel_cause()
    child = with_cancel_cause(parent)
    if first == "parent":
        parent.cancel(parents)
        child.cancel(childs)
        done(ContextCancelled, parent, child, why=parents)
    else:
        child.cancel(childs)
        parent.cancel(parents)
        done(ContextCancelled, parent, why=parents)
        done(ContextCancelled, child, why=childs)


def test_without_cancel() -> None:
    parent = with_timeout(SOON, with_value("a", 1))
    ctx = without_cancel(parent)
    parent.cancel()
    not_done(ctx)
    assert (ctx.deadline(), ctx.value("a")) == (None, 1)
    below = with_cancel(ctx)
    not_done(below)
    below.cancel()
    done(ContextCancelled, below)
    assert repr(ctx) == "<gmprt.context.Context without cancel>"


# ---- after_func --------------------------------------------------------------------------------


def test_after_func_is_called_when_it_is_done() -> None:
    for make in (with_cancel, lambda: with_timeout(SOON)):
        called = Chan[int](1)
        ctx = make()
        stop = after_func(ctx, called.send, 1)
        gmprt.sleep(0.001)
        if ctx.deadline() is None:
            assert len(called) == 0
            ctx.cancel()
            assert not stop()  # at once, though it may not run yet
        assert called.recv(timeout=PATIENCE) == 1
        assert not stop()


def test_after_func_of_one_that_is_done() -> None:
    called = Chan[int](1)
    ctx = with_timeout(0)
    stop = after_func(ctx, called.send, 1)
    assert not stop()
    assert called.recv(timeout=PATIENCE) == 1


def test_after_func_stopped() -> None:
    called: list[int] = []
    ctx = with_cancel()
    before = gmprt.num_goroutine()
    stop = after_func(ctx, called.append, 1)
    assert stop()
    assert not stop()
    ctx.cancel()
    assert not stop()
    eventually(lambda: gmprt.num_goroutine() <= before)
    assert not called


def test_after_func_and_stop_race(procs: int) -> None:
    for i in range(50):
        called: list[int] = []
        ctx = with_cancel()
        stop = after_func(ctx, called.append, 1)
        stopper, canceller = mixed(i, stop), mixed(i + 1, ctx.cancel)
        stopped = stopper.result(PATIENCE)
        canceller.result(PATIENCE)
        if not stopped:
            eventually(lambda called=called: called)  # type: ignore[misc]
        gmprt.sleep(0)
        assert len(called) == (not stopped)


def test_after_func_does_not_hold_up_the_cancel() -> None:
    gate = Chan[int]()
    ctx = with_cancel()
    started = Chan[int]()

    def body() -> None:
        started.send(1)
        gate.recv()

    after_func(ctx, body)
    ctx.cancel()
    started.recv(timeout=PATIENCE)
    done(ContextCancelled, ctx)
    gate.send(1)


def test_after_func_ends_a_wait_for_a_condition() -> None:
    """Go's ExampleAfterFunc_cond."""
    cond = Cond(Mutex())

    def wait_on(ctx: Context) -> BaseException | None:
        def broadcast() -> None:
            with cond:  # so that nobody is between his look and his wait
                cond.broadcast()

        with cond:
            stop = after_func(ctx, broadcast)
            while ctx.err() is None:
                cond.wait()
            stop()
        return ctx.err()

    contexts = [with_timeout(0.001 * i) for i in range(4)]
    for g in [go(wait_on, ctx) for ctx in contexts]:
        assert isinstance(g.result(PATIENCE), DeadlineExceeded)


def test_after_func_ends_a_read() -> None:
    """Go's ExampleAfterFunc_connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs, with_timeout(0.001) as ctx:
        stop = after_func(ctx, ours.shutdown, socket.SHUT_RD)
        assert ours.recv(1) == b""
        assert not stop()
        assert isinstance(ctx.err(), DeadlineExceeded)


def test_after_func_merges_two() -> None:
    """Go's ExampleAfterFunc_merge: one context that ends with either of two."""
    for which in (0, 1):
        one, two = with_cancel_cause(with_value("a", 1)), with_cancel_cause()
        merged = with_cancel_cause(one)

        def end(merged: CancelContext = merged, two: Context = two) -> None:
            merged.cancel(cause(two))

        stop = after_func(two, end)
        not_done(merged)
        (one, two)[which].cancel(CHILD)
        assert merged.done().recv_ok(timeout=PATIENCE) == (None, False)
        assert (cause(merged), merged.value("a")) == (CHILD, 1)
        stop()


def test_wrong_arguments() -> None:
    makers: dict[str, Callable[[Any], Any]] = {
        "with_cancel": with_cancel,
        "with_cancel_cause": with_cancel_cause,
        "with_timeout": lambda parent: with_timeout(1, parent),
        "with_deadline": lambda parent: with_deadline(1, parent),
        "with_value": lambda parent: with_value("a", 1, parent),
        "without_cancel": without_cancel,
    }
    for name, make in makers.items():
        for wrong in (1, "a", object()):
            with pytest.raises(TypeError, match=rf"^{name}\(\): parent must be a context, not "):
                make(wrong)
    for maker, what in ((with_timeout, "seconds"), (with_deadline, "deadline")):
        assert callable(maker)
        for wrong in ("a", {}, 1j):
            with pytest.raises(TypeError, match=rf"^{maker.__name__}\(\): {what} must be a number"):
                maker(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"^{maker.__name__}\(\): {what} must not be NaN"):
            maker(math.nan)
    with pytest.raises(TypeError, match=r"^cancel\(\): cause must be an exception or None"):
        with_cancel().cancel("why")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^cause\(\): ctx must be a context"):
        cause(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^after_func\(\): ctx must be a context, not int$"):
        after_func(3, int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^after_func\(\): fn must be callable"):
        after_func(background(), 1)  # type: ignore[arg-type]
    for cls in (Context, CancelContext):
        with pytest.raises(TypeError):
            cls()


# ---- nothing is left ---------------------------------------------------------------------------


def alive(kind: type[Any]) -> int:
    gc.collect()
    gc.unfreeze()
    return sum(isinstance(o, kind) for o in gc.get_objects())


def test_children_unlink_themselves() -> None:
    """Go's TestCancelRemoves."""
    parent = with_cancel()
    before = alive(Context)
    for _ in range(100):
        with with_cancel(with_value("a", 1, parent)), with_timeout(1000, parent):
            pass
        with_timeout(0, parent)
    assert alive(Context) == before
    kept = with_cancel(parent)
    for _ in range(3):
        child = with_cancel(parent)
        ref = weakref.ref(child)
        child.cancel()
        del child
        assert ref() is None
    not_done(kept)


def test_a_tree_that_nobody_holds_is_collected() -> None:
    before = alive(Context)
    parent = with_timeout(1000)
    refs = [weakref.ref(with_cancel(with_value("a", 1, parent))) for _ in range(3)]
    parent.done()
    gc.collect()
    assert all(ref() is not None for ref in refs)  # held by their parent, as in Go
    del parent
    gc.collect()
    assert all(ref() is None for ref in refs)
    assert alive(Context) == before


def test_no_goroutine_and_no_thread_waits_for_a_deadline() -> None:
    before = gmprt.num_goroutine()
    contexts = [with_timeout(1000) for _ in range(1000)]
    assert gmprt.num_goroutine() == before
    assert all(ctx.err() is None for ctx in contexts)


def test_a_deadline_is_no_deadlock() -> None:
    """In run() somebody waits for a context whose time will come."""

    def main() -> Any:
        return with_timeout(SOON).done().recv_ok()

    assert gmprt.run(main) == (None, False)


def test_without_a_runtime() -> None:
    """In ordinary threads contexts need none."""
    run_child(
        """
        import threading
        from gmprt import _core, context
        ctx = context.with_timeout(0.02)
        child = context.with_cancel(ctx)
        t = threading.Thread(target=child.done().recv_ok)
        t.start()
        t.join()
        assert isinstance(child.err(), TimeoutError)
        assert not _core.running()
        """
    )


def test_in_threads_and_goroutines(procs: int) -> None:
    """A pipeline of both kinds that is told to stop from the top."""
    with with_cancel() as ctx:
        numbers, squares = Chan[int](), Chan[int]()

        def produce() -> int:
            n = 0
            while select(gmprt.Send(numbers, n), ctx.done()).index == 0:
                n += 1
            return n

        def square() -> int:
            n = 0
            while (got := select(numbers, ctx.done())).index == 0 and got.ok:
                n += select(gmprt.Send(squares, got.get(numbers) ** 2), ctx.done()).index == 0
            return n

        workers = [mixed(i, fn) for i, fn in enumerate([produce, square, square])]
        got = [squares.recv(timeout=PATIENCE) for _ in range(100)]
    made, *squared = [w.result(PATIENCE) for w in workers]
    assert len(set(got)) == 100
    assert made >= sum(squared) >= 100


def test_a_cancel_from_a_destructor() -> None:
    ctx = with_cancel()

    class Dying:
        def __del__(self) -> None:
            ctx.cancel()

    waiter = Thread(ctx.done().recv_ok)
    key = with_value("dying", Dying(), with_cancel())
    del key
    gc.collect()
    assert waiter.result(PATIENCE) == (None, False)


def test_module() -> None:
    assert context.__doc__
    assert gmprt.context is context
    assert Context.__module__ == "gmprt.context"
    assert CancelContext.__module__ == "gmprt.context"
