"""Timers and tickers: Go's time package, with the rules of Go 1.23.

Each timer delivers on a channel, so that it can stand in a select() beside others.  The value
received is the time.time() at which the timer fired.  After stop() or reset() has returned, no
value of an earlier setting can be received.  Timers that nobody refers to any more are collected,
stopped or not.

All seconds are floats.  Zero and less fire at once, infinity never; NaN is a ValueError.
"""

from __future__ import annotations

from gmprt import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec

    from gmprt._api.chan import RecvChan

    _P = ParamSpec("_P")

# Go's longest Duration, in seconds (292 years): what "never" is to a clock of int64 nanoseconds.
_FOREVER = 9223372036.0


def _delay(function: str, seconds: float) -> float:
    """Checked seconds from now."""
    return min(max(_core.seconds(function, seconds), 0.0), _FOREVER)


def _period(function: str, seconds: float) -> float:
    """Checked seconds between two ticks."""
    period = _delay(function, seconds)
    if period == 0.0:
        raise ValueError(f"{function}(): seconds must be positive: the interval of a ticker")
    return max(period, 1e-9)  # the clock's unit: less would count as no period at all


def after(seconds: float, /) -> RecvChan[float]:
    """A channel on which one value arrives after `seconds`: Go's time.After."""
    return _core.timer_chan(_delay("after", seconds)).receiver


def tick(seconds: float, /) -> RecvChan[float]:
    """A channel on which a value arrives every `seconds`: Go's time.Tick.

    ValueError for zero and less.
    """
    return Ticker(_period("tick", seconds)).c


class Timer:
    """Fires once, on the channel `c`, after `seconds`."""

    __slots__ = ("__weakref__", "_chan", "c")

    c: RecvChan[float]
    """On which the time.time() of its firing arrives."""

    def __init__(self, seconds: float) -> None:
        self._chan = _core.timer_chan(_delay("Timer", seconds))
        self.c = self._chan.receiver

    def stop(self) -> bool:
        """Prevent the timer from firing: True if this did.

        False if its value has been received, or it was stopped before.
        """
        return _core.timer_stop(self._chan)

    def reset(self, seconds: float) -> bool:
        """Set it again to `seconds` from now.  Returns what stop() would have."""
        return _core.timer_reset(self._chan, _delay("reset", seconds))


class Ticker:
    """Fires every `seconds` on the channel `c`, which holds one value: a slow receiver misses
    ticks, as in Go.

    ValueError for an interval of zero and less.
    """

    __slots__ = ("__weakref__", "_chan", "c")

    c: RecvChan[float]
    """On which the time.time() of each tick arrives."""

    def __init__(self, seconds: float) -> None:
        period = _period("Ticker", seconds)
        self._chan = _core.timer_chan(period, period)
        self.c = self._chan.receiver

    def stop(self) -> None:
        """No more ticks.  It does not close the channel: a receiver would take that for a tick."""
        _core.timer_stop(self._chan)

    def reset(self, seconds: float) -> None:
        """Tick every `seconds` from now on, also after stop()."""
        period = _period("reset", seconds)
        _core.timer_reset(self._chan, period, period)


class AfterFunc:
    """What after_func() returns: a call that is to come."""

    __slots__ = ("__weakref__", "_call", "_chan")

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._call = call
        self._chan = self._arm(_delay("after_func", seconds))

    def _arm(self, delay: float) -> _core.Chan[float]:
        chan = _core.timer_chan(delay)
        # A goroutine that waits for the time and then is the one that runs the call.  It gets no
        # reference to this object, and nobody keeps its handle: a failure is reported at once.
        _core.go(_call_at, chan, self._call)
        return chan

    def stop(self) -> bool:
        """Prevent the call: True if this did.

        False if it has begun, which stop() does not wait for, or was stopped before.
        """
        if not _core.timer_stop(self._chan):
            return False
        self._chan.close()  # ends the goroutine, which nothing else can wake now
        return True

    def reset(self, seconds: float) -> bool:
        """Call `seconds` from now: once more if it has begun already.

        Returns what stop() would have.
        """
        delay = _delay("reset", seconds)  # a wrong value must not stop the old call
        stopped = self.stop()
        self._chan = self._arm(delay)
        return stopped


# Reprs and pickles name the public place, gmprt.Timer, not this file.
for _class in (Timer, Ticker, AfterFunc):
    _class.__module__ = "gmprt"
del _class


def _call_at(chan: _core.Chan[float], call: Callable[[], object]) -> None:
    _, ok = chan.recv_ok()
    if ok:
        call()


def after_func(
    seconds: float, fn: Callable[_P, Any], /, *args: _P.args, **kwargs: _P.kwargs
) -> AfterFunc:
    """Run fn(*args, **kwargs) in a goroutine of its own after `seconds`: Go's time.AfterFunc.

    The goroutine exists from now on and waits: it counts in num_goroutine(), copies the caller's
    context, and run() cancels it when its main goroutine ends.  An exception of fn goes to
    gmprt.excepthook.  TypeError if fn cannot be called.
    """
    if not callable(fn):
        raise TypeError(f"after_func(): fn must be callable, not {type(fn).__name__}")

    return AfterFunc(seconds, lambda: fn(*args, **kwargs))
