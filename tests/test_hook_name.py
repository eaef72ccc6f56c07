"""csrc/py/interpose/hooks/name.c: names and addresses: the C library waits, the others go on."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scenes import Scene, Scenes, Stage, failure
from support import PATIENCE, ended, interruptions

import gmprt
from gmprt import go

scenes = Scenes()


def need_localhost() -> None:
    """A minimal root file system has no names at all, and a resolver need not know this one."""
    hosts = Path("/etc/hosts")
    lines = hosts.read_text().splitlines() if hosts.exists() else []
    known = [line.partition("#")[0].split() for line in lines]
    if not any("localhost" in names[1:] for names in known if names[:1] == ["127.0.0.1"]):
        pytest.skip("/etc/hosts has no 127.0.0.1 localhost")


@scenes([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))], parks=False)
def getaddrinfo(stack: ExitStack) -> Stage:
    return lambda: socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM), None


@scenes(failure(socket.gaierror, socket.EAI_NONAME), parks=False)
def getaddrinfo_fails(stack: ExitStack) -> Stage:
    hints = socket.AI_NUMERICHOST
    return lambda: socket.getaddrinfo("no such host", 80, flags=hints), None


@scenes("127.0.0.1", parks=False)
def gethostbyname(stack: ExitStack) -> Stage:
    need_localhost()
    return lambda: socket.gethostbyname("localhost"), None


@scenes(["127.0.0.1"], parks=False)
def gethostbyname_ex(stack: ExitStack) -> Stage:
    return lambda: socket.gethostbyname_ex("127.0.0.1")[2], None


@scenes("localhost", parks=False)
def gethostbyaddr(stack: ExitStack) -> Stage:
    need_localhost()
    return lambda: socket.gethostbyaddr("127.0.0.1")[0], None


@scenes(("127.0.0.1", "80"), parks=False)
def getnameinfo(stack: ExitStack) -> Stage:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return lambda: socket.getnameinfo(("127.0.0.1", 80), flags), None


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


def test_figures_are_no_question() -> None:
    """A connection to an address in figures must not cost a change of threads."""

    def ask() -> None:
        for _ in range(100):
            socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
            socket.getaddrinfo("::1", "443")
            socket.getaddrinfo(None, 80)
            socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)

    before, by_kernel = gmprt.stats().handoffs, interruptions()
    go(ask).result(PATIENCE)
    assert gmprt.stats().handoffs - before < 100 + interruptions() - by_kernel


def test_many_ask_side_by_side(procs: int) -> None:
    need_localhost()

    def ask() -> Any:
        return [socket.gethostbyname("localhost") for _ in range(10)]

    goroutines = [go(ask) for _ in range(50)]
    ended(*goroutines)
    assert all(g.result(PATIENCE) == ["127.0.0.1"] * 10 for g in goroutines)
