"""References and memory: nothing leaks, nothing dies too early, cycles are collectable."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, ended, eventually, parked, run_child

import gmprt
from gmprt import Chan, Recv, Select, Send, go, select


class Value:
    """Something that can be watched."""


def gone(ref: weakref.ref[Any]) -> None:
    """The object must be freed without the help of the collector."""
    gc.disable()
    try:
        eventually(lambda: ref() is None, "freed")
    finally:
        gc.enable()


def counted(fn: Callable[[Any], Any]) -> None:
    """fn(value) leaves no reference to its argument behind."""
    value = Value()
    gc.collect()
    before = sys.getrefcount(value)
    for _ in range(10):
        fn(value)
    gc.collect()
    assert sys.getrefcount(value) == before


# ---- channels ----------------------------------------------------------------------------------


def _send_recv(v: Any) -> None:
    ch: Chan[Any] = Chan(1)
    ch.send(v)
    assert ch.recv() is v


def _unbuffered(v: Any) -> None:
    ch: Chan[Any] = Chan()
    g = go(ch.send, v)
    assert ch.recv() is v
    ended(g)


def _to_a_waiting_receiver(v: Any) -> None:
    ch: Chan[Any] = Chan()
    g = go(ch.recv)
    parked(g)
    ch.send(v)
    assert g.result(PATIENCE) is v


def _dropped_with_the_channel(v: Any) -> None:
    ch: Chan[Any] = Chan(3)
    for _ in range(3):
        ch.send(v)


def _in_a_closed_channel(v: Any) -> None:
    ch: Chan[Any] = Chan(3)
    ch.send(v)
    ch.send(v)
    ch.close()
    assert ch.recv_ok() == (v, True)


def _refused(v: Any) -> None:
    ch: Chan[Any] = Chan()
    for call in (lambda: ch.send_nowait(v), lambda: ch.send(v, timeout=0)):
        with pytest.raises((gmprt.WouldBlock, gmprt.Timeout)):
            call()
    ch.close()
    with pytest.raises(gmprt.ChannelClosed):
        ch.send(v)
    with pytest.raises(gmprt.ChannelClosed):
        select(Send(ch, v))


def _timed_out(v: Any) -> None:
    ch: Chan[Any] = Chan()
    with pytest.raises(gmprt.Timeout):
        ch.send(v, timeout=0.001)
    with pytest.raises(gmprt.Timeout):
        select(Send(ch, v), Send(ch, v), timeout=0.001)
    g = go(ch.send, v, timeout=0.001)
    assert isinstance(g.exception(PATIENCE), gmprt.Timeout)


def _cancelled(v: Any) -> None:
    ch: Chan[Any] = Chan()
    for wait in (lambda: ch.send(v), lambda: select(Send(ch, v), ch)):
        g = go(wait)
        parked(g)
        g.cancel(v)
        assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)


def _closed_under_the_sender(v: Any) -> None:
    ch: Chan[Any] = Chan()
    g = go(ch.send, v)
    parked(g)
    ch.close()
    assert isinstance(g.exception(PATIENCE), gmprt.ChannelClosed)


def _bad_timeout(v: Any) -> None:
    ch: Chan[Any] = Chan(1)
    for timeout in (-1, "x"):
        with pytest.raises((ValueError, TypeError)):
            ch.send(v, timeout=timeout)
        with pytest.raises((ValueError, TypeError)):
            select(Send(ch, v), timeout=timeout)


def _select_send(v: Any) -> None:
    ch: Chan[Any] = Chan(1)
    select(Send(ch, v), Send(None, v), Send(Chan(), v))
    assert ch.recv() is v


def _select_recv(v: Any) -> None:
    ch: Chan[Any] = Chan(1)
    ch.send(v)
    sel = select(ch, ch, Recv(ch))
    assert sel.get(ch) is sel.value is sel[1] is v


def _select_waits(v: Any) -> None:
    ch: Chan[Any] = Chan()
    for wait in (lambda: select(ch, Chan()), lambda: select(Send(ch, v), Chan())):
        g = go(wait)
        parked(g)
        if ch.statistics().waiting_receivers:
            ch.send(v)
        else:
            assert ch.recv() is v
        ended(g)


def _select_object(v: Any) -> None:
    ch: Chan[Any] = Chan(5)
    sel = Select(Send(ch, v), Recv(Chan()))
    sel()
    sel()
    assert ch.recv() is v


def _select_many(v: Any) -> None:
    ch: Chan[Any] = Chan(1)
    select(*[Send(ch, v) for _ in range(50)])
    select(*[Send(ch, v) for _ in range(50)], default=True)


def _select_garbage(v: Any) -> None:
    with pytest.raises(TypeError):
        select(Send(Chan(1), v), v)
    with pytest.raises(TypeError):
        Select(Send(Chan(1), v), v)


def _iteration(v: Any) -> None:
    ch: Chan[Any] = Chan(3)
    with ch:
        ch.send(v)
        ch.send(v)
    assert list(ch.receiver) == [v, v]


def _after_func(v: Any) -> None:
    done: Chan[Any] = Chan(1)
    timer = gmprt.after_func(0.0001, done.send, v)
    assert done.recv() is v
    timer.stop()
    timer = gmprt.after_func(1000, done.send, v)
    timer.stop()
    eventually(lambda: gmprt.num_goroutine() == 0)


# ---- goroutines --------------------------------------------------------------------------------


def _arguments(v: Any) -> None:
    g = go(lambda a, *, b: None, v, b=v)
    ended(g)
    assert g.function is None


def _many_arguments(v: Any) -> None:
    ended(go(lambda *a, **k: None, *[v] * 20, **{f"k{i}": v for i in range(20)}))


def _result(v: Any) -> None:
    assert go(lambda: v).result(PATIENCE) is v


def _dropped_result(v: Any) -> None:
    go(lambda: v)
    eventually(lambda: gmprt.num_goroutine() == 0)


def _exception(v: Any) -> None:
    def fail() -> None:
        local = v
        raise LookupError(local)

    g = go(fail)
    error = g.exception(PATIENCE)
    assert isinstance(error, LookupError)
    error.__traceback__ = None


def _raised_result(v: Any) -> None:
    def fail(x: Any) -> None:
        raise LookupError(x)

    g = go(fail, v)
    with pytest.raises(LookupError):
        g.result(PATIENCE)


def _reported(v: Any) -> None:
    seen: list[Any] = []
    gmprt.excepthook = seen.append

    def fail(x: Any) -> None:
        raise LookupError(x)

    go(fail, v)
    eventually(lambda: seen)
    eventually(lambda: gmprt.num_goroutine() == 0)
    seen.clear()


def _goexit(v: Any) -> None:
    def leave(x: Any) -> None:
        gmprt.goexit()

    ended(go(leave, v))


def _cancel_before_start(v: Any) -> None:
    def main() -> None:
        g = go(lambda: (v, gmprt.sleep(1000)))
        g.cancel(v)
        g.exception()

    gmprt.run(main)


def _cancel_of_the_dead(v: Any) -> None:
    g = go(int)
    ended(g)
    g.cancel(v)


def _run(v: Any) -> None:
    assert gmprt.run(lambda x: x, v) is v
    with pytest.raises(LookupError):
        gmprt.run(_raise, v)


def _raise(x: Any) -> None:
    raise LookupError(x)


def _done_callback(v: Any) -> None:
    g = go(int)
    g.add_done_callback(lambda _, v=v: None)  # type: ignore[misc]
    ended(g)
    g.add_done_callback(lambda _, v=v: None)  # type: ignore[misc]


def _thread_local(v: Any) -> None:
    local = threading.local()

    def work() -> None:
        local.x = v

    ended(go(work))


def _context(v: Any) -> None:
    import contextvars

    var: contextvars.ContextVar[Any] = contextvars.ContextVar("var")

    def work() -> None:
        var.set(v)
        gmprt.gosched()

    ended(go(work))
    contextvars.copy_context().run(lambda: (var.set(v), ended(go(var.get))))


def _created_by_and_stack(v: Any) -> None:
    ch: Chan[Any] = Chan()

    def work(x: Any) -> None:
        ch.recv()

    g = go(work, v)
    parked(g)
    str(g.created_by), g.stack(), gmprt.debug.dump_string(), repr(g), g.frame()
    ch.send(1)
    ended(g)


def _generator(v: Any) -> None:
    def values() -> Any:
        yield v
        gmprt.sleep(0.0001)
        yield v

    gen = values()
    assert go(lambda: [next(gen), next(gen)]).result(PATIENCE) == [v, v]


def _abandoned_generator(v: Any) -> None:
    def values() -> Any:
        try:
            yield v
        finally:
            gmprt.sleep(0.0001)

    ended(go(lambda: next(values())))


PROBES = [
    value
    for name, value in list(globals().items())
    if name.startswith("_") and getattr(value, "__module__", "") == __name__ and value is not _raise
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda fn: fn.__name__.strip("_"))
def test_references(probe: Callable[[Any], Any]) -> None:
    counted(probe)


def test_freed_at_once() -> None:
    """Without the collector: results, arguments and exceptions die with their last reference."""
    value = Value()
    ref = weakref.ref(value)
    g: Any = go(lambda x: x, value)
    ended(g)
    del value
    assert ref() is g.result()
    del g
    gone(ref)


def test_a_dropped_handle_does_not_end_its_goroutine() -> None:
    gate: Chan[int] = Chan()
    done: Chan[int] = Chan()
    go(lambda: done.send(gate.recv()))
    gc.collect()
    gate.send(7)
    assert done.recv(timeout=PATIENCE) == 7


def test_handles_are_freed() -> None:
    for end in (int, lambda: 1 / 0, gmprt.goexit, lambda: gmprt.sleep(0.001)):
        g: Any = go(end)
        ref = weakref.ref(g)
        g.exception(PATIENCE)  # else a failure is reported, with the handle
        del g
        gone(ref)


def test_a_parked_goroutine_keeps_what_it_needs() -> None:
    ch: Chan[Any] = Chan()
    ref = weakref.ref(ch)
    g: Any = go(ch.recv)
    parked(g)
    del ch
    gc.collect()
    alive = ref()
    assert alive is not None
    alive.send(7)
    assert g.result(PATIENCE) == 7
    del alive
    gone(ref)


# ---- cycles ------------------------------------------------------------------------------------


def collectable(make: Callable[[], Any]) -> None:
    """What make() returns a weak reference to is found by the collector."""
    ref = make()
    gc.collect()
    gc.collect()
    assert ref() is None


def test_a_channel_that_holds_itself() -> None:
    def make() -> Any:
        ch: Chan[Any] = Chan(3)
        ch.send(ch)
        ch.send([ch.sender, ch.receiver])
        return weakref.ref(ch)

    collectable(make)


def test_two_channels_that_hold_each_other() -> None:
    def make() -> Any:
        a: Chan[Any] = Chan(1)
        b: Chan[Any] = Chan(1)
        a.send(b)
        b.send(a)
        a.close()
        return weakref.ref(b)

    collectable(make)


def test_a_channel_and_its_value() -> None:
    def make() -> Any:
        value = Value()
        value.ch = Chan(1)  # type: ignore[attr-defined]
        value.ch.send(value)  # type: ignore[attr-defined]
        return weakref.ref(value)

    collectable(make)


def test_a_goroutine_that_returned_itself() -> None:
    def make() -> Any:
        g = go(gmprt.current)
        ended(g)
        g.result()
        return weakref.ref(g)

    collectable(make)


def test_a_goroutine_whose_exception_holds_it() -> None:
    def make() -> Any:
        def fail() -> None:
            me = gmprt.current()
            raise LookupError(me)

        g = go(fail)
        g.exception(PATIENCE)
        return weakref.ref(g)

    collectable(make)


def test_cases_and_selects() -> None:
    def make() -> Any:
        value = Value()
        ch: Chan[Any] = Chan(1)
        value.select = Select(Send(ch, value), Recv(ch))  # type: ignore[attr-defined]
        value.sel = select(Send(ch, value))  # type: ignore[attr-defined]
        value.got = select(ch)  # type: ignore[attr-defined]
        return weakref.ref(value)

    collectable(make)


def test_timers_in_cycles() -> None:
    def make() -> Any:
        value = Value()
        value.timer = gmprt.Timer(1000)  # type: ignore[attr-defined]
        value.ticker = gmprt.Ticker(1000)  # type: ignore[attr-defined]
        value.me = value  # type: ignore[attr-defined]
        return weakref.ref(value)

    collectable(make)


def test_values_that_use_their_channel_when_they_die() -> None:
    """A destructor in the middle of the channel's own end, or of its clearing by the collector."""
    log: list[str] = []

    class Dying:
        def __init__(self, ch: Chan[Any]) -> None:
            self.ch = ch

        def __del__(self) -> None:
            log.append(f"{len(self.ch)}")
            try:
                self.ch.send_nowait("more")
                self.ch.recv_nowait()
                self.ch.close()
            except gmprt.Error as error:
                log.append(type(error).__name__)

    ch: Any = Chan(3)
    for _ in range(3):
        ch.send(Dying(ch))
    ref = weakref.ref(ch)
    del ch
    gc.collect()
    gc.collect()
    assert ref() is None
    assert len(log) >= 3


