"""Dumps: what they say of each goroutine, and that SIGQUIT gives one at any time."""

from __future__ import annotations

import io
import re
import signal
import sys
from typing import Any

import pytest
from support import CGate, Child, ended, eventually, parked, run_child, untimed

import gmprt
from gmprt import Chan, debug, go


def here() -> int:
    """Line of the caller."""
    return sys._getframe(1).f_lineno


def test_a_dump_in_full() -> None:
    def wait(ch: Chan[int]) -> None:
        ch.recv()

    def main() -> tuple[str, list[int], int]:
        ch: Chan[int] = Chan()
        g = go(wait, ch)
        line = here() - 1
        g.name = "waiter"
        parked(g)
        text, at = untimed(debug.dump_string()), here()
        ch.send(1)
        return text, [gmprt.current().id, g.id], line - at  # type: ignore[union-attr]

    text, (me, waiter), between = gmprt.run(main)
    first = main.__code__.co_firstlineno
    blocks = text.split("\n\n")
    assert len(blocks) == 2
    assert blocks[0].startswith(f"goroutine {me} ")
    assert "[running]:\n" in blocks[0]
    lines = blocks[0].splitlines()
    assert lines[1] == "test_debug.test_a_dump_in_full.<locals>.main(...)", "innermost first"
    assert lines[2] == f"\t{__file__}:{first + 2 - between}"
    assert blocks[1].rstrip("\n") == "\n".join(
        [
            f'goroutine {waiter} "waiter" [chan receive]:',
            "test_debug.test_a_dump_in_full.<locals>.wait(...)",
            f"\t{__file__}:{wait.__code__.co_firstlineno + 1}",
            f"created by test_a_dump_in_full.<locals>.main in goroutine {me}",
            f"\t{__file__}:{first + 2}",
        ]
    )


def test_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    parked(g)
    out = io.StringIO()
    debug.dump(out)
    debug.dump()
    dumps = out.getvalue(), capsys.readouterr().err, debug.dump_string()
    assert len({untimed(dump) for dump in dumps}) == 1
    assert f"goroutine {g.id} " in out.getvalue()
    ch.send(1)
    ended(g)


def test_without_goroutines() -> None:
    assert debug.goroutines() == []
    assert debug.dump_string() == ""


def test_goroutines_by_id() -> None:
    ch: Chan[int] = Chan()
    goroutines = [go(ch.recv) for _ in range(5)]
    assert debug.goroutines() == goroutines
    for i in range(5):
        ch.send(i)
    ended(*goroutines)


def test_states_in_a_dump() -> None:
    gate = CGate()
    stop = False

    def blocked() -> None:
        gate.wait()

    def running() -> None:
        while not stop:
            pass

    goroutines = [go(blocked), go(Chan().recv), go(gmprt.sleep, 1000)]
    assert gate.entered()
    for g in goroutines[1:]:
        parked(g)
    goroutines.insert(1, go(running))
    eventually(lambda: goroutines[0].state == "syscall" and goroutines[1].cpu_time > 0)
    text = untimed(debug.dump_string())
    assert re.search(rf"goroutine {goroutines[0].id} .*\[syscall\]:\n", text)
    assert re.search(rf"goroutine {goroutines[1].id} .*\[(running|runnable|syscall)\]:\n", text)
    assert re.search(rf"goroutine {goroutines[2].id} .*\[chan receive\]:\n", text)
    assert re.search(rf"goroutine {goroutines[3].id} .*\[sleep\]:\n", text)
    assert "test_states_in_a_dump.<locals>.blocked(...)" in text
    assert "test_states_in_a_dump.<locals>.running(...)" in text
    stop = True
    gate.open()
    for g in goroutines[2:]:
        g.cancel()
    ended(*goroutines)


def test_how_long() -> None:
    g = go(Chan().recv)
    parked(g)
    eventually(lambda: g.since >= 1.0)
    assert re.search(r"\[chan receive, \d+ seconds\]:", debug.dump_string())
    g.cancel()
    ended(g)


