"""The load of the echo row: ``echo_client.c``, compiled on first use, on a CPU of its own.

Every peer's server runs on the other CPUs, accepts `CONNECTIONS` and sends back what comes.  The
client ends by itself and prints the figures.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cache import built
from bench.common import Figures, Scale

CONNECTIONS = 1000
BACKLOG = 1024
CHUNK = 1024  # what a server asks for at a time
LOCAL = "127.0.0.1"
NAP = 0.05  # between two looks whether the client has ended

_BYTES = 64
_SOURCE = Path(__file__).with_name("echo_client.c")


def client() -> Path:
    """The compiled client; ``RuntimeError`` with the compiler's words."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise RuntimeError("the echo row needs a C compiler")

    def compile_to(directory: Path) -> None:
        command = [compiler, "-O2", "-std=gnu11", "-o", str(directory / "client"), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{compiler}: {done.stderr.strip()}")

    return built("echo", [_SOURCE.read_bytes(), compiler.encode()], compile_to) / "client"


def placed() -> tuple[set[int], dict[str, str]]:
    """The CPUs for the server's process, and the environment that gives the client the last one."""
    usable = sorted(os.sched_getaffinity(0))
    return set(usable[:-1]) or set(usable), {"ECHO_CLIENT_CPU": str(usable[-1])}


class Load:
    """The client at work: ``while not load.ended(): <sleep>(NAP)``, then ``load.figures()``.

    A server that only looks now and then needs no way of its own to wait for a process.
    """

    def __init__(self, port: int, scale: Scale) -> None:
        command = [client(), port, CONNECTIONS, _BYTES, scale.echo / 4, scale.echo]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, text=True
        )

    def ended(self) -> bool:
        """Whether the figures are there."""
        return self._process.poll() is not None

    def figures(self) -> Figures:
        """What the client has measured."""
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"echo_client ended with {self._process.returncode}")
        figures: Figures = json.loads(out)
        return figures


def serve(connection: socket.socket) -> None:
    """Ordinary blocking code: what every peer with a thread of control for each connection runs."""
    with connection:
        while data := connection.recv(CHUNK):
            connection.sendall(data)


def measured(start: Callable[..., Any], sleep: Callable[[float], Any], scale: Scale) -> Figures:
    """The echo row of a peer in which `start(fn, *args)` starts a thread of control."""
    listener = socket.create_server((LOCAL, 0), backlog=BACKLOG)

    def accept() -> None:
        for _ in range(CONNECTIONS):
            start(serve, listener.accept()[0])

    with listener:
        start(accept)
        load = Load(listener.getsockname()[1], scale)
        while not load.ended():
            sleep(NAP)
        return load.figures()
