"""Memory of one goroutine that waits, by what it waits in: ``python -m bench.memory [CASE ...]``.

Each case runs in a child process: N goroutines wait, and memory and page tables are read when all
do (*hot*), and again when those that can sleep without a stack do so (*idle*).  All that is made
for one is counted, its handle, sockets and buffers included; *alone* is the same without a
goroutine: the sockets as a program has them that waits for none.  Peers are other processes, or the
other end of a pair.

channel     a Python function in recv
ten frames  the same below ten ordinary frames
sleep       a Python function in gmprt.sleep
socket      a Python function in socket.recv
echo        a handler of a TCP connection that has answered once
tls         the same over ssl, a blocking socket
tls timed   the same with a timeout
native ...  a C function in a channel's recv, in a sleep, in a mutex
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gmprt
from bench.cache import built
from bench.common import memory_bytes, nothing
from bench.crowd import LOOK, fall_asleep
from bench.echo import BACKLOG, LOCAL, serve
from gmprt import Chan, go

Figures = dict[str, float]

LONG = 3600.0
TIMEOUT = 600.0
WORD = b"x" * 64


def crowd(count: int, start: Callable[[int], list[gmprt.Goroutine[Any]]]) -> Figures:
    """Of the goroutines that `start` has started, bytes for each."""
    go(nothing).join()
    before = memory_bytes()
    goroutines = start(count)
    while any(goroutine.state != "waiting" for goroutine in goroutines):
        gmprt.sleep(LOOK)
    hot = memory_bytes()
    fall_asleep()
    idle = memory_bytes()
    sleeping = gmprt.stats().hibernating / count
    return {"hot": (hot - before) / count, "idle": (idle - before) / count, "asleep": sleeping}


def alone(count: int, build: Callable[[int], object]) -> Figures:
    """What is there without a goroutine."""
    before = memory_bytes()
    kept = build(count)
    after = memory_bytes()
    del kept
    return {"alone": (after - before) / count}


# ---- in memory ---------------------------------------------------------------------------------


def channel(count: int) -> list[gmprt.Goroutine[Any]]:
    """In a channel's recv."""
    items: Chan[None] = Chan()

    def park() -> None:
        items.recv_ok()

    return [go(park) for _ in range(count)]


def ten_frames(count: int) -> list[gmprt.Goroutine[Any]]:
    """The same below ten frames, each with an argument and a local."""
    items: Chan[None] = Chan()

    def down(left: int) -> int:
        rest = left - 1
        if left:
            return down(rest) + rest
        items.recv_ok()
        return rest

    return [go(down, 10) for _ in range(count)]


def sleeping(count: int) -> list[gmprt.Goroutine[Any]]:
    """In gmprt.sleep."""

    def park() -> None:
        gmprt.sleep(LONG)

    return [go(park) for _ in range(count)]


# ---- connections -------------------------------------------------------------------------------


def pairs(count: int) -> list[socket.socket]:
    """One end of each a socket object, the other a number."""
    ends = []
    for _ in range(count):
        one, other = socket.socketpair()
        other.detach()
        ends.append(one)
    return ends


def sockets(count: int) -> list[gmprt.Goroutine[Any]]:
    """In socket.recv."""

    def park(end: socket.socket) -> None:
        end.recv(100)

    return [go(park, end) for end in pairs(count)]


