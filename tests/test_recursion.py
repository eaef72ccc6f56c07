"""Overflow never crashes Python code: what the table in tests/recursion.py says of goroutines."""

from __future__ import annotations

import sys

import pytest
import recursion

# From 3.12 on the recursion limit counts calls of Python only, which take no stack.
MODES = recursion.MODES if sys.version_info < (3, 12) else ("ends", "thousand")


@pytest.mark.parametrize("mode", MODES)
def test_a_goroutine_goes_as_deep_as_a_thread(mode: str) -> None:
    rows = recursion.table("goroutine", mode, list(recursion.ROWS))
    assert [row for row in rows if not row[-1]] == []
