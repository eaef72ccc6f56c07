"""Servers of WSGI applications beside each other: a process each, one Flask application, and wrk.

    python -m bench.serve [--rounds 3] [--seconds 4] [PEER ...]

It wants wrk, and gunicorn, httptools, Flask, gevent, packaging and waitress.  The server runs on
the first CPU, wrk on the last.  One peer after the other, round after round, so that a slow minute
of the machine hits all; of each figure the best round is shown.

hello   200 connections that are kept: requests a second, 99th percentile of the latency, and
        microseconds of the server's CPU for each request, which other work disturbs least
sleep   2000 connections, a handler that sleeps 0.1 s: requests a second, and as a part of what is
        possible: 20 000, or what the same server does of hello; threads of the process meanwhile
hog     50 connections, hello, beside one request that computes: 99th percentile
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
APP = "serve_app:app"
CONNECTIONS = 200
SLEEPERS = 2000
PAUSE = 0.1
GUNICORN = [
    *("-m", "gunicorn", "-w", "1", "--keep-alive", "60", "--timeout", "120"),
    *("--worker-connections", "3000", "--backlog", "4096", "--log-level", "error"),
]
PEERS = {
    "gunicorn -k gmprt": [*GUNICORN, "-k", "gmprt._serve.worker.Worker", "-b", "ADDRESS", APP],
    "gmprt serve": ["-m", "gmprt", "serve", "--keep-alive", "60", "--bind", "ADDRESS", APP],
    "gunicorn -k gevent": [*GUNICORN, "-k", "gevent", "-b", "ADDRESS", APP],
    "gunicorn -k gthread": [*GUNICORN, "-k", "gthread", "--threads", "32", "-b", "ADDRESS", APP],
    "waitress": [
        *(
            "-m",
            "waitress",
            "--threads=32",
            "--asyncore-use-poll",
            "--connection-limit=3000",
            "--backlog=4096",
        ),
        *("--listen=ADDRESS", APP),
    ],
}


@dataclass
class Load:
    rate: float  # requests a second
    p99: float  # ms
    cpu: float  # us a request
    errors: int


@dataclass
class Figures:
    hello: Load
    sleep: Load
    threads: int
    hog: Load


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def on_cpu(which: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[which]})


def wrk(url: str, pid: int, connections: int, seconds: int) -> Load:
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency"]
    done = subprocess.run(
        [*command, url],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: on_cpu(-1),
    )
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if not found or not rate or not count:
        sys.exit(done.stdout)
    cpu = (cpu_seconds(pid) - before) / max(int(count[1]), 1) * 1e6
    p99 = float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]
    errors = sum(
        map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", done.stdout))
    )
    return Load(float(rate[1]), p99, cpu, errors)


def worker_of(pid: int) -> int:
    """gunicorn's; of others the process itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"Threads:\s+(\d+)", status)
    assert found
    return int(found[1])


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url).read() == b"hello"
    except OSError:
        return False


@contextmanager
def serving(peer: str) -> Iterator[tuple[str, int]]:
    """Its address, and the process."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, *(word.replace("ADDRESS", address) for word in PEERS[peer])]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: on_cpu(0),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://{address}/"
        while not answers(url):
            if process.poll() is not None:
                sys.exit(f"{peer} has not started: {' '.join(command)}")
            time.sleep(0.05)
        yield url, worker_of(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measured(peer: str, seconds: int) -> Figures:
    with serving(peer) as (url, pid):
        wrk(url, pid, CONNECTIONS, 1)
        hello = wrk(url, pid, CONNECTIONS, seconds)
        asked = threading.Thread(
            target=lambda: urllib.request.urlopen(f"{url}burn/{seconds + 1}.0").read()
        )
        asked.start()
        hog = wrk(url, pid, 50, seconds)
        asked.join()
        threads: list[int] = []
        look = threading.Timer(seconds / 2, lambda: threads.append(threads_of(pid)))
        look.start()
        sleep = wrk(f"{url}sleep", pid, SLEEPERS, seconds)
        look.join()
    return Figures(hello, sleep, threads[0], hog)


def row(peer: str, rounds: list[Figures]) -> str:
    rate = max(f.hello.rate for f in rounds)
    slept = max(f.sleep.rate / min(f.hello.rate, SLEEPERS / PAUSE) for f in rounds)
    errors = sum(f.hello.errors + f.sleep.errors + f.hog.errors for f in rounds)
    cells = [
        f"{rate:,.0f}",
        f"{min(f.hello.p99 for f in rounds):.1f}",
        f"{min(f.hello.cpu for f in rounds):.0f}",
        f"{max(f.sleep.rate for f in rounds):,.0f}",
        f"{min(f.sleep.cpu for f in rounds):.0f}",
        f"{slept:.2f}",
        str(max(f.threads for f in rounds)),
        f"{min(f.hog.p99 for f in rounds):.1f}",
        str(errors),
    ]
    return f"| {peer} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Servers of WSGI applications beside each other.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk: apt-get install wrk")
    peers = options.peers or list(PEERS)
    figures: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(options.rounds):
        for peer in peers:
            figures[peer].append(measured(peer, options.seconds))
            print(f"{peer}: {figures[peer][-1]}", file=sys.stderr)
    names = ("hello 1/s", "p99 ms", "cpu us", "sleep 1/s", "cpu us", "of what is possible")
    print(f"| | {' | '.join(names)} | threads | hog p99 ms | errors |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for peer in peers:
        print(row(peer, figures[peer]))


if __name__ == "__main__":
    main()
