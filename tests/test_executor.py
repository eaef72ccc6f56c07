"""Executor: a ThreadPoolExecutor of goroutines; CPython's tests of executors, and its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.thread import BrokenThreadPool
from importlib.util import find_spec
from typing import Any

import pytest
from support import PATIENCE, Thread, eventually, mixed, run_child

import gmprt
from gmprt import Chan, Executor, go
from gmprt._api import executor

CPYTHON = """
import unittest, gmprt
from test.test_concurrent_futures import executor, test_as_completed, test_init, test_shutdown
from test.test_concurrent_futures import test_wait, util
from test.test_concurrent_futures.util import BaseTestCase

class Mixin(util.ThreadPoolMixin):
    executor_type = gmprt.Executor

class ExecutorTest(Mixin, executor.ExecutorTest, BaseTestCase): pass
class WaitTest(Mixin, test_wait.WaitTests, BaseTestCase): pass
class AsCompletedTest(Mixin, test_as_completed.AsCompletedTests, BaseTestCase): pass
class ShutdownTest(Mixin, test_shutdown.ExecutorShutdownTest, BaseTestCase):
    # They import it from concurrent.futures; test_at_the_end_of_the_process does the same.
    test_interpreter_shutdown = test_submit_after_interpreter_shutdown = test_hang_gh83386 = None
class InitializerTest(Mixin, test_init.InitializerMixin, BaseTestCase): pass
class FailingInitializerTest(Mixin, test_init.FailingInitializerMixin, BaseTestCase): pass

gmprt.run(unittest.main, argv=["x", "-v"])
"""


@pytest.mark.skipif(
    find_spec("test.test_concurrent_futures") is None
    or find_spec("test.test_concurrent_futures.util") is None,
    reason="the interpreter is installed without this package of its tests",
)
def test_cpythons() -> None:
    done = run_child(CPYTHON, timeout=2.5 * PATIENCE)
    assert "\nOK" in done.stderr
    assert done.stderr.count("... ok") > 25


def test_it_is_one() -> None:
    with Executor(2, thread_name_prefix="x") as pool:
        assert isinstance(pool, ThreadPoolExecutor)
        assert pool.submit(gmprt.current).result(PATIENCE) is not None
        assert pool.submit(lambda: threading.current_thread().name).result(PATIENCE)[:2] == "x_"
        assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]


@pytest.mark.parametrize("most", [1, 3, 50])
def test_max_workers_is_the_limit(procs: int, most: int) -> None:
    running, peak = gmprt.AtomicInt(), gmprt.AtomicInt()

    def work(n: int) -> int:
        now = running.add(1)
        while now > (old := peak.load()) and not peak.compare_and_swap(old, now):
            pass
        gmprt.sleep(0.0003)
        running.add(-1)
        return n

    with Executor(most) as pool:
        assert list(pool.map(work, range(100))) == list(range(100))
    assert peak.load() == most


def test_no_idle_workers() -> None:
    before = gmprt.num_goroutine()
    pool = Executor(10)
    assert sorted(f.result() for f in [pool.submit(abs, -n) for n in range(100)]) == list(
        range(100)
    )
    eventually(lambda: gmprt.num_goroutine() == before)
    assert pool.submit(abs, -1).result(PATIENCE) == 1
    pool.shutdown()


def test_thousands_wait_beside_each_other() -> None:
    gate: Chan[int] = Chan()
    with Executor(2000) as pool:
        futures = [pool.submit(gate.recv_ok) for _ in range(2000)]
        eventually(lambda: gate.waiting() == (0, 2000))
        gate.close()
        assert not wait(futures, PATIENCE).not_done


def test_from_everywhere(procs: int) -> None:
    """No call is left without a worker."""
    with Executor(3) as pool:

        def submit() -> list[int]:
            return [pool.submit(abs, -n).result(PATIENCE) for n in range(200)]

        for t in [mixed(i, submit) for i in range(6)]:
            assert t.result(PATIENCE) == list(range(200))


def test_shutdown() -> None:
    gate: Chan[int] = Chan()
    pool = Executor(1)
    first = pool.submit(gate.recv)
    second, third = pool.submit(abs, -2), pool.submit(abs, -3)
    assert third.cancel()
    waits = go(pool.shutdown)
    eventually(lambda: pool._shutdown)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)
    assert not waits.done()
    gate.send(1)
    assert waits.join(PATIENCE)
    assert (first.result(0), second.result(0), third.cancelled()) == (1, 2, True)

    pool = Executor(1)
    first = pool.submit(gate.recv)
    second = pool.submit(abs, -2)
    pool.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    gate.send(5)
    assert first.result(PATIENCE) == 5
    pool.shutdown()


@pytest.mark.parametrize("workers", [1, 2, 8, 20])
def test_calls_begin_in_the_order_of_submission(workers: int) -> None:
    """A worker may lose its turn just when it has taken a call; that is rare."""
    in_order = 0
    for _ in range(20):
        begun: list[int] = []
        with Executor(workers) as pool:
            for i in range(8):
                pool.submit(begun.append, i)
        assert sorted(begun) == list(range(8))
        in_order += begun == list(range(8))
    assert in_order > 10


def test_a_call_cannot_wait_for_its_own_end() -> None:
    """As a thread cannot join itself; without waiting it may shut its executor down."""
    pool = Executor(2)
    error = pool.submit(pool.shutdown).exception(PATIENCE)
    assert isinstance(error, RuntimeError)
    assert "its own end" in str(error)
    pool = Executor(2)
    assert pool.submit(lambda: pool.shutdown(wait=False)).result(PATIENCE) is None
    pool.shutdown()


def test_who_is_told_of_the_end_may_submit() -> None:
    """It is not called under the executor's lock."""
    said: list[str] = []

    def again(_: Future[Any]) -> None:
        try:
            pool.submit(abs, -1)
        except RuntimeError as error:
            said.append(type(error).__name__)

    gate: Chan[int] = Chan()
    pool = Executor(1)
    pool.submit(gate.recv_ok)
    pool.submit(abs, -2).add_done_callback(again)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.close()
    pool.shutdown()

    gate = Chan()
    pool = Executor(1, initializer=gate.recv)
    first, second = pool.submit(abs, -1), pool.submit(abs, -2)
    first.add_done_callback(again)
    gate.close()
    assert isinstance(second.exception(PATIENCE), BrokenThreadPool)
    assert said == ["RuntimeError", "BrokenThreadPool"]


