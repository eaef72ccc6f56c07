"""One connection: request after request, in one goroutine.

A deadline is a number, `until`, which the server's watch compares with the clock a few times a
second (server.py).  It stands while this goroutine is in a call on the socket, at no other time:
so the application may use the socket as it likes, for a WebSocket, say.  Who is too slow has the
socket shut down under him, and finds the end of the stream.  What was rejected: settimeout(), with
which Python asks poll() before every single call; SO_RCVTIMEO, which an SSL socket takes for "try
again"; a timer for each wait.

The clock runs anew for each head, which must be there as a whole in time, and for each block of a
body that comes or goes: a slow client is one that does nothing, not one that has much to send.
Of a block that goes the call does not tell: the kernel wakes who sends when a third of its buffer
is free, which may be a megabyte.  So the watch asks the kernel what the client has taken, when the
time is up and not before, and ends the call if that is the same after another `patience`.
"""

from __future__ import annotations

import os
import socket
import termios
import time
from collections.abc import Callable, Iterable
from fcntl import ioctl
from math import inf
from typing import TYPE_CHECKING, Any

from gmprt._serve.request import Gone, Refused, Request, Requests
from gmprt._serve.response import Response

if TYPE_CHECKING:
    import ssl

    from gmprt._serve.server import Listener

_HEAD = 8 * 1024  # bytes to read at a time: whoever waits for a request has memory for that
_BLOCK = 64 * 1024  # of a body
_SEND_PIECE = 256 * 1024  # bytes that go out under one deadline
_DRAIN = 64 * 1024  # what is read of a body that nobody wants, to keep the connection
_HANDSHAKE = 5.0  # seconds, also of a stop, which waits for it
_FIRST = 5.0  # seconds that a stop gives a new connection for its first request, as Go does
_ACKED = slice(120, 128)  # tcpi_bytes_acked in Linux's struct tcp_info
_LINGER = 2.0  # seconds for the client to read the answer to what it is still sending

_keys = {  # of the environ, by names of fields: those that are special, and those that have come
    "CONTENT-TYPE": "CONTENT_TYPE",
    "CONTENT-LENGTH": "CONTENT_LENGTH",
    "SCRIPT_NAME": "SCRIPT_NAME",  # of a forwarder that is trusted: all others are dropped
}
_KNOWN = 1024


def _key(name: str) -> str:
    key = _keys.get(name)
    if key is None:
        key = f"HTTP_{name.replace('-', '_')}"
        if len(_keys) < _KNOWN:
            _keys[name] = key
    return key


