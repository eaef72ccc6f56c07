"""Channels against a pure-Python model: random programs, from goroutines and threads mixed."""

from __future__ import annotations

import pytest
from chan_model import ChanModel, SingleMachine, Step, capacities, check_concurrent, programs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import gmprt


def test_one_operation_at_a_time(procs: int) -> None:
    run_state_machine_as_test(SingleMachine, settings=settings(stateful_step_count=40))


def test_one_operation_at_a_time_in_the_main_goroutine() -> None:
    gmprt.run(run_state_machine_as_test, SingleMachine)


@given(sizes=capacities, all_programs=programs, closes=st.booleans())
def test_programs_side_by_side(
    procs: int, sizes: tuple[int, ...], all_programs: list[list[Step]], closes: bool
) -> None:
    without = [[s for s in p if s.kind != "select"] for p in all_programs]
    check_concurrent(sizes, without, closes)


@given(sizes=capacities, all_programs=programs, closes=st.booleans())
def test_programs_in_the_main_goroutine(
    sizes: tuple[int, ...], all_programs: list[list[Step]], closes: bool
) -> None:
    gmprt.run(check_concurrent, sizes, all_programs, closes)


def test_the_model_finds_errors() -> None:
    """A machine that could not fail would prove nothing."""

    class Wrong(SingleMachine):
        def received(self, model: ChanModel) -> tuple[int | None, bool]:
            value, ok = super().received(model)
            return (-1 if model.buffer else value), ok

    machine = Wrong()
    machine.start(2)
    machine.send(thread=False, view=True)
    machine.send(thread=True, view=False)
    with pytest.raises(AssertionError):
        machine.recv(thread=False, way="recv")