def test_a_done_callback_that_raises_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt(_: Future[Any]) -> None:
        raise KeyboardInterrupt

    gate: Chan[int] = Chan()
    with Executor(1) as pool:
        first = pool.submit(gate.recv)
        first.add_done_callback(interrupt)
        gate.send(1)
        assert first.result(PATIENCE) == 1
        assert pool.submit(abs, -2).result(PATIENCE) == 2
    assert "Exception in worker" in caplog.text


def test_a_cancel_at_the_end_of_a_call_loses_no_callback() -> None:
    """asyncio's future is one: it would never be done."""
    told: Chan[str] = Chan(3)

    def cancelled(_: Future[Any]) -> None:
        me = gmprt.current()
        assert me is not None
        me.cancel()
        gmprt.sleep(0.001)
        told.send("first")

    gate: Chan[int] = Chan()
    with Executor(1) as pool:
        future = pool.submit(gate.recv)
        future.add_done_callback(cancelled)
        future.add_done_callback(lambda _: told.send("second"))
        gate.send(1)
        assert [told.recv(timeout=PATIENCE) for _ in range(2)] == ["first", "second"]


def test_goexit_ends_the_call() -> None:
    """Not the goroutine of whoever asks for its result."""
    with Executor(1) as pool:
        assert pool.submit(gmprt.goexit).result(PATIENCE) is None
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_wrong_arguments() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            Executor(wrong)
    with pytest.raises(TypeError):
        Executor(1, initializer=1)  # type: ignore[arg-type]


def test_initializer() -> None:
    calls: list[str] = []
    local = threading.local()

    def initialize(text: str) -> None:
        local.text = text
        calls.append(text)

    with Executor(2, initializer=initialize, initargs=("hello",)) as pool:
        assert {f.result() for f in [pool.submit(lambda: local.text) for _ in range(20)]} == {
            "hello"
        }
    assert 1 <= len(calls) <= 20


def test_initializer_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    pool = Executor(1, initializer=lambda: 1 / 0)
    futures = [pool.submit(abs, 1)]
    for f in futures:
        assert isinstance(f.exception(PATIENCE), BrokenThreadPool)
    with pytest.raises(BrokenThreadPool):
        pool.submit(abs, 1)
    assert "Exception in initializer" in caplog.text
    pool.shutdown()


def test_all_hear_of_an_initializer_that_fails() -> None:
    """Also beside one that was cancelled, and one that comes when the worker has looked."""
    gate: Chan[int] = Chan()
    pool = Executor(1, initializer=gate.recv)
    calls = [pool.submit(abs, n) for n in range(3)]
    assert calls[1].cancel()
    late: list[Future[int]] = []

    class Counter:
        def __init__(self, inner: Any) -> None:
            self.load, self.compare_and_swap = inner.load, inner.compare_and_swap
            self.inner = inner

        def add(self, n: int) -> int:
            if not late:
                late.append(future := Future())
                pool._work.calls.append(executor._Call(future, lambda: 1))
            return int(self.inner.add(n))

    pool._work._running = Counter(pool._work._running)  # type: ignore[assignment]
    gate.close()
    for f in (calls[0], calls[2]):
        assert isinstance(f.exception(PATIENCE), BrokenThreadPool)
    pool.shutdown()
    assert isinstance(late[0].exception(0), BrokenThreadPool)


