"""csrc/py/types/group.c, gmprt/_api/group.py: Group, gather(), map_()."""

# ruff: noqa: PT012 - what a group raises it raises at the end of a block

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE, Thread, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import (
    Cancelled,
    Chan,
    GoroutineCancelled,
    Group,
    fail_after,
    gather,
    go,
    map_,
    move_on_after,
    shield,
)

Where = Callable[[Callable[[], Any]], Any]

NEVER = 1000.0
SOON = 0.02


def fail(error: BaseException) -> None:
    raise error


def stubborn(error: BaseException | None, log: list[Any]) -> None:
    """Ends when it is cancelled, and says why; perhaps with an error of its own."""
    try:
        gmprt.sleep(NEVER)
    except Cancelled as cancelled:
        log.append(cancelled.reason)
        if error is not None:
            raise error from None
        raise


# ---- the block ---------------------------------------------------------------------------------


def test_it_waits_for_all(where: Where) -> None:
    def body() -> None:
        ends: list[int] = []

        def work(i: int, *, times: int) -> int:
            for _ in range(times):
                gmprt.sleep(0.001)
            ends.append(i)
            return i * i

        with Group() as group:
            assert repr(group).startswith("<gmprt.Group open, 0 members at ")
            gs = [group.go(work, i, times=i) for i in range(5)]
            assert group.count > 0
        assert sorted(ends) == list(range(5))
        assert all(g.done() for g in gs)
        assert [g.result() for g in gs] == [0, 1, 4, 9, 16]
        assert group.count == 0
        assert repr(group).startswith("<gmprt.Group ended, 0 members at ")

    where(body)


def test_an_empty_one(where: Where) -> None:
    def body() -> None:
        with Group():
            pass
        with Group() as group:
            group.cancel()
        gmprt.sleep(0.001)

    where(body)


def test_members_start_members() -> None:
    count = [0]

    def work(group: Group, depth: int) -> None:
        count[0] += 1
        if depth:
            group.go(work, group, depth - 1)
            group.go(work, group, depth - 1)

    with Group() as group:
        group.go(work, group, 6)
    assert count == [127]


def test_go_outside_of_the_block(where: Where) -> None:
    def body() -> None:
        group = Group()
        with pytest.raises(RuntimeError, match="inside of its `with` block"):
            group.go(int)
        with pytest.raises(RuntimeError, match="a group is cancelled inside of its `with` block"):
            group.cancel()
        with group:
            with pytest.raises(RuntimeError, match="entered once"):
                group.__enter__()
            with pytest.raises(TypeError, match=r"^go\(\): fn must be callable, not int$"):
                group.go(1)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"^try_go\(\) needs fn"):
                group.try_go()  # type: ignore[call-arg]
        for call in (group.go, group.try_go):
            with pytest.raises(RuntimeError, match="the group has ended"):
                call(int)
        with pytest.raises(RuntimeError, match="has ended: there is nothing to cancel"):
            group.cancel()
        with pytest.raises(RuntimeError, match="not entered"):
            group.__exit__(None, None, None)

    where(body)


@pytest.mark.parametrize("limit", [0, -1, 2**32, 2**70])
def test_a_bad_limit(limit: int) -> None:
    with pytest.raises(ValueError, match=r"^Group\(\): limit must be between 1 and"):
        Group(limit)
    with pytest.raises(ValueError, match=r"^map_\(\): limit must be between 1 and"):
        map_(int, [], limit=limit)


