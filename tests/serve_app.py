"""The application that tests/test_serve.py has served: what a WSGI application may do, by path."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]

TEXT = [("Content-Type", "text/plain")]


def asked(environ: Environ, name: str) -> str:
    return parse_qs(environ["QUERY_STRING"])[name][0]


def answer(start: Start, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    start("200 OK", [*TEXT, ("Content-Length", str(len(body))), *headers])
    return [body]


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, b"hello")


def echo(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, environ["wsgi.input"].read())


def lines(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, json.dumps([line.decode() for line in environ["wsgi.input"]]).encode())


def first_bytes(environ: Environ, start: Start) -> Iterable[bytes]:
    """It answers before the body is there."""
    return answer(start, environ["wsgi.input"].read(int(asked(environ, "n"))))


def about(environ: Environ, start: Start) -> Iterable[bytes]:
    """The environ, and what the process is made of."""
    shown = {k: v for k, v in environ.items() if isinstance(v, (str, bool, list, tuple))}
    shown["pid"] = os.getpid()
    shown["threads"] = len(os.listdir("/proc/self/task"))
    return answer(start, json.dumps(shown).encode())


def blocks(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    for i in range(int(asked(environ, "n"))):
        yield b"block %d;" % i


def one_block(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [b"a list of one"]


def nothing(environ: Environ, start: Start) -> Iterable[bytes]:
    start("204 No Content", [("Content-Length", "0")])
    return []


def written(environ: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT)
    write(b"by write(), ")
    return [b"and by iteration"]


def too_much(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "4")])
    return [b"four", b" and more"]


def too_little(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "40")])
    return [b"four"]


def boom(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    raise LookupError("before the first block")


def boom_late(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b"a beginning"
    raise LookupError("after the first block")


def runs_out(environ: Environ, start: Start) -> Iterable[bytes]:
    return [next(iter([]))]


def boom_behind_nothing(environ: Environ, start: Start) -> Iterator[bytes]:
    """Its head may be replaced, for no byte of the body has come."""
    start("200 OK", TEXT)
    yield b""
    try:
        raise LookupError("behind an empty block")
    except LookupError:
        start("503 Service Unavailable", TEXT, sys.exc_info())
    yield b"an excuse"


def exits(environ: Environ, start: Start) -> Iterable[bytes]:
    sys.exit("no way")


def splits(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, b"", ("X-Evil", "a\r\nSet-Cookie: b"))


def hidden(environ: Environ, start: Start) -> Iterable[bytes]:
    """Fields that are not the application's."""
    return answer(start, b"x", ("Transfer-Encoding", "chunked"), ("Connection", "close"))


def own(environ: Environ, start: Start) -> Iterable[bytes]:
    """Fields that are."""
    return answer(start, b"", ("Server", "mine"), ("Date", "today"))


class OneByName(list[bytes]):
    """One block by its length, two by iteration."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"one", b"two"])


def a_list_of_its_own(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return OneByName([b"x"])


def length(environ: Environ, start: Start) -> Iterable[bytes]:
    lengths = asked(environ, "n").split(",")
    start("200 OK", [("Content-Length", n) for n in lengths])
    return [b"0123456789"]


def file(environ: Environ, start: Start) -> Iterable[bytes]:
    f = tempfile.TemporaryFile()
    f.write(bytes(range(256)) * 8192)
    f.seek(int(asked(environ, "at")))
    start("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](f)  # type: ignore[no-any-return]


def memory_file(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*TEXT, ("Content-Length", "20000")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 20000))  # type: ignore[no-any-return]


def gzip_file(environ: Environ, start: Start) -> Iterable[bytes]:
    """It has a descriptor, of the compressed bytes."""
    f = tempfile.TemporaryFile()
    f.write(gzip.compress(b"x" * 20000))
    f.seek(0)
    start("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](gzip.open(f))  # type: ignore[no-any-return]


def sleep(environ: Environ, start: Start) -> Iterable[bytes]:
    time.sleep(float(asked(environ, "s")))
    return answer(start, asked(environ, "i").encode())


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def burn(environ: Environ, start: Start) -> Iterable[bytes]:
    spin(float(asked(environ, "s")))
    return answer(start, b"burned")


worker: Any = None
"""gunicorn's, if the test says so."""


def heartbeat(environ: Environ, start: Start) -> Iterable[bytes]:
    """It computes until the worker has given a sign of life."""
    before, end = worker.tmp.last_update(), time.monotonic() + 20
    while worker.tmp.last_update() == before:
        assert time.monotonic() < end
        spin(0.3)
    return answer(start, b"alive")


def gate(environ: Environ, start: Start) -> Iterable[bytes]:
    """It waits for a file, and leaves one if it is not to see it."""
    path = asked(environ, "path")
    try:
        open(path + ".entered", "w").close()
        while not os.path.exists(path):
            time.sleep(0.002)
    except BaseException as error:
        with open(path + ".left", "w") as left:
            left.write(type(error).__name__)
        raise
    return answer(start, b"through the gate")


class Endless:
    """Blocks until it is closed, of which it leaves word."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    def close(self) -> None:
        open(self.path, "w").close()


def endless(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return Endless(asked(environ, "path"))


def websocket(environ: Environ, start: Start) -> Iterable[bytes]:
    import simple_websocket  # type: ignore[import-not-found, import-untyped, unused-ignore]

    ws = simple_websocket.Server.accept(environ)
    try:
        while True:
            ws.send(f"{threading.active_count() > 0}: {ws.receive()}")
    except simple_websocket.ConnectionClosed:
        pass
    assert ws.mode == "gunicorn"
    raise StopIteration  # as flask-sock does


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    view: Callable[[Environ, Start], Iterable[bytes]] | None = globals().get(name)
    if view is None:
        start("404 Not Found", TEXT)
        return [b"not found"]
    return view(environ, start)
