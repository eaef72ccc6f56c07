"""The scenes: what the children run.  Each connects, then measures blocking calls of 0.1 s."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from together import COUNT, PAUSE, Meter, together

import gmprt
from gmprt import go

# ---- databases ----------------------------------------------------------------------------------


def _sleeping_queries(connect: Callable[[], Any], sleep: str = "pg_sleep") -> None:
    connections = together(lambda i: connect())

    def query(i: int) -> int:
        with connections[i].cursor() as cursor:
            cursor.execute(f"select {sleep}(%s), %s", (PAUSE, i))
            return int(cursor.fetchone()[1])

    with Meter():
        assert together(query) == list(range(COUNT))
    together(lambda i: connections[i].close())


def psycopg2(dsn: str) -> None:
    import psycopg2

    _sleeping_queries(lambda: psycopg2.connect(dsn))


def psycopg(dsn: str) -> None:
    import psycopg

    assert psycopg.pq.__impl__ == "binary"
    _sleeping_queries(lambda: psycopg.connect(dsn))


def pymysql(path: str) -> None:
    import pymysql

    def connect() -> Any:
        # else each reads the certificates of the whole world
        return pymysql.connect(unix_socket=path, user="root", ssl_disabled=True)

    _sleeping_queries(connect, "sleep")


def psycopg2_one_connection(dsn: str) -> None:
    """psycopg2 guards a connection with a mutex of C: whoever waits for it is handed off."""
    import psycopg2

    connection = psycopg2.connect(dsn)

    def query(i: int) -> int:
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(0.01), %s", (i,))
            return int(cursor.fetchone()[1])

    with Meter():
        assert together(query, 20) == list(range(20))
    connection.close()


def redis(path: str) -> None:
    """Even ones get a value after 0.1 s, odd ones wait 0.1 s in vain."""
    import redis

    client = redis.Redis(unix_socket_path=path, max_connections=COUNT + 10)
    assert together(lambda i: client.ping()) == [True] * COUNT

    def push() -> None:
        time.sleep(PAUSE)
        with client.pipeline() as pipeline:
            for i in range(0, COUNT, 2):
                pipeline.rpush(f"key{i}", i)
            pipeline.execute()

    def pop(i: int) -> Any:
        return client.blpop([f"key{i}"], timeout=0 if i % 2 == 0 else PAUSE)

    with Meter():
        pusher = go(push)
        popped = together(pop)
        pusher.result()
    for i, value in enumerate(popped):
        expected = (f"key{i}".encode(), str(i).encode()) if i % 2 == 0 else None
        assert value == expected, (i, value)


# ---- HTTP ---------------------------------------------------------------------------------------


def _requests_of(get: Callable[[str], str], url: str) -> None:
    """The first request of each key is answered at once."""
    keys = [f"{url}/slow?key={os.getpid()}-{i}" for i in range(COUNT)]
    wanted = [key.rpartition("=")[2] for key in keys]
    begun = time.monotonic()
    assert together(lambda i: get(keys[i])) == wanted
    with Meter():
        assert together(lambda i: get(keys[i])) == wanted
    # The server lets a key pass ten times a second.
    assert time.monotonic() - begun >= PAUSE * 0.9


def requests(url: str) -> None:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=COUNT))

    def get(address: str) -> str:
        response = session.get(address, timeout=20)
        assert response.status_code == 200
        return response.text

    _requests_of(get, url)


def urllib3(url: str) -> None:
    import urllib3

    pool = urllib3.PoolManager(maxsize=COUNT)

    def get(address: str) -> str:
        response = pool.request("GET", address, timeout=20)
        assert response.status == 200
        return response.data.decode()

    _requests_of(get, url)


def flask(server: str) -> None:
    """Flask on werkzeug and its clients in one process."""
    import http.client
    import logging
    import socketserver

    from flask import Flask, request
    from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Flask("test")

    @app.get("/slow/<int:i>")
    def slow(i: int) -> dict[str, Any]:
        time.sleep(PAUSE)
        return {"i": i, "agent": request.headers["User-Agent"]}

    class GoroutineServer(socketserver.ThreadingMixIn, BaseWSGIServer):
        multithread = True

        def process_request(self, *args: Any) -> None:
            go(self.process_request_thread, *args)

    classes = {"goroutines": GoroutineServer, "threads": ThreadedWSGIServer}
    http_server = classes[server]("127.0.0.1", 0, app)
    http_server.socket.listen(COUNT)
    serving = go(http_server.serve_forever)

    def get(i: int) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", http_server.server_port)
        connection.request("GET", f"/slow/{i}", headers={"User-Agent": f"client {i}"})
        response = connection.getresponse()
        assert response.status == 200
        answer = json.loads(response.read())
        connection.close()
        return answer["i"], answer["agent"]

    assert get(0) == (0, "client 0")
    with Meter():
        assert together(get) == [(i, f"client {i}") for i in range(COUNT)]
    http_server.shutdown()
    serving.result()
    http_server.server_close()


# ---- Python code below Rust ----------------------------------------------------------------------


def pydantic() -> None:
    """A validator that blocks, called by Rust, which counts its calls per thread."""
    from pydantic import BaseModel, ValidationError, field_validator

    class Model(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def check(cls, number: int) -> int:
            time.sleep(PAUSE)
            if number % 2:
                raise ValueError("odd")
            return number

    def validate(i: int) -> bool:
        try:
            return Model.model_validate_json(json.dumps({"number": i})).number == i
        except ValidationError:
            return False

    with Meter():
        assert together(validate) == [i % 2 == 0 for i in range(COUNT)]


def cryptography() -> None:
    """Rust that imports Python modules when it is first called: all wait for the import's lock."""
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    def sign(i: int) -> bool:
        key = ec.generate_private_key(ec.SECP256R1())
        signature = key.sign(b"message", ec.ECDSA(SHA256()))
        time.sleep(PAUSE)
        key.public_key().verify(signature, b"message", ec.ECDSA(SHA256()))
        secret = Fernet(Fernet.generate_key())
        return secret.decrypt(secret.encrypt(b"%d" % i)) == b"%d" % i

    with Meter():
        assert all(together(sign))