def test_a_limit_of_the_wrong_type() -> None:
    for wrong in ("1", 1.5):
        with pytest.raises(TypeError, match=r"^Group\(\): limit must be an integer"):
            Group(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^map_\(\): limit must be an integer"):
            map_(int, [], limit=wrong)  # type: ignore[arg-type]


# ---- one failure -------------------------------------------------------------------------------


def test_one_failure_is_raised_as_itself(where: Where) -> None:
    def body() -> None:
        error, log = ZeroDivisionError("why"), list[Any]()
        with pytest.raises(ZeroDivisionError) as caught:
            with Group() as group:
                others = [group.go(stubborn, None, log) for _ in range(3)]
                for g in others:
                    parked(g)
                failing = group.go(fail, error)
                failing.name = "the culprit"
        assert caught.value is error
        assert log == [error] * 3
        assert all(g.cancelled() for g in others)
        (note,) = error.__notes__
        assert note.startswith(f"goroutine {failing.id} (the culprit), created by ")
        assert f"{__file__}:" in note
        assert error.__context__ is None

    where(body)


def test_a_failure_ends_the_body_where_it_waits() -> None:
    def body() -> None:
        log: list[Any] = []
        error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError) as caught:
            with Group() as group:
                group.go(fail, error)
                stubborn(None, log)
        assert (caught.value, log) == (error, [error])
        gmprt.sleep(0.001)  # nothing is left of it
        with pytest.raises(ZeroDivisionError):
            with Group() as group:
                group.go(fail, error)
                with shield():
                    gmprt.sleep(0.005)
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_a_body_that_does_not_wait_is_not_ended() -> None:
    def body() -> None:
        steps: list[int] = []
        with pytest.raises(ZeroDivisionError):
            with Group() as group:
                g = group.go(fail, ZeroDivisionError())
                while not g.done():
                    gmprt.gosched()
                steps.append(1)
        assert steps == [1]
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def test_in_a_thread_the_body_goes_on() -> None:
    steps: list[int] = []
    with pytest.raises(ZeroDivisionError):
        with Group() as group:
            g = group.go(fail, ZeroDivisionError())
            ended(g)
            time.sleep(0.001)
            gmprt.sleep(0.001)
            steps.append(1)
            late = group.go(stubborn, None, steps)
    assert late.cancelled()
    assert len(steps) == 2


def test_an_exception_of_the_body(where: Where) -> None:
    def body() -> None:
        error, log = ZeroDivisionError("body"), list[Any]()
        with pytest.raises(ZeroDivisionError) as caught:
            with Group() as group:
                for _ in range(3):
                    parked(group.go(stubborn, None, log))
                raise error
        assert caught.value is error
        assert log == [error] * 3
        assert not hasattr(error, "__notes__")

    where(body)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_happens_in_the_body(kind: type[BaseException], where: Where) -> None:
    def body() -> None:
        log: list[Any] = []
        with pytest.raises(kind):
            with Group() as group:
                g = group.go(stubborn, None, log)
                parked(g)
                raise kind
        assert g.done()
        assert isinstance(log[0], kind)

    where(body)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_member_that_ends_the_program(kind: type[BaseException]) -> None:
    log: list[Any] = []
    with pytest.raises(kind) as caught:
        with Group() as group:
            g = group.go(stubborn, ZeroDivisionError(), log)
            parked(g)
            group.go(fail, kind(3))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.args == (3,)


def test_a_generator_exit_of_a_member_is_a_failure(where: Where) -> None:
    def body() -> None:
        error = GeneratorExit("member")
        with pytest.raises(GeneratorExit) as caught:
            with Group() as group:
                group.go(fail, error)
        assert caught.value is error
        with pytest.raises(GeneratorExit) as caught:
            with Group() as group:
                group.go(fail, error).result()
        assert caught.value is error
        with pytest.raises(BaseExceptionGroup) as several:
            with Group() as group:
                parked(group.go(stubborn, ValueError(1), []))
                group.go(fail, error)
        assert {type(e) for e in several.value.exceptions} == {GeneratorExit, ValueError}

    where(body)


def test_a_generator_that_is_closed_in_its_body(where: Where) -> None:
    """Its GeneratorExit is no cause beside another, and no error alone."""

    def numbers(error: Exception | None) -> Generator[int, None, None]:
        with Group() as group:
            parked(group.go(stubborn, error, []))
            yield 1

    def body() -> None:
        for error in (None, ValueError(1)):
            generator = numbers(error)
            next(generator)
            if error is None:
                generator.close()
            else:
                with pytest.raises(ValueError) as caught:
                    generator.close()
                assert caught.value is error

    where(body)


# ---- several -----------------------------------------------------------------------------------


