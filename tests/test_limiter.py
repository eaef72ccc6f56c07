"""Limiter: what rate_test.go of golang.org/x/time checks, with its times; waits and cancels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, mixed, parked

import gmprt
from gmprt import Limiter, Reservation, go

D = 0.125  # one step of time, exact in binary; rates are multiples of 1 / D
PER_STEP = 1 / D
INF = math.inf


def t(steps: float) -> float:
    return 1000 + steps * D


def allows(lim: Limiter, *steps: tuple[float, float, int, bool]) -> None:
    """(time, tokens there then, tokens wanted, whether they are given)"""
    for i, (when, tokens, n, ok) in enumerate(steps):
        assert lim.tokens(now=t(when)) == tokens, i
        assert lim.allow(n, now=t(when)) is ok, i


def test_burst_1() -> None:
    allows(
        Limiter(PER_STEP, 1),
        (0, 1, 1, True),
        (0, 0, 1, False),
        (0, 0, 1, False),
        (1, 1, 1, True),
        (1, 0, 1, False),
        (2, 1, 2, False),
        (2, 1, 1, True),
        (2, 0, 1, False),
    )


def test_burst_3() -> None:
    allows(
        Limiter(PER_STEP, 3),
        (0, 3, 2, True),
        (0, 1, 2, False),
        (0, 1, 1, True),
        (0, 0, 1, False),
        (1, 1, 4, False),
        (2, 2, 1, True),
        (3, 2, 1, True),
        (4, 2, 1, True),
        (4, 1, 1, True),
        (4, 0, 1, False),
        (9, 3, 3, True),
        (9, 0, 0, True),
    )


def test_time_jumps_back() -> None:
    allows(
        Limiter(PER_STEP, 3),
        (1, 3, 1, True),
        (0, 2, 1, True),
        (0, 1, 1, True),
        (0, 0, 1, False),
        (1, 1, 1, True),
        (1, 0, 1, False),
        (2, 1, 1, True),
        (2, 0, 1, False),
    )


def test_no_truncation() -> None:
    assert Limiter(0.7692307692307693, 1).allow()


def test_a_rate_of_zero() -> None:
    lim = Limiter(0, 1)
    assert lim.allow()
    assert not lim.allow()
    assert lim.wait(timeout=PATIENCE) is False, "at once"
    lim.set_rate(10000)
    assert lim.wait(timeout=PATIENCE) is True


def test_many_at_once(procs: int) -> None:
    """Go's TestSimultaneousRequests."""
    lim = Limiter(1e-6, 5)
    given = [x.result(PATIENCE) for x in [mixed(i, lim.allow) for i in range(15)]]
    assert sum(given) == 5


def test_long_run() -> None:
    """Go's TestLongRunningQPS: never more than allowed, and hardly less."""
    lim = Limiter(100, 100)
    ok = sum(lim.allow(now=1000 + i * 0.002) for i in range(2500))
    ideal = 100 + 100 * 5
    assert int(0.999 * ideal) <= ok <= ideal + 1


def reserve(lim: Limiter, at: float, n: int, act: float | None) -> Reservation:
    """act: when to act; None: never."""
    r = lim.reserve(n, now=t(at))
    assert r.ok == (act is not None)
    assert r.delay(now=t(at)) == (INF if act is None else max(0, act - at) * D)
    return r


def test_simple_reserve() -> None:
    lim = Limiter(PER_STEP, 2)
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 2, 2)
    reserve(lim, 3, 2, 4)


def test_mix() -> None:
    lim = Limiter(PER_STEP, 2)
    reserve(lim, 0, 3, None)
    reserve(lim, 0, 2, 0)
    allows(lim, (1, 1, 2, False))
    reserve(lim, 1, 2, 2)
    allows(lim, (1, -1, 1, False), (3, 1, 1, True))


def test_cancel() -> None:
    lim = Limiter(PER_STEP, 2)  # TestCancelInvalid
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 3, None).cancel(now=t(0))
    reserve(lim, 0, 2, 2)
    lim = Limiter(PER_STEP, 2)  # TestCancelLast
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 2, 2).cancel(now=t(1))
    reserve(lim, 1, 2, 2)
    lim = Limiter(PER_STEP, 2)  # TestCancelTooLate
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 2, 2).cancel(now=t(3))
    reserve(lim, 3, 2, 4)


def test_cancel_gives_back_what_nobody_counts_on() -> None:
    lim = Limiter(PER_STEP, 2)  # TestCancel0Tokens
    reserve(lim, 0, 2, 0)
    r = reserve(lim, 0, 1, 1)
    reserve(lim, 0, 1, 2)
    r.cancel(now=t(0))
    reserve(lim, 0, 1, 3)
    lim = Limiter(PER_STEP, 2)  # TestCancel1Token
    reserve(lim, 0, 2, 0)
    r = reserve(lim, 0, 2, 2)
    reserve(lim, 0, 1, 3)
    r.cancel(now=t(2))
    reserve(lim, 2, 2, 4)
    lim = Limiter(PER_STEP, 4)  # TestCancelMulti
    reserve(lim, 0, 4, 0)
    a = reserve(lim, 0, 3, 3)
    reserve(lim, 0, 1, 4)
    c = reserve(lim, 0, 1, 5)
    c.cancel(now=t(1))
    a.cancel(now=t(1))
    a.cancel(now=t(1))  # a second time it does nothing
    reserve(lim, 1, 3, 5)


