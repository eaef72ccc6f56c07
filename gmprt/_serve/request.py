"""Requests out of a stream of bytes, by httptools (llhttp, the parser of Node.js).

A block that has come is parsed at once, to its end: the heads in it stand in `_ready`, in order,
each with as much of its body as there was.  More is read when somebody wants more: the connection
the next head, the application the next part of a body.  So a client that sends faster than it is
served costs one block of memory.  What cannot be parsed stands in the same queue, behind the
requests before it, which are answered first.

What is refused is what gunicorn refuses, with the same status: tests/test_serve.py compares the two
on the same bytes.  llhttp does most of it; here are lengths, fields that may not come twice, and
names with an underscore, which an application cannot tell from those with a dash.  (Methods are
those that llhttp knows, for gunicorn any word.)
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PIECE = 64 * 1024
_CODINGS = {"chunked", "identity", "compress", "deflate", "gzip"}  # as gunicorn has it
_KNOWN = 1024  # names of fields that are kept, for clients may invent any number


class Refused(Exception):
    """A request that is not served."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Gone(ConnectionError):
    """The client has gone, or was too slow: nobody is there to be answered."""


@dataclass(frozen=True)
class Limits:
    """gunicorn's limit_request_line, limit_request_fields, limit_request_field_size."""

    line: int = 4094
    fields: int = 100
    field_size: int = 8190

    @property
    def silence(self) -> int:
        """How many bytes may come that complete nothing: of a field, a trailer, a chunk's line."""
        return self.line + self.field_size + _PIECE


@dataclass(frozen=True)
class Trust:
    """What the fields of one client may say about the connection; the names are gunicorn's."""

    secure_scheme_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    forwarder_headers: Collection[str] = ()
    header_map: str = "drop"  # what becomes of names with an underscore

    @cached_property
    def special(self) -> frozenset[str]:
        """The names that mean something to us."""
        ours = ("HOST", "CONTENT-TYPE", "EXPECT", "TRANSFER-ENCODING")
        return frozenset(self.secure_scheme_headers) | frozenset(ours)


class Stream(Protocol):
    """A client, as a parser sees it."""

    def recv(self) -> bytes: ...
    def send(self, data: bytes) -> None: ...


class Requests(Protocol):
    """A parser, as a connection sees it."""

    def next(self) -> Request | None: ...
    def drain(self, request: Request, most: int) -> bool: ...
    def refusal(self, error: BaseException) -> Refused | None: ...


class Request:
    """A head and its body.  gunicorn's hooks and logs know the attributes by these names."""

    __slots__ = (
        "body",
        "complete",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "parts",
        "path",
        "proxy_protocol_info",
        "query",
        "scheme",
        "uri",
        "version",
    )

    body: Any  # a binary file
    headers: list[tuple[str, str]]  # names in upper case
    method: str
    path: str
    proxy_protocol_info: Mapping[str, Any] | None
    query: str
    scheme: str
    uri: str
    version: tuple[int, int]

    def __init__(self) -> None:
        self.complete = False  # its last byte has come
        self.expects_continue = False  # the client waits for a word before it sends the body
        self.headers = []
        self.keep_alive = False
        self.parts: deque[bytes] = deque()  # of the body, not yet read
        self.proxy_protocol_info = None

    def should_close(self) -> bool:
        return not self.keep_alive


class Body(io.RawIOBase):
    """The bytes of a body that has not come whole yet."""

    def __init__(self, request: Request, more: Callable[[Request], None]) -> None:
        super().__init__()
        self._request = request
        self._more = more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        request = self._request
        while not request.parts:
            if request.complete:
                return 0
            self._more(request)
        part = request.parts.popleft()
        n = min(len(part), len(buffer))
        buffer[:n] = part[:n]
        if n < len(part):
            request.parts.appendleft(part[n:])
        return n


_names: dict[bytes, str] = {}


