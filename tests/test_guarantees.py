"""docs/guarantees.md: each test that it names exists; and those that no other file has.

What anyio, trio and asyncio promise, and how gmprt keeps it or differs: the page has the list.
"""

# ruff: noqa: PT012 - what a group raises it raises at the end of a block

from __future__ import annotations

import ast
import contextvars
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pages import GO
from support import PATIENCE, CGate, ended, parked, waiting

import gmprt
from gmprt import (
    Cancelled,
    Chan,
    ChannelClosed,
    GoroutineCancelled,
    Group,
    Semaphore,
    context,
    go,
    move_on_after,
    shield,
)

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"

SOON = 0.02
NEVER = 1000.0


# ---- the page ----------------------------------------------------------------------------------


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text()) if file.exists() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def complaints(text: str) -> Iterator[str]:
    """What the page names and nobody has; rows without a test that do not say why."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    yield from (f"{file}::{test}" for file, test in named if test not in functions_of(TESTS / file))
    for row in re.findall(r"^\| (.*) \|$", text, re.M):
        last = row.split(" | ")[-1]
        if last not in ("test", "here") and "::test_" not in last and not last.startswith("no: "):
            yield row
    for name in re.findall(r"\]\[([\w-]+)\]", text):
        if f"\n[{name}]: https://" not in text:
            yield name


def test_what_the_page_names_exists() -> None:
    text = PAGE.read_text()
    assert list(complaints(text)) == []
    assert len(re.findall(r"::test_", text)) > 200


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`test_group.py::test_it_waits_for_all`", "`test_group.py::test_it_waits_for_some`"),
        ("`test_group.py::test_it_waits_for_all`", "`test_groups.py::test_it_waits_for_all`"),
        ("`test_group.py::test_limit`", "`limit`"),
        ("[trio][t-nowait]", "[trio][t-nowhere]"),
    ],
)
def test_a_wrong_name_is_noticed(old: str, new: str) -> None:
    text = PAGE.read_text()
    assert old in text
    assert list(complaints(text.replace(old, new, 1))) != []


GOS_TESTS = (
    *("context/afterfunc", "context/net", "context/x", "runtime/chan", "runtime/sema"),
    *("sync/atomic/atomic", "sync/atomic/value", "sync/cond", "sync/map", "sync/mutex"),
    *("sync/once", "sync/oncefunc", "sync/pool", "sync/rwmutex", "sync/waitgroup"),
    *("time/sleep", "time/tick"),
)


@pytest.mark.skipif(not GO, reason="GMPRT_TEST_GO names no go command")
def test_each_of_gos_tests_has_a_row() -> None:
    root = subprocess.run([GO, "env", "GOROOT"], capture_output=True, text=True, check=True).stdout
    text = PAGE.read_text().partition("## Go's tests here")[2]
    rows = re.findall(r"`(Test[\w.]+)`", text)
    any_row = re.compile("|".join(re.escape(row).replace(r"\.\.\.", ".*") for row in rows))
    for file in GOS_TESTS:
        source = (Path(root.strip()) / "src" / f"{file}_test.go").read_text()
        names = re.findall(r"^func (Test\w+)\(", source, re.M)
        assert names
        assert [name for name in names if not any_row.fullmatch(name)] == [], file


# ---- cancelling --------------------------------------------------------------------------------


def test_what_is_a_place_to_be_cancelled() -> None:
    """Where trio has a checkpoint at each call, here it is the wait; the shortest is enough."""

    def body() -> None:
        me = gmprt.current()
        assert me is not None
        ch = Chan[int](1)
        me.cancel("why")
        gmprt.gosched()
        gmprt.sleep(0)
        ch.send(1)
        assert ch.recv() == 1
        with Semaphore():
            pass
        with pytest.raises(Cancelled):
            gmprt.sleep(1e-9)

    go(body).result(PATIENCE)


def test_a_cancel_ends_one_wait() -> None:
    """Not one after the other, as trio's: who cleans up may wait, and bounds that himself."""
    answers, log = Chan[str](), list[str]()

    def body() -> None:
        with move_on_after(SOON) as scope:
            try:
                gmprt.sleep(NEVER)
            finally:
                log.append(answers.recv())
                with move_on_after(SOON) as goodbye:
                    gmprt.sleep(NEVER)
                log.append(f"goodbye {goodbye.expired}")
        assert scope.expired

    g = go(body)
    answers.send("cleaned up")
    g.result(PATIENCE)
    assert log == ["cleaned up", "goodbye True"]


