"""sleep, after, tick, Timer, Ticker, after_func: Go 1.23's rules.

A machine under load makes everything late, so nothing here has an upper bound but a generous one;
what is tested is the order of things and that nothing comes early.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Spawn, eventually, parked, waiting

import gmprt
from gmprt import Chan, Ticker, Timeout, Timer, WouldBlock, after, after_func, select, sleep, tick

Where = Callable[[Callable[[], Any]], Any]


# ---- sleep -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.001, 0.03])
def test_sleep_is_not_short(where: Where, seconds: float) -> None:
    def body() -> None:
        begun = time.monotonic()
        sleep(seconds)
        assert time.monotonic() - begun >= seconds

    where(body)


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    def main() -> tuple[list[int], bool]:
        woken: list[int] = []
        first = time.monotonic() + 0.3
        asleep = 0

        def sleeper(i: int) -> None:
            nonlocal asleep
            left = first + 0.01 * i - time.monotonic()
            asleep += left > 0
            sleep(max(left, 0))
            woken.append(i)

        goroutines = [gmprt.go(sleeper, i) for i in (4, 1, 3, 0, 2)]
        for g in goroutines:
            g.join()
        return woken, asleep == 5

    gmprt.gomaxprocs(1)
    for _ in range(100):
        woken, together = gmprt.run(main)
        if together:  # none of them has begun so late that his time was over
            break
    assert woken == [0, 1, 2, 3, 4]


def test_many_sleepers_sleep_together(procs: int) -> None:
    begun = time.monotonic()
    goroutines = [gmprt.go(sleep, 0.1) for _ in range(2000)]
    for g in goroutines:
        g.result(PATIENCE)
    assert 0.1 <= time.monotonic() - begun < 10


def test_sleep_zero_yields() -> None:
    def main() -> list[str]:
        log: list[str] = []

        def other() -> None:
            log.append("other")

        g = gmprt.go(other)
        while not log:
            sleep(0)
        g.join()
        return log

    gmprt.gomaxprocs(1)
    assert gmprt.run(main) == ["other"]


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (None, TypeError)],
)
def test_bad_sleep(where: Where, seconds: Any, error: type[Exception]) -> None:
    def body() -> None:
        with pytest.raises(error):
            sleep(seconds)

    where(body)


def test_sleep_zero_beside_the_collector() -> None:
    """Go's TestSleepZeroDeadlock."""
    gmprt.gomaxprocs(4)

    def collect() -> None:
        for _ in range(10):
            gc.collect()

    def sleep_and_talk() -> None:
        for _ in range(100):
            sleep(0)
            ch: Chan[bool] = Chan(1)
            ch.send(True)
            ch.recv()

    for g in [gmprt.go(collect), gmprt.go(sleep_and_talk)]:
        g.result(PATIENCE)


def test_sleep_for_ever_can_be_cancelled() -> None:
    for seconds in (math.inf, 1e300, 1e18):
        g = gmprt.go(sleep, seconds)
        parked(g, "sleep")
        g.cancel()
        assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)


# ---- after and Timer ---------------------------------------------------------------------------


def test_after(where: Where) -> None:
    def body() -> None:
        begun, wall = time.monotonic(), time.time()
        fired = after(0.02).recv(timeout=PATIENCE)
        assert time.monotonic() - begun >= 0.02
        assert wall + 0.019 <= fired <= time.time() + 0.001

    where(body)


def test_after_fires_once() -> None:
    ch = after(0)
    assert ch.recv(timeout=PATIENCE) > 0
    with pytest.raises(Timeout):
        ch.recv(timeout=0.02)
    assert not ch.closed


@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_no_time_at_all(seconds: float) -> None:
    assert after(seconds).recv(timeout=PATIENCE) > 0
    assert Timer(seconds).c.recv_nowait() > 0


@pytest.mark.parametrize("seconds", [math.inf, 1e300])
def test_never(seconds: float) -> None:
    timer = Timer(seconds)
    with pytest.raises(Timeout):
        timer.c.recv(timeout=0.01)
    assert timer.stop()