def test_several_causes_are_a_group(where: Where) -> None:
    def body() -> None:
        log: list[Any] = []
        first, second, third = ValueError(1), ValueError(2), TypeError(3)
        with pytest.raises(ExceptionGroup) as caught:
            with Group() as group:
                parked(group.go(stubborn, second, log))
                parked(group.go(stubborn, None, log))
                group.go(fail, first)
                gmprt.sleep(0.01)
                raise third
        causes = list(caught.value.exceptions)
        if gmprt.current() is not None:  # the body was ended
            assert causes == [first, second]
        else:
            assert causes == [third, first, second]
        assert str(caught.value).startswith(f"{len(causes)} failures in a group")

    where(body)


def test_what_is_no_exception_makes_a_base_group() -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        with Group() as group:
            parked(group.go(stubborn, Stop(), []))
            group.go(fail, ValueError())
    assert [type(e) for e in caught.value.exceptions] == [ValueError, Stop]


def test_one_error_told_twice_is_one() -> None:
    """The body has asked for the result of the one that failed."""

    def body() -> None:
        error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError) as caught:
            with Group() as group:
                g = group.go(fail, error)
                with shield():
                    g.result()
        assert caught.value is error

    go(body).result(PATIENCE)
    with pytest.raises(ZeroDivisionError):
        with Group() as group:
            group.go(fail, ZeroDivisionError()).result()


def test_who_waited_for_one_that_was_cancelled_is_no_cause() -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        with Group() as group:
            sleeper = group.go(gmprt.sleep, NEVER)

            def ask() -> None:
                with shield():
                    sleeper.result()

            parked(group.go(ask), "join")
            group.go(fail, error)
            sleeper.result()  # GoroutineCancelled, in this thread
    assert caught.value is error
    assert caught.value.__context__ is None
    with pytest.raises(GoroutineCancelled) as only:
        with Group() as group:
            sleeper = group.go(gmprt.sleep, NEVER)
            group.cancel("asked for")
            sleeper.result()
    assert only.value.reason == "asked for"


def test_a_member_that_somebody_else_cancels_just_ends() -> None:
    with Group() as group:
        g = group.go(gmprt.sleep, NEVER)
        other = group.go(lambda: 42)
        parked(g)
        g.cancel("enough")
    assert g.cancelled()
    assert other.result() == 42


def test_failures_are_collected() -> None:
    """The fixture fails this test if anything is reported."""
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            with Group() as group:
                group.go(fail, ZeroDivisionError())
        with pytest.raises(ExceptionGroup):
            with Group() as group:
                parked(group.go(stubborn, ValueError(), []))
                group.go(fail, ZeroDivisionError())
        gc.collect()


# ---- cancelling --------------------------------------------------------------------------------


def test_cancel_of_a_group(where: Where) -> None:
    def body() -> None:
        log, steps = list[Any](), list[int]()
        with Group() as group:
            for _ in range(3):
                parked(group.go(stubborn, None, log))
            group.cancel("enough")
            late = group.go(stubborn, None, log)
            if gmprt.current():
                gmprt.sleep(NEVER)
                steps.append(1)
        assert log == ["enough"] * 4
        assert late.cancelled()
        assert not steps
        gmprt.sleep(0.001)

    where(body)


def test_cancel_from_a_member_and_from_elsewhere() -> None:
    for cancel_in in ("member", "thread"):
        log: list[Any] = []
        with Group() as group:
            parked(group.go(stubborn, None, log))
            if cancel_in == "member":
                group.go(group.cancel, "enough")
            else:
                Thread(group.cancel, "enough").result()
        assert log == ["enough"]


def test_each_cancel_is_handed_on() -> None:
    log: list[Any] = []

    def twice() -> None:
        for _ in range(2):
            try:
                gmprt.sleep(NEVER)
            except Cancelled as error:
                log.append(error.reason)

    with Group() as group:
        g = group.go(twice)
        parked(g)
        group.cancel(1)
        eventually(lambda: log == [1] and g.state == "waiting")
        group.cancel(2)
    assert log == [1, 2]


