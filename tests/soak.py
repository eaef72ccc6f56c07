"""Everything at once, for a long time: nothing may grow.

    python tests/soak.py [--seconds 600]

Prints a table of what the process holds (memory, mappings, threads, descriptors) and of what was
done.  The first part of the run is warm-up; then the peaks of two windows of equal length are
compared.  Exit status 1: something has grown, or an activity has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import gmprt
from gmprt import Chan, Send, go, select

done: Counter[str] = Counter()
stop = threading.Event()

# ---- activities: each is one round ---------------------------------------------------------------


def channels() -> None:
    ch: Chan[int] = Chan(random.randrange(4))

    def produce() -> None:
        for i in range(50):
            ch.send(i)
        ch.close()

    go(produce).detach()
    assert sum(ch) == 1225


def selects() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan(1)
    helper = go(lambda: [a.recv(timeout=5) for _ in range(20)])
    sent = 0
    while sent < 20:
        chosen = select(Send(a, sent), b, gmprt.after(0.05))
        sent += chosen.index == 0
        if len(b) == 0:
            b.send(1)
    assert helper.result(5) == list(range(20))


def timers() -> None:
    fired: Chan[None] = Chan(8)
    made = [gmprt.after_func(random.random() / 50, lambda: fired.send(None)) for _ in range(4)]
    gmprt.sleep(0.01)
    running = sum(not t.stop() for t in made)
    for _ in range(running):
        fired.recv(timeout=5)


def locks() -> None:
    lock, condition, items = threading.Lock(), threading.Condition(), queue.Queue[int](2)
    total = 0

    def work() -> None:
        nonlocal total
        with lock:
            total += 1
            gmprt.gosched()
        items.put(1)
        with condition:
            condition.notify_all()

    workers = [go(work) for _ in range(6)]
    for _ in range(6):
        items.get(timeout=5)
    for g in workers:
        g.result(5)
    assert total == 6


def sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                while data := peer.recv(4096):
                    peer.sendall(data)

        echo = go(serve)
        with socket.create_connection(server.getsockname()) as s:
            s.settimeout(5)
            s.sendall(b"x" * 3000)
            got = 0
            while got < 3000:
                got += len(s.recv(4096))
        echo.result(5)


def children() -> None:
    out = subprocess.run(["/bin/echo", "soak"], stdout=subprocess.PIPE, timeout=20, check=True)
    assert out.stdout == b"soak\n"


def threads() -> None:
    ch: Chan[int] = Chan()
    thread = threading.Thread(target=lambda: [ch.send(i) for i in range(20)])
    thread.start()
    assert [ch.recv(timeout=5) for _ in range(20)] == list(range(20))
    thread.join(5)


def cancels() -> None:
    never: Chan[None] = Chan()
    lock = threading.Lock()
    reader, writer = socket.socketpair()
    with lock, reader, writer:
        goroutines: list[gmprt.Goroutine[object]] = [
            *(go(never.recv), go(lock.acquire), go(gmprt.sleep, 60), go(reader.recv, 1))
        ]
        gmprt.sleep(random.random() / 100)
        for g in goroutines:
            g.cancel("enough")
        for g in goroutines:
            assert g.join(10), g
            assert g.cancelled(), g


def scopes() -> None:
    for scope in gmprt.move_on_after(random.random() / 1000), gmprt.move_on_after(30):
        with scope, gmprt.move_on_after(random.random() / 1000), gmprt.shield():
            gmprt.sleep(random.random() / 1000)
        with gmprt.context.with_timeout(0.001) as parent, gmprt.context.with_cancel(parent) as ctx:
            gmprt.context.after_func(ctx, scope.__repr__)
            with gmprt.move_on_after(10):
                ctx.done().recv_ok()


def groups() -> None:
    try:
        with gmprt.Group(limit=2) as group:
            group.go(gmprt.sleep, 60)
            group.go(gmprt.sleep, random.random() / 1000)
            group.go(int, "as it should")
            gmprt.sleep(60)
    except ValueError:
        pass
    for n in gmprt.map_(abs, range(9), limit=2):
        if n == 5:
            break
    assert gmprt.gather(lambda: 1, lambda: 2) == (1, 2)


def event_loops() -> None:
    async def main() -> int:
        return sum(await asyncio.gather(*(step(i) for i in range(5))))

    async def step(i: int) -> int:
        await asyncio.sleep(0.001)
        return await go(lambda: i).aresult()

    assert asyncio.run(main()) == 10


def runs() -> None:
    """Of several threads at once."""
    barrier = threading.Barrier(3)
    inner = [threading.Thread(target=gmprt.run, args=(barrier.wait,)) for _ in range(3)]
    for t in inner:
        t.start()
    for t in inner:
        t.join(20)
        assert not t.is_alive()


def forks() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(int(go(lambda: 7).result(20)))
        finally:
            os._exit(1)  # never on with the parent's work
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def processors() -> None:
    gmprt.gomaxprocs(random.randint(1, 4))
    gmprt.sleep(0.02)


def garbage() -> None:
    ring: list[object] = [Chan(1), go(int)]
    ring.append(ring)
    gc.collect(random.randrange(3))
    gmprt.sleep(0.05)


def computing() -> None:
    assert sum(i * i for i in range(100_000)) == 333328333350000


def failures() -> None:
    def fails() -> None:
        raise ValueError("as it should")

    assert isinstance(go(fails).exception(5), ValueError)


ACTIVITIES: list[Callable[[], None]] = [
    *(channels, selects, timers, locks, sockets, children, threads, cancels, scopes, groups),
    *(event_loops, runs, forks, processors, garbage, computing, failures),
]


def repeat(activity: Callable[[], None]) -> None:
    while not stop.is_set():
        try:
            activity()
        except BaseException:
            # At once: what it leaves behind may keep run() from its end.
            traceback.print_exc()
            raise
        done[activity.__name__] += 1
        gmprt.sleep(random.random() / 100)


# ---- what the process holds ----------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    rss_mib: float
    mappings: int
    threads: int
    descriptors: int
    goroutines: int


SLACK = Held(rss_mib=2.0, mappings=30, threads=6, descriptors=10, goroutines=20)
"""What a peak may exceed that of the window before: about twice what it ever did by chance.

