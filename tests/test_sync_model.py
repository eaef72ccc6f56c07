"""Locks, and what is like them, against pure-Python models: random operations with timeouts,
deadlines, shields and cancels, from goroutines and threads mixed; those of the standard library,
too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis.stateful import run_state_machine_as_test
from sync_model import (
    CountMachine,
    LimiterMachine,
    LockMachine,
    Machine,
    OnceMachine,
    PoolMachine,
    Step,
    Waiter,
    cancels,
    check_concurrent,
    programs,
)
from threading_model import ConditionMachine, EventMachine, MutexMachine, QueueMachine

import gmprt

LOCKS = [LockMachine, CountMachine, OnceMachine, LimiterMachine, PoolMachine]
STANDARD = [MutexMachine, ConditionMachine, EventMachine, QueueMachine]


def some() -> settings:
    """A fifth of what other models get: they are many, and try one, two and four Ps themselves."""
    return settings(max_examples=max(1, settings().max_examples // 5), stateful_step_count=25)


@pytest.mark.parametrize("machine", [*LOCKS, *STANDARD])
def test_one_step_at_a_time(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=some())


@pytest.mark.parametrize("machine", [LockMachine, ConditionMachine])
def test_one_step_at_a_time_in_the_main_goroutine(machine: type[Machine]) -> None:
    gmprt.run(run_state_machine_as_test, machine, settings=some())


@given(all_programs=programs, strikes=cancels)
def test_programs_side_by_side(all_programs: list[list[Step]], strikes: list[int]) -> None:
    check_concurrent(all_programs, strikes)


# ---- machines that could not fail would prove nothing -------------------------------------------


def test_one_that_is_not_first_come_first_served() -> None:
    class Wrong(CountMachine):
        def release_some(self, n: int) -> None:
            self.acquirers.reverse()
            super().release_some(n)

    machine = Wrong()
    machine.start(0, 2)
    machine.acquire(0, "plain")
    machine.acquire(0, "plain")
    with pytest.raises(AssertionError):
        machine.release(1)
    machine.teardown()


def test_one_in_which_a_signal_wakes_the_last() -> None:
    class Wrong(LockMachine):
        def comes(self, waiter: Waiter) -> None:
            super().comes(self.cond_waits[-1])

    machine = Wrong()
    machine.start("Mutex", 1)
    for who in range(2):
        machine.try_lock(False)
        machine.wait(who, "plain")
    with pytest.raises(AssertionError):
        machine.signal()
    machine.teardown()
