"""Pure-Python models of locks and their like, and Hypothesis machines that compare them with the
real ones.

As in chan_model.py one thing happens after the other.  Six *actors*, goroutines and OS threads, do
one operation each when the machine says so, with or without patience, in blocks with deadlines and
under shields; the machine cancels whom it likes.  After each step it waits until all stand where
the model says that they stand: an actor waits for an order or in its operation, which the runtime
reports of goroutines and counts for threads (stats()["foreign_waiting"]).  So nothing depends on
time: short patience ends a wait that nobody else would end, and FAR never comes.

Some steps make several things happen *at once*, before anybody runs: then a waiter is passed over
that has been cancelled and still stands in the queue, and a cancel meets one that was served.

What is free (who of several that wake together comes first, whether somebody takes a mutex before
the waiter that was woken) the model learns by looking, if it is allowed.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support import PATIENCE, Thread, eventually

import gmprt
from gmprt import Chan, Cond, Limiter, Mutex, OnceValue, Pool, RWMutex, Semaphore, WaitGroup

BRIEF, FAR = 0.0005, 1000.0

WAYS = st.sampled_from(
    ["plain"] * 5 + ["far", "shield", "wide"] + ["poll", "brief", "scope", "over"]
)
"""How an operation waits: for ever, with a timeout that never comes, under a shield, in a block
with much time; not at all, shortly, in a block with little time, in one that is over."""

ENDED_BY_ITSELF = ("brief", "scope", "over")
IN_A_THREAD = {"far": "plain", "shield": "plain", "wide": "plain", "scope": "brief", "over": "poll"}

WHO, PROCS = st.integers(0, 20), st.sampled_from([1, 2, 4])


class Failure(Exception):
    """Of what the machine lets fail."""


Call = Callable[..., object]
"""call(), or call(timeout=seconds): false if the time was up."""


def by_way(way: str, call: Call) -> str:
    """What comes of a call made in this way."""
    if way == "poll":
        got = call(timeout=0)
    elif way in ("brief", "far"):
        got = call(timeout=BRIEF if way == "brief" else FAR)
    elif way == "shield":
        with gmprt.shield():
            got = call()
    elif way == "over":
        with gmprt.fail_after(0):
            got = call()
    elif way in ("scope", "wide"):
        got = False
        with gmprt.move_on_after(BRIEF if way == "scope" else FAR):
            got = call()
    else:
        got = call()
    return "got" if got else "late"


def outcome_of(order: Callable[[], object]) -> object:
    try:
        return order()
    except gmprt.Cancelled as error:
        return "cancelled", error.reason
    except gmprt.DeadlineExceeded:
        return "late"
    except (Exception, SystemExit) as error:
        return type(error)


class Actor:
    """A goroutine or an OS thread that does as it is told, one thing at a time."""

    def __init__(self, number: int, thread: bool) -> None:
        self.number = number
        self.thread = thread
        self.orders: Chan[Callable[[], object] | None] = Chan()
        self.outcome: object = None  # of the last order, None: it is at it
        self.pending: str | None = None  # the model: the reason of a cancel that is to come
        self.task: Any = Thread(self.run) if thread else gmprt.go(self.run)

    def __repr__(self) -> str:
        return f"<{'thread' if self.thread else 'goroutine'} {self.number}>"

    def run(self) -> list[object]:
        while True:
            with gmprt.shield():
                order, goes_on = self.orders.recv_ok()
            if not goes_on:
                return []
            if order is None:
                return [outcome_of(lambda: gmprt.sleep(1e-6)) for _ in range(2)]
            self.outcome = outcome_of(order)

    def order(self, order: Callable[[], object]) -> None:
        self.outcome = None
        self.orders.send(order, timeout=PATIENCE)

    def idle(self) -> bool:
        return self.orders.waiting() == (0, 1)

    def end(self) -> None:
        """A cancel that is pending arrives now, and no other."""
        self.orders.send(None, timeout=PATIENCE)
        expected = None if self.pending is None else ("cancelled", self.pending)
        assert self.task.result(PATIENCE) == [expected, None], (self, expected)

    def abandon(self) -> None:
        """The machine has failed: nobody knows what it does."""
        self.orders.close()
        if not self.thread:
            self.task.cancel()


@dataclass(eq=False)
class Waiter:
    """An operation that waits, as the model has it."""

    actor: Actor
    way: str
    reason: str  # that the runtime reports
    side: str = "w"
    rank: int = 0  # those of one rank came at once: in any order
    since: float = 0.0
    outcome: object = "got"  # when it is served
    relocks: bool = False  # it takes the lock of a Cond again: no cancel ends that
    value: int = 0


class Machine(RuleBasedStateMachine):
    """Actors, and what they do by the model."""

    threads_report = True  # that they wait: in operations of gmprt

    def __init__(self) -> None:
        super().__init__()
        self.actors: list[Actor] = []
        self.waiting: dict[Actor, Waiter] = {}
        self.ends: dict[Actor, object] = {}  # who ends in this step, and how
        self.unsettled: set[Actor] = set()  # a cancel could still arrive, or be too late
        self.steps = 0
        self.broken = False

    def make(self, procs: int) -> None:
        if gmprt.gomaxprocs() != procs:
            gmprt.gomaxprocs(procs)
        self.others = foreign_waiting()
        self.actors = [Actor(i, thread=i % 3 == 2) for i in range(6)]
        self.settle()

    # No rule's drawings depend on the state, see chan_model.py: they are taken modulo.

    def free(self, who: int) -> Actor | None:
        idle = [a for a in self.actors if a not in self.waiting]
        return idle[who % len(idle)] if idle else None

    def begin(self, actor: Actor, way: str, ready: bool, reason: str) -> Waiter | None:
        """What becomes of an operation: it ends, or this waiter waits."""
        if ready:
            self.ends[actor] = "got"
        elif way == "poll":
            self.ends[actor] = "late"
        elif actor.pending is not None and way != "shield":
            self.ends[actor] = ("cancelled", actor.pending)
            actor.pending = None
        elif way in ENDED_BY_ITSELF:
            self.ends[actor] = "late"
        else:
            self.waiting[actor] = waiter = Waiter(actor, way, reason, rank=self.steps)
            return waiter
        return None

    def perform(self, actor: Actor, way: str, call: Call) -> str:
        """Orders it; the way that this actor can go."""
        if actor.thread:
            way = IN_A_THREAD.get(way, way)
        self.steps += 1
        actor.order(lambda: by_way(way, call))
        return way

    def finish(self, waiter: Waiter) -> None:
        """It has been served."""
        actor, outcome = waiter.actor, waiter.outcome
        del self.waiting[actor]
        if outcome in ("scoped", "cancelled"):
            self.unsettled.add(actor)
            outcome = "late" if actor.pending is None else ("cancelled", actor.pending)
            actor.pending = None
        self.ends[actor] = outcome

    def cancellable(self, which: int) -> Actor | None:
        actors = [a for a in self.actors if not a.thread and a not in self.unsettled]
        return actors[which % len(actors)] if actors else None

    def cancel_one(self, actor: Actor) -> bool:
        """False: nothing else may happen before this is settled."""
        waiter = self.waiting.get(actor)
        self.steps += 1
        reason = f"cancel {self.steps}"
        goes_on = waiter is None or self.may_go_on(waiter)
        assert actor.task.cancel(reason)
        if waiter is None or waiter.way == "shield":
            actor.pending = reason
        elif waiter.relocks:
            actor.pending = reason
            self.disturbed(waiter)
        else:
            self.unsettled.add(actor)
            self.cancelled(waiter, reason)
        return goes_on

    def cancelled(self, waiter: Waiter, reason: str) -> None:
        del self.waiting[waiter.actor]
        self.ends[waiter.actor] = ("cancelled", reason)
        self.forget(waiter)

    def forget(self, waiter: Waiter) -> None:
        """It waits no more."""
        raise NotImplementedError

    def disturbed(self, waiter: Waiter) -> None:
        """A cancel that may not end its wait has made it wait anew."""

    def may_go_on(self, waiter: Waiter) -> bool:
        """Is it all the same whether a cancelled waiter runs before the next thing happens?"""
        return True

    # ---- looking --------------------------------------------------------------------------------

    def settle(self) -> None:
        self.broken = True
        eventually(self.settled, f"as the model has it: {self.waiting}, {self.ends}")
        for actor, outcome in self.ends.items():
            assert actor.outcome == outcome, (actor, actor.outcome, outcome)
        self.ends.clear()
        self.unsettled.clear()
        self.broken = False

    def settled(self) -> bool:
        for actor in self.actors:
            waiter = self.waiting.get(actor)
            if waiter is None:
                if not actor.idle():
                    return False
                continue
            assert actor.outcome is None, (actor, waiter, actor.outcome)
            if not actor.thread and (actor.task.state, actor.task.wait_reason) != (
                "waiting",
                waiter.reason,
            ):
                return False
        if not self.threads_report:
            return True
        return foreign_waiting() == self.others + sum(a.thread for a in self.actors)

    def observe(self, among: list[Waiter]) -> Waiter:
        """Who of them has been served."""
        if len(among) > 1:
            eventually(lambda: any(w.actor.outcome for w in among), f"one of {among} is served")
        return next((w for w in among if w.actor.outcome), among[0])

    @rule(which=WHO)
    def cancel(self, which: int) -> None:
        if actor := self.cancellable(which):
            self.cancel_one(actor)
        self.settle()

    def release_all(self) -> None:
        """So that nobody waits; steps of the machine."""
        raise NotImplementedError

    def teardown(self) -> None:
        if self.broken:
            for actor in self.actors:
                actor.abandon()
            return
        for actor in self.actors:
            waiter = self.waiting.get(actor)
            if waiter and not actor.thread and waiter.way != "shield" and not waiter.relocks:
                self.cancel_one(actor)
                self.settle()
        self.release_all()
        assert not self.waiting
        for actor in self.actors:
            actor.end()


def foreign_waiting() -> int:
    """Threads that are no goroutines and wait in an operation of gmprt without a timeout."""
    return int(gmprt._core.stats()["foreign_waiting"])


# ---- Mutex, RWMutex, Cond ----------------------------------------------------------------------


@dataclass
class LockModel:
    """A Mutex is a lock that has writers only, and is not handed over: others may come between."""

    mutex: bool
    writer: bool = False
    readers: int = 0
    writers_wait: list[Waiter] = field(default_factory=list)
    readers_wait: list[Waiter] = field(default_factory=list)
    starving: bool = False  # of a mutex: it is so for certain

    def take(self, side: str) -> bool:
        if side == "w":
            free = not self.writer and not self.readers
            self.writer = self.writer or free
        else:
            free = not self.writer and not self.writers_wait
            self.readers += free
        return free

    def queue(self, side: str) -> list[Waiter]:
        return self.writers_wait if side == "w" else self.readers_wait

    def first(self) -> list[Waiter]:
        """The writers of which one is next."""
        return [w for w in self.writers_wait if w.rank == min(w.rank for w in self.writers_wait)]


STARVES = 0.002
"""Seconds: whoever has waited for so long has waited for more than a millisecond."""

KINDS = ["Mutex", "Mutex", "RWMutex", "RWMutex", "RLocker"]


class LockMachine(Machine):
    """A lock and a Cond over it."""

    @initialize(kind=st.sampled_from(KINDS), procs=PROCS)
    def start(self, kind: str, procs: int) -> None:
        self.mutex, self.rw = Mutex(), RWMutex()
        self.reader = self.rw.rlocker()
        locks: dict[str, Any] = {"Mutex": self.mutex, "RWMutex": self.rw, "RLocker": self.reader}
        self.cond = Cond(locks[kind])
        self.cond_side = "r" if kind == "RLocker" else "w"
        self.lock_ = LockModel(kind == "Mutex")
        self.cond_waits: list[Waiter] = []
        self.coming: list[Waiter] = []  # who takes the lock again since this step
        self.make(procs)

    # ---- the lock

    def reason(self, side: str) -> str:
        kind = "Mutex" if self.lock_.mutex else "RWMutex"
        return f"sync.{kind}.{'Lock' if side == 'w' else 'RLock'}"

    @rule(who=WHO, way=WAYS, reads=st.booleans(), view=st.booleans())
    def lock(self, who: int, way: str, reads: bool, view: bool) -> None:
        actor, model = self.free(who), self.lock_
        if actor is None:
            return
        side = "r" if reads and not model.mutex else "w"
        call: Call = self.mutex.lock if model.mutex else self.rw.lock
        if side == "r":
            call = self.reader.lock if view else self.rw.rlock
        way = self.perform(actor, way, call)
        waiter = self.begin(actor, way, model.take(side), self.reason(side))
        if waiter:
            waiter.side = side
            model.queue(side).append(waiter)
        self.settle()
        if waiter:
            waiter.since = time.monotonic()

    @rule(reads=st.booleans())
    def try_lock(self, reads: bool) -> None:
        if self.lock_.mutex:
            assert self.mutex.try_lock() == self.lock_.take("w")
        elif reads:
            assert self.rw.try_rlock() == self.lock_.take("r")
        else:
            assert self.rw.try_lock() == self.lock_.take("w")

    def unlock_real(self, side: str) -> bool:
        try:
            if self.lock_.mutex:
                self.mutex.unlock()
            elif side == "w":
                self.rw.unlock()
            else:
                self.rw.runlock()
        except RuntimeError:
            return False
        return True

    def unlock_one(self, reads: bool) -> None:
        side = "r" if reads and not self.lock_.mutex else "w"
        held = self.lock_.writer if side == "w" else self.lock_.readers > 0
        self.now = time.monotonic()
        assert self.unlock_real(side) == held
        if held:
            self.pass_on(side)

    def pass_on(self, side: str) -> None:
        """It was unlocked: who has it now?"""
        model = self.lock_
        if side == "w":
            model.writer = False
        else:
            model.readers -= 1
        if not model.mutex and (side == "w" or not model.writers_wait):
            self.admit_readers()
        if model.readers == 0 and model.writers_wait:
            self.admit_writer(self.observe(model.first()))

    def admit_readers(self) -> None:
        for waiter in [*self.lock_.readers_wait]:
            self.lock_.readers_wait.remove(waiter)
            self.lock_.readers += 1
            self.finish(waiter)

    def admit_writer(self, waiter: Waiter) -> None:
        model = self.lock_
        model.writers_wait.remove(waiter)
        model.writer = True
        model.starving &= bool(model.writers_wait) and self.has_starved(waiter)
        self.finish(waiter)

    def has_starved(self, waiter: Waiter) -> bool:
        """Before the mutex was unlocked."""
        return self.now - waiter.since > STARVES

    @rule(reads=st.booleans())
    def unlock(self, reads: bool) -> None:
        self.unlock_one(reads)
        self.settle()

    @rule()
    def barge(self) -> None:
        """Unlocks a mutex and takes it again, if the waiter that was woken has not been faster: it
        may not twice, when that has waited for a millisecond."""
        model = self.lock_
        if not model.mutex or not model.writer:
            return
        self.now = time.monotonic()
        first = model.first()
        self.mutex.unlock()
        between = self.mutex.locked()
        got = self.mutex.try_lock()
        assert between or got or first
        if not got:
            assert first
            assert between or not model.starving
            self.pass_on("w")
        else:
            assert not model.starving
            model.starving = len(first) == 1 and self.has_starved(first[0])
        self.settle()

    # ---- the Cond

    @rule(who=WHO, way=WAYS)
    def wait(self, who: int, way: str) -> None:
        actor, model, side = self.free(who), self.lock_, self.cond_side
        if actor is None:
            return
        self.now = time.monotonic()
        way = self.perform(actor, way, self.cond.wait)
        if not (model.writer if side == "w" else model.readers):
            self.ends[actor] = RuntimeError
            self.settle()
            return
        self.waiting[actor] = waiter = Waiter(actor, way, "sync.Cond.Wait", side, self.steps)
        if way == "poll":
            waiter.outcome = "late"
        elif actor.pending is not None and way != "shield":
            waiter.outcome = "cancelled"
        elif way in ENDED_BY_ITSELF:
            waiter.outcome = "late" if way == "brief" else "scoped"
        if waiter.outcome == "got":
            self.pass_on(side)
            self.cond_waits.append(waiter)
        elif model.mutex and model.writers_wait and not model.starving:
            self.both_want_it(waiter)
        else:
            self.pass_on(side)
            self.relock(waiter)
        self.settle()

    def both_want_it(self, waiter: Waiter) -> None:
        """The mutex was unlocked, which has woken one, and is wanted again."""
        waiter.relocks = True
        if self.observe([*self.lock_.first(), waiter]) is not waiter:
            self.pass_on("w")
            self.relock(waiter)
        else:
            self.finish(waiter)

    def relock(self, *waiters: Waiter) -> None:
        """They have been woken at once, and lock again."""
        model, rest = self.lock_, [*waiters]
        for waiter in rest:
            waiter.relocks = True
            waiter.rank, waiter.since = self.steps, math.inf
            waiter.reason = self.reason(waiter.side)
        while rest:
            if not model.take(rest[0].side):
                break
            winner = self.observe(rest) if rest[0].side == "w" else rest[0]
            rest.remove(winner)
            self.finish(winner)
        if rest:
            model.queue(rest[0].side).extend(rest)

    def signal_one(self) -> None:
        self.cond.signal()
        if self.cond_waits:
            self.comes(self.cond_waits[0])

    def broadcast_all(self) -> None:
        self.cond.broadcast()
        for waiter in [*self.cond_waits]:
            self.comes(waiter)

    def comes(self, waiter: Waiter) -> None:
        self.cond_waits.remove(waiter)
        waiter.relocks = True
        self.coming.append(waiter)

    def settle(self) -> None:
        self.relock(*self.coming)
        self.coming.clear()
        super().settle()

    @rule()
    def signal(self) -> None:
        self.steps += 1
        self.signal_one()
        self.settle()

    @rule()
    def broadcast(self) -> None:
        self.steps += 1
        self.broadcast_all()
        self.settle()

    # ---- cancels

    def cancelled(self, waiter: Waiter, reason: str) -> None:
        if waiter not in self.cond_waits:
            super().cancelled(waiter, reason)
            return
        waiter.actor.pending = reason
        waiter.outcome = "cancelled"
        self.comes(waiter)

    def forget(self, waiter: Waiter) -> None:
        model = self.lock_
        model.queue(waiter.side).remove(waiter)
        model.starving &= bool(model.writers_wait)
        if not model.mutex and not model.writer and not model.writers_wait:
            self.admit_readers()

    def disturbed(self, waiter: Waiter) -> None:
        if waiter not in self.coming:
            self.forget(waiter)
            self.coming.append(waiter)

    def may_go_on(self, waiter: Waiter) -> bool:
        """A writer lets readers in when it runs, and who locks again comes when it runs."""
        return not waiter.relocks and (self.lock_.mutex or waiter.side == "r")

    @rule(deeds=st.lists(st.tuples(st.sampled_from("ccus"), WHO), min_size=2, max_size=6))
    def at_once(self, deeds: list[tuple[str, int]]) -> None:
        """Cancels, and either one unlock or signals: a lock that is free would be for whoever comes
        first."""
        self.steps += 1
        unlocked = signalled = False
        for deed, which in deeds:
            if deed == "c" and (actor := self.cancellable(which)):
                waiter = self.waiting.get(actor)
                if unlocked and waiter and (waiter.relocks or waiter in self.cond_waits):
                    continue
                if not self.cancel_one(actor):
                    break
                signalled |= bool(self.coming)
            elif deed == "u" and not unlocked and not signalled:
                unlocked = True
                self.unlock_one(which % 2 == 1)
            elif deed == "s" and not unlocked:
                signalled = True
                (self.broadcast_all if which % 3 == 0 else self.signal_one)()
        self.settle()

    @invariant()
    def looks_like_the_model(self) -> None:
        if not self.actors:
            return
        model = self.lock_
        if model.mutex:
            assert self.mutex.locked() == model.writer
        else:
            assert (self.rw.locked, self.rw.readers) == (model.writer, model.readers)
            assert not (model.writer and model.readers)

    def release_all(self) -> None:
        self.broadcast()
        while self.lock_.writer or self.lock_.readers:
            self.unlock(not self.lock_.writer)


# ---- Semaphore, WaitGroup ----------------------------------------------------------------------


class CountMachine(Machine):
    """A semaphore, first come, first served, and a group that is waited for."""

    @initialize(value=st.integers(0, 3), procs=PROCS)
    def start(self, value: int, procs: int) -> None:
        self.semaphore, self.group = Semaphore(value), WaitGroup()
        self.value, self.count = value, 0
        self.acquirers: list[Waiter] = []
        self.joiners: list[Waiter] = []
        self.members: list[gmprt.Goroutine[Any]] = []
        self.gate: Chan[None] = Chan()
        self.make(procs)

    @rule(who=WHO, way=WAYS)
    def acquire(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        way = self.perform(actor, way, self.semaphore.acquire)
        ready = self.value > 0
        self.value -= ready
        if waiter := self.begin(actor, way, ready, "semacquire"):
            self.acquirers.append(waiter)
        self.settle()

    @rule()
    def try_acquire(self) -> None:
        assert self.semaphore.try_acquire() == (self.value > 0)
        self.value -= self.value > 0

    @rule(who=WHO, way=WAYS)
    def wait(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        way = self.perform(actor, way, self.group.wait)
        if waiter := self.begin(actor, way, self.count == 0, "sync.WaitGroup.Wait"):
            self.joiners.append(waiter)
        self.settle()

    def release_some(self, n: int) -> None:
        self.semaphore.release(n)
        served = self.acquirers[:n]
        self.value += n - len(served)
        for waiter in served:
            self.acquirers.remove(waiter)
            self.finish(waiter)

    def add_some(self, n: int) -> None:
        if self.count - len(self.members) + n < 0:
            n = 1  # what the members count for is theirs
        self.group.add(n)
        self.changed(n)

    def changed(self, n: int) -> None:
        self.count += n
        while self.count == 0 and self.joiners:
            self.finish(self.joiners.pop())

    @rule(n=st.integers(1, 3))
    def release(self, n: int) -> None:
        self.release_some(n)
        self.settle()

    @rule(n=st.sampled_from([-2, -1, -1, -1, 1, 2]))
    def add(self, n: int) -> None:
        self.add_some(n)
        self.settle()

    @rule()
    def below_zero(self) -> None:
        assert outcome_of(lambda: self.group.add(-self.count - 1)) is ValueError

    @rule()
    def go(self) -> None:
        """A member, that waits to be let go."""
        g = self.group.go(self.gate.recv)
        self.members.append(g)
        self.count += 1
        eventually(lambda: self.gate.waiting() == (0, len(self.members)))

    @rule(which=WHO)
    def member_ends(self, which: int) -> None:
        """Somehow."""
        if not self.members:
            return
        if which % 2:
            g = self.members.pop(0)
            self.gate.send(None, timeout=PATIENCE)
        else:
            g = self.members.pop(which % len(self.members))
            g.cancel()
        assert g.join(PATIENCE)
        self.changed(-1)
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        for waiters in (self.acquirers, self.joiners):
            if waiter in waiters:
                waiters.remove(waiter)

    @rule(deeds=st.lists(st.tuples(st.sampled_from("ccra"), WHO), min_size=2, max_size=6))
    def at_once(self, deeds: list[tuple[str, int]]) -> None:
        for deed, which in deeds:
            if deed == "c" and (actor := self.cancellable(which)):
                self.cancel_one(actor)
            elif deed == "r":
                self.release_some(1 + which % 2)
            elif deed == "a":
                self.add_some((-1, -1, 1)[which % 3])
        self.settle()

    @invariant()
    def looks_like_the_model(self) -> None:
        if self.actors:
            assert (self.semaphore.value, self.group.count) == (self.value, self.count)

    def release_all(self) -> None:
        if self.acquirers:
            self.release(len(self.acquirers))
        while self.members:
            self.member_ends(1)
        if self.count:
            self.add(-self.count)


# ---- OnceValue, Limiter, Pool ------------------------------------------------------------------


class OnceMachine(Machine):
    """OnceValue: one runs the function, the others wait; if it is called off the next one tries."""

    @initialize(procs=PROCS)
    def start(self, procs: int) -> None:
        self.gate: Chan[str] = Chan()
        self.runs = 0  # that have begun
        self.ended: object = None
        self.callers: list[Waiter] = []  # the first one runs it
        self.once = OnceValue(self.function)
        self.make(procs)

    def function(self) -> str:
        self.runs += 1
        how = self.gate.recv()
        if how == "fail":
            raise Failure
        if how == "exit":
            raise SystemExit
        return "the value"

    @rule(who=WHO, way=WAYS)
    def call(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        if actor.thread or way in ("poll", "brief", "far"):  # it takes no timeout
            way = "plain"
        self.perform(actor, way, self.once)
        if waiter := self.begin(actor, way, self.ended is not None, "sync.Mutex.Lock"):
            self.callers.append(waiter)
            self.runs_it()
        elif self.ended is not None and self.ends[actor] == "got":
            self.ends[actor] = self.ended
        self.settle()

    def runs_it(self) -> None:
        if self.callers:
            self.callers[0].reason = "chan receive"

    @rule(how=st.sampled_from(["value", "fail", "exit", "exit", "exit"]))
    def function_ends(self, how: str) -> None:
        if not self.callers:
            return
        runner = self.callers.pop(0)
        self.gate.send(how, timeout=PATIENCE)
        if how == "exit":
            runner.outcome = SystemExit
            self.finish(runner)
            self.runs_it()
        else:
            self.ended = Failure if how == "fail" else "got"
            for caller in [runner, *self.callers]:
                caller.outcome = self.ended
                self.finish(caller)
            self.callers.clear()
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        self.callers.remove(waiter)
        self.runs_it()

    @invariant()
    def one_at_a_time(self) -> None:
        if self.actors:
            assert self.gate.waiting() == (0, min(1, len(self.callers)))

    def release_all(self) -> None:
        self.function_ends("value")


class LimiterMachine(Machine):
    """Tokens: the time between two steps brings none worth speaking of, and FAR is near to that.

    All is counted in tokens: `when` is how many must come until it is time to act.
    """

    RATE = 1e-6

    @initialize(burst=st.integers(1, 4), procs=PROCS)
    def start(self, burst: int, procs: int) -> None:
        self.limiter = Limiter(self.RATE, burst)
        self.burst, self.tokens, self.last_event = burst, float(burst), 0.0
        self.reserved: list[tuple[gmprt.Reservation, int, float]] = []
        self.make(procs)

    def take(self, n: int, advance: bool) -> float | None:
        left = self.tokens - n
        when = max(0.0, -left)
        if n > self.burst or (when and not advance):
            return None
        self.tokens, self.last_event = left, when
        return when

    def give_back(self, n: int, when: float) -> None:
        if n == 0:
            return
        later = self.last_event - when
        back = n - later
        if back <= 0:
            return
        self.tokens = min(self.tokens + back, self.burst)
        if later == 0 and when > n:
            self.last_event = when - n

    @rule(n=st.integers(0, 5))
    def allow(self, n: int) -> None:
        assert self.limiter.allow(n) == (self.take(n, advance=False) is not None)

    @rule(who=WHO, way=WAYS, n=st.integers(1, 5))
    def wait(self, who: int, way: str, n: int) -> None:
        """A timeout is judged at once: who takes nothing does not wait.  Nobody waits who could not
        be cancelled, for nothing else ends it."""
        if (actor := self.free(who)) is None:
            return
        way = "poll" if actor.thread else "plain" if way == "shield" else way

        def call(**timeout: float) -> bool:
            return self.limiter.wait(n, **timeout)

        way = self.perform(actor, way, call)
        if n > self.burst:
            self.ends[actor] = ValueError
        elif (when := self.take(n, advance=way not in ("poll", "brief", "far"))) is None:
            self.ends[actor] = "late"
        elif waiter := self.begin(actor, way, when == 0, "sleep"):
            waiter.value, waiter.since = n, when
        elif when:
            self.give_back(n, when)
        self.settle()

    @rule(n=st.integers(0, 5))
    def reserve(self, n: int) -> None:
        reservation = self.limiter.reserve(n)
        when = self.take(n, advance=True)
        assert reservation.ok == (when is not None)
        if when is not None:
            assert math.isclose(reservation.delay() * self.RATE, when, abs_tol=1e-3)
            self.reserved.append((reservation, n, when))

    @rule(which=WHO)
    def give_up(self, which: int) -> None:
        """Nothing is given back of what could be used at once."""
        if self.reserved:
            reservation, n, when = self.reserved.pop(which % len(self.reserved))
            reservation.cancel()
            reservation.cancel()
            if when:
                self.give_back(n, when)

    def forget(self, waiter: Waiter) -> None:
        self.give_back(waiter.value, waiter.since)

    @invariant()
    def looks_like_the_model(self) -> None:
        if self.actors:
            assert math.isclose(self.limiter.tokens(), self.tokens, abs_tol=1e-3)

    def release_all(self) -> None:
        """All have been cancelled."""


class PoolMachine(Machine):
    """The last one put is the first to be had; nobody shares one; two collections drop it."""

    @initialize(procs=PROCS)
    def start(self, procs: int) -> None:
        self.made = 0
        self.pool = Pool(self.new)
        self.items: list[int] = []
        self.victims: list[int] = []
        self.out: list[int] = []
        self.collects = gc.isenabled()
        gc.disable()
        self.make(procs)

    def new(self) -> int:
        self.made += 1
        return self.made

    @rule(who=WHO)
    def get(self, who: int) -> None:
        if (actor := self.free(who)) is None:
            return
        kept = self.items or self.victims
        expected = kept.pop() if kept else self.made + 1
        actor.order(self.pool.get)
        self.ends[actor] = expected
        self.settle()
        assert expected not in self.out
        self.out.append(expected)

    @rule(who=WHO, which=WHO)
    def put(self, who: int, which: int) -> None:
        if self.out and (actor := self.free(who)):
            item = self.out.pop(which % len(self.out))
            self.items.append(item)

            def put() -> str:
                self.pool.put(item)
                return "put"

            actor.order(put)
            self.ends[actor] = "put"
            self.settle()

    @rule(rarely=st.integers(0, 2))
    def collect(self, rarely: int) -> None:
        if rarely == 0:
            gc.collect()
            self.items, self.victims = [], self.items

    def release_all(self) -> None:
        if self.collects:
            gc.enable()


# ---- programs that really run at the same time -------------------------------------------------


HELD = ["mutex", "write", "read", "semaphore", "lock"]


@dataclass
class Step:
    """One operation of a program, and what is done while it holds."""

    what: str
    way: str
    inside: str


steps = st.builds(
    Step,
    st.sampled_from([*HELD, "get", "get", "put", "put"]),
    st.sampled_from(["plain", "plain", "poll", "brief", "scope", "over", "shield"]),
    st.sampled_from(["nothing", "yield", "sleep"]),
)

programs = st.lists(st.lists(steps, min_size=1, max_size=12), min_size=2, max_size=7)
cancels = st.lists(WHO, max_size=12)


class Shared:
    """What the programs share: who is inside of what, and a stock behind a Cond."""

    UNITS = 2

    def __init__(self) -> None:
        self.mutex, self.rw, self.lock = Mutex(), RWMutex(), threading.Lock()
        self.semaphore = Semaphore(self.UNITS)
        self.inside: dict[str, list[int]] = {what: [] for what in HELD}
        self.guard = Mutex()
        self.cond = Cond(self.guard)
        self.stock = 0

    def acquire(self, what: str) -> Call:
        if what == "lock":

            def acquire(timeout: float | None = None) -> bool:
                lock = self.lock
                return (
                    lock.acquire() if timeout is None else lock.acquire(timeout > 0, timeout or -1)
                )

            return acquire
        calls: dict[str, Call] = {
            "mutex": self.mutex.lock,
            "write": self.rw.lock,
            "read": self.rw.rlock,
            "semaphore": self.semaphore.acquire,
        }
        return calls[what]

    def release(self, what: str) -> None:
        {
            "lock": self.lock.release,
            "mutex": self.mutex.unlock,
            "write": self.rw.unlock,
            "read": self.rw.runlock,
            "semaphore": self.semaphore.release,
        }[what]()

    def check(self, what: str) -> None:
        """By one who holds it, so this does not change meanwhile."""
        number = len(self.inside[what])
        if what == "semaphore":
            assert number <= self.UNITS
        elif what == "read":
            assert not self.inside["write"]
        else:
            assert number == 1
            assert what != "write" or not self.inside["read"]


@dataclass
class Book:
    """What one runner has seen."""

    cancels: list[object] = field(default_factory=list)
    stocked: int = 0  # put less got


def hold(shared: Shared, me: int, step: Step, way: str) -> None:
    if by_way(way, shared.acquire(step.what)) != "got":
        return
    shared.inside[step.what].append(me)
    try:
        shared.check(step.what)
        if step.inside == "yield":
            gmprt.gosched()
        elif step.inside == "sleep":
            gmprt.sleep(1e-5)
        shared.check(step.what)
    finally:
        shared.inside[step.what].remove(me)
        shared.release(step.what)


def get_one(shared: Shared, way: str) -> bool:
    """Waits once: a signal is for one who looks again, and finds something or waits anew."""
    with shared.cond:
        if not shared.stock and by_way(way, shared.cond.wait) == "got" and not shared.stock:
            return False
        got = shared.stock > 0
        shared.stock -= got
        return got


def run_program(me: int, thread: bool, program: list[Step], shared: Shared) -> Book:
    book = Book()
    for step in program:
        way = IN_A_THREAD.get(step.way, step.way) if thread else step.way
        try:
            if step.what == "put":
                with shared.cond:
                    shared.stock += 1
                    book.stocked += 1
                shared.cond.signal()
            elif step.what == "get":
                book.stocked -= get_one(shared, "brief" if way in ("plain", "shield") else way)
            else:
                hold(shared, me, step, way)
        except gmprt.Cancelled as error:
            book.cancels.append(error.reason)
        except gmprt.DeadlineExceeded:
            pass
    return book


def check_concurrent(all_programs: list[list[Step]], strikes: list[int]) -> None:
    """Runs the programs side by side, cancels goroutines meanwhile, and audits the books."""
    shared = Shared()
    tasks: list[Any] = [
        (Thread if me % 2 else gmprt.go)(run_program, me, bool(me % 2), program, shared)
        for me, program in enumerate(all_programs)
    ]
    sent: dict[int, list[object]] = {me: [] for me in range(len(tasks))}
    for i, which in enumerate(strikes):
        me = which % len(tasks)
        if me % 2 == 0:
            sent[me].append((me, i))
            tasks[me].cancel((me, i))
        gmprt.gosched()
    books = [t.result(PATIENCE) for t in tasks]
    for me, book in enumerate(books):
        assert len(set(book.cancels)) == len(book.cancels), "each is delivered once"
        assert set(book.cancels) <= set(sent[me])
    assert shared.mutex.try_lock()
    assert shared.rw.try_lock()
    assert shared.lock.acquire(blocking=False)
    assert shared.semaphore.value == shared.UNITS
    assert not shared.guard.locked()
    assert shared.stock == sum(b.stocked for b in books)
    assert not any(shared.inside.values())