# ---- hand-off: calls that only a thread can wait for --------------------------------------------


class Ticker:
    """A goroutine that goes on beside the blocked ones."""

    def __enter__(self) -> Ticker:
        self.ticks = 0
        self._stop = False
        self._g = go(self._run)
        return self

    def _run(self) -> None:
        while not self._stop:
            self.ticks += 1
            time.sleep(0.001)

    def more(self, ticks: int = 20) -> None:
        """Wait until it has run that often."""
        wanted = self.ticks + ticks
        while self.ticks < wanted:
            time.sleep(0.001)

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._g.result()


def sqlite() -> None:
    """They wait in sqlite's own busy handler, in C, until the lock is given back."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "data")
        writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        writer.execute("create table t (i integer, square integer)")
        writer.executemany("insert into t values (?, ?)", [(i, i * i) for i in range(COUNT)])
        locked = threading.Event()

        def write() -> None:
            writer.execute("begin exclusive")
            locked.set()
            time.sleep(PAUSE)
            ticker.more()
            writer.execute("commit")

        def read(i: int) -> int:
            with sqlite3.connect(path, timeout=20) as connection:
                row = connection.execute("select square from t where i = ?", (i,)).fetchone()
            connection.close()
            return int(row[0])

        with Ticker() as ticker, Meter():
            holder = go(write)
            locked.wait()
            assert together(read) == [i * i for i in range(COUNT)]
            holder.result()
        writer.close()


def files() -> None:
    """open() of a FIFO blocks until the other end is opened; then they read, and a file as well."""
    with tempfile.TemporaryDirectory() as home:
        plain = Path(home, "plain")
        plain.write_bytes(bytes(range(256)) * 1000)
        fifos = [Path(home, f"fifo{i}") for i in range(COUNT)]
        for fifo in fifos:
            os.mkfifo(fifo)

        def read(i: int) -> bytes:
            with fifos[i].open("rb") as fifo, plain.open("rb") as file:
                file.seek(i)
                return fifo.read() + file.read(10)

        def write(i: int) -> None:
            with fifos[i].open("wb") as fifo:
                fifo.write(b"%d" % i)

        def feed() -> None:
            time.sleep(PAUSE)
            ticker.more()
            together(write)

        content = plain.read_bytes()
        with Ticker() as ticker, Meter():
            feeder = go(feed)
            assert together(read) == [b"%d" % i + content[i : i + 10] for i in range(COUNT)]
            feeder.result()


def own_sqlite() -> None:
    """A connection each, none in the other's way: calls that return at once."""
    with tempfile.TemporaryDirectory() as home:

        def write(i: int) -> int:
            with sqlite3.connect(Path(home, f"data{i}")) as connection:
                connection.execute("pragma synchronous = off")  # a busy disk takes its time
                connection.execute("create table t (i integer)")
                connection.execute("insert into t values (?)", (i,))
                (row,) = connection.execute("select i from t").fetchone()
            connection.close()
            time.sleep(PAUSE)
            return int(row)

        with Meter():
            assert together(write) == list(range(COUNT))


