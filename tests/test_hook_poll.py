"""csrc/py/interpose/hooks/poll.c: select, poll, epoll, and what is built on them."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import select
import selectors
import socket
import tempfile
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from scenes import (
    Bell,
    Scene,
    Scenes,
    Stage,
    brief,
    broken_off,
    cancelled,
    failure,
    interrupted,
    outcome,
)
from support import PATIENCE, Thread, ended, eventually, parked

import gmprt
from gmprt import go

scenes = Scenes()


def pipe(stack: ExitStack) -> tuple[int, int]:
    r, w = os.pipe()
    stack.callback(os.close, r)
    stack.callback(os.close, w)
    return r, w


def full_pipe(stack: ExitStack) -> tuple[int, int]:
    r, w = pipe(stack)
    os.set_blocking(w, False)
    try:
        while True:
            os.write(w, bytes(1 << 16))
    except BlockingIOError:
        os.set_blocking(w, True)
    return r, w


def names(ready: list[tuple[int, int]], *known: int) -> list[tuple[int, int]]:
    """(descriptor, events) as (index in known, events)."""
    return sorted((known.index(fd), events) for fd, events in ready)


# ---- select --------------------------------------------------------------------------------------


@scenes(([0], [], []))
def select_read(stack: ExitStack) -> Stage:
    r, w = pipe(stack)

    def call() -> Any:
        return tuple([0] * len(ready) for ready in select.select([r], [], []))

    return call, lambda: os.write(w, b"x")


@scenes(([], [0], []))
def select_write(stack: ExitStack) -> Stage:
    r, w = full_pipe(stack)

    def call() -> Any:
        return tuple([0] * len(ready) for ready in select.select([], [w], []))

    return call, lambda: os.read(r, 1 << 20)


@scenes(([], [], [0]))
def select_exceptional(stack: ExitStack) -> Stage:
    """Out-of-band data."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        a = stack.enter_context(socket.create_connection(server.getsockname()))
        b = stack.enter_context(server.accept()[0])

    def call() -> Any:
        return tuple([0] * len(ready) for ready in select.select([], [], [a]))

    return call, lambda: b.send(b"!", socket.MSG_OOB)


@scenes(([7], [], []))
def select_one_of_many(stack: ExitStack) -> Stage:
    pipes = [pipe(stack) for _ in range(40)]
    readers = [r for r, _ in pipes]

    def call() -> Any:
        ready, writable, exceptional = select.select(readers, [], [], PATIENCE)
        return [readers.index(r) for r in ready], writable, exceptional

    return call, lambda: os.write(pipes[7][1], b"x")


@scenes(([], [], []), wakes=False)
def select_times_out(stack: ExitStack) -> Stage:
    r, _ = pipe(stack)
    return lambda: select.select([r], [], [], brief()), None


@scenes(([], [], []), wakes=False)
def select_nothing(stack: ExitStack) -> Stage:
    return lambda: select.select([], [], [], brief()), None


@scenes(([], [], []), parks=False)
def select_now(stack: ExitStack) -> Stage:
    r, _ = pipe(stack)
    return lambda: select.select([r], [], [], 0), None


@scenes(True, parks=False)
def select_regular_file(stack: ExitStack) -> Stage:
    """Always ready, and nothing that a poller can watch."""
    file = stack.enter_context(tempfile.TemporaryFile())
    return lambda: select.select([file], [file], []) == ([file], [file], []), None


@scenes(failure(OSError, errno.EBADF), parks=False)
def select_closed(stack: ExitStack) -> Stage:
    def call() -> Any:
        r, w = os.pipe()
        os.close(r)
        try:
            return select.select([r], [], [])
        finally:
            os.close(w)

    return call, None


# ---- poll ----------------------------------------------------------------------------------------


