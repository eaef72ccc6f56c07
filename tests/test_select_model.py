"""select against a pure-Python model: random cases on three channels, waiting, giving up, closed,
cancelled, from goroutines and threads mixed."""

from __future__ import annotations

from typing import Any

import pytest
from chan_model import Case, SelectMachine, Step, capacities, check_concurrent, programs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from support import Task

import gmprt


def test_one_operation_at_a_time(procs: int) -> None:
    run_state_machine_as_test(SelectMachine, settings=settings(stateful_step_count=40))


def test_one_operation_at_a_time_in_the_main_goroutine() -> None:
    gmprt.run(run_state_machine_as_test, SelectMachine)


@given(sizes=capacities, all_programs=programs, closes=st.booleans())
def test_programs_side_by_side(
    procs: int, sizes: tuple[int, ...], all_programs: list[list[Step]], closes: bool
) -> None:
    check_concurrent(sizes, all_programs, closes)


def test_the_model_finds_errors() -> None:
    """A machine that could not fail would prove nothing."""

    class Wrong(SelectMachine):
        def outcome(self, task: Task[Any], cases: list[Case]) -> tuple[Case, int | None, bool]:
            _, value, ok = super().outcome(task, cases)
            return cases[0], value, ok

    machine = Wrong()
    machine.start((0, 1, 1))
    sends = [(0, True), (1, True), (None, False)]
    with pytest.raises(AssertionError):
        machine.select(wanted=sends, thread=False, patience=None, built=True)
