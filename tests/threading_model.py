"""The locks and queues of the standard library, used from goroutines and threads, against models.

Who of several gets a lock is free, as between threads, and of a thread nobody can say whether it
waits already or is about to.  What is not free: a lock is held or it is not, somebody gets it if
somebody wants it, an item is neither lost nor doubled, a cancelled waiter takes no notify with it.
The actors, ways and cancels are those of sync_model.py.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from support import eventually
from sync_model import PROCS, WAYS, WHO, Actor, Machine, Waiter

Timed = Callable[[float | None], object]
"""call(None), or call(seconds): how the library wants it differs."""


def timed(call: Timed) -> Callable[..., object]:
    def with_keyword(timeout: float | None = None) -> object:
        return call(timeout)

    return with_keyword


def acquiring(lock: Any) -> Callable[..., object]:
    def acquire(t: float | None) -> object:
        return lock.acquire() if t is None else lock.acquire(t > 0, t or -1)

    return timed(acquire)


class StandardMachine(Machine):
    """Nobody reports of threads in a lock of the interpreter."""

    threads_report = False

    def race(self, which: int, deed: Callable[[], object]) -> Waiter | None:
        """Cancels a waiter, and at the same time lets one go on: it ends in one of these ways.

        Returned if it was cancelled for nothing, so to say: the deed has served it, and the cancel
        is pending.
        """
        waiters = [w for w in self.waiting.values() if not w.actor.thread and w.way != "shield"]
        waiters = [w for w in waiters if not w.relocks]
        if not waiters:
            deed()
            return None
        waiter = waiters[which % len(waiters)]
        self.steps += 1
        reason = f"cancel {self.steps}"
        if which % 2:
            waiter.actor.task.cancel(reason)
        deed()
        if which % 2 == 0:
            waiter.actor.task.cancel(reason)
        eventually(lambda: waiter.actor.outcome is not None, f"{waiter} ends")
        if waiter.actor.outcome == ("cancelled", reason):
            self.cancelled(waiter, reason)
            return None
        waiter.actor.pending = reason
        return waiter


class MutexMachine(StandardMachine):
    """threading.Lock, or an RLock, which belongs to its actor."""

    @initialize(reentrant=st.booleans(), procs=PROCS)
    def start(self, reentrant: bool, procs: int) -> None:
        self.lock: Any = threading.RLock() if reentrant else threading.Lock()
        self.reentrant = reentrant
        self.owner: Actor | None = None
        self.depth = 0
        self.make(procs)

    @rule(who=WHO, way=WAYS)
    def acquire(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        way = self.perform(actor, way, acquiring(self.lock))
        ready = self.owner is None or (self.reentrant and self.owner is actor)
        if ready:
            self.owner = actor
            self.depth += 1
        self.begin(actor, way, ready, "semacquire")
        self.settle()

    @rule(who=WHO)
    def release(self, who: int) -> None:
        """By its owner, or by whomever: a Lock has none."""
        actor, owner = self.free(who), self.owner
        if actor is None:
            self.lock.release()
            self.given_up()
            self.settle()
            return
        actor.order(lambda: self.lock.release() or "released")
        self.steps += 1
        if owner is None or (self.reentrant and owner is not actor):
            self.ends[actor] = RuntimeError
        else:
            self.ends[actor] = "released"
            self.given_up()
        self.settle()

    def given_up(self) -> None:
        self.depth -= 1
        if self.depth:
            return
        self.owner = None
        if self.waiting:
            self.goes_to(self.observe([*self.waiting.values()]))

    def goes_to(self, waiter: Waiter) -> None:
        self.owner, self.depth = waiter.actor, 1
        self.finish(waiter)

    @rule(which=WHO)
    def cancel_and_release(self, which: int) -> None:
        if self.owner is None or self.reentrant:
            return
        self.owner, self.depth = None, 0
        served = self.race(which, self.lock.release)
        if served:
            self.goes_to(served)
        elif self.waiting:
            self.goes_to(self.observe([*self.waiting.values()]))
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        pass

    @invariant()
    def held_or_not(self) -> None:
        if self.actors and not self.reentrant:
            assert self.lock.locked() == (self.owner is not None)

    def release_all(self) -> None:
        while owner := self.owner:
            idle = [a for a in self.actors if a not in self.waiting]
            self.release(idle.index(owner) if self.reentrant else 0)


class ConditionMachine(StandardMachine):
    """threading.Condition over a Lock, which anybody may release."""

    @initialize(procs=PROCS)
    def start(self, procs: int) -> None:
        self.lock = threading.Lock()
        self.cond: Any = threading.Condition(self.lock)
        self.held = False
        self.wanting: list[Waiter] = []
        self.listed: list[Waiter] = []  # as the Condition has them
        self.gone: list[Waiter] = []  # of these: cancelled, or in a block whose time was up
        self.make(procs)

    @rule(who=WHO, way=WAYS)
    def acquire(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        way = self.perform(actor, way, acquiring(self.cond))
        ready, self.held = not self.held, True
        if waiter := self.begin(actor, way, ready, "semacquire"):
            self.wanting.append(waiter)
        self.settle()

    @rule()
    def release(self) -> None:
        if self.held:
            self.lock.release()
            self.given_up()
            self.settle()

    def given_up(self) -> None:
        self.held = False
        if self.wanting:
            winner = self.observe(self.wanting)
            self.wanting.remove(winner)
            self.held = True
            if winner in self.listed:
                self.listed.remove(winner)
            self.finish(winner)

    @rule(who=WHO, way=WAYS)
    def wait(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        way = self.perform(actor, way, timed(self.cond.wait))
        if not self.held:
            self.ends[actor] = RuntimeError
            self.settle()
            return
        self.waiting[actor] = waiter = Waiter(actor, way, "semacquire", rank=self.steps)
        if way == "poll":
            waiter.outcome = "late"
        elif actor.pending is not None and way != "shield":
            self.goes(waiter, ("cancelled", actor.pending))
            actor.pending = None
        elif way in ("scope", "over"):
            self.goes(waiter, "late")
        elif way == "brief":
            waiter.outcome = "late"
        self.listed.append(waiter)
        if waiter.outcome != "got":
            waiter.relocks = True
            self.wanting.append(waiter)
        self.given_up()
        self.settle()

    def goes(self, waiter: Waiter, outcome: object) -> None:
        """It was told so before it takes the lock again."""
        waiter.outcome = outcome
        self.gone.append(waiter)

    def notify_some(self, n: int) -> None:
        """Who was cancelled takes none; who is late and has not left yet does, as in a thread."""
        self.cond.notify(n)
        for waiter in [*self.listed]:
            if n == 0:
                break
            self.listed.remove(waiter)
            if waiter in self.gone:
                continue
            n -= 1
            if not waiter.relocks:
                waiter.relocks = True
                self.wanting.append(waiter)

    @rule(n=st.integers(1, 3))
    def notify(self, n: int) -> None:
        if self.held:
            self.notify_some(n)
            self.settle()

    def cancelled(self, waiter: Waiter, reason: str) -> None:
        if waiter not in self.listed:
            super().cancelled(waiter, reason)
            return
        waiter.relocks = True
        self.goes(waiter, ("cancelled", reason))
        self.wanting.append(waiter)
        if not self.held:
            self.given_up()

    def forget(self, waiter: Waiter) -> None:
        self.wanting.remove(waiter)

    def settled(self) -> bool:
        if len(self.cond._waiters) != len(self.listed) or not super().settled():
            return False
        return all(takes_again(w.actor) for w in self.waiting.values() if w.relocks)

    @invariant()
    def held_or_not(self) -> None:
        if self.actors:
            assert self.lock.locked() == self.held

    def release_all(self) -> None:
        if not self.held:
            assert self.lock.acquire(blocking=False)
            self.held = True
        self.cond.notify_all()
        for waiter in [*self.listed]:
            self.listed.remove(waiter)
            if not waiter.relocks:
                waiter.relocks = True
                self.wanting.append(waiter)
        self.settle()
        while self.held:
            self.release()


def takes_again(actor: Actor) -> bool:
    """Is it behind the wait?  Whoever waits shortly looks the same in both, but for this."""
    frame = (
        sys._current_frames().get(actor.task.thread.ident) if actor.thread else actor.task.frame()
    )
    return frame is not None and frame.f_code.co_name == "_acquire_restore"


class EventMachine(StandardMachine):
    """threading.Event."""

    @initialize(procs=PROCS)
    def start(self, procs: int) -> None:
        self.event: Any = threading.Event()
        self.make(procs)

    @rule(who=WHO, way=WAYS)
    def wait(self, who: int, way: str) -> None:
        if actor := self.free(who):
            way = self.perform(actor, way, timed(self.event.wait))
            self.begin(actor, way, self.event.is_set(), "semacquire")
            self.settle()

    def set_it(self) -> None:
        self.event.set()
        for waiter in [*self.waiting.values()]:
            self.finish(waiter)

    @rule()
    def set_event(self) -> None:
        self.set_it()
        self.settle()

    @rule()
    def clear(self) -> None:
        self.event.clear()

    @rule()
    def pulse(self) -> None:
        """Who waits goes on, though it is not set any more when he does."""
        self.set_it()
        self.event.clear()
        self.settle()

    @rule(which=WHO)
    def cancel_and_set(self, which: int) -> None:
        if served := self.race(which, self.event.set):
            self.finish(served)
        for waiter in [*self.waiting.values()]:
            self.finish(waiter)
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        pass

    def settled(self) -> bool:
        return len(self.event._cond._waiters) == len(self.waiting) and super().settled()

    def release_all(self) -> None:
        self.set_event()


class QueueMachine(StandardMachine):
    """queue.Queue, queue.SimpleQueue: each item that was put is got once."""

    @initialize(size=st.integers(0, 3), procs=PROCS)
    def start(self, size: int, procs: int) -> None:
        """Size 0 is a SimpleQueue."""
        self.size = size or 1000
        self.queue: Any = queue.Queue(size) if size else queue.SimpleQueue()
        self.items: deque[int] = deque()
        self.getters: list[Waiter] = []
        self.putters: list[Waiter] = []
        self.last = 0
        self.got: dict[Actor, int] = {}
        self.make(procs)

    def fresh(self) -> int:
        self.last += 1
        return self.last

    @rule(who=WHO, way=WAYS)
    def get(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return

        def call(t: float | None) -> bool:
            try:
                self.got[actor] = self.queue.get(t != 0, t or None)
            except queue.Empty:
                return False
            return True

        self.got.pop(actor, None)
        way = self.perform(actor, way, timed(call))
        if waiter := self.begin(actor, way, bool(self.items), "semacquire"):
            self.getters.append(waiter)
        elif self.items:
            self.has_taken(actor)
        self.settle()

    def has_taken(self, actor: Actor) -> None:
        """The first item; then there is room for one more."""
        expected = self.items.popleft()
        eventually(lambda: actor.outcome is not None, f"{actor} gets {expected}")
        assert self.got.pop(actor) == expected
        if self.putters:
            putter = self.observe(self.putters)
            self.putters.remove(putter)
            self.items.append(putter.value)
            self.finish(putter)

    @rule(who=WHO, way=WAYS)
    def put(self, who: int, way: str) -> None:
        if (actor := self.free(who)) is None:
            return
        value = self.fresh()

        def call(t: float | None) -> bool:
            try:
                self.queue.put(value, t != 0, t or None)
            except queue.Full:
                return False
            return True

        way = self.perform(actor, way, timed(call))
        ready = len(self.items) < self.size
        if waiter := self.begin(actor, way, ready, "semacquire"):
            waiter.value = value
            self.putters.append(waiter)
        elif ready:
            self.has_put(value)
        self.settle()

    def has_put(self, value: int) -> None:
        self.items.append(value)
        if self.getters:
            self.serve(self.observe(self.getters))

    def serve(self, getter: Waiter) -> None:
        self.getters.remove(getter)
        self.finish(getter)
        self.has_taken(getter.actor)

    @rule(which=WHO)
    def cancel_and_put(self, which: int) -> None:
        """Into an empty queue for which somebody waits."""
        if self.items or self.putters or not self.getters:
            return
        value = self.fresh()
        served = self.race(which, lambda: self.queue.put(value))
        self.items.append(value)
        if served:
            self.serve(served)
        elif self.getters:
            self.serve(self.observe(self.getters))
        self.settle()

    @rule(which=WHO)
    def cancel_and_get(self, which: int) -> None:
        """From a full one."""
        if not self.putters:
            return
        expected, got = self.items.popleft(), list[int]()
        served = self.race(which, lambda: got.append(self.queue.get()))
        assert got == [expected]
        if not served and self.putters:
            served = self.observe(self.putters)
        if served:
            self.putters.remove(served)
            self.items.append(served.value)
            self.finish(served)
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        (self.getters if waiter in self.getters else self.putters).remove(waiter)

    def settled(self) -> bool:
        if self.size < 1000:
            waiters = len(self.queue.not_empty._waiters), len(self.queue.not_full._waiters)
            if waiters != (len(self.getters), len(self.putters)):
                return False
        return super().settled()

    @invariant()
    def looks_like_the_model(self) -> None:
        if self.actors:
            assert self.queue.qsize() == len(self.items)

    def release_all(self) -> None:
        while self.getters:
            value = self.fresh()
            self.queue.put(value)
            self.has_put(value)
            self.settle()
        while self.putters:
            assert self.queue.get() == self.items.popleft()
            putter = self.observe(self.putters)
            self.putters.remove(putter)
            self.items.append(putter.value)
            self.finish(putter)
            self.settle()
