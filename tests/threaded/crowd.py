"""Many clients at a time, and the backend that holds them all: one event loop.

What a program does for client n is to ask the backend (programs/backend.py), as it would ask a
database.  The backend answers nobody before all have come: so they all are in the program at the
same time, each in a thread of it that waits, however long that takes and however it is scheduled.
"""

from __future__ import annotations

import asyncio
import socket
import sys


class Backend:
    """Answers n * n to whoever sends n, but only once it is open."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._changed = asyncio.Event()
        self._server: asyncio.Server
        self.arrived = 0
        self.port = 0

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def close(self) -> None:
        """From now on whoever asks has to wait."""
        self.arrived = 0
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def full(self, count: int) -> None:
        """Until `count` wait here."""
        while self.arrived < count:
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if line := await reader.readline():
                self.arrived += 1
                self._changed.set()
                await self._open.wait()
                writer.write(b"%d\n" % int(line) ** 2)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the program was killed, or the case is over
        finally:
            writer.close()


class Closed(Exception):
    """The server has closed the connection instead of an answer."""


class Connection:
    """HTTP/1.1, as much as is needed here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.kept = True

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Connection:
        return cls(*await asyncio.open_connection(*address))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> str:
        """The body; AssertionError if it is none of success."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed(str(error)) from None
        status, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        self.kept = status.startswith("http/1.1") and headers.get("connection") != "close"
        body = (await self._reader.readexactly(int(headers["content-length"]))).decode()
        assert " 200 " in status, f"{head}{body}"
        return body

    def close(self) -> None:
        self._writer.close()


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def get(address: tuple[str, int], path: str) -> str:
    """By a connection of its own."""
    connection = await Connection.to(address)
    try:
        connection.send(request(path))
        return await connection.answer()
    finally:
        connection.close()


class Queue:
    """Before a server that listens: where connections wait until it accepts them."""

    def __init__(self, address: tuple[str, int], size: int) -> None:
        host = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
        self._name = f"{host:08X}:{address[1]:04X}"
        self._address = address
        self._size = size
        self._entered = 0
        self._door = asyncio.Lock()

    async def enter(self) -> Connection:
        async with self._door:
            while self._entered == self._size and self._length():
                await asyncio.sleep(0.005)
            self._entered = self._entered % self._size + 1
            return await Connection.to(self._address)

    def _length(self) -> int:
        with open("/proc/net/tcp") as lines:  # those that listen come first
            for line in lines:
                fields = line.split()
                if fields[1] == self._name and fields[3] == "0A":
                    return int(fields[4].partition(":")[2], 16)
        return 0


class Crowd:
    """`count` slow clients of a server.

    Each sends the beginning of its request, and the rest when all have done so.  When it has its
    answer it sends another request, by the same connection if the server keeps that.  `served` is
    done when all have the right answers.

    No more than `queue` come before the server has accepted those: more than its own queue takes
    would be turned away by the kernel.
    """

    def __init__(self, address: tuple[str, int], count: int, queue: int) -> None:
        self._address = address
        self._queue = Queue(address, queue)
        self._begun = asyncio.Event()
        self._left = count
        self.served = asyncio.gather(*(self._client(n) for n in range(count)))

    async def _client(self, n: int) -> None:
        connection = await self._queue.enter()
        asks = request(f"/ask/{n}")
        connection.send(asks[:10])
        self._left -= 1
        if not self._left:
            self._begun.set()
        await self._begun.wait()
        connection.send(asks[10:])
        answer = await connection.answer()
        assert answer == str(n * n), f"{n}: {answer!r}"
        if connection.kept:
            connection.send(request(f"/next/{n}"))
            try:
                answer = await connection.answer()
            except Closed:  # idle for too long: what every client of HTTP does is to try again
                connection.kept = False
        connection.close()
        if not connection.kept:
            answer = await get(self._address, f"/next/{n}")
        assert answer == str(n + 1), f"{n}: {answer!r}"