def test_the_collector_meets_parked_goroutines(procs: int) -> None:
    """Collections at any moment, in any goroutine, while values are on their way."""
    ch: Chan[Any] = Chan(2)

    def produce() -> None:
        for i in range(100):
            cycle: list[Any] = [i]
            cycle.append(cycle)
            ch.send(cycle)

    def consume() -> int:
        total = 0
        for i in range(100):
            total += ch.recv()[0]
            if i % 10 == 0:
                gc.collect()
        return total

    producers = [go(produce) for _ in range(4)]
    consumers = [go(consume) for _ in range(4)]
    assert sum(c.result(PATIENCE) for c in consumers) == 4 * 4950
    ended(*producers)


# ---- growth ------------------------------------------------------------------------------------


def grows(work: Callable[[], Any], rounds: int = 3) -> tuple[int, int]:
    """(objects, bytes) by which the heap grows over rounds of work(), after a round to warm up."""
    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        objects, size = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            work()
        gc.collect()
        return len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - size
    finally:
        tracemalloc.stop()


def _many_goroutines() -> None:
    for _ in range(10):
        ended(*[go(int) for _ in range(300)])


def _many_parked() -> None:
    gate: Chan[int] = Chan()
    goroutines = [go(gate.recv) for _ in range(1000)]
    for i in range(1000):
        gate.send(i)
    ended(*goroutines)


