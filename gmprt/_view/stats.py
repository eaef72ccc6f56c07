"""Counters of the runtime and of a channel, for metrics and for curiosity."""

from __future__ import annotations

from gmprt import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gmprt._view.records import ChanStatistics, Stats


def stats() -> Stats:
    """The runtime's counters now, all zero before it has started.  Blocks nothing."""
    from gmprt._view.records import Stats

    values = _core.stats()
    return Stats(**{name: values[name] for name in Stats.__match_args__})


def chan_statistics(ch: _core.Chan[Any], /) -> ChanStatistics:
    """Chan.statistics() calls this."""
    from gmprt._view.records import ChanStatistics

    senders, receivers = ch.waiting()
    return ChanStatistics(len(ch), ch.capacity, ch.closed, senders, receivers)
