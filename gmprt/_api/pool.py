"""Pool: objects that are used again.

What nobody has asked for during two full collections of garbage is dropped: at each, what is there
becomes the victim, and what was the victim goes.  So a pool costs memory for as long as it is used
(Go's victim cache).  The list of all pools is looked at by one gc callback, which importing this
module registers: `gmprt` does that when the name is first asked for.

append() and pop() of a list are one step each; no lock is needed.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Pool(Generic[_T]):
    """Objects that are expensive to make and may be used again: Go's sync.Pool.

    Any of them may be dropped at any full collection of garbage, so nothing that must be closed
    belongs here.  Nothing blocks, unless `new` does.  TypeError if `new` cannot be called.
    """

    __slots__ = ("__weakref__", "_items", "_victims", "new")

    new: Callable[[], _T]
    """Makes one when there is none; may be assigned."""

    def __init__(self, new: Callable[[], _T]) -> None:
        if not callable(new):
            raise TypeError(f"Pool(): new must be callable, not {type(new).__name__}")
        self.new = new
        self._items: list[_T] = []
        self._victims: list[_T] = []
        me = id(self)
        _alive[me] = weakref.WeakMethod(self._age, lambda _: _alive.pop(me, None))

    def get(self) -> _T:
        """One that was put back, the last first, or new()."""
        for items in (self._items, self._victims):
            try:
                return items.pop()
            except IndexError:
                pass
        return self.new()

    def put(self, item: _T, /) -> None:
        """Keep it for the next get().  Who puts it must not use it any more."""
        self._items.append(item)

    def _age(self) -> None:
        # Who has read one of the lists meanwhile finds it in its new place, or drops what he puts.
        self._victims, self._items = self._items, []


_alive: dict[int, weakref.WeakMethod[Callable[[], None]]] = {}


def _collected(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        for ref in list(_alive.values()):
            age = ref()
            if age is not None:
                age()


gc.callbacks.append(_collected)

# Reprs name the public place, gmprt.Pool, not this file.
Pool.__module__ = "gmprt"
