"""What the benchmarks conclude from what they measure: which round counts, what a build is, what a
dump of callgrind says, which budget is broken.  Nothing is timed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is no part of what is installed

from bench import machine, readme, runner  # noqa: E402
from bench.common import QUICK, Meter  # noqa: E402
from bench.instructions import count  # noqa: E402
from bench.report import Report  # noqa: E402


def budgets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("budgets", ROOT / ".ci" / "budgets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["budgets"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


# ---- rounds --------------------------------------------------------------------------------------


def report() -> Report:
    peers = {name: runner.Peer(name, installed=True) for name in ("gmprt", "go")}
    results: runner.Results = {
        ("gosched", "value"): {
            "gmprt P=1": runner.Cell([90.0, 80.0, 160.0]),
            "Go P=1": runner.Cell([100.0, 130.0, 101.0]),
        },
        ("echo", "rate"): {
            "gmprt P=1": runner.Cell([900.0, 1000.0]),
            "Go P=1": runner.Cell([500.0], ["SIGSEGV"], [""]),
        },
    }
    return Report({}, peers, results)


def test_the_best_round_counts() -> None:
    (_, gosched, echo) = report().table()
    assert gosched[2:5] == ["80.0 (0.8x Go)", "-", "100 (1.2x)"]
    assert echo[2] == "1 000"  # of a rate the most; Go has no figure to compare with
    assert echo[4] == "ERROR SIGSEGV, 1 of 2"


def test_medians_and_spread_stand_beside() -> None:
    (_, gosched, echo) = report().medians()
    assert gosched[2:5] == ["90.0 (89 %)", "-", "101 (30 %)"]
    assert echo[2] == "950 (11 %)"
    assert "Medians" in report().text()
    assert "## Medians" in report().markdown()


def test_goals_are_judged_by_the_best() -> None:
    goals = {line[0]: line for line in report().goals()}
    gosched = goals["gosched between two goroutines, per switch"]
    assert gosched[3:5] == ["80.0", "MISSED"]


def test_a_timed_run_is_as_long_as_it_should_be() -> None:
    """However slow the run was from which its length is taken: within the margin."""
    meter, times = Meter(QUICK), iter([1.0, 1.09, 1.09, 1.09, 1.09, 1.09, 1.09, 1.09])
    seconds = []
    for n in meter:
        meter.add(n * 1e-6 * next(times))
        seconds.append(n * 1e-6)
    assert min(seconds[-QUICK.repeats :]) >= QUICK.budget
    assert meter.ns()["value"] == pytest.approx(1090)


# ---- the table of the README ---------------------------------------------------------------------


def test_the_readme_has_the_table_that_is_made() -> None:
    text = (ROOT / "README.md").read_text()
    made = [line.split(" | ")[:2] for line in readme.table({}).splitlines()]
    there = readme.replaced(text, {})
    assert [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")] == [
        line.split(" | ")[:2] for line in there.splitlines() if line.startswith("| ")
    ]
    assert len(made) == len(readme.LINES) + 2


def test_a_cell_of_the_readme() -> None:
    columns = {"gmprt P=1": 20.3, "Go P=1": 81.3, "gmprt P=2": 6.62}
    rows: readme.Rows = {
        ("native_yield", "value"): columns,
        ("native_pingpong", "value"): {"gmprt P=1": 104.0, "Go P=1": 257.0},
        ("native_spawn", "value"): {"gmprt P=1": 78.3, "Go P=1": 301.0},
        ("gosched", "value"): columns,
    }
    lines = readme.table(rows).splitlines()
    assert lines[2].endswith("| ns | 20 (81) | 6.62 |")
    native = next(line for line in lines if line.startswith("| native"))
    assert native.endswith("| ns | 20 / 104 / 78 (81 / 257 / 301) | - |")


def test_json_of_the_report_is_what_the_readme_reads() -> None:
    rows = readme.rows_of(json.loads(report().json({})))
    assert rows["gosched", "value"] == {"gmprt P=1": 80.0, "Go P=1": 100.0}
    assert rows["echo", "rate"] == {"gmprt P=1": 1000.0}


# ---- builds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "flags", "debug", "word"),
    [
        ("'--enable-optimizations' '--with-lto'", "-O3 -Wall", "0", ""),
        ("'--with-wheel-pkg-dir=/usr/share/python-wheels/'", "-O2", "0", ""),  # Debian's
        ("'--prefix=/opt'", "-O3 -Wall", "0", "--enable-optimizations"),  # pyenv's
        ("'--enable-optimizations'", "-O3 -Wall -O0", "0", "-O0"),
        ("'--enable-optimizations'", "-O0 -Wall -O3", "0", ""),
        ("'--enable-optimizations' '--with-pydebug'", "-Og", "1", "debug"),
        ("", "", "", "--enable-optimizations"),
    ],
)
def test_builds_that_are_not_optimised(configured: str, flags: str, debug: str, word: str) -> None:
    verdict = machine.judge_build(configured, flags, debug)
    assert word in verdict if word else verdict == ""
    assert verdict.startswith("NOT OPTIMISED") == bool(word)


# ---- instructions --------------------------------------------------------------------------------

DUMP = """\
version: 1
positions: line
events: Ir

ob=(1) /usr/bin/python3.11
fl=(1) /src/Python/ceval.c
fn=(1) _PyEval_EvalFrameDefault
10 100
fi=(2) csrc/sched/park.c
+2 7
fe=(1)
cob=(2) _native.so
cfi=(3) csrc/py/types/functions.c
cfn=(2) py_gosched
calls=3 26
12 900
13 50

fl=(3)
fn=(2)
26 20
* 1

fl=(4) csrc/sched/sysmon.c
fn=(3) sysmon_main
5 1000
fi=(2)
-1 1000

fl=(4)
fn=(4) sysmon_wake
7 30

fl=(2)
fn=(5) gopark
300 4

totals: 2212
"""


def test_own_lines_are_counted_once() -> None:
    """Not what a call cost, nor the loop and sysmon; but what the loop is said to have parked."""
    price = count(DUMP.splitlines())
    assert price.total == 2212
    assert price.ours == 7 + 20 + 1 + 4


def test_a_budget_is_broken_at_three_percent(capsys: pytest.CaptureFixture[str]) -> None:
    module = budgets()
    recorded = {"even": 100.0, "within": 100.0, "over": 100.0}
    assert module.compare({"even": 100.0, "within": 102.9, "over": 103.1}, recorded) == 1
    verdicts = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["ok", "ok", "FAILED"]
    assert module.compare({"new": 1.0}, recorded) == 1


def test_other_conditions_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    module = budgets()

    def measure() -> dict[str, float]:
        raise AssertionError("nothing to compare with")

    group = module.Group("python", lambda: {"python": "CPython 9.9"}, measure)
    record = {"python": {"conditions": {"python": "CPython 3.11"}, "instructions": {}}}
    assert module.check(group, record) == 0
    assert "nothing compared" in capsys.readouterr().out
