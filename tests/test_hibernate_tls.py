"""csrc/py/host/hibernate.c: goroutines that sleep without a stack in the middle of OpenSSL's code.

    python tests/test_hibernate_tls.py [COUNT]

plays `STORM` with COUNT connections, 2000 if nothing is said.
"""

from __future__ import annotations

import ctypes
import os
import socket
import ssl
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Thread, eventually, parked, run_child

import gmprt
from gmprt import go

IDENTITY = """
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHV4rCw7b8bgw97kt
Rwz9H8HuHkk66iG10OHHdfSYOlehRANCAAQnM+kRBkROkSXbnN37JMvdpyjdHLEK
evkwz/QlOBbGTozKcIypPRDlKN5l3xuoLRukyj8OWPoJVoEepV11BMlF
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUX+z/0v8JnH11Jj0QuARFg34ickswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTIwMTA0MTgzOFoYDzIxMjYxMTA3
MDQxODM4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQnM+kRBkROkSXbnN37JMvdpyjdHLEKevkwz/QlOBbGTozKcIypPRDl
KN5l3xuoLRukyj8OWPoJVoEepV11BMlFo1MwUTAdBgNVHQ4EFgQUEKFS4jb3F9qk
0IU/fc3TsEheTkQwHwYDVR0jBBgwFoAUEKFS4jb3F9qk0IU/fc3TsEheTkQwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAuI402degOQhyQbywHTbt
pEnPPqioQRIOdBOwjUB3pXMCIHtSPB4bVE8qEHbzCNfuQpArVnuhlOSEjXVfGTsg
J7J3
-----END CERTIFICATE-----
"""
"""A key that is secret to nobody, and a certificate that it has signed itself."""

FEW = 100
MANY = 2_000_000  # bytes: more than the socket takes
CLIENT_MAY_RENEGOTIATE = 1 << 8
REQUESTED = 1  # SSL_KEY_UPDATE_REQUESTED: the other side shall do so, too


class Ends:
    """Contexts, and connections between the two ends of a pair of sockets."""

    def __init__(self, stack: ExitStack, identity: Path) -> None:
        self._stack = stack
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(identity)
        self.server.load_verify_locations(identity)
        self.server.options |= CLIENT_MAY_RENEGOTIATE
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.load_cert_chain(identity)
        self.client.check_hostname = False
        self.client.verify_mode = ssl.CERT_NONE

    def at_most(self, version: ssl.TLSVersion) -> Ends:
        self.server.maximum_version = self.client.maximum_version = version
        return self

    def raw(self) -> tuple[socket.socket, socket.socket]:
        a, b = socket.socketpair()
        return self._stack.enter_context(a), self._stack.enter_context(b)

    def serve(self, end: socket.socket) -> ssl.SSLSocket:
        return self._stack.enter_context(self.server.wrap_socket(end, server_side=True))

    def connect(self, end: socket.socket) -> ssl.SSLSocket:
        return self._stack.enter_context(self.client.wrap_socket(end))

    def pair(self) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
        """Both have shaken hands: the server's end, the client's."""
        a, b = self.raw()
        server = go(self.serve, a)
        client = self.connect(b)
        return server.result(PATIENCE), client


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    identity = tmp_path / "identity.pem"
    identity.write_text(IDENTITY, encoding="ascii")
    with ExitStack() as stack:
        yield Ends(stack, identity)


