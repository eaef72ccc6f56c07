"""What the application answers, on its way out.

One send carries the head and the first block of the body that is not empty; each further block is
sent before the application is asked for the next, as WSGI wants it.  The length of a body is the
application's to say.  It is known without that if the body is a list of one block, nothing, or a
file; else the body goes out in chunks, or ends with the connection for clients of HTTP/1.0.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from io import BufferedRandom, BufferedReader, FileIO
from types import TracebackType
from typing import Any, Protocol

from gmprt._serve.request import Request

_INVALID = re.compile(r"[^\t\n\x20-\x7e\x80-\xff]")  # in a head whose lines end with \n
_LENGTH = re.compile(r"[0-9]{1,18}")
_STATUS = re.compile(r"[0-9]{3}( [^\n]*)?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_KNOWN = 1024  # names of fields that are kept
_ITERS: tuple[object, ...] = (list[bytes].__iter__, tuple[bytes].__iter__)
_OURS = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_FILE_PIECE = 1 << 20  # bytes of a file that go out under one deadline

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Connection(Protocol):
    """What a response needs of its connection."""

    def send(self, data: bytes) -> None: ...
    def send_file(self, descriptor: int, offset: int, count: int) -> int: ...
    @property
    def sends_files(self) -> bool: ...
    @property
    def closing(self) -> bool: ...


class FileWrapper:
    """wsgi.file_wrapper: the kernel sends it, if it is a file of the system's."""

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self.filelike.read(self.blksize):
            yield block


class _Date:
    """The present second, as a field."""

    def __init__(self) -> None:
        self._second = 0
        self._field = ""

    def __call__(self) -> str:
        now = int(time.time())
        if now != self._second:
            # The text first: another goroutine that comes between sees the second of its text.
            self._field = f"\r\nDate: {formatdate(now, usegmt=True)}"
            self._second = now
        return self._field


_date = _Date()
_lower: dict[str, str] = {}


def _field_name(name: str) -> str:
    """In lower case; ValueError for what is none."""
    known = _lower.get(name)
    if known is None:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"no name of a field: {name!r}")
        known = name.lower()
        if len(_lower) < _KNOWN:
            _lower[name] = known
    return known


def _plain(blocks: Iterable[bytes]) -> bool:
    """Whether a list or tuple iterates as those do: a subclass need not."""
    return type(blocks).__iter__ in _ITERS


def _is_plain_file(file: Any) -> bool:
    """Whether reading it gives what the descriptor does: a GzipFile has one, too."""
    if type(file) in (BufferedReader, BufferedRandom):
        file = file.raw
    return type(file) is FileIO


