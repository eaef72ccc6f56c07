"""The table, as text and as Markdown, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench.catalog import CASES, COLUMNS, GOALS, MORE_IS_BETTER, SPEEDUP, Column, Goal
from bench.runner import TIMEOUT, Cell, Peer, Results, Row, last_line

BASES = ("gmprt P=1", "Go P=1")  # ratios are to the first that was measured
FIRST_FIGURES = {case.figures[0] for case in CASES}
_NONE = "-"
_SPREAD = (
    "Medians of the rounds. In brackets: from the least to the most, as a share of the median."
)

_Figure = Callable[[Row, Column, Cell], str]


class Report:
    """What was measured, ready to print."""

    def __init__(self, machine: dict[str, str], peers: dict[str, Peer], results: Results) -> None:
        self.machine = machine
        self.peers = peers
        self.results = results
        self.columns = [column for column in COLUMNS if self._shown(column)]

    def _shown(self, column: Column) -> bool:
        peer = self.peers.get(column.peer)
        return peer is not None and peer.installed

    def failed(self) -> bool:
        """Whether any peer or case gave an error instead of figures."""
        cells = [cell for row in self.results.values() for cell in row.values()]
        return any(cell.errors for cell in cells) or any(p.error for p in self.peers.values())

    # ---- tables as lists of cells ----

    def facts(self) -> list[str]:
        """Machine and peers, one line each."""
        lines = [f"{name}: {value}" for name, value in self.machine.items()]
        return lines + [f"{peer.name}: {peer.status()}" for peer in self.peers.values()]

    def table(self) -> list[list[str]]:
        """Header and rows: the best of the rounds, with ratios to the base column."""
        return self._rows(self._best)

    def medians(self) -> list[list[str]]:
        """Header and rows: medians, and how far apart the rounds are."""
        return self._rows(self._median)

    def _rows(self, figure: _Figure) -> list[list[str]]:
        header = ["", "unit", *(column.name for column in self.columns)]
        rows = [
            [title, unit, *(self._cell(row, column, figure) for column in self.columns)]
            for row, title, unit in titled_rows()
            if row in self.results
        ]
        return [header, *rows]

    def _cell(self, row: Row, column: Column, figure: _Figure) -> str:
        if self.peers[column.peer].error:
            return "error"
        cell = self.results[row].get(column.name)
        if cell is None:
            return _NONE
        return _failure(cell) if cell.errors else figure(row, column, cell)

    def _best(self, row: Row, column: Column, cell: Cell) -> str:
        value = best(row, cell)
        if value is None:
            return _NONE
        ratio = self._ratio(row, column, value)
        return f"{number(value)} ({ratio})" if ratio else number(value)

    def _median(self, row: Row, column: Column, cell: Cell) -> str:
        value, spread = cell.median(), cell.spread()
        if value is None:
            return _NONE
        return f"{number(value)} ({100 * spread:.0f} %)" if spread is not None else number(value)

    def _ratio(self, row: Row, column: Column, value: float) -> str:
        """How many times the base column; the base itself is compared with Go."""
        base = next((name for name in BASES if self._value(row, name)), None)
        if base is None or row[1] == SPEEDUP or column.name == BASES[1] == base:
            return ""
        to_go = column.name == base
        other = self._value(row, BASES[1] if to_go else base)
        return times(value / other) + (" Go" if to_go else "") if other else ""

    def _value(self, row: Row, column: str) -> float | None:
        cell = self.results[row].get(column)
        return best(row, cell) if cell else None

    def goals(self) -> list[list[str]]:
        """Header and rows: each gmprt figure beside what it should be."""
        ours = [column for column in self.columns if column.peer == "gmprt"]
        if not ours:
            return []
        titles = {row: (title, unit) for row, title, unit in titled_rows()}
        table = [["gmprt", "unit", "goal"]]
        for column in ours:
            table[0] += [column.name, ""]
        for goal in GOALS:
            row = (goal.case, goal.figure)
            if row in self.results:
                line = [*titles[row], goal.text()]
                for column in ours:
                    line += self._verdict(goal, column)
                table.append(line)
        return table if len(table) > 1 else []

    def _verdict(self, goal: Goal, column: Column) -> list[str]:
        """The figure, and whether it is good enough; an error is not."""
        row = (goal.case, goal.figure)
        cell = self.results[row].get(column.name)
        value = best(row, cell) if cell else None
        if value is not None:
            base = self._value(row, column.counterpart(goal.peer)) if goal.peer else 1
            if base is None:
                return [number(value), f"no {goal.peer}"]
            return [number(value), "met" if goal.met(value, base) else "MISSED"]
        if self.peers[column.peer].error or (cell and cell.errors):
            return ["error", "MISSED"]
        return [_NONE, ""]

    # ---- renderings ----

    def text(self) -> str:
        """For the terminal."""
        parts = ["\n".join(self.facts()), aligned(self.table()), self._legend()]
        parts += [aligned(self.medians()), _SPREAD]
        if goals := self.goals():
            parts.append(aligned(goals))
        parts += self._failures()
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        """For a file in the repository."""
        parts = [
            "# Results",
            "\n".join(f"- {line}" for line in self.facts()),
            pipes(self.table()),
            self._legend(),
            "## Medians",
            pipes(self.medians()),
            _SPREAD,
        ]
        if goals := self.goals():
            parts += ["## Goals", pipes(goals)]
        parts += self._failures()
        return "\n\n".join(parts) + "\n"

    def json(self, options: dict[str, Any]) -> str:
        """Everything, every round included."""
        goals = [
            {"case": g.case, "figure": g.figure, "limit": g.limit, "at_least": g.at_least}
            for g in GOALS
        ]
        rows = [
            {
                "case": row[0],
                "figure": row[1],
                "title": title,
                "unit": unit,
                "columns": {name: _plain(row, cell) for name, cell in self.results[row].items()},
            }
            for row, title, unit in titled_rows()
            if row in self.results
        ]
        peers = {
            p.name: {"installed": p.installed, "status": p.status()} for p in self.peers.values()
        }
        document = {
            "schema": 2,
            "machine": self.machine,
            "options": options,
            "peers": peers,
            "goals": goals,
            "rows": rows,
        }
        return json.dumps(document, indent=1) + "\n"

    def _legend(self) -> str:
        return (
            "The best of the rounds. In brackets: "
            f"how many times {BASES[0]} (where there is none: {BASES[1]}); in the column "
            f"of gmprt itself: how many times {BASES[1]}.\n"
            f"{_NONE}: the peer has no equivalent. KB: 1000 bytes."
        )

    def _failures(self) -> list[str]:
        """What went wrong, once for each case and column."""
        lines = []
        for row, title, _ in titled_rows():
            for name, cell in self.results.get(row, {}).items():
                if cell.errors and row[1] in FIRST_FIGURES:
                    causes = dict.fromkeys(
                        f"{error}: {last_line(detail)}" if _tells(error, detail) else error
                        for error, detail in zip(cell.errors, cell.details, strict=True)
                    )
                    lines.append(f"error: {title}, {name}: {'; '.join(causes)}")
        return ["\n".join(lines)] if lines else []


def titled_rows() -> list[tuple[Row, str, str]]:
    """All rows in the order of the catalog, with title and unit."""
    rows: list[tuple[Row, str, str]] = []
    for case in CASES:
        for figure in case.figures:
            title = case.title if figure == "value" else f"{case.title}, {figure}"
            rows.append(((case.name, figure), title, case.unit_of(figure)))
        if case.name == "native_tree":
            rows.append(((case.name, SPEEDUP), f"{case.title}, speed-up on 2 Ps", "x"))
    return rows


_UNITS = {row: unit for row, _, unit in titled_rows()}


def _failure(cell: Cell) -> str:
    rounds = len(cell.errors) + len(cell.values)
    return f"ERROR {cell.errors[0]}, {len(cell.errors)} of {rounds}"


def _tells(error: str, detail: str) -> bool:
    """Whether the last line of `detail` is worth showing: not that of a dump."""
    return bool(detail.strip()) and not error.startswith(TIMEOUT)


def best(row: Row, cell: Cell) -> float | None:
    """The least disturbed round."""
    return cell.best(_UNITS[row] in MORE_IS_BETTER)


def _plain(row: Row, cell: Cell) -> dict[str, Any]:
    return {
        "best": best(row, cell),
        "median": cell.median(),
        "spread": cell.spread(),
        "rounds": cell.values,
        "errors": cell.errors,
        "details": cell.details,
    }


def number(value: float) -> str:
    """Three digits or all before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def times(ratio: float) -> str:
    """For example ``0.42x``, ``17x``."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.2g}x"


def aligned(table: list[list[str]]) -> str:
    """Columns of equal width; the first two to the left, figures to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def pipes(table: list[list[str]]) -> str:
    """A Markdown table."""
    rule = ["---" if i < 2 else "---:" for i in range(len(table[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table[0], rule, *table[1:]])