var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")


def test_each_call_has_the_context_of_its_submit() -> None:
    with Executor(1) as pool:
        futures: list[Future[str]] = []
        for text in ("a", "b", "c"):
            var.set(text)
            futures.append(pool.submit(var.get))
        assert [f.result(PATIENCE) for f in futures] == ["a", "b", "c"]
    var.set("none")


def test_in_asyncio() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        pool = Executor(100)
        assert await loop.run_in_executor(pool, gmprt.current) is not None
        loop.set_default_executor(pool)
        begun = time.monotonic()
        await asyncio.gather(*[asyncio.to_thread(time.sleep, 0.2) for _ in range(100)])
        assert time.monotonic() - begun < 100 * 0.2
        var.set("task")
        assert await asyncio.to_thread(var.get) == "task"

    asyncio.run(body())
    gmprt.run(asyncio.run, body())
    Thread(asyncio.run, body()).result(PATIENCE)


def test_a_cancelled_call() -> None:
    with Executor(1) as pool:
        started: Chan[gmprt.Goroutine[Any]] = Chan()

        def work() -> None:
            me = gmprt.current()
            assert me is not None
            started.send(me)
            gmprt.sleep(3600)

        future, after = pool.submit(work), pool.submit(abs, -1)
        started.recv().cancel("enough")
        error = future.exception(PATIENCE)
        assert isinstance(error, gmprt.GoroutineCancelled)
        assert error.reason == "enough"
        assert after.result(PATIENCE) == 1, "the worker goes on"


def test_exceptions_are_delivered_and_let_go() -> None:
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise KeyError

    with Executor(2) as pool:
        thing = Thing()
        gone = weakref.ref(thing)
        future = pool.submit(fail, thing)
        assert isinstance(future.exception(PATIENCE), KeyError)
        with pytest.raises(SystemExit):
            pool.submit(exit, 3).result(PATIENCE)
        del thing, future
        gc.collect()
        eventually(lambda: gone() is None)


def test_a_dropped_executor_does_what_it_has() -> None:
    pool = Executor(1)
    futures = [pool.submit(abs, -n) for n in range(10)]
    gone = weakref.ref(pool)
    del pool
    assert [f.result() for f in as_completed(futures, PATIENCE)]
    eventually(lambda: gone() is None)


@pytest.mark.parametrize("kind", ["main", "run", "goroutine"])
def test_at_the_end_of_the_process(kind: str) -> None:
    """What was submitted is done, as by threads; what comes then is refused."""
    code = r"""
        import sys, threading, time, gmprt
        pool = gmprt.Executor(2)

        def late():
            time.sleep(0.2)
            try:
                pool.submit(print, "more")
            except RuntimeError as e:
                sys.stdout.write(str(e) + "\n")

        def main():
            for n in range(4):
                pool.submit(late)

        if sys.argv[1] == "run":
            gmprt.run(main)
        elif sys.argv[1] == "goroutine":
            gmprt.go(main).join()
        else:
            main()
        print("end of main")
        """
    lines = run_child(code, args=[kind]).stdout.splitlines()
    assert lines == ["end of main"] + ["cannot schedule new futures after interpreter shutdown"] * 4


@pytest.mark.parametrize("kind", ["main", "run"])
def test_in_a_forked_child(kind: str) -> None:
    """No worker is there to be waited for, and new ones run what is submitted there."""
    code = r"""
        import os, sys, gmprt
        pool, gate = gmprt.Executor(1), gmprt.Chan()

        def main():
            began = gmprt.Chan(1)
            calls = [pool.submit(lambda: (began.send(None), gate.recv())), pool.submit(gate.recv)]
            began.recv()
            pid = os.fork()
            if pid == 0:
                with pool:
                    assert pool.submit(int, "5").result() == 5
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            gate.close()
            for call in calls:
                assert isinstance(call.exception(), gmprt.EndOfChannel)

        gmprt.run(main) if sys.argv[1] == "run" else main()
        """
    run_child(code, args=[kind])


def test_a_submit_that_a_fork_has_cut_off() -> None:
    """Its lock is free in the child."""
    run_child("""
        import os, gmprt
        pool = gmprt.Executor(1)
        with pool._shutdown_lock:
            pid = os.fork()
            if pid == 0:
                assert pool.submit(int, "5").result() == 5
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        """)
