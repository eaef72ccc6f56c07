"""Channel types for annotations; `Chan` itself is a C type.

A function that only sends should ask for a `SendChan[T]`, one that only receives for a
`RecvChan[T]`: Go's `chan<- T` and `<-chan T`.  A `Chan[T]` is both; its `.sender` and `.receiver`
are objects that can do only the one thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)


class SendChan(Protocol[_T_contra]):
    """The sending side of a channel."""

    def send(self, value: _T_contra, /, *, timeout: float | None = None) -> None:
        """Send, waiting for a receiver or room in the buffer.  ChannelClosed, Timeout."""
        ...

    def send_nowait(self, value: _T_contra, /) -> None:
        """Send, or raise WouldBlock.  ChannelClosed."""
        ...

    async def asend(self, value: _T_contra, /) -> None:
        """Send in an asyncio task.  The CancelledError of a cancelled one says `.sent`: 0 or 1."""
        ...

    def send_many(self, values: Iterable[_T_contra], /, *, timeout: float | None = None) -> int:
        """Send all, in order, waiting for room; returns how many.  An error has `.sent`."""
        ...

    def close(self) -> None:
        """Wake all waiters; what is buffered is still delivered.  ChannelClosed if closed."""
        ...

    @property
    def capacity(self) -> int:
        """Size of the buffer."""
        ...

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        ...

    def __len__(self) -> int: ...


class RecvChan(Protocol[_T_co]):
    """The receiving side of a channel."""

    def recv(self, *, timeout: float | None = None) -> _T_co:
        """Receive, waiting for a value.  EndOfChannel when closed and drained, Timeout."""
        ...

    def recv_ok(
        self, *, timeout: float | None = None
    ) -> tuple[_T_co, Literal[True]] | tuple[None, Literal[False]]:
        """Receive as Go's `v, ok := <-ch`: (None, False) when closed and drained.  Timeout."""
        ...

    def recv_nowait(self) -> _T_co:
        """Receive, or raise WouldBlock.  EndOfChannel."""
        ...

    async def arecv(self) -> _T_co:
        """Receive in an asyncio task.  Cancelled, it has received nothing."""
        ...

    def recv_many(self, max: int, /, *, timeout: float | None = None) -> Sequence[_T_co]:
        """Wait for a value, then take what is there, up to max.  EndOfChannel, Timeout.

        A list, which no protocol may say: one of cats is none of animals.
        """
        ...

    @property
    def capacity(self) -> int:
        """Size of the buffer."""
        ...

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_T_co]:
        """Receive until closed and drained."""
        ...


# Reprs and pickles name the public place, gmprt.SendChan, not this file.
for _class in (SendChan, RecvChan):
    _class.__module__ = "gmprt"
del _class