def test_what_waits_for_a_timer_is_a_receiver(spawn: Spawn) -> None:
    """recv_nowait and a select with default see a fired timer as well."""
    timer = Timer(0.01)
    with pytest.raises(WouldBlock):
        Timer(PATIENCE).c.recv_nowait()
    eventually(lambda: select(timer.c, default=True).index == 0)
    timer.reset(0.01)
    assert spawn(timer.c.recv).result(PATIENCE) > 0


def test_a_timer_channel_looks_unbuffered() -> None:
    timer = Timer(0)
    assert (timer.c.capacity, len(timer.c)) == (0, 0)


def test_in_select(where: Where) -> None:
    def body() -> None:
        ch: Chan[int] = Chan()
        assert select(ch, after(0.01)).index == 1
        first = select(after(PATIENCE), after(PATIENCE / 2), after(0.01), ch)
        assert first.index == 2
        with pytest.raises(Timeout):
            select(ch, after(PATIENCE), timeout=0.01)

    where(body)


def test_stop_before_it_fires() -> None:
    timer = Timer(0.02)
    assert timer.stop()
    assert not timer.stop(), "already stopped"
    with pytest.raises(Timeout):
        timer.c.recv(timeout=0.05)


def test_no_stale_value_after_stop() -> None:
    timer = Timer(0)
    sleep(0.002)
    assert timer.stop(), "fired, but nobody has received it"
    with pytest.raises(WouldBlock):
        timer.c.recv_nowait()
    assert not timer.stop()


def test_no_stale_value_after_reset() -> None:
    timer = Timer(0)
    sleep(0.002)
    begun = time.monotonic()
    assert timer.reset(0.03)
    timer.c.recv(timeout=PATIENCE)
    assert time.monotonic() - begun >= 0.03
    assert not timer.reset(0), "its value was received"
    timer.c.recv(timeout=PATIENCE)


def test_reset_moves_those_who_wait(spawn: Spawn) -> None:
    timer = Timer(PATIENCE * 100)
    t = spawn(timer.c.recv)
    eventually(lambda: timer._chan.statistics().waiting_receivers == 1)
    assert timer.reset(0.01)
    assert t.result(PATIENCE) > 0
    for _ in range(100):
        later = gmprt.go(timer.c.recv)
        parked(later, "chan receive")
        timer.reset(0.02)
        if timer.reset(PATIENCE * 100):  # says whether it was in time
            break
        assert later.result(PATIENCE) > 0
    else:
        raise AssertionError("never in time")
    assert not later.join(0.1), "the earlier time no longer counts"
    timer.stop()
    assert not later.join(0.02)
    timer.reset(0)
    assert later.result(PATIENCE) > 0


def test_reset_moves_a_select() -> None:
    timer = Timer(PATIENCE * 100)
    g = gmprt.go(lambda: select(Chan(), timer.c))
    parked(g, "select")
    timer.reset(0.01)
    assert g.result(PATIENCE).index == 1


def test_stop_and_receive_race(procs: int) -> None:
    """Either stop() says it was in time and nothing arrives, or the value is there."""
    for _ in range(300):
        timer = Timer(0.0002)
        g = gmprt.go(timer.c.recv)
        sleep(0.0002)
        if timer.stop():
            assert not g.join(0)
            g.cancel()
            assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
        else:
            assert g.result(PATIENCE) > 0


def test_bad_times() -> None:
    timer = Timer(PATIENCE)
    ticker = Ticker(PATIENCE)
    makers: list[Callable[[Any], Any]] = [
        after,
        Timer,
        timer.reset,
        tick,
        Ticker,
        ticker.reset,
        lambda s: after_func(s, print),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="seconds"):
            make(math.nan)
        for garbage in ("1", None, [], 1j):
            with pytest.raises(TypeError, match=f": seconds .* not {type(garbage).__name__}$"):
                make(garbage)
    assert timer.stop(), "still armed"
    for make in (tick, Ticker, ticker.reset):
        for seconds in (0, -1, -math.inf):
            with pytest.raises(ValueError):
                make(seconds)