In some eighty runs of 12 to 60 seconds on two CPUs that were busy with other programs (3.11 and
3.13, with GMPRT_CHAOS and without) it was at most 0.4 MiB, 15 mappings, 3 threads, 5 descriptors
and 10 goroutines, which is how many activities happen to coincide.  Memory has more room, for an
arena of the allocator is 1 MiB.  Most activities have 50 rounds or more in a window of 20 seconds
there: what leaks once a round shows.
"""


def held() -> Held:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        Path("/proc/self/maps").read_text().count("\n"),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
        gmprt.stats().goroutines,
    )


def peak(samples: list[Held]) -> Held:
    return Held(*(max(column) for column in zip(*map(astuple, samples), strict=True)))


def window(seconds: float, goroutines: list[gmprt.Goroutine[None]]) -> Iterator[Held]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        gmprt.sleep(min(0.25, seconds / 20))
        yield held()
        for g in goroutines:
            if g.done():
                g.result()  # raises: they do not end by themselves
                raise AssertionError(f"{g!r} has ended")


def table(windows: list[Held]) -> list[str]:
    """Prints it; the names of what has grown in both steps."""
    grown: list[str] = []
    print(f"{'':12}{'warm-up':>10}{'first':>10}{'second':>10}")
    for field in fields(Held):
        values = [getattr(w, field.name) for w in windows]
        _, first, second = values
        more = second > first + getattr(SLACK, field.name)
        print(f"{field.name:12}" + "".join(f"{v:10.1f}" for v in values) + "  GROWN" * more)
        if more:
            grown.append(field.name)
    return grown


def soak(seconds: float) -> int:
    goroutines = [go(repeat, activity) for activity in ACTIVITIES]
    try:
        parts = [peak(list(window(seconds / 3, goroutines))) for _ in range(3)]
    finally:
        stop.set()
    for g in goroutines:
        g.result(60)
    grown = table(parts)
    print(", ".join(f"{name} {n}" for name, n in sorted(done.items())))
    idle = [a.__name__ for a in ACTIVITIES if done[a.__name__] < 2]
    if idle:
        print("hardly ever done:", ", ".join(idle))
    return 1 if grown or idle else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600, help="(default: %(default)s)")
    # True since 3.12, for other activities have threads of Python, but no news.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    return gmprt.run(soak, parser.parse_args().seconds)


if __name__ == "__main__":
    sys.exit(main())