def certificate() -> Path:
    """A key and a certificate that it has signed itself, in one file."""

    def make(directory: Path) -> None:
        key, cert = directory / "key.pem", directory / "cert.pem"
        request = ["openssl", "req", "-x509", "-nodes", "-days", "36500", "-newkey", "ec"]
        name = ["-subj", "/CN=localhost"]
        curve = ["-pkeyopt", "ec_paramgen_curve:P-256"]
        subprocess.run(
            [*request, *name, *curve, "-keyout", str(key), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
        both = key.read_text(encoding="ascii") + cert.read_text(encoding="ascii")
        (directory / "both.pem").write_text(both, encoding="ascii")

    return built("certificate", [b"P-256"], make) / "both.pem"


def server_side() -> ssl.SSLContext:
    """Of the server in this process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    return context


def client(port: int, count: int, tls: bool) -> None:
    """The peer: an ordinary program, which asks once on each connection and then waits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connections = []
    for _ in range(count):
        connection = socket.create_connection((LOCAL, port))
        if tls:
            connection = context.wrap_socket(connection)
        connection.sendall(WORD)
        assert connection.recv(len(WORD)) == WORD
        connections.append(connection)
    sys.stdin.read()


def accepted(count: int, tls: bool) -> Iterator[socket.socket]:
    """Connections of a peer in another process, which ends with this one."""
    with socket.create_server((LOCAL, 0), backlog=BACKLOG) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "bench.memory", "--client", str(port)]
        command += ["--count", str(count)] + ["--tls"] * tls
        subprocess.Popen(command, stdin=subprocess.PIPE)
        for _ in range(count):
            yield listener.accept()[0]


def echoes(count: int) -> list[gmprt.Goroutine[Any]]:
    """Handlers of connections."""
    return [go(serve, connection) for connection in accepted(count, False)]


def tls_echoes(count: int, timeout: float | None = None) -> list[gmprt.Goroutine[Any]]:
    """Handlers of connections over TLS."""
    context = server_side()

    def handle(connection: socket.socket) -> None:
        connection.settimeout(timeout)
        serve(context.wrap_socket(connection, server_side=True))

    return [go(handle, connection) for connection in accepted(count, True)]


def served_once(count: int, tls: bool) -> list[socket.socket]:
    """The same connections in the same state in a program of one thread."""
    context = server_side() if tls else None
    served = []
    for connection in accepted(count, tls):
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        connection.sendall(connection.recv(1024))
        connection.setblocking(False)
        served.append(connection)
    return served


# ---- native ------------------------------------------------------------------------------------


def native(count: int, wait: str) -> Figures:
    """C functions, see native_bench.c."""
    from bench.cases_native import park

    before = memory_bytes()
    park(wait, count)
    time.sleep(1)
    hot = memory_bytes()
    fall_asleep()
    return {"hot": (hot - before) / count, "idle": (memory_bytes() - before) / count, "asleep": 0}


Case = tuple[Callable[[int], Figures], Callable[[int], Figures] | None, int]
"""With goroutines, without, and how many."""

CASES: dict[str, Case] = {
    "channel": (partial(crowd, start=channel), None, 20_000),
    "ten frames": (partial(crowd, start=ten_frames), None, 20_000),
    "sleep": (partial(crowd, start=sleeping), None, 20_000),
    "socket": (partial(crowd, start=sockets), partial(alone, build=pairs), 5_000),
    "echo": (
        partial(crowd, start=echoes),
        partial(alone, build=partial(served_once, tls=False)),
        5_000,
    ),
    "tls": (
        partial(crowd, start=tls_echoes),
        partial(alone, build=partial(served_once, tls=True)),
        2_000,
    ),
    "tls timed": (partial(crowd, start=partial(tls_echoes, timeout=TIMEOUT)), None, 2_000),
    "native channel": (partial(native, wait="channel"), None, 20_000),
    "native sleep": (partial(native, wait="sleep"), None, 20_000),
    "native mutex": (partial(native, wait="mutex"), None, 20_000),
}


def raise_limit() -> None:
    """Of open files."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def one(case: str, without: bool, count: int | None) -> None:
    """In this process, which ends here, whoever waits."""
    measured, floor, most = CASES[case]

    def told(measure: Callable[[int], Figures]) -> None:
        print(json.dumps(measure(count or most)), flush=True)
        os._exit(0)

    raise_limit()
    if not without:
        gmprt.run(told, measured)
    elif floor:
        told(floor)


def in_child(case: str, without: bool, count: int | None) -> Figures:
    """In a process of its own."""
    command = [sys.executable, "-m", "bench.memory", "--one", case]
    command += ["--without"] * without + (["--count", str(count)] if count else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def table(cases: list[str], count: int | None) -> None:
    """Of all that is asked for, bytes."""
    print(f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, bytes for each")
    print(f"{'':16}{'hot':>9}{'idle':>9}{'alone':>9}{'asleep':>9}")
    for case in cases:
        figures = in_child(case, False, count)
        floor = f"{in_child(case, True, count)['alone']:9,.0f}" if CASES[case][1] else f"{'-':>9}"
        print(
            f"{case:16}{figures['hot']:9,.0f}{figures['idle']:9,.0f}{floor}{figures['asleep']:9.0%}",
            flush=True,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all, if none is named")
    parser.add_argument("--count", type=int, help="goroutines of each case")
    for hidden in ("--one", "--client"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--without", "--tls"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        raise_limit()
        client(int(args.client), args.count, args.tls)
    elif args.one:
        one(args.one, args.without, args.count)
    else:
        table(args.cases or list(CASES), args.count)


if __name__ == "__main__":
    main()
