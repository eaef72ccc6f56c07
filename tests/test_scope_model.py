"""Scopes, contexts and groups against a pure-Python model: random trees of goroutines in blocks,
with cancels from everywhere, deadlines and members that fail."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from scope_model import ScopeMachine

import gmprt


def a_part(n: int) -> settings:
    return settings(max_examples=max(1, settings().max_examples // n), stateful_step_count=40)


def test_trees() -> None:
    run_state_machine_as_test(ScopeMachine, settings=a_part(2))


def test_trees_in_the_main_goroutine() -> None:
    gmprt.run(run_state_machine_as_test, ScopeMachine, settings=a_part(8))


def test_the_machine_finds_errors() -> None:
    """One that could not fail would prove nothing."""
    machine = ScopeMachine()
    machine.begin(2)
    machine.cancel(0, 0)
    machine.actors[0][1].reason = "another one"
    with pytest.raises(AssertionError):
        machine.wait(0, 0)
    machine.teardown()
