"""A pure-Python model of channels and select, and a Hypothesis machine that compares it with them.

The machine runs one operation after the other, each in a goroutine or an OS thread of its own, and
waits until it has either ended or stands where the model says that it waits.  So everything that is
defined is checked exactly: who is served, in which order, with which value, and what is left.
Only the choice among several ready cases is free: there the model follows what it sees, if it is
allowed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support import PATIENCE, Task, Thread, ended, eventually

import gmprt
from gmprt import Chan, Recv, Send


@dataclass(eq=False)
class Case:
    """One case of an operation: which channel (None: nil), and what to send (None: receive)."""

    chan: int | None
    sends: bool = False
    value: int = 0


@dataclass(eq=False)
class Waiter:
    """An operation that waits, in the queues of all its channels."""

    task: Task[Any]
    cases: list[Case]
    most: int = 1  # recv_many: how many it takes of what is there when it runs again


@dataclass(eq=False)
class ChanModel:
    capacity: int
    buffer: deque[int] = field(default_factory=deque)
    closed: bool = False
    given_back: int = 0
    senders: list[Waiter] = field(default_factory=list)
    receivers: list[Waiter] = field(default_factory=list)

    def ready(self, case: Case) -> bool:
        if case.sends:
            return self.closed or bool(self.receivers) or len(self.buffer) < self.capacity
        return self.closed or bool(self.senders) or bool(self.buffer)


class ChannelMachine(RuleBasedStateMachine):
    """Channels of these capacities; subclasses say which operations are tried."""

    def __init__(self) -> None:
        super().__init__()
        self.real: list[Chan[int]] = []
        self.model: list[ChanModel] = []
        self.waiters: list[Waiter] = []
        self.last = 0

    def make(self, capacities: list[int]) -> None:
        self.real = [Chan(c) for c in capacities]
        self.model = [ChanModel(c) for c in capacities]

    def fresh(self) -> int:
        """Every value is sent once."""
        self.last += 1
        return self.last

    # ---- one operation --------------------------------------------------------------------------

    def perform(
        self, cases: list[Case], call: Any, *, thread: bool, patience: float | None = None
    ) -> None:
        """Runs call() in a task; patience 0 or more: it gives up instead of waiting."""
        task: Task[Any] = Thread(call) if thread else gmprt.go(call)
        ready = [c for c in cases if c.chan is not None and self.model[c.chan].ready(c)]
        if ready:
            self.finish(task, cases, ready)
        elif patience is not None:
            error = task.exception(PATIENCE)
            assert isinstance(error, (gmprt.Timeout, gmprt.WouldBlock)), error
        else:
            waiter = Waiter(task, cases)
            self.waiters.append(waiter)
            for case in cases:
                if case.chan is not None:
                    queue = self.queue(case)
                    if waiter not in queue:
                        queue.append(waiter)
            eventually(self.as_many_wait, "the operation waits")

    def queue(self, case: Case) -> list[Waiter]:
        assert case.chan is not None
        model = self.model[case.chan]
        return model.senders if case.sends else model.receivers

    def finish(self, task: Task[Any], cases: list[Case], allowed: list[Case]) -> None:
        """The operation need not wait: it must end with one of the allowed cases."""
        error = task.exception(PATIENCE)
        if isinstance(error, gmprt.ChannelClosed) and not isinstance(error, gmprt.EndOfChannel):
            assert any(c.sends and self.chan(c).closed for c in allowed)
            return
        assert error is None, error
        case, value, ok = self.outcome(task, cases)
        assert case in allowed
        model = self.chan(case)
        if case.sends:
            assert not model.closed
            assert ok
            self.sent(model, case)
        else:
            assert (value, ok) == self.received(model)

    def chan(self, case: Case) -> ChanModel:
        assert case.chan is not None
        return self.model[case.chan]

    def outcome(self, task: Task[Any], cases: list[Case]) -> tuple[Case, int | None, bool]:
        index, value, ok = task.result(PATIENCE)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value  # of a recv_many
        return cases[index], value, ok

    def sent(self, model: ChanModel, case: Case) -> None:
        if not model.receivers:
            model.buffer.append(case.value)
            return
        case_served, value, ok = self.served(model.receivers[0], model, sends=False)
        assert not case_served.sends
        assert (value, ok) == (case.value, True)

    def received(self, model: ChanModel) -> tuple[int | None, bool]:
        """What a receive must give now."""
        if model.senders and len(model.buffer) <= model.capacity:  # more: given back
            served, _, ok = self.served(model.senders[0], model, sends=True)
            assert ok
            model.buffer.append(served.value)
        if model.buffer:
            return model.buffer.popleft(), True
        assert model.closed
        return None, False

    def served(
        self, waiter: Waiter, model: ChanModel, *, sends: bool
    ) -> tuple[Case, int | None, bool]:
        """The first of a queue has been served by another operation: how did it end?"""
        self.forget(waiter)
        case, value, ok = self.outcome(waiter.task, waiter.cases)
        assert self.chan(case) is model
        assert case.sends == sends
        return case, value, ok

    def forget(self, waiter: Waiter) -> None:
        self.waiters.remove(waiter)
        for model in self.model:
            for queue in (model.senders, model.receivers):
                if waiter in queue:
                    queue.remove(waiter)

    # ---- what can be seen of a channel ----------------------------------------------------------

    def as_many_wait(self) -> bool:
        return all(
            real.waiting() == (self.count(i, True), self.count(i, False))
            for i, real in enumerate(self.real)
        )

    def count(self, chan: int, sends: bool) -> int:
        return sum(c.chan == chan and c.sends == sends for w in self.waiters for c in w.cases)

    @invariant()
    def looks_like_the_model(self) -> None:
        assert self.as_many_wait(), (self.real, self.waiters)
        for real, model in zip(self.real, self.model, strict=True):
            assert len(real) == len(model.buffer) <= model.capacity + model.given_back
            assert real.capacity == model.capacity
            assert real.closed == model.closed
        for waiter in self.waiters:
            assert not waiter.task.join(0)

    # ---- rules that all machines share ----------------------------------------------------------

    # No rule's presence or drawings depend on the state: select's own chance decides about that,
    # and Hypothesis must be able to repeat what it has drawn.

    @rule(which=st.integers(0, 2), rarely=st.integers(0, 3))
    def close(self, which: int, rarely: int) -> None:
        """Rarely: a closed channel is soon dull."""
        if rarely == 0 and which < len(self.model) and not self.model[which].closed:
            self.close_one(which)

    def close_one(self, i: int) -> None:
        self.real[i].close()
        model = self.model[i]
        model.closed = True
        woken = list(dict.fromkeys([*model.receivers, *model.senders]))
        for waiter in woken:
            self.forget(waiter)
            error = waiter.task.exception(PATIENCE)
            directions = {c.sends for c in waiter.cases if c.chan == i}
            if isinstance(error, gmprt.ChannelClosed):
                assert True in directions
            else:
                assert error is None
                case, value, ok = self.outcome(waiter.task, waiter.cases)
                assert (case.chan, case.sends, value, ok) == (i, False, None, False)

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        goroutines = [w for w in self.waiters if isinstance(w.task, gmprt.Goroutine)]
        if not goroutines:
            return
        waiter = goroutines[which % len(goroutines)]
        assert isinstance(waiter.task, gmprt.Goroutine)
        self.forget(waiter)
        waiter.task.cancel()
        assert isinstance(waiter.task.exception(PATIENCE), gmprt.GoroutineCancelled)

    def teardown(self) -> None:
        for i, model in enumerate(self.model):
            if not model.closed:
                self.close_one(i)
        assert not self.waiters
        for real, model in zip(self.real, self.model, strict=True):
            assert list(real) == list(model.buffer)
        eventually(lambda: gmprt.num_goroutine() <= (gmprt.current() is not None))


class SingleMachine(ChannelMachine):
    """Every operation of a channel, one channel."""

    @initialize(capacity=st.sampled_from([0, 0, 1, 2, 5]))
    def start(self, capacity: int) -> None:
        self.make([capacity])

    @rule(thread=st.booleans(), view=st.booleans())
    def send(self, thread: bool, view: bool) -> None:
        value = self.fresh()
        ch: Any = self.real[0].sender if view else self.real[0]
        self.perform(
            [Case(0, True, value)], lambda: (ch.send(value), (0, None, True))[1], thread=thread
        )

    @rule(thread=st.booleans(), way=st.sampled_from(["recv", "recv_ok", "next", "view"]))
    def recv(self, thread: bool, way: str) -> None:
        ch = self.real[0]

        def call() -> Any:
            if way == "recv_ok":
                return (0, *ch.recv_ok())
            try:
                if way == "next":
                    return 0, next(iter(ch)), True
                return 0, (ch.receiver if way == "view" else ch).recv(), True
            except (gmprt.EndOfChannel, StopIteration):
                return 0, None, False

        self.perform([Case(0)], call, thread=thread)

    @rule(thread=st.booleans(), timeout=st.sampled_from([-1, 0, 0.0005]))
    def send_without_patience(self, thread: bool, timeout: float) -> None:
        value = self.fresh()
        ch = self.real[0]

        def call() -> Any:
            if timeout < 0:
                ch.send_nowait(value)
            else:
                ch.send(value, timeout=timeout)
            return 0, None, True

        self.perform([Case(0, True, value)], call, thread=thread, patience=timeout)

    @rule(thread=st.booleans(), timeout=st.sampled_from([-1, 0, 0.0005]))
    def recv_without_patience(self, thread: bool, timeout: float) -> None:
        ch = self.real[0]

        def call() -> Any:
            try:
                return 0, ch.recv_nowait() if timeout < 0 else ch.recv(timeout=timeout), True
            except gmprt.EndOfChannel:
                return 0, None, False

        self.perform([Case(0)], call, thread=thread, patience=timeout)

    @rule(thread=st.booleans(), view=st.booleans(), count=st.integers(0, 9))
    def send_many(self, thread: bool, view: bool, count: int) -> None:
        """As many as need not wait; those who waited in recv_many then take what is there."""
        values = [self.fresh() for _ in range(count)]
        ch: Any = self.real[0].sender if view else self.real[0]
        task: Task[int] = (Thread if thread else gmprt.go)(ch.send_many, values, timeout=0)
        model = self.model[0]
        served = [] if model.closed else self.shares(model.receivers, values)
        direct = sum(len(share) for _, share in served)
        room = max(0, model.capacity - len(model.buffer)) + direct
        goes = 0 if model.closed else min(count, room)
        error = task.exception(PATIENCE)
        if goes == count:
            assert error is None
            assert task.result(PATIENCE) == count
        else:
            expected = gmprt.ChannelClosed if model.closed else gmprt.Timeout
            assert isinstance(error, expected)
            assert error.sent == goes
        for waiter, _ in served:
            self.forget(waiter)
        model.buffer.extend(values[direct:goes])
        self.taken_besides(served)

    @staticmethod
    def shares(receivers: list[Waiter], values: list[int]) -> list[tuple[Waiter, list[int]]]:
        """Who waits gets a value; the last, behind whom nobody waits, as many as it asks for."""
        alone = values[len(receivers) - 1 :]
        return [
            (waiter, alone[: waiter.most] if waiter is receivers[-1] else [value])
            for waiter, value in zip(receivers, values, strict=False)
        ]

    def taken_besides(self, served: list[tuple[Waiter, list[int]]]) -> None:
        """Each has its share, in order, and some of the buffer; who runs first of them is free."""
        parts: list[list[int]] = []
        buffer = self.model[0].buffer
        full = True
        for waiter, share in served:
            _, got, ok = self.outcome(waiter.task, waiter.cases)
            got_all = got if isinstance(got, list) else [got]
            assert (got_all[: len(share)], ok) == (share, True)
            assert len(got_all) <= waiter.most
            full = full and len(got_all) == waiter.most
            parts.append(got_all[len(share) :])
        for part in sorted(part for part in parts if part):
            assert [buffer.popleft() for _ in part] == part
        assert full or not buffer or not served

    @rule(rarely=st.integers(0, 2))
    def give_back(self, rarely: int) -> None:
        """What was received and cannot be used is the next to be received."""
        if rarely != 0:
            return
        value, model = self.fresh(), self.model[0]
        gmprt._core.chan_give_back(self.real[0], value)
        if model.receivers:
            _, got, ok = self.served(model.receivers[0], model, sends=False)
            assert (got, ok) == (value, True)
        else:
            model.buffer.appendleft(value)
            model.given_back += 1

    @rule(thread=st.booleans(), view=st.booleans(), most=st.integers(1, 9))
    def recv_many(self, thread: bool, view: bool, most: int) -> None:
        ch: Any = self.real[0].receiver if view else self.real[0]
        model = self.model[0]

        def call() -> Any:
            try:
                return 0, ch.recv_many(most), True
            except gmprt.EndOfChannel:
                return 0, None, False

        if not model.ready(Case(0)):
            self.perform([Case(0)], call, thread=thread)
            self.waiters[-1].most = most
            return
        index, values, ok = (Thread if thread else gmprt.go)(call).result(PATIENCE)
        assert index == 0
        if values is None:
            assert not ok
            assert self.received(model) == (None, False)
            return
        for value in values:
            assert self.received(model) == (value, True)
        assert len(values) == most or not (model.buffer or model.senders)


class SelectMachine(ChannelMachine):
    """select over three channels, any number of cases, the same channel several times."""

    @initialize(capacities=st.tuples(*[st.sampled_from([0, 0, 1, 3])] * 3))
    def start(self, capacities: tuple[int, ...]) -> None:
        self.make(list(capacities))

    cases = st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 0, 1, 2, None]), st.booleans()), min_size=1, max_size=10
    )

    @rule(
        wanted=cases,
        thread=st.booleans(),
        patience=st.sampled_from([None, None, "default", 0, 0.0005]),
        built=st.booleans(),
    )
    def select(
        self, wanted: list[tuple[int | None, bool]], thread: bool, patience: Any, built: bool
    ) -> None:
        if patience is None and all(chan is None for chan, _ in wanted):
            patience = 0  # nobody could wake it
        cases = [Case(chan, sends, self.fresh()) for chan, sends in wanted]
        given: list[Any] = []
        for case in cases:
            ch = None if case.chan is None else self.real[case.chan]
            given.append(Send(ch, case.value) if case.sends else Recv(ch) if built else ch)
        options: dict[str, Any] = {}
        if patience == "default":
            options = {"default": True}
        elif patience is not None:
            options = {"timeout": patience}

        def call() -> Any:
            sel = gmprt.Select(*given)(**options) if built else gmprt.select(*given, **options)
            if sel.index < 0:
                raise gmprt.WouldBlock
            return tuple(sel)

        self.perform(cases, call, thread=thread, patience=patience)

    @rule(chan=st.integers(0, 2), sends=st.booleans(), thread=st.booleans())
    def plain(self, chan: int, sends: bool, thread: bool) -> None:
        """The other side: selects meet plain operations."""
        case = Case(chan, sends, self.fresh())
        ch = self.real[chan]

        def call() -> Any:
            if sends:
                ch.send(case.value)
                return 0, None, True
            return (0, *ch.recv_ok())

        self.perform([case], call, thread=thread)


# ---- programs that really run at the same time -------------------------------------------------


@dataclass
class Step:
    """One operation of a program."""

    chan: int
    kind: str  # "send", "recv", "send_many", "recv_many", "select", "yield"
    patience: float | None
    other: int


steps = st.builds(
    Step,
    st.integers(0, 2),
    st.sampled_from(
        ["send"] * 5 + ["recv"] * 5 + ["send_many", "recv_many"] * 2 + ["select"] * 3 + ["yield"]
    ),
    st.sampled_from([-1, 0, 0.0003, 0.001]),
    st.integers(0, 2),
)
"""Without a close: it is put at the end of some programs."""

programs = st.lists(st.lists(steps, min_size=1, max_size=15), min_size=2, max_size=6)
capacities = st.tuples(*[st.sampled_from([0, 0, 1, 2])] * 3)


@dataclass
class Book:
    """What one runner of a program has seen: (channel, value) in order."""

    sent: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    got: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    refused: int = 0
    ends: set[int] = field(default_factory=set)


def run_program(me: int, program: list[Step], chans: list[Chan[tuple[int, int]]]) -> Book:
    """Runs the steps, each with limited patience; values are (runner, number)."""
    book = Book()
    for number, step in enumerate(program):
        ch, value = chans[step.chan], (me, MANY * number)
        try:
            if step.kind == "yield":
                gmprt.gosched()
            elif step.kind == "send":
                if step.patience == -1:
                    ch.send_nowait(value)
                else:
                    ch.send(value, timeout=step.patience)
                book.sent.append((step.chan, value))
            elif step.kind == "recv":
                receive = ch.recv_nowait if step.patience == -1 else ch.recv
                got = receive(**({} if step.patience == -1 else {"timeout": step.patience}))
                book.got.append((step.chan, got))
            elif step.kind == "send_many":
                send_many_step(book, step, [(me, MANY * number + k) for k in range(MANY)], ch)
            elif step.kind == "recv_many":
                part = ch.recv_many(3, timeout=max(step.patience or 0, 0))
                assert 1 <= len(part) <= 3
                book.got += [(step.chan, got) for got in part]
            else:
                select_step(book, step, value, chans)
        except (gmprt.Timeout, gmprt.WouldBlock):
            pass
        except gmprt.EndOfChannel:
            book.ends.add(step.chan)
        except gmprt.ChannelClosed:
            book.refused += 1
        for i in range(3):
            assert 0 <= len(chans[i]) <= chans[i].capacity
    return book


MANY = 4


def send_many_step(
    book: Book, step: Step, values: list[tuple[int, int]], ch: Chan[tuple[int, int]]
) -> None:
    sent = 0
    try:
        sent = ch.send_many(values, timeout=max(step.patience or 0, 0))
    except (gmprt.Timeout, gmprt.ChannelClosed) as error:
        sent = error.sent
        raise
    finally:
        book.sent += [(step.chan, value) for value in values[:sent]]


def select_step(
    book: Book, step: Step, value: tuple[int, int], chans: list[Chan[tuple[int, int]]]
) -> None:
    cases = [Send(chans[step.chan], value), Recv(chans[step.other]), chans[step.chan]]
    if step.patience == -1:
        sel = gmprt.select(*cases, default=True)
    else:
        sel = gmprt.select(*cases, timeout=step.patience)
    where = step.other if sel.index == 1 else step.chan
    if sel.index == 0:
        book.sent.append((where, value))
    elif sel.ok:
        book.got.append((where, sel.value))
    elif sel.index > 0:
        book.ends.add(where)


def check_concurrent(sizes: tuple[int, ...], all_programs: list[list[Step]], closes: bool) -> None:
    """Runs the programs side by side, every other one in a thread, and audits the books."""
    chans: list[Chan[tuple[int, int]]] = [Chan(c) for c in sizes]
    tasks: list[Task[Book]] = []
    for me, program in enumerate(all_programs):
        start = Thread if me % 2 else gmprt.go
        tasks.append(start(run_program, me, program, chans))
    if closes:
        chans[0].close()
    books = [t.result(PATIENCE) for t in tasks]
    ended(*tasks)  # type: ignore[arg-type]
    for i, ch in enumerate(chans):
        if not (closes and i == 0):
            assert not any(i in b.ends for b in books)
            ch.close()
        assert ch.waiting() == (0, 0)
        left = list(ch)
        assert len(left) <= sizes[i]
        audit(i, books, left)
    if not closes:
        assert not any(b.refused for b in books)


def audit(chan: int, books: list[Book], left: list[tuple[int, int]]) -> None:
    """What was sent was received or is left, once; one sender's values stay in order."""
    sent = [v for b in books for c, v in b.sent if c == chan]
    taken = [[v for c, v in b.got if c == chan] for b in books] + [left]
    assert sorted(v for part in taken for v in part) == sorted(sent)
    for part in taken:
        for sender in range(len(books)):
            numbers = [n for s, n in part if s == sender]
            assert numbers == sorted(numbers)
