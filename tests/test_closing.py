"""gmprt/_api/closing.py: cancel_closes(); and the protocol fault that it is for, with a server and
a pool of our own.  Real libraries: tests/lib/test_cancellation.py."""

# ruff: noqa: PT012 - what a block raises it raises at its end

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import PATIENCE, ended, parked

import gmprt
from gmprt import Cancelled, Chan, GoroutineCancelled, cancel_closes, go, move_on_after, shield

NEVER = 1000.0


class Closes:
    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self.error = error

    def close(self) -> None:
        gmprt.sleep(0.001)  # as one that says goodbye
        self.closed += 1
        if self.error:
            raise self.error


# ---- when it closes ----------------------------------------------------------------------------


def test_a_cancel_closes() -> None:
    it = Closes()

    def body() -> None:
        with cancel_closes(it) as same:
            assert same is it
            gmprt.sleep(NEVER)

    g = go(body)
    parked(g)
    g.cancel("why")
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert (error.reason, it.closed) == ("why", 1)


def test_a_deadline_closes() -> None:
    it, other = Closes(), list[str]()

    def body() -> None:
        with move_on_after(0.005) as scope:
            with cancel_closes(it), cancel_closes(other, lambda: other.append("closed")):
                gmprt.sleep(NEVER)
        assert scope.expired

    go(body).result(PATIENCE)
    assert (it.closed, other) == (1, ["closed"])


def test_nothing_else_closes(where: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        it = Closes()
        with cancel_closes(it):
            gmprt.sleep(0.001)
        with pytest.raises(ZeroDivisionError):
            with cancel_closes(it):
                raise ZeroDivisionError
        assert not it.closed

    where(body)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_no_library_expects_closes(
    kind: type[BaseException], where: Callable[[Callable[[], Any]], Any]
) -> None:
    def body() -> None:
        it = Closes()
        with pytest.raises(kind):
            with cancel_closes(it):
                raise kind
        assert it.closed == 1

    where(body)


def test_one_that_was_swallowed_closes() -> None:
    """Or has become another exception: somebody in between knew no better."""

    def swallowed() -> None:
        try:
            gmprt.sleep(NEVER)
        except Cancelled:
            pass

    def changed() -> None:
        try:
            gmprt.sleep(NEVER)
        except Cancelled:
            raise OSError from None

    def body() -> None:
        it = Closes()
        with move_on_after(0), cancel_closes(it):
            swallowed()
        assert it.closed == 1
        with pytest.raises(OSError):
            with move_on_after(0), cancel_closes(it):
                changed()
        assert it.closed == 2
        with cancel_closes(it):  # those were before
            gmprt.sleep(0.001)
        assert it.closed == 2

    go(body).result(PATIENCE)


def test_one_that_has_ended_an_inner_block_closes() -> None:
    it = Closes()

    def body() -> None:
        with cancel_closes(it):
            with move_on_after(0):
                gmprt.sleep(NEVER)

    go(body).result(PATIENCE)
    assert it.closed == 1


def test_one_that_waits_closes_nothing() -> None:
    """Below C code that cannot be left it is delivered behind the block."""
    it = Closes()

    def body() -> None:
        with move_on_after(0.005) as scope:
            with cancel_closes(it):
                list(map(time.sleep, [0.02]))
            assert not scope.expired
        with move_on_after(0):
            with shield(), cancel_closes(it):
                gmprt.sleep(0.001)

    go(body).result(PATIENCE)
    assert not it.closed


def test_closing_fails() -> None:
    it = Closes(OSError("goodbye"))

    def body() -> None:
        with move_on_after(0) as scope:
            with pytest.raises(Cancelled) as caught:
                with cancel_closes(it):
                    gmprt.sleep(NEVER)
            (note,) = caught.value.__notes__
            assert note.startswith("closing <")
            assert note.endswith("failed: OSError('goodbye')")
            raise caught.value
        assert scope.expired
        with pytest.raises(OSError, match="goodbye"):
            with move_on_after(0), cancel_closes(it):
                with pytest.raises(Cancelled):
                    gmprt.sleep(NEVER)

    go(body).result(PATIENCE)


def test_closing_is_shielded() -> None:
    gate = Chan[int]()
    closed: list[int] = []

    def close() -> None:
        closed.append(gate.recv())

    def body() -> None:
        with cancel_closes(gate, close):
            gmprt.sleep(NEVER)

    g = go(body)
    parked(g, "sleep")
    g.cancel(1)
    parked(g, "chan receive")
    g.cancel(2)
    for _ in range(50):
        gmprt.sleep(0)
    gate.send(7)
    error = g.exception(PATIENCE)
    assert isinstance(error, GoroutineCancelled)
    assert (error.reason, closed) == (1, [7])


def test_arguments() -> None:
    with pytest.raises(
        TypeError, match=r"^cancel_closes\(\): target must have close\(\), not int$"
    ):
        cancel_closes(1)
    with pytest.raises(TypeError, match=r"^cancel_closes\(\): close must be callable, not int$"):
        cancel_closes(Closes(), 1)  # type: ignore[arg-type]


# ---- the protocol fault ------------------------------------------------------------------------


class Connection:
    """A client that sends a line and reads the reply, which is that line."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._file = self._socket.makefile("rb")
        self.closed = False

    def ask(self, question: str) -> str:
        self._socket.sendall(question.encode() + b"\n")
        return self._file.readline().decode().strip()

    def close(self) -> None:
        self.closed = True
        self._file.close()
        self._socket.close()


class Pool:
    """Lends connections, as most do: those that are not closed come back."""

    def __init__(self, address: tuple[str, int], careful: bool) -> None:
        self._address, self._careful = address, careful
        self._free: list[Connection] = []

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        connection = self._free.pop() if self._free else Connection(self._address)
        try:
            if self._careful:
                with cancel_closes(connection):
                    yield connection
            else:
                yield connection
        finally:
            if not connection.closed:
                self._free.append(connection)

    def close(self) -> None:
        while self._free:
            self._free.pop().close()


@contextmanager
def echo_server(asked: Chan[str], answer: Chan[int]) -> Iterator[tuple[str, int]]:
    """Answers each line when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(s: socket.socket) -> None:
            with s, s.makefile("rb") as lines:
                for line in lines:
                    asked.send(line.decode().strip())
                    answer.recv()
                    try:
                        s.sendall(line)
                    except OSError:  # nobody wants to hear it any more
                        return

        def accept() -> None:
            while True:
                s, _ = listener.accept()
                go(serve, s)

        acceptor = go(accept)
        try:
            yield listener.getsockname()
        finally:
            acceptor.cancel()
            ended(acceptor)


@pytest.mark.parametrize("careful", [False, True])
def test_the_reply_of_somebody_else(careful: bool) -> None:
    """A request is cancelled before its reply has come; the next one reads that."""
    asked, answer = Chan[str](10), Chan[int](10)

    def ask(question: str) -> str:
        with pool.connection() as connection:
            return connection.ask(question)

    with echo_server(asked, answer) as address:
        pool = Pool(address, careful)
        first = go(ask, "the balance of Alice")
        assert asked.recv(timeout=PATIENCE) == "the balance of Alice"
        parked(first, "IO wait")
        first.cancel()
        ended(first)
        second = go(ask, "the balance of Bob")
        parked(second, "IO wait")
        for _ in range(2):
            answer.send(1)
        reply = second.result(PATIENCE)
        pool.close()
    assert reply == ("the balance of Bob" if careful else "the balance of Alice")
