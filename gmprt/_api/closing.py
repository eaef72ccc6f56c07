"""cancel_closes(): what a cancel has left in the middle is not used again."""

from __future__ import annotations

from gmprt import _core

TYPE_CHECKING = False
if not TYPE_CHECKING:
    _T = None

    class Generic:  # importing typing takes longer than importing gmprt
        """What can be subscripted."""

        __slots__ = ()

        def __class_getitem__(cls, item: object) -> object:
            return cls


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Generic, TypeVar

    _T = TypeVar("_T")


class CancelCloses(Generic[_T]):
    """What cancel_closes() returns."""

    __slots__ = ("_before", "_close", "_target")

    def __init__(self, target: _T, close: Callable[[], object]) -> None:
        self._target = target
        self._close = close
        self._before = 0

    def __enter__(self) -> _T:
        self._before = _core.cancels()
        return self._target

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None:
        # Somebody in between may have swallowed the cancel, or made another exception of it.
        cancelled = _core.cancels() != self._before
        if not cancelled and (exc is None or isinstance(exc, Exception)):
            return
        with _core.shield():
            try:
                self._close()
            except Exception as error:
                if exc is None:
                    raise
                exc.add_note(f"closing {self._target!r} failed: {error!r}")  # it must go on


# Reprs and pickles name the public place, not this file.
CancelCloses.__module__ = "gmprt"


def cancel_closes(target: _T, close: Callable[[], object] | None = None, /) -> CancelCloses[_T]:
    """A block that closes `target` at its end if a cancel has been raised inside of it.

    For connections that are used again: what was cancelled between a request and its reply must not
    be handed to the next one, who would read that reply.  `close` is called, else target.close();
    shielded, so a cancel does not end it.  An exception of it becomes a note of what is under way.

    A cancel that waits for the end of the block, because C code in it could not be left, closes
    nothing.  KeyboardInterrupt, SystemExit and the like close, too.  `as` gives the target.
    TypeError if there is nothing to call.  In an ordinary thread only those come.
    """
    call = getattr(target, "close", None) if close is None else close
    if not callable(call):
        what = f"close must be callable, not {type(close).__name__}"
        without = f"target must have close(), not {type(target).__name__}"
        raise TypeError(f"cancel_closes(): {without if close is None else what}")
    return CancelCloses(target, call)