def _many_failures() -> None:
    for g in [go(_raise, i) for i in range(500)]:
        g.exception(PATIENCE)


def _many_cancels() -> None:
    goroutines = [go(Chan().recv) for _ in range(500)]
    for g in goroutines:
        g.cancel()
    ended(*goroutines)


def _many_timeouts() -> None:
    goroutines = [go(Chan().recv_ok, timeout=0.0001 * (i % 7)) for i in range(500)]
    for g in goroutines:
        g.exception(PATIENCE)


def _many_selects() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    goroutines = [go(lambda: select(a, b, timeout=PATIENCE)) for _ in range(300)]
    for i in range(300):
        select(Send(a, i), Send(b, i))
    ended(*goroutines)


def _many_runs() -> None:
    for i in range(50):
        gmprt.run(lambda x: go(int).join(), i)


def _many_timers() -> None:
    for _ in range(300):
        gmprt.Timer(1000)
        gmprt.after(0.001)
        gmprt.after_func(1000, int).stop()
    eventually(lambda: gmprt.num_goroutine() == 0)


def _many_threads() -> None:
    ch: Chan[int] = Chan()
    threads = [threading.Thread(target=ch.recv) for _ in range(30)]
    for t in threads:
        t.start()
    for i in range(30):
        ch.send(i)
    for t in threads:
        t.join()


