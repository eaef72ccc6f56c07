"""Types of the C half of gmprt: what must be fast, or must touch the runtime."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import Context as ContextVars
from traceback import StackSummary
from types import CodeType, FrameType, GenericAlias, TracebackType
from typing import (
    Any,
    Generic,
    Literal,
    Never,
    ParamSpec,
    Self,
    TypeAlias,
    final,
    overload,
    type_check_only,
)

from _typeshed import ReadableBuffer, WriteableBuffer
from typing_extensions import TypeVar

from gmprt._api.chan import RecvChan, SendChan
from gmprt._api.errors import ContextCancelled, DeadlineExceeded
from gmprt._view.records import ChanStatistics, CreatedBy

_P = ParamSpec("_P")
_T = TypeVar("_T")
_V = TypeVar("_V", default=Any)  # of a channel: bare Chan() carries anything
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")
_E = TypeVar("_E")
_F = TypeVar("_F")

@final
class Goroutine(Generic[_R_co]):
    """A goroutine's handle, returned by go().

    It may be used from any thread and outlives the goroutine.
    """

    @property
    def id(self) -> int:
        """A number that is never used again."""
    @property
    def name(self) -> str:
        """Its name, which can be set; goroutine-N at first, N the id."""
    @name.setter
    def name(self, value: str) -> None: ...
    @property
    def state(self) -> Literal["runnable", "running", "syscall", "waiting", "dead"]:
        """What it does: in "syscall" it has released the GIL, in "waiting" it is parked."""
    @property
    def wait_reason(self) -> str:
        """Why it waits, in Go's words; empty if it does not."""
    @property
    def since(self) -> float:
        """Seconds since it was last switched in or out, to a few milliseconds."""
    @property
    def cpu_time(self) -> float:
        """Seconds it has run, calls that block an OS thread included.

        Exact from the first question of the process on; until then right on the average.
        """
    @property
    def context(self) -> ContextVars | None:
        """Its contextvars.Context; None if that is empty."""
    @property
    def parent_id(self) -> int:
        """Id of the goroutine that called go(), 0 for an ordinary thread."""
    @property
    def run_id(self) -> int:
        """Number of the run() that it descends from, 0 if none."""
    @property
    def is_thread(self) -> bool:
        """Whether it is a thread to Python: threads()."""
    @property
    def is_main(self) -> bool:
        """Whether it is the main goroutine of a run()."""
    @property
    def ident(self) -> int:
        """threading.get_ident() inside it; 0 if it has not begun, or has ended."""
    @property
    def detached(self) -> bool:
        """Whether detach() was called."""
    @property
    def locked_to_thread(self) -> bool:
        """Whether it is locked to an OS thread."""
    @property
    def reason(self) -> object:
        """What was given to the last cancel(), or None."""
    @property
    def function(self) -> Callable[..., Any] | None:
        """What it runs; None when that has returned."""
    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended.

        False if `timeout` seconds passed first.  Never raises its error, which result() and
        exception() collect.  Deadlock: one joins oneself.
        """
    def result(self, timeout: float | None = None) -> _R_co:
        """Wait, then return its result or raise its exception.

        GoroutineCancelled if it was cancelled; Timeout after `timeout` seconds.
        """
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, then return its exception (GoroutineCancelled if it was cancelled), or None.

        Timeout after `timeout` seconds.
        """
    def cancel(self, reason: object = None) -> bool:
        """Its current or next wait raises Cancelled with that reason, once.

        False: it has ended.
        """
    def detach(self) -> None:
        """run() neither cancels it nor waits for it when its main function ends."""
    def done(self) -> bool:
        """Whether it has ended."""
    def cancelled(self) -> bool:
        """Whether it ended by Cancelled."""
    def frame(self) -> FrameType | None:
        """Its innermost Python frame; None if it has not begun, or has ended."""
    def creation(self) -> tuple[CodeType, int] | None:
        """Code and line of the go() call; None where C code made it."""
    def add_done_callback(self, fn: Callable[[Goroutine[Any]], object], /) -> None:
        """fn(goroutine) runs in the goroutine when it has ended; at once if it has.

        An exception of fn goes to sys.unraisablehook.
        """
    def stack(self) -> StackSummary:
        """Its Python frames, outermost first, also while it is parked."""
    @property
    def created_by(self) -> CreatedBy | None:
        """Where go() was called; None for a main goroutine."""
    async def aresult(self) -> _R_co:
        """In an asyncio task: what result() returns or raises.

        Cancelling the task does not cancel the goroutine.  RuntimeError without a running loop.
        """
    def __await__(self) -> Generator[Any, None, _R_co]:
        """The same as aresult()."""
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class Chan(Generic[_V]):
    """A channel, as in Go: unbuffered, or with room for `capacity` values.

    ValueError if that is negative or beyond all address space, MemoryError if there is no room.
    Waiters are served first come, first served.
    """

    def __new__(cls, capacity: int = 0, *, name: str | None = None) -> Chan[_V]: ...
    def send(self, value: _V, /, *, timeout: float | None = None) -> None:
        """Send; blocks until a receiver takes the value or the buffer has room.

        ChannelClosed, also if it is closed meanwhile; Timeout after `timeout` seconds.
        """
    def recv(self, *, timeout: float | None = None) -> _V:
        """Receive; blocks until there is a value.

        EndOfChannel when closed and drained; Timeout after `timeout` seconds.
        """
    def recv_ok(
        self, *, timeout: float | None = None
    ) -> tuple[_V, Literal[True]] | tuple[None, Literal[False]]:
        """Receive with Go's comma-ok: (value, True), or (None, False) when closed and drained.

        Blocks.  Timeout after `timeout` seconds.
        """
    def send_nowait(self, value: _V, /) -> None:
        """Send without waiting.  WouldBlock if nobody can take it now; ChannelClosed."""
    async def asend(self, value: _V, /) -> None:
        """Send in an asyncio task, waiting as send() does, but not in the loop's way.

        If the task is cancelled its CancelledError has `.sent`: 1 if the value went all the same,
        else 0.  RuntimeError without a running loop.
        """
    def send_many(self, values: Iterable[_V], /, *, timeout: float | None = None) -> int:
        """Send all, in order; blocks whenever there is no room.  Returns how many it sent.

        The iterable is read to its end first.  ChannelClosed, Timeout after `timeout` seconds in
        all, and Cancelled say in `.sent` how many had gone: those are sent, the others are not.
        """
    def recv_nowait(self) -> _V:
        """Receive without waiting.  WouldBlock if there is nothing now; EndOfChannel."""
    async def arecv(self) -> _V:
        """Receive in an asyncio task, waiting as recv() does, but not in the loop's way.

        If the task is cancelled it has received nothing: a value that had come goes back, in front
        of the others.  RuntimeError without a running loop.
        """
    def recv_many(self, max: int, /, *, timeout: float | None = None) -> list[_V]:
        """Block until there is a value, then take what is there, at most `max` values.

        In order, from the buffer and from senders that wait.  EndOfChannel when closed and drained;
        Timeout after `timeout` seconds, with nothing taken.  ValueError if max < 1.
        """
    def close(self) -> None:
        """Wake every waiter; what is buffered is still delivered.

        ChannelClosed if it was closed.
        """
    @property
    def capacity(self) -> int:
        """Size of the buffer."""
    @property
    def closed(self) -> bool:
        """Whether close() was called."""
    @property
    def name(self) -> str | None:
        """The name given, or None."""
    @property
    def sender(self) -> SendView[_V]:
        """The channel, to send and to close only.  Two views of one channel are equal."""
    @property
    def receiver(self) -> RecvView[_V]:
        """The channel, to receive only.  Two views of one channel are equal."""
    def waiting(self) -> tuple[int, int]:
        """Senders and receivers that wait now."""
    def statistics(self) -> ChanStatistics:
        """All of it at one moment."""
    def __len__(self) -> int:
        """Values in the buffer now."""
    def __iter__(self) -> Iterator[_V]:
        """Receive until it is closed and drained.  Each step blocks as recv() does."""
    def __next__(self) -> _V: ...
    def __enter__(self) -> Chan[_V]:
        """`with ch:` closes it at the end, unless it has been closed."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class SendView(Generic[_T_contra]):
    """A channel, to send and to close only: Chan.sender."""

    def send(self, value: _T_contra, /, *, timeout: float | None = None) -> None:
        """Send; blocks until a receiver takes the value or the buffer has room.

        ChannelClosed, also if it is closed meanwhile; Timeout after `timeout` seconds.
        """
    def send_nowait(self, value: _T_contra, /) -> None:
        """Send without waiting.  WouldBlock if nobody can take it now; ChannelClosed."""
    async def asend(self, value: _T_contra, /) -> None:
        """Send in an asyncio task, waiting as send() does, but not in the loop's way.

        If the task is cancelled its CancelledError has `.sent`: 1 if the value went all the same,
        else 0.  RuntimeError without a running loop.
        """
    def send_many(self, values: Iterable[_T_contra], /, *, timeout: float | None = None) -> int:
        """Send all, in order; blocks whenever there is no room.  Returns how many it sent.

        The iterable is read to its end first.  ChannelClosed, Timeout after `timeout` seconds in
        all, and Cancelled say in `.sent` how many had gone: those are sent, the others are not.
        """
    def close(self) -> None:
        """Wake every waiter; what is buffered is still delivered.

        ChannelClosed if it was closed.
        """
    @property
    def capacity(self) -> int:
        """Size of the buffer."""
    @property
    def closed(self) -> bool:
        """Whether close() was called."""
    @property
    def name(self) -> str | None:
        """The name given, or None."""
    def __len__(self) -> int:
        """Values in the buffer now."""
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class RecvView(Generic[_T_co]):
    """A channel, to receive only: Chan.receiver."""

    def recv(self, *, timeout: float | None = None) -> _T_co:
        """Receive; blocks until there is a value.

        EndOfChannel when closed and drained; Timeout after `timeout` seconds.
        """
    def recv_ok(
        self, *, timeout: float | None = None
    ) -> tuple[_T_co, Literal[True]] | tuple[None, Literal[False]]:
        """Receive with Go's comma-ok: (value, True), or (None, False) when closed and drained.

        Blocks.  Timeout after `timeout` seconds.
        """
    def recv_nowait(self) -> _T_co:
        """Receive without waiting.  WouldBlock if there is nothing now; EndOfChannel."""
    async def arecv(self) -> _T_co:
        """Receive in an asyncio task, waiting as recv() does, but not in the loop's way.

        If the task is cancelled it has received nothing: a value that had come goes back, in front
        of the others.  RuntimeError without a running loop.
        """
    def recv_many(self, max: int, /, *, timeout: float | None = None) -> list[_T_co]:
        """Block until there is a value, then take what is there, at most `max` values.

        In order, from the buffer and from senders that wait.  EndOfChannel when closed and drained;
        Timeout after `timeout` seconds, with nothing taken.  ValueError if max < 1.
        """
    @property
    def capacity(self) -> int:
        """Size of the buffer."""
    @property
    def closed(self) -> bool:
        """Whether close() was called."""
    @property
    def name(self) -> str | None:
        """The name given, or None."""
    def __len__(self) -> int:
        """Values in the buffer now."""
    def __iter__(self) -> Iterator[_T_co]:
        """Receive until it is closed and drained.  Each step blocks as recv() does."""
    def __next__(self) -> _T_co: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

# A case of select: a channel or Recv(ch) gives T, Send(ch, v) gives None; None is Go's nil channel.
@type_check_only
class _Gives(Generic[_T_co]): ...

_Case: TypeAlias = RecvChan[_T] | _Gives[_T] | None

@final
class Recv(_Gives[_T_co]):
    """A case of select: receive from ch.  None is never ready."""

    def __new__(cls, ch: RecvChan[_T_co] | None) -> Recv[_T_co]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class Send(_Gives[None]):
    """A case of select: send the value to ch.  None is never ready."""

    def __new__(cls, ch: SendChan[_T] | None, value: _T) -> Send: ...

@final
class Selected(tuple[int, _T_co | None, bool]):
    """What select() returns: a tuple (index, value, ok)."""

    @property
    def index(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> int:
        """Of the case that took effect; -1: none was ready (default=True)."""
    @property
    def value(self) -> _T_co | None:
        """What was received; None after a send, and if not ok."""
    @property
    def ok(self) -> bool:
        """False: the channel is closed and drained, or none was ready."""
    @property
    def channel(self) -> Chan[Any] | None:
        """The channel from which was received, else None."""
    def get(self, ch: RecvChan[_T], /) -> _T:
        """The value received from ch, typed.

        ValueError if another case fired, EndOfChannel if ch was closed.
        """

@overload
def select(*, timeout: None = None, default: Literal[False] = False) -> Never:
    """Go's select: waits until one of the cases can go on, and does that one.

    A case is Recv(ch), Send(ch, value), or a channel alone, which means receive; None in place of a
    channel is never ready. Exactly one case takes effect, a random one among those that are ready.
    With `default` it does not wait: index -1. Timeout after `timeout` seconds; ChannelClosed for a
    send to a closed channel.
    """

@overload
def select(
    a: _Case[_A], /, *, timeout: float | None = None, default: bool = False
) -> Selected[_A]: ...
@overload
def select(
    a: _Case[_A], b: _Case[_B], /, *, timeout: float | None = None, default: bool = False
) -> Selected[_A | _B]: ...
@overload
def select(
    a: _Case[_A],
    b: _Case[_B],
    c: _Case[_C],
    /,
    *,
    timeout: float | None = None,
    default: bool = False,
) -> Selected[_A | _B | _C]: ...
@overload
def select(
    a: _Case[_A],
    b: _Case[_B],
    c: _Case[_C],
    d: _Case[_D],
    /,
    *,
    timeout: float | None = None,
    default: bool = False,
) -> Selected[_A | _B | _C | _D]: ...
@overload
def select(
    a: _Case[_A],
    b: _Case[_B],
    c: _Case[_C],
    d: _Case[_D],
    e: _Case[_E],
    /,
    *,
    timeout: float | None = None,
    default: bool = False,
) -> Selected[_A | _B | _C | _D | _E]: ...
@overload
def select(
    a: _Case[_A],
    b: _Case[_B],
    c: _Case[_C],
    d: _Case[_D],
    e: _Case[_E],
    f: _Case[_F],
    /,
    *,
    timeout: float | None = None,
    default: bool = False,
) -> Selected[_A | _B | _C | _D | _E | _F]: ...
@overload
def select(
    *cases: _Case[_T], timeout: float | None = None, default: bool = False
) -> Selected[_T]: ...
@overload
def select(
    *cases: _Case[Any], timeout: float | None = None, default: bool = False
) -> Selected[Any]: ...

@final
class Select(Generic[_T_co]):
    """A select built once and called many times.  A Send in it sends the same value each time."""

    @overload
    def __new__(cls, a: _Case[_A], /) -> Select[_A]: ...
    @overload
    def __new__(cls, a: _Case[_A], b: _Case[_B], /) -> Select[_A | _B]: ...
    @overload
    def __new__(cls, a: _Case[_A], b: _Case[_B], c: _Case[_C], /) -> Select[_A | _B | _C]: ...
    @overload
    def __new__(
        cls, a: _Case[_A], b: _Case[_B], c: _Case[_C], d: _Case[_D], /
    ) -> Select[_A | _B | _C | _D]: ...
    @overload
    def __new__(
        cls, a: _Case[_A], b: _Case[_B], c: _Case[_C], d: _Case[_D], e: _Case[_E], /
    ) -> Select[_A | _B | _C | _D | _E]: ...
    @overload
    def __new__(
        cls, a: _Case[_A], b: _Case[_B], c: _Case[_C], d: _Case[_D], e: _Case[_E], f: _Case[_F], /
    ) -> Select[_A | _B | _C | _D | _E | _F]: ...
    @overload
    def __new__(cls, *cases: _Case[_T]) -> Select[_T]: ...
    @overload
    def __new__(cls, *cases: _Case[Any]) -> Select[Any]: ...
    def __call__(self, *, timeout: float | None = None, default: bool = False) -> Selected[_T_co]:
        """Do what select() does with these cases.  Blocks, unless `default` is true."""
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class Mutex:
    """Go's sync.Mutex: no owner, not re-entrant; a waiter older than 1 ms is served next."""

    def lock(self, timeout: float | None = None) -> bool:
        """Wait until it is ours.  False if `timeout` seconds passed first."""
    def try_lock(self) -> bool:
        """Lock it if it is free."""
    def unlock(self) -> None:
        """Any goroutine or thread may. RuntimeError if it is not locked."""
    def locked(self) -> bool:
        """Whether somebody holds it now."""
    def __enter__(self) -> Mutex:
        """`with mutex:` calls lock(), which blocks, and unlock() at the end."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@final
class Semaphore:
    """A counting semaphore, first come, first served.

    ValueError for a value below 0 or above 2**32 - 1.
    """

    def __new__(cls, value: int = 1) -> Semaphore: ...
    def acquire(self, *, timeout: float | None = None) -> bool:
        """Take one unit, waiting for it.  False if `timeout` seconds passed first."""
    def try_acquire(self) -> bool:
        """Take one unit if there is one now."""
    def release(self, n: int = 1) -> None:
        """Give n units back; waiters get them first.

        ValueError for n < 1, and if the value would exceed 2**32 - 1.
        """
    @property
    def value(self) -> int:
        """Units left."""
    def __enter__(self) -> Semaphore:
        """`with semaphore:` calls acquire(), which blocks, and release() at the end."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