def test_a_cancel_of_who_waits_at_the_end() -> None:
    log: list[Any] = []
    members: list[Any] = []

    def body() -> None:
        with Group() as group:
            members.extend(group.go(stubborn, None, log) for _ in range(3))

    g = go(body)
    parked(g, "sync.WaitGroup.Wait")
    for member in members:
        parked(member)
    g.cancel("outside")
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert (error.reason, log) == ("outside", ["outside"] * 3)
    assert all(member.done() for member in members)


def test_a_cancel_of_who_waits_in_the_body() -> None:
    log: list[Any] = []

    def body() -> None:
        with Group() as group:
            parked(group.go(stubborn, None, log))
            gmprt.sleep(NEVER)

    g = go(body)
    parked(g, "sleep")
    eventually(lambda: g.wait_reason == "sleep" and g.since > 0.005)
    g.cancel("outside")
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert (error.reason, log) == ("outside", ["outside"])


@pytest.mark.parametrize("waits", ["body", "end"])
def test_a_cancel_from_outside_and_a_failure(waits: str) -> None:
    """The failure is raised; the cancel is not lost, and ends the next wait."""

    def body() -> None:
        with pytest.raises(ZeroDivisionError):
            with Group() as group:
                parked(group.go(stubborn, ZeroDivisionError(), []))
                started.send(1)
                if waits == "body":
                    gmprt.sleep(NEVER)
        gmprt.sleep(NEVER)

    started = Chan[int]()
    g = go(body)
    started.recv()
    parked(g)
    g.cancel("outside")
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert error.reason == "outside"


def test_a_deadline_around_a_group() -> None:
    def body() -> None:
        log: list[Any] = []
        with move_on_after(SOON) as scope:
            with Group() as group:
                group.go(stubborn, None, log)
                group.go(stubborn, None, log)
        assert scope.expired
        assert log == ["deadline exceeded"] * 2
        with pytest.raises(gmprt.DeadlineExceeded):
            with fail_after(SOON), Group() as group:
                group.go(stubborn, None, log)
                gmprt.sleep(NEVER)
        with move_on_after(SOON) as scope:  # a failure, and it is over: the failure is told
            with pytest.raises(ZeroDivisionError):
                with Group() as group:
                    group.go(stubborn, ZeroDivisionError(), log)
            gmprt.sleep(NEVER)
        assert scope.expired
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


def deaf(log: list[Any], times: int) -> None:
    """Ends after so many cancels."""
    while len(log) < times:
        try:
            gmprt.sleep(NEVER)
        except Cancelled as error:
            log.append(error.reason)


@pytest.mark.parametrize("waits", ["body", "end"])
def test_several_cancels_while_it_waits(waits: str) -> None:
    """None is lost: one is raised, the others end the next waits."""
    outer, inner, log = move_on_after(2 * SOON), move_on_after(SOON), list[Any]()

    def body() -> None:
        with outer:
            with inner:
                with Group() as group:
                    group.go(deaf, log, 3)
                    if waits == "body":
                        gmprt.sleep(NEVER)
            with pytest.raises(Cancelled) as caught:  # the goroutine's own goes before
                gmprt.sleep(NEVER)
            assert caught.value.reason == "outside"
            gmprt.sleep(NEVER)
        gmprt.sleep(0.001)

    g = go(body)
    eventually(lambda: log == ["deadline exceeded"] * 2)
    assert (inner.expired, outer.expired) == (True, True)
    g.cancel("outside")
    g.result(PATIENCE)
    assert log[2] == "outside"


def test_groups_in_groups() -> None:
    log: list[Any] = []

    def inner() -> None:
        with Group() as group:
            group.go(stubborn, None, log)
            group.go(stubborn, None, log)

    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        with Group() as group:
            a = group.go(inner)
            parked(a, "sync.WaitGroup.Wait")
            parked(group.go(inner))
            group.go(fail, error)
    assert caught.value is error
    assert log == [error] * 4

    def failing() -> None:
        with Group() as group:
            group.go(fail, error)

    with pytest.raises(ZeroDivisionError) as caught:
        with Group() as group:
            group.go(failing)
    assert caught.value is error