def test_unreferenced_timers_are_collected() -> None:
    timers: list[Any] = [Timer(1000), Ticker(1000), Timer(0)]
    refs = [weakref.ref(t) for t in timers]
    pending = gmprt.stats().timers
    del timers
    gc.collect()
    assert [r() for r in refs] == [None] * 3
    assert gmprt.stats().timers <= pending


@pytest.mark.parametrize(
    "make",
    [
        lambda: after(1000),
        lambda: tick(1000),
        lambda: Timer(1000).stop(),
        lambda: Ticker(1000).stop(),
    ],
    ids=["after", "tick", "Timer.stop", "Ticker.stop"],
)
def test_nothing_is_left_of_a_thousand(make: Callable[[], object]) -> None:
    """Go's TestTimerGC."""
    make()
    gc.collect()
    objects, pending = len(gc.get_objects()), gmprt.stats().timers
    blocks = sys.getallocatedblocks()
    for _ in range(1000):
        make()
    assert gmprt.stats().timers <= pending
    assert len(gc.get_objects()) < objects + 100
    assert sys.getallocatedblocks() < blocks + 500


@pytest.mark.parametrize("operation", ["stop", "reset"])
def test_of_two_one_is_received_the_other_prevented(operation: str, procs: int) -> None:
    """Go's TestStopResult and TestResetResult: what stop() says of a value is so."""

    def play() -> None:
        for _ in range(5):
            timers = [Timer(0.001), Timer(0.001)]
            chosen = select(*[timer.c for timer in timers])
            other = timers[1 - chosen.index]
            if not (other.stop() if operation == "stop" else other.reset(3600)):
                other.c.recv(timeout=PATIENCE)

    for g in [gmprt.go(play) for _ in range(50)]:
        g.result(PATIENCE)


def test_a_timer_moved_to_now_is_not_dropped() -> None:
    """Go's TestTimerModifiedEarlier, for both kinds."""
    for _ in range(50):
        timer = Timer(3600)
        called: Chan[int] = Chan(20)
        call = after_func(3600, called.send, 1)
        for _ in range(10):
            timer.stop()
            timer.reset(-1)
            call.stop()
            call.reset(-1)
        assert timer.c.recv(timeout=PATIENCE) > 0
        assert called.recv(timeout=PATIENCE) == 1


def test_timers_set_to_and_fro() -> None:
    """Go's TestAdjustTimers: resets to long times and back lose no short one."""
    rng = random.Random(7)
    fired: list[Chan[int]] = [Chan(2) for _ in range(50)]
    timers = [after_func(0, ch.send, 1) for ch in fired]
    states = [1] * len(timers)
    left = list(range(len(timers)))
    while left:
        i = rng.choice(left)
        timer, state = timers[i], states[i]
        states[i] += 1
        if state in (1, 9):
            assert fired[i].recv(timeout=PATIENCE) == 1
        elif state in (2, 4, 6):
            assert not timer.reset(60 * state), "it had fired, or was stopped"
        elif state in (3, 5, 7):
            assert timer.stop()
        elif state == 8:
            assert not timer.reset(0)
        else:
            left.remove(i)
    assert all(len(ch) == 0 for ch in fired)


