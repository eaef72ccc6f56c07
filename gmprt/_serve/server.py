"""Listeners and their connections, deadlines, and the stop.

    accept, one for each listener   takes a slot, then a connection: a goroutine for each
    watch                           compares deadlines with the clock

Both descend from the caller's run(), and end with it.  Connections are detached: run() would wait
for one that computes for as long as it does.  What is left of them after stop() and drain() is
cancelled when the process ends, and given three seconds then (gmprt/_life/run.py).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from errno import ECONNABORTED
from typing import TYPE_CHECKING, Any

import gmprt
from gmprt._serve.connection import Connection
from gmprt._serve.request import Limits, Parser, Request, Requests, Trust
from gmprt._serve.response import FileWrapper, Response

if TYPE_CHECKING:
    import ssl

TICK = 0.25  # seconds by which a deadline may be missed
_LOOK = (
    1.0  # seconds: with GMPRT_INTERPOSE no cancel ends an accept(), which must see the stop itself
)
_PAUSE = 0.1  # seconds until there may be a descriptor again

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


_LIMITS = Limits()
_NOBODY = Trust()


def httptools_parser(connection: Connection, _: Any) -> Parser:
    return Parser(connection, _LIMITS, _NOBODY)


@dataclass(frozen=True)
class Settings:
    """What the two fronts may choose, each as its users know it."""

    connections: int = 1000  # at a time
    keepalive: float = 5.0  # seconds until an idle connection is closed
    patience: float = 30.0  # seconds for a head, or for something of a body to come or go
    sendfile: bool = True
    script_name: str = ""
    tls: Callable[[socket.socket], ssl.SSLSocket] | None = None  # wraps, and does no more
    parser: Callable[[Connection, Any], Requests] = httptools_parser


class Listener:
    """A listening socket, and what all requests that come by it have in common."""

    def __init__(self, server: Server, sock: socket.socket, environ: Mapping[str, Any]) -> None:
        # The descriptor is non-blocking, for other processes may take the connection that it has
        # been waited for.  With a time-out Python waits and asks again.
        sock.settimeout(_LOOK)
        self.server = server
        self.sock = sock
        self.environ: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "SERVER_SOFTWARE": server.name,
            **environ,
        }
        name: Any = sock.getsockname()
        if not isinstance(name, (str, bytes)):  # else a Unix socket's
            self.environ |= {"SERVER_NAME": str(name[0]), "SERVER_PORT": str(name[1])}

    def accept(self) -> None:
        server = self.server
        while not server.stopping:
            server.slots.acquire()
            try:
                sock, address = self.sock.accept()
            except TimeoutError:
                server.slots.release()
            except OSError as error:
                server.slots.release()
                if error.errno != ECONNABORTED:
                    server.log.error("No connection can be accepted: %s", error)
                    gmprt.sleep(_PAUSE)
            else:
                server.begin(Connection(self, sock, address))


class Server:
    """A WSGI application behind some sockets.  To be used in a goroutine."""

    name = f"gmprt/{gmprt.__version__}"

    def __init__(
        self,
        app: Application,
        listeners: Sequence[socket.socket],
        settings: Settings,
        environ: Mapping[str, Any],
        log: Any,
    ) -> None:
        self.app = app
        self.settings = settings
        self.log = log
        self.slots = gmprt.Semaphore(settings.connections)
        self.stopping = False
        self._listeners = [Listener(self, sock, environ) for sock in listeners]
        self._accepting: list[gmprt.Goroutine[None]] = []
        self._connections: set[Connection] = set()
        self._open = gmprt.WaitGroup()

    def start(self) -> None:
        self._accepting = [gmprt.go(listener.accept) for listener in self._listeners]
        gmprt.go(self._watch)

    def stop(self) -> None:
        """Accept no more; close the connections that wait for a request, new ones after a while."""
        self.stopping = True
        for g in self._accepting:
            g.cancel("the server stops")
        for g in self._accepting:
            g.join()
        # Whoever goes to wait from now on sees `stopping`, and does it himself.
        now = time.monotonic()
        for connection in list(self._connections):
            connection.retire(now)

    def drain(self, seconds: float) -> bool:
        """Wait for the requests in flight.  False: there are some left."""
        return self._open.wait(seconds)

    # ---- connections call these ----------------------------------------------------------------

    def begin(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._open.add()
        try:
            gmprt.go(connection.run).detach()
        except (MemoryError, gmprt.Error):
            self.log.exception("No goroutine for a connection")
            connection.close()

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._open.done()
        self.slots.release()

    def before(self, request: Request, environ: dict[str, Any]) -> None:
        """A request is there; what raises is an error of the application's."""

    def after(
        self, request: Request, environ: dict[str, Any], response: Response, seconds: float
    ) -> None:
        """It has been answered, or not."""

    # ---- deadlines -----------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            gmprt.sleep(TICK)
            now = time.monotonic()
            for connection in list(self._connections):
                if connection.until < now:
                    connection.late(now)
                elif self.stopping:
                    connection.retire(now)
