"""csrc/py/interpose/affinity.c: C code that keeps something per thread stays on its thread."""

from __future__ import annotations

import importlib.util
import shlex
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scenes import Stage, move_once, moved
from support import PATIENCE, CGate, preempts, run_child

import gmprt
from gmprt import go

SOURCE = Path(__file__).with_name("affine.c")
CC = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-O2", "-Wall", "-shared", "-fPIC"]


def extension(folder: Path, name: str, *options: str) -> ModuleType:
    """tests/affine.c as an extension module."""
    path = folder / (name + sysconfig.get_config_var("EXT_SUFFIX"))
    names = [f"-DMODULE={name}", f'-DNAME="{name}"']
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([*CC, *options, *names, include, str(SOURCE), "-o", str(path)], check=True)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return extension(tmp_path_factory.mktemp("bound"), "affine_bound", "-DBOUND")


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return extension(tmp_path_factory.mktemp("free"), "affine_free")


Call = Callable[..., Any]


def by_socket(stack: ExitStack, through: Call) -> Stage:
    a, b = socket.socketpair()
    stack.enter_context(a)
    stack.enter_context(b)
    return lambda: through(partial(a.recv, 9)), lambda: b.send(b"x")


def by_channel(stack: ExitStack, through: Call) -> Stage:
    ch = gmprt.Chan[int]()
    return lambda: through(ch.recv), lambda: ch.send(1)


def by_condition(stack: ExitStack, through: Call) -> Stage:
    """Python code below C code below Python code."""
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    def wake() -> None:
        with condition:
            condition.notify()

    return lambda: through(wait), wake


def by_sleep(stack: ExitStack, through: Call) -> Stage:
    return lambda: through(partial(time.sleep, 0.01)), None


WAYS = pytest.mark.parametrize("way", [by_socket, by_channel, by_condition, by_sleep])


def left_over(module: Any, fn: Call) -> Any:
    """After calls of the module that have returned, and left their addresses on the stack."""
    module.call(lambda: None)
    module.call(lambda: None)
    return fn(), 0, 0, True


def directly(fn: Call) -> Any:
    return fn()


def through_sorted(fn: Call) -> Any:
    got: list[Any] = []
    sorted([1], key=lambda _: got.append(fn()) or 0)
    return got[0]


def through_a_generator(fn: Call) -> Any:
    return next(f() for f in [fn])


@WAYS
@pytest.mark.parametrize("between", [directly, through_sorted, through_a_generator])
def test_bound_to_its_thread(way: Any, between: Call, bound: Any) -> None:
    """Neither directly below the wait nor deeper does such code find itself on another thread."""

    def through(fn: Call) -> Any:
        return bound.call(partial(between, fn))

    for _ in range(5):
        _, before, after, right = move_once(lambda stack: way(stack, through))[0]
        assert before == after
        assert right


def test_begun_in_c(bound: Any) -> None:
    """No Python code lies before it on the stack."""
    for _ in range(10):
        gate, ch = CGate(), gmprt.Chan[int]()

        def wait(gate: CGate = gate, ch: gmprt.Chan[int] = ch) -> None:
            go(gate.wait)  # runs next, on this thread if it is left
            ch.recv()

        g = go(bound.call, wait)
        assert gate.entered()
        ch.send(1)
        _, before, after, right = g.result(PATIENCE)
        gate.open()
        assert before == after
        assert right


@WAYS
def test_others_move(way: Any, free: Any, bound: Any) -> None:
    """C code that can know of no thread, also while code that could is loaded."""
    _, before, after, _ = moved(lambda stack: way(stack, free.call))
    assert before != after
    moved(lambda stack: way(stack, partial(left_over, bound)))


def test_many_that_wake_at_once(bound: Any) -> None:
    """Whose goroutine is ready, but whose thread has not woken yet, is not asleep: no Deadlock."""
    code = f"""
        import importlib.util, gmprt, os, time
        # Who wakes another thread runs on.
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
        spec = importlib.util.spec_from_file_location("affine_bound", {bound.__file__!r})
        bound = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(bound)

        def main():
            for _ in range(20):
                until = time.monotonic() + 0.02
                wait = lambda: time.sleep(max(until - time.monotonic(), 0))
                for g in [gmprt.go(bound.call, wait) for _ in range(10)]:
                    g.result()

        gmprt.run(main)
    """
    run_child(code, env={"GOMAXPROCS": "1"})


@preempts
def test_preempted(bound: Any) -> None:
    before = gmprt.stats().preemptions
    end = time.monotonic() + PATIENCE

    def hog() -> int:
        n = 0
        while gmprt.stats().preemptions == before and time.monotonic() < end:
            n += 1
        return n

    for _, left, back, right in [
        g.result(PATIENCE) for g in [go(bound.call, hog) for _ in range(6)]
    ]:
        assert left == back
        assert right
    assert gmprt.stats().preemptions > before
