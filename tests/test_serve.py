"""gmprt/_serve: `gunicorn -k gmprt` and `python -m gmprt serve`, by clients that write bytes.

Most tests are made three times: for `serve`, for gunicorn's worker, and for the worker with
gunicorn's own parser, which must behave as httptools does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import PATIENCE, Child, Thread, eventually, run_child

import gmprt
from gmprt._cli import serve

pytest.importorskip("httptools")
gunicorn = pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None,
    reason="gunicorn is not installed",
)

TESTS = Path(__file__).parent
ROOT = TESTS.parent
WORKER = "gmprt._serve.worker.Worker"
FEW = 100  # threads, for 200 requests: a machine with other work makes some calls seem blocked

# ---- servers -----------------------------------------------------------------------------------


class Server:
    """One of them, in a process of its own."""

    def __init__(self, child: Child, kind: str) -> None:
        self.child = child
        self.kind = kind
        child.expect("Listening", stream="stderr")
        eventually(lambda: re.search(r"Listening.*:(\d+)", child.stderr), "a port")
        found = re.search(r"Listening.*:(\d+)", child.stderr)
        assert found
        self.port = int(found[1])

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def get(self, path: str) -> Response:
        with self.connect() as client:
            return client.ask(path)

    def about(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.get("/about").body)
        return shown


KINDS = ("serve", "gunicorn", "gunicorn-own")


@contextmanager
def serving(kind: str, *options: str, app: str = "serve_app:app", **env: str) -> Iterator[Server]:
    if kind == "serve":
        args = ["-m", "gmprt", "serve", "--bind", "127.0.0.1:0", *options, app]
    else:
        pytest.importorskip("gunicorn")
        args = ["-m", "gunicorn", "-k", WORKER, "--bind", "127.0.0.1:0", "--no-control-socket"]
        own = ["--http-parser", "python"] if kind == "gunicorn-own" else []
        args += [*own, *options, app]
    path = os.pathsep.join([str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    with Child(args=args, env={"PYTHONPATH": path} | env) as child:
        yield Server(child, kind)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param, *([] if request.param == "serve" else ["--keep-alive", "60"])) as s:
        yield s


# ---- a client ---------------------------------------------------------------------------------


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """A connection, and what HTTP says of the bytes on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, path: str, method: str = "GET", body: bytes = b"", *fields: str) -> Response:
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *length, *fields, "", ""])
        self.send(head.encode() + body)
        return self.response(method)

    def head(self) -> tuple[int, dict[str, str]]:
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        fields: dict[str, str] = {}
        while (field := self.file.readline().decode().rstrip("\r\n")) != "":
            name, _, value = field.partition(": ")
            assert name.lower() not in fields
            fields[name.lower()] = value
        return int(line.split()[1]), fields

    def response(self, method: str = "GET") -> Response:
        status, fields = self.head()
        assert fields["server"].startswith("gmprt/")
        if method == "HEAD" or status in (204, 304):
            return Response(status, fields, b"")
        if "content-length" in fields:
            assert "transfer-encoding" not in fields
            return Response(status, fields, self.file.read(int(fields["content-length"])))
        if fields.get("transfer-encoding") == "chunked":
            return Response(status, fields, b"".join(self.chunks()))
        return Response(status, fields, self.file.read())

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.file.readline(), 16):
            yield self.file.read(size)
            assert self.file.readline() == b"\r\n"
        assert self.file.readline() == b"\r\n"

    def ended(self) -> bool:
        """Whether the server has closed it, with nothing more to say."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True


# ---- requests and their answers ---------------------------------------------------------------


def test_keep_alive(server: Server) -> None:
    with server.connect() as client:
        for i in range(5):
            answer = client.ask("/echo", "POST", b"body %d" % i)
            assert (answer.status, answer.body, answer.closes) == (200, b"body %d" % i, False)
            assert "date" in answer.headers
        answer = client.ask("/hello", "GET", b"", "Connection: close")
        assert (answer.body, answer.closes) == (b"hello", True)
        assert client.ended()


def test_pipelined(server: Server) -> None:
    with server.connect() as client:
        client.send(
            b"GET /one-block HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
            b"GET /sleep?s=0.01&i=4 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"no request at all\r\n\r\n"
        )
        answers = [client.response() for _ in range(5)]
        assert [a.body for a in answers[:4]] == [b"a list of one", b"abc", b"def", b"4"]
        assert answers[4].status == 400
        assert client.ended()


def test_byte_by_byte(server: Server) -> None:
    request = (
        b"POST /echo?a=b HTTP/1.1\r\nHost: a\r\nX-Long: some value\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: r\r\n\r\n"
    )
    with server.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(request)):
            client.send(request[i : i + 1])
        assert client.response().body == b"hello world"
        assert client.ask("/hello").body == b"hello"


def test_a_large_body_both_ways(server: Server) -> None:
    body = os.urandom(3_000_000)
    with server.connect() as client:
        sender = Thread(client.ask, "/echo", "POST", body)
        assert sender.result().body == body
        assert client.ask("/hello").body == b"hello"


def test_body_by_lines(server: Server) -> None:
    with server.connect() as client:
        assert json.loads(client.ask("/lines", "POST", b"a\nb\n\nc").body) == [
            "a\n",
            "b\n",
            "\n",
            "c",
        ]


def test_a_body_is_read_as_it_comes(server: Server) -> None:
    with server.connect() as client:
        head = b"POST /first-bytes?n=2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"3\r\nabc\r\n")
        if server.kind == "gunicorn-own":  # which reads on, for a kilobyte
            client.send(b"0\r\n\r\n")
        assert client.response().body == b"ab"


def test_a_body_that_nobody_reads(server: Server) -> None:
    with server.connect() as client:
        for _ in range(3):
            assert client.ask("/hello", "POST", b"x" * 1000).body == b"hello"


def test_expect(server: Server) -> None:
    with server.connect() as client:
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.head() == (100, {})
        client.send(b"body")
        assert client.response().body == b"body"
        assert client.ask("/hello", "POST", b"", "Expect: a miracle").status == 417


def test_expect_in_vain(server: Server) -> None:
    """The application does not read: there is no 100, and no way to tell what comes next."""
    if server.kind == "gunicorn-own":
        pytest.skip("gunicorn says 100 before it calls the application")
    with server.connect() as client:
        client.send(
            b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = client.response()
        assert (answer.status, answer.closes) == (200, True)
        assert client.ended()


def test_answers_of_every_kind(server: Server) -> None:
    with server.connect() as client:
        many = client.ask("/blocks?n=3")
        assert many.body == b"block 0;block 1;block 2;"
        assert many.headers["transfer-encoding"] == "chunked"
        one = client.ask("/one-block")
        assert (one.body, one.headers["content-length"]) == (b"a list of one", "13")
        assert client.ask("/blocks?n=0").headers["content-length"] == "0"
        assert client.ask("/written").body == b"by write(), and by iteration"
        none = client.ask("/nothing")
        assert (none.status, "content-length" in none.headers) == (204, False)
        head = client.ask("/hello", "HEAD")
        assert (head.headers["content-length"], head.body) == ("5", b"")
        assert client.ask("/blocks?n=2", "HEAD").body == b""
        assert client.ask("/too-much").body == b"four"
        assert client.ask("/missing").status == 404
        client.send(b"GET /own HTTP/1.1\r\nHost: a\r\n\r\n")
        _, fields = client.head()
        assert (fields["server"], fields["date"]) == ("mine", "today")
        excuse = client.ask("/boom-behind-nothing")
        assert (excuse.status, excuse.body, excuse.closes) == (503, b"an excuse", False)
        hidden = client.ask("/hidden")
        assert (hidden.body, hidden.closes) == (b"x", True)
    with server.connect() as client:
        client.send(b"GET /too-little HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == b"four"  # the end of the connection came instead
        assert client.ended()


def test_the_length_that_an_application_says(server: Server) -> None:
    """Clients would read on where they think that the answer ends."""
    assert server.get("/a-list-of-its-own").body == b"onetwo"
    for n in ("-5", "1_0", "ten", "", "10,10", "10,5"):
        assert server.get(f"/length?n={n}").status == 500, n
    server.child.expect("no length, or the second one", stream="stderr")


def test_http_1_0(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.response().headers["connection"] == "keep-alive"
        client.send(b"GET /blocks?n=2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.response()
        assert (answer.body, answer.closes) == (b"block 0;block 1;", True)


def test_files(server: Server) -> None:
    content = bytes(range(256)) * 8192
    with server.connect() as client:
        for at in (0, 1_000_001):
            answer = client.ask(f"/file?at={at}")
            assert answer.body == content[at:]
            assert answer.headers["content-length"] == str(len(content) - at)
        assert client.ask("/file?at=0", "HEAD").status == 200
        assert client.ask("/memory-file").body == b"x" * 20000
        assert client.ask("/gzip-file").body == b"x" * 20000


def test_environ(server: Server) -> None:
    with server.connect() as client:
        answer = client.ask(
            "/about/%C3%A4?x=%41&y",
            "GET",
            b"",
            "X-Twice: 1",
            "X-Twice: 2",
            "X_Under: 1",
            "A-B:  c ",
        )
        assert answer.status == 404
        shown = json.loads(
            client.ask("/about?x=%41&y", "GET", b"", "X-Twice: 1", "X-Twice: 2", "X_Under: 1").body
        )
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/about",
        "QUERY_STRING": "x=%41&y",
        "RAW_URI": "/about?x=%41&y",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "test",
        "HTTP_X_TWICE": "1,2",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.version": [1, 0],
    }
    assert {k: shown.get(k) for k in expected} == expected
    assert "HTTP_X_UNDER" not in shown


def test_below_a_path() -> None:
    with serving("serve", SCRIPT_NAME="/shop") as server:
        with server.connect() as client:
            shown = json.loads(client.ask("/shop/about").body)
            assert (shown["SCRIPT_NAME"], shown["PATH_INFO"]) == ("/shop", "/about")
        assert server.get("/about").status == 500


# ---- what goes wrong --------------------------------------------------------------------------


def test_errors_of_the_application(server: Server) -> None:
    for path in ("/boom", "/runs-out", "/exits", "/splits"):
        answer = server.get(path)
        assert (answer.status, answer.closes) == (500, True)
    with server.connect() as client:
        client.send(b"GET /boom-late HTTP/1.1\r\nHost: a\r\n\r\n")
        status, fields = client.head()
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        assert client.file.read() == b"b\r\na beginning\r\n"  # and not the last chunk
    for said in ("before the first block", "StopIteration", "after the first block"):
        server.child.expect(said, stream="stderr")
    assert server.get("/hello").body == b"hello"


def test_a_client_that_goes_away(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    with server.connect() as client:
        client.send(f"GET /endless?path={path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        client.head()
    eventually(path.exists, "the close() of what was iterated over")
    for beginning in (
        b"GET /hel",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ):
        with server.connect() as client:
            client.send(beginning)
    assert server.get("/hello").body == b"hello"


def test_a_slow_client_beside_a_fast_one(server: Server) -> None:
    with server.connect() as slow, server.connect() as fast:
        slow.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Le")
        assert fast.ask("/hello").body == b"hello"
        slow.send(b"ngth: 6\r\n\r\nabc")
        assert fast.ask("/hello").body == b"hello"
        slow.send(b"def")
        assert slow.response().body == b"abcdef"


def test_many_at_a_time(server: Server) -> None:
    count, pause = 200, 0.1
    clients = [server.connect() for _ in range(count)]
    begun = time.monotonic()
    for i, client in enumerate(clients):
        client.send(f"GET /sleep?s={pause}&i={i} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for i, client in enumerate(clients):
        assert client.response().body == b"%d" % i
    elapsed = time.monotonic() - begun
    assert pause <= elapsed < count * pause / 4
    assert server.about()["threads"] <= FEW
    for client in clients:
        client.__exit__()


def test_one_that_computes(server: Server) -> None:
    """The others are answered meanwhile."""
    with server.connect() as busy, server.connect() as client:
        busy.send(b"GET /burn?s=0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        busy.sock.settimeout(0.0)
        answered = 0
        while True:
            assert client.ask("/hello").body == b"hello"
            try:
                busy.sock.recv(1, socket.MSG_PEEK)
                break
            except BlockingIOError:
                answered += 1
        assert answered >= 3  # one may have come before it began
        busy.sock.settimeout(PATIENCE)
        assert busy.response().body == b"burned"


# ---- the two parsers --------------------------------------------------------------------------

HOST = b"Host: a\r\n"
GOOD = (
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"\r\nGET /a%20b?c=d&e#f HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //a/b HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://host:80/a?b HTTP/1.1\r\n" + HOST + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Keep-Alive\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\na: \t c \t\r\nEmpty:\r\nUtf: \xc3\xa4\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"A_B: c\r\nSCRIPT_NAME: /x\r\nD: e\r\n\r\n",
    b"PROPFIND / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"
    b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
    b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3;a=b;c\r\nabc\r\n0\r\n\r\n",
    # Another protocol, which is not spoken: Java's client asks so, with and without a body.
    b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /next HTTP/1.1\r\n"
    + HOST
    + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-Proto: https\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-Proto: ftp\r\nX-Forwarded-Proto: http\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nab",
    b"GET / HTTP/1.1\r\n"
    + HOST
    + b"\r\nPOST /next HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\n\r\nxG",
    b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 8100 + b"\r\n\r\n",
    b"GET /" + b"x" * 4000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"A%d: b\r\n" % i for i in range(99)) + b"\r\n",
)
BAD = (
    (400, b"\x16\x03\x01 a TLS client\r\n\r\n"),
    (400, b"no request\r\n\r\n"),
    (400, b"GET /\r\n\r\n"),
    (400, b"GET / HTTP/3.7\r\n\r\n"),
    (400, b"GET / HTTP/2.0\r\n\r\n"),
    (400, b"GET / XTTP/1.1\r\n\r\n"),
    (400, b"get / HTTP/1.1\r\n\r\n"),
    (400, b"GET nowhere HTTP/1.1\r\n\r\n"),
    (400, b"GET * HTTP/1.1\r\n\r\n"),
    (400, b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nA : b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na"),
    (400, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    (400, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nTransfer-Encoding: secret, chunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"),
    (417, b"GET / HTTP/1.1\r\nExpect: cake\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n"),
    (414, b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(101)) + b"\r\n"),
)


class Stream:
    """What a client has sent, in blocks of some size."""

    def __init__(self, data: bytes, size: int) -> None:
        self.left, self.size = data, size
        self.said = b""

    def recv(self, _: int = 0) -> bytes:
        block, self.left = self.left[: self.size], self.left[self.size :]
        return block

    def send(self, data: bytes) -> None:
        self.said += data


def parsed(data: bytes, size: int, name: str, client: str = "127.0.0.1") -> list[Any]:
    """All that a parser finds in the bytes: requests, and the status at the end of them."""
    from gunicorn.config import Config

    from gmprt._serve import worker
    from gmprt._serve.request import Refused

    cfg = Config()
    cfg.set("http_parser", name)
    make: Any = worker._own_parser(cfg) if name == "python" else worker._httptools(cfg)
    stream = Stream(data, size)
    parser = make(stream, (client, 1))
    found: list[Any] = []
    try:
        while (request := parser.next()) is not None:
            try:
                body = request.body.read()
            except Exception as error:
                raise parser.refusal(error) from error
            headers = list(request.headers)
            line = (request.method, request.uri, request.path, request.query, request.version)
            found.append((line, headers, body, request.keep_alive, request.scheme))
            if not request.keep_alive:
                break
    except Refused as refused:
        found.append(int(refused.status[:3]))
    return found


@gunicorn
@pytest.mark.parametrize("data", GOOD)
def test_parsers_agree(data: bytes) -> None:
    own = parsed(data, 1 << 20, "python")
    assert isinstance(own[0], tuple)
    for size in (1 << 20, 1, 7):
        assert parsed(data, size, "auto") == own


@gunicorn
def test_parsers_agree_on_whom_to_trust() -> None:
    data = b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-Proto: https\r\nSCRIPT_NAME: /x\r\n\r\n"
    for client, scheme, fields in (("127.0.0.1", "https", 3), ("192.0.2.1", "http", 2)):
        (own,) = parsed(data, 1 << 20, "python", client)
        assert parsed(data, 1 << 20, "auto", client) == [own]
        assert (own[4], len(own[1])) == (scheme, fields)


@gunicorn
@pytest.mark.parametrize(("status", "data"), BAD)
def test_parsers_agree_on_what_is_bad(status: int, data: bytes) -> None:
    assert parsed(data, 1 << 20, "python")[-1] == status
    for size in (1 << 20, 1):
        assert parsed(data, size, "auto")[-1] == status


@pytest.mark.parametrize("of", ["target", "field", "trailer", "chunk's line"])
def test_without_end(of: str) -> None:
    """What never completes anything is refused when it has become too long."""
    from gmprt._serve.request import Limits, Parser, Refused, Trust

    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    begin = {
        "target": b"GET /",
        "field": head + b"A: ",
        "trailer": chunked + b"0\r\nA: ",
        "chunk's line": chunked + b"1;a=",
    }

    class Endless(Stream):
        taken = 0

        def recv(self, _: int = 0) -> bytes:
            Endless.taken += 1
            return super().recv() or b"x" * 1000

    parser = Parser(Endless(begin[of], 1000), Limits(), Trust())

    def read() -> None:
        request = parser.next()
        assert request is not None
        request.body.read()

    with pytest.raises(Refused) as refused:
        read()
    assert refused.value.status.startswith("414" if of == "target" else "431")
    assert Endless.taken < 200


def test_a_block_of_upgrades() -> None:
    """llhttp stops behind each of them."""
    from gmprt._serve.request import Limits, Parser, Trust

    one = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    n = 2 * sys.getrecursionlimit()
    parser = Parser(Stream(n * one, n * len(one)), Limits(), Trust())
    assert sum(1 for _ in iter(parser.next, None)) == n


@pytest.mark.parametrize("bad", [b"no request\r\n\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n"])
def test_bad_requests_are_answered(server: Server, bad: bytes) -> None:
    with server.connect() as client:
        client.send(bad)
        answer = client.response()
        assert (answer.status, answer.closes) == (400, True)
        assert client.ended()
    server.child.expect("Invalid request from 127.0.0.1", stream="stderr")


# ---- deadlines and ends -----------------------------------------------------------------------


def test_deadlines(tmp_path: Path) -> None:
    with serving("serve", "--timeout", "0.3", "--keep-alive", "0.3") as server:
        path = tmp_path / "closed"
        with server.connect() as stuck, server.connect() as silent, server.connect() as slow:
            stuck.send(f"GET /endless?path={path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            slow.send(b"GET /hello HTT")
            with server.connect() as idle:
                assert idle.ask("/hello").body == b"hello"
                assert idle.ended()
            assert silent.ended()
            assert slow.ended()
            with server.connect() as client:
                client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
                assert client.ended()
            eventually(path.exists, "an end of the answer that nobody reads")
            # Who is answered slowly is not slow himself.
            with server.connect() as client:
                assert client.ask("/sleep?s=0.7&i=1").body == b"1"


def test_who_reads_steadily_is_not_slow(tmp_path: Path) -> None:
    """The kernel lets the server go on with its block when there is a megabyte of room or more."""
    path, timeout = tmp_path / "closed", 1.5
    with serving("serve", "--timeout", str(timeout)) as server:
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is read is told at once
        sock.connect(("127.0.0.1", server.port))
        with Client(sock) as client:
            client.send(f"GET /endless?path={path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            end = time.monotonic() + 3 * timeout
            while time.monotonic() < end:
                assert len(client.file.read(10_000)) == 10_000
                time.sleep(0.05)
            assert not path.exists()
            eventually(path.exists, "the end of the answer that nobody reads any more")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_what_the_watch_sees_of_a_client_that_reads(
    family: socket.AddressFamily, tmp_path: Path
) -> None:
    """Each of its looks is as late as can be: the time of all is up."""
    from types import SimpleNamespace

    from gmprt._serve.connection import Connection
    from gmprt._serve.request import Gone
    from gmprt._serve.server import Settings

    settings = Settings(patience=100.0)
    listener: Any = SimpleNamespace(server=SimpleNamespace(settings=settings))
    with socket.socket(family) as ears, socket.socket(family) as client:
        ears.bind(str(tmp_path / "socket") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        ears.listen()
        client.settimeout(PATIENCE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(ears.getsockname())
        ours, address = ears.accept()
        connection = Connection(listener, ours, address)
        now = time.monotonic()

        def look() -> None:
            nonlocal now
            now += 2 * settings.patience
            if connection.until < now:
                connection.late(now)

        def taken() -> bool:
            return connection._what_is_taken() != seen

        with ours, client.makefile("rb") as file:
            body, part = bytes(4_000_000), 400_000
            sender = Thread(connection.send, body)
            for _ in range(0, len(body), part):
                seen = connection._what_is_taken()
                assert len(file.read(part)) == part
                eventually(taken, "word of what was read")
                look()
            sender.result()
            sender = Thread(connection.send, 4 * body)  # which nobody reads
            while not sender.join(0.001):
                look()
            with pytest.raises(Gone):
                sender.result()


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
def test_graceful_stop(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    with serving(kind) as server, server.connect() as idle, server.connect() as client:
        assert idle.ask("/hello").body == b"hello"
        client.send(f"GET /gate?path={path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        eventually(Path(f"{path}.entered").exists, "the request's beginning")
        server.child.signal(signal.SIGTERM)
        assert idle.ended()
        path.touch()
        answer = client.response()
        assert (answer.body, answer.closes) == (b"through the gate", True)
        assert client.ended()
        assert server.child.finish().returncode == 0


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
def test_stop_before_the_first_request(kind: str) -> None:
    """Whose connection was accepted is answered; who then says nothing does not keep the server."""
    with serving(kind) as server, server.connect() as client, server.connect() as silent:
        with server.connect() as kept:
            assert kept.ask("/hello").body == b"hello"  # so the others are accepted, too
            server.child.signal(signal.SIGTERM)
            assert kept.ended()  # so the stop has begun
        answer = client.ask("/hello")
        assert (answer.body, answer.closes) == (b"hello", True)
        assert client.ended()
        assert silent.ended()
        assert server.child.finish().returncode == 0


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
def test_the_end_of_grace(kind: str, tmp_path: Path) -> None:
    """What does not end is cancelled."""
    path = tmp_path / "gate"
    grace = ["--grace", "0.2"] if kind == "serve" else ["--graceful-timeout", "1"]
    with serving(kind, *grace) as server, server.connect() as client:
        client.send(f"GET /gate?path={path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        eventually(Path(f"{path}.entered").exists, "the request's beginning")
        server.child.signal(signal.SIGTERM)
        assert client.ended()
        assert server.child.finish().returncode == 0
    if kind == "serve":  # gunicorn's arbiter does not wait longer than its worker
        assert Path(f"{path}.left").read_text() == "Cancelled"


def test_unix_socket_and_limit_of_connections(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    args = ["-m", "gmprt", "serve", "--bind", f"unix:{path}", "--connections", "2", "serve_app:app"]
    with Child(args=args, env={"PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}) as child:
        child.expect("Listening", stream="stderr")

        def connect() -> Client:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            return Client(sock)

        first, second, third = connect(), connect(), connect()
        assert json.loads(first.ask("/about").body)["SERVER_NAME"] == "test"
        second.send(b"GET /about HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n")
        shown = json.loads(second.response().body)
        assert (shown["SERVER_NAME"], shown["SERVER_PORT"]) == ("::1", "8000")
        third.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        third.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.sock.recv(1)
        third.sock.settimeout(PATIENCE)
        first.__exit__()
        assert third.response().body == b"hello"
        child.signal(signal.SIGINT)
        assert second.ended()
        assert child.finish().returncode == 0
    assert not path.exists()


# ---- gunicorn ---------------------------------------------------------------------------------


def test_max_requests() -> None:
    with serving("gunicorn", "--max-requests", "3") as server:
        pids = []
        with server.connect() as client:
            for i in range(3):
                answer = client.ask("/about")
                pids.append(json.loads(answer.body)["pid"])
                assert answer.closes == (i == 2)
        assert len(set(pids)) == 1
        eventually(lambda: server.about()["pid"] != pids[0], "another worker")


def test_reload() -> None:
    with serving("gunicorn") as server, server.connect() as client:
        before = json.loads(client.ask("/about").body)["pid"]
        server.child.signal(signal.SIGHUP)
        eventually(lambda: server.about()["pid"] != before, "another worker")
        assert client.ended()


def test_settings_and_logs(tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text(
        "def pre_request(worker, req):\n"
        "    worker.log.info('PRE %s %s', req.method, req.path)\n"
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('POST %s %s', resp.status, dict(req.headers)['HOST'])\n"
        "bind = []\n"
    )
    options = ["--config", str(conf), "--access-logfile", "-", "--limit-request-line", "100"]
    with serving("gunicorn", *options, "--keep-alive", "0") as server:
        with server.connect() as client:
            answer = client.ask(
                "/about?a=b", "GET", b"", "X-Forwarded-Proto: https", "User-Agent: me"
            )
            assert answer.closes
            assert json.loads(answer.body)["wsgi.url_scheme"] == "https"
        assert server.get("/" + "x" * 100).status == 414
        server.child.expect("PRE GET /about", stream="stderr")
        server.child.expect("POST 200 OK test", stream="stderr")
        server.child.expect('"GET /about?a=b HTTP/1.1" 200 ')


def test_one_that_computes_does_not_stop_the_heart(tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("def post_worker_init(w):\n    import serve_app\n    serve_app.worker = w\n")
    with serving("gunicorn", "--config", str(conf)) as server:
        assert server.get("/heartbeat").body == b"alive"


def test_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -batch -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    body = os.urandom(300_000)
    files = ["--keyfile", str(key), "--certfile", str(certificate)]
    with serving("gunicorn", *files, "--timeout", "4") as server:
        plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        silent = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        with plain, silent:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            with Client(context.wrap_socket(sock, server_hostname="localhost")) as client:
                assert client.ask("/echo", "POST", body).body == body
                assert json.loads(client.ask("/about").body)["wsgi.url_scheme"] == "https"
                assert len(client.ask("/file?at=0").body) == 256 * 8192
                server.child.signal(signal.SIGTERM)
                assert client.ended()
            assert server.child.finish().returncode == 0  # not before `silent` is given up


def test_an_httptools_that_is_broken(tmp_path: Path) -> None:
    """It is noticed before there is a client."""
    (tmp_path / "httptools.py").write_text("raise ImportError('it is broken')\n")
    path = os.pathsep.join([str(tmp_path), str(TESTS), str(ROOT)])
    args = ["-m", "gmprt", "serve", "--bind", "127.0.0.1:0", "serve_app:app"]
    done = run_child(args=args, env={"PYTHONPATH": path}, status=2)
    assert done.stderr == (
        "gmprt serve needs httptools: pip install 'gmprt[serve]' (it is broken)\n"
    )
    with serving("gunicorn", PYTHONPATH=path) as server:
        assert server.get("/hello").body == b"hello"
        server.child.expect(
            "gunicorn's own, for httptools cannot be imported: it is broken", stream="stderr"
        )


def test_what_the_worker_does_not_speak() -> None:
    pytest.importorskip("gunicorn")
    args = ["-m", "gunicorn", "-k", WORKER, "--protocol", "uwsgi", "serve_app:app"]
    path = os.pathsep.join([str(TESTS), str(ROOT)])
    done = run_child(args=args, env={"PYTHONPATH": path}, status=None)
    assert done.returncode != 0
    assert "the gmprt worker speaks HTTP/1.1 only" in done.stderr


def test_proxy_protocol() -> None:
    """httptools does not know it."""
    with serving("gunicorn", "--proxy-protocol", "v1") as server, server.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n")
        for _ in range(2):
            shown = json.loads(client.ask("/about").body)
            assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == ("192.0.2.7", "1234")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with gmprt and gunicorn installed, as far as its start is concerned."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    (site / "a_path.pth").write_text("\n".join(paths))
    shutil.copy(ROOT / "tools/gmprt_gunicorn.pth", site)
    return folder / "bin" / "python"


@gunicorn
def test_by_its_name(environment: Path) -> None:
    code = "import gunicorn.util; print(gunicorn.util.load_class('gmprt'))"
    for name, status in (("gunicorn", 0), ("guni", 1)):
        command = [environment, "-c", code, f"/venv/bin/{name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        assert done.stdout == ("" if status else f"<class '{WORKER}'>\n")


def test_other_programs_do_not_notice(environment: Path) -> None:
    code = "import sys; print([m for m in sys.modules if 'gunicorn' in m or 'gmprt' in m])"
    done = subprocess.run([environment, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_gmprt_imports_none_of_it() -> None:
    run_child("import gmprt, sys; assert not [m for m in sys.modules if '_serve' in m]")


# ---- WebSockets -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
def test_websockets(kind: str) -> None:
    simple_websocket: Any = pytest.importorskip("simple_websocket")
    count = 20
    options: Sequence[str] = ["--threads"] if kind == "serve" else []
    with serving(kind, *options) as server:
        before = server.about()["threads"]
        url = f"ws://127.0.0.1:{server.port}/websocket"
        clients = [simple_websocket.Client(url) for _ in range(count)]
        for turn in range(3):
            for i, client in enumerate(clients):
                client.send(f"hello {i} {turn}")
            for i, client in enumerate(clients):
                assert client.receive(PATIENCE) == f"True: hello {i} {turn}"
        more = server.about()["threads"] - before
        # simple-websocket starts a thread for each; with --threads it is a goroutine.
        assert more >= count if kind == "gunicorn" else more < count
        for client in clients:
            client.close()
        assert server.get("/hello").body == b"hello"
        assert "Traceback" not in server.child.stderr  # of the StopIteration at the end


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("serve_app", "'serve_app' is not MODULE:APP"),
        (":app", "':app' is not MODULE:APP"),
        ("serve_app:", "'serve_app:' is not MODULE:APP"),
        (".serve_app:app", "'.serve_app:app' is not MODULE:APP"),
        ("nosuch:app", "No module named 'nosuch'"),
        ("nosuch.inner:app", "No module named 'nosuch'"),
        ("serve_app.inner:app", "No module named 'serve_app.inner'; 'serve_app' is not a package"),
        ("serve_app:nosuch", "serve_app:nosuch: module 'serve_app' has no attribute 'nosuch'"),
        ("serve_app:TEXT.no", "serve_app:TEXT.no: 'list' object has no attribute 'no'"),
        ("serve_app:TEXT", "serve_app:TEXT must be callable, as an application is, not list"),
    ],
)
def test_what_serve_says_of_the_application(app: str, said: str) -> None:
    with pytest.raises(SystemExit) as end:
        serve.application(app)
    assert end.value.code == f"gmprt serve: {said}"


def test_what_serve_says_is_one_line() -> None:
    done = run_child(
        args=["-m", "gmprt", "serve", "--bind", "127.0.0.1:0", "nosuch:app"],
        env={"PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"},
        status=1,
    )
    assert done.stderr == "gmprt serve: No module named 'nosuch'\n"


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("import nosuch", ModuleNotFoundError),
        ("import serve_app.nosuch", ModuleNotFoundError),
        ("1 / 0", ZeroDivisionError),
    ],
)
def test_a_module_that_cannot_be_imported(
    broken: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong in it is in the traceback."""
    (tmp_path / "broken.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error):
        serve.application("broken:app")


def test_an_address_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        for address, said in (
            (f"127.0.0.1:{other.getsockname()[1]}", "Address already in use"),
            ("192.0.2.1:80", "Cannot assign requested address"),
            ("a..b:80", ""),
            (f"unix:{tmp_path}/file", "Address already in use"),
            (f"unix:{tmp_path}/no/socket", "No such file or directory"),
            (f"unix:{tmp_path}/{'x' * 200}", "AF_UNIX path too long"),
        ):
            with pytest.raises(SystemExit) as end, serve.listening(address, 1):
                pass
            assert str(end.value).startswith(f"gmprt serve: cannot listen on {address}: {said}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--bind", "localhost"], "'localhost' is neither HOST:PORT nor unix:PATH"),
        (["--bind", "a:99999"], "'a:99999' is neither HOST:PORT nor unix:PATH"),
        (["--bind", "unix:"], "'unix:' is neither HOST:PORT nor unix:PATH"),
        (["--connections", "0"], "--connections: 0 is not between 1 and"),
        (["--connections", "many"], "--connections: invalid number value: 'many'"),
        (["--keep-alive", "-1"], "--keep-alive: -1 is negative, or not a number"),
        (["--timeout", "nan"], "--timeout: nan is negative, or not a number"),
    ],
)
def test_what_serve_says_of_its_arguments(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    serve.add_to(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["serve", *args, "a:b"])
    assert said in capsys.readouterr().err


def test_help_of_serve() -> None:
    assert gmprt.__name__ in run_child(args=["-m", "gmprt", "serve", "--help"]).stdout


def test_a_socket_that_is_not_ours_any_more(tmp_path: Path) -> None:
    """Another server's stays, and one that is gone is no error."""
    path = tmp_path / "socket"
    for mine in (None, socket.socket(socket.AF_UNIX)):
        args = ["-m", "gmprt", "serve", "--bind", f"unix:{path}", "serve_app:app"]
        with Child(args=args, env={"PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}) as child:
            child.expect("Listening", stream="stderr")
            path.unlink()
            if mine is not None:
                mine.bind(str(path))
            child.signal(signal.SIGTERM)
            assert child.finish().returncode == 0
        assert path.exists() == (mine is not None)
        if mine is not None:
            mine.close()
