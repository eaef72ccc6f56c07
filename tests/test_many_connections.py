"""10 000 connections at a time in one process: blocking handlers on a handful of threads."""

from __future__ import annotations

import json
import resource

import pytest
from support import Child, run_child

COUNT = 10_000
ROUNDS = 3
FILES = COUNT + 200  # of each process
FEW = 100  # threads for 10 000: a machine with other work makes some seem blocked

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
enough = most == resource.RLIM_INFINITY or most >= FILES

RAISE_LIMIT = f"""
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft != resource.RLIM_INFINITY and soft < {FILES}:
    resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, hard))
"""

SERVER = f"""
import json, socket
import gmprt
from gmprt import go

alive = most = 0

def handle(connection):
    global alive, most
    alive += 1
    most = max(most, alive)
    with connection:
        while data := connection.recv(100):
            connection.sendall(data.upper())
    alive -= 1

def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    handlers = [go(handle, listener.accept()[0]) for _ in range({COUNT})]
    for handler in handlers:
        handler.result()
    stats = gmprt.stats()
    threads = stats.threads + stats.threads_ended
    print(json.dumps({{"most": most, "left": alive, "threads": threads}}), flush=True)

gmprt.run(main)
"""

# Ordinary code of one thread: it talks to one after the other, while all others are open.
CLIENT = f"""
import socket

connections = [socket.create_connection(("127.0.0.1", PORT)) for _ in range({COUNT})]
for turn in range({ROUNDS}):
    for i, connection in enumerate(connections):
        connection.sendall(b"hello %d of %d" % (i, turn))
    for i, connection in enumerate(connections):
        answer = connection.recv(100)
        assert answer == b"HELLO %d OF %d" % (i, turn), (i, answer)
for connection in connections:
    connection.close()
print("all answered")
"""


@pytest.mark.skipif(not enough, reason=f"only {most} open files allowed, {FILES} needed")
@pytest.mark.parametrize("procs", [1, 4])
def test_ten_thousand_connections(procs: int) -> None:
    with Child(RAISE_LIMIT + SERVER, env={"GOMAXPROCS": str(procs)}) as server:
        server.expect("\n")
        port = int(server.stdout)
        client = run_child(RAISE_LIMIT + CLIENT.replace("PORT", str(port)), timeout=50)
        assert "all answered" in client.stdout
        figures = json.loads(server.finish().stdout.splitlines()[-1])
    assert figures["most"] == COUNT
    assert figures["left"] == 0
    assert figures["threads"] <= FEW, figures
