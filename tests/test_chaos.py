"""GMPRT_CHAOS: the switch that yields at random points and queues in random order.

Interleavings that a quiet scheduler hardly ever shows become common; the tests of everything that
communicates must pass all the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run_child

HERE = Path(__file__).parent

# Not those that check the order in which the scheduler runs things.
MODELS = [str(HERE / f"test_{topic}.py") for topic in ("chan_model", "select_model")]
MACHINES = [str(HERE / f"test_{topic}.py") for topic in ("sync_model", "scope_model")]
LOCKS = [str(HERE / "test_locks.py")]
FILES = [str(HERE / f"test_{topic}.py") for topic in ("chan", "select", "sync", "chanmany", "aio")]


@pytest.mark.parametrize(
    ("seed", "files"),
    [("1", FILES), ("1", MODELS), ("20260801", MODELS), ("5", MACHINES), ("7", LOCKS)],
)
def test_suite_under_chaos(seed: str, files: list[str]) -> None:
    done = run_child(
        args=["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        env={"GMPRT_CHAOS": seed, "GMPRT_TEST_EXAMPLES": "10"},
        timeout=50,
        status=None,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_timers_are_as_without_it(seed: str) -> None:
    """What stop() has stopped nobody receives, and reset() wakes whoever waits."""
    code = """
        import gmprt
        def stopped_and_received():
            t, got = gmprt.Timer(0.0002), []
            def recv():
                try:
                    got.append(t.c.recv(timeout=0.003))
                except gmprt.Timeout:
                    pass
            g = gmprt.go(recv)
            gmprt.sleep(0.0002)
            stopped = t.stop()
            g.join()
            return stopped and bool(got)
        def called_although_stopped():
            called = []
            t = gmprt.after_func(0.0002, called.append, 1)
            gmprt.sleep(0.0002)
            stopped = t.stop()
            gmprt.sleep(0.001)
            return stopped and bool(called)
        def missed_by_the_receiver():
            t = gmprt.Timer(3600)
            g = gmprt.go(t.c.recv)
            gmprt.gosched()
            t.reset(0.0002)
            return not g.join(timeout=10)
        def missed_by_select():
            t = gmprt.Timer(3600)
            g = gmprt.go(gmprt.select, t.c, gmprt.Chan())
            gmprt.gosched()
            t.reset(0.0002)
            return not g.join(timeout=10)
        def main():
            for f in (stopped_and_received, called_although_stopped,
                      missed_by_the_receiver, missed_by_select):
                for _ in range(200):
                    if f():
                        print(f.__name__)
                        break
        gmprt.run(main)
    """
    assert run_child(code, env={"GMPRT_CHAOS": seed}, timeout=120).stdout == ""


def order(seed: str) -> str:
    code = """
        import gmprt
        def main():
            log = []
            for g in [gmprt.go(log.append, i) for i in range(20)]:
                g.join()
            return log
        print({tuple(gmprt.run(main)) for _ in range(20)})
    """
    return run_child(code, env={"GMPRT_CHAOS": seed, "GOMAXPROCS": "1"}).stdout


def test_the_switch_works() -> None:
    """Without it goroutines run in one order, but for an end of a slice, with it in many."""
    assert order("").count("(") < 10 < order("3").count("(")


def test_info_says_so() -> None:
    for seed, state in (("", "off"), ("5", "on")):
        out = run_child(args=["-m", "gmprt", "info"], env={"GMPRT_CHAOS": seed}).stdout
        (line,) = [line for line in out.splitlines() if line.startswith("chaos")]
        assert line.split()[1] == state
