"""Contexts: Go's context package.

A context carries a deadline, a signal to stop and values through a call and all that it calls, in
goroutines and ordinary threads alike:

    from gmprt import context

    def fetch(ctx, url):
        with ctx.scope():              # waits in here end when ctx does
            ...

    with context.with_timeout(2.0) as ctx:
        go(fetch, ctx, "a")
        select(answers, ctx.done())    # or look at ctx.err()

A context is done when it is cancelled, when its deadline has passed, or when its parent is done.
All below it are done before cancel() returns, and the first reason counts.  As a `with` block it is
cancelled at the end.  One that is not cancelled is held by its parent until that is done.

As in Go a context is handed on as an argument.  There is no current one: who called whom does not
say whose cancel one wants, and a goroutine would inherit what its starter only borrowed.
"""

from __future__ import annotations

from gmprt import _core
from gmprt._core import CancelContext, Chan, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec

    from gmprt._api.chan import RecvChan

    _P = ParamSpec("_P")

__all__ = [
    "CancelContext",
    "Context",
    "after_func",
    "background",
    "cause",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]


def background() -> Context:
    """The root: never done, without values, without a deadline.  Always the same object."""
    return _core.context_background()


def with_cancel(parent: Context | None = None) -> CancelContext:
    """A context that is done when its cancel() is called, or when `parent` is.

    None is background().  Go's WithCancel.
    """
    return _core.context_cancel("with_cancel", parent, None, True)


def with_cancel_cause(parent: Context | None = None) -> CancelContext:
    """The same; who calls cancel(cause) says why, and cause(ctx) tells.  Go's WithCancelCause."""
    return _core.context_cancel("with_cancel_cause", parent, None, True)


def with_timeout(seconds: float, parent: Context | None = None) -> CancelContext:
    """A context that is done after `seconds` at the latest.  Go's WithTimeout.

    Zero and less: it is done now.  ValueError for NaN.
    """
    return _core.context_cancel("with_timeout", parent, seconds, True)


def with_deadline(deadline: float, parent: Context | None = None) -> CancelContext:
    """A context that is done when time.monotonic() is `deadline`, at the latest.

    The parent's deadline counts if it is earlier.  Go's WithDeadline.  ValueError for NaN.
    """
    return _core.context_cancel("with_deadline", parent, deadline, False)


def with_value(key: object, value: object, parent: Context | None = None) -> Context:
    """A context in which value(key) is `value`; else it is as its parent.  Go's WithValue.

    Keys are compared with ==; a class or an object of your own cannot meet another's.  TypeError
    for None and for what has no hash.
    """
    return _core.context_value(key, value, parent)


def without_cancel(parent: Context) -> Context:
    """A context with the values of `parent` that is never done.  Go's WithoutCancel."""
    return _core.context_without_cancel(parent)


def cause(ctx: Context) -> BaseException | None:
    """Why `ctx` is done: what was given to cancel(), else err(); None while it is not.

    Go's Cause.
    """
    return _core.context_cause(ctx)


def after_func(
    ctx: Context, fn: Callable[_P, Any], /, *args: _P.args, **kwargs: _P.kwargs
) -> Callable[[], bool]:
    """Run fn(*args, **kwargs) in a goroutine of its own when `ctx` is done: Go's AfterFunc.

    Returns a function `stop` that prevents the call: True if it did, False if ctx is done, or it
    was stopped before; it does not wait for fn.  The goroutine exists from now on and waits, as
    that of gmprt.after_func() does.  TypeError if ctx is no context or fn cannot be called.
    """
    if not isinstance(ctx, _core.Context):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"after_func(): ctx must be a context, not {type(ctx).__name__}")
    if not callable(fn):
        raise TypeError(f"after_func(): fn must be callable, not {type(fn).__name__}")
    claim = [None]  # whoever takes it decides: list.pop() is one step
    stopped = Chan[None]()
    _core.go(_call_when_done, ctx.done(), stopped, claim, lambda: fn(*args, **kwargs))

    def stop() -> bool:
        if ctx.err() is not None or not _take(claim):
            return False
        stopped.close()
        return True

    return stop


def _take(claim: list[None]) -> bool:
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _call_when_done(
    done: RecvChan[Any], stopped: Chan[None], claim: list[None], call: Callable[[], object]
) -> None:
    if _core.select(done, stopped).index == 0 and _take(claim):
        call()
