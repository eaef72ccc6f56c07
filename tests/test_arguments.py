"""Wrong arguments, of all public functions: an error that names the function and the argument.

A wrong type is a TypeError, a wrong value a ValueError, however large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from support import ended

import gmprt
from gmprt import Chan, Mutex, Select, Semaphore, Ticker, Timer, WaitGroup, debug, go, native

HUGE = 10**400


class Index:
    """An integer that yields before it is one, as any Python code may."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __index__(self) -> int:
        gmprt.gosched()
        gmprt.sleep(0.0001)
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value  # type: ignore[no-any-return]


class Float:
    """The same for a float."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __float__(self) -> float:
        gmprt.gosched()
        gmprt.sleep(0.0001)
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value  # type: ignore[no-any-return]


class Number(int):
    pass


class Seconds(float):
    pass


def message(fn: str, argument: str, rest: str = "") -> str:
    return rf"^{fn}\(\): {argument} must {rest}"


# ---- integers ----------------------------------------------------------------------------------

INTEGERS: dict[tuple[str, str], tuple[Callable[[Any], object], Any, list[Any]]] = {
    # function, argument: (call, what is right, what is out of range)
    ("Chan", "capacity"): (Chan, 3, [-1, 2**62, 2**63, -(2**64)]),
    ("Semaphore", "value"): (Semaphore, 3, [-1, 2**32, 2**63]),
    ("release", "n"): (lambda n: Semaphore(0).release(n), 3, [-1, 0, 2**32, 2**63]),
    ("add", "n"): (lambda n: WaitGroup().add(n), 3, [2**63, -(2**63), -(2**64)]),
    ("gomaxprocs", "n"): (gmprt.gomaxprocs, None, [0, -1, 257, 2**31, 2**32 + 1, 2**64 + 1]),
    ("set_max_threads", "n"): (gmprt.set_max_threads, 10000, [0, 1, -1, 10001, 2**32 + 5, 2**64]),
    ("set_max_stack", "nbytes"): (gmprt.set_max_stack, None, [0, -1, 2**30 + 1, 2**64 + 2**20]),
    ("chan", "capacity"): (lambda n: native.chan("int", n), 3, [-1, 2**62, 2**64]),
}


@pytest.mark.parametrize(("fn", "argument"), INTEGERS)
def test_integers(where: Callable[[Callable[[], Any]], Any], fn: str, argument: str) -> None:
    call, right, out_of_range = INTEGERS[fn, argument]

    def body() -> None:
        for wrong in ("1", 1.5, math.nan, {1}, 1j, object(), Float(1.0)):
            named = type(wrong).__name__
            with pytest.raises(
                TypeError, match=message(fn, argument, f"be an integer, not {named}$")
            ):
                call(wrong)
        for wrong in [*out_of_range, HUGE, -HUGE]:
            for as_what in (int, Number, Index):
                with pytest.raises(ValueError, match=message(fn, argument, "be between")):
                    call(as_what(wrong))
        for error in (ZeroDivisionError("own"), OverflowError("own"), TypeError("own")):
            with pytest.raises(type(error), match=r"^own$"):
                call(Index(error))
        with pytest.raises(
            TypeError, match=r"__index__(\(\))? (returned non-int|must return an int)"
        ):
            call(Index("x"))
        if right is not None:
            for as_what in (int, Number, Index):
                call(as_what(right))

    where(body)


def test_what_would_overflow() -> None:
    full = Semaphore(2**32 - 1)
    with pytest.raises(ValueError, match=r"^release\(\): the semaphore's value must stay below"):
        full.release()
    assert full.value == 2**32 - 1
    group = WaitGroup()
    group.add(2**63 - 1)
    with pytest.raises(ValueError, match=r"^add\(\): the counter would overflow$"):
        group.add(1)
    group.add(-(2**63) + 1)
    with pytest.raises(ValueError, match="negative"):
        group.done()


# ---- seconds -----------------------------------------------------------------------------------


def timeouts() -> dict[str, Callable[[Any], object]]:
    """By function: what returns at once if the timeout is right."""
    done = go(int)
    ended(done)
    sent = native.chan("int", 100)
    full, group = Chan[int](100), WaitGroup()

    def one() -> Chan[int]:
        full.send_nowait(1)
        return full

    return {
        "join": lambda t: done.join(timeout=t),
        "result": lambda t: done.result(timeout=t),
        "exception": lambda t: done.exception(timeout=t),
        "lock": lambda t: Mutex().lock(timeout=t),
        "acquire": lambda t: Semaphore(1).acquire(timeout=t),
        "wait": lambda t: group.wait(timeout=t),
        "send": lambda t: full.send(1, timeout=t),
        "recv": lambda t: full.recv(timeout=t),
        "recv_ok": lambda t: one().recv_ok(timeout=t),
        "select": lambda t: gmprt.select(one(), timeout=t),
        "select ": lambda t: Select(one())(timeout=t),
        "send  ": lambda t: sent.send(1, timeout=t),
        "recv  ": lambda t: sent.recv(timeout=t),
    }


def test_timeouts(where: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        for name, call in timeouts().items():
            fn = name.strip()
            for wrong in ("1", {1}, 1j, object()):
                named = type(wrong).__name__
                expected = f"be a number of seconds or None, not {named}$"
                with pytest.raises(TypeError, match=message(fn, "timeout", expected)):
                    call(wrong)
            for wrong in (-1, -0.5, -math.inf, -HUGE, Index(-1), Index(-HUGE), Float(-1.0)):
                with pytest.raises(ValueError, match=message(fn, "timeout", "not be negative$")):
                    call(wrong)
            for wrong in (math.nan, Float(math.nan), Decimal("nan")):
                with pytest.raises(ValueError, match=message(fn, "timeout", "not be NaN$")):
                    call(wrong)
            for error in (ZeroDivisionError("own"), OverflowError("own"), TypeError("own")):
                for wrong in (Index(error), Float(error)):
                    with pytest.raises(type(error), match=r"^own$"):
                        call(wrong)
            with pytest.raises(
                TypeError, match=r"__float__(\(\))? (returned non-float|must return a float)"
            ):
                call(Float("x"))
            for right in (
                *(None, 1, 0.5, math.inf, 1e300, HUGE, Number(1), Seconds(1)),
                *(Index(1), Index(HUGE), Float(1.0), Decimal(1), Fraction(1, 2)),
            ):
                call(right)

    where(body)


def test_seconds(where: Callable[[Callable[[], Any]], Any]) -> None:
    timer, ticker = Timer(1e6), Ticker(1e6)
    calls = [gmprt.after_func(1e6, int)]

    def after_func(s: Any) -> object:
        call = gmprt.after_func(s, int)
        assert call.stop()
        return call

    functions: dict[str, Callable[[Any], object]] = {
        "after": gmprt.after,
        "Timer": Timer,
        "reset": timer.reset,
        "tick": gmprt.tick,
        "Ticker": Ticker,
        "reset ": ticker.reset,
        "after_func": after_func,
        "reset  ": lambda s: calls[0].reset(s),
        "sleep": gmprt.sleep,
    }

    def body() -> None:
        for name, call in functions.items():
            fn = name.strip()
            for wrong in ("1", None, {1}, 1j, object()):
                named = type(wrong).__name__
                expected = f"be a number of seconds, not {named}$"
                with pytest.raises(TypeError, match=message(fn, "seconds", expected)):
                    call(wrong)
            for wrong in (math.nan, Float(math.nan), Decimal("nan")):
                with pytest.raises(ValueError, match=message(fn, "seconds", "not be NaN$")):
                    call(wrong)
            for wrong in (Index(ZeroDivisionError("own")), Float(ZeroDivisionError("own"))):
                with pytest.raises(ZeroDivisionError, match=r"^own$"):
                    call(wrong)
            if fn != "sleep":
                for right in (1e6, math.inf, HUGE, Number(9), Index(9), Float(9.0), Decimal(9)):
                    call(right)
        for wrong in (-1, -math.inf, -HUGE):
            with pytest.raises(ValueError, match=message("sleep", "seconds", "not be negative$")):
                gmprt.sleep(wrong)
        for fn in ("tick", "Ticker"):
            for wrong in (0, -1, -HUGE):
                with pytest.raises(ValueError, match=message(fn, "seconds", "be positive")):
                    functions[fn](wrong)

    where(body)
    assert timer.stop()
    ticker.stop()
    assert calls[0].stop()


# ---- what is called, and the rest --------------------------------------------------------------


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


def test_callables() -> None:
    calls: dict[tuple[str, str], Callable[[Any], object]] = {
        ("go", "fn"): go,
        ("run", "main"): gmprt.run,
        ("after_func", "fn"): lambda fn: gmprt.after_func(0, fn),
        ("do", "fn"): gmprt.Once().do,
        ("once_value", "fn"): gmprt.once_value,
        ("add_done_callback", "fn"): go(int).add_done_callback,
    }
    before = gmprt.num_goroutine()
    for (fn, argument), call in calls.items():
        wrong: Any
        for wrong in (1, None, "print", {1}, Unprintable()):
            named = type(wrong).__name__
            with pytest.raises(
                TypeError, match=message(fn, argument, f"be callable, not {named}$")
            ):
                call(wrong)
    with pytest.raises(TypeError, match=message("go", "fn", "be callable, not int$")):
        WaitGroup().go(1)  # type: ignore[arg-type]
    assert gmprt.num_goroutine() <= before


def test_the_rest() -> None:
    ch = Chan[int]()
    wrongs: list[tuple[str, Callable[[], object]]] = [
        (message("Chan", "name", "be a str or None, not int$"), lambda: Chan(name=1)),  # type: ignore[arg-type]
        (message("dump", "file", "be a text file or None, not int$"), lambda: debug.dump(1)),  # type: ignore[arg-type]
        (r"^go\(\) needs fn", lambda: go()),  # type: ignore[call-arg]
        (r"^name must be a str$", lambda: setattr(gmprt.go(int), "name", 1)),
        ("select.* takes channels", lambda: gmprt.select(1)),  # type: ignore[call-overload]
        ("select.* takes channels", lambda: Select(1)),  # type: ignore[call-overload]
        ("a channel that can send", lambda: gmprt.Send(ch.receiver, 1)),  # type: ignore[arg-type]
        ("a channel that can receive", lambda: gmprt.Recv(ch.sender)),  # type: ignore[arg-type]
        (message("go", "cfunc", "be a cffi function pointer"), lambda: native.go(int)),
        (message("chan", "ctype", "be a C type"), lambda: native.chan(1)),
        (message("chan", "ctype", "be a C type, not 'no type'"), lambda: native.chan("no type")),
    ]
    for text, call in wrongs:
        with pytest.raises(TypeError, match=text):
            call()
    with pytest.raises(ValueError, match=message("chan", "ctype", "have 1 to 65535 bytes")):
        native.chan("char[65536]")
    no_function = native.ffi.cast("void (*)(void *)", 0)
    with pytest.raises(ValueError, match=message("go", "cfunc", "not be NULL")):
        native.go(no_function)


def test_dump_to_what_only_writes() -> None:
    """As print() does."""

    class Writes:
        text = ""

        def write(self, s: str) -> None:
            self.text += s

    out = Writes()
    ended(go(debug.dump, out))  # type: ignore[arg-type]
    assert out.text.startswith("goroutine ")