@pytest.mark.parametrize("kind", ["Timer", "Ticker"])
def test_a_timer_channel_through_all_its_states(kind: str) -> None:
    """Go's testTimerChan: nobody waits, one waits, two select; it is stopped, far away, due."""
    far = 10_000.0
    timer: Any = Timer(far) if kind == "Timer" else Ticker(far)
    channel: Any = timer.c
    due = 1e-9

    def ticked() -> bool:
        return select(channel, default=True).index == 0

    timer.stop()
    assert not ticked()
    timer.reset(far)
    assert not ticked()
    timer.reset(due)
    sleep(0.002)
    assert (len(channel), channel.capacity) == (0, 0)
    assert ticked()
    sleep(0.002)  # a ticker has one more
    timer.reset(far)
    assert not ticked(), "a value of before"

    one = gmprt.go(channel.recv)
    parked(one, "chan receive")
    timer.reset(2 * far)
    assert not one.join(0.005)
    timer.reset(due)
    assert one.result(PATIENCE) > 0
    sleep(0.002)
    assert ticked() == (kind == "Ticker")
    timer.stop()
    assert not ticked()

    timer.reset(far)
    stop: Chan[None] = Chan()
    two = [gmprt.go(lambda: select(channel, stop).index) for _ in range(2)]
    for g in two:
        parked(g, "select")
    timer.reset(0.001)
    eventually(lambda: any(g.done() for g in two))
    timer.stop()
    stop.close()
    indices = sorted(g.result(PATIENCE) for g in two)
    assert indices == [0, 1] or (kind == "Ticker" and indices == [0, 0])
    assert not ticked()

    stop = Chan()
    two = [gmprt.go(lambda: select(channel, stop).index) for _ in range(2)]
    for g in two:  # of one that is stopped
        parked(g, "select")
    stop.close()
    assert [g.result(PATIENCE) for g in two] == [1, 1]

    timer.reset(due)
    sleep(0.002)
    assert timer.stop() in (True, None)
    assert not ticked(), "received after stop()"
    timer.reset(3600)
    assert not ticked()
    assert timer.reset(due) in (True, None)
    sleep(0.002)
    assert ticked()
    sleep(0.002)
    assert ticked() == (kind == "Ticker")


def test_the_value_is_the_time_it_was_due() -> None:
    """Go's TestAfterTimes and TestTickTimes: however late it is received."""
    for make in (after, tick):
        for _ in range(10):
            created = time.time()
            channel = make(0.01)
            sleep(0.1)
            if (late := channel.recv(timeout=PATIENCE) - created) < 0.08:
                break  # else the machine has stopped between two looks at the clock
        assert 0.009 <= late < 0.08


def test_many_after_each_other_and_together() -> None:
    """Go's TestAfterTick and TestAfterQueuing: none comes early."""
    begun = time.monotonic()
    for _ in range(10):
        after(0.002).recv()
    assert time.monotonic() - begun >= 0.02

    def wait(slot: int) -> float:
        created = time.time()
        return after(slot * 0.005).recv() - created - slot * 0.005

    slots = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0]
    assert all(g.result(PATIENCE) > -0.001 for g in [gmprt.go(wait, slot) for slot in slots])


def test_zero_timers() -> None:
    """Go's TestZeroTimer: new ones, and one that is set again and again."""
    again = Timer(3600)
    called: Chan[int] = Chan(1)
    call = after_func(3600, called.send, 1)
    for _ in range(200):
        assert Timer(0).c.recv(timeout=PATIENCE) > 0
        again.reset(0)
        assert again.c.recv(timeout=PATIENCE) > 0
        call.reset(0)
        assert called.recv(timeout=PATIENCE) == 1


def test_many_at_one_timer(procs: int) -> None:
    """Go's TestMultiWakeupTicker and TestMultiWakeupTimer."""
    ticker, timer = Ticker(1e-6), Timer(1e-9)

    def use() -> None:
        for _ in range(100):
            select(ticker.c, after(0.001))
            select(timer.c, default=True)
            timer.reset(1e-9)

    for g in [gmprt.go(use) for _ in range(4)]:
        g.result(PATIENCE)


