"""Scopes, contexts and groups in random trees, against a pure-Python model.

An *actor* is a goroutine (one is an OS thread) that lives in nested blocks: it enters and leaves
them, waits, fails, starts members of groups, as the machine orders.  Between orders it is shielded,
so a cancel arrives where it waits, and nowhere else.  The machine lets waits end, and cancels
goroutines, contexts and groups.  Deadlines are far away or over.

The model is a small runtime of its own: each actor is a generator with a stack of scopes, which a
cancel is thrown into.  Actor and model write down what they see: which Cancelled, which block has
swallowed or replaced it, with which cause, how members have ended.  After each step the books are
equal, and all stand where the model says, which the runtime reports.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from support import PATIENCE, Thread, eventually
from sync_model import FAR, PROCS, WHO, foreign_waiting

import gmprt
from gmprt import Cancelled, Chan, ContextCancelled, DeadlineExceeded, Group, context

MOST = 10  # actors


class Failure(Exception):
    """Of what the machine lets fail."""


def told(error: object) -> object:
    """An exception in a form that can be compared: with its cause or reason, and its members."""
    if isinstance(error, Cancelled):
        return "Cancelled", told(error.reason)
    if isinstance(error, gmprt.GoroutineCancelled):
        return "GoroutineCancelled", told(error.reason)
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, sorted((told(e) for e in error.exceptions), key=repr)
    if isinstance(error, BaseException):
        return type(error).__name__, error.args[:1] * isinstance(error, Failure), cause_of(error)
    return error


def cause_of(error: BaseException) -> object:
    return None if error.__cause__ is None else told(error.__cause__)


Order = tuple[Any, ...]
"""("leave",), ("wait", swallows), ("fail", error), ("catch",), ("enter", number, block),
("start", group, actor)"""


# ---- what is compared --------------------------------------------------------------------------


class Real:
    """An actor as it is."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.orders: Chan[Order] = Chan()
        self.gate: Chan[None] = Chan()
        self.book: list[object] = []
        self.task: Any = None

    def run(self) -> None:
        self.level()

    def level(self) -> None:
        while True:
            with gmprt.shield():
                kind, *args = self.orders.recv_ok()[0] or ("leave",)
            if kind == "leave":
                return
            if kind == "fail":
                raise args[0]
            getattr(self, kind)(*args)

    def wait(self, swallows: bool) -> None:
        try:
            self.gate.recv_ok()
        except Cancelled as error:
            self.book.append(("wait", told(error)))
            if not swallows:
                raise

    def catch(self) -> None:
        try:
            self.level()
        except (Exception, Cancelled) as error:
            self.book.append(("caught", told(error)))

    def enter(self, number: int, block: Any) -> None:
        try:
            with block:
                self.level()
        except BaseException as error:
            self.book.append(("left", number, told(error)))
            raise
        else:
            self.book.append(("left", number, None))
        finally:
            if isinstance(block, GroupHere):
                assert all(m.task.done() for m in block.started), "nobody outlives his group"
                assert block.group.count == 0
            else:
                self.book.append(("expired", number, block.expired))

    def start(self, group: GroupHere, member: Real) -> None:
        member.task = group.group.go(member.run)
        group.started.append(member)


class GroupHere:
    """A real group, with who was started in it."""

    def __init__(self, limit: int | None) -> None:
        self.group = Group(limit)
        self.started: list[Real] = []

    def __enter__(self) -> None:
        self.group.__enter__()

    def __exit__(self, *how: Any) -> Any:
        return self.group.__exit__(*how)


# ---- the model -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Scope:
    """A block.  `ends` makes what it ends with of the Cancelled that it has raised."""

    shields: bool = False
    fired: bool = False
    reason: object = None
    ends: Callable[[Cancelled], BaseException | None] | None = None
    delivered: bool = False
    exc: Cancelled | None = None


