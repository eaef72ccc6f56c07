"""Two positions of one module: what differs, and whether it does so again.

Tests that depend on luck fail here and there in any position.  So what differs is run once more by
itself, on both sides: if they agree then, or have merely changed places, the difference is called
flaky.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.cpython.expected import Expectations
from tests.cpython.processes import Outcome

NOT_RUN = "not run"
END = "the end of the process"


class Runner(Protocol):
    def run(self, module: str, position: str, only: Sequence[str] = ()) -> Outcome: ...


@dataclass
class Difference:
    """A test, or the end of the process, with other verdicts in `position` than in `reference`."""

    module: str
    reference: str
    position: str
    test: str
    was: str
    now: str
    text: str = ""
    again: tuple[str, str] | None = None
    """The same two verdicts of the second run."""
    reason: str = ""
    """Why it is meant to differ, if it is."""

    @property
    def flaky(self) -> bool:
        """The second run agrees, or the reference has had every verdict that the position has."""
        if self.again is None:
            return False
        was, now = self.again
        return was == now or {self.now, now} <= {self.was, was}

    def record(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "flaky": self.flaky}

    @property
    def explained(self) -> bool:
        return self.flaky or bool(self.reason)

    def __str__(self) -> str:
        words = f"{self.was} in {self.reference}, {self.now} in {self.position}"
        if self.reason:
            words += f"; meant: {self.reason}"
        elif self.again:
            words += f"; again: {self.again[0]}, {self.again[1]}{' (flaky)' if self.flaky else ''}"
        return f"{self.test}: {words}"


def verdicts(was: Outcome, now: Outcome) -> dict[str, tuple[str, str]]:
    """The tests whose verdicts differ, with both."""
    names = [*was.tests, *(name for name in now.tests if name not in was.tests)]
    pairs = {n: (was.tests.get(n, NOT_RUN), now.tests.get(n, NOT_RUN)) for n in names}
    pairs[END] = (was.end or "ok", now.end or "ok")
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def differences(
    runner: Runner,
    expectations: Expectations,
    module: str,
    outcomes: dict[str, Outcome],
    pair: tuple[str, str],
) -> list[Difference]:
    reference, position = pair
    was, now = outcomes[reference], outcomes[position]
    found = [
        Difference(module, reference, position, name, *both, text=_text(name, was, now))
        for name, both in verdicts(was, now).items()
    ]
    for difference in found:
        difference.reason = expectations.reason(module, position, difference.test)
    unexplained = [difference for difference in found if not difference.reason]
    if unexplained:
        _run_again(runner, module, unexplained)
    return found


def _text(name: str, was: Outcome, now: Outcome) -> str:
    return now.texts.get(name) or was.texts.get(name, "")


def _run_again(runner: Runner, module: str, found: list[Difference]) -> None:
    only = sorted({_runnable(difference.test) for difference in found} - {""})
    first = found[0]
    was = runner.run(module, first.reference, only or [""])
    now = runner.run(module, first.position, only or [""])
    for d in found:
        if d.test == END:
            d.again = (was.end or "ok", now.end or "ok")
        else:
            d.again = (was.tests.get(d.test, NOT_RUN), now.tests.get(d.test, NOT_RUN))


def _runnable(name: str) -> str:
    """What to run for it: "setUpClass (test.test_os.PidTests)" is the fate of a class."""
    if name == END or name.endswith("(between tests)"):
        return ""
    if name.startswith(("setUp", "tearDown")) and name.endswith(")"):
        return name[name.index("(") + 1 : -1]
    return name.removesuffix(" (in a forked child)")