def test_ctrl_c_while_it_waits() -> None:
    """In the main thread, and in the main goroutine of run(): the members are cancelled first."""
    for how in ("main()", "gmprt.run(main)"):
        done = run_child(
            f"""
            import gmprt, os, signal
            def member(i):
                try:
                    gmprt.sleep(1000)
                finally:
                    gmprt.sleep(0.01)
                    os.write(1, b"member %d\\n" % i)
            def main():
                try:
                    with gmprt.Group() as group:
                        for i in range(2):
                            group.go(member, i)
                        group.go(lambda: (gmprt.sleep(0.05), os.kill(os.getpid(), signal.SIGINT)))
                except KeyboardInterrupt:
                    os.write(1, b"interrupted %d\\n" % group.count)
            {how}
            """
        )
        assert sorted(done.stdout.splitlines()) == ["interrupted 0", "member 0", "member 1"]
        assert done.stdout.splitlines()[-1] == "interrupted 0"


def test_a_deadlock_of_its_members() -> None:
    done = run_child(
        """
        import gmprt
        def main():
            with gmprt.Group() as group:
                group.go(gmprt.Chan().recv)
        try:
            gmprt.run(main)
        except gmprt.Deadlock:
            print("found")
        """
    )
    assert done.stdout == "found\n"


def test_in_a_forked_child() -> None:
    """The members are the parent's."""
    done = run_child(
        """
        import gmprt, os
        def main():
            with gmprt.Group(limit=2) as group:
                group.go(gmprt.sleep, 0.2)
                gmprt.sleep(0.01)
                pid = os.fork()
                if pid == 0:
                    group.go(gmprt.sleep, 0.01)
                    group.go(gmprt.sleep, 0.01)
            if pid == 0:
                os.write(1, b"child\\n")
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        gmprt.run(main)
        """
    )
    assert done.stdout == "child\n"


# ---- the limit ---------------------------------------------------------------------------------


def test_limit(where: Where) -> None:
    def body() -> None:
        running, most = [0], [0]

        def work() -> None:
            running[0] += 1
            most[0] = max(most[0], running[0])
            gmprt.sleep(0.001)
            running[0] -= 1

        with Group(limit=3) as group:
            for _ in range(20):
                group.go(work)
                assert group.count <= 3
        assert most == [3]

    where(body)


def test_try_go(where: Where) -> None:
    def body() -> None:
        gate = Chan[int]()
        with Group(limit=2) as group:
            first, second = group.go(gate.recv), group.try_go(gate.recv)
            assert second
            assert group.try_go(gate.recv) is False
            gate.send(1)
            gate.send(2)
            ended(first, second)
            eventually(lambda: group.count == 0)
            third = group.try_go(lambda: 3)
        assert third
        assert third.result() == 3
        with Group() as group:
            assert group.try_go(int)

    where(body)


def test_who_waits_for_a_slot_can_be_cancelled() -> None:
    def body() -> None:
        with pytest.raises(ZeroDivisionError):
            with Group(limit=1) as group:
                group.go(lambda: (gmprt.sleep(SOON), 1 / 0))
                group.go(int)
                raise AssertionError
        with move_on_after(SOON) as scope, Group(limit=1) as group:
            group.go(gmprt.sleep, NEVER)
            group.go(int)
        assert scope.expired

    go(body).result(PATIENCE)


def test_who_waits_for_a_slot_when_the_group_ends() -> None:
    """An outsider is told; no slot and no member is left over."""
    gate = Chan[int]()
    with Group(limit=1) as group:
        group.go(gate.recv)
        outsider = go(group.go, int)
        parked(outsider)
        gate.send(1)
    error = outsider.exception(PATIENCE)
    assert error is None or isinstance(error, RuntimeError)
    if error is None:
        ended(outsider.result())
    assert group.count == 0


# ---- nothing is left ---------------------------------------------------------------------------


def test_handles_and_results_are_not_kept() -> None:
    class Result:
        pass

    def body() -> None:
        with Group() as group:
            refs = [weakref.ref(group.go(Result).result()) for _ in range(3)]
            eventually(lambda: group.count == 0)
            gc.collect()
            assert [ref() for ref in refs] == [None] * 3

    go(body).result(PATIENCE)


