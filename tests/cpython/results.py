"""What is printed of a run, and kept of it as JSON."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

from tests.cpython.compare import Difference
from tests.cpython.processes import Outcome


def show(module: str, outcomes: dict[str, Outcome], found: list[Difference]) -> None:
    numbers = ", ".join(f"{p} {o.count('ok')}/{len(o.tests)}" for p, o in outcomes.items())
    seconds = ", ".join(f"{o.seconds:.0f}" for o in outcomes.values())
    print(f"{module}: {numbers} ok ({seconds} s)", flush=True)
    for difference in found:
        print(f"    {difference}", flush=True)


def load(output: Path | None) -> dict[str, Any]:
    if output is not None and output.exists():
        saved: dict[str, Any] = json.loads(output.read_text("utf-8"))
        return saved
    return {"python": platform.python_version(), "modules": {}}


def save(saved: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(saved, indent=1), "utf-8")


def keep(
    saved: dict[str, Any], module: str, outcomes: dict[str, Outcome], found: list[Difference]
) -> None:
    """This run, and of the one before what this one did not look at."""
    before = saved["modules"].get(module) or {"outcomes": {}, "differences": []}
    kept = [d for d in before["differences"] if d["position"] not in outcomes]
    saved["modules"][module] = {
        "outcomes": {
            **before["outcomes"],
            **{position: dataclasses.asdict(o) for position, o in outcomes.items()},
        },
        "differences": [*kept, *(d.record() for d in found)],
    }
