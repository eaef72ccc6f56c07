"""Unmodified libraries against real servers: 200 goroutines, each in a blocking call of 0.1 s.

One after the other they would take 20 s.  They finish in well under a second, with GOMAXPROCS=1;
time in which the machine had no CPU for the child is not counted.  Where they park they do so on a
few threads; where only a thread can wait, P and licence are handed off.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import Postgres
from support import run_child

HERE = Path(__file__).parent
LIMIT = 1.0
LATEST = 10.0  # whatever the machine does: half of what they would take one after the other
FEW = 50  # threads, of 200: a machine with other work makes some short calls seem blocked
MANY = 100


def play(scene: str, *args: str) -> dict[str, Any]:
    """The scene in a process of its own: what its meter has printed."""
    code = f"""
        import sys
        sys.path.append({str(HERE)!r})
        import scenes_lib
        scenes_lib.play(*{(scene, *args)!r})
    """
    done = run_child(code, env={"GOMAXPROCS": "1"}, timeout=50, status=None)
    if done.returncode == 77:
        pytest.skip(f"{scene}: this machine does not allow it")
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(scene, figures)
    return figures


def in_time(figures: dict[str, Any]) -> None:
    assert figures["elapsed"] - figures["delayed"] < LIMIT, figures
    assert figures["elapsed"] < LATEST, figures


def parked(figures: dict[str, Any]) -> None:
    in_time(figures)
    assert figures["threads"] - figures["interrupted"] <= FEW, figures


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("library", ["psycopg2", "psycopg"])
def test_postgres(library: str, tls: bool, postgres: Postgres) -> None:
    """Both bring a libpq and an OpenSSL of their own, under names of their own."""
    pytest.importorskip(library)
    parked(play(library, postgres.tls if tls else postgres.local))


def test_one_connection_for_many(postgres: Postgres) -> None:
    pytest.importorskip("psycopg2")
    play("psycopg2_one_connection", postgres.local)


def test_mariadb(mariadb: str) -> None:
    pytest.importorskip("pymysql")
    parked(play("pymysql", mariadb))


def test_redis(redis: str) -> None:
    pytest.importorskip("redis")
    parked(play("redis", redis))


@pytest.mark.parametrize("library", ["requests", "urllib3"])
def test_http(library: str, nginx: str) -> None:
    pytest.importorskip(library)
    parked(play(library, nginx))


def test_flask() -> None:
    pytest.importorskip("flask")
    parked(play("flask", "goroutines"))


def test_flask_with_threads() -> None:
    """Werkzeug's own server, which starts a thread for each request, beside goroutines that ask."""
    pytest.importorskip("flask")
    play("flask", "threads")


@pytest.mark.parametrize("library", ["cryptography", "pydantic"])
def test_rust(library: str) -> None:
    """Goroutines that wait below code that is bound to its thread wait with the thread."""
    pytest.importorskip(library)
    in_time(play(library))


@pytest.mark.parametrize("scene", ["sqlite", "files"])
def test_handed_off(scene: str) -> None:
    figures = play(scene)
    in_time(figures)
    assert figures["handoffs"] >= MANY <= figures["threads"], figures


# ---- the list in the documentation ---------------------------------------------------------------

LIST = HERE.parents[1] / "docs" / "libraries.md"

# Where the list's scenes find what they talk to: a fixture, and what of it they want to know.
SERVERS: dict[str, tuple[str, Any]] = {
    "psycopg2": ("postgres", lambda server: server.local),
    "psycopg": ("postgres", lambda server: server.local),
    "pymysql": ("mariadb", str),
    "redis": ("redis", str),
    "requests": ("nginx", str),
    "urllib3": ("nginx", str),
}
MODULES = {"pyzmq": "zmq"}
BUILT_IN = ("sqlite", "own_sqlite", "plain_files", "files", "names")


def listed() -> list[tuple[str, str]]:
    """Scene and cost of each row."""
    rows = [line.strip("| \n").split(" | ") for line in LIST.read_text().splitlines()]
    return [(row[-1].strip("`"), row[-2]) for row in rows if len(row) == 4 and row[-1][0] == "`"]


def test_the_list_is_of_these_libraries() -> None:
    assert len(listed()) >= 14
    assert {cost for _, cost in listed()} == {"parks", "a thread each"}


@pytest.mark.parametrize(("scene", "cost"), listed())
def test_as_listed(scene: str, cost: str, request: pytest.FixtureRequest) -> None:
    if scene not in BUILT_IN:
        pytest.importorskip(MODULES.get(scene, scene))
    args: list[str] = []
    if scene in SERVERS:
        fixture, of = SERVERS[scene]
        args.append(of(request.getfixturevalue(fixture)))
    if scene == "flask":
        args.append("goroutines")
    figures = play(scene, *args)
    if cost == "parks":
        assert figures["threads"] - figures["interrupted"] < MANY, figures
    else:
        assert figures["threads"] >= MANY, figures
