"""The table in README.md, from what bench.peers has written.

    python -m bench.peers --peers gmprt go --json FILE && python -m bench.readme FILE

The best of the rounds; Go's figure of the same number of Ps in brackets.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from bench.report import number

README = Path(__file__).resolve().parent.parent / "README.md"
HEAD = "| | unit | P=1 | P=2 |\n|---|---|--:|--:|\n"
_TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")

Rows = dict[tuple[str, str], dict[str, Any]]  # by case and figure: the best, by column

# Title, unit, what stands in one cell: figures of cases.
LINES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("gosched between two goroutines, per switch", "ns", (("gosched", "value"),)),
    ("unbuffered ping-pong, round trip", "ns", (("pingpong", "value"),)),
    ("buffered channel (128), per item", "ns", (("buffered", "value"),)),
    ("go + join in batches of 1000", "ns", (("spawn", "value"),)),
    ("send + select over 4 channels", "ns", (("select", "value"),)),
    ("memory per goroutine parked in `recv`, just now", "B", (("memory", "hot"),)),
    ("the same after half a second", "B", (("memory", "idle"),)),
    (
        "native: yield / ping-pong / spawn + join",
        "ns",
        (("native_yield", "value"), ("native_pingpong", "value"), ("native_spawn", "value")),
    ),
    ("delay beside `time.sleep(1)`, 99.9th percentile", "ms", (("handoff", "p99.9"),)),
    ("10 000 goroutines sleep 0.5 s", "s", (("sleepers_10k", "value"),)),
    ("`threading.Lock` handed over, round trip", "ns", (("lock_handover", "value"),)),
    ("echo, 1000 connections", "1/s", (("echo", "rate"),)),
    ("lateness of 1000 sleepers beside a hog, worst", "ms", (("preemption_delay", "worst"),)),
)


def rows_of(document: dict[str, Any]) -> Rows:
    """What bench.peers --json has written."""
    return {
        (row["case"], row["figure"]): {
            name: cell["best"] for name, cell in row["columns"].items() if cell["best"] is not None
        }
        for row in document["rows"]
    }


def _joined(rows: Rows, figures: tuple[tuple[str, str], ...], column: str) -> str:
    """Figures of one column, or nothing: all must be there."""
    values = [rows.get(figure, {}).get(column) for figure in figures]
    return "" if None in values else " / ".join(_short(value) for value in values)


def _short(value: Any) -> str:
    """No digits behind the point that a reader cannot use."""
    return f"{value:.0f}" if 10 <= value < 100 else number(value)


def _cell(rows: Rows, figures: tuple[tuple[str, str], ...], ps: int) -> str:
    ours, theirs = (_joined(rows, figures, f"{peer} P={ps}") for peer in ("gmprt", "Go"))
    return f"{ours} ({theirs})" if ours and theirs else ours or "-"


def table(rows: Rows) -> str:
    """The table, as Markdown."""
    lines = (
        f"| {title} | {unit} | {_cell(rows, figures, 1)} | {_cell(rows, figures, 2)} |\n"
        for title, unit, figures in LINES
    )
    return HEAD + "".join(lines)


def replaced(text: str, rows: Rows) -> str:
    """The text with the table in place of the one that it has."""
    found, n = _TABLE.subn(lambda _: table(rows), text)
    if n != 1:
        raise ValueError(f"{n} tables that begin with {HEAD!r}")
    return found


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    rows = rows_of(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    README.write_text(replaced(README.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