# What lock() and rlock() of an RWMutex return: true if it is ours.
@final
@type_check_only
class Held:
    def __bool__(self) -> bool: ...
    def __enter__(self) -> Held: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@final
class RWMutex:
    """Go's sync.RWMutex: many readers or one writer.

    A writer that waits keeps new readers out; when one unlocks, the readers that wait come next, so
    neither kind starves.  No owner, not re-entrant: a reader that rlocks again beside a writer that
    waits is a deadlock.
    """

    def lock(self, *, timeout: float | None = None) -> Held:
        """Lock for writing; blocks until nobody holds it.

        What is returned is true, and `with` it unlocks at the end; false if `timeout` seconds
        passed first, when `with` raises Timeout.
        """
    def rlock(self, *, timeout: float | None = None) -> Held:
        """Lock for reading; blocks while a writer holds it or waits.

        What is returned is true, and `with` it runlocks at the end; false if `timeout` seconds
        passed first, when `with` raises Timeout.
        """
    def try_lock(self) -> bool:
        """Lock for writing if nobody holds it."""
    def try_rlock(self) -> bool:
        """Lock for reading if no writer holds it or waits."""
    def unlock(self) -> None:
        """End a lock().  Any goroutine or thread may.  RuntimeError if no writer holds it."""
    def runlock(self) -> None:
        """End an rlock().  Any goroutine or thread may.  RuntimeError if no reader holds it."""
    def rlocker(self) -> RLocker:
        """Its reader's side as a lock, for Cond: Go's RLocker."""
    @property
    def locked(self) -> bool:
        """Whether a writer holds it now."""
    @property
    def readers(self) -> int:
        """How many readers hold it now."""

