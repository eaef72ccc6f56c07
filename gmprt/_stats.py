"""stats(): the runtime's own counters, for metrics and for curiosity."""

from __future__ import annotations

from gmprt import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gmprt._records import Stats


def stats() -> Stats:
    """The runtime's counters now, all zero before it has started.  Blocks nothing."""
    from gmprt._records import Stats

    values = _core.stats()
    return Stats(**{name: values[name] for name in Stats.__match_args__})
