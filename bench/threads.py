"""Threads of Python as goroutines, beside OS threads: ``python -m bench.threads``.

The same program in child processes: as it is, with ``gmprt.threads(True)`` (its main thread stays
one) and by ``gmprt run --threads`` (that is a goroutine, too).  The ways take turns, and the best
of each counts: what is added to that is the machine's.

parked     threads that wait in ``Event.wait``: memory of each, and the time to start, wake and join
           one.  Kernel stacks, 16 KiB for each OS thread, are not in it.
asleep     the same, when they have waited for a while.
executor   ``ThreadPoolExecutor(1000)``: empty calls, from the first submit to the last result.
idle       connections that are kept alive, a thread in ``recv`` for each: memory of each, at once
           and after a while.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gmprt
from bench.common import memory_bytes, nothing

WAYS: dict[str, tuple[list[str], list[str]]] = {
    "OS threads": ([], []),
    "threads(True)": ([], ["--threads"]),
    "run --threads": (["-m", "gmprt", "run", "--threads"], []),
}
"""What stands before the module, and after."""

Row = dict[str, float]


WHILE = 3.0  # seconds after which memory is what it stays


def _parked(count: int, rest: float = 0) -> Row:
    event, before = threading.Event(), memory_bytes()
    threads = [threading.Thread(target=event.wait) for _ in range(count)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    while len(event._cond._waiters) < count:  # type: ignore[attr-defined]
        time.sleep(0.01)
    time.sleep(rest)
    memory = memory_bytes() - before
    waking = time.perf_counter()
    event.set()
    for thread in threads:
        thread.join()
    seconds = started - begin + time.perf_counter() - waking
    return {"bytes": memory / count, "us": seconds / count * 1e6}


def _asleep(count: int) -> Row:
    return _parked(count, WHILE)


def _executor(count: int) -> Row:
    with ThreadPoolExecutor(1000) as pool:
        begin = time.perf_counter()
        calls = [pool.submit(nothing) for _ in range(count)]
        for call in calls:
            call.result()
        seconds = time.perf_counter() - begin
    return {"per s": count / seconds}


_CLIENT = """
import resource, socket, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
connections = []
for _ in range({count}):
    connection = socket.create_connection(("127.0.0.1", {port}))
    connection.sendall(b"x" * 64)
    assert connection.recv(64) == b"x" * 64
    connections.append(connection)
print("all", flush=True)
sys.stdin.read()
"""


def _serve(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1024):
            connection.sendall(data)


def _idle(count: int) -> Row:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    code = _CLIENT.format(count=count, port=listener.getsockname()[1])
    before = memory_bytes()
    client = subprocess.Popen(  # ends with us
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    for _ in range(count):
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()
    assert client.stdout is not None
    assert client.stdout.readline() == b"all\n"
    memory = memory_bytes()
    time.sleep(WHILE)
    return {"bytes": (memory - before) / count, "later": (memory_bytes() - before) / count}


CASES: dict[str, tuple[Callable[[int], Row], int]] = {
    "parked": (_parked, 10_000),
    "asleep": (_asleep, 10_000),
    "executor": (_executor, 100_000),
    "idle": (_idle, 10_000),
}


def _child(case: str, way: str, count: int) -> Row:
    before, after = WAYS[way]
    program = ["-m", "bench.threads", "--one", case, "--count", str(count)]
    command = [sys.executable, *before, *program, *after]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    row: Row = json.loads(done.stdout)
    return row


def _best(rows: list[Row], figure: str) -> float:
    return (max if figure == "per s" else min)(row[figure] for row in rows)


def _table(case: str, rounds: int, count: int) -> None:
    rows: dict[str, list[Row]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            rows[way].append(_child(case, way, count))
    for figure in rows["OS threads"][0]:
        best = {way: _best(rows[way], figure) for way in WAYS}
        print(
            f"{case + ', ' + figure:18}" + "".join(f"{best[way]:18,.0f}" for way in WAYS),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.threads", description=__doc__.split(":")[0]
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--count", type=int, help="threads, calls or connections")
    parser.add_argument("--one", choices=CASES, help="here, and print the figures as JSON")
    parser.add_argument("--threads", action="store_true", help="with --one: gmprt.threads(True)")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.one:
        if options.threads:
            gmprt.threads(True)
        run, count = CASES[options.one]
        print(json.dumps(run(options.count or count)))
        return
    print(f"CPython {platform.python_version()}, best of {options.rounds} rounds")
    print(" " * 18 + "".join(f"{way:>18}" for way in WAYS))
    for case in options.cases or CASES:
        _table(case, options.rounds, options.count or CASES[case][1])


if __name__ == "__main__":
    main()