@dataclass(eq=False)
class Ctx:
    """A context; `core` is what can be cancelled of it."""

    real: Any
    core: Ctx | None
    err: BaseException | None = None
    cause: BaseException | None = None
    below: list[Ctx] = field(default_factory=list)
    scopes: list[tuple[Model, Scope]] = field(default_factory=list)  # that are entered

    def end(self, err: BaseException, cause: BaseException) -> None:
        """All at once."""
        if self.err is not None:
            return
        self.err, self.cause = err, cause
        for model, scope in self.scopes:
            model.fire(scope, cause, at_once=True)
        for child in self.below:
            child.end(err, cause)


Steps = Generator[str, Any, None]


class Model:
    """An actor as it must be.

    Its generator says where it stands: "idle" takes an order; where it waits (PARKED) it is told
    why it runs again, to look or because it was served.
    """

    def __init__(self, world: World, number: int, thread: bool = False) -> None:
        self.world = world
        self.number = number
        self.thread = thread
        self.stack: list[Scope] = []
        self.groups: list[MGroup] = []  # whose body it is in
        self.of: MGroup | None = None  # whose member it is
        self.contexts: list[Ctx] = []
        self.direct = False
        self.reason: object = None
        self.book: list[object] = []
        self.outcome: object = None
        self.depth = 0
        self.generator = self.level()
        self.state = "unborn"

    def born(self) -> None:
        self.state = next(self.generator)

    # -- what is due, and whom it reaches

    def due(self) -> Scope | str | None:
        found: Scope | str | None = None
        for scope in reversed(self.stack):
            if scope.shields:
                return found
            if scope.fired and not scope.delivered:
                found = scope
        return "direct" if self.direct else found

    def fire(self, scope: Scope, reason: object, at_once: bool = False) -> None:
        if not scope.fired:
            if not at_once:
                self.comes_besides()
            scope.fired, scope.reason = True, reason
            self.world.look(self)

    def cancel(self, reason: object) -> None:
        self.comes_besides()
        self.direct, self.reason = True, reason
        self.world.look(self)

    def comes_besides(self) -> None:
        """Is another cancel on its way?  It may have arrived, or is joined by this one."""
        self.world.free |= self.state in PARKED and self.due() is not None

    def again(self, error: BaseException) -> None:
        """One that was raised is pending again."""
        for scope in self.stack:
            if scope.exc is error:
                scope.delivered, scope.exc = False, None
                return
        self.direct = True

    def park(self, where: str) -> Steps:
        while True:
            due = self.due()
            if isinstance(due, Scope):
                due.delivered, due.exc = True, Cancelled(due.reason)
                raise due.exc
            if due:
                self.direct = False
                raise Cancelled(self.reason)
            if (yield where) == "served":
                return

    # -- orders

    def level(self) -> Steps:
        while True:
            kind, *args = yield "idle"
            if kind == "leave":
                return
            if kind == "fail":
                raise args[0]
            yield from getattr(self, kind)(*args)

    def wait(self, swallows: bool) -> Steps:
        try:
            yield from self.park("gate")
        except Cancelled as error:
            self.book.append(("wait", told(error)))
            if not swallows:
                raise

    def catch(self) -> Steps:
        self.depth += 1
        try:
            yield from self.level()
        except (Exception, Cancelled) as error:
            self.book.append(("caught", told(error)))
        self.depth -= 1

    def enter(self, number: int, block: Scope | MGroup) -> Steps:
        depth = self.depth
        self.depth += 1
        scope = block.scope if isinstance(block, MGroup) else block
        try:
            yield from self.inside(block, scope)
        except (Exception, Cancelled) as error:
            self.book.append(("left", number, told(error)))
            raise
        else:
            self.book.append(("left", number, None))
        finally:
            self.depth = depth
            if not isinstance(block, MGroup):
                self.book.append(("expired", number, scope.delivered))

    def inside(self, block: Scope | MGroup, scope: Scope) -> Steps:
        self.stack.append(scope)
        if isinstance(block, MGroup):
            self.groups.append(block)
        error: BaseException | None = None
        try:
            yield from self.level()
        except (Exception, Cancelled) as e:
            error = e
        self.stack.remove(scope)
        own = error is not None and error is scope.exc
        scope.exc = None
        if isinstance(block, MGroup):
            self.groups.remove(block)
            block.entered = False
            yield from block.end(self, None if own else error)
        elif own:
            assert isinstance(error, Cancelled)
            assert scope.ends
            error = scope.ends(error)
            if error is not None:
                raise error
        elif error is not None:
            raise error

    def start(self, group: MGroup, member: Model) -> Steps:
        yield from group.take_slot(self)
        group.start(member)