@final
class RLocker:
    """The reader's side of an RWMutex, as a lock: RWMutex.rlocker()."""

    def lock(self, *, timeout: float | None = None) -> bool:
        """The RWMutex's rlock(); blocks.  False if `timeout` seconds passed first."""
    def try_lock(self) -> bool:
        """The RWMutex's try_rlock()."""
    def unlock(self) -> None:
        """The RWMutex's runlock()."""
    def __enter__(self) -> RLocker:
        """`with` calls lock(), which blocks, and unlock() at the end."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@final
class Cond:
    """Go's sync.Cond: waits for a change of what `lock` protects; `with` locks that.

    Over a Mutex, an RWMutex (its writer's side) or RWMutex.rlocker().  TypeError for others.
    """

    def __new__(cls, lock: Mutex | RWMutex | RLocker) -> Cond: ...
    @property
    def lock(self) -> Mutex | RWMutex | RLocker:
        """The lock given: Go's L."""
    def wait(self, *, timeout: float | None = None) -> bool:
        """Unlock, wait for signal() or broadcast(), and lock again.

        False if `timeout` seconds passed first; locking again takes what it takes.  Blocks.  The
        lock is held again also when it raises.  A wait that ends by its timeout or a cancel has
        taken no signal from another; one that was signalled returns, and a cancel stays for the
        next wait.  RuntimeError if the lock is not locked.
        """
    def signal(self) -> None:
        """Wake one that waits, the first to come, if there is one.  The lock need not be held."""
    def broadcast(self) -> None:
        """Wake all that wait.  The lock need not be held."""
    def __enter__(self) -> Cond:
        """`with cond:` locks `lock`, which blocks, and unlocks it at the end."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@final
class AtomicInt:
    """An integer of any size, changed in one step: between goroutines and threads, always exact."""

    def __new__(cls, value: int = 0) -> AtomicInt: ...
    def load(self) -> int:
        """Its value."""
    def store(self, value: int, /) -> None:
        """Make it `value`."""
    def add(self, n: int, /) -> int:
        """Add n; returns the new value, as Go's Add does."""
    def swap(self, value: int, /) -> int:
        """Make it `value`; returns what it was."""
    def compare_and_swap(self, old: int, new: int, /) -> bool:
        """Make it `new` if it is `old`; returns whether it was."""

@final
class Limiter:
    """A token bucket: `rate` events a second, `burst` of them at once.  golang.org/x/time/rate.

    It is full at first.  A rate of math.inf limits nothing, one of 0 lets `burst` events pass.
    `now`, where it can be given, is a time.monotonic(), for those who keep their own time.
    ValueError for a negative rate, NaN, a negative burst or n, or one above 2**31 - 1.
    """

    def __new__(cls, rate: float, burst: int = 1) -> Limiter: ...
    @property
    def rate(self) -> float:
        """Tokens a second."""
    @property
    def burst(self) -> int:
        """How many tokens it holds."""
    def allow(self, n: int = 1, *, now: float | None = None) -> bool:
        """Take n tokens if they are there; returns whether they were.  Never waits."""
    def reserve(self, n: int = 1, *, now: float | None = None) -> Reservation:
        """Take n tokens, in advance if they are not there: when to act, says what is returned."""
    def wait(self, n: int = 1, *, timeout: float | None = None) -> bool:
        """Take n tokens, and wait until it is time to act.  Blocks.

        False, at once and without a token, if that would take more than `timeout` seconds.  A wait
        that is cancelled gives back what nobody has counted on.  ValueError if n exceeds the burst.
        """
    def tokens(self, *, now: float | None = None) -> float:
        """How many there are; negative: taken in advance."""
    def set_rate(self, rate: float, *, now: float | None = None) -> None:
        """Change the rate.  Who waits already waits as long as before."""
    def set_burst(self, burst: int, *, now: float | None = None) -> None:
        """Change the burst.  Who waits already waits as long as before."""

@final
class Reservation:
    """Tokens taken in advance: Limiter.reserve()."""

    @property
    def ok(self) -> bool:
        """False: n exceeds the burst, and nothing was taken."""
    def delay(self, *, now: float | None = None) -> float:
        """Seconds until it is time to act; infinite if not ok."""
    def cancel(self, *, now: float | None = None) -> None:
        """Give the tokens back that nobody has counted on yet.  Nothing once it is time."""

@final
class WaitGroup:
    """Go's sync.WaitGroup: waits for a number of goroutines to end."""

    def add(self, n: int = 1) -> None:
        """Raise the counter by n.  ValueError if it would become negative."""
    def done(self) -> None:
        """The same as add(-1)."""
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the counter is 0.  False if `timeout` seconds passed first."""
    def go(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_R]:
        """add(1) and go(); done() when it has ended, however it ends."""
    @property
    def count(self) -> int:
        """The counter."""

class CancelScope:
    """A block of a goroutine: what fail_after(), move_on_after() and shield() return.

    It may be entered again when it has been left.
    """

    @property
    def expired(self) -> bool:
        """Whether its time was up and a wait inside was ended for that."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

# That of move_on_after(): who checks types shall know that such a block may be left in the middle.
@type_check_only
class _MovesOn(CancelScope):
    def __exit__(  # type: ignore[override]
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> bool: ...

def fail_after(seconds: float | None, /) -> CancelScope:
    """A block that may last so long: after that its current or next wait raises Cancelled, once,
    and the block ends with DeadlineExceeded.

    Counts from when it is entered; None and infinity: no limit; 0: the first wait ends it.  It
    raises DeadlineExceeded only if its own Cancelled arrives at its end.  In goroutines only:
    RuntimeError.  ValueError for negative seconds and NaN.  Trio's fail_after.
    """

def move_on_after(seconds: float | None, /) -> _MovesOn:
    """The same, but the block just ends, and the program goes on behind it; `expired` tells.

    Trio's move_on_after.
    """

def shield() -> CancelScope:
    """A block in which no cancel from outside is delivered: the first wait after it raises it.

    Blocks of fail_after() and the like inside of it count.  Nests.  In an ordinary thread, to which
    no cancel comes, it does nothing.  Trio's CancelScope(shield=True).
    """

def cancels() -> int: ...  # times that Cancelled was raised in the running goroutine

class Context:
    """A deadline, a signal to stop, and values: see gmprt.context."""

    def done(self) -> RecvView[Any]:
        """A channel that is closed when the context is done; always an equal one.  Go's Done."""
    def err(self) -> ContextCancelled | DeadlineExceeded | None:
        """Why it is done, None while it is not; always the same object.  Go's Err."""
    def deadline(self) -> float | None:
        """The time.monotonic() at which it is done at the latest, or None.  Go's Deadline."""
    def value(self, key: object, /) -> Any:
        """What the nearest with_value() has set for an equal key, or None.  Go's Value."""
    def scope(self) -> CancelScope:
        """A block whose current or next wait raises Cancelled when the context is done; the block
        then ends with a new ContextCancelled or DeadlineExceeded.  In goroutines only.
        """
    def __enter__(self) -> Self:
        """`with ctx:` cancels it at the end, if it can be cancelled."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@final
class CancelContext(Context):
    """A context that can be cancelled; a `with` block of it does at its end."""

    def cancel(self, cause: BaseException | None = None) -> None:
        """End it and all contexts below it, before this returns.

        If it is done already nothing happens: the first reason counts.  TypeError if the cause is
        no exception.
        """

@final
class Group:
    """Goroutines that end before its `with` block does: Go's errgroup, Trio's nursery.

    Leaving the block waits for all members.  The first failure, of a member or of the body, cancels
    the others, and the body where it waits (in a goroutine).  When all have ended one cause is
    raised as itself, several as an ExceptionGroup.  `limit`: so many members at a time; ValueError
    below 1.
    """

    def __new__(cls, limit: int | None = None) -> Group: ...
    def go(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_R]:
        """Start a member that runs fn(*args, **kwargs).

        Blocks while there are as many as the limit allows.  From anywhere, until the group has
        ended: then RuntimeError.  In a group that is cancelled its first wait raises Cancelled.
        """
    def try_go(
        self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Goroutine[_R] | Literal[False]:
        """The same without waiting: False at the limit.  errgroup's TryGo."""
    def cancel(self, reason: object = None) -> None:
        """Cancel all members, those that are still to come, and the body where it waits.

        The block then just ends.  RuntimeError when the group has ended.
        """
    @property
    def count(self) -> int:
        """Members that have not ended."""
    def __enter__(self) -> Group: ...
    # Only who calls cancel() has to reckon with a body that is left in the middle.
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> None: ...

@overload
def gather(a: Callable[[], _A], /) -> tuple[_A]:
    """Call them all, each in a goroutine of its own, and return their results in order.

    Blocks until all have ended.  The first failure cancels the others and is raised; several
    independent ones are raised as an ExceptionGroup: see Group.  TypeError, before anything has
    begun, if one cannot be called.
    """

@overload
def gather(a: Callable[[], _A], b: Callable[[], _B], /) -> tuple[_A, _B]: ...
@overload
def gather(
    a: Callable[[], _A], b: Callable[[], _B], c: Callable[[], _C], /
) -> tuple[_A, _B, _C]: ...
@overload
def gather(
    a: Callable[[], _A], b: Callable[[], _B], c: Callable[[], _C], d: Callable[[], _D], /
) -> tuple[_A, _B, _C, _D]: ...
@overload
def gather(*thunks: Callable[[], _T]) -> tuple[_T, ...]: ...
@overload
def gather(*thunks: Callable[[], Any]) -> tuple[Any, ...]: ...
def crew(function: str, limit: int, /) -> Group: ...  # its body is not cancelled
def context_background() -> Context: ...
def context_cancel(
    function: str, parent: Context | None, seconds: float | None, from_now: bool, /
) -> CancelContext: ...
def context_value(key: object, value: object, parent: Context | None, /) -> Context: ...
def context_without_cancel(parent: Context, /) -> Context: ...
def context_cause(ctx: Context, /) -> BaseException | None: ...
def go(fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_R]:
    """Start a goroutine that runs fn(*args, **kwargs), and return its handle.

    It is runnable, not running, and has a copy of the caller's context. From any thread. TypeError
    if fn cannot be called, MemoryError, TooManyThreads, RuntimeNotRunning.
    """

@final
class Options:
    """What options() returns."""

    def go(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_R]:
        """As gmprt.go(), with these options."""

def options(*, name: str | None = None, detach: bool = False) -> Options:
    """Options for goroutines: options(name="fetch").go(fn, ...) starts one that has them.

    `detach`: as g.detach(), from the start.  TypeError for a name that is no str.
    """

def lend(fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
def current() -> Goroutine[Any] | None:
    """The running goroutine, None in an ordinary thread."""

def gosched() -> None:
    """Let other goroutines run.  An ordinary thread gives the GIL away for a moment."""

def goexit() -> Never:
    """End the running goroutine: its `finally` blocks run, its result is None.

    RuntimeError outside a goroutine.
    """

def sleep(seconds: float, /) -> None:
    """Block for that long; 0 is gosched().  ValueError for negative seconds and NaN."""

def seconds(function: str, value: float, /) -> float: ...  # an argument of that name, checked
def goroutines() -> list[Goroutine[Any]]:
    """All that are alive, by id."""

# Those that are done, but for their callbacks and what their ends destroy.
def leaving() -> list[Goroutine[Any]]: ...
def cancel_leaving(g: Goroutine[Any], /) -> None: ...
def join_leaving(g: Goroutine[Any], timeout: float, /) -> bool: ...
def num_goroutine() -> int:
    """Goroutines alive, native ones included."""

def gomaxprocs(n: int | None = None) -> int:
    """Return the number of Ps, and change it to n, if given: 1 to 256, else ValueError.

    So many native goroutines may run at once, the one thread that runs Python included.  A change
    stops the world for a moment.  MemoryError: the number is what it was.
    """

def lock_os_thread() -> None:
    """Go's LockOSThread: this goroutine runs on its present OS thread only, and no other runs
    there.  The main goroutine of run() goes to the thread that called run().  Nests; nothing in
    an ordinary thread.  TooManyThreads if no thread would be left for the others; RuntimeError in a
    main goroutine that uses greenlets.
    """

def unlock_os_thread() -> None:
    """Undo one lock_os_thread()."""

def set_max_threads(n: int, /) -> int:
    """Limit the OS threads of the runtime: 2 to 10000, else ValueError.  Returns the old limit."""

def set_max_stack(nbytes: int, /) -> int:
    """Bytes of address space for each stack made from now on; returns the old size.

    256 KiB to 1 GiB, else ValueError.
    """

def threads(on: bool, /) -> bool:
    """Whether threads that Python code starts are goroutines, from now on; returns what was so.

    Those of `threading`, `_thread`, `concurrent.futures` and asyncio.to_thread(), in forked
    children too.  At first they are OS threads.  Error if functions of the C library are not
    replaced (GMPRT_INTERPOSE=none), RuntimeError if _thread.start_new_thread was.
    """

def stats() -> dict[str, int]: ...
def chan_give_back(ch: Chan[_T], value: _T, /) -> None: ...  # the next receive gets it
def timer_chan(seconds: float, period: float = 0.0, /) -> Chan[float]: ...
def timer_reset(ch: Chan[float], seconds: float, period: float = 0.0, /) -> bool: ...
def timer_stop(ch: Chan[float], /) -> bool: ...  # True: it had not fired, or nobody had received it

# Results of the first two are gm_results; what they do not tell is raised.
def native_send(address: int, element: ReadableBuffer, timeout: float | None, /) -> int: ...
def native_recv(address: int, element: WriteableBuffer, timeout: float | None, /) -> int: ...
def native_send_from(address: int, elements: ReadableBuffer, timeout: float | None, /) -> int: ...
def native_recv_into(address: int, elements: WriteableBuffer, timeout: float | None, /) -> int: ...
def failures(run_id: int, /) -> list[Goroutine[Any]]: ...  # uncollected, taken off the list; 0: all
def asking(
    g: Goroutine[Any], n: int, /
) -> None: ...  # n: 1 before, -1 after a wait for its outcome
def forget_callback(g: Goroutine[Any], fn: Callable[[Goroutine[Any]], object], /) -> None: ...
def set_reporter(fn: Callable[[Goroutine[Any]], None], /) -> None: ...
def set_dumper(fn: Callable[[], None], /) -> None: ...  # called for SIGQUIT, on a thread of its own
def set_deadlock_dump(fn: Callable[[], str], /) -> None: ...
def install_sigquit() -> bool: ...  # only if SIGQUIT has its default action
def stop(deadline: float, /) -> None: ...  # the end: no M touches the interpreter any more
def running() -> bool: ...
def features() -> dict[str, str]: ...  # what `python -m gmprt info` prints
def interposed() -> dict[str, list[str]]: ...  # C functions with a stand-in, by object
def selfcheck_fields() -> list[tuple[int, int, str]]: ...  # private fields: struct, offset, name
def selfcheck_moved(struct: int, offset: int, by: int, /) -> str | None: ...
def unsafe_build(compiler: str, shared: bool, version: int, /) -> bool: ...
def set_thread_hooks(
    module: dict[str, Any],
    goroutine: type[object],
    forget: Callable[[int], None],
    start: Callable[[], None],
    /,
) -> None: ...
def has_thread_object() -> None: ...
