"""docs/thirdparty.md, from what run --output wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cpython.report import cells, numbers_of
from tests.thirdparty import POSITIONS
from tests.thirdparty.suites import Suite

TITLES = {"plain": "plain", "run": "`run`", "threads": "`run --threads`"}

INTRODUCTION = """\
# The tests of libraries, in goroutines

<!-- Made by `python -m tests.thirdparty report`: change tests/thirdparty/report.py, not this
file. -->

What works on threads is to work in goroutines. Libraries have tests of their own, which say
whether it does. Each suite runs three times, in an environment of its own:

| position | |
|---|---|
| plain | `python -m pytest` |
| `run` | `python -m gmprt run -m pytest`: the tests run in the main goroutine |
| `run --threads` | the same with `--threads`: [threads are goroutines](threads.md), too |

The verdicts of the single tests are compared, not their numbers. What differs is run once more
by itself on both sides: if they agree then, or have merely changed places, the difference is
called flaky. PostgreSQL, MariaDB and Redis are started for those that need one. Tests that fail
in all three need another server, a network, another version of something, and have nothing to do
with gmprt. Processes that tests start run without it. Where only a part of a suite is run,
`tests/thirdparty/suites.toml` says which.
"""

NOT_RUN = """
"Not run" are those that were prepared and never compared: nothing is known of them."""

REPEAT = """\
## To repeat it

```
python -m tests.thirdparty run --output results.json    # all, some hours
python -m tests.thirdparty run --core                   # those that take seconds
python -m tests.thirdparty run flask trio               # these
python -m tests.thirdparty report results.json > docs/thirdparty.md
```

from the root of the project, with gmprt built for the interpreter (`python setup.py build_ext
--inplace`). Environments and sources come from PyPI (where an archive there has no tests, from
the tag of the project's repository), and are kept in `~/.cache/gmprt-thirdparty`. Status 1 says
that there are differences that are neither flaky nor meant. Those that are meant are in
`tests/thirdparty/expected.toml`.
"""


def document(result: dict[str, Any], suites: dict[str, Suite]) -> str:
    """Of the libraries those without a result are named, not left out."""
    parts = [
        INTRODUCTION,
        "\n".join(_table(result, suites)),
        "\n".join(_differences(result)),
        REPEAT,
    ]
    return "\n".join(parts)


def _table(result: dict[str, Any], suites: dict[str, Suite]) -> Iterator[str]:
    yield f"## CPython {result['python']}\n"
    yield "passed / failed / skipped\n"
    yield "| library | version | tests |" + "".join(f" {TITLES[p]} |" for p in POSITIONS)
    yield "|---|---|--:|" + "--:|" * len(POSITIONS)
    total: dict[str, list[int]] = {p: [0, 0, 0] for p in POSITIONS}
    tests = 0
    for name, suite in suites.items():
        found = result["modules"].get(name)
        if found is None:
            yield f"| {name} | {suite.version} | not run |" + " |" * len(POSITIONS)
            continue
        numbers = {p: numbers_of(found["outcomes"][p]) for p in POSITIONS}
        most = max(sum(n) for n in numbers.values())
        tests += most
        for position, n in numbers.items():
            total[position] = [a + b for a, b in zip(total[position], n, strict=True)]
        yield f"| {name} | {suite.version} | {most} |" + cells(numbers)
    yield f"| **all** | | {tests} |" + cells(total)
    if not suites.keys() <= result["modules"].keys():
        yield NOT_RUN
    yield ""


def _differences(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (name, difference)
        for name, found in result["modules"].items()
        if found
        for difference in found["differences"]
    ]
    steady = [(name, d) for name, d in rows if d["reason"] or not d["flaky"]]
    yield "## What differs\n"
    if not steady:
        yield "Nothing.\n"
    else:
        yield "| library | test | plain | here | why |"
        yield "|---|---|---|---|---|"
        for name, d in steady:
            why = d["reason"] or "not explained"
            here = f"{d['now']} ({TITLES[d['position']]})"
            yield f"| {name} | {_short(d['test'])} | {d['was']} | {here} | {why} |"
        yield ""
    lucky = [(name, d) for name, d in rows if d["flaky"] and not d["reason"]]
    if lucky:
        yield "Flaky in these runs:\n"
        yield "| library | test | plain | here |"
        yield "|---|---|---|---|"
        for name, d in lucky:
            was, now = d["again"]
            here = f"{d['now']}, {now} ({TITLES[d['position']]})"
            yield f"| {name} | {_short(d['test'])} | {d['was']}, {was} | {here} |"
        yield ""


def _short(test: str) -> str:
    return test.replace("|", "\\|")