def test_a_scope_that_somebody_cancels() -> None:
    """trio's CancelScope.cancel(): a context's scope; other blocks of the goroutine go on."""
    ctx = context.with_cancel()
    log: list[str] = []

    def body() -> None:
        try:
            with ctx.scope():
                gmprt.sleep(NEVER)
        except gmprt.ContextCancelled:
            log.append("left")
        gmprt.sleep(0.001)
        log.append("went on")

    g = go(body)
    parked(g, "sleep")
    ctx.cancel()
    g.result(PATIENCE)
    assert log == ["left", "went on"]


# ---- groups ------------------------------------------------------------------------------------


def fail(error: BaseException) -> None:
    raise error


def until_cancelled(error: BaseException | None = None) -> None:
    """Ends when it is cancelled, with an error of its own if one is given."""
    try:
        gmprt.sleep(NEVER)
    except Cancelled:
        if error is not None:
            raise error from None
        raise


def test_except_star_takes_one_and_several() -> None:
    """A single failure is raised as itself; code that expects a group takes it all the same."""
    for others in (0, 2):
        seen: list[BaseException] = []
        try:
            with Group() as group:
                for i in range(others):
                    parked(group.go(until_cancelled, ValueError(i)))
                group.go(fail, ValueError("first"))
        except* ValueError as caught:
            seen += caught.exceptions
        assert len(seen) == others + 1


def test_failures_of_groups_in_groups() -> None:
    """The inner group's are one cause of the outer one's, with its tree."""

    def inner() -> None:
        with Group() as group:
            parked(group.go(until_cancelled, KeyError("b")))
            group.go(fail, ValueError("a"))

    with pytest.raises(ExceptionGroup) as caught:
        with Group() as group:
            parked(group.go(until_cancelled, OSError("c")))
            group.go(inner)
    tree, last = caught.value.exceptions
    assert isinstance(tree, ExceptionGroup)
    assert [type(e) for e in tree.exceptions] == [ValueError, KeyError]
    assert isinstance(last, OSError)


def test_a_block_around_go_does_not_bound_the_member() -> None:
    """As in trio: what stands around the group counts, and what is in the member's own code."""

    def body() -> None:
        gate = Chan[int]()
        with Group() as group:
            with move_on_after(SOON) as scope:
                member = group.go(gate.recv)
                gmprt.sleep(NEVER)
            assert scope.expired
            parked(member)
            gate.send(1)
        assert member.result() == 1

    go(body).result(PATIENCE)


def test_a_shield_around_a_group() -> None:
    """It covers the members: they are not cancelled for what comes from outside."""
    gate, log = Chan[int](), list[Any]()

    def body() -> None:
        with shield(), Group() as group:
            log.append(group.go(gate.recv))
        log.append("ended")
        gmprt.sleep(NEVER)

    g = go(body)
    parked(g, "sync.WaitGroup.Wait")
    g.cancel("outside")
    parked(log[0], "chan receive")
    gate.send(7)
    assert isinstance(g.exception(PATIENCE), GoroutineCancelled)
    assert log[0].result() == 7
    assert log[1:] == ["ended"]


def test_a_shield_in_the_body_covers_the_body_alone() -> None:
    """anyio's example: the group is cancelled; who is shielded goes on to the end of the shield."""

    def body() -> None:
        gate, log = Chan[int](), list[str]()
        with Group() as group:
            member = group.go(until_cancelled)
            parked(member)
            with shield():
                group.cancel()
                helper = go(lambda: (member.join(), gate.send(1)))
                assert gate.recv() == 1
                log.append("shielded")
            gmprt.sleep(NEVER)
        assert member.cancelled()
        assert log == ["shielded"]
        ended(helper)

    go(body).result(PATIENCE)


def test_a_return_waits_for_the_members() -> None:
    gate = Chan[int]()
    members: list[gmprt.Goroutine[int]] = []

    def body() -> str:
        with Group() as group:
            members.append(group.go(gate.recv))
            return "returned"

    g = go(body)
    parked(g, "sync.WaitGroup.Wait")
    gate.send(1)
    assert g.result(PATIENCE) == "returned"
    assert members[0].done()