@pytest.fixture
def libssl() -> ctypes.CDLL:
    """The one that _ssl is linked with."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if Path(line.split()[-1]).name == "libssl.so.3":
            return ctypes.CDLL(line.split()[-1])  # and libcrypto, which it needs
    pytest.skip("OpenSSL is another version, or linked into the interpreter")


def asleep(n: int) -> None:
    eventually(lambda: gmprt.stats().hibernating >= n, "nobody falls asleep")


def falls_asleep(fn: Callable[..., Any], *args: Any) -> gmprt.Goroutine[Any]:
    before = gmprt.stats().hibernating
    g = go(fn, *args)
    parked(g)
    asleep(before + 1)
    return g


def exactly(end: ssl.SSLSocket, n: int) -> bytes:
    data = b""
    while len(data) < n and (more := end.recv(n - len(data))):
        data += more
    return data


# ---- what waits ----

Scene = tuple[Callable[[], Any], Callable[[], Any], Any]
"""The wait, what ends it, what it then returns."""


def server_recv(ends: Ends) -> Scene:
    server, client = ends.pair()
    return lambda: server.recv(FEW), lambda: client.sendall(b"data"), b"data"


def server_recv_timed(ends: Ends) -> Scene:
    server, client = ends.pair()
    server.settimeout(5 * PATIENCE)
    return lambda: server.recv(FEW), lambda: client.sendall(b"data"), b"data"


def client_recv(ends: Ends) -> Scene:
    """What comes first are session tickets."""
    server, client = ends.pair()
    return lambda: client.recv(FEW), lambda: server.sendall(b"data"), b"data"


def client_recv_timed(ends: Ends) -> Scene:
    server, client = ends.pair()
    client.settimeout(5 * PATIENCE)
    return lambda: client.recv(FEW), lambda: server.sendall(b"data"), b"data"


def read_into(ends: Ends) -> Scene:
    server, client = ends.pair()
    block = bytearray(8)

    def receive() -> bytes:
        return bytes(block[: server.recv_into(block)])

    return receive, lambda: client.sendall(b"data"), b"data"


def read_lines(ends: Ends) -> Scene:
    server, client = ends.pair()
    lines = server.makefile("rb")
    return lines.readline, lambda: client.sendall(b"a line\nmore"), b"a line\n"


def many_records(ends: Ends) -> Scene:
    server, client = ends.pair()
    data = bytes(range(251)) * (MANY // 251)
    return lambda: exactly(server, len(data)) == data, lambda: client.sendall(data), True


def send(ends: Ends) -> Scene:
    server, client = ends.pair()
    data = bytes(MANY)
    return lambda: server.sendall(data), lambda: exactly(client, MANY), None


def send_timed(ends: Ends) -> Scene:
    server, client = ends.pair()
    server.settimeout(5 * PATIENCE)
    data = bytes(MANY)
    return lambda: server.sendall(data), lambda: exactly(client, MANY), None


def server_shakes_hands(ends: Ends) -> Scene:
    a, b = ends.raw()
    return lambda: ends.serve(a).version(), lambda: ends.connect(b), "TLSv1.3"


def server_shakes_hands_timed(ends: Ends) -> Scene:
    a, b = ends.raw()
    a.settimeout(5 * PATIENCE)
    return lambda: ends.serve(a).version(), lambda: ends.connect(b), "TLSv1.3"


def client_shakes_hands(ends: Ends) -> Scene:
    a, b = ends.raw()
    return lambda: ends.connect(b).version(), lambda: ends.serve(a), "TLSv1.3"


def says_goodbye(ends: Ends) -> Scene:
    server, client = ends.pair()

    def leave() -> bool:
        with server.unwrap():
            return True

    return leave, client.unwrap, True


SCENES = [
    server_recv,
    server_recv_timed,
    client_recv,
    client_recv_timed,
    read_into,
    read_lines,
    many_records,
    send,
    send_timed,
    server_shakes_hands,
    server_shakes_hands_timed,
    client_shakes_hands,
    says_goodbye,
]


def test_they_go_on_as_if_nothing_had_been(ends: Ends) -> None:
    def work(wait: Callable[[], Any], here: list[str]) -> tuple[Any, ...]:
        local = {"a": [1, 2, 3]}
        got = wait()
        return got, local, here

    scenes = [build(ends) for build in SCENES]
    before = gmprt.stats().hibernating
    goroutines = [
        go(work, wait, [build.__name__]) for build, (wait, _, _) in zip(SCENES, scenes, strict=True)
    ]
    asleep(before + len(SCENES))
    for build, g, (_, wake, value) in zip(SCENES, goroutines, scenes, strict=True):
        go(wake).result(PATIENCE)
        assert g.result(PATIENCE) == (value, {"a": [1, 2, 3]}, [build.__name__])


def test_cancels_come_through(ends: Ends) -> None:
    scenes = [build(ends) for build in SCENES]
    before = gmprt.stats().hibernating
    goroutines = [go(wait) for wait, _, _ in scenes]
    asleep(before + len(scenes))
    for g in goroutines:
        assert g.cancel("enough")
        with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
            g.result(PATIENCE)


def test_its_timeout_comes(ends: Ends) -> None:
    server, client = ends.pair()
    for end in (server, client):
        end.settimeout(3.0)
    before = gmprt.stats().hibernating
    goroutines = [go(end.recv, FEW) for end in (server, client)]
    asleep(before + 2)
    for g in goroutines:
        with pytest.raises(TimeoutError):
            g.result(PATIENCE)
    client.sendall(b"later")
    assert server.recv(FEW) == b"later"


def test_its_peer_goes_away(ends: Ends) -> None:
    """Without a word: what Python makes of that differs, but is what a thread gets."""

    def outcome(server: ssl.SSLSocket) -> object:
        try:
            return server.recv(FEW)
        except OSError as e:
            return type(e)

    (one, peer), (other, its_peer) = ends.pair(), ends.pair()
    for server, client in ((one, peer), (other, its_peer)):
        server.sendall(b"x")
        assert client.recv(FEW) == b"x"  # and the session tickets before it
    g = falls_asleep(outcome, one)
    peer.close()
    its_peer.close()
    assert g.result(PATIENCE) == Thread(outcome, other).result(PATIENCE)


def test_what_failed_is_forgotten(ends: Ends, libssl: ctypes.CDLL) -> None:
    """Else the next connection that its thread serves fails of it, or keeps the thread."""

    def fails(end: ssl.SSLSocket) -> int:
        try:
            end.recv(FEW)
        except (gmprt.Cancelled, OSError):
            pass
        return int(libssl.ERR_peek_error())

    blocking, timed = ends.pair()
    timed.settimeout(5 * PATIENCE)
    for end in (blocking, timed):
        g = go(fails, end)
        parked(g)
        assert g.cancel()
        assert g.result(PATIENCE) == 0
    left, gone = ends.pair()
    left.sendall(b"x")
    assert gone.recv(FEW) == b"x"  # and the session tickets before it
    gone.close()  # without a word: OpenSSL complains to nobody
    assert go(fails, left).result(PATIENCE) == 0


# ---- the protocol goes on in the midst of the call ----


def handle(end: ssl.SSLSocket) -> ctypes.c_void_p:
    """The SSL structure, which stands second in the object."""
    second = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    return ctypes.c_void_p.from_address(id(end._sslobj) + second)  # type: ignore[attr-defined]


def test_keys_change(ends: Ends, libssl: ctypes.CDLL) -> None:
    """Who sleeps changes its own, answers, and waits on; and data comes under the new ones."""
    server, client = ends.pair()
    before = gmprt.stats().hibernating
    g = go(exactly, server, 8)
    for part in (b"one ", b"two "):
        asleep(before + 1)
        assert libssl.SSL_key_update(handle(client), REQUESTED) == 1
        rousings = gmprt.stats().rousings
        client.sendall(part)
        eventually(lambda was=rousings: gmprt.stats().rousings > was, "never roused")
    assert g.result(PATIENCE) == b"one two "
    server.sendall(b"answer")
    assert client.recv(FEW) == b"answer"


def test_both_shake_hands_again(ends: Ends, libssl: ctypes.CDLL) -> None:
    server, client = ends.at_most(ssl.TLSVersion.TLSv1_2).pair()
    g = falls_asleep(server.recv, FEW)
    assert libssl.SSL_renegotiate(handle(client)) == 1
    client.do_handshake()
    client.sendall(b"data")
    assert g.result(PATIENCE) == b"data"
    assert client.version() == "TLSv1.2"


def test_it_is_asked_who_it_is(ends: Ends) -> None:
    """The client sends its certificate from within its recv."""
    ends.server.verify_mode = ssl.CERT_OPTIONAL
    ends.client.post_handshake_auth = ends.server.post_handshake_auth = True
    server, client = ends.pair()
    g = falls_asleep(client.recv, FEW)
    server.verify_client_post_handshake()
    server.sendall(b"who?")
    assert g.result(PATIENCE) == b"who?"
    client.sendall(b"me")
    assert server.recv(FEW) == b"me"
    assert server.getpeercert()


# ---- a crowd ----

STORM = """
    import hashlib, random, resource, socket, ssl, sys, time
    import gmprt
    from gmprt import go

    COUNT, ROUNDS, identity = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rng = random.Random(1)
    servers, clients = [], []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        context.maximum_version = version
        servers.append(context)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE

    def exactly(end, n):
        data = b""
        while len(data) < n and (more := end.recv(n - len(data))):
            data += more
        return data

    def serve(end, number):
        end.settimeout(None if number % 3 else 600.0)
        with servers[number % 2].wrap_socket(end, server_side=True) as end:
            turns = 0
            while n := int.from_bytes(exactly(end, 4), "big"):
                data = exactly(end, n)
                end.sendall(hashlib.sha256(data).digest())
                turns += 1
            return turns

    def ask(end, n):
        data = rng.randbytes(n)
        end.sendall(n.to_bytes(4, "big") + data)
        return exactly(end, 32) == hashlib.sha256(data).digest()

    def main():
        handlers, ends = [], []
        for number in range(COUNT):
            a, b = socket.socketpair()
            handlers.append(go(serve, a, number))
            ends.append(client_context.wrap_socket(b))
        for _ in range(ROUNDS):
            while gmprt.stats().hibernating < COUNT * 9 // 10:
                gmprt.sleep(0.02)
            answers = [go(ask, end, rng.choice([1, 100, 20000, 70000])) for end in ends]
            assert all(g.result() for g in answers)
        for end in ends:
            end.sendall(bytes(4))
        return sum(g.result() for g in handlers)

    print(gmprt.run(main))
"""


def storm(count: int, rounds: int, identity: Path, timeout: float, chaos: str = "") -> None:
    env = {"GMPRT_CHAOS": chaos} if chaos else None
    args = (str(count), str(rounds), str(identity))
    done = run_child(textwrap.dedent(STORM), args=args, env=env, timeout=timeout)
    assert done.stdout == f"{count * rounds}\n"


@pytest.mark.parametrize("chaos", ["", "1"])
def test_a_crowd_is_served_from_sleep(chaos: str, tmp_path: Path) -> None:
    """TLS 1.2 and 1.3, blocking and with a timeout; with chaos whoever parks sleeps at once."""
    identity = tmp_path / "identity.pem"
    identity.write_text(IDENTITY, encoding="ascii")
    storm(60, 2, identity, 2 * PATIENCE, chaos)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "identity.pem")
        file.write_text(IDENTITY, encoding="ascii")
        storm(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 5, file, 400.0)
        print("served", os.path.basename(sys.executable))