def _upper(name: bytes) -> str:
    known = _names.get(name)
    if known is None:
        known = name.decode("latin-1").upper()
        if len(_names) < _KNOWN:
            _names[name] = known
    return known


class Parser:
    """The requests of one connection."""

    def __init__(self, stream: Stream, limits: Limits, trust: Trust, scheme: str = "http") -> None:
        self._stream = stream
        self._limits = limits
        self._trust = trust
        self._scheme = scheme
        self._tools = import_module("httptools")
        self._ready: deque[Request | Refused] = deque()
        self._silent = 0  # bytes since the last that completed something
        self._failed: Refused | None = None  # nothing can be parsed any more
        self._start()

    def _start(self) -> None:
        self._llhttp = self._tools.HttpRequestParser(self)
        self._request = Request()
        self._url = b""
        self._replaying = False  # the head is one of ours: _after_upgrade()
        self._heading = False  # what comes is a head; else it is a body, or trailers
        self._trailers = 0

    def next(self) -> Request | None:
        """The next request, when its head is there.  None if the client sends no more."""
        while not self._ready:
            if not self._read():
                return None
        first = self._ready.popleft()
        if isinstance(first, Refused):
            raise first
        if first.complete:
            first.body = io.BytesIO(b"".join(first.parts))
        else:
            first.body = io.BufferedReader(Body(first, self._more), _PIECE)
        return first

    def drain(self, request: Request, most: int) -> bool:
        """Drop what the application has left of a body.  False: that was not the end of it."""
        if request.complete:
            return True
        if request.expects_continue:
            return False  # it may send the body, or another request: nobody knows
        request.parts.clear()
        while not request.complete and most > 0 and self._failed is None:
            if not self._read():
                return False
            most -= sum(map(len, request.parts))
            request.parts.clear()
        return request.complete

    def refusal(self, error: BaseException) -> Refused | None:
        """What the client is to be told, if `error` came of its body."""
        return error if isinstance(error, Refused) else None

    def _more(self, request: Request) -> None:
        if request.expects_continue:
            request.expects_continue = False
            self._stream.send(CONTINUE)
        if self._failed is not None:
            raise self._failed
        if not self._read():
            raise Gone("the client has gone before the end of the body")
        if self._failed is not None:
            raise self._failed

    def _read(self) -> bool:
        data = self._stream.recv()
        if data:
            self._feed(data)
        return bool(data)

    def _feed(self, data: bytes) -> None:
        self._silent += len(data)
        while data:
            data = self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """What is still to be parsed: it came behind a request for another protocol."""
        try:
            self._llhttp.feed_data(data)
        except self._tools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except self._tools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refused):
                raise
            self._refuse(error.__context__)
        except self._tools.HttpParserError as error:
            self._refuse(Refused("400 Bad Request", str(error)))
        else:
            if self._silent > self._limits.silence:
                self._refuse(_too_large("a field without end"))
        return b""

    def _refuse(self, why: Refused) -> None:
        self._failed = why
        self._ready.append(why)

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Where a client asks for another protocol llhttp stops, and takes no body.

        Who serves HTTP only goes on: a new parser is told of the body by a head of ours.  (If the
        application does speak the other protocol nobody asks for what is parsed here.)
        """
        request = self._request
        framing = [
            f"{name}: {value}\r\n"
            for name, value in request.headers
            if name in ("CONTENT-LENGTH", "TRANSFER-ENCODING")
        ]
        self._start()
        if framing:
            request.complete = False
            self._request = request
            self._replaying = True
            rest = f"POST / HTTP/1.1\r\n{''.join(framing)}\r\n".encode("latin-1") + rest
        return rest

    # ---- llhttp calls these --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._replaying:
            self._request = Request()
        self._url = b""
        self._trailers = 0
        self._heading = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.line > 0:
            raise Refused("414 URI Too Long", f"{len(self._url)} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._silent = 0
        if not self._heading:
            self._trailers += 1
            if self._trailers > self._limits.fields:
                raise _too_large("too many trailers")
            return
        if self._replaying:
            return
        if len(name) + len(value) + 4 > self._limits.field_size > 0:
            raise _too_large(f"field {name[:50]!r}")
        headers = self._request.headers
        if len(headers) >= self._limits.fields > 0:
            raise _too_large("too many fields")
        headers.append((_upper(name), value.strip(b" \t").decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._silent = 0
        self._heading = False
        if self._replaying:
            return
        request, llhttp = self._request, self._llhttp
        request.method = llhttp.get_method().decode("latin-1")
        version = llhttp.get_http_version()
        if version == "1.1":
            request.version = (1, 1)
        elif version == "1.0":
            request.version = (1, 0)
        else:
            raise Refused("400 Bad Request", f"HTTP version {version}")
        request.keep_alive = llhttp.should_keep_alive() and request.method != "CONNECT"
        self._target(request)
        self._fields(request)
        self._ready.append(request)

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        self._request.parts.append(data)

    def on_message_complete(self) -> None:
        self._silent = 0
        self._replaying = False
        self._request.complete = True
        self._request.expects_continue = False  # it has not waited

    # ---- what llhttp leaves to us --------------------------------------------------------------

    def _target(self, request: Request) -> None:
        url = self._url
        if len(url) + len(request.method) + len("  HTTP/1.1") > self._limits.line > 0:
            raise Refused("414 URI Too Long", f"{len(url)} bytes")
        if not url.isascii():
            raise Refused("400 Bad Request", "a target that is not ASCII")
        target = request.uri = url.decode("ascii")
        if target[0] != "/" and request.method != "CONNECT":
            scheme, found, rest = target.partition("://")
            if found and scheme:
                target = rest[len(rest.partition("/")[0].partition("?")[0]) :]
            elif target != "*" or request.method != "OPTIONS":
                raise Refused("400 Bad Request", "a target that is no path")
        path, _, request.query = target.partition("#")[0].partition("?")
        request.path = path

    def _fields(self, request: Request) -> None:
        request.scheme = self._scheme
        special = self._trust.special
        seen: set[str] = set()
        dropped = False
        for name, value in request.headers:
            if name in special:
                self._special(request, name, value, seen)
            elif "_" in name:
                dropped |= self._ambiguous(name)
        if dropped:
            request.headers = [field for field in request.headers if self._mapped(field[0])]

    def _special(self, request: Request, name: str, value: str, seen: set[str]) -> None:
        if name == "HOST" or name == "CONTENT-TYPE":
            if name in seen:
                raise Refused("400 Bad Request", f"{name} twice")
            seen.add(name)
        elif name == "EXPECT":
            if value.lower() != "100-continue":
                raise Refused("417 Expectation Failed", value)
            request.expects_continue = request.version > (1, 0)
        elif name == "TRANSFER-ENCODING":
            if request.version == (1, 0):
                raise Refused("400 Bad Request", f"{name} in HTTP/1.0")
            if not {coding.strip(" \t").lower() for coding in value.split(",")} <= _CODINGS:
                raise Refused("501 Not Implemented", f"{name}: {value}")
        else:
            scheme = "https" if value == self._trust.secure_scheme_headers[name] else "http"
            if "a scheme" in seen and scheme != request.scheme:
                raise Refused("400 Bad Request", f"{name} and another contradict each other")
            seen.add("a scheme")
            request.scheme = scheme

    def _mapped(self, name: str) -> bool:
        trust = self._trust
        return (
            "_" not in name
            or name in trust.forwarder_headers
            or "*" in trust.forwarder_headers
            or trust.header_map == "dangerous"
        )

    def _ambiguous(self, name: str) -> bool:
        """Whether it is to be dropped."""
        if self._mapped(name):
            return False
        if self._trust.header_map != "drop":
            raise Refused("400 Bad Request", f"field {name}")
        return True


def _too_large(why: str) -> Refused:
    return Refused("431 Request Header Fields Too Large", why)