def _host_and_port(field: str) -> tuple[str, str]:
    """Of a Host field; an IPv6 address is without its brackets, as it is of a TCP socket."""
    if field.startswith("["):
        host, _, rest = field[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = field.partition(":")
    return host, port


def unquote(path: str) -> str:
    """As WSGI wants it: bytes in the disguise of characters."""
    if "%" not in path:
        return path
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("latin-1")


def _has_spoken_itself(request: Request, response: Response, error: BaseException) -> bool:
    """Whether the application has done without us, over gunicorn.socket.

    flask-sock says so as gunicorn wants it, by StopIteration, behind a WebSocket.  Else that is an
    exception like others: of a next() that found nothing.
    """
    return (
        isinstance(error, StopIteration)
        and response.status is None
        and any(n == "UPGRADE" and v.lower() == "websocket" for n, v in request.headers)
    )


class Connection:
    """The server's watch reads `until` and `idle`."""

    def __init__(self, listener: Listener, sock: socket.socket, address: Any) -> None:
        self._listener = listener
        self._server = listener.server
        self._settings = listener.server.settings
        self._sock = sock
        self._address = address
        self.until = inf
        self.idle = False  # no byte of the next request has come
        self._first_until = 0.0  # the client has just connected, and is about to send its first
        self._heading = False  # what comes is a head, which must be there by
        self._head_until = inf
        self._writing = False
        self._sending = False  # bytes of an answer, which the client may take steadily for long
        self._taken: object = None  # by the client, when the watch looked
        self._spared = 0.0  # until then, as something was
        self._parser: Requests
        self._environ: dict[str, Any] = {}

    # ---- the socket, under a deadline ----------------------------------------------------------

    def recv(self, most: int = 0) -> bytes:
        """What the client sends.  Nothing at its end, and when it is too slow."""
        if self._heading:
            self.until, size = self._head_until, _HEAD
        else:
            self.until, size = self._soon(), _BLOCK
        try:
            data = self._sock.recv(most or size)
        except OSError as error:
            raise Gone(str(error)) from error
        finally:
            self.until = inf
        if self.idle:
            self.idle = False
            self._head_until = self._soon()
        return data

    def send(self, data: bytes) -> None:
        self._writing = self._sending = True
        try:
            for at in range(0, len(data), _SEND_PIECE):
                piece = data if len(data) <= _SEND_PIECE else data[at : at + _SEND_PIECE]
                self.until = self._soon()
                self._sock.sendall(piece)
        except OSError as error:
            raise Gone(str(error)) from error
        finally:
            self.until = inf
            self._writing = self._sending = False

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        self._writing = self._sending = True
        self.until = self._soon()
        try:
            return os.sendfile(self._sock.fileno(), descriptor, offset, count)
        except OSError as error:
            raise Gone(str(error)) from error
        finally:
            self.until = inf
            self._writing = self._sending = False

    @property
    def sends_files(self) -> bool:
        return self._settings.sendfile and self._settings.tls is None

    @property
    def closing(self) -> bool:
        return self._server.stopping

    def retire(self, now: float) -> None:
        """The server stops: no longer wait for a request, unless the client has only just connected
        to send one.  Who keeps a connection knows that it may end; a new one that ends without an
        answer is an error to everybody.
        """
        if self.idle and self._first_until < now:
            self.shut()

    def late(self, now: float) -> None:
        """The time is up: end the call, unless it sends and the client goes on taking."""
        if not self._sending:
            self.shut()
        elif self._spared < now:
            taken = self._what_is_taken()
            if taken == self._taken:
                self.shut()
            else:
                self._taken = taken
                self._spared = now + self._settings.patience

    def _what_is_taken(self) -> object:
        """Something that changes when the client's side takes bytes; TLS or not, it is the same.

        For TCP what was acknowledged, for it only grows: one send may fill the buffer several times
        (SIOCOUTQ).  A Unix socket has only the length of its queue; there one send fills it once.
        """
        try:
            if self._sock.family == socket.AF_UNIX:
                return self.until, ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.stop)
            return info[_ACKED]
        except (OSError, ValueError):  # it is closed
            return self._taken

    def shut(self) -> None:
        """End the call on the socket that this connection is in, as its client would.

        A reader still gets what had come before, so that a request that comes at the last moment is
        served.  An SSL socket is not asked: it would forget its keys, and go on in plain text.
        """
        try:
            how = socket.SHUT_RDWR if self._writing else socket.SHUT_RD
            socket.socket.shutdown(self._sock, how)
        except OSError:  # it is closed
            pass

    def _soon(self) -> float:
        return time.monotonic() + self._settings.patience

    # ---- from its beginning to its end ---------------------------------------------------------

    def run(self) -> None:
        log = self._server.log
        try:
            self._begin()
            self._serve()
        except Gone as error:
            log.debug("A client has gone: %s", error)
        except Refused as refused:
            self._refuse(refused)
        except Exception:
            log.exception("Error in a connection")
        finally:
            self.close()

    def close(self) -> None:
        self._sock.close()
        self._server.left(self)

    def _begin(self) -> None:
        if self._settings.tls is not None:
            self._shake_hands(self._settings.tls)
        self._parser = self._settings.parser(self, self._address)
        self._environ = self._listener.environ | {"gunicorn.socket": self._sock}
        if isinstance(self._address, (str, bytes)):  # a Unix socket's, which says nothing
            self._environ["REMOTE_ADDR"] = ""
        else:
            self._environ["REMOTE_ADDR"] = self._address[0]
            self._environ["REMOTE_PORT"] = str(self._address[1])

    def _shake_hands(self, tls: Callable[[socket.socket], ssl.SSLSocket]) -> None:
        self._writing = True
        try:
            self._sock = sock = tls(self._sock)
            self.until = min(self._soon(), time.monotonic() + _HANDSHAKE)
            sock.do_handshake()
        except OSError as error:
            raise Gone(str(error)) from error
        finally:
            self.until = inf
            self._writing = False

    def _serve(self) -> None:
        self._head_until = self._soon()
        self._first_until = time.monotonic() + _FIRST
        while True:
            self.idle = self._heading = True
            if self._server.stopping:
                self.retire(time.monotonic())
            request = self._parser.next()
            self.idle = self._heading = False
            self._first_until = 0.0
            if request is None or not self._respond(request):
                return
            self._head_until = time.monotonic() + self._settings.keepalive

    def _respond(self, request: Request) -> bool:
        """Whether the connection goes on."""
        server = self._server
        response = Response(request, self, server.name)
        environ = self._environ_of(request)
        response.must_close |= not self._settings.keepalive
        begun = time.monotonic()
        try:
            server.before(request, environ)
            self._call(environ, response)
        except Gone:
            raise
        except (Exception, SystemExit) as error:
            if _has_spoken_itself(request, response, error):
                return False
            self._failed(request, response, error)
            return False
        finally:
            server.after(request, environ, response, time.monotonic() - begun)
        if response.must_close:
            if not request.complete:
                self._linger()
            return False
        return self._parser.drain(request, _DRAIN)

    def _call(self, environ: dict[str, Any], response: Response) -> None:
        result: Iterable[bytes] = self._server.app(environ, response.start_response)
        try:
            response.send(result)
        finally:
            close: Callable[[], None] | None = getattr(result, "close", None)
            if close is not None:
                close()

    def _environ_of(self, request: Request) -> dict[str, Any]:
        environ = self._environ.copy()
        environ["REQUEST_METHOD"] = request.method
        environ["RAW_URI"] = request.uri
        environ["QUERY_STRING"] = request.query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if request.version > (1, 0) else "HTTP/1.0"
        environ["wsgi.input"] = request.body
        environ["wsgi.url_scheme"] = request.scheme
        for name, value in request.headers:
            key = _keys.get(name) or _key(name)
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        script = environ.setdefault("SCRIPT_NAME", self._settings.script_name)
        path = request.path
        if script:
            if not path.startswith(script):
                raise Refused("500 Internal Server Error", f"{path} is not below {script}")
            path = path[len(script) :]
        environ["PATH_INFO"] = unquote(path)
        if "SERVER_NAME" not in environ:  # a Unix socket has none
            name, port = _host_and_port(environ.get("HTTP_HOST", ""))
            environ["SERVER_NAME"] = name or "localhost"
            environ["SERVER_PORT"] = port or ("443" if request.scheme == "https" else "80")
        return environ

    # ---- what goes wrong -----------------------------------------------------------------------

    def _failed(self, request: Request, response: Response, error: BaseException) -> None:
        """The application has; called while its exception is handled."""
        refused = self._parser.refusal(error)
        if refused is None:
            self._server.log.exception("Error handling request %s %s", request.method, request.uri)
        else:
            self._warn(refused)
        if not response.headers_sent:
            status = refused.status if refused else "500 Internal Server Error"
            response.must_close = True
            response.start_response(
                status, [("Content-Type", "text/plain")], (type(error), error, error.__traceback__)
            )
            response.send([f"{status}\n".encode()])
        if not request.complete:
            self._linger()

    def _refuse(self, refused: Refused) -> None:
        """What is no request gets an answer, too."""
        self._warn(refused)
        body = f"{refused.status}\n"
        try:
            self.send(
                f"HTTP/1.1 {refused.status}\r\nServer: {self._server.name}\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode("latin-1")
            )
            self._linger()
        except Gone:
            pass

    def _warn(self, refused: Refused) -> None:
        client = self._environ["REMOTE_ADDR"]
        self._server.log.warning(
            "Invalid request from %s: %s (%s)", client, refused, refused.status
        )

    def _linger(self) -> None:
        """The client may still be sending: closed at once, the socket would lose it the answer."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
        except OSError:
            return
        self._heading, self._head_until = True, time.monotonic() + _LINGER
        most = _DRAIN
        while most > 0 and (data := self.recv()):
            most -= len(data)