def _many_thread_objects() -> None:
    ended(*[go(threading.current_thread) for _ in range(300)])


@pytest.mark.parametrize(
    "work",
    [
        _many_goroutines,
        _many_parked,
        _many_failures,
        _many_cancels,
        _many_timeouts,
        _many_selects,
        _many_runs,
        _many_timers,
        _many_threads,
        _many_thread_objects,
    ],
    ids=lambda fn: fn.__name__.strip("_"),
)
def test_no_growth(work: Callable[[], Any]) -> None:
    objects, size = grows(work)
    assert objects < 100
    assert size < 60_000

    def balanced() -> bool:
        now = gmprt.stats()
        return now.goroutines == now.waiting == 0 and now.started == now.ended

    eventually(balanced)  # who is joined has a few steps to go


def test_stacks_are_used_again() -> None:
    ended(*[go(int) for _ in range(2000)])
    before = gmprt.stats()
    for _ in range(10):
        ended(*[go(int) for _ in range(2000)])
    after = gmprt.stats()
    assert after.stack_slots <= before.stack_slots + 100
    step = 5 << 30  # by which it grows, where stacks are 20 MiB
    assert after.stack_reserved <= before.stack_reserved * 1.1 + step


def test_stacks_with_memory_are_counted() -> None:
    """In a process of its own, where nobody else falls asleep."""
    code = f"""
        import time, gmprt
        from gmprt import Chan, go, stats

        def eventually(condition):
            deadline = time.monotonic() + {PATIENCE}
            while not condition():
                assert time.monotonic() < deadline, stats()
                time.sleep(0.01)

        def deep(n):
            return n and sorted([n - 1], key=deep)

        def dives():  # deeper than what a stack keeps, and waits on that
            deep(60)
            gate.recv()

        gate = Chan()
        go(int).join()
        first = stats()
        assert 0 < first.stacks_committed <= first.stack_slots
        goroutines = [go(gate.recv) for _ in range(300)]
        eventually(lambda: stats().waiting == 300)
        awake = stats()
        eventually(lambda: stats().stacks_emptied >= first.stacks_emptied + 300)
        asleep = stats()
        assert asleep.hibernating == 300
        assert asleep.stacks_committed <= first.stacks_committed < asleep.stack_slots
        assert awake.stacks_committed + awake.stacks_emptied >= 300
        for _ in goroutines:
            gate.send(None)
        for g in goroutines:
            g.join()
        roused = stats()
        assert roused.stacks_committed >= asleep.stacks_committed + 300
        assert roused.stack_slots == asleep.stack_slots

        before = stats().stack_shrinks
        diver = go(dives)
        eventually(lambda: stats().stack_shrinks > before or stats().hibernating)
        gate.send(None)
        diver.join()
        eventually(lambda: stats().stack_shrinks > before)  # awake, or in the pool
    """
    run_child(code)


