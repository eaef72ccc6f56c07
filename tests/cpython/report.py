"""docs/cpython-tests.md, from what run --output wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cpython import POSITIONS

TITLES = {
    "plain": "main thread",
    "run": "main goroutine",
    "thread": "thread",
    "go": "goroutine",
    "threads": "threads are goroutines",
}

PASSED = ("ok", "expected failure")
SKIPPED = ("skip",)

INTRODUCTION = """\
# CPython's own tests in goroutines

<!-- Made by `python -m tests.cpython report`: change tests/cpython/report.py, not this file. -->

A goroutine is to behave as a thread does. CPython's own regression tests say whether it does:
each module runs five times, in a process of its own.

| position | | must do as |
|---|---|---|
| main thread | `python`, without gmprt | |
| main goroutine | `gmprt.run()` on the main thread | the main thread |
| thread | a daemon `threading.Thread`, without gmprt | |
| goroutine | `gmprt.go()` | the thread |
| threads are goroutines | the main thread, after `gmprt.threads(True)` | the main thread |

The verdicts of the single tests are compared, not their numbers. What differs is run once more by
itself on both sides: if they agree then, or have merely changed places, the difference is called
flaky. Tests that fail in a position and in the one that it is compared with have nothing to do with
gmprt: some need the main thread, or a network, or parts of the interpreter that are not installed.
Children that tests start run without gmprt.
"""

REPEAT = """\
## To repeat it

```
python -m tests.cpython run --output 3.11.json         # all modules, all positions: 80 minutes
python -m tests.cpython run --position go test_socket  # one, in a goroutine and in a thread
python -m tests.cpython report 3.11.json ... > docs/cpython-tests.md
```

from the root of the project, with gmprt built for the interpreter (`python setup.py build_ext
--inplace`), which must have its `test` package. Status 1 says that there are differences that are
neither flaky nor meant. Those that are meant are in `tests/cpython/expected.toml`. A small part of
it is in the test suite (`tests/test_cpython.py`).
"""


def document(results: list[dict[str, Any]], modules: list[str]) -> str:
    """Of `modules` those without a result are named, not left out."""
    results = sorted(results, key=lambda r: [int(n) for n in r["python"].split(".")])
    parts = [INTRODUCTION]
    parts += [_table(result, modules) for result in results]
    parts += ["\n".join(_differences(results)), REPEAT]
    return "\n".join(parts)


# ---- the table -----------------------------------------------------------------------------------


def _table(result: dict[str, Any], modules: list[str]) -> str:
    head = "".join(f" {TITLES[p]} |" for p in POSITIONS)
    lines = [f"## CPython {result['python']}\n", "passed / failed / skipped\n"]
    lines += [f"| module | tests |{head}", "|---|--:|" + "--:|" * len(POSITIONS)]
    total: dict[str, list[int]] = {p: [] for p in POSITIONS}
    tests = 0
    found_all = result["modules"]
    for module in [*modules, *(m for m in found_all if m not in modules)]:
        if module not in found_all:
            lines.append(f"| {module} | not run |" + " |" * len(POSITIONS))
            continue
        found = found_all[module]
        if found is None:
            lines.append(f"| {module} | not installed |" + " |" * len(POSITIONS))
            continue
        ran = found["outcomes"]
        numbers = {p: numbers_of(ran[p]) if p in ran else [] for p in POSITIONS}
        most = max(sum(n) for n in numbers.values())
        tests += most
        for position, n in numbers.items():
            if n:
                total[position] = [
                    a + b for a, b in zip(total[position] or [0] * 3, n, strict=True)
                ]
        lines.append(f"| {module} | {most} |" + cells(numbers))
    lines.append(f"| **all** | {tests} |" + cells(total))
    return "\n".join(lines) + "\n"


def numbers_of(outcome: dict[str, Any]) -> list[int]:
    """Passed, failed, skipped."""
    verdicts = list(outcome["tests"].values())
    passed = sum(v in PASSED for v in verdicts)
    skipped = sum(v in SKIPPED for v in verdicts)
    return [passed, len(verdicts) - passed - skipped, skipped]


def cells(numbers: dict[str, list[int]]) -> str:
    return "".join(f" {' / '.join(map(str, n))} |" for n in numbers.values())


# ---- what differs --------------------------------------------------------------------------------


def _differences(results: list[dict[str, Any]]) -> Iterator[str]:
    rows = [
        (result["python"], difference)
        for result in results
        for found in result["modules"].values()
        if found
        for difference in found["differences"]
    ]
    steady = [(v, d) for v, d in rows if not _flaky(d) or d["reason"]]
    yield "## What differs\n"
    if not steady:
        yield "Nothing.\n"
    else:
        yield "| CPython | test | thread | goroutine | why |"
        yield "|---|---|---|---|---|"
        for version, d in steady:
            yield (
                f"| {version} | {d['test']} | {d['was']} ({TITLES[d['reference']]}) "
                f"| {d['now']} ({TITLES[d['position']]}) | {d['reason'] or 'not explained'} |"
            )
        yield ""
    lucky = [(v, d) for v, d in rows if _flaky(d) and not d["reason"]]
    if lucky:
        yield "Flaky in these runs:\n"
        yield "| CPython | test | on a thread | in a goroutine |"
        yield "|---|---|---|---|"
        for version, d in lucky:
            again = d["again"]
            yield f"| {version} | {d['test']} | {d['was']}, {again[0]} | {d['now']}, {again[1]} |"
        yield ""


def _flaky(difference: dict[str, Any]) -> bool:
    return bool(difference["flaky"])