@scenes([(0, select.POLLIN)])
def poll_read(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    p = select.poll()
    p.register(r)
    return lambda: names(p.poll(), r), lambda: os.write(w, b"x")


@scenes([(0, select.POLLIN), (1, select.POLLIN | select.POLLHUP)])
def poll_two_at_once(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    s, t = os.pipe()
    stack.callback(os.close, s)
    p = select.poll()
    p.register(r, select.POLLIN)
    p.register(s, select.POLLIN)

    def wake() -> None:
        os.write(t, b"x")
        os.close(t)
        os.write(w, b"x")

    def call() -> Any:
        while len(ready := p.poll()) < 2:
            pass
        return names(ready, r, s)

    return call, wake


@scenes([(3, select.POLLOUT)])
def poll_one_of_many(stack: ExitStack) -> Stage:
    p = select.poll()
    pipes = [full_pipe(stack) for _ in range(20)]
    writers = [w for _, w in pipes]
    for w in writers:
        p.register(w, select.POLLOUT)
    return lambda: names(p.poll(PATIENCE * 1000), *writers), lambda: os.read(pipes[3][0], 1 << 20)


@scenes([(0, select.POLLHUP)])
def poll_hangup(stack: ExitStack) -> Stage:
    r, w = os.pipe()
    stack.callback(os.close, r)
    p = select.poll()
    p.register(r, select.POLLIN)
    return lambda: names(p.poll(), r), lambda: os.close(w)


@scenes([(0, select.POLLERR)])
def poll_error_only(stack: ExitStack) -> Stage:
    """Errors are reported without being asked for."""
    r, w = os.pipe()
    stack.callback(os.close, w)
    p = select.poll()
    p.register(w, 0)
    return lambda: names(p.poll(), w), lambda: os.close(r)


@scenes([], wakes=False)
def poll_times_out(stack: ExitStack) -> Stage:
    r, _ = pipe(stack)
    p = select.poll()
    p.register(r)
    return lambda: p.poll(brief() * 1000), None


@scenes([], wakes=False)
def poll_nothing(stack: ExitStack) -> Stage:
    return lambda: select.poll().poll(brief() * 1000), None


@scenes([(0, select.POLLNVAL)], parks=False)
def poll_closed(stack: ExitStack) -> Stage:
    def call() -> Any:
        r, w = os.pipe()
        os.close(r)
        os.close(w)
        p = select.poll()
        p.register(r)
        return names(p.poll(), r)

    return call, None


# ---- epoll ---------------------------------------------------------------------------------------


@scenes([(0, select.EPOLLIN)])
def epoll_read(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    e = stack.enter_context(select.epoll())
    e.register(r, select.EPOLLIN)
    return lambda: names(e.poll(), r), lambda: os.write(w, b"x")


@scenes([(0, select.EPOLLIN)])
def epoll_edge(stack: ExitStack) -> Stage:
    """The second edge, after the first has been seen and left unread."""
    r, w = pipe(stack)
    e = stack.enter_context(select.epoll())
    e.register(r, select.EPOLLIN | select.EPOLLET)
    os.write(w, b"x")
    e.poll()
    return lambda: names(e.poll(), r), lambda: os.write(w, b"x")


@scenes([(0, select.EPOLLIN)])
def epoll_registered_while_it_waits(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    e = stack.enter_context(select.epoll())
    os.write(w, b"x")
    return lambda: names(e.poll(), r), lambda: e.register(r, select.EPOLLIN)


@scenes([(0, select.EPOLLIN)])
def epoll_in_an_epoll(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    inner = stack.enter_context(select.epoll())
    inner.register(r, select.EPOLLIN)
    outer = stack.enter_context(select.epoll())
    outer.register(inner, select.EPOLLIN)
    return lambda: names(outer.poll(), inner.fileno()), lambda: os.write(w, b"x")


@scenes([], wakes=False)
def epoll_times_out(stack: ExitStack) -> Stage:
    e = stack.enter_context(select.epoll())
    return lambda: e.poll(brief()), None


@scenes(failure(ValueError), parks=False)
def epoll_closed(stack: ExitStack) -> Stage:
    e = select.epoll()
    e.close()
    return e.poll, None


@scenes(1)
def selector(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    s = stack.enter_context(selectors.DefaultSelector())
    s.register(r, selectors.EVENT_READ)
    return lambda: len(s.select()), lambda: os.write(w, b"x")


# ---- in every position ---------------------------------------------------------------------------


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


@scenes.waking()
def test_a_signal_in_between(scene: Scene) -> None:
    """PEP 475: the call goes on after the handler."""
    assert interrupted(scene.build) == scene.expected


@scenes.cancellable()
def test_cancelled(scene: Scene) -> None:
    cancelled(scene)


@pytest.mark.parametrize("build", [select_read, poll_read, epoll_read])
def test_a_handler_that_raises_ends_a_call(build: Any) -> None:
    assert broken_off(build) == failure(Bell)


def test_what_no_poller_can_watch(procs: int) -> None:
    """A regular file is never exceptional: its thread waits, and nobody else does."""
    with ExitStack() as stack, tempfile.TemporaryFile() as file:
        r, w = pipe(stack)
        waiting = go(select.select, [r], [], [file])
        eventually(lambda: waiting.state == "syscall")
        assert go(int).join(PATIENCE)
        os.write(w, b"x")
        assert waiting.result(PATIENCE) == ([r], [], [])


# ---- many ----------------------------------------------------------------------------------------


def test_who_waits_never_meets_the_next_instance(procs: int) -> None:
    """An epoll instance is closed, its number another's before they run: no events of that."""
    with ExitStack() as stack:
        mine, others = select.epoll(), stack.enter_context(select.epoll())
        r, w = pipe(stack)
        os.write(w, b"x")
        others.register(r)
        pollers = [go(outcome, mine.poll) for _ in range(10)]
        for g in pollers:
            parked(g, "IO wait")
        os.close(mine.fileno())
        assert os.dup(others.fileno()) == mine.fileno()
        stack.callback(mine.close)
        assert [g.result(PATIENCE) for g in pollers] == [failure(OSError, errno.EBADF)] * 10


def test_many_poll_the_same(procs: int) -> None:
    """All of them see what is there, for nobody reads it."""
    threads = gmprt.stats().threads
    with ExitStack() as stack:
        r, w = pipe(stack)
        others = [pipe(stack)[0] for _ in range(10)]

        def poller(i: int) -> Any:
            p = select.poll()
            for fd in [*others, r]:
                p.register(fd, select.POLLIN)
            return names(p.poll(PATIENCE * 1000), r)

        pollers = [go(poller, i) for i in range(100)]
        for g in pollers:
            parked(g, "IO wait")
        os.write(w, b"x")
        assert all(g.result(PATIENCE) == [(0, select.POLLIN)] for g in pollers)
    assert gmprt.stats().threads <= threads + 10


def test_overlapping_sets(procs: int) -> None:
    """Goroutines wait for sets of ten out of twenty pipes, each in an order of its own."""
    n = 20
    with ExitStack() as stack:
        pipes = [pipe(stack) for _ in range(n)]
        stop = threading.Event()
        served: list[int] = []  # the pipe's number, for each byte

        def server(i: int) -> None:
            mine = [pipes[(i + k) % n][0] for k in range(10)]
            while not stop.is_set():
                for r in select.select(mine, [], [], 0.01)[0]:
                    os.set_blocking(r, False)
                    try:
                        data = os.read(r, 100)
                        served.extend([[p[0] for p in pipes].index(r)] * len(data))
                    except BlockingIOError:
                        pass  # another one was faster

        servers = [go(server, i) for i in range(n)]
        for _ in range(50):
            for _, w in pipes:
                os.write(w, b"x")
            gmprt.sleep(0.001)
        eventually(lambda: len(served) == 50 * n)
        stop.set()
        ended(*servers)
        assert [served.count(i) for i in range(n)] == [50] * n


# ---- asyncio -------------------------------------------------------------------------------------


async def _chatter(n: int) -> int:
    """Tasks, timers and sockets on one loop."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while line := await reader.readline():
            await asyncio.sleep(0.001)
            writer.write(line)
            await writer.drain()
        writer.close()

    async def client(port: int, i: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(5):
            message = b"%d %d\n" % (i, turn)
            writer.write(message)
            assert await reader.readline() == message
        writer.close()
        await writer.wait_closed()
        return True

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert all(await asyncio.gather(*[client(port, i) for i in range(n)]))
    return connections


def test_an_event_loop_in_each_of_many_goroutines(procs: int) -> None:
    threads = gmprt.stats().threads
    loops = [go(asyncio.run, _chatter(5)) for _ in range(20)]
    assert [g.result(PATIENCE) for g in loops] == [5] * 20
    assert gmprt.stats().threads <= threads + 10


def test_an_event_loop_in_run() -> None:
    assert gmprt.run(asyncio.run, _chatter(10)) == 10


def test_the_others_go_on_beside_an_event_loop() -> None:
    gmprt.gomaxprocs(1)

    async def until(enough: list[int]) -> None:
        while not enough:
            await asyncio.sleep(0.01)

    def main() -> None:
        enough: list[int] = []
        loop = go(asyncio.run, until(enough))
        for _ in range(20):
            gmprt.sleep(0.001)
        assert not loop.join(0)
        enough.append(1)
        loop.result(PATIENCE)

    gmprt.run(main)


def test_a_descriptor_is_gone_when_the_time_is_up() -> None:
    """Closed behind everybody's back: the error has its number."""
    a, b = socket.socketpair()
    with b:
        fd = a.detach()
        g = go(outcome, lambda: select.select([fd], [], [], 0.1))
        parked(g, "IO wait")
        ctypes.CDLL(None).close(fd)
        assert g.result(PATIENCE) == failure(OSError, errno.EBADF)


def test_loops_are_called_from_outside(procs: int) -> None:
    """call_soon_threadsafe wakes a loop that waits in its selector, and tells goroutines apart."""
    ready: gmprt.Chan[asyncio.AbstractEventLoop] = gmprt.Chan(1)

    async def serve() -> str:
        future = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        loop.future = future  # type: ignore[attr-defined]
        ready.send(loop)
        result: str = await future
        return result

    for caller in (go, Thread):
        g = go(asyncio.run, serve())
        loop = ready.recv(timeout=PATIENCE)
        parked(g, "IO wait")
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        future = loop.future  # type: ignore[attr-defined]
        caller(loop.call_soon_threadsafe, future.set_result, "done").result(PATIENCE)
        assert g.result(PATIENCE) == "done"


def test_executors_and_processes_of_asyncio(procs: int) -> None:
    async def main() -> tuple[str, bytes]:
        loop = asyncio.get_running_loop()
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        process = await asyncio.create_subprocess_exec(
            "echo", "hello", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return name, out

    name, out = go(asyncio.run, main()).result(PATIENCE)
    assert name.startswith("asyncio_0")
    assert out == b"hello\n"


def test_a_loop_is_cancelled() -> None:
    """The cancel reaches the loop's selector; run() then cancels its tasks."""
    seen: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("the task")
            raise

    g = go(asyncio.run, main())
    parked(g, "IO wait")
    g.cancel()
    with pytest.raises(gmprt.GoroutineCancelled):
        g.result(PATIENCE)
    assert seen == ["the task"]
