"""send_many and recv_many: what single operations would do, in one crossing."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, Spawn, ended, eventually, mixed, parked, run_child, waiting

import gmprt
from gmprt import Chan, Recv, Send, go, select

Where = Callable[[Callable[[], Any]], Any]


def test_buffered(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(5)
        assert ch.send_many([1, 2, 3]) == 3
        assert ch.sender.send_many((4, 5)) == 2
        assert ch.recv_many(2) == [1, 2]
        assert ch.send_many(iter([6, 7])) == 2
        assert ch.receiver.recv_many(100) == [3, 4, 5, 6, 7]
        assert ch.send_many([]) == 0
        assert len(ch) == 0

    where(body)


@pytest.mark.parametrize("capacity", [0, 1, 3, 100, 1000])
def test_more_than_there_is_room_for(spawn: Spawn, capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    t = spawn(ch.send_many, range(500))
    got: list[int] = []
    while len(got) < 500:
        part = ch.recv_many(70, timeout=PATIENCE)
        assert 1 <= len(part) <= 70
        got += part
    assert got == list(range(500))
    assert t.result(PATIENCE) == 500


def test_takes_from_the_buffer_and_from_senders() -> None:
    ch: Chan[int] = Chan(2)
    ch.send_many([1, 2])
    senders = [go(ch.send, 3)]
    waiting(ch, senders=1)
    for n in (4, 5, 6):
        senders.append(go(ch.send, n))
        waiting(ch, senders=n - 2)
    assert ch.recv_many(3) == [1, 2, 3]
    assert (len(ch), ch.waiting()) == (2, (1, 0)), "as many are served as values were taken"
    assert ch.recv_many(10) == [4, 5, 6]
    ended(*senders)
    assert (len(ch), ch.waiting()) == (0, (0, 0))


def test_serves_all_receivers_then_the_buffer() -> None:
    ch: Chan[int] = Chan(2)
    receivers = []
    for n in range(3):
        receivers.append(go(ch.recv))
        waiting(ch, receivers=n + 1)
    receivers[1].cancel()
    assert ch.send_many([1, 2, 3, 4]) == 4
    assert receivers[0].result(PATIENCE) == 1
    assert receivers[2].result(PATIENCE) == 2
    assert ch.recv_many(9) == [3, 4]


def test_it_waits_for_the_first_value_only() -> None:
    ch: Chan[int] = Chan(10)
    g = go(ch.recv_many, 10)
    parked(g, "chan receive")
    ch.send_many([1, 2, 3])
    assert g.result(PATIENCE) == [1, 2, 3]
    g = go(ch.recv_many, 1)
    parked(g, "chan receive")
    ch.send_many([1, 2])
    assert g.result(PATIENCE) == [1]
    assert ch.recv_many(1) == [2]


def test_fair_to_other_senders() -> None:
    """One that has many values waits behind those who came before, each time."""
    ch: Chan[str] = Chan()
    many = go(ch.send_many, ["a", "b", "c"])
    waiting(ch, senders=1)
    one = go(ch.send, "x")
    waiting(ch, senders=2)
    got = []
    for left in (2, 1, 1, 0):
        got.append(ch.recv(timeout=PATIENCE))
        waiting(ch, senders=left)
    assert got == ["a", "x", "b", "c"]
    ended(many, one)


def test_with_select() -> None:
    ch: Chan[int] = Chan()
    other: Chan[int] = Chan()
    g = go(select, other, Send(ch, 7))
    parked(g, "select")
    assert ch.recv_many(5) == [7]
    assert g.result(PATIENCE).index == 1
    h = go(select, Recv(ch), other)
    parked(h, "select")
    sender = go(ch.send_many, [1, 2])
    assert h.result(PATIENCE).value == 1
    assert ch.recv(timeout=PATIENCE) == 2
    ended(sender)


def test_closed() -> None:
    ch: Chan[int] = Chan(3)
    ch.send_many([1, 2])
    ch.close()
    with pytest.raises(gmprt.ChannelClosed) as caught:
        ch.send_many([3])
    assert caught.value.sent == 0
    assert ch.send_many([]) == 0
    assert ch.recv_many(9) == [1, 2]
    with pytest.raises(gmprt.EndOfChannel):
        ch.recv_many(9)
    waits: Chan[int] = Chan(2)
    sender = go(waits.send_many, range(9))
    waiting(waits, senders=1)
    waits.close()
    error = sender.exception(PATIENCE)
    assert isinstance(error, gmprt.ChannelClosed)
    assert error.sent == 2
    assert waits.recv_many(9) == [0, 1]
    receiver = go(Chan[int].recv_many, empty := Chan[int](), 5)
    waiting(empty, receivers=1)
    empty.close()
    assert isinstance(receiver.exception(PATIENCE), gmprt.EndOfChannel)


def test_timeouts_and_polls(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(2)
        for timeout in (0, 0.005):
            with pytest.raises(gmprt.Timeout):
                ch.recv_many(3, timeout=timeout)
            with pytest.raises(gmprt.Timeout) as caught:
                ch.send_many([1, 2, 3], timeout=timeout)
            assert caught.value.sent == 2
            assert ch.recv_many(3, timeout=timeout) == [1, 2]
        assert ch.send_many([1, 2], timeout=0) == 2

    where(body)


def test_cancel_says_how_many_went() -> None:
    ch: Chan[int] = Chan(3)
    sent = []

    def sender() -> None:
        try:
            ch.send_many(range(10))
        except gmprt.Cancelled as e:
            sent.append(e.sent)
            raise

    g = go(sender)
    waiting(ch, senders=1)
    assert ch.recv() == 0
    waiting(ch, senders=1)
    g.cancel()
    ended(g)
    assert sent == [4]
    assert ch.recv_many(99) == [1, 2, 3]
    r = go(ch.recv_many, 5)
    waiting(ch, receivers=1)
    r.cancel()
    ended(r)
    ch.send(9)
    assert ch.recv_many(5) == [9]


def test_wrong_arguments() -> None:
    ch: Any = Chan(5)
    for call in (
        lambda: ch.send_many(),
        lambda: ch.send_many(1),
        lambda: ch.send_many([1], [2]),
        lambda: ch.send_many([1], block=True),
        lambda: ch.send_many([1], timeout="1"),
        lambda: ch.recv_many(),
        lambda: ch.recv_many("1"),
        lambda: ch.recv_many(1.5),
        lambda: ch.recv_many(1, 2),
        lambda: ch.recv_many(1, block=True),
    ):
        with pytest.raises(TypeError):
            call()
    for wrong in (0, -1, 2**63, -(2**64)):
        with pytest.raises(ValueError, match=r"^recv_many\(\): max must be between"):
            ch.recv_many(wrong)
    for bad in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            ch.recv_many(1, timeout=bad)
        with pytest.raises(ValueError, match="timeout"):
            ch.send_many([1], timeout=bad)

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        ch.send_many(broken())
    assert len(ch) == 0, "the values are read before any is sent"
    assert ch.send_many(range(3)) == 3
    assert ch.recv_many(2**62) == [0, 1, 2], "max is no size"


def test_the_list_may_change_meanwhile() -> None:
    ch: Chan[int] = Chan()
    values = [1, 2, 3]
    g = go(ch.send_many, values)
    waiting(ch, senders=1)
    values.clear()
    assert [ch.recv(timeout=PATIENCE) for _ in range(3)] == [1, 2, 3]
    ended(g)


def test_timer_channels() -> None:
    assert len(gmprt.after(0.001).recv_many(5)) == 1  # type: ignore[attr-defined]
    with pytest.raises(gmprt.Timeout):
        gmprt.after(PATIENCE * 100).recv_many(5, timeout=0.001)


class Thing:
    pass


def test_references() -> None:
    """Each value is owned once, wherever it is."""
    ch: Chan[Thing] = Chan(2)
    things = [Thing() for _ in range(6)]
    gone = [weakref.ref(t) for t in things]
    g = go(ch.send_many, things)
    waiting(ch, senders=1)
    del things
    part = ch.recv_many(3)
    del part
    g.cancel()
    ended(g)
    del g
    eventually(lambda: [i for i in range(6) if gone[i]() is not None] == [3, 4], "two are buffered")
    del ch
    gc.collect()
    assert [r() for r in gone] == [None] * 6


STORM = """
import random, gmprt
from gmprt import Chan, go, select, Recv, Send
sent, got, done = set(), [], 0
ch, serial = Chan(CAPACITY), gmprt.AtomicInt()