def test_members_have_the_context_of_who_starts_them() -> None:
    """Not that of who has opened the group; what they change stays theirs."""
    var = contextvars.ContextVar("var", default="opener's")

    def member() -> str:
        value = var.get()
        var.set("member's")
        return value

    def starter(group: Group) -> gmprt.Goroutine[str]:
        var.set("starter's")
        g = group.go(member)
        ended(g)
        assert var.get() == "starter's"
        return g

    with Group() as group:
        first = group.go(member)
        second = group.go(starter, group).result(PATIENCE)
    assert (first.result(), second.result(), var.get()) == ("opener's", "starter's", "opener's")


def test_a_service_that_says_when_it_is_ready() -> None:
    """What trio's nursery.start() does, with a channel; one that fails first ends the wait."""

    def service(ready: Chan[int], *, fails: bool) -> None:
        if fails:
            raise OSError("address in use")
        ready.send(8080)
        gmprt.sleep(NEVER)

    def body() -> None:
        ready = Chan[int]()
        with Group() as group:
            group.go(service, ready, fails=False)
            assert ready.recv() == 8080
            group.cancel()
        with pytest.raises(OSError, match="address in use"):
            with Group() as group:
                group.go(service, ready, fails=True)
                ready.recv()
                raise AssertionError

    go(body).result(PATIENCE)


def test_a_race() -> None:
    """trio's example of a supervisor: the first to end cancels the others."""
    winner = Chan[str](3)

    def jockey(group: Group, run: Callable[[], str]) -> None:
        winner.send(run())
        group.cancel()

    with Group() as group:
        slow = [group.go(jockey, group, Chan[str]().recv) for _ in range(2)]
        for g in slow:
            parked(g)
        group.go(jockey, group, lambda: "quick")
    assert winner.recv_nowait() == "quick"
    assert len(winner) == 0
    assert all(g.cancelled() for g in slow)


# ---- channels and locks ------------------------------------------------------------------------


def test_who_receives_may_close() -> None:
    """trio's BrokenResourceError: who sends to nobody hears of it."""
    ch = Chan[int](1)
    sent: list[int] = []

    def produce() -> None:
        for n in range(10):
            ch.send(n)
            sent.append(n)

    g = go(produce)
    with ch:
        assert ch.recv() == 0
        waiting(ch, senders=1)
    assert isinstance(g.exception(PATIENCE), ChannelClosed)
    assert sent == [0, 1]
    assert list(ch) == [1], "what was in the buffer had been sent"


def test_a_cancelled_send_has_not_sent() -> None:
    ch = Chan[str]()
    first, second = go(ch.send, "first"), go(ch.send, "second")
    waiting(ch, senders=2)
    first.cancel()
    assert isinstance(first.exception(PATIENCE), GoroutineCancelled)
    assert ch.recv() == "second"
    ended(second)
    waiting(ch)


def test_a_unit_goes_to_who_has_waited_longest() -> None:
    """Semaphore: nobody overtakes, not even who has just given it back."""
    s = Semaphore(0)
    first = go(s.acquire)
    parked(first)
    second = go(s.acquire)
    parked(second)
    s.release()
    assert not s.try_acquire()
    first.result(PATIENCE)
    parked(second)
    s.release()
    second.result(PATIENCE)
    assert s.value == 0


# ---- threads and sockets -----------------------------------------------------------------------


def test_a_call_that_blocks_is_not_ended_but_can_be_left() -> None:
    """As trio's to_thread, with and without abandon_on_cancel: the thread is not broken off."""
    gate, steps = CGate(), list[str]()

    def body() -> None:
        gate.wait()
        steps.append("returned")
        gmprt.sleep(NEVER)

    g = go(body)
    assert gate.entered()
    g.cancel("why")

    def who_leaves() -> bool:
        with move_on_after(SOON) as scope:
            g.join()
        return scope.expired

    assert go(who_leaves).result(PATIENCE)
    assert not g.done()
    assert not steps
    gate.open()
    assert isinstance(g.exception(PATIENCE), GoroutineCancelled)
    assert steps == ["returned"]


def test_a_cancelled_receive_has_read_nothing() -> None:
    a, b = socket.socketpair()
    with a, b:
        g = go(a.recv, 10)
        parked(g, "IO wait")
        g.cancel()
        assert isinstance(g.exception(PATIENCE), GoroutineCancelled)
        b.sendall(b"hello")
        assert a.recv(10) == b"hello"