def test_a_group_that_is_dropped() -> None:
    """Entered by hand, and never left: it lives as long as its members, then goes."""
    group = Group()
    group.__enter__()
    gate = Chan[int]()
    g = group.go(gate.recv)
    ref = weakref.ref(group)
    del group
    gc.collect()
    assert ref() is not None
    gate.send(1)
    ended(g)
    eventually(lambda: gc.collect() >= 0 and ref() is None)


def test_done_callbacks_come_before_the_end() -> None:
    seen: list[int] = []

    def callback(_: Any) -> None:
        gmprt.sleep(0.005)
        seen.append(1)

    with Group() as group:
        group.go(gmprt.sleep, 0.001).add_done_callback(callback)
    assert seen == [1]


def test_a_member_that_goexits() -> None:
    with Group() as group:
        g = group.go(gmprt.goexit)
    assert g.result() is None


def test_created_by() -> None:
    with Group() as group:
        g = group.go(int)
    assert g.created_by is not None
    assert g.created_by.function == "test_created_by"


# ---- gather ------------------------------------------------------------------------------------


def test_gather(where: Where) -> None:
    def body() -> None:
        def late(seconds: float, value: int) -> int:
            gmprt.sleep(seconds)
            return value

        assert gather() == ()
        assert gather(lambda: late(0.003, 1), lambda: late(0.001, 2), lambda: "x") == (1, 2, "x")
        with pytest.raises(ZeroDivisionError):
            gather(lambda: gmprt.sleep(NEVER), lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            gather(lambda: 1 / 0)
        (note,) = caught.value.__notes__
        assert f" at {__file__}:" in note
        started: list[int] = []
        with pytest.raises(TypeError, match=r"^gather\(\): thunks must be callable, not int$"):
            gather(lambda: started.append(1), 1)  # type: ignore[arg-type]
        assert not started

    where(body)


# ---- map_ --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=25), st.integers(1, 6))
def test_map_in_order(delays: list[int], limit: int) -> None:
    def work(item: tuple[int, int]) -> int:
        gmprt.sleep(item[1] * 1e-4)
        return item[0]

    results = map_(work, list(enumerate(delays)), limit=limit)
    assert list(results) == list(range(len(delays)))


def test_map_in_every_caller(where: Where) -> None:
    def body() -> None:
        assert list(map_(lambda x: x * x, range(40), limit=4)) == [x * x for x in range(40)]
        assert list(map_(str, [])) == []

    where(body)


def test_map_is_lazy_and_holds_back() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    results = map_(abs, source(), limit=4)
    gmprt.sleep(0.002)
    assert not taken
    for i in range(20):
        assert next(results) == i
        for _ in range(20):
            gmprt.sleep(0)
        assert len(taken) <= i + 1 + 4
    results.close()  # type: ignore[attr-defined]
    n = len(taken)
    gmprt.sleep(0.002)
    assert len(taken) == n
    assert next(results, None) is None


def test_map_runs_as_many_at_once() -> None:
    running, most = [0], [0]

    def work(_: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gmprt.sleep(0.002)
        running[0] -= 1

    for _ in map_(work, range(20), limit=5):
        pass
    assert most[0] == 5


def test_map_does_not_wait_for_a_slow_source() -> None:
    source = Chan[int]()
    results = map_(abs, source, limit=8)
    feeder = go(source.send, -1)
    assert go(next, results).result(PATIENCE) == 1  # while the source has nothing
    ended(feeder)
    source.close()
    assert list(results) == []


def test_map_fails() -> None:
    log: list[Any] = []

    def work(i: int) -> int:
        if i == 2:
            raise ZeroDivisionError
        if i > 2:
            stubborn(None, log)
        return i

    results = map_(work, range(100), limit=6)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert all(isinstance(reason, ZeroDivisionError) for reason in log)
    assert next(results, None) is None

    def source() -> Iterator[int]:
        yield 1
        raise ValueError("of the source")

    results = map_(abs, source())
    assert next(results) == 1
    with pytest.raises(ValueError, match="of the source"):
        next(results)
    with pytest.raises(TypeError, match=r"^map_\(\): fn must be callable"):
        map_(1, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not iterable"):
        map_(abs, 1)  # type: ignore[arg-type]


def test_leaving_a_map_cancels_the_rest() -> None:
    log: list[Any] = []

    def work(i: int) -> int:
        if i:
            stubborn(None, log)
        return i

    before = gmprt.num_goroutine()
    for _ in map_(work, range(10), limit=4):
        gmprt.sleep(0.005)
        break
    gc.collect()
    assert len(log) >= 3
    eventually(lambda: gmprt.num_goroutine() <= before)


def test_a_wait_between_two_values_is_not_the_maps() -> None:
    """A failure ends no wait of the loop's body: it is raised where the result is missing."""

    def work(i: int) -> int:
        if i == 3:
            raise ZeroDivisionError
        return i

    def body() -> list[int]:
        got: list[int] = []
        try:
            for value in map_(work, range(10), limit=8):
                gmprt.sleep(0.003)
                got.append(value)
        except ZeroDivisionError:
            return got
        raise AssertionError

    assert go(body).result(PATIENCE) == [0, 1, 2]


def test_a_map_in_a_block_with_a_deadline() -> None:
    def body() -> None:
        got: list[int] = []
        with move_on_after(SOON) as scope:
            for value in map_(lambda i: gmprt.sleep(NEVER) if i == 3 else i, range(10)):
                got.append(value)  # type: ignore[arg-type]
        assert (scope.expired, got) == (True, [0, 1, 2])
        gmprt.sleep(0.001)

    go(body).result(PATIENCE)


# ---- storms --------------------------------------------------------------------------------------

LITTLE = float(os.environ.get("GMPRT_TEST_STORM", "0.15"))
"""Seconds that a storm lasts: more by hand.  GMPRT_TEST_STORM=10 pytest tests/test_group.py"""


def storm(seconds: float, seed: int) -> None:
    """Groups in groups, failures and cancels at any moment: nobody outlives his group, all ends are
    counted, and a cancel from outside is seen."""
    rng = random.Random(seed)
    deadline = time.monotonic() + seconds
    alive, lock = [0], threading.Lock()

    def count(n: int) -> None:
        with shield(), lock:
            alive[0] += n

    def member(depth: int) -> None:
        count(1)
        try:
            if depth and rng.random() < 0.4:
                group_of(depth - 1)
            gmprt.sleep(rng.random() * 3e-4)
            if rng.random() < 0.15:
                raise ValueError(depth)
        finally:
            try:
                if rng.random() < 0.3:
                    gmprt.sleep(1e-5)
            finally:
                count(-1)

    def group_of(depth: int) -> None:
        started: list[Any] = []
        try:
            with Group(limit=rng.choice([None, 1, 3])) as group:
                for _ in range(rng.randrange(5)):
                    started.append(group.go(member, depth))
                if rng.random() < 0.1:
                    group.cancel("enough")
                if rng.random() < 0.2:
                    raise KeyError
                if rng.random() < 0.5:
                    gmprt.sleep(rng.random() * 3e-4)
        except (ValueError, KeyError):
            pass
        except ExceptionGroup as errors:
            _, rest = errors.split((ValueError, KeyError))
            assert rest is None
        finally:
            assert all(g.done() for g in started)
            assert group.count == 0

    def top() -> int:
        seen = 0
        while time.monotonic() < deadline:
            try:
                with move_on_after(rng.random() * 1e-3):
                    group_of(2)
            except Cancelled:
                seen += 1
        return seen

    tops = [mixed(2 * i, top) for i in range(2)]
    struck = 0
    while time.monotonic() < deadline:
        g: Any = rng.choice(tops)
        struck += g.cancel("strike")
        gmprt.sleep(rng.random() * 1e-3)
    for g in tops:
        assert g.join(PATIENCE)
    seen = sum(g.result() for g in tops if not g.cancelled())  # type: ignore[attr-defined]
    assert struck >= seen
    assert alive == [0]


def test_storm(procs: int) -> None:
    storm(LITTLE, procs)


def test_storm_with_chaos() -> None:
    tests = str(Path(__file__).parent)
    run_child(
        f"""
        import sys
        sys.path.insert(0, {tests!r})
        import test_group
        test_group.storm({LITTLE}, 7)
        """,
        env={"GMPRT_CHAOS": "7"},
    )
