"""Overflow never crashes Python code: what the table in tests/recursion.py says of goroutines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import recursion

HUNGRY = (
    *(
        "sorted with a key",
        "min with a key",
        "a heap",
        "a substitution",
        "a sort in c with a callback",
    ),
    *("__eq__ in a dict", "__repr__ in a list", "__reduce__", "a raw file", "parsers in parsers"),
)
"""Of the rows that take most of the stack for each call that is counted."""


def _wrong(mode: str, rows: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    return [row for row in recursion.table("goroutine", mode, rows) if not row[-1]]


@pytest.mark.parametrize("mode", ["ends", "thousand"])
def test_a_goroutine_goes_as_deep_as_a_thread(mode: str) -> None:
    assert _wrong(mode, list(recursion.ROWS)) == []


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the limit counts no calls of C")
def test_a_recursion_limit_that_no_stack_holds() -> None:
    assert _wrong("high", HUNGRY) == []
