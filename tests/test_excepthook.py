"""Failures that nobody collects: reported once, by an ordinary goroutine, never lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import Chan, ExceptHookArgs, go

Where = Callable[[Callable[[], Any]], Any]


def fail(what: str = "reason") -> None:
    raise LookupError(what)


@pytest.fixture
def reports() -> Iterator[list[ExceptHookArgs]]:
    """What gmprt.excepthook is called with; the test must take everything out."""
    got: list[ExceptHookArgs] = []
    gmprt.excepthook = got.append
    yield got
    assert got == []


def one(reports: list[ExceptHookArgs]) -> ExceptHookArgs:
    eventually(lambda: reports, "a report")
    gmprt.sleep(0.005)
    assert len(reports) == 1, "reported more than once"
    return reports.pop()


def test_dropped_at_once(where: Where, reports: list[ExceptHookArgs]) -> None:
    def body() -> None:
        go(fail)
        args = one(reports)
        assert args.exc_type is LookupError
        assert str(args.exc_value) == "reason"
        assert args.exc_traceback is args.exc_value.__traceback__
        assert args.goroutine.done()
        assert args.goroutine.exception(0) is args.exc_value

    where(body)


def test_dropped_after_its_end(where: Where, reports: list[ExceptHookArgs]) -> None:
    def body() -> None:
        g: Any = go(fail)
        eventually(g.done)
        assert not reports, "somebody may still collect it"
        number = g.id
        del g
        assert one(reports).goroutine.id == number

    where(body)


def test_dropped_in_a_cycle(reports: list[ExceptHookArgs]) -> None:
    class Holder:
        pass

    holder = Holder()
    holder.me = holder  # type: ignore[attr-defined]
    holder.g = go(fail)  # type: ignore[attr-defined]
    eventually(holder.g.done)  # type: ignore[attr-defined]
    del holder
    gc.collect()
    assert one(reports).exc_type is LookupError


def test_whoever_asked_has_collected(reports: list[ExceptHookArgs]) -> None:
    for ask in ("result", "exception"):
        g: Any = go(fail)
        try:
            getattr(g, ask)(PATIENCE)
        except LookupError:
            pass
        del g
    gc.collect()
    gmprt.sleep(0.01)
    assert reports == []


def test_who_only_waited_has_not(where: Where, reports: list[ExceptHookArgs]) -> None:
    """join() tells nobody how it ended, nor does an ask whose time was up."""

    def body() -> None:
        gate: Chan[int] = Chan()

        def wait_and_fail() -> None:
            gate.recv()
            fail()

        g: Any = go(wait_and_fail)
        with pytest.raises(gmprt.Timeout):
            g.result(timeout=0.001)
        gate.send(1)
        assert g.join(PATIENCE)
        assert g.join(0)
        assert not reports, "somebody may still collect it"
        del g
        assert one(reports).exc_type is LookupError

    where(body)


def test_joined_and_kept() -> None:
    """What was joined, but not asked for, is reported at the end of run()."""
    done = run_child("""
        import gmprt
        def main():
            global g
            g = gmprt.go(lambda: 1 / 0)
            g.join()
        gmprt.run(main)
        print("over", flush=True)
    """)
    assert done.stderr.count("ZeroDivisionError") == 1
    assert done.stdout == "over\n"


def test_not_for_everybody(reports: list[ExceptHookArgs]) -> None:
    """Cancelled and, as in threads, SystemExit are no failures."""

    def leave(error: type[BaseException]) -> None:
        raise error

    gate: Chan[int] = Chan()
    g: Any = go(gate.recv)
    parked(g)
    g.cancel()
    del g
    go(leave, SystemExit)
    go(leave, gmprt.Cancelled)
    go(gmprt.goexit)
    eventually(lambda: gmprt.num_goroutine() == 0)
    gmprt.sleep(0.01)
    assert reports == []
    go(leave, KeyboardInterrupt)
    assert one(reports).exc_type is KeyboardInterrupt


def test_called_in_an_ordinary_goroutine(reports: list[ExceptHookArgs]) -> None:
    """The hook may park, and takes no lock of whoever dropped the handle."""
    lock = threading.Lock()
    seen: Chan[tuple[Any, str]] = Chan()

    def hook(args: ExceptHookArgs) -> None:
        with lock:
            gmprt.sleep(0.001)
            seen.send((gmprt.current(), str(args.exc_value)))

    gmprt.excepthook = hook
    g: Any = go(fail, "x")
    eventually(g.done)
    with lock:
        del g
        gc.collect()
    reporter, text = seen.recv(timeout=PATIENCE)
    assert reporter is not None
    assert text == "x"
    ended(reporter)


def test_every_one_of_many(procs: int, reports: list[ExceptHookArgs]) -> None:
    def start(first: int) -> None:
        for i in range(first, first + 100):
            go(fail, str(i))

    ended(*[mixed(i, start, 100 * i) for i in range(4)])
    eventually(lambda: len(reports) == 400)
    assert sorted(int(str(a.exc_value)) for a in reports) == list(range(400))
    reports.clear()


def test_reported_at_the_end_of_run(reports: list[ExceptHookArgs]) -> None:
    def main() -> None:
        go(fail)

    gmprt.run(main)
    assert [a.exc_type for a in reports] == [LookupError], "before run() returns"
    reports.clear()


def test_the_main_goroutines_error_is_runs(reports: list[ExceptHookArgs]) -> None:
    with pytest.raises(LookupError):
        gmprt.run(fail)
    gc.collect()
    gmprt.sleep(0.005)
    assert reports == []


# ---- what is printed ---------------------------------------------------------------------------


def test_printed_once_with_its_origin() -> None:
    code = """
        import gmprt
        def fail():
            raise LookupError("the reason")
        def start():
            gmprt.go(fail)
        def main():
            start()
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.001)
        gmprt.run(main)
        print("went on")
    """
    done = run_child(code)
    assert done.stdout == "went on\n"
    err = done.stderr
    assert err.count("LookupError: the reason") == 1
    assert err.startswith("Exception in goroutine ")
    assert "Traceback (most recent call last):" in err
    assert ", in fail\n" in err
    assert "created by start in goroutine 1 at <string>:6\n" in err


def test_printed_at_the_end_of_the_process() -> None:
    code = """
        import gmprt
        def fail(text):
            raise LookupError(text)
        kept = gmprt.go(fail, "kept until the end")
        gmprt.go(fail, "dropped at once")
        collected = gmprt.go(fail, "collected")
        assert kept.id and collected.exception(20)
        while not kept.done():
            gmprt.sleep(0.001)
    """
    err = run_child(code).stderr
    assert err.count("LookupError: kept until the end") == 1
    assert err.count("LookupError: dropped at once") == 1
    assert "collected" not in err


def test_kept_handles_of_a_failed_run() -> None:
    """Kept in a global, never asked: reported when the process ends."""
    code = """
        import gmprt
        kept = []
        def fail():
            raise LookupError("never asked")
        def main():
            kept.append(gmprt.go(fail))
            while not kept[0].done():
                gmprt.sleep(0.001)
        gmprt.run(main)
    """
    assert run_child(code).stderr.count("LookupError: never asked") == 1


def test_a_hook_that_fails_hides_nothing() -> None:
    code = """
        import gmprt
        def hook(args):
            raise ValueError("hook")
        gmprt.excepthook = hook
        def main():
            gmprt.go(lambda: {}["lost"])
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.001)
        gmprt.run(main)
        print("went on")
    """
    done = run_child(code)
    assert done.stdout == "went on\n"
    assert done.stderr.count("ValueError: hook") == 1
    assert done.stderr.count("KeyError: 'lost'") == 1


def test_no_stderr() -> None:
    code = """
        import sys, gmprt
        sys.stderr = None
        def main():
            gmprt.go(lambda: 1 / 0)
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.001)
        gmprt.run(main)
        print("went on")
    """
    assert run_child(code).stdout == "went on\n"


def test_the_name_is_printed() -> None:
    code = """
        import gmprt
        def main():
            g = gmprt.go(lambda: 1 / 0)
            g.name = "divider"
            del g
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.001)
        gmprt.run(main)
    """
    assert "(divider)" in run_child(code).stderr


# ---- what somebody is about to collect ---------------------------------------------------------


def test_another_run_that_ends(reports: list[ExceptHookArgs]) -> None:
    """It reports what its own goroutines left, and nobody else's."""

    def main() -> None:
        failed = go(fail)
        eventually(failed.done)
        thread = threading.Thread(target=gmprt.run, args=(int,))
        thread.start()
        thread.join()
        assert isinstance(failed.exception(), LookupError)

    gmprt.run(main)