def test_reserve_when_time_jumps_back() -> None:
    lim = Limiter(PER_STEP, 2)  # TestReserveJumpBack
    reserve(lim, 1, 2, 1)
    reserve(lim, 0, 1, 1)
    reserve(lim, 2, 2, 3)
    reserve(lim, 0, 3, None)
    reserve(lim, 2, 1, 4)
    reserve(lim, 2, 1, 5)
    lim = Limiter(PER_STEP, 2)  # TestReserveJumpBackCancel
    reserve(lim, 1, 2, 1)
    r = reserve(lim, 1, 2, 3)
    reserve(lim, 1, 1, 4)
    r.cancel(now=t(0))
    reserve(lim, 1, 2, 4)


def test_set_rate_and_burst() -> None:
    lim = Limiter(PER_STEP / 2, 2)  # TestReserveSetLimit
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 2, 4)
    lim.set_rate(PER_STEP, now=t(2))
    assert lim.rate == PER_STEP
    reserve(lim, 2, 1, 4)
    lim = Limiter(PER_STEP / 2, 2)  # TestReserveSetBurst
    reserve(lim, 0, 2, 0)
    reserve(lim, 0, 2, 4)
    lim.set_burst(4, now=t(3))
    assert lim.burst == 4
    reserve(lim, 0, 4, 9)
    lim = Limiter(PER_STEP / 2, 2)  # TestReserveSetLimitCancel
    reserve(lim, 0, 2, 0)
    r = reserve(lim, 0, 2, 4)
    lim.set_rate(PER_STEP, now=t(2))
    r.cancel(now=t(2))
    reserve(lim, 2, 2, 3)


def test_without_limit() -> None:
    lim = Limiter(INF, 0)
    assert lim.allow(1000)
    assert lim.wait(3, timeout=0)
    assert lim.reserve(5).delay() == 0


def test_wait(where: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        lim = Limiter(200, 3)
        with pytest.raises(ValueError, match=r"^wait\(\): n must be at most 3"):
            lim.wait(4)
        begun = time.monotonic()
        assert lim.wait(3) is True
        assert lim.wait(2) is True
        assert time.monotonic() - begun >= 2 / 200
        slow = Limiter(0.001, 1)
        assert slow.wait(timeout=0) is True
        begun = time.monotonic()
        assert slow.wait(timeout=PATIENCE) is False
        assert slow.wait(timeout=0) is False
        assert time.monotonic() - begun < PATIENCE, "it is told at once"
        assert slow.tokens() >= 0, "and no token was taken"

    where(body)


def test_a_cancelled_wait_gives_the_tokens_back() -> None:
    lim = Limiter(0.001, 4)
    assert lim.allow(2)
    g = go(lim.wait, 3)
    parked(g, "sleep")
    assert lim.tokens() < 0
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    assert lim.tokens() == pytest.approx(2, abs=0.1)
    assert lim.allow(2)


def test_a_storm_of_cancels_loses_nothing() -> None:
    """Waits that are cancelled, last comer first, so that nobody has counted on their tokens."""
    lim = Limiter(0.001, 10)
    assert lim.allow(10)
    waits: list[gmprt.Goroutine[bool]] = []
    for i in range(60):
        waits.append(go(lim.wait, 1 + i % 3))
        parked(waits[-1], "sleep")
    for g in reversed(waits):
        g.cancel()
        assert g.join(PATIENCE)
        assert g.cancelled()
    assert lim.tokens() == pytest.approx(0, abs=0.1)


def test_wrong_arguments() -> None:
    for wrong in ("1", None, [], True, object()):
        with pytest.raises(TypeError):
            Limiter(wrong)  # type: ignore[arg-type]
    for bad in (-1, math.nan, -INF, 10**400):
        with pytest.raises(ValueError, match=r"^Limiter\(\): rate "):
            Limiter(bad)
    lim: Any = Limiter(1)
    for call in (lim.allow, lim.reserve, lim.wait):
        for value, error in ((-1, ValueError), (2**31, ValueError), (1.5, TypeError)):
            with pytest.raises(error, match=r"\(\): n must be"):
                call(value)
        for arguments in ({"m": 1}, {"n": 1, "what": 2}):
            with pytest.raises(TypeError):
                call(**arguments)
        with pytest.raises(TypeError):
            call(1, 2)
    for bad_time, kind in ((math.nan, ValueError), ("1", TypeError), (INF, ValueError)):
        with pytest.raises(kind, match="now"):
            lim.allow(now=bad_time)
        with pytest.raises(kind, match="now"):
            lim.tokens(now=bad_time)
    with pytest.raises(TypeError):
        lim.wait(timeout=True)
    with pytest.raises(ValueError):
        lim.set_burst(-1)
    with pytest.raises(TypeError):
        Reservation()
    assert lim.allow(n=1)
