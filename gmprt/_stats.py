"""stats(): the runtime's own counters, for metrics and for curiosity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gmprt import _core

if TYPE_CHECKING:
    from gmprt._records import Stats


def stats() -> Stats:
    """The runtime's counters now, all zero before it has started.  Blocks nothing."""
    from gmprt._records import Stats

    values = _core.stats()
    return Stats(**{name: values[name] for name in Stats.__match_args__})