def test_goroutines_of_threads_when_a_run_ends(reports: list[ExceptHookArgs]) -> None:
    failed = go(fail)
    eventually(failed.done)
    gmprt.run(int)
    assert isinstance(failed.exception(), LookupError)


def test_an_own_failure_beside_another_run(reports: list[ExceptHookArgs]) -> None:
    """Two runs at once: each reports its own, at its end."""
    kept: list[gmprt.Goroutine[Any]] = []

    def other() -> None:
        kept.append(go(fail, "other"))
        eventually(kept[-1].done)

    def main() -> None:
        kept.append(go(fail, "main"))
        eventually(kept[-1].done)
        thread = threading.Thread(target=gmprt.run, args=(other,))
        thread.start()
        thread.join()
        assert [str(args.exc_value) for args in reports] == ["other"]

    gmprt.run(main)
    assert [str(args.exc_value) for args in reports] == ["other", "main"]
    reports.clear()


@pytest.mark.parametrize("how", ["result", "exception", "aresult"])
def test_a_run_that_ends_before_those_who_ask_have_been_told(
    how: str, reports: list[ExceptHookArgs]
) -> None:
    """They have been woken by the failure, and have not run since."""
    gate: Chan[None] = Chan()
    asking = threading.Event()
    caught: list[object] = []

    def late() -> None:
        gate.recv_ok()
        fail()

    async def ask_async(g: gmprt.Goroutine[Any]) -> None:
        asking.set()
        await g.aresult()

    def ask(g: gmprt.Goroutine[Any]) -> None:
        try:
            if how == "exception":
                asking.set()
                caught.append(g.exception())
            elif how == "result":
                asking.set()
                g.result()
            else:
                asyncio.run(ask_async(g))
        except LookupError as error:
            caught.append(error)

    def main() -> None:
        g = go(late)
        held: list[object] = []
        # Called when those who wait have been made ready.
        g.add_done_callback(lambda g: held.append(gmprt._core.failures(g.run_id)))
        asker = go(ask, g)
        eventually(asking.is_set)
        parked(asker)
        gate.close()
        ended(asker)
        assert held == [[]]

    gmprt.run(main)
    assert [type(error) for error in caught] == [LookupError]
