"""Locks and what is like them against pure-Python models: random operations, timeouts, deadlines,
shields and cancels, from goroutines and threads mixed.

As many machines as GMPRT_TEST_EXAMPLES says: CONTRIBUTING.md.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sync_model import (
    CountMachine,
    LimiterMachine,
    LockMachine,
    Machine,
    OnceMachine,
    PoolMachine,
    Waiter,
)
from threading_model import ConditionMachine, EventMachine, MutexMachine, QueueMachine

import gmprt

LOCKS = [LockMachine, CountMachine, OnceMachine, LimiterMachine, PoolMachine]
STANDARD = [MutexMachine, ConditionMachine, EventMachine, QueueMachine]


def some(steps: int = 30) -> settings:
    """A quarter of what the other models get: they are many."""
    return settings(max_examples=max(1, settings().max_examples // 4), stateful_step_count=steps)


@pytest.mark.parametrize("machine", [*LOCKS, *STANDARD])
def test_one_step_at_a_time(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=some())


@pytest.mark.parametrize("machine", [LockMachine, ConditionMachine])
def test_in_the_main_goroutine(machine: type[Machine]) -> None:
    gmprt.run(run_state_machine_as_test, machine, settings=some())