class Response:
    """gunicorn's hooks and logs know the public attributes by these names."""

    def __init__(self, request: Request, connection: Connection, server: str) -> None:
        self._request = request
        self._connection = connection
        self._server = server
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.headers_sent = False
        self.must_close = not request.keep_alive
        self.sent = 0  # bytes of the body
        self.response_length: int | None = None
        self.chunked = False
        self.upgrade = False
        self._bodiless = False
        self._dated = self._named = False  # the application has said Date, Server
        self._text = ""

    # ---- what the application calls ------------------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # or it would refer to this frame
        elif self.status is not None:
            raise AssertionError("start_response() called twice, without exc_info")
        if not _STATUS.fullmatch(status):
            raise ValueError(f"no status: {status!r}")
        code = int(status[:3])
        self._bodiless = self._request.method == "HEAD" or code < 200 or code in (204, 304)
        self._take(headers, code < 200 or code == 204)
        text = "\n".join([status, *[f"{name}: {value}" for name, value in self.headers]])
        if _INVALID.search(text) or text.count("\n") != len(self.headers):
            raise ValueError("a character in a status or field that must not be there")
        self.status = status
        self._text = text.replace("\n", "\r\n")
        return self.write

    def _take(self, headers: list[tuple[str, str]], no_length: bool) -> None:
        """Those that are passed on.  How the message ends, and the connection, is ours to say."""
        self.response_length = None
        self._dated = self._named = self.upgrade = False
        taken: list[tuple[str, str]] = []
        for name, value in headers:
            lower = _field_name(name)
            if lower in _OURS:
                self._connection_field(lower, value)
                if lower != "upgrade":
                    continue
            elif lower == "content-length":
                if no_length:
                    continue
                if self.response_length is not None or not _LENGTH.fullmatch(str(value)):
                    raise ValueError(f"no length, or the second one: Content-Length: {value!r}")
                self.response_length = int(value)
            elif lower == "date":
                self._dated = True
            elif lower == "server":
                self._named = True
            taken.append((name, value))
        self.headers = taken

    def _connection_field(self, name: str, value: str) -> None:
        if name == "upgrade":
            self.upgrade = True
        elif name == "connection" and value.lower() == "close":
            self.must_close = True

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a block of a body must be bytes, not {type(data).__name__}")
        head = b"" if self.headers_sent else self._head()
        if self._bodiless or not data:
            if head:
                self._connection.send(head)
            return
        length = self.response_length
        if length is not None and self.sent + len(data) > length:
            data = data[: length - self.sent]  # more would be taken for the next response
        self.sent += len(data)
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(head + data if head else data)

    # ---- what the connection calls -------------------------------------------------------------

    def send(self, result: Iterable[bytes]) -> None:
        """All of it."""
        if isinstance(result, FileWrapper) and self._send_file(result.filelike):
            return
        if isinstance(result, (list, tuple)) and len(result) == 1 and _plain(result):
            self._learn(len(result[0]))
        for block in result:
            # An empty one does not send the head: start_response() may still replace that.
            if block or not isinstance(block, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
                self.write(block)
        self._finish()

    def should_close(self) -> bool:
        return self.must_close

    def _learn(self, length: int) -> None:
        """The length of the body, if the application has not said it."""
        if not self.headers_sent and self.status is not None and self.response_length is None:
            self.response_length = length
            if not self._bodiless:
                self._text += f"\r\nContent-Length: {length}"

    def _head(self) -> bytes:
        if self.status is None:
            raise AssertionError("the application has not called start_response()")
        self.headers_sent = True
        text = f"HTTP/1.1 {self._text}"
        if not self._named:
            text += f"\r\nServer: {self._server}"
        if not self._dated:
            text += _date()
        request = self._request
        if request.expects_continue:
            # It may send the body now, or another request: nobody knows.
            request.expects_continue = False
            self.must_close = True
        self.must_close |= self._connection.closing
        modern = request.version > (1, 0)
        if not self._bodiless and self.response_length is None:
            if modern:
                self.chunked = True
                text += "\r\nTransfer-Encoding: chunked"
            else:
                self.must_close = True
        if self.upgrade:
            text += "\r\nConnection: Upgrade"
        elif self.must_close:
            text += "\r\nConnection: close"
        elif not modern:
            text += "\r\nConnection: keep-alive"
        return (text + "\r\n\r\n").encode("latin-1")

    def _finish(self) -> None:
        if not self.headers_sent:
            self._learn(0)
            self._connection.send(self._head())
        elif self.chunked:
            self._connection.send(b"0\r\n\r\n")
        if self.response_length is not None and self.sent < self.response_length:
            # The client waits for the rest: only the end of the connection tells it.
            self.must_close |= not self._bodiless

    def _send_file(self, file: Any) -> bool:
        """False: it is no file of the system's, or the connection is none for them."""
        if not self._connection.sends_files or not _is_plain_file(file):
            return False
        try:
            descriptor = file.fileno()
            about = os.fstat(descriptor)
            offset = file.tell()
        except OSError:  # a pipe has no position
            return False
        if not stat.S_ISREG(about.st_mode):
            return False
        self._learn(max(about.st_size - offset, 0))
        if self.headers_sent or self.response_length is None:
            return False
        self._connection.send(self._head())
        while not self._bodiless and (left := self.response_length - self.sent) > 0:
            count = min(left, _FILE_PIECE)
            n = self._connection.send_file(descriptor, offset + self.sent, count)
            if n == 0:
                break
            self.sent += n
        self._finish()
        return True