def test_a_heap_of_sleepers_delays_nobody() -> None:
    """Go's TestLongAdjustTimers: work goes round while a thousand sleepers come and go."""
    sleepers = [gmprt.go(sleep, 0.00001) for _ in range(1000)]
    into: Chan[int] = Chan()
    out: Chan[int] = Chan()

    def queue() -> None:
        waiting: list[int] = []
        while True:
            chosen = select(gmprt.Send(out, waiting[0]) if waiting else None, into)
            if chosen.index == 0:
                waiting.pop(0)
            elif chosen.ok:
                waiting.append(chosen.get(into))
            else:
                return

    g = gmprt.go(queue)
    for i in range(100):
        for n in range(20):
            into.send(n)
        for n in range(20):
            chosen = select(out, after(PATIENCE))
            assert (chosen.index, chosen.value) == (0, n), i
    into.close()
    g.result(PATIENCE)
    for s in sleepers:
        s.result(PATIENCE)


# ---- Ticker ------------------------------------------------------------------------------------


def test_ticks(where: Where) -> None:
    def body() -> None:
        begun = time.monotonic()
        ticker = Ticker(0.01)
        times = [ticker.c.recv(timeout=PATIENCE) for _ in range(5)]
        assert time.monotonic() - begun >= 0.05
        assert times == sorted(times)
        ticker.stop()

    where(body)


def test_tick() -> None:
    ch = tick(0.005)
    for _ in range(3):
        assert ch.recv(timeout=PATIENCE) > 0


def test_a_slow_receiver_misses_ticks() -> None:
    ticker = Ticker(0.01)
    sleep(0.2)
    seen = 0
    while select(ticker.c, default=True).index == 0:
        seen += 1
    assert 1 <= seen < 10, "of twenty ticks one was kept, and some may have come since"
    ticker.stop()


def test_a_stopped_ticker_is_silent_and_open() -> None:
    ticker = Ticker(0.002)
    sleep(0.005)
    ticker.stop()
    ticker.stop()
    with pytest.raises(Timeout):
        ticker.c.recv(timeout=0.02)
    assert not ticker.c.closed


def test_ticker_reset() -> None:
    ticker = Ticker(1000)
    begun = time.monotonic()
    ticker.reset(0.01)
    for _ in range(3):
        ticker.c.recv(timeout=PATIENCE)
    assert time.monotonic() - begun >= 0.03
    ticker.stop()
    ticker.reset(0.005)
    assert ticker.c.recv(timeout=PATIENCE) > 0


@pytest.mark.parametrize("readers", [1, 10])
def test_ticks_beside_the_collector(readers: int) -> None:
    """Go's TestTickerStress and TestTickerConcurrentStress."""
    ticker, stop = Ticker(1e-9), gmprt.AtomicInt()

    def collect() -> None:
        while not stop.load():
            gc.collect()
            sleep(1e-9)

    def read() -> None:
        for _ in range(50):
            ticker.c.recv()

    collector = gmprt.go(collect)
    for g in [gmprt.go(read) for _ in range(readers)]:
        g.result(PATIENCE)
    ticker.stop()
    stop.store(1)
    assert collector.join(PATIENCE)


def test_very_long_periods() -> None:
    """Go's TestOverflowSleep and TestOverflowPeriodRuntimeTimer: they disturb no other timer."""
    tickers = [Ticker(seconds) for seconds in (9e9, 9.3e9, 1e18, 1e300, math.inf)]
    for _ in range(3):
        assert after(0.001).recv(timeout=PATIENCE) > 0
        assert select(*[ticker.c for ticker in tickers], default=True).index == -1
        for ticker in tickers:
            ticker.reset(9e9)


# ---- after_func --------------------------------------------------------------------------------


def test_after_func_calls_in_a_goroutine_of_its_own(where: Where) -> None:
    def body() -> None:
        ch: Chan[Any] = Chan(1)
        me = gmprt.current()
        begun = time.monotonic()

        def call(value: int, *, word: str) -> None:
            ch.send((value, word, gmprt.current()))

        timer = after_func(0.02, call, 7, word="w")
        value, word, g = ch.recv(timeout=PATIENCE)
        assert time.monotonic() - begun >= 0.02
        assert (value, word) == (7, "w")
        assert g is not None
        assert g is not me
        assert not timer.stop()
        assert g.join(PATIENCE)

    where(body)


