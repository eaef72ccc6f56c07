"""select(): which case fires, that it is only one, what it returns, and how it waits."""

from __future__ import annotations

import copy
import math
import pickle
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Spawn, Task, ended, mixed, parked, waiting

import gmprt
from gmprt import (
    Chan,
    ChannelClosed,
    EndOfChannel,
    Recv,
    Select,
    Selected,
    Send,
    Timeout,
    WouldBlock,
    select,
)

Where = Callable[[Callable[[], Any]], Any]


def ready(value: Any, capacity: int = 1) -> Chan[Any]:
    ch: Chan[Any] = Chan(capacity)
    ch.send(value)
    return ch


# ---- one case ready ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda ch: ch, lambda ch: ch.receiver, Recv])
def test_receive(where: Where, form: Callable[[Any], Any]) -> None:
    def body() -> None:
        sel = select(form(Chan()), form(ready("v")), form(Chan()))
        assert (sel.index, sel.value, sel.ok) == (1, "v", True)

    where(body)


def test_receive_of_a_view_in_recv() -> None:
    assert select(Recv(ready(1).receiver)) == (0, 1, True)


def test_send(where: Where) -> None:
    def body() -> None:
        ch: Chan[str] = Chan(2)
        sel = select(Chan(), Send(ch, "v"))
        assert (sel.index, sel.value, sel.ok) == (1, None, True)
        assert select(Send(ch.sender, "w")) == (0, None, True)
        assert [ch.recv(), ch.recv()] == ["v", "w"]

    where(body)


def test_meets_those_who_wait(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        s = spawn(ch.send, 1)
        waiting(ch, senders=1)
        assert select(Chan(), ch) == (1, 1, True)
        ended(s)
        r = spawn(ch.recv)
        waiting(ch, receivers=1)
        assert select(Chan(), Send(ch, 2)) == (1, None, True)
        assert r.result(PATIENCE) == 2

    where(body)


@pytest.mark.parametrize("n", [1, 2, 8, 9, 100, 1000])
def test_any_number_of_cases(n: int) -> None:
    chans: list[Chan[int]] = [Chan(1) for _ in range(n)]
    for i in {0, n // 2, n - 1}:
        chans[i].send(i)
        assert select(*chans) == (i, i, True)
        assert select(*chans, default=True).index == -1


def test_too_many_cases() -> None:
    with pytest.raises(ValueError):
        select(*[None] * 70_000, default=True)


# ---- none ready --------------------------------------------------------------------------------


def test_default(where: Where) -> None:
    def body() -> None:
        full = ready(0)
        sel = select(Chan(), Send(full, 1), Send(Chan(), 1), None, default=True)
        assert (sel.index, sel.value, sel.ok) == (-1, None, False)
        assert select(ready(1), default=True).index == 0
        assert select(default=True) == (-1, None, False)

    where(body)


def test_timeout(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        for timeout in (0, 0.02):
            for cases in ([ch], [ch, Send(ch, 1), None], [None], []):
                begun = time.monotonic()
                with pytest.raises(Timeout):
                    select(*cases, timeout=timeout)
                assert time.monotonic() - begun >= timeout
        waiting(ch)

    where(body)


def test_a_ready_case_beats_a_poll() -> None:
    assert select(ready(1), timeout=0).index == 0
    assert select(ready(1), timeout=5e-324).index == 0


def test_default_wins_over_timeout() -> None:
    assert select(Chan(), timeout=PATIENCE, default=True).index == -1


def test_none_is_the_nil_channel() -> None:
    for nil in (None, Recv(None), Send(None, 1)):
        assert select(nil, ready(1), nil) == (1, 1, True)
        assert select(nil, nil, default=True).index == -1


def test_without_cases_it_blocks_for_ever(spawn: Spawn) -> None:
    g = gmprt.go(select)
    parked(g, "select (no cases)")
    g.cancel("enough")
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), ([], TypeError)],
)
def test_bad_timeout(timeout: Any, error: type[Exception]) -> None:
    ch = ready(1)
    with pytest.raises(error):
        select(ch, timeout=timeout)
    with pytest.raises(error):
        Select(ch)(timeout=timeout)
    assert len(ch) == 1


# ---- waiting -----------------------------------------------------------------------------------