def plain_files() -> None:
    """Files on disk, which no kernel makes wait for long; the rest of the time they park."""
    with tempfile.TemporaryDirectory() as home:

        def write(i: int) -> bytes:
            path = Path(home, str(i))
            path.write_bytes(b"%d" % i)
            time.sleep(PAUSE)
            return path.read_bytes()

        with Meter():
            assert together(write) == [b"%d" % i for i in range(COUNT)]


def names() -> None:
    """getaddrinfo with a slow name server of our own.  Only root can have one: else status 77."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_bind, ms_private_rec = 0x20000, 0x1000, 0x44000
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with tempfile.NamedTemporaryFile("w") as settings:
        settings.write("nameserver 127.7.7.7\noptions timeout:20\n")
        settings.flush()
        try:
            server.bind(("127.7.7.7", 53))
        except OSError:
            os._exit(77)
        file = settings.name.encode()
        if (
            libc.unshare(clone_newns)
            or libc.mount(b"none", b"/", None, ms_private_rec, None)
            or libc.mount(file, b"/etc/resolv.conf", None, ms_bind, None)
        ):
            os._exit(77)

        def answer(question: bytes, sender: Any) -> None:
            time.sleep(PAUSE)
            # An answer, recursion available, no such name; the question as it was.
            server.sendto(question[:2] + b"\x81\x83" + question[4:], sender)

        def serve() -> None:
            while True:
                go(answer, *server.recvfrom(1000))

        def ask(i: int) -> bool:
            try:
                socket.getaddrinfo(f"host{i}.invalid.", 80, socket.AF_INET)
            except socket.gaierror:
                return True
            return False

        with Meter():
            serving = go(serve)
            assert all(together(ask))
        serving.cancel()
        serving.join()
    server.close()


# ---- C++ that waits by itself --------------------------------------------------------------------


def pyzmq() -> None:
    import zmq

    context = zmq.Context()
    pulls = [context.socket(zmq.PULL) for _ in range(COUNT)]
    pushes = [context.socket(zmq.PUSH) for _ in range(COUNT)]
    for i in range(COUNT):
        pulls[i].bind(f"inproc://{i}")
        pushes[i].connect(f"inproc://{i}")

    def push() -> None:
        time.sleep(PAUSE)
        for i in range(COUNT):
            pushes[i].send(b"%d" % i)

    with Meter():
        pusher = go(push)
        assert together(lambda i: int(pulls[i].recv())) == list(range(COUNT))
        pusher.result()
    for zmq_socket in pulls + pushes:
        zmq_socket.close(0)
    context.term()


def grpc() -> None:
    """Calls that wait for their answer, of a server in the same process with threads of its own."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    def slow(request: bytes, context: Any) -> bytes:
        time.sleep(PAUSE)
        return request

    handler = grpc.unary_unary_rpc_method_handler(slow)
    server = grpc.server(ThreadPoolExecutor(COUNT))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test", {"slow": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test/slow")
        assert call(b"first") == b"first"
        with Meter():
            assert together(lambda i: call(b"%d" % i)) == [b"%d" % i for i in range(COUNT)]
    server.stop(None).wait()


def play(name: str, *args: str) -> None:
    """Runs the scene in the main goroutine."""
    gmprt.run(globals()[name], *args)
