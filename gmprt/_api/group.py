"""What a group raises at its end, and map_(); Group and gather() are C."""

from __future__ import annotations

from gmprt import _core
from gmprt._api.errors import GoroutineCancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, TypeVar

    _T = TypeVar("_T")
    _R = TypeVar("_R")


def settle(
    body: BaseException | None,
    other: BaseException | None,
    failed: list[_core.Goroutine[Any]] | None,
    cancels: list[BaseException] | None,
) -> BaseException | None:
    """The exception with which a group ends; None: it has no cause of its own.  The C half asks.

    `body` has left the block, `other` the wait for the members; neither is Cancelled.  Causes are
    these and the failures of members, but not what only tells of another cause: the
    GoroutineCancelled of who asked for the result of a member that had been cancelled, and the
    GeneratorExit of a body that is to yield no more.  KeyboardInterrupt and SystemExit go first,
    for they are meant for the program and not for who waits for the group.
    """
    failures = [_failure(g) for g in failed or ()]
    told = [body, other, *failures]
    found = [e for i, e in enumerate(told) if e is not None and e not in told[:i]]
    closing = body if isinstance(body, GeneratorExit) and body not in failures else None
    causes = [e for e in found if e is not closing and not _is_consequence(e, cancels or [])]
    if not causes:
        return body or other
    first = next((e for e in causes if isinstance(e, (KeyboardInterrupt, SystemExit))), None)
    if first is not None and len(causes) > 1:
        rest = [e for e in causes if e is not first]
        first.__cause__ = rest[0] if len(rest) == 1 else _grouped(rest)
    return first or (causes[0] if len(causes) == 1 else _grouped(causes))


def _failure(g: _core.Goroutine[Any]) -> BaseException | None:
    from gmprt._view.goroutine import creation, given_name, place  # above this; the package has it

    error = g.exception(timeout=0)
    if error is not None:
        name = given_name(g)
        creator = creation(g)
        created = f", created by {place(*creator)}" if creator else ""
        error.add_note(f"goroutine {g.id}{f' ({name})' if name else ''}{created}")
    return error


def _is_consequence(error: BaseException, cancels: list[BaseException]) -> bool:
    cause = error.__cause__ if isinstance(error, GoroutineCancelled) else None
    return any(cause is c for c in cancels)


def _grouped(errors: list[BaseException]) -> BaseException:
    return BaseExceptionGroup(f"{len(errors)} failures in a group", errors)


def map_(fn: Callable[[_T], _R], iterable: Iterable[_T], *, limit: int = 16) -> Generator[_R]:
    """An iterator over fn(item) for each item, in their order, each in a goroutine of its own.

    It is lazy: it begins when the first result is asked for, and takes no more than `limit` items
    ahead of those whose results have been asked for.  Another goroutine iterates, so a slow source
    keeps no result back.  Whoever asks blocks until the result is there.  A failure of fn or of the
    iterable cancels the others, and is raised when all have ended; so does leaving: a `break`, and
    close() of the iterator.  TypeError if fn cannot be called; ValueError for a limit below 1.
    """
    if not callable(fn):
        raise TypeError(f"map_(): fn must be callable, not {type(fn).__name__}")
    return _map(fn, iter(iterable), _core.crew("map_", limit), limit)


def _map(
    fn: Callable[[_T], _R], items: Iterator[_T], crew: _core.Group, limit: int
) -> Generator[_R]:
    members: _core.Chan[_core.Goroutine[_R]] = _core.Chan(limit)
    ahead = _core.Semaphore(limit)
    with crew:
        crew.go(_feed, fn, items, crew, ahead, members)
        for member in members:
            result = member.result()
            ahead.release()
            yield result


def _feed(
    fn: Callable[[_T], _R],
    items: Iterator[_T],
    crew: _core.Group,
    ahead: _core.Semaphore,
    members: _core.Chan[_core.Goroutine[_R]],
) -> None:
    with members:
        ahead.acquire()
        for item in items:
            members.send(crew.go(fn, item))
            ahead.acquire()
