"""csrc/py/interpose/errqueue.c: OpenSSL's errors stay with the goroutine that has them."""

from __future__ import annotations

import ctypes
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
from scenes import Stage, moved
from support import c_sleep, eventually

import gmprt
from gmprt import go


@pytest.fixture(scope="module")
def crypto() -> ctypes.CDLL:
    """The one that _ssl is linked with."""
    assert ssl.OPENSSL_VERSION
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if Path(path).name in ("libcrypto.so.3", "libcrypto.so.1.1"):
            lib = ctypes.CDLL(path)
            lib.ERR_peek_error.restype = ctypes.c_ulong
            return lib
    pytest.skip("OpenSSL is linked into the interpreter")


def an_error(crypto: ctypes.CDLL) -> int:
    """Leaves an error in the queue of this thread."""
    crypto.RAND_load_file(b"/there is no such file", ctypes.c_long(-1))
    return int(crypto.ERR_peek_error())


def test_errors_stay_with_their_goroutine(crypto: ctypes.CDLL) -> None:
    gmprt.gomaxprocs(1)
    a, b = socket.socketpair()

    def body() -> tuple[int, bytes, int]:
        try:
            return an_error(crypto), a.recv(9), int(crypto.ERR_peek_error())
        finally:
            crypto.ERR_clear_error()

    with a, b:
        g = go(body)
        eventually(lambda: g.state == "syscall")
        for _ in range(20):
            assert go(crypto.ERR_peek_error).result() == 0
        b.send(b"hello")
        before, data, after = g.result()
    assert before == after != 0
    assert data == b"hello"


def test_errors_of_another_thread_are_not_found(crypto: ctypes.CDLL) -> None:
    def leave() -> None:
        c_sleep(0.02)  # each on a thread of its own
        assert an_error(crypto)

    for g in [go(leave) for _ in range(8)]:
        g.result()

    def build(stack: ExitStack) -> Stage:
        a, b = socket.socketpair()
        stack.enter_context(a)
        stack.enter_context(b)

        def call() -> int:
            crypto.ERR_clear_error()
            a.recv(9)
            return int(crypto.ERR_peek_error())

        return call, lambda: b.send(b"hello")

    assert moved(build) == 0
