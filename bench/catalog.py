"""The rows, columns and goals of the comparison."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One measurement; `figures` are the rows it gives."""

    name: str
    title: str
    unit: str
    figures: tuple[str, ...] = ("value",)
    timeout: float = 60.0  # seconds for one process
    most_rounds: int = 99  # the long ones are not repeated as often


@dataclass(frozen=True)
class Column:
    """One peer, in one configuration."""

    name: str
    peer: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What a gmprt figure should reach."""

    case: str
    limit: float
    figure: str = "value"
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self) -> str:
        """For example ``<= 60``."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


DELAY = ("p50", "p99", "p99.9", "max")
SPEEDUP = "speed-up"

CASES = (
    Case("gosched", "gosched between two goroutines, per switch", "ns"),
    Case("pingpong", "unbuffered ping-pong, round trip", "ns"),
    Case("buffered", "buffered channel (128), per item", "ns"),
    Case("spawn", "go + join in batches of 1000, per goroutine", "ns"),
    Case("select", "send + select over 4 channels, one ready", "ns"),
    Case("select_object", "the same with a Select object", "ns"),
    Case("memory", "memory per goroutine parked in recv", "B", ("hot", "idle"), 240, 3),
    Case("native_yield", "native: yield between two, per switch", "ns"),
    Case("native_pingpong", "native: unbuffered ping-pong, round trip", "ns"),
    Case("native_spawn", "native: spawn + join, one at a time", "ns"),
    Case("native_buffered", "native: buffered channel (128), per item", "ns"),
    Case("native_select", "native: blocking select of 4 with reply", "ns"),
    Case("native_tree", "native: fork-join tree, fib(36) cut below 16", "ms"),
    Case("handoff", "turns of 1000 beside time.sleep(1)", "ms", DELAY, 120, 3),
    Case("handoff_c", "turns of 1000 beside a 1 s C call", "ms", DELAY, 120, 3),
    Case("handoff_control", "turns of 1000 beside a cooperative sleep", "ms", DELAY, 120, 3),
    Case("sleepers_10k", "10 000 sleepers of 0.5 s, total", "s", timeout=120, most_rounds=3),
    Case("sleepers_100k", "100 000 sleepers of 0.5 s, total", "s", timeout=180, most_rounds=3),
)

COLUMNS = (
    Column("gmprt P=1", "gmprt", {"GOMAXPROCS": "1"}),
    Column("gmprt P=2", "gmprt", {"GOMAXPROCS": "2"}),
    Column("Go P=1", "go", {"GOMAXPROCS": "1"}),
    Column("Go P=2", "go", {"GOMAXPROCS": "2"}),
    Column("gevent", "gevent"),
    Column("greenlet", "greenlet"),
    Column("uvloop", "uvloop"),
    Column("asyncio", "asyncio"),
    Column("trio", "trio"),
    Column("threads", "threads"),
)

PEERS = tuple(dict.fromkeys(column.peer for column in COLUMNS))

KB = 1000
MEMORY_GOAL = (9 if sys.version_info < (3, 12) else 7) * KB

GOALS = (
    Goal("gosched", 60),
    Goal("pingpong", 180),
    Goal("buffered", 75),
    Goal("spawn", 400),
    Goal("select", 300),
    Goal("memory", MEMORY_GOAL, "hot"),
    Goal("native_yield", 25),
    Goal("native_pingpong", 150),
    Goal("native_spawn", 140),
    Goal("native_buffered", 28),
    Goal("native_select", 200),
    Goal("native_tree", 1.7, SPEEDUP, at_least=True),
    Goal("handoff", 15, "p99.9"),
    Goal("handoff_c", 15, "p99.9"),
)
