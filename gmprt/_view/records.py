"""The frozen dataclasses of the public interface.

A module of its own, imported when one of them is first asked for: `dataclasses` takes longer to
import than all the rest of gmprt.  Dumps, reports and the end of the process do without it, for
nothing should be imported in bad times.
"""

from __future__ import annotations

from dataclasses import dataclass

from gmprt._view.goroutine import place


@dataclass(frozen=True, slots=True)
class CreatedBy:
    """Where a goroutine was started: the position of the go() call."""

    function: str
    """Qualified name of the function that called go()."""
    filename: str
    """File of that function."""
    lineno: int
    """Line of the call."""
    goroutine_id: int
    """Id of the goroutine that called go(), 0 for an ordinary thread."""

    def __str__(self) -> str:
        return place(self.function, self.filename, self.lineno, self.goroutine_id)


@dataclass(frozen=True, slots=True)
class ChanStatistics:
    """What `ch.statistics()` returns: a channel at one moment."""

    length: int
    """Values in the buffer."""
    capacity: int
    """Size of the buffer."""
    closed: bool
    """Whether close() was called."""
    waiting_senders: int
    """Goroutines and threads that wait to send."""
    waiting_receivers: int
    """Goroutines and threads that wait to receive."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The runtime at one moment.  Counters are read one by one while it runs, so sums may be off by
    a few.

    States are those of `Goroutine.state`; "since the start" means since the runtime started in this
    process.
    """

    goroutines: int
    """Alive now."""
    python_threads: int
    """Of these, threads to Python: threads()."""
    runnable: int
    """Alive and waiting for a turn."""
    running: int
    """Running now."""
    syscall: int
    """In a call that blocks an OS thread."""
    waiting: int
    """Parked: on a channel, a lock, a timer, a descriptor."""
    started: int
    """Goroutines since the start."""
    ended: int
    """Goroutines since the start."""
    parks: int
    """Times that a goroutine stopped to wait."""
    steals: int
    """Times that a processor without work took goroutines from another one."""
    stolen: int
    """Goroutines taken in these."""
    handoffs: int
    """Times that a processor was taken from a thread that blocked and given to another one."""
    wakes: int
    """Times that an idle thread was woken for work."""
    threads: int
    """OS threads of the runtime now (Go's M)."""
    threads_idle: int
    """Of these, without work."""
    threads_started: int
    """OS threads since the start."""
    threads_ended: int
    """OS threads since the start."""
    procs: int
    """Processors: the limit of gomaxprocs() (Go's P)."""
    procs_idle: int
    """Of these, without work."""
    timers: int
    """Deadlines that are pending now."""
    timers_fired: int
    """Deadlines that have passed, since the start."""
    netpoll_waits: int
    """Times that an idle thread slept in the poller, for timers or descriptors."""
    netpoll_ready: int
    """Goroutines that a ready descriptor woke."""
    stack_reserved: int
    """Bytes of address space reserved for stacks; only touched pages take memory."""
    stack_slots: int
    """Stacks in that space that were ever used."""
    stacks_committed: int
    """Of these, stacks that hold memory: in use, or kept for the next goroutine."""
    stacks_emptied: int
    """Times that a stack gave all its memory back."""
    stack_shrinks: int
    """Times that a stack gave back what a deep recursion had left on it."""
    hibernating: int
    """Goroutines that sleep without a stack, for they have been parked for half a second."""
    hibernated_bytes: int
    """Bytes that these take instead."""
    hibernations: int
    """Times that a goroutine fell asleep so."""
    rousings: int
    """Times that one got its stack back."""
    stop_the_worlds: int
    """Times that all had to stop for a moment, as for gomaxprocs(n)."""
    preemptions: int
    """Times that a goroutine was made to yield because its slice was over and others waited."""


# Reprs and pickles name the public place, gmprt.CreatedBy, not this file.
for _class in (CreatedBy, ChanStatistics, Stats):
    _class.__module__ = "gmprt"
del _class