def test_memory_of_the_process_does_not_grow() -> None:
    """All of it, thread states and stacks included, in a process of its own."""
    code = """
        import gc, gmprt
        def rss():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        def work():
            gate = gmprt.Chan()
            goroutines = [gmprt.go(gate.recv, timeout=100) for _ in range(2000)]
            for i in range(2000):
                gate.send(i)
            for g in goroutines:
                g.join()
        def main():
            for _ in range(5):
                work()
            sizes = []
            for _ in range(5):
                gc.collect()
                sizes.append(rss())
                for _ in range(10):
                    work()
            # Once in a while more run at a time than before; what leaks does so each time.
            grown = [after - before for before, after in zip(sizes, sizes[1:])]
            assert min(grown) < 1 << 19, grown
            print("steady")
        gmprt.run(main)
    """
    assert run_child(code).stdout == "steady\n"


def test_descriptors_and_threads_are_given_back() -> None:
    def main() -> None:
        ended(*[go(gmprt.sleep, 0.001) for _ in range(100)])

    gmprt.run(main)
    fds = len(list(Path("/proc/self/fd").iterdir()))
    threads = len(list(Path("/proc/self/task").iterdir()))
    for _ in range(50):
        gmprt.run(main)
    assert len(list(Path("/proc/self/fd").iterdir())) <= fds
    assert len(list(Path("/proc/self/task").iterdir())) <= threads + 4