def test_woken_by_a_sender(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        s = spawn(lambda: (waiting(b, receivers=1), b.send(7)))
        assert select(a, b) == (1, 7, True)
        ended(s)
        waiting(a)
        waiting(b)

    where(body)


def test_woken_by_a_receiver(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        r = spawn(lambda: (waiting(b, senders=1), b.recv()))
        assert select(Recv(a), Send(b, 7)) == (1, None, True)
        assert r.result(PATIENCE)[1] == 7
        waiting(a)
        waiting(b)

    where(body)


def test_woken_by_a_close(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        c = spawn(lambda: (waiting(a, receivers=1), a.close()))
        assert select(a, b) == (0, None, False)
        ended(c)
        c = spawn(lambda: (waiting(b, senders=1), b.close()))
        with pytest.raises(ChannelClosed) as caught:
            select(Send(b, 1), Chan())
        assert caught.type is ChannelClosed
        ended(c)

    where(body)


def test_only_one_case_takes_effect(spawn: Spawn) -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    s = spawn(lambda: select(Send(a, 1), Send(b, 2), Recv(Chan())))
    waiting(a, senders=1)
    waiting(b, senders=1)
    assert b.recv() == 2
    assert s.result(PATIENCE).index == 1
    with pytest.raises(WouldBlock):
        a.recv_nowait()


def test_what_did_not_fire_stays() -> None:
    for _ in range(50):
        a, b, c = ready("a"), ready("b"), Chan[str](1)
        sel = select(a, b, Send(c, "c"))
        left = [len(a) == 0, len(b) == 0, len(c) == 1]
        assert left == [sel.index == i for i in range(3)]


def test_a_goroutine_and_a_thread_select_from_each_other() -> None:
    ch: Chan[int] = Chan()

    def both(value: int) -> Selected[Any]:
        return select(Recv(ch), Send(ch, value))

    one, other = mixed(0, both, 0), mixed(1, both, 1)
    got = {one.result(PATIENCE), other.result(PATIENCE)}
    assert got in ({(0, 1, True), (1, None, True)}, {(0, 0, True), (1, None, True)})


# ---- the same channel more than once -----------------------------------------------------------


def test_both_directions_of_one_channel_do_not_meet() -> None:
    ch: Chan[int] = Chan()
    assert select(Recv(ch), Send(ch, 1), default=True).index == -1
    with pytest.raises(Timeout):
        select(Recv(ch), Send(ch, 1), timeout=0.01)
    waiting(ch)


def test_both_directions_of_a_buffered_channel() -> None:
    ch: Chan[int] = Chan(1)
    assert select(Recv(ch), Send(ch, 1)) == (1, None, True)
    assert select(Recv(ch), Send(ch, 2)) == (0, 1, True)


def test_duplicates() -> None:
    ch: Chan[int] = Chan()
    for i in range(50):
        g = gmprt.go(lambda: select(ch, ch, ch))
        parked(g, "select")
        ch.send(i)
        sel = g.result(PATIENCE)
        assert sel.value == i
        assert sel.index in (0, 1, 2)
    waiting(ch)
    fired = Counter(select(ch, ch, ch).index for ch in [ready(1) for _ in range(300)])
    assert set(fired) == {0, 1, 2}


def test_duplicate_sends_send_the_value_of_their_case() -> None:
    seen = set()
    for _ in range(100):
        ch: Chan[int] = Chan(1)
        sel = select(*[Send(ch, i) for i in range(3)])
        assert ch.recv() == sel.index
        seen.add(sel.index)
    assert seen == {0, 1, 2}


def test_one_channel_twice_and_another_who_waits_for_it() -> None:
    """Go's TestSelectDuplicateChannel: the first leaves the queue without harm to the second."""
    c: Chan[int] = Chan()
    d: Chan[int] = Chan()
    a = gmprt.go(lambda: select(c, c, d))
    parked(a, "select")
    b = gmprt.go(c.recv)
    parked(b, "chan receive")
    d.send(7)
    assert a.result(PATIENCE) == (2, 7, True)
    c.send(8)
    assert b.result(PATIENCE) == 8
    waiting(c)
    waiting(d)


def test_a_select_that_is_last_in_a_queue() -> None:
    """Go's test/chan/select6.go: it leaves, and comes again."""
    c1: Chan[bool] = Chan()
    c2: Chan[bool] = Chan()
    first = gmprt.go(c1.recv)
    parked(first, "chan receive")

    def both() -> int:
        index = select(c1, c2).index
        c1.recv()
        return index

    second = gmprt.go(both)
    parked(second, "select")
    c2.send(True)
    c1.send(True, timeout=PATIENCE)
    c1.send(True, timeout=PATIENCE)
    assert second.result(PATIENCE) == 1
    ended(first)
    waiting(c1)


@pytest.mark.parametrize("send", [0, 1, 2])
@pytest.mark.parametrize("recv", [0, 1, 2])
def test_all_forms_meet(send: int, recv: int, spawn: Spawn) -> None:
    """Go's test/chan/select7.go: operation, select of one, select of two, on either side."""
    ch: Chan[int] = Chan()

    def receive() -> Any:
        return select(ch, *[Chan()] * (recv - 1)).value if recv else ch.recv()

    task = spawn(receive)
    waiting(ch, receivers=1)
    if send:
        assert select(Send(ch, 1), *[Send(Chan(), 2)] * (send - 1)).index == 0
    else:
        ch.send(1)
    assert task.result(PATIENCE) == 1


# ---- closed channels ---------------------------------------------------------------------------


def test_closed_channels(where: Where) -> None:
    def body() -> None:
        ch = ready("last")
        ch.close()
        assert select(Chan(), ch) == (1, "last", True)
        assert select(Chan(), ch) == (1, None, False)
        assert select(ch, default=True) == (0, None, False)
        for options in ({}, {"default": True}, {"timeout": 0}):
            with pytest.raises(ChannelClosed):
                select(Chan(), Send(ch, 1), **options)

    where(body)


# ---- chance ------------------------------------------------------------------------------------


def evenly(counts: Counter[int], n: int) -> None:
    """Each of range(n) about as often as the others: within seven standard deviations."""
    total = sum(counts.values())
    expected = total / n
    allowed = 7 * math.sqrt(total * (1 / n) * (1 - 1 / n))
    assert set(counts) == set(range(n))
    assert all(abs(count - expected) < allowed for count in counts.values()), counts


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_ready_cases_are_chosen_evenly(n: int) -> None:
    def main() -> Counter[int]:
        chans: list[Chan[int]] = [Chan(1) for _ in range(n)]
        counts: Counter[int] = Counter()
        for i, ch in enumerate(chans):
            ch.send(i)
        for _ in range(4000):
            fired = select(None, *chans, Chan()).value
            counts[fired] += 1
            chans[fired].send(fired)
        return counts

    evenly(gmprt.run(main), n)


def test_sends_receives_and_closed_are_chosen_evenly() -> None:
    closed: Chan[int] = Chan()
    closed.close()
    counts: Counter[int] = Counter()
    for _ in range(3000):
        counts[select(ready(1), Send(Chan(1), 1), closed).index] += 1
    evenly(counts, 3)


@pytest.mark.parametrize("capacity", [0, 100])
def test_what_is_sent_is_chosen_by_chance(capacity: int) -> None:
    """Go's TestPseudoRandomSend."""
    ch: Chan[int] = Chan(capacity)

    def receive() -> int:
        total = 0
        for _ in range(100):
            gmprt.gosched()
            total += ch.recv()
        return total

    def main() -> int:
        g = gmprt.go(receive)
        for _ in range(100):
            select(Send(ch, 1), Send(ch, 0))
        return g.result()

    assert 10 < gmprt.run(main) < 90  # ten standard deviations are 50, and eight 40


def test_waiting_senders_are_chosen_evenly() -> None:
    """Nobody starves: of two producers on two unbuffered channels each gets about half."""

    def main() -> Counter[int]:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()

        def produce(ch: Chan[int], value: int) -> None:
            while True:
                ch.send(value)

        producers = [gmprt.go(produce, a, 0), gmprt.go(produce, b, 1)]
        counts: Counter[int] = Counter()
        for _ in range(2000):
            waiting_both = a.statistics().waiting_senders and b.statistics().waiting_senders
            while not waiting_both:
                gmprt.gosched()
                waiting_both = a.statistics().waiting_senders and b.statistics().waiting_senders
            counts[select(a, b).value] += 1
        for p in producers:
            p.cancel()
        return counts

    evenly(gmprt.run(main), 2)


# ---- garbage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [1, "ch", object(), [], Chan, (Chan(), 1), Chan().sender, True])
def test_garbage(case: Any) -> None:
    other: Chan[int] = Chan(1)
    with pytest.raises(TypeError):
        select(Send(other, 1), case)
    with pytest.raises(TypeError):
        Select(Send(other, 1), case)
    assert len(other) == 0, "raised before anything was sent"


def test_garbage_in_cases() -> None:
    ch: Chan[int] = Chan()
    wrong: list[Callable[[], Any]] = [
        lambda: Recv(),
        lambda: Recv(1),
        lambda: Recv(ch.sender),
        lambda: Recv(ch, 1),
        lambda: Recv(Recv(ch)),
        lambda: Send(ch),
        lambda: Send(ch.receiver, 1),
        lambda: Send(1, 1),
        lambda: Send(ch, 1, 2),
        lambda: Send(ch, val=1),
        lambda: select(ch, wait=1),
        lambda: Select(ch, timeout=1),
        lambda: Select(ch)(1),
        lambda: Select(ch)(wait=1),
        lambda: Selected(),
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()


def test_an_answer_that_raises() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    ch = ready(1)
    with pytest.raises(ZeroDivisionError):
        select(ch, default=Undecided())  # type: ignore[arg-type]
    assert len(ch) == 1


# ---- Select ------------------------------------------------------------------------------------


def test_select_object(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        a: Chan[int] = Chan(1)
        b: Chan[int] = Chan()
        sel = Select(a, Recv(b.receiver), None)
        assert sel(default=True).index == -1
        with pytest.raises(Timeout):
            sel(timeout=0.001)
        for i in range(10):
            a.send(i)
            assert sel() == (0, i, True)
            s = spawn(b.send, i)
            assert sel(timeout=None) == (1, i, True)
            ended(s)
        a.close()
        assert sel() == (0, None, False)

    where(body)


def test_a_select_object_sends_the_same_value_each_time() -> None:
    ch: Chan[Any] = Chan(10)
    value = object()
    sel = Select(Send(ch, value))
    for _ in range(10):
        sel()
    assert sel(default=True).index == -1
    assert all(ch.recv() is value for _ in range(10))


def test_one_select_object_in_many_goroutines() -> None:
    ch: Chan[int] = Chan()
    sel = Select(ch, Chan())
    tasks = [mixed(i, sel) for i in range(20)]
    for i in range(20):
        ch.send(i)
    assert sorted(t.result(PATIENCE).value for t in tasks) == list(range(20))


def test_select_object_is_generic() -> None:
    assert Select[int].__origin__ is Select
    assert Recv[int].__origin__ is Recv


# ---- Selected ----------------------------------------------------------------------------------


def test_selected_is_a_tuple_of_three() -> None:
    sel = select(Chan(), ready("v"))
    index, value, ok = sel
    assert (index, value, ok) == (1, "v", True) == sel
    assert isinstance(sel, tuple)
    assert isinstance(sel, Selected)
    assert len(sel) == 3
    assert sel[-1] is True
    assert hash(sel) == hash((1, "v", True))
    assert repr(sel) == "Selected(index=1, value='v', ok=True)"


def test_copies_are_of_the_plain_tuple() -> None:
    """For it holds the channel, of which there is no copy."""
    sel = select(ready("v"))
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            refused(sel)
    assert pickle.loads(pickle.dumps(tuple(sel))) == copy.deepcopy(tuple(sel)) == (0, "v", True)


def test_get() -> None:
    a, b = ready("v"), Chan[int]()
    sel = select(b, a)
    assert sel.get(a) == sel.get(a.receiver) == "v"
    with pytest.raises(ValueError):
        sel.get(b)
    with pytest.raises(ValueError):
        sel.get(ready("v"))


def test_get_after_other_outcomes() -> None:
    a: Chan[int] = Chan(1)
    with pytest.raises(ValueError):
        select(Send(a, 1)).get(a)
    with pytest.raises(ValueError):
        select(Chan(), default=True).get(a)
    assert a.recv() == 1
    a.close()
    with pytest.raises(EndOfChannel):
        select(a).get(a)
    for garbage in (1, None, a.sender, Recv(a)):
        with pytest.raises((TypeError, ValueError)):
            select(a).get(garbage)  # type: ignore[arg-type]


# ---- cancel ------------------------------------------------------------------------------------


def test_cancelled_it_waits_nowhere() -> None:
    chans: list[Chan[int]] = [Chan() for _ in range(10)]
    g = gmprt.go(lambda: select(*chans, *[Send(ch, 1) for ch in chans]))
    parked(g, "select")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    for ch in chans:
        waiting(ch)


# ---- crowds ------------------------------------------------------------------------------------


def test_crossing_selects(procs: int) -> None:
    """Two channels, selected in either order by many at once: every value arrives once."""
    a: Chan[int] = Chan()
    b: Chan[int] = Chan(2)
    total = 2000

    def send_all(first: int) -> None:
        for v in range(first, total, 4):
            one, other = (a, b) if v % 3 else (b, a)
            select(Send(one, v), Send(other, v))

    def receive() -> list[int]:
        got = []
        for turn in range(total // 4):
            cases = (a, b) if turn % 2 else (b, a)
            got.append(select(*cases).value)
        return got

    receivers = [mixed(i, receive) for i in range(4)]
    ended(*[mixed(i, send_all, i) for i in range(4)])
    got = [v for r in receivers for v in r.result(PATIENCE)]
    assert sorted(got) == list(range(total))
    waiting(a)
    waiting(b)


@pytest.mark.parametrize("closes", [False, True])
def test_it_sees_one_moment(closes: bool, procs: int) -> None:
    """Go's TestNonblockSelectRace and its second: at each moment one of two channels is ready."""
    for i in range(100):
        c1, c2 = ready(1), Chan[int](1)
        task = mixed(i % 10 // 9, select, c1, c2, default=True)
        if closes:
            c2.close()
        else:
            c2.send(1)
        select(c1, default=True)
        assert task.result(PATIENCE).index >= 0, "neither was ready"


@pytest.mark.parametrize("capacity", [0, 10])
def test_two_select_from_each_other(capacity: int, procs: int) -> None:
    """Go's TestSelfSelect: it neither hangs nor meets itself."""
    ch: Chan[int] = Chan(capacity)

    def player(me: int) -> None:
        for i in range(300):
            cases: list[Any] = [Send(ch, me), ch]
            if me and i % 2:
                cases.reverse()
            chosen = select(*cases)
            if cases[chosen.index] is ch and not capacity:
                assert chosen.value != me, "it has received from itself"

    for task in [mixed(i, player, i) for i in range(2)]:
        task.result(PATIENCE)


def test_operations_and_selects_on_all_channels(procs: int) -> None:
    """Go's TestSelectStress: each channel gets and gives as much as it is to, however they meet."""
    chans: list[Chan[int]] = [Chan(), Chan(), Chan(2), Chan(3)]
    n = 150

    def send(ch: Chan[int]) -> None:
        for _ in range(n):
            ch.send(0)

    def recv(ch: Chan[int]) -> None:
        for _ in range(n):
            ch.recv()

    def select_all(sends: bool) -> None:
        left: list[Chan[int] | None] = list(chans)
        count = Counter[int]()
        for _ in range(4 * n):
            chosen = select(*[Send(ch, 0) if sends else ch for ch in left])  # type: ignore[misc]
            count[chosen.index] += 1
            if count[chosen.index] == n:
                left[chosen.index] = None

    tasks = [mixed(i, fn, ch) for i, ch in enumerate(chans) for fn in (send, recv)]
    tasks += [mixed(0, select_all, True), mixed(0, select_all, False)]
    for task in tasks:
        task.result(PATIENCE)
    assert all((len(ch), ch.waiting()) == (0, (0, 0)) for ch in chans)


def test_no_value_goes_two_ways(procs: int) -> None:
    """Go's test/chan/doubleselect.go: of four sends of one value one takes effect."""
    chans: list[Chan[int]] = [Chan() for _ in range(4)]
    out: Chan[int] = Chan()

    def send() -> None:
        for i in range(500):
            select(*[Send(ch, i) for ch in chans])
        for ch in chans:
            ch.close()

    def forward(ch: Chan[int]) -> None:
        for v in ch:
            out.send(v)

    forwarding = [mixed(i, forward, ch) for i, ch in enumerate(chans)]
    sender = gmprt.go(send)
    got = [out.recv(timeout=PATIENCE) for _ in range(500)]
    assert sorted(got) == list(range(500))
    ended(sender, *forwarding)  # type: ignore[arg-type]


def test_all_against_all(procs: int) -> None:
    """Everybody selects over sends and receives on shuffled channels, with and without patience."""
    chans: list[Chan[int]] = [Chan(c) for c in (0, 0, 1, 3)]
    each = 150

    def player(me: int) -> tuple[list[int], list[int]]:
        rng = random.Random(me)
        sent: list[int] = []
        got: list[int] = []
        for turn in range(each):
            value = me * each + turn
            cases: list[Any] = [Send(ch, value) for ch in rng.sample(chans, 2)]
            cases += rng.sample(chans, 2)
            rng.shuffle(cases)
            options: dict[str, Any] = rng.choice(
                [{"timeout": 0.002}, {"timeout": 0.002}, {"default": True}]
            )
            try:
                sel = select(*cases, **options)
            except Timeout:
                continue
            if sel.index < 0:
                gmprt.gosched()
            elif isinstance(cases[sel.index], Send):
                sent.append(value)
            else:
                got.append(sel.value)
        return sent, got

    players: list[Task[tuple[list[int], list[int]]]] = [mixed(i, player, i) for i in range(8)]
    results = [p.result(PATIENCE) for p in players]
    sent = [v for s, _ in results for v in s]
    got = [v for _, g in results for v in g]
    for ch in chans:
        ch.close()
        got += list(ch)
    assert sorted(got) == sorted(sent)
    assert len(sent) > 100, "hardly anything met"
