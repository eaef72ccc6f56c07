"""Mutex, RWMutex, Semaphore, WaitGroup and Cond against models in pure Python.

A Hypothesis machine waits, with and without patience, frees, and cancels who waits: alone, just
before somebody is served, and just behind that.  One step comes after the other, so who is served,
in which order, and what is left is known exactly; the model says it before the step is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support import PATIENCE, Thread, parked

import gmprt
from gmprt import Cond, Goroutine, GoroutineCancelled, Mutex, RWMutex, Semaphore, WaitGroup, go


@dataclass(eq=False)
class Waiter:
    g: Goroutine[bool]
    way: str


class Model:
    """What all have in common: some operations wait, others let waiters go, in their order."""

    real: Any
    reasons: dict[str, str]
    """By the operation that waits: the reason that its goroutine tells."""
    frees: tuple[str, ...]

    def __init__(self) -> None:
        self.waiting: list[Waiter] = []

    def call(self, way: str, **options: float) -> bool:
        return bool(getattr(self.real, way)(**options))

    def free(self, free: str) -> None:
        getattr(self.real, free)()

    def ready(self, way: str) -> bool:
        """Whether that operation need not wait."""
        raise NotImplementedError

    def taken(self, way: str) -> None:
        """It has not waited, or was served."""

    def allowed(self, free: str) -> bool:
        """Else it is a misuse."""
        return True

    def freed(self, free: str) -> list[Waiter]:
        """It has been called: who is served by that."""
        raise NotImplementedError

    def left(self, waiter: Waiter) -> list[Waiter]:
        """He was cancelled: who is served by that."""
        return []

    def state(self) -> tuple[object, object]:
        """The model's, and the real one."""
        return None, None

    def serve(self, waiters: list[Waiter]) -> list[Waiter]:
        for waiter in waiters:
            self.waiting.remove(waiter)
            self.taken(waiter.way)
        return waiters


class OfSemaphore(Model):
    reasons = {"acquire": "semacquire"}
    frees = ("release",)

    def __init__(self) -> None:
        super().__init__()
        self.real, self.value = Semaphore(2), 2

    def ready(self, way: str) -> bool:
        return self.value > 0

    def taken(self, way: str) -> None:
        self.value -= 1

    def freed(self, free: str) -> list[Waiter]:
        self.value += 1
        return self.serve(self.waiting[:1])

    def state(self) -> tuple[object, object]:
        return self.value, self.real.value


class OfMutex(Model):
    reasons = {"lock": "sync.Mutex.Lock"}
    frees = ("unlock",)

    def __init__(self) -> None:
        super().__init__()
        self.real, self.locked = Mutex(), False

    def ready(self, way: str) -> bool:
        return not self.locked

    def taken(self, way: str) -> None:
        self.locked = True

    def allowed(self, free: str) -> bool:
        return self.locked

    def freed(self, free: str) -> list[Waiter]:
        self.locked = False
        return self.serve(self.waiting[:1])

    def state(self) -> tuple[object, object]:
        return self.locked, self.real.locked()


class OfRWMutex(Model):
    reasons = {"lock": "sync.RWMutex.Lock", "rlock": "sync.RWMutex.RLock"}
    frees = ("unlock", "runlock")

    def __init__(self) -> None:
        super().__init__()
        self.real, self.writer, self.readers = RWMutex(), False, 0

    def of(self, way: str) -> list[Waiter]:
        return [waiter for waiter in self.waiting if waiter.way == way]

    def ready(self, way: str) -> bool:
        if way == "rlock":
            return not self.writer and not self.of("lock")
        return not self.writer and not self.readers

    def taken(self, way: str) -> None:
        self.writer |= way == "lock"
        self.readers += way == "rlock"

    def allowed(self, free: str) -> bool:
        return self.writer if free == "unlock" else self.readers > 0

    def freed(self, free: str) -> list[Waiter]:
        if free == "unlock":
            self.writer = False
            return self.serve(self.of("rlock") or self.of("lock")[:1])
        self.readers -= 1
        return self.serve([] if self.readers else self.of("lock")[:1])

    def left(self, waiter: Waiter) -> list[Waiter]:
        return [] if self.writer or self.of("lock") else self.serve(self.of("rlock"))

    def state(self) -> tuple[object, object]:
        return (self.writer, self.readers), (self.real.locked, self.real.readers)


class OfWaitGroup(Model):
    reasons = {"wait": "sync.WaitGroup.Wait"}
    frees = ("done", "add")

    def __init__(self) -> None:
        super().__init__()
        self.real, self.count = WaitGroup(), 0

    def ready(self, way: str) -> bool:
        return self.count == 0

    def allowed(self, free: str) -> bool:
        return self.count > 0 or free == "add"

    def freed(self, free: str) -> list[Waiter]:
        self.count += 1 if free == "add" else -1
        return self.serve([] if self.count else list(self.waiting))

    def state(self) -> tuple[object, object]:
        return self.count, self.real.count


