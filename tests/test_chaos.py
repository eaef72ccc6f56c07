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
LOCKS = [str(HERE / "test_locks.py")]
FILES = [str(HERE / f"test_{topic}.py") for topic in ("chan", "select", "sync")]


@pytest.mark.parametrize(
    ("seed", "files"), [("1", FILES), ("1", MODELS), ("20260801", MODELS), ("7", LOCKS)]
)
def test_suite_under_chaos(seed: str, files: list[str]) -> None:
    done = run_child(
        args=["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        env={"GMPRT_CHAOS": seed, "GMPRT_TEST_EXAMPLES": "10"},
        timeout=50,
        status=None,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


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
    """Without it goroutines run in one order, with it in many."""
    assert order("").count("(") == 1
    assert order("3").count("(") > 1


def test_info_says_so() -> None:
    for seed, state in (("", "off"), ("5", "on")):
        out = run_child(args=["-m", "gmprt", "info"], env={"GMPRT_CHAOS": seed}).stdout
        (line,) = [line for line in out.splitlines() if line.startswith("chaos")]
        assert line.split()[1] == state
