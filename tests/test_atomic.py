"""AtomicInt: exact between goroutines, threads and preemption."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from support import PATIENCE, mixed, run_child

import gmprt
from gmprt import AtomicInt


class Number(int):
    pass


class Index:
    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        gmprt.gosched()
        return self._value


def test_operations() -> None:
    a = AtomicInt()
    assert a.load() == 0
    assert a.add(3) == 3
    assert a.add(-5) == -2
    assert a.swap(10) == -2
    assert a.compare_and_swap(10, 11) is True
    assert a.compare_and_swap(10, 12) is False
    assert a.load() == 11
    a.store(7)
    assert a.load() == 7
    assert repr(a) == "<gmprt.AtomicInt 7>"
    assert AtomicInt(value=2**70).add(2**70) == 2**71
    big = AtomicInt(2**70)
    assert big.compare_and_swap(2**70, 1), "by value, not by identity"


def test_what_counts_as_an_integer() -> None:
    a = AtomicInt(Number(3))
    assert type(a.load()) is int
    assert a.add(Number(4)) == 7
    assert a.add(Index(1)) == 8  # type: ignore[arg-type]
    a.store(True)
    assert type(a.load()) is int
    wrong: Any
    for wrong in ("1", 1.5, None, [], object()):
        calls: list[tuple[str, Any]] = [
            ("AtomicInt.*value", lambda wrong=wrong: AtomicInt(wrong)),
            ("store.*value", lambda wrong=wrong: a.store(wrong)),
            ("add.*n", lambda wrong=wrong: a.add(wrong)),
            ("swap.*value", lambda wrong=wrong: a.swap(wrong)),
            ("compare_and_swap.*old", lambda wrong=wrong: a.compare_and_swap(wrong, 1)),
            ("compare_and_swap.*new", lambda wrong=wrong: a.compare_and_swap(1, wrong)),
        ]
        for match, call in calls:
            with pytest.raises(TypeError, match=match):
                call()
    assert a.load() == 1
    for few in (lambda: a.add(), lambda: a.compare_and_swap(1), lambda: a.store(1, 2)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            few()


def test_adds_are_exact(procs: int) -> None:
    a = AtomicInt()
    rounds = 20_000

    def work() -> None:
        for _ in range(rounds):
            a.add(1)

    for t in [mixed(i, work) for i in range(6)]:
        t.result(PATIENCE)
    assert a.load() == 6 * rounds


def test_compare_and_swap_is_a_lock(procs: int) -> None:
    """A sum that only a loop of compare_and_swap keeps exact; swap hands out each number once."""
    a, tickets = AtomicInt(), AtomicInt(1)
    got: list[list[int]] = []

    def work(seen: list[int]) -> None:
        for _ in range(2000):
            while True:
                old = a.load()
                if a.compare_and_swap(old, old + 1):
                    break
            seen.append(tickets.add(1))

    tasks = []
    for i in range(4):
        got.append([])
        tasks.append(mixed(i, work, got[-1]))
    for t in tasks:
        t.result(PATIENCE)
    assert a.load() == 8000
    assert sorted(n for seen in got for n in seen) == list(range(2, 8002))


def test_under_chaos_and_preemption() -> None:
    code = """
        import gmprt, threading
        a = gmprt.AtomicInt()
        def work():
            for _ in range(200_000):
                a.add(1)
        def main():
            threads = [threading.Thread(target=work) for _ in range(2)]
            gs = [gmprt.go(work) for _ in range(4)]
            for t in threads: t.start()
            for g in gs: g.result()
            for t in threads: t.join()
            print(a.load())
        gmprt.run(main)
        """
    assert run_child(code, env={"GMPRT_CHAOS": "3"}, timeout=50).stdout == "1200000\n"


def test_values_are_let_go() -> None:
    a = AtomicInt(10**30)
    for i in range(1000):
        a.add(10**30)
        a.swap(10**30 + i)
        a.compare_and_swap(10**30 + i, 10**31)
    del a
    gc.collect()