def test_after_func_stopped() -> None:
    calls: list[int] = []
    for _ in range(100):
        calls.clear()
        timer = after_func(0.02, calls.append, 1)
        if timer.stop():  # says whether it was in time
            break
        eventually(lambda: calls, "the call")
    else:
        raise AssertionError("never in time")
    assert not timer.stop()
    eventually(lambda: gmprt.num_goroutine() == 0, "its goroutine ends")
    sleep(0.1)
    assert calls == []


def test_after_func_reset() -> None:
    ch: Chan[int] = Chan(2)
    timer = after_func(1000, ch.send, 1)
    assert timer.reset(0.005)
    assert ch.recv(timeout=PATIENCE) == 1
    assert not timer.reset(0.005), "once more"
    assert ch.recv(timeout=PATIENCE) == 1
    with pytest.raises(ValueError):
        timer.reset(math.nan)


def test_one_after_func_begins_the_next() -> None:
    """Go's TestAfterFunc."""
    done: Chan[int] = Chan()
    left = 10

    def call() -> None:
        nonlocal left
        left -= 1
        if left:
            after_func(0, call)
        else:
            done.send(1)

    after_func(0, call)
    assert done.recv(timeout=PATIENCE) == 1


def test_many_after_funcs_stopped(procs: int) -> None:
    """Go's TestTimerStopStress."""

    def body() -> bool:
        call = after_func(3600, pytest.fail, "it was not stopped")
        sleep(0.001)
        return call.stop()

    assert all(g.result(PATIENCE) for g in [gmprt.go(body) for _ in range(100)])


def test_after_func_beside_two_who_never_rest() -> None:
    """Go's TestAfterFuncStarvation: on one processor, one of the two can always run."""
    gmprt.gomaxprocs(1)
    ch: Chan[bool] = Chan(1)
    stop = False

    def send() -> None:
        with ch:
            while not stop:
                ch.send(True)

    def end() -> None:
        nonlocal stop
        stop = True

    both = [gmprt.go(send), gmprt.go(lambda: [None for _ in ch])]
    after_func(1e-6, end)
    for g in both:
        g.result(PATIENCE)


def test_after_func_reports_its_failure() -> None:
    reported: Chan[gmprt.ExceptHookArgs] = Chan(1)
    gmprt.excepthook = reported.send

    def fail() -> None:
        raise LookupError("late")

    after_func(0.001, fail)
    args = reported.recv(timeout=PATIENCE)
    assert args.exc_type is LookupError


def test_after_func_of_garbage() -> None:
    before = gmprt.num_goroutine()
    for fn in (None, 1, "f"):
        with pytest.raises(TypeError):
            after_func(0, fn)  # type: ignore[arg-type]
    assert gmprt.num_goroutine() == before


def test_timers_while_others_work(procs: int) -> None:
    """A timer is not forgotten while goroutines keep every processor busy."""
    stop = False

    def spin() -> None:
        while not stop:
            gmprt.gosched()

    spinners = [gmprt.go(spin) for _ in range(10)]
    try:
        g = gmprt.go(lambda: [after(0.005).recv() for _ in range(10)])
        assert len(g.result(PATIENCE)) == 10
        t = gmprt.go(lambda: [sleep(0.005) for _ in range(10)])
        assert len(t.result(PATIENCE)) == 10
        waits = gmprt.go(lambda: [Chan[int]().recv_ok(timeout=0.005)])
        assert isinstance(waits.exception(PATIENCE), Timeout)
    finally:
        stop = True
        for s in spinners:
            s.join(PATIENCE)


def test_waiting_on_a_channel_ends_in_time_while_it_is_used(procs: int) -> None:
    """A timeout and a value race: exactly one of them counts."""
    ch: Chan[int] = Chan()
    received = sent = 0
    for _ in range(300):
        g = gmprt.go(ch.recv, timeout=0.0003)
        try:
            ch.send(1, timeout=0.0003)
            sent += 1
        except Timeout:
            pass
        received += g.exception(PATIENCE) is None
        waiting(ch)
    assert received == sent