class MGroup:
    """A group, as the model has it."""

    def __init__(self, owner: Model, limit: int | None) -> None:
        self.owner = owner
        self.slots = limit
        self.wants_slot = False  # the owner waits for one
        self.scope = Scope()
        self.entered = True
        self.members: list[Model] = []
        self.failed: list[BaseException] = []
        self.aborted = False
        self.reason: object = None

    def take_slot(self, starter: Model) -> Steps:
        if self.slots == 0:
            self.wants_slot = True
            try:
                yield from starter.park("slot")
            finally:
                self.wants_slot = False
        elif self.slots is not None:
            self.slots -= 1

    def give_slot(self) -> None:
        if self.slots is not None and self.wants_slot and self.owner.due() is None:
            self.wants_slot = False
            self.owner.world.serve(self.owner, "slot")
        elif self.slots is not None:
            self.slots += 1

    def start(self, member: Model) -> None:
        member.born()
        self.members.append(member)
        member.of = self
        if self.aborted:
            member.cancel(self.reason)

    def abort(self, reason: object) -> None:
        if not self.aborted:
            self.aborted, self.reason = True, reason
        if self.entered and not self.owner.thread:
            self.owner.fire(self.scope, reason)
        for member in self.members:
            member.cancel(reason)

    def abort_for(self, error: BaseException) -> None:
        self.abort(error.reason if isinstance(error, Cancelled) else error)

    def member_ended(self, member: Model, error: BaseException | None) -> None:
        self.members.remove(member)
        if error is not None and not isinstance(error, Cancelled):
            self.failed.append(error)
            if not self.aborted:
                self.abort(error)
        self.give_slot()
        if not self.members:
            self.owner.world.serve(self.owner, "group")

    def end(self, owner: Model, error: BaseException | None) -> Steps:
        if error is not None:
            self.abort_for(error)
        cancels: list[Cancelled] = []
        while self.members:
            try:
                yield from owner.park("group")
            except Cancelled as cancel:
                cancels.append(cancel)
                self.abort_for(cancel)
        cancel_first = [error] if isinstance(error, Cancelled) else cancels[:1]
        causes: list[BaseException] = []
        for cause in [*([] if isinstance(error, Cancelled) else [error]), *self.failed]:
            if cause is not None and cause not in causes:
                causes.append(cause)
        pending = cancels if isinstance(error, Cancelled) else cancels[1:]
        for told_of in [*pending, *(cancel_first if causes else [])]:
            owner.again(told_of)
        if len(causes) > 1:
            raise BaseExceptionGroup("", causes)
        for cause in [*causes, *cancel_first]:
            raise cause


PARKED = {"gate": "chan receive", "group": "sync.WaitGroup.Wait", "slot": "semacquire"}
"""Where actors wait, and what the runtime says then."""