def test_deep_stacks_are_abridged() -> None:
    def dive(depth: int, ch: Chan[int]) -> Any:
        return dive(depth - 1, ch) if depth else ch.recv()

    ch: Chan[int] = Chan()
    g = go(dive, 399, ch)
    parked(g)
    text = debug.dump_string()
    assert "...300 frames elided..." in text
    assert text.count("dive(...)") == 100
    ch.send(1)
    ended(g)


def test_a_dump_among_many_that_come_and_go(procs: int) -> None:
    """Dumping while goroutines start, run and end: no crash, every block well formed."""
    stop = False

    def churn() -> None:
        while not stop:
            ended(*[go(gmprt.gosched) for _ in range(20)])

    def deep(n: int) -> None:
        if n:
            return deep(n - 1)
        gmprt.gosched()

    def dig() -> None:
        while not stop:
            deep(50)

    goroutines = [go(churn) for _ in range(4)] + [go(dig) for _ in range(4)]
    for _ in range(40):
        text = debug.dump_string()
        for block in filter(None, text.split("\n\n")):
            assert re.match(r"goroutine \d+ (\".*\" )?\[[^\]]+\]:", block), block
        for g in debug.goroutines():
            g.stack()
    stop = True
    ended(*goroutines)


def test_it_works_for_the_running_from_a_goroutine() -> None:
    text = go(debug.dump_string).result(20)
    assert text.startswith("goroutine ")
    assert "[running]" in text


# ---- SIGQUIT -----------------------------------------------------------------------------------

SITUATION = """
import ctypes, gmprt, sys, threading, time
def waits(ch): ch.recv()
def blocks(): ctypes.CDLL(None).sleep(1000)
def runs():
    print("ready")
    while True: pass
def sleeps(): gmprt.sleep(1000)
def main():
    kept = [gmprt.go(waits, gmprt.Chan()), gmprt.go(sleeps), gmprt.go(blocks)]
    kept[0].name = "waiter"
    while [g.state for g in kept] != ["waiting", "waiting", "syscall"]:
        gmprt.sleep(0.001)
    {}
gmprt.run(main)
"""


@pytest.mark.parametrize("procs", ["1", "2"])
@pytest.mark.parametrize(
    "main",
    [
        "print('ready'); gmprt.Chan().recv()",
        "print('ready'); time.sleep(1000)",
        "runs()",
        "gmprt.go(runs).join()",
        "gmprt.go(runs); time.sleep(1000)",
    ],
)
def test_sigquit(procs: str, main: str) -> None:
    """Whoever runs, blocks or is parked, main or another: a dump comes, and the process goes on."""
    hog = "go(runs)" in main
    with Child(SITUATION.format(main), env={"GOMAXPROCS": procs}) as child:
        child.expect("ready")
        for i in range(2):
            child.signal(signal.SIGQUIT)
            wanted = (i + 1) * (4 if hog else 3)
            eventually(lambda n=wanted: child.stderr.count("created by main") == n)  # type: ignore[misc]
        text = untimed(child.stderr)
        assert child.process.poll() is None, "the process goes on"
    assert re.search(r'goroutine \d+ "waiter" \[chan receive\]:\n__main__\.waits\(', text)
    assert re.search(r"goroutine \d+ \[sleep\]:\n__main__\.sleeps\(", text)
    assert re.search(r"goroutine \d+ \[syscall\]:\n__main__\.blocks\(", text)
    assert "__main__.main(...)\n" in text
    if "runs" in main:
        assert "__main__.runs(...)\n" in text


def test_sigquit_of_a_program_that_uses_it() -> None:
    code = """
        import gmprt, os, signal
        got = []
        signal.signal(signal.SIGQUIT, lambda n, f: got.append(n))
        assert gmprt.debug.install_sigquit() is False
        def main():
            os.kill(os.getpid(), signal.SIGQUIT)
            gmprt.sleep(0.01)
        gmprt.run(main)
        print(got == [signal.SIGQUIT])
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_sigquit_without_run() -> None:
    code = """
        import gmprt
        assert gmprt.debug.install_sigquit() is True
        g = gmprt.go(gmprt.Chan().recv)
        while g.state != "waiting":
            gmprt.gosched()
        print("ready")
        g.join()
    """
    with Child(code) as child:
        child.expect("ready")
        child.signal(signal.SIGQUIT)
        child.expect("[chan receive", stream="stderr")
        assert child.process.poll() is None
