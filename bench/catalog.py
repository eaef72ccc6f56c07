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
    units: tuple[str, ...] = ()  # of the figures, if they differ
    placed: bool = False  # its process leaves a CPU to the load

    def unit_of(self, figure: str) -> str:
        """The unit of one of its figures."""
        return self.units[self.figures.index(figure)] if self.units else self.unit


@dataclass(frozen=True)
class Column:
    """One peer, in one configuration."""

    name: str
    peer: str
    env: dict[str, str] = field(default_factory=dict)

    def counterpart(self, peer: str) -> str:
        """The column of `peer` in the same configuration."""
        return self.name.replace(self.peer, peer)


@dataclass(frozen=True)
class Goal:
    """What a gmprt figure should reach."""

    case: str
    limit: float
    figure: str = "value"
    at_least: bool = False
    peer: str = ""  # the limit is a multiple of this peer's figure at the same GOMAXPROCS

    def met(self, value: float, base: float = 1) -> bool:
        """Whether `value` is good enough; `base`: the peer's figure."""
        limit = self.limit * base
        return value >= limit if self.at_least else value <= limit

    def text(self) -> str:
        """For example ``<= 60``, ``>= 0.8 Go``."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g} {self.peer}".rstrip()


MORE_IS_BETTER = ("1/s", "x")  # units

DELAY = ("p50", "p99", "p99.9", "max")
SPEEDUP = "speed-up"

CASES = (
    Case("gosched", "gosched between two goroutines, per switch", "ns"),
    Case("pingpong", "unbuffered ping-pong, round trip", "ns"),
    Case("buffered", "buffered channel (128), per item", "ns"),
    Case("spawn", "go + join in batches of 1000, per goroutine", "ns"),
    Case("select", "send + select over 4 channels, one ready", "ns"),
    Case("select_object", "the same with a Select object", "ns"),
    Case("select_timeout", "the same with a timeout that does not pass", "ns"),
    Case("many", "1000 items by send_many, recv_many, buffer of 1000, per item", "ns"),
    Case("fail_after", "a receive that is ready within a time limit of 1 s", "ns"),
    Case("group", "a group of 1000 empty goroutines, per goroutine", "ns"),
    Case("mutex", "Mutex locked and unlocked, free", "ns"),
    Case("mutex_contended", "8 goroutines that yield with a Mutex locked, per turn", "ns"),
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
    Case("sleepers_10k_unmodified", "10 000 in plain time.sleep(0.5), total", "s", timeout=120),
    Case("lock_handover", "threading.Lock handed over, round trip", "ns"),
    Case(
        "echo",
        "echo, 1000 connections",
        "",
        ("rate", "p50", "p99", "cpu"),
        units=("1/s", "us", "us", "us"),
        placed=True,
    ),
    Case("recv_overhead", "recv in an ordinary thread", "ns", ("added", "without"), 120, 1),
    Case("preemption_cost", "slow-down by preemption", "%", timeout=300, most_rounds=1),
    Case(
        "preemption_delay",
        "lateness of 1000 sleepers beside a hog",
        "ms",
        ("p99", "worst", "machine"),
        timeout=120,
    ),
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
ECHO_GOAL = 0.82  # 90 000 requests/s where Go does 110 000

GOALS = (
    Goal("gosched", 60),
    Goal("pingpong", 180),
    Goal("buffered", 75),
    Goal("spawn", 400),
    Goal("select", 300),
    Goal("many", 15),
    Goal("memory", MEMORY_GOAL, "hot"),
    Goal("native_yield", 25),
    Goal("native_pingpong", 150),
    Goal("native_spawn", 140),
    Goal("native_buffered", 28),
    Goal("native_select", 200),
    Goal("native_tree", 1.7, SPEEDUP, at_least=True),
    Goal("handoff", 15, "p99.9"),
    Goal("handoff_c", 15, "p99.9"),
    Goal("sleepers_10k_unmodified", 0.7),
    Goal("lock_handover", 1500),
    Goal("echo", ECHO_GOAL, "rate", at_least=True, peer="Go"),
    Goal("echo", 1, "p99", peer="Go"),
    Goal("recv_overhead", 10, "added"),
    Goal("preemption_cost", 1),
    Goal("preemption_delay", 12, "worst"),
)