STATES = """
import ctypes, os, threading, time, gmprt
from gmprt import go, Chan
N = 12_000  # of dead ones beyond 8192 the stacks are given back at once
api = ctypes.pythonapi
for f in (api.PyInterpreterState_Get, api.PyInterpreterState_ThreadHead, api.PyThreadState_Next):
    f.restype = ctypes.c_void_p
api.PyInterpreterState_ThreadHead.argtypes = api.PyThreadState_Next.argtypes = [ctypes.c_void_p]
def states():
    n, state = 0, api.PyInterpreterState_ThreadHead(api.PyInterpreterState_Get())
    while state:
        n, state = n + 1, api.PyThreadState_Next(state)
    return n
def crowd():
    gate, local = Chan(), threading.local()
    def one():
        assert not hasattr(local, "x")
        local.x = threading.get_ident()
        gate.recv_ok()
        return local.x
    goroutines = [go(one) for _ in range(N)]
    while gate.waiting()[1] < N:
        time.sleep(0.01)
    assert states() > N
    gate.close()
    assert len({g.result() for g in goroutines}) == N
def fewer():
    while states() > N / 2:
        time.sleep(0.01)
def main():
    crowd()
    fewer()
    pid = os.fork()
    crowd()
    if pid == 0:
        fewer()
        os._exit(7)
    while states() > N / 2: # also while there is always work
        gmprt.gosched()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
gmprt.run(main)
print("given back")
"""


def test_thread_states_of_a_crowd_are_given_back() -> None:
    assert run_child(STATES, flags=["-W", "ignore"], timeout=3 * PATIENCE).stdout == "given back\n"


NESTS = {
    "buffers": "ch = Chan(1); ch.send(x); return ch",
    "views": "ch = Chan(1); ch.send(x); return ch.receiver",
    "send cases": "return Send(None, x)",
    "selects": "return Select(Send(None, x))",
    "selected": "ch = Chan(1); ch.send(x); return select(ch)",
    "results": "g = go(lambda: x); g.join(); return g",
    "errors": "g = go(fail, x); g.exception(); return g",
    "reasons": "g = go(int); g.cancel(x); g.join(); return g",
    "callbacks": "g = go(int); g.join(); g.add_done_callback(id); return [g, lambda: x]",
    "timers": "t = after_func(1e6, lambda: x); t.stop(); return t",
}


@pytest.mark.parametrize("where", ["thread", "goroutine", "collector"])
@pytest.mark.parametrize("nest", NESTS)
def test_what_is_nested_deeply_can_be_freed(nest: str, where: str) -> None:
    """As lists and tuples can: without a C frame for each level."""
    levels = 80_000 if "go(" in NESTS[nest] else 200_000
    code = f"""
        import gc, sys
        from gmprt import *

        def fail(x):
            raise ValueError(x)

        def deeper(x):
            {NESTS[nest]}

        def nested():
            gc.disable()
            x = None
            for _ in range({levels}):
                x = deeper(x)
            return [x]

        def free(x):
            if {where!r} == "collector":
                x.append(x)
                del x
                gc.collect()
            else:
                x.clear()
            print("freed")

        if {where!r} == "thread":
            free(run(nested))
        else:
            run(lambda: go(lambda: free(nested())).result())
    """
    assert run_child(code, timeout=120).stdout == "freed\n"
