"""Channels: send, receive, close, views, waiting and its end."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Spawn, Thread, ended, mixed, not_emulated, parked, run_child, waiting

import gmprt
from gmprt import Chan, ChannelClosed, EndOfChannel, Timeout, WouldBlock

Where = Callable[[Callable[[], Any]], Any]


# ---- making one --------------------------------------------------------------------------------


def test_attributes() -> None:
    ch: Chan[int] = Chan(3, name="jobs")
    assert (ch.capacity, len(ch), ch.closed, ch.name) == (3, 0, False, "jobs")
    assert bool(ch), "an empty channel is a channel"
    ch.send(1)
    assert len(ch) == 1
    assert "'jobs' 1/3" in repr(ch)
    ch.close()
    assert ch.closed
    assert "closed" in repr(ch)
    assert (Chan().capacity, Chan().name) == (0, None)
    assert Chan[int].__origin__ is Chan


@pytest.mark.parametrize("capacity", [-1, -(2**70), 2**62, 2**63 - 1, 2**64, 10**30])
def test_impossible_capacity(capacity: int) -> None:
    with pytest.raises(ValueError):
        Chan(capacity)


@pytest.mark.parametrize("capacity", [1.0, "1", None, [], object()])
def test_capacity_of_the_wrong_type(capacity: Any) -> None:
    with pytest.raises(TypeError):
        Chan(capacity)


def test_other_wrong_arguments() -> None:
    with pytest.raises(TypeError):
        Chan(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Chan(size=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Chan(name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("of", [lambda ch: ch, lambda ch: ch.sender, lambda ch: ch.receiver])
def test_cannot_be_copied(of: Callable[[Chan[Any]], Any]) -> None:
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            way(of(Chan(1)))


# ---- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_the_very_object_arrives(where: Where, spawn: Spawn, capacity: int) -> None:
    ch: Chan[Any] = Chan(capacity)
    nan = float("nan")
    values = [None, nan, (), ch, Exception("a value"), StopIteration(), object(), ch.sender]

    def body() -> None:
        sender = spawn(lambda: [ch.send(v) for v in values])
        got = [ch.recv() for _ in values]
        sender.result(PATIENCE)
        assert all(a is b for a, b in zip(got, values, strict=True))

    where(body)


def test_unbuffered_send_waits_for_its_receiver(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[str] = Chan()
        log: list[str] = []

        def sender() -> None:
            ch.send("v")
            log.append("sent")

        s = spawn(sender)
        waiting(ch, senders=1)
        assert log == []
        assert ch.recv() == "v"
        ended(s)
        assert log == ["sent"]

    where(body)


def test_recv_waits_for_a_value(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[str] = Chan()
        r = spawn(ch.recv)
        waiting(ch, receivers=1)
        ch.send("v")
        assert r.result(PATIENCE) == "v"

    where(body)


def test_buffer_is_first_in_first_out_and_then_full(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(3)
        for i in range(3):
            ch.send(i)
        s = spawn(ch.send, 3)
        waiting(ch, senders=1)
        assert len(ch) == 3
        assert [ch.recv() for _ in range(4)] == [0, 1, 2, 3]
        ended(s)
        assert len(ch) == 0

    where(body)


def test_the_buffer_wraps_round() -> None:
    ch: Chan[int] = Chan(3)
    ch.send(-1)
    ch.send(-2)
    for i in range(100):
        ch.send(i)
        assert ch.recv() == (i - 2 if i >= 2 else -1 - i)


def test_waiting_receivers_are_served_in_order(spawn: Spawn) -> None:
    ch: Chan[int] = Chan()
    receivers = []
    for i in range(5):
        receivers.append(spawn(ch.recv))
        waiting(ch, receivers=i + 1)
    for i in range(5):
        ch.send(i)
    assert [r.result(PATIENCE) for r in receivers] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("capacity", [0, 1, 2])
def test_waiting_senders_are_served_in_order(spawn: Spawn, capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    for i in range(capacity):
        ch.send(i)
    senders = []
    for i in range(5):
        senders.append(spawn(ch.send, capacity + i))
        waiting(ch, senders=i + 1)
    assert [ch.recv() for _ in range(capacity + 5)] == list(range(capacity + 5))
    ended(*senders)


def test_goroutines_and_threads_wait_in_one_queue() -> None:
    ch: Chan[int] = Chan()
    receivers = []
    for i in range(8):
        receivers.append(mixed(i, ch.recv))
        waiting(ch, receivers=i + 1)
    for i in range(8):
        ch.send(i)
    assert [r.result(PATIENCE) for r in receivers] == list(range(8))


# ---- without waiting ---------------------------------------------------------------------------


def test_nowait_on_a_buffer(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(1)
        with pytest.raises(WouldBlock):
            ch.recv_nowait()
        ch.send_nowait(1)
        with pytest.raises(WouldBlock):
            ch.send_nowait(2)
        assert ch.recv_nowait() == 1
        assert len(ch) == 0

    where(body)


def test_nowait_meets_those_who_wait(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        with pytest.raises(WouldBlock):
            ch.send_nowait(0)
        r = spawn(ch.recv)
        waiting(ch, receivers=1)
        ch.send_nowait(1)
        assert r.result(PATIENCE) == 1
        with pytest.raises(WouldBlock):
            ch.recv_nowait()
        s = spawn(ch.send, 2)
        waiting(ch, senders=1)
        assert ch.recv_nowait() == 2
        ended(s)

    where(body)


def test_nowait_on_a_closed_channel() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(1)
    ch.close()
    with pytest.raises(ChannelClosed) as caught:
        ch.send_nowait(2)
    assert caught.type is ChannelClosed
    assert ch.recv_nowait() == 1
    with pytest.raises(EndOfChannel):
        ch.recv_nowait()


# ---- timeouts ----------------------------------------------------------------------------------


def test_recv_times_out(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        for operation in (ch.recv, ch.recv_ok, ch.receiver.recv, ch.receiver.recv_ok):
            begun = time.monotonic()
            with pytest.raises(Timeout):
                operation(timeout=0.02)
            assert time.monotonic() - begun >= 0.02
            with pytest.raises(Timeout):
                operation(timeout=0)
        waiting(ch)

    where(body)


def test_send_times_out_and_leaves_nothing(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(1)
        ch.send(1)
        for operation in (ch.send, ch.sender.send):
            begun = time.monotonic()
            with pytest.raises(Timeout):
                operation(2, timeout=0.02)
            assert time.monotonic() - begun >= 0.02
            with pytest.raises(Timeout):
                operation(2, timeout=0)
        assert ch.recv() == 1
        with pytest.raises(WouldBlock):
            ch.recv_nowait()

    where(body)


def test_a_timeout_that_is_not_needed(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        for timeout in (None, PATIENCE, 1e300, math.inf):
            r = spawn(ch.recv, timeout=timeout)
            waiting(ch, receivers=1)
            ch.send(1, timeout=timeout)
            assert r.result(PATIENCE) == 1
            s = spawn(ch.send, 2, timeout=timeout)
            waiting(ch, senders=1)
            assert ch.recv_ok(timeout=timeout) == (2, True)
            ended(s)

    where(body)


def test_a_poll_takes_what_is_there() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(1, timeout=0)
    assert ch.recv(timeout=0) == 1
    ch.send(2, timeout=5e-324)
    assert ch.recv_ok(timeout=5e-324) == (2, True)


def test_timeouts_are_integers_too() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(1, timeout=5)
    assert ch.recv(timeout=True) == 1


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ValueError),
        (-1e-9, ValueError),
        (math.nan, ValueError),
        (-math.inf, ValueError),
        ("1", TypeError),
        ([], TypeError),
        (1j, TypeError),
    ],
)
def test_bad_timeout(timeout: Any, error: type[Exception]) -> None:
    ch: Chan[int] = Chan(2)
    ch.send(1)
    calls: list[Callable[[], Any]] = [
        lambda: ch.send(2, timeout=timeout),
        lambda: ch.recv(timeout=timeout),
        lambda: ch.recv_ok(timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(error):
            call()
    assert len(ch) == 1, "raised before anything was done"


def test_wrong_arguments_have_no_effect() -> None:
    ch: Any = Chan(2)
    ch.send(1)
    calls: list[Callable[[], Any]] = [
        lambda: ch.send(),
        lambda: ch.send(2, 1),
        lambda: ch.send(2, wait=1),
        lambda: ch.recv(1),
        lambda: ch.recv(wait=1),
        lambda: ch.recv_ok(1),
        lambda: ch.send_nowait(),
        lambda: ch.send_nowait(1, timeout=1),
        lambda: ch.recv_nowait(1),
        lambda: ch.close(1),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    assert (len(ch), ch.closed) == (1, False)


def test_error_classes() -> None:
    assert issubclass(Timeout, TimeoutError)
    assert issubclass(EndOfChannel, ChannelClosed)
    for error in (Timeout, ChannelClosed, WouldBlock):
        assert issubclass(error, gmprt.Error)
        assert error.__module__ == "gmprt"


# ---- closing -----------------------------------------------------------------------------------


def test_send_on_closed(where: Where) -> None:
    def body() -> None:
        for capacity in (0, 2):
            ch: Chan[int] = Chan(capacity)
            ch.close()
            for timeout in (None, 0, 1):
                with pytest.raises(ChannelClosed) as caught:
                    ch.send(1, timeout=timeout)
                assert caught.type is ChannelClosed

    where(body)


def test_close_twice() -> None:
    ch: Chan[int] = Chan()
    ch.close()
    with pytest.raises(ChannelClosed):
        ch.close()
    with pytest.raises(ChannelClosed):
        ch.sender.close()
    assert ch.closed


def test_what_is_there_can_be_had_while_it_is_closed(procs: int) -> None:
    """Go's TestNonblockRecvRace: a channel that holds a value, then is closed, is always ready."""
    for i in range(100):
        ch: Chan[int] = Chan(1)
        ch.send(1)
        task = mixed(i % 10 // 9, gmprt.select, ch, default=True)
        ch.close()
        ours = ch.recv_ok()
        theirs = task.result(PATIENCE)
        assert theirs.index == 0, "the channel was not ready"
        assert {ours, tuple(theirs)[1:]} == {(1, True), (None, False)}


def test_what_is_buffered_is_still_delivered(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(3)
        for i in range(3):
            ch.send(i)
        ch.close()
        assert ch.recv() == 0
        assert ch.recv_ok() == (1, True)
        assert ch.recv_nowait() == 2
        assert ch.recv_ok() == (None, False)
        with pytest.raises(EndOfChannel):
            ch.recv()
        with pytest.raises(EndOfChannel):
            ch.recv(timeout=0)

    where(body)


def test_close_wakes_all_receivers() -> None:
    ch: Chan[int] = Chan()
    receivers = [mixed(i, ch.recv_ok) for i in range(10)]
    raising = [mixed(i, ch.recv) for i in range(10)]
    waiting(ch, receivers=20)
    ch.close()
    assert [r.result(PATIENCE) for r in receivers] == [(None, False)] * 10
    assert [type(r.exception(PATIENCE)) for r in raising] == [EndOfChannel] * 10


def test_close_wakes_all_senders_and_drops_their_values() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(0)
    senders = [mixed(i, ch.send, i + 1) for i in range(10)]
    waiting(ch, senders=10)
    ch.close()
    assert [type(s.exception(PATIENCE)) for s in senders] == [ChannelClosed] * 10
    assert list(ch) == [0]


# ---- iteration, with ---------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_iteration_ends_when_closed_and_drained(where: Where, spawn: Spawn, capacity: int) -> None:
    def body() -> None:
        ch: Chan[int] = Chan(capacity)

        def produce() -> None:
            with ch:
                for i in range(20):
                    ch.send(i)

        p = spawn(produce)
        assert list(ch) == list(range(20))
        assert list(ch) == []
        assert next(iter(ch), "end") == "end"
        ended(p)

    where(body)


def test_several_iterate_over_one_channel() -> None:
    ch: Chan[int] = Chan(4)
    readers = [mixed(i, lambda: list(ch.receiver)) for i in range(6)]
    for i in range(600):
        ch.send(i)
    ch.close()
    got = [r.result(PATIENCE) for r in readers]
    assert sorted(v for part in got for v in part) == list(range(600))
    assert all(part == sorted(part) for part in got)


def test_with_closes() -> None:
    ch: Chan[int] = Chan(1)
    with ch as same:
        assert same is ch
        ch.send(1)
    assert ch.closed
    assert list(ch) == [1]
    with Chan() as ch2:
        ch2.close()  # the block may do it itself
    with pytest.raises(KeyError), Chan() as ch3:
        raise KeyError
    assert ch3.closed


# ---- views -------------------------------------------------------------------------------------


def test_views_do_only_their_half() -> None:
    ch: Chan[int] = Chan(2, name="v")
    out, into = ch.sender, ch.receiver
    assert not any(hasattr(out, n) for n in ("recv", "recv_ok", "recv_nowait", "__iter__"))
    assert not any(hasattr(into, n) for n in ("send", "send_nowait", "close"))
    out.send(1)
    out.send_nowait(2)
    for view in (out, into):
        assert (len(view), view.capacity, view.closed, view.name) == (2, 2, False, "v")
        assert bool(view)
        assert "'v' 2/2" in repr(view)
    assert into.recv() == 1
    assert into.recv_ok() == (2, True)
    out.close()
    assert ch.closed
    assert into.closed
    assert list(into) == []


def test_views_compare_by_channel() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    assert a.sender == a.sender
    assert hash(a.sender) == hash(a.sender)
    assert a.receiver == a.receiver
    assert a.sender != b.sender
    assert a.sender != a.receiver
    assert len({a.receiver, a.receiver, b.receiver}) == 2


def test_a_view_keeps_its_channel_alive() -> None:
    view = Chan(1).sender
    view.send(1)
    assert len(view) == 1


def test_views_cannot_be_made_by_hand() -> None:
    for view in (Chan().sender, Chan().receiver):
        with pytest.raises(TypeError):
            type(view)()


# ---- statistics --------------------------------------------------------------------------------


def test_statistics(spawn: Spawn) -> None:
    ch: Chan[int] = Chan(1)
    ch.send(1)
    s = spawn(ch.send, 2)
    waiting(ch, senders=1)
    assert ch.statistics() == gmprt.ChanStatistics(
        length=1, capacity=1, closed=False, waiting_senders=1, waiting_receivers=0
    )
    assert [ch.recv(), ch.recv()] == [1, 2]
    ended(s)
    r = spawn(ch.recv)
    waiting(ch, receivers=1)
    ch.close()
    r.exception(PATIENCE)
    assert ch.statistics() == gmprt.ChanStatistics(
        length=0, capacity=1, closed=True, waiting_senders=0, waiting_receivers=0
    )


def test_whoever_gave_up_is_no_waiter(spawn: Spawn) -> None:
    ch: Chan[int] = Chan()
    g = gmprt.go(ch.recv)
    parked(g, "chan receive")
    late = spawn(ch.recv, timeout=0.01)
    assert isinstance(late.exception(PATIENCE), Timeout)
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    assert ch.statistics().waiting_receivers == 0
    with pytest.raises(WouldBlock):
        ch.send_nowait(1)


# ---- crowds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 16])
def test_many_producers_and_consumers(procs: int, capacity: int) -> None:
    """Nothing lost, nothing twice, and each consumer sees each producer's values in order."""
    ch: Chan[tuple[int, int]] = Chan(capacity)
    each, producers = 300, 8

    def produce(p: int) -> None:
        for i in range(each):
            ch.send((p, i))

    def consume() -> list[tuple[int, int]]:
        return list(ch)

    consumers = [mixed(i, consume) for i in range(6)]
    ended(*[mixed(p, produce, p) for p in range(producers)])
    ch.close()
    got = [c.result(PATIENCE) for c in consumers]
    everything = sorted(v for part in got for v in part)
    assert everything == [(p, i) for p in range(producers) for i in range(each)]
    for part in got:
        for p in range(producers):
            mine = [i for q, i in part if q == p]
            assert mine == sorted(mine)


def test_ping_pong_between_a_goroutine_and_a_thread(procs: int) -> None:
    there: Chan[int] = Chan()
    back: Chan[int] = Chan()

    def echo() -> None:
        for v in there:
            back.send(v + 1)

    g = gmprt.go(echo)

    def play() -> int:
        v = 0
        for _ in range(500):
            there.send(v)
            v = back.recv()
        there.close()
        return v

    assert Thread(play).result() == 500
    ended(g)


def test_a_ring_of_goroutines(procs: int) -> None:
    """One token goes round; every hop is a park and a wake."""
    size, rounds = 200, 20
    ring: list[Chan[int]] = [Chan() for _ in range(size)]

    def node(i: int) -> None:
        for _ in range(rounds):
            ring[(i + 1) % size].send(ring[i].recv() + 1)

    goroutines = [gmprt.go(node, i) for i in range(1, size)]

    def first() -> int:
        v = 0
        for _ in range(rounds):
            ring[1].send(v)
            v = ring[0].recv()
        return v

    assert gmprt.go(first).result(PATIENCE) == (size - 1) * rounds
    ended(*goroutines)


def test_sieve_of_primes() -> None:
    """The classic: a chain of filters that grows while it runs."""

    def numbers(out: gmprt.SendChan[int]) -> None:
        i = 2
        while True:
            out.send(i)
            i += 1

    def sieve(into: gmprt.RecvChan[int], out: gmprt.SendChan[int], prime: int) -> None:
        for i in into:
            if i % prime:
                out.send(i)

    def main() -> list[int]:
        ch: Chan[int] = Chan()
        gmprt.go(numbers, ch.sender)
        primes = []
        for _ in range(50):
            prime = ch.recv()
            primes.append(prime)
            following: Chan[int] = Chan()
            gmprt.go(sieve, ch.receiver, following.sender, prime)
            ch = following
        return primes

    assert gmprt.run(main)[-3:] == [223, 227, 229]


def test_many_consumers_of_one_queue(procs: int) -> None:
    """Go's TestMultiConsumer: workers that `for` feeds, and one who collects what they pass on."""
    primes, workers, n = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31], 23, 2000
    work: Chan[int] = Chan(workers * 3)
    results: Chan[int] = Chan(workers * 3)

    def worker(me: int) -> None:
        for v in work:
            if v == primes[me % len(primes)]:
                gmprt.gosched()
            results.send(v)

    def feed() -> None:
        all_done = gmprt.WaitGroup()
        for i in range(workers):
            all_done.go(worker, i)
        for i in range(n):
            work.send(primes[i % len(primes)])
        work.close()
        all_done.wait()
        results.close()

    g = gmprt.go(feed)
    got = list(results)
    assert (len(got), sum(got)) == (n, sum(primes) * n // len(primes))
    ended(g)


@not_emulated("the address space that is limited is the emulator's")
def test_no_room_for_the_buffer() -> None:
    """ValueError for what no machine has room for, MemoryError where memory is short now."""
    for capacity in (2**60, 2**62, 2**63 - 1, 2**64):
        with pytest.raises(ValueError, match=r"capacity|cannot fit"):
            Chan(capacity)
    code = """
        import resource, gmprt
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (16 << 20), -1))
        try:
            gmprt.Chan(1 << 24)
        except MemoryError as error:
            print(error)
    """
    assert "capacity of 16777216" in run_child(code).stdout