def sender(seed):
    rng = random.Random(seed)
    for _ in range(60):
        n = rng.randrange(1, 40)
        first = serial.add(n) - n
        values = list(range(first, first + n))
        try:
            if rng.random() < 0.2:
                select(Send(ch, values[0]), Chan())
                count = 1
            else:
                count = ch.send_many(values, timeout=rng.choice([None, None, 0, 0.0003]))
        except (gmprt.Timeout, gmprt.Cancelled) as e:
            count = e.sent
        assert not sent & set(values[:count])
        sent.update(values[:count])

def receiver(seed):
    rng = random.Random(seed)
    while True:
        try:
            if rng.random() < 0.2:
                part = [select(Recv(ch), Chan()).get(ch)]
            else:
                patience = rng.choice([None, None, 0, 0.0003])
                part = ch.recv_many(rng.randrange(1, 30), timeout=patience)
            got.extend(part)
        except (gmprt.Timeout, gmprt.Cancelled):
            pass
        except gmprt.EndOfChannel:
            return

def main():
    senders = [go(sender, i) for i in range(8)]
    receivers = [go(receiver, 100 + i) for i in range(6)]
    rng = random.Random(7)
    while not all(g.done() for g in senders):
        rng.choice(senders + receivers).cancel()
        gmprt.sleep(0.0003)
    for g in senders:
        g.result()
    ch.close()
    for g in receivers:
        g.result()
    assert sorted(got) == sorted(sent), (len(got), len(sent))
    print("done")

gmprt.run(main)
"""


@pytest.mark.parametrize(
    ("capacity", "procs", "chaos"),
    [(0, "1", ""), (7, "2", "5"), (7, "4", ""), (64, "4", "20261130")],
)
def test_storm_of_cancels(capacity: int, procs: str, chaos: str) -> None:
    """What the sender was told has gone, and nothing else, arrives once."""
    code = STORM.replace("CAPACITY", str(capacity))
    env = {"GOMAXPROCS": procs, "GMPRT_CHAOS": chaos}
    assert run_child(code, env=env, timeout=50).stdout == "done\n"


def test_between_threads(procs: int) -> None:
    ch: Chan[int] = Chan(16)
    senders = [mixed(i, ch.send_many, range(i * 1000, i * 1000 + 1000)) for i in range(4)]

    def drain() -> list[int]:
        got: list[int] = []
        while True:
            try:
                got += ch.recv_many(50)
            except gmprt.EndOfChannel:
                return got

    receivers = [mixed(i, drain) for i in range(3)]
    for t in senders:
        assert t.result(PATIENCE) == 1000
    ch.close()
    parts = [t.result(PATIENCE) for t in receivers]
    assert sorted(v for part in parts for v in part) == list(range(4000))
    for part in parts:
        for i in range(4):
            mine = [v for v in part if v // 1000 == i]
            assert mine == sorted(mine), "one sender's values stay in order"
