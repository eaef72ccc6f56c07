"""csrc/py/interpose/hooks/file.c: read and write on anything, copying between descriptors, locks of
files."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shlex
import socket
import subprocess
import sys
import sysconfig
import tempfile
import termios
import tty
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scenes import Bell, Scene, Scenes, Stage, broken_off, cancelled, failure, interrupted
from support import PATIENCE, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import go

scenes = Scenes()

MUCH = 1 << 20  # more than a pipe holds


def pipe(stack: ExitStack) -> tuple[Any, Any]:
    r, w = os.pipe()
    return stack.enter_context(open(r, "rb", 0)), stack.enter_context(open(w, "wb", 0))


def fill(w: Any) -> int:
    """Writes until the pipe takes no more."""
    os.set_blocking(w.fileno(), False)
    written = 0
    try:
        while True:
            written += os.write(w.fileno(), bytes(1 << 12))
    except BlockingIOError:
        os.set_blocking(w.fileno(), True)
        return written


def drain(r: Any, n: int) -> int:
    """Reads n bytes."""
    got = 0
    while got < n and (piece := os.read(r.fileno(), min(n - got, 1 << 16))):
        got += len(piece)
    return got


def pty_pair(stack: ExitStack) -> tuple[int, int]:
    master, slave = os.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    return master, slave


# ---- reading -------------------------------------------------------------------------------------


@scenes(b"hello")
def read_pipe(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    return lambda: os.read(r.fileno(), 100), lambda: w.write(b"hello")


@scenes(b"")
def read_pipe_end(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    return lambda: os.read(r.fileno(), 100), w.close


@scenes(b"hello")
def read_socket(stack: ExitStack) -> Stage:
    a, b = socket.socketpair()
    stack.enter_context(a), stack.enter_context(b)
    return lambda: os.read(a.fileno(), 100), lambda: b.send(b"hello")


@scenes((5).to_bytes(8, sys.byteorder))
def read_eventfd(stack: ExitStack) -> Stage:
    e = os.eventfd(0)
    stack.callback(os.close, e)
    return lambda: os.read(e, 8), lambda: os.eventfd_write(e, 5)


@scenes(failure(OSError, errno.EINVAL), parks=False)
def read_eventfd_short(stack: ExitStack) -> Stage:
    e = os.eventfd(0)
    stack.callback(os.close, e)
    return lambda: os.read(e, 4), None


@scenes(b"a line\n")
def read_terminal(stack: ExitStack) -> Stage:
    master, slave = pty_pair(stack)
    return lambda: os.read(slave, 100), lambda: os.write(master, b"a line\n")


@scenes(b"x")
def read_terminal_raw(stack: ExitStack) -> Stage:
    master, slave = pty_pair(stack)
    tty.setraw(slave, termios.TCSANOW)
    return lambda: os.read(slave, 100), lambda: os.write(master, b"x")


@scenes(b"hello")
def read_fifo(stack: ExitStack) -> Stage:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    os.mkfifo(folder / "fifo")
    fd = os.open(folder / "fifo", os.O_RDWR)
    stack.callback(os.close, fd)
    return lambda: os.read(fd, 100), lambda: os.write(fd, b"hello")


@scenes((8, b"hel", b"lo wo"))
def readv(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    a, b = bytearray(3), bytearray(5)
    return lambda: (os.readv(r.fileno(), [a, b]), bytes(a), bytes(b)), lambda: w.write(b"hello wo")


@scenes(b"hello")
def file_read(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    return lambda: r.read(5), lambda: w.write(b"hello")


@scenes((5, b"hello\0\0\0"))
def file_readinto(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    buffer = bytearray(8)
    return lambda: (r.readinto(buffer), bytes(buffer)), lambda: w.write(b"hello")


@scenes(b"all of it")
def file_readall(stack: ExitStack) -> Stage:
    r, w = pipe(stack)

    def wake() -> None:
        w.write(b"all of it")
        w.close()

    return r.readall, wake


@scenes(b"hello")
def buffered_read(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    buffered = open(r.fileno(), "rb", closefd=False)
    return lambda: buffered.read(5), lambda: w.write(b"hello")


@scenes("a line\n")
def text_readline(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    text = open(r.fileno(), closefd=False)
    return text.readline, lambda: w.write(b"a line\nand more")


@scenes(failure(BlockingIOError, errno.EAGAIN), parks=False)
def read_non_blocking(stack: ExitStack) -> Stage:
    r, _ = pipe(stack)
    os.set_blocking(r.fileno(), False)
    return lambda: os.read(r.fileno(), 100), None


@scenes(failure(OSError, errno.EBADF), parks=False)
def read_the_wrong_end(stack: ExitStack) -> Stage:
    _, w = pipe(stack)
    return lambda: os.read(w.fileno(), 100), None


@scenes(failure(IsADirectoryError, errno.EISDIR), parks=False)
def read_directory(stack: ExitStack) -> Stage:
    fd = os.open("/", os.O_RDONLY)
    stack.callback(os.close, fd)
    return lambda: os.read(fd, 100), None


@scenes(bytes(10), parks=False)
def read_device(stack: ExitStack) -> Stage:
    file = stack.enter_context(open("/dev/zero", "rb", 0))
    return lambda: os.read(file.fileno(), 10), None


@scenes(True, parks=False)
def read_proc(stack: ExitStack) -> Stage:
    file = stack.enter_context(open("/proc/self/status", "rb", 0))
    return lambda: file.readall().startswith(b"Name:"), None


@scenes((bytes(MUCH), b""), parks=False)
def read_regular(stack: ExitStack) -> Stage:
    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
    file.write(bytes(MUCH))
    file.seek(0)
    return lambda: (os.read(file.fileno(), 2 * MUCH), os.read(file.fileno(), 1)), None


# ---- writing -------------------------------------------------------------------------------------


@scenes(5)
def write_pipe(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    n = fill(w)
    return lambda: os.write(w.fileno(), b"hello"), lambda: drain(r, n)


@scenes(MUCH, partial=True)
def write_much(stack: ExitStack) -> Stage:
    """A blocking write takes all."""
    r, w = pipe(stack)
    return lambda: os.write(w.fileno(), bytes(MUCH)), lambda: drain(r, MUCH)


@scenes(MUCH, partial=True)
def writev_much(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    pieces = [bytes(MUCH // 64)] * 64
    return lambda: os.writev(w.fileno(), pieces), lambda: drain(r, MUCH)


@scenes(10)
def writev(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    n = fill(w)
    return lambda: os.writev(w.fileno(), [b"hello", b"", b"world"]), lambda: drain(r, n)


@scenes(5)
def write_socket(stack: ExitStack) -> Stage:
    a, b = socket.socketpair()
    stack.enter_context(a), stack.enter_context(b)
    a.setblocking(False)
    n = 0
    try:
        while True:
            n += a.send(bytes(1 << 12))
    except BlockingIOError:
        a.setblocking(True)
    return lambda: os.write(a.fileno(), b"hello"), lambda: drain(b, n)


@scenes(8)
def write_eventfd(stack: ExitStack) -> Stage:
    e = os.eventfd(0)
    stack.callback(os.close, e)
    os.eventfd_write(e, 2**64 - 2)
    one = (1).to_bytes(8, sys.byteorder)
    return lambda: os.write(e, one), lambda: os.read(e, 8)


@scenes(5)
def file_write(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    n = fill(w)
    return lambda: w.write(b"hello"), lambda: drain(r, n)


@scenes(failure(BrokenPipeError, errno.EPIPE))
def write_broken(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    fill(w)
    return lambda: os.write(w.fileno(), b"hello"), r.close


@scenes(failure(BlockingIOError, errno.EAGAIN), parks=False)
def write_non_blocking(stack: ExitStack) -> Stage:
    _, w = pipe(stack)
    fill(w)
    os.set_blocking(w.fileno(), False)
    return lambda: os.write(w.fileno(), b"hello"), None


@scenes(failure(OSError, errno.EBADF), parks=False)
def write_the_wrong_end(stack: ExitStack) -> Stage:
    r, _ = pipe(stack)
    return lambda: os.write(r.fileno(), b"hello"), None


@scenes(failure(OSError, errno.ENOSPC), parks=False)
def write_full_device(stack: ExitStack) -> Stage:
    file = stack.enter_context(open("/dev/full", "wb", 0))
    return lambda: os.write(file.fileno(), b"hello"), None


@scenes((MUCH, MUCH), parks=False)
def write_regular(stack: ExitStack) -> Stage:
    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
    fd = file.fileno()
    return lambda: (os.write(fd, bytes(MUCH)), os.fstat(fd).st_size), None


# ---- copying -------------------------------------------------------------------------------------


def _regular(stack: ExitStack, n: int) -> int:
    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
    file.write(bytes(n))
    file.seek(0)
    return int(file.fileno())


@scenes(100)
def sendfile(stack: ExitStack) -> Stage:
    a, b = socket.socketpair()
    stack.enter_context(a), stack.enter_context(b)
    a.setblocking(False)
    n = 0
    try:
        while True:
            n += a.send(bytes(1 << 12))
    except BlockingIOError:
        a.setblocking(True)
    source = _regular(stack, 100)
    return lambda: os.sendfile(a.fileno(), source, 0, 1000), lambda: drain(b, n)


@scenes(100)
def splice_to_a_full_pipe(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    n = fill(w)
    source = _regular(stack, 100)
    return lambda: os.splice(source, w.fileno(), 1000), lambda: drain(r, n)


@scenes(5, parks=False)
def splice_ready(stack: ExitStack) -> Stage:
    r, w = pipe(stack)
    _, out = pipe(stack)
    w.write(b"hello")
    return lambda: os.splice(r.fileno(), out.fileno(), 100), None


# ---- in every position ---------------------------------------------------------------------------


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


@scenes.waking()
def test_a_signal_in_between(scene: Scene) -> None:
    assert interrupted(scene.build) == scene.expected


@scenes.cancellable()
def test_cancelled(scene: Scene) -> None:
    cancelled(scene)


@scenes.partial()
def test_a_cancel_waits_until_it_is_known_what_is_done(scene: Scene) -> None:
    with ExitStack() as stack:
        call, _ = scene.build(stack)
        results: list[int] = []

        def body() -> None:
            results.append(call())
            gmprt.sleep(3600)

        g = go(body)
        parked(g, "IO wait")
        g.cancel()
        with pytest.raises(gmprt.GoroutineCancelled):
            g.result(PATIENCE)
    assert 0 < results[0] < MUCH


@pytest.mark.parametrize("build", [read_pipe, file_read, buffered_read, write_pipe])
def test_a_handler_that_raises_ends_a_call(build: Any) -> None:
    assert broken_off(build) == failure(Bell)


# ---- many ----------------------------------------------------------------------------------------


def test_small_writes_are_not_torn(procs: int) -> None:
    """Up to PIPE_BUF a write to a pipe is one piece, whoever else writes; so is a writev."""
    n, turns, size = 20, 20, select.PIPE_BUF
    with ExitStack() as stack:
        r, w = pipe(stack)

        def write(i: int) -> None:
            message = bytes([i]) * size
            for turn in range(turns):
                if turn % 2:
                    assert os.write(w.fileno(), message) == size
                else:
                    assert os.writev(w.fileno(), [message[:100], message[100:]]) == size

        def read() -> set[bytes]:
            seen = set()
            for _ in range(n * turns):
                message = b""
                while len(message) < size:
                    message += os.read(r.fileno(), size - len(message))
                seen.add(message)
            return seen

        reader = go(read)
        ended(*[mixed(0 if i % 5 else 1, write, i) for i in range(n)])
        assert reader.result(PATIENCE) == {bytes([i]) * size for i in range(n)}


def test_many_pipes(procs: int) -> None:
    """A chain of goroutines, each with a pipe to the next."""
    threads = gmprt.stats().threads
    with ExitStack() as stack:
        pipes = [pipe(stack) for _ in range(200)]

        def relay(i: int) -> None:
            while data := os.read(pipes[i][0].fileno(), 100):
                os.write(pipes[i + 1][1].fileno(), data)
            pipes[i + 1][1].close()

        relays = [go(relay, i) for i in range(199)]
        for turn in range(20):
            os.write(pipes[0][1].fileno(), b"%d" % turn)
            assert os.read(pipes[-1][0].fileno(), 100) == b"%d" % turn
        pipes[0][1].close()
        ended(*relays)
    assert gmprt.stats().threads <= threads + 10


# ---- what blocks its thread ----------------------------------------------------------------------


def _others_go_on() -> None:
    for _ in range(3):
        assert go(int).join(PATIENCE)


def test_flock_waits_and_the_others_go_on(procs: int, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as ours, open(path, "w") as theirs:
        fcntl.flock(ours, fcntl.LOCK_EX)
        g = go(fcntl.flock, theirs, fcntl.LOCK_EX)
        eventually(lambda: g.state == "syscall")
        _others_go_on()
        fcntl.flock(ours, fcntl.LOCK_UN)
        assert g.result(PATIENCE) is None
        with pytest.raises(BlockingIOError):
            go(fcntl.flock, ours, fcntl.LOCK_EX | fcntl.LOCK_NB).result(PATIENCE)


HOLD = """
    import fcntl, sys
    file = open(sys.argv[1], "r+")
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lockf_waits_for_another_process(procs: int, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    code = "\n".join(line.strip() for line in HOLD.splitlines())
    with (
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder,
        open(path, "r+") as ours,
    ):
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == b"held\n"
        g = go(fcntl.lockf, ours, fcntl.LOCK_EX)
        eventually(lambda: g.state == "syscall")
        _others_go_on()
        holder.stdin.close()
        assert g.result(PATIENCE) is None


def test_open_of_a_fifo_waits_for_the_other_end(procs: int, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    g = go(os.open, path, os.O_RDONLY)
    eventually(lambda: g.state == "syscall")
    _others_go_on()
    w = os.open(path, os.O_WRONLY)
    r = g.result(PATIENCE)
    os.write(w, b"x")
    assert os.read(r, 1) == b"x"
    os.close(r)
    os.close(w)


def test_files_of_many(procs: int, tmp_path: Path) -> None:
    """Written, synchronised and read side by side."""

    def work(i: int) -> bool:
        path = tmp_path / str(i)
        content = bytes([i]) * (1 << 18)
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return path.read_bytes() == content

    assert all(g.result(PATIENCE) for g in [go(work, i) for i in range(50)])


@pytest.mark.parametrize("n", [1 << 70, -1 << 70])
def test_numbers_beyond_any_file(n: int, tmp_path: Path) -> None:
    """Positions in a text are not offsets: a decoder's state is in them."""
    path = tmp_path / "text"
    path.write_text("abc")

    def seek() -> object:
        with open(path) as file:
            try:
                return file.seek(n)
            except ValueError as error:
                return str(error)

    assert go(seek).result(PATIENCE) == seek()


THIEF = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* The first time, somebody else takes what the source has, and perhaps puts it back. */
ssize_t splice(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags) {
  static int taken;
  char all[4096];
  ssize_t some = taken++ ? 0 : read(in, all, sizeof all);
  ssize_t (*real)(int, off_t *, int, off_t *, size_t, unsigned) = dlsym(RTLD_NEXT, "splice");
  ssize_t r = real(in, inoff, out, outoff, n, flags);
  char *back = getenv("THIEF_FEED");
  if (some > 0 && back && write(atoi(back), all, (size_t)some) != some) _exit(3);
  return r;
}
"""


@pytest.fixture(scope="module")
def thief(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("thief") / "thief.so"
    cc = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-shared", "-fPIC", "-x", "c", "-"]
    subprocess.run([*cc, "-o", str(path), "-ldl"], input=THIEF, text=True, check=True)
    return str(path)


def test_splice_from_a_source_that_somebody_else_has_emptied(thief: str) -> None:
    """It waits for the source: the sink, which is ready, would never tell."""
    done = run_child(
        """
import os
import gmprt

def main():
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.write(feed, b"first")
    g = gmprt.go(os.splice, source, sink, 100)
    while g.state != "syscall":
        assert g.state != "waiting", g.wait_reason
        gmprt.sleep(0.001)
    os.write(feed, b"second")
    assert g.result() == 6 and os.read(drain, 100) == b"second"

gmprt.run(main)
""",
        env={"LD_PRELOAD": thief},
    )
    assert not done.stderr


def test_splice_from_a_source_that_somebody_else_has_filled_again(thief: str) -> None:
    """There is something in the source, so it was taken for the sink that has no room."""
    done = run_child(
        """
import os
import gmprt

def main():
    source, feed = os.pipe()
    drain, sink = os.pipe()
    # The poller has told of the sink before, and does not again.
    writer = gmprt.go(os.write, sink, bytes(1 << 17))
    reader = gmprt.go(os.read, source, 1)
    while not writer.state == reader.state == "waiting":
        gmprt.sleep(0.001)
    got = 0
    while got < 1 << 17:
        got += len(os.read(drain, 1 << 16))
    writer.result()
    os.write(feed, b"x")
    reader.result()  # events come in order: all are told now
    os.environ["THIEF_FEED"] = str(feed)
    os.write(feed, b"first")
    g = gmprt.go(os.splice, source, sink, 100)
    while not g.done():
        assert g.state != "waiting", g.wait_reason
        gmprt.sleep(0.001)
    assert g.result() == 5 and os.read(drain, 100) == b"first"

gmprt.run(main)
""",
        env={"LD_PRELOAD": thief},
    )
    assert not done.stderr


def test_splice_from_a_non_blocking_pipe_does_not_wait_for_the_sink() -> None:
    """From pipe to pipe one that is non-blocking is enough."""
    with ExitStack() as stack:
        r, w = pipe(stack)
        drained, sink = pipe(stack)
        n = fill(sink)
        w.write(b"hello")
        os.set_blocking(r.fileno(), False)

        def splices() -> object:
            try:
                return os.splice(r.fileno(), sink.fileno(), 100)
            except BlockingIOError as error:
                return error.errno

        g = go(splices)
        eventually(lambda: g.done() or g.state == "waiting")
        assert g.state != "waiting", g.wait_reason
        assert g.result() == errno.EAGAIN
        assert drain(drained, n) == n
        assert go(splices).result(PATIENCE) == 5


# ---- kernels whose pipes know no RWF_NOWAIT (before Linux 6.4), emulators without the call -------

NO_FLAG = """
#include <errno.h>
#include <sys/uio.h>
static ssize_t refuse(void) { errno = EOPNOTSUPP; return -1; }
typedef const struct iovec *vec;
ssize_t pwritev2(int fd, vec iov, int n, off_t at, int flags) { return refuse(); }
ssize_t preadv2(int fd, vec iov, int n, off_t at, int flags) { return refuse(); }
"""


def test_pipes_that_know_no_flag(tmp_path: Path) -> None:
    """Who writes more than a pipe holds parks, and keeps no thread."""
    library = tmp_path / "no_flag.so"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    command = [*compiler, "-w", "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
    subprocess.run(command, input=NO_FLAG.encode(), check=True)
    run_child(
        """
        import os, gmprt

        def main():
            r, w = os.pipe()
            data = os.urandom(1 << 20)
            writer = gmprt.go(os.write, w, data)
            while writer.state != "waiting":
                gmprt.gosched()
            assert writer.wait_reason == "IO wait", writer.wait_reason
            got = b""
            while len(got) < len(data):
                got += os.read(r, 1 << 16)
            assert got == data and writer.result() == len(data)

        gmprt.run(main)
        """,
        env={"LD_PRELOAD": str(library)},
    )
