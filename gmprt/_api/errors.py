"""Every exception of gmprt.

All derive from `Error` and, where the standard library has a word for it, from that class as well,
so that code written for threads and queues catches them.  `Cancelled` alone stands apart: it is a
BaseException, because a goroutine that is told to stop must not be kept alive by an `except
Exception`.

The C half imports this module while it starts and raises these classes, so nothing here may import
it.
"""


class Error(Exception):
    """Base of every exception of gmprt but `Cancelled`."""


class RuntimeNotRunning(Error, RuntimeError):
    """The runtime cannot start, or it has been stopped: the interpreter is exiting."""


class ChannelClosed(Error):
    """Raised by a send to a closed channel, and by a second close(); Go panics there.

    Also in senders that were waiting when the channel was closed.  Let the one sender, or whoever
    waits for all the senders, close the channel.
    """

    sent = 0
    """How many values send_many() had sent."""


class EndOfChannel(ChannelClosed):
    """Raised by recv() on a channel that is closed and drained.

    recv_ok() and `for v in ch` end without it.
    """


class WouldBlock(Error):
    """Raised by send_nowait() and recv_nowait() instead of waiting."""


class Timeout(Error, TimeoutError):
    """Raised when a `timeout` (seconds) ends first; the operation has had no effect.

    But for send_many(), which says in `sent` what it had.
    """

    sent = 0
    """How many values send_many() had sent."""


class Cancelled(BaseException):
    """Raised inside a goroutine, at its current or next park, when somebody calls its cancel(), its
    group has failed, or the time or context of a block around the park is over.

    Clean up in `finally` blocks and let it pass; a goroutine that swallows it simply goes on.  It
    is raised in no other goroutine: whoever asks for the result gets `GoroutineCancelled`.

    `reason` is what was given to cancel(), None by default; the failure of a group, "deadline
    exceeded" of a block, the cause of a context.
    """

    sent = 0
    """How many values send_many() had sent."""

    def __init__(self, reason: object = None) -> None:
        # No empty "None" at the end of a traceback.
        super().__init__(*(() if reason is None else (reason,)))
        self.reason: object = reason


class GoroutineCancelled(Error):
    """Raised by result(), and returned by exception(), of a goroutine that ended with `Cancelled`.

    `reason` is what was given to cancel(), None by default.
    """

    def __init__(self, reason: object = None) -> None:
        super().__init__(*(() if reason is None else (reason,)))
        self.reason: object = reason


class ContextCancelled(Error):
    """What err() of a context says that was cancelled: Go's context.Canceled."""

    def __init__(self, message: str = "context cancelled") -> None:
        super().__init__(message)


class DeadlineExceeded(Error, TimeoutError):
    """Raised at the end of a fail_after() block whose time was up; err() of a context whose
    deadline has passed: Go's context.DeadlineExceeded.

    Raised by a block its `__cause__` is the `Cancelled` that has travelled through it.
    """

    def __init__(self, message: str = "deadline exceeded") -> None:
        super().__init__(message)


class Deadlock(Error, RuntimeError):
    """Raised by run() when every goroutine waits for another one, and by joining oneself.

    Go's "all goroutines are asleep - deadlock!".  `dump` holds what gmprt.debug.dump() would have
    printed at that moment; it is part of the message.
    """

    def __init__(
        self, dump: str = "", message: str = "all goroutines are asleep - deadlock!"
    ) -> None:
        super().__init__(dump, message)
        self.dump = dump
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.dump.rstrip()}" if self.dump else self.message


class StackOverflow(Error, RecursionError):
    """Reserved: not raised in this release.  Deep recursion raises RecursionError."""


class TooManyThreads(Error, RuntimeError):
    """More OS threads would be needed than set_max_threads() or the system allows."""


class GoExit(BaseException):
    """Raised by goexit() so that `finally` blocks run; the goroutine's entry swallows it."""


# Tracebacks and pickles name the public place, gmprt.ChannelClosed, not this file.
for _error in (
    Error,
    RuntimeNotRunning,
    ChannelClosed,
    EndOfChannel,
    WouldBlock,
    Timeout,
    Cancelled,
    GoroutineCancelled,
    ContextCancelled,
    DeadlineExceeded,
    Deadlock,
    StackOverflow,
    TooManyThreads,
):
    _error.__module__ = "gmprt"
del _error