class World:
    """Runs the models, one after the other, until nobody can go on."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Model, str, str]] = deque()
        self.free = False  # what comes now depends on who runs first

    def look(self, model: Model) -> None:
        if model.state in PARKED:
            self.queue.append((model, model.state, "look"))

    def serve(self, model: Model, state: str) -> None:
        if model.state == state:
            self.queue.append((model, state, "served"))

    def order(self, model: Model, order: Order) -> None:
        self.step(model, order)
        while self.queue:
            model, state, why = self.queue.popleft()
            if model.state == state:
                self.step(model, why)

    def run(self) -> None:
        while self.queue:
            model, state, why = self.queue.popleft()
            if model.state == state:
                self.step(model, why)

    def step(self, model: Model, what: object) -> None:
        model.state = "running"
        error: BaseException | None = None
        try:
            model.state = model.generator.send(what)
            return
        except StopIteration:
            pass
        except (Exception, Cancelled) as e:
            error = e
        model.state, model.outcome = "ended", ended_with(error)
        if model.of:
            model.of.member_ended(model, error)


def ended_with(error: BaseException | None) -> object:
    """What exception() of the goroutine says."""
    if isinstance(error, Cancelled):
        return "GoroutineCancelled", told(error.reason)
    return told(error)


# ---- the machine ---------------------------------------------------------------------------------

CONTEXTS = ["cancel", "cancel", "far", "over", "value", "without"]
BLOCKS = ["group"] * 4 + ["context"] * 3 + ["shield", "far", "over", "gone", "late"]
"""fail_after(FAR), fail_after(0), move_on_after(0), move_on_after(FAR)."""


DEEDS = [
    *(["crowd"] * 3 + ["enter"] * 3 + ["start"] * 2 + ["wait"] * 4 + ["leave"] * 2),
    *("go_on", "end", "fail", "catch", "cancel", "cancel"),
    *("make_context", "cancel_context", "cancel_context", "cancel_group"),
]


class ScopeMachine(RuleBasedStateMachine):
    """Trees of goroutines in blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.actors: list[tuple[Real, Model]] = []
        self.groups: list[tuple[GroupHere, MGroup]] = []
        self.real_of: dict[MGroup, GroupHere] = {}
        self.numbers = 0
        self.broken = False

    @initialize(procs=PROCS)
    def begin(self, procs: int) -> None:
        if gmprt.gomaxprocs() != procs:
            gmprt.gomaxprocs(procs)
        self.others = foreign_waiting()
        for thread in (False, False, True):
            real, model = self.actor(thread)
            model.born()
            real.task = Thread(real.run) if thread else gmprt.go(real.run)
        self.settle()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def actor(self, thread: bool = False) -> tuple[Real, Model]:
        number = len(self.actors)
        model = Model(self.world, number, thread)
        self.actors.append((Real(number), model))
        for kind in ("cancel", "cancel") if not thread else ():
            self.context_of(model, kind, 1)
        return self.actors[-1]

    def pick(self, which: int, *states: str) -> tuple[Real, Model] | None:
        found = [a for a in self.actors if a[1].state in states]
        return found[which % len(found)] if found else None

    def order(self, actor: tuple[Real, Model], real: Order, model: Order) -> None:
        actor[0].orders.send(real, timeout=PATIENCE)
        self.world.order(actor[1], model)
        self.settle()

    # ---- looking

    def settle(self) -> None:
        self.broken = True
        if self.world.free:
            return
        eventually(self.settled, "as the model has it")
        for real, model in self.actors:
            assert real.book == model.book, (real.number, real.book, model.book)
        self.broken = False

    def settled(self) -> bool:
        threads = 0
        for real, model in self.actors:
            if model.state == "ended":
                if not real.task.join(0):
                    return False
            elif model.state == "idle":
                if real.orders.waiting() != (0, 1):
                    return False
            elif model.state == "gate":
                if real.gate.waiting() != (0, 1):
                    return False
            elif model.state in PARKED and not model.thread:
                now = real.task.state, real.task.wait_reason
                if now != ("waiting", PARKED[model.state]):
                    return False
            threads += model.thread and model.state != "ended"
        return foreign_waiting() == self.others + threads

    # One rule, not one for each deed: Hypothesis leaves out rules in each run, and without waits or
    # blocks nothing happens.  No drawings depend on the state, see chan_model.py.

    @rule(deed=st.sampled_from(DEEDS), who=WHO, which=WHO)
    def do(self, deed: str, who: int, which: int) -> None:
        if not self.world.free:
            getattr(self, deed)(who, which)

    # ---- what actors do

    def enter(self, who: int, which: int) -> None:
        kind = BLOCKS[which % len(BLOCKS)]
        actor = self.pick(who, "idle")
        if actor is None or actor[1].depth > 5:
            return
        number, model = self.number(), actor[1]
        if model.thread and kind != "shield":
            kind = "group"
        if kind == "context" and not model.contexts:
            kind = "group"
        if kind == "group":
            self.enter_group(actor, which)
        elif kind == "context":
            ctx = model.contexts[which % len(model.contexts)]
            scope = Scope(ends=lambda cancelled: context_error(ctx, cancelled))
            if ctx.core:
                if ctx.core.err is not None:
                    scope.fired, scope.reason = True, ctx.core.cause
                ctx.core.scopes.append((model, scope))
            self.order(actor, ("enter", number, ctx.real.scope()), ("enter", number, scope))
        else:
            block, scope = timed_block(kind)
            self.order(actor, ("enter", number, block), ("enter", number, scope))

    def enter_group(self, actor: tuple[Real, Model], which: int) -> None:
        limit = 1 + which % 2 if which % 3 == 0 else None
        here, there = GroupHere(limit), MGroup(actor[1], limit)
        self.groups.append((here, there))
        self.real_of[there] = here
        number = self.number()
        self.order(actor, ("enter", number, here), ("enter", number, there))

    def leave(self, who: int, _: int) -> None:
        """A block, or the function."""
        actor = self.pick(who, "idle")
        if actor and actor[1].depth:
            self.order(actor, ("leave",), ("leave",))

    def end(self, who: int, often: int) -> None:
        """The function of a member, rather than that of a root."""
        actor = self.pick(who, "idle")
        if actor and not actor[1].depth and (actor[1].of or often % 4 == 0):
            self.order(actor, ("leave",), ("leave",))

    def wait(self, who: int, which: int) -> None:
        swallows = which % 3 == 0
        if actor := self.pick(who, "idle"):
            self.order(actor, ("wait", swallows), ("wait", swallows))

    def go_on(self, who: int, _: int) -> None:
        """A wait ends."""
        if actor := self.pick(who, "gate"):
            self.let_go(actor)

    def let_go(self, actor: tuple[Real, Model]) -> None:
        actor[0].gate.send(None, timeout=PATIENCE)
        self.world.serve(actor[1], "gate")
        self.world.run()
        self.settle()

    def fail(self, who: int, _: int) -> None:
        actor = self.pick(who, "idle")
        if actor and (actor[1].depth or actor[1].of):
            number = self.number()
            self.order(actor, ("fail", Failure(number)), ("fail", Failure(number)))

    def catch(self, who: int, _: int) -> None:
        actor = self.pick(who, "idle")
        if actor and actor[1].depth <= 5:
            self.order(actor, ("catch",), ("catch",))

    def start(self, who: int, which: int) -> None:
        """A member of a group: by whose block it is, or by another member; there may be no slot."""
        actor = self.pick(who, "idle")
        if actor:
            self.start_one(actor, which)

    def start_one(self, actor: tuple[Real, Model], which: int) -> None:
        if sum(m.state != "ended" for _, m in self.actors) >= MOST:
            return
        groups = [*actor[1].groups]
        of = actor[1].of
        if of and of.slots is None:  # else it could wait for itself
            groups.append(of)
        if groups:
            group = groups[which % len(groups)]
            real, model = self.actor()
            self.order(actor, ("start", self.real_of[group], real), ("start", group, model))

    def crowd(self, who: int, which: int) -> None:
        """A group, members that wait, and then its body does."""
        actor = self.pick(who, "idle")
        if actor is None or actor[1].depth > 5:
            return
        first = len(self.actors)
        self.enter_group(actor, which)
        for _ in range(3):
            if actor[1].state == "idle" and not self.world.free:
                self.start_one(actor, len(actor[1].groups) - 1)
        for member in [*self.actors[first:], actor][: 1 + which % 4]:
            if member[1].state == "idle" and not self.world.free:
                self.order(member, ("wait", False), ("wait", False))

    # ---- what happens to them

    def cancel(self, who: int, _: int) -> None:
        actor = self.pick(who, "idle", *PARKED, *PARKED)
        if actor is None or actor[1].thread:
            return
        reason = f"cancel {self.number()}"
        assert actor[0].task.cancel(reason)
        actor[1].cancel(reason)
        self.world.run()
        self.settle()

    def cancel_group(self, _: int, which: int) -> None:
        groups = [(h, t) for h, t in self.groups if t.entered or t.members]
        if not groups:
            return
        here, there = groups[which % len(groups)]
        reason = f"group {self.number()}"
        here.group.cancel(reason)
        there.abort(reason)
        self.world.run()
        self.settle()

    def make_context(self, who: int, which: int) -> None:
        """Each actor has its own, so that each event has one place where it begins."""
        actor = self.pick(who, "idle", *PARKED)
        if actor and not actor[1].thread and len(actor[1].contexts) < 7:
            self.context_of(actor[1], CONTEXTS[which % len(CONTEXTS)], which)

    def context_of(self, model: Model, kind: str, parent: int) -> None:
        known = model.contexts
        up = known[parent % len(known)] if known and parent % 4 else Ctx(context.background(), None)
        if kind == "value":
            known.append(Ctx(context.with_value("key", kind, up.real), up.core))
            return
        if kind == "without":
            known.append(Ctx(context.without_cancel(up.real), None))
            return
        ctx = Ctx(None, None)
        ctx.core = ctx
        if kind == "cancel":
            ctx.real = context.with_cancel_cause(up.real)
        else:
            ctx.real = context.with_timeout(FAR if kind == "far" else 0, up.real)
        if up.core and up.core.err is not None:
            ctx.err, ctx.cause = up.core.err, up.core.cause
        elif up.core:
            up.core.below.append(ctx)
        if kind == "over" and ctx.err is None:
            ctx.err = ctx.cause = DeadlineExceeded()
        known.append(ctx)

    def cancel_context(self, who: int, which: int) -> None:
        why = which % 2 == 0
        actors = [a for a in self.actors if a[1].contexts]
        if not actors:
            return
        _, model = actors[which // 2 % len(actors)]
        own = [c for c in model.contexts if c.core is c]
        if not own:
            return
        ctx = own[who % len(own)]
        number = self.number()
        ctx.real.cancel(Failure(number) if why else None)
        err = ContextCancelled()
        ctx.end(err, Failure(number) if why else err)
        self.world.run()
        self.settle()
        for c in model.contexts:
            core = c.core or c
            assert told(c.real.err()) == told(core.err)
            assert told(context.cause(c.real)) == told(core.cause)

    # ---- the end

    def abandon(self) -> None:
        """Nobody knows what they do, but that they end when they are let go."""
        for real, _ in self.actors:
            real.orders.close()
            real.gate.close()
        for real, _ in self.actors:
            if real.task:
                real.task.exception(PATIENCE)

    def teardown(self) -> None:
        while not self.broken:
            alive = [a for a in self.actors if a[1].state in ("idle", "gate")]
            if not alive:
                break
            actor = alive[-1]
            if actor[1].state == "gate":
                self.let_go(actor)
            else:
                self.order(actor, ("leave",), ("leave",))
        if self.broken:
            self.abandon()
            return
        for real, model in self.actors:
            assert model.state in ("ended", "unborn")
            if model.state == "ended":
                outcome = told(real.task.exception(PATIENCE))
                assert outcome == model.outcome, (real.number, outcome, model.outcome)


def timed_block(kind: str) -> tuple[Any, Scope]:
    if kind == "shield":
        return gmprt.shield(), Scope(shields=True)
    seconds = FAR if kind in ("far", "late") else 0
    scope = Scope(fired=seconds == 0, reason="deadline exceeded")
    if kind in ("gone", "late"):
        scope.ends = lambda _: None
        return gmprt.move_on_after(seconds), scope

    def ends(cancelled: Cancelled) -> BaseException:
        error = DeadlineExceeded()
        error.__cause__ = cancelled
        return error

    scope.ends = ends
    return gmprt.fail_after(seconds), scope


def context_error(ctx: Ctx, cancelled: Cancelled) -> BaseException:
    core = ctx.core
    assert core
    error = type(core.err)() if core.err else AssertionError()
    error.__cause__ = core.cause if core.cause is not core.err else cancelled
    return error