class OfCond(Model):
    reasons = {"wait": "sync.Cond.Wait"}
    frees = ("signal", "broadcast")

    def __init__(self) -> None:
        super().__init__()
        self.real = Cond(Mutex())

    def call(self, way: str, **options: float) -> bool:
        with self.real:
            return bool(self.real.wait(**options))

    def ready(self, way: str) -> bool:
        return False

    def freed(self, free: str) -> list[Waiter]:
        return self.serve(self.waiting[:1] if free == "signal" else list(self.waiting))

    def state(self) -> tuple[object, object]:
        return False, self.real.lock.locked()


class SyncMachine(RuleBasedStateMachine):
    kinds: tuple[Callable[[], Model], ...] = (
        OfSemaphore,
        OfMutex,
        OfRWMutex,
        OfWaitGroup,
        OfCond,
    )

    def __init__(self) -> None:
        super().__init__()
        self.models = [make() for make in self.kinds]

    def model(self, kind: int) -> Model:
        return self.models[kind % len(self.models)]

    @rule(
        kind=st.integers(0, 4),
        way=st.integers(0, 1),
        patience=st.sampled_from([None, None, None, 0.0, 0.0005]),
    )
    def wait(self, kind: int, way: int, patience: float | None) -> None:
        model = self.model(kind)
        name = list(model.reasons)[way % len(model.reasons)]
        options = {} if patience is None else {"timeout": patience}
        ready = model.ready(name)
        g = go(model.call, name, **options)
        if ready or patience is not None:
            assert g.result(PATIENCE) is ready
            if ready:
                model.taken(name)
        else:
            parked(g, model.reasons[name])
            model.waiting.append(Waiter(g, name))

    @rule(kind=st.integers(0, 4), free=st.integers(0, 1), thread=st.booleans(), late=st.booleans())
    def free(self, kind: int, free: int, thread: bool, late: bool) -> None:
        """With `late` the first to be served is cancelled just behind that."""
        model = self.model(kind)
        name = model.frees[free % len(model.frees)]
        task: Any = Thread if thread else go
        if not model.allowed(name):
            error = task(model.free, name).exception(PATIENCE)
            assert isinstance(error, (RuntimeError, ValueError))
            return
        served = model.freed(name)

        def step() -> None:
            model.free(name)
            if late and served:
                served[0].g.cancel()

        task(step).result(PATIENCE)
        self.all_true(served)

    @rule(which=st.integers(0, 20), free=st.sampled_from([None, None, 0, 1]))
    def cancel(self, which: int, free: int | None) -> None:
        """With `free` somebody would be served just behind that, perhaps who is cancelled."""
        everybody = [(model, waiter) for model in self.models for waiter in model.waiting]
        if not everybody:
            return
        model, waiter = everybody[which % len(everybody)]
        model.waiting.remove(waiter)
        served = model.left(waiter)
        name = None if free is None else model.frees[free % len(model.frees)]
        if name is not None and model.allowed(name):
            served += model.freed(name)
        else:
            name = None

        def step() -> None:
            waiter.g.cancel()
            if name is not None:
                model.free(name)

        go(step).result(PATIENCE)
        assert isinstance(waiter.g.exception(PATIENCE), GoroutineCancelled)
        self.all_true(served)

    def all_true(self, served: list[Waiter]) -> None:
        for waiter in served:
            assert waiter.g.result(PATIENCE) is True

    @invariant()
    def as_the_model_has_it(self) -> None:
        for model in self.models:
            for waiter in model.waiting:
                parked(waiter.g, model.reasons[waiter.way])
            mine, real = model.state()
            assert mine == real, model.real

    def teardown(self) -> None:
        while any(model.waiting for model in self.models):
            self.cancel(0, None)


def test_one_step_at_a_time(procs: int) -> None:
    run_state_machine_as_test(SyncMachine, settings=settings(stateful_step_count=40))


def test_one_step_at_a_time_in_the_main_goroutine() -> None:
    gmprt.run(run_state_machine_as_test, SyncMachine)


def test_the_machine_finds_errors() -> None:
    """One that could not fail would prove nothing: a semaphore that grows too fast."""

    class Wrong(OfSemaphore):
        def freed(self, free: str) -> list[Waiter]:
            self.value += 1
            return super().freed(free)

    class Machine(SyncMachine):
        kinds = (Wrong,)

    machine = Machine()
    machine.wait(0, 0, None)
    machine.as_the_model_has_it()
    machine.free(0, 0, thread=False, late=False)
    with pytest.raises(AssertionError):
        machine.as_the_model_has_it()
