"""What docs/cancellation.md says of libraries: what a cancel in the middle of a request leaves."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable
from typing import Any

import pytest
from servers import Postgres
from support import PATIENCE, parked

import gmprt
from gmprt import cancel_closes, go, move_on_after, shield

SOON = 0.03


def in_goroutine(body: Callable[[], None]) -> None:
    go(body).result(PATIENCE)


def cut_short(fn: Callable[[], object]) -> bool:
    with move_on_after(SOON) as scope:
        fn()
    return scope.expired


# ---- redis-py ----------------------------------------------------------------------------------


def redis_pool(path: str) -> Any:
    redis = pytest.importorskip("redis")
    return redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection, path=path, max_connections=1
    )


def test_redis_by_itself(redis: str) -> None:
    """Its commands close the connection on any exception."""
    client = pytest.importorskip("redis").Redis(connection_pool=redis_pool(redis))

    def body() -> None:
        assert cut_short(lambda: client.blpop("cancellation:1", timeout=0))
        assert client.echo("mine") == b"mine"

    in_goroutine(body)
    client.connection_pool.disconnect()


@pytest.mark.parametrize("careful", [False, True])
def test_redis_by_hand(redis: str, careful: bool) -> None:
    """Who takes a connection of the pool and reads without that: the next one gets the reply."""
    module = pytest.importorskip("redis")
    pool = redis_pool(redis)
    client = module.Redis(connection_pool=pool)
    other = module.Redis(unix_socket_path=redis)
    key = f"cancellation:{careful}"

    def pop() -> Any:
        connection.send_command("BLPOP", key, "0")
        return connection.read_response(disconnect_on_error=False)

    def careful_pop() -> Any:
        with cancel_closes(connection, connection.disconnect):
            return pop()

    connection = pool.get_connection()
    g = go(careful_pop if careful else pop)
    parked(g, "IO wait")
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    pool.release(connection)
    answer = go(client.echo, "mine")
    if not careful:
        parked(answer, "IO wait")  # the server still does what was asked before
        other.rpush(key, "theirs")
    assert answer.result(PATIENCE) == (b"mine" if careful else [key.encode(), b"theirs"])
    pool.disconnect()
    other.close()


# ---- http --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["requests", "urllib3"])
def test_http_pools_by_themselves(library: str, nginx: str) -> None:
    """They give up a connection that they could not finish with."""
    module = pytest.importorskip(library)
    if library == "requests":
        session = module.Session()
        get = lambda url: session.get(url).text  # noqa: E731
    else:
        session = module.PoolManager()
        get = lambda url: session.request("GET", url).data.decode()  # noqa: E731

    def body() -> None:
        slow = f"{nginx}/slow?key=cancellation-{library}"
        get(slow)
        assert cut_short(lambda: get(slow))  # the second one takes 0.1 s
        assert get(nginx) == "fast"

    in_goroutine(body)


@pytest.mark.parametrize("careful", [False, True])
def test_http_client(nginx: str, careful: bool) -> None:
    """One connection that is used again: it is stuck, or makes itself anew."""
    connection = http.client.HTTPConnection(nginx.partition("//")[2])

    def get(path: str) -> bytes:
        connection.request("GET", path)
        return connection.getresponse().read()

    def body() -> None:
        slow = f"/slow?key=cancellation-client-{careful}"
        get(slow)
        if careful:
            with move_on_after(SOON) as scope, cancel_closes(connection):
                get(slow)
            assert scope.expired
            assert get("/") == b"fast"
        else:
            assert cut_short(lambda: get(slow))
            with pytest.raises(http.client.CannotSendRequest):
                get("/")

    in_goroutine(body)
    connection.close()


# ---- PostgreSQL --------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["psycopg2", "psycopg"])
def test_postgres_is_not_interrupted(library: str, postgres: Postgres) -> None:
    """It waits in C code of its own: the query goes on to its end, and the connection is good."""
    module = pytest.importorskip(library)

    def body() -> None:
        connection = module.connect(postgres.local)
        cursor = connection.cursor()
        before = time.monotonic()
        with move_on_after(SOON) as scope:
            with cancel_closes(connection):
                cursor.execute("select pg_sleep(0.1), 42")
                assert time.monotonic() - before >= 0.1
                assert cursor.fetchone()[1] == 42
            gmprt.sleep(PATIENCE)  # here it is delivered
        assert scope.expired
        cursor.execute("select 43")
        assert cursor.fetchone()[0] == 43
        # What bounds it is the server.
        cursor.execute("set statement_timeout = 30")
        with pytest.raises(module.errors.QueryCanceled):
            cursor.execute("select pg_sleep(10)")
        connection.close()

    in_goroutine(body)


# ---- event loops -------------------------------------------------------------------------------


def test_asyncio_ends_its_tasks() -> None:
    log: list[str] = []

    async def task() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            log.append("finally")

    def body() -> None:
        assert cut_short(lambda: asyncio.run(task()))
        assert asyncio.run(asyncio.sleep(0.001, "again")) == "again"

    in_goroutine(body)
    assert log == ["finally"]


def test_trio_under_a_shield() -> None:
    trio = pytest.importorskip("trio")
    log: list[str] = []

    async def task() -> None:
        with trio.move_on_after(2 * SOON):
            try:
                await trio.sleep(PATIENCE)
            finally:
                log.append("finally")

    def body() -> None:
        with move_on_after(SOON) as scope:
            with shield():
                trio.run(task)
            log.append("left")
            gmprt.sleep(PATIENCE)
        assert scope.expired

    in_goroutine(body)
    assert log == ["finally", "left"]
