"""Real servers for one test run: PostgreSQL, MariaDB, Redis, nginx, each in a directory of its own.

They listen on Unix sockets; PostgreSQL, with TLS, and Redis also on a loopback address of their
own; nginx, for clients that know only addresses, on a port that the kernel has chosen.  A server
whose program is not installed is a reason to skip.
"""

from __future__ import annotations

import glob
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

_START = 40.0  # seconds until a server must be there


def program(name: str, *elsewhere: str) -> str:
    """The path of a program; skips the test if there is none."""
    found = [path for pattern in elsewhere for path in sorted(glob.glob(pattern), reverse=True)]
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None and not found:
        pytest.skip(f"no {name} on this machine")
    return found[0] if found else str(path)


def plain_user() -> str | None:
    """Whom to become: PostgreSQL does not run as root.  None: stay."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip("no user but root to run a server as")


@contextmanager
def folder(user: str | None = None) -> Iterator[Path]:
    """A directory with a short name, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="gmprt-", ignore_cleanup_errors=True) as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: Callable[[], object],
    log: Path,
    *,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
) -> Iterator[None]:
    """A server from when it is `ready` until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            env={**os.environ, **(env or {})},
            pass_fds=fds,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} does not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def answers(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(str(path)) == 0


def run_as(user: str | None, command: Sequence[str | Path], home: Path) -> None:
    """A command that prepares a server, and ends."""
    done = subprocess.run(
        [str(part) for part in command],
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{command[0]}: {done.stdout}{done.stderr}")


def certificate(user: str | None, home: Path, host: str) -> tuple[Path, Path]:
    """A key, and a certificate of `host` that is signed with it."""
    key, cert = home / "key.pem", home / "cert.pem"
    request = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    names = ["-addext", f"subjectAltName=IP:{host}"]
    files = ["-keyout", key, "-out", cert]
    run_as(user, [program("openssl"), "req", *request, *names, *files], home)
    return key, cert


def own_address() -> str:
    """A loopback address on which no port is taken."""
    return f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"


class Postgres(NamedTuple):
    """How to connect to it."""

    local: str
    tcp: str
    tls: str


@contextmanager
def postgres(most: int) -> Iterator[Postgres]:
    """Up to `most` connections at a time."""
    initdb = program("initdb", "/usr/lib/postgresql/*/bin/initdb")
    server = str(Path(initdb).with_name("postgres"))
    user = plain_user()
    with folder(user) as home:
        cluster = ["-D", home / "data", "-U", "test", "-A", "trust", "-N"]
        run_as(user, [initdb, *cluster, "--no-locale", "-E", "UTF8"], home)
        host = own_address()
        key, cert = certificate(user, home, host)
        settings = {
            "listen_addresses": host,
            "unix_socket_directories": str(home),
            "ssl": "on",
            "ssl_key_file": str(key),
            "ssl_cert_file": str(cert),
            "max_connections": str(most + 10),
            "shared_buffers": "16MB",
            "fsync": "off",
            "dynamic_shared_memory_type": "mmap",
        }
        options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        socket_path = home / ".s.PGSQL.5432"
        log = home / "log"
        log.touch()
        with running(
            [server, "-D", home / "data", *options],
            lambda: answers(socket_path) and "ready to accept" in log.read_text(),
            log,
            user=user,
        ):
            common = "user=test dbname=postgres"
            tls = f"sslmode=verify-full sslrootcert={cert}"
            there = f"host={host} {common}"
            yield Postgres(f"host={home} {common}", f"{there} sslmode=disable", f"{there} {tls}")


@contextmanager
def mariadb(most: int, databases: Sequence[str] = ()) -> Iterator[str]:
    """The path of its socket; it lets everybody in, and needs no tables of its own for that."""
    server = program("mariadbd")
    user = plain_user()
    with folder(user) as home:
        path = home / "mariadb.sock"
        run_as(user, ["mkdir", "data"], home)
        (home / "init").write_text("".join(f"CREATE DATABASE {name};\n" for name in databases))
        options = [
            "--skip-grant-tables",
            f"--back-log={most}",
            "--skip-networking",
            "--skip-innodb",
            "--default-storage-engine=MyISAM",
            f"--max-connections={most + 10}",
        ]
        files = [f"--datadir={home}/data", f"--socket={path}", f"--init-file={home}/init"]
        log = home / "log"
        log.touch()
        command = [server, "--no-defaults", *options, *files]
        with running(command, lambda: answers(path), log, user=user):
            yield str(path)


class Redis(NamedTuple):
    """Where it listens."""

    path: str
    address: str


@contextmanager
def redis() -> Iterator[Redis]:
    """Without a file of its data."""
    server = program("redis-server")
    with folder() as home:
        path, host = home / "redis.sock", own_address()
        where = ["--bind", host, "--port", "6379", "--unixsocket", str(path), "--dir", str(home)]
        with running([server, *where, "--save", ""], lambda: answers(path), home / "log"):
            yield Redis(str(path), f"{host}:6379")


_NGINX = """
daemon off;
pid {home}/pid;
error_log stderr warn;
worker_processes 1;
user {user};
events {{ worker_connections 2000; }}
http {{
    access_log off;
    keepalive_requests 100000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    # The second request of a key within 0.1 s waits until it is over.
    limit_req_zone $arg_key zone=slow:2m rate=10r/s;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /slow {{
            limit_req zone=slow burst=10;
            try_files /none @answer;
        }}
        location @answer {{ return 200 "$arg_key"; }}
        location / {{ return 200 "fast"; }}
    }}
}}
"""


@contextmanager
def nginx() -> Iterator[str]:
    """Its URL.  ``/slow?key=K`` answers K, for the second time after 0.1 s."""
    server = program("nginx")
    with folder() as home, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        address = listener.getsockname()
        user = pwd.getpwuid(os.getuid()).pw_name
        (home / "conf").write_text(_NGINX.format(home=home, port=address[1], user=user))
        # It is given the listening socket, as a new nginx by an old one: the port stays ours.
        env = {"NGINX": f"{listener.fileno()};"}
        command = [server, "-p", str(home), "-c", str(home / "conf"), "-e", "stderr"]
        log = home / "log"
        log.touch()

        def ready() -> bool:
            return (home / "pid").exists()

        with running(command, ready, log, env=env, fds=[listener.fileno()]):
            yield f"http://127.0.0.1:{address[1]}"
