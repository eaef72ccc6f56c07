"""csrc/base/ownfd.c, csrc/py/interpose/hooks/fd.c: the runtime's descriptors among those of the
program."""

from __future__ import annotations

import pytest
from support import run_child

PRELUDE = """
import ctypes, errno, os, resource, signal, socket, subprocess, sys, tempfile, threading, time
import gmprt

os.chdir(tempfile.mkdtemp())
libc = ctypes.CDLL(None, use_errno=True)

def numbers():
    return sorted(int(n) for n in os.listdir("/proc/self/fd"))

def own():
    '''Numbers that the runtime has opened.'''
    found = []
    for n in numbers():
        try:
            if "anon_inode" in os.readlink(f"/proc/self/fd/{n}"):
                found.append(n)
        except FileNotFoundError:  # that of the directory itself
            pass
    return found

def files():
    return [os.open(f"f{i}", os.O_RDWR | os.O_CREAT | os.O_TRUNC) for i in range(1500)][-1]

def untouched():
    for name in os.listdir("."):
        assert os.path.getsize(name) == 0, (name, open(name, "rb").read())

def works():
    '''All that the runtime needs a descriptor for.'''
    seen = []
    before = signal.signal(signal.SIGCONT, lambda *a: seen.append(1)) if main_thread() else None
    if main_thread():
        os.kill(os.getpid(), signal.SIGCONT)
        assert seen == [1]
        signal.signal(signal.SIGCONT, before)
    gmprt.go(gmprt.sleep, 0.01).join()
    a, b = socket.socketpair()
    with a, b:
        g = gmprt.go(a.recv, 5)
        gmprt.sleep(0.01)
        b.send(b"hello")
        assert g.result() == b"hello"
    ch = gmprt.Chan()
    t = threading.Thread(target=lambda: (time.sleep(0.02), ch.send(7)))
    t.start()
    assert ch.recv() == 7
    t.join()
    gmprt.lock_os_thread()
    gmprt.sleep(0.001)
    gmprt.unlock_os_thread()

def main_thread():
    return threading.current_thread() is threading.main_thread()

resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


def check(body: str, interpose: str = "1", timeout: float = 40) -> None:
    done = run_child(PRELUDE + body, env={"GMPRT_INTERPOSE": interpose}, timeout=timeout)
    assert done.stdout == "done\n", done.stderr


WAYS = {
    "closerange": "os.closerange(3, 100000)",
    "close": "[close(n) for n in range(3, 2000)]",
    "listed": "[close(n) for n in numbers() if n > 2]",
    "dup2": "null = os.open('/dev/null', os.O_RDWR); "
    "[os.dup2(null, n) for n in range(3, 1980) if n != null]; "
    "[close(n) for n in range(3, 1980)]",
    "dup2, own": "null = os.open('/dev/null', os.O_RDWR); [os.dup2(null, n) for n in own() * 3]",
    "unseen close": "[libc.close(n) for n in own()]",
    "unseen closefrom": "libc.closefrom(3)",
    "unseen dup2": "null = os.open('/dev/null', os.O_RDWR); [libc.dup2(null, n) for n in own()]",
}
CLOSE = """
def close(n):
    try:
        os.close(n)
    except OSError as e:
        assert e.errno == errno.EBADF
"""


@pytest.mark.parametrize("interpose", ["1", "0"])
@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_closes_what_it_does_not_know(way: str, interpose: str) -> None:
    """As daemons do; then it opens files, and nobody but itself writes there."""
    body = f"""
def main():
    works()
    for _ in range(2):
        {WAYS[way]}
        files()
        works()
        untouched()
        [close(n) for n in range(3, 1600)]
        works()

gmprt.run(main)
gmprt.run(works)
works()
print("done")
"""
    check(CLOSE + body, interpose)


def test_a_wait_for_a_descriptor_finds_the_eventfd_closed() -> None:
    """Its deadline is the next, and he who sleeps in the poller is to hear of that.

    The lander has the descriptor's lock then, and a new poller wakes who waits for descriptors.
    """
    body = """
def main():
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    reader = gmprt.go(a.recv, 5)
    c.settimeout(0.05)
    slept = 0
    while slept < 2 or reader.state != "waiting":
        before = gmprt.stats().netpoll_waits
        gmprt.sleep(0.001)  # whoever sleeps in the poller goes on with this goroutine
        libc.usleep(1000)  # another M takes over, finds nothing to do, and sleeps there
        slept = gmprt.stats().netpoll_waits - before
    [libc.close(n) for n in own() if "eventfd" in os.readlink(f"/proc/self/fd/{n}")]
    try:
        c.recv(1)
    except TimeoutError:
        b.send(b"hello")
        assert reader.result() == b"hello"
        works()
        print("done")

gmprt.run(main)
"""
    check(body)


EVENTFDS = """
def eventfds():
    return [n for n in own() if "eventfd" in os.readlink(f"/proc/self/fd/{n}")]
"""
GIVEN = {
    "F_DUPFD": "fcntl.fcntl(mine, fcntl.F_DUPFD, n)",
    "F_DUPFD_CLOEXEC": "fcntl.fcntl(mine, fcntl.F_DUPFD_CLOEXEC, n)",
    "dup2": "os.dup2(mine, n)",
}


@pytest.mark.parametrize("way", GIVEN)
def test_an_eventfd_of_the_programs_at_the_number_of_one_that_it_has_closed(way: str) -> None:
    """They look the same, so nobody can see whose it is: the runtime hears of it."""
    body = f"""
import fcntl

def main():
    works()
    kept = []
    for n in eventfds():
        mine = os.eventfd(5, os.EFD_NONBLOCK)
        libc.close(n)
        assert {GIVEN[way]} == n
        kept.append(mine)
    assert kept
    works()
    assert [os.eventfd_read(mine) for mine in kept] == [5] * len(kept)

gmprt.run(main)
print("done")
"""
    check(EVENTFDS + body)


def test_as_if_they_were_not_open() -> None:
    body = """
def main():
    works()
    ours = own()
    assert len(ours) >= 3 and min(ours) > 100, ours
    for n in ours:
        try:
            os.close(n)
        except OSError as e:
            assert e.errno == errno.EBADF
        else:
            raise AssertionError(n)
    assert own() == ours

gmprt.run(main)
print("done")
"""
    check(body)


def test_a_daemon() -> None:
    """Twice forked, a session of its own, everything closed, 0, 1, 2 redirected; inside run()."""
    body = """
out = os.path.abspath("report")

def main():
    works()
    if os.fork() > 0:
        while not os.path.exists(out):
            gmprt.sleep(0.01)
        assert open(out).read() == "works [3] [0, 1, 2]", open(out).read()
        print("done")
        return
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.closerange(0, 2000)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    works()
    code = subprocess.run(["/bin/sh", "-c", "exit 3"]).returncode
    low = [n for n in numbers() if n < 3]
    with open(out + "+", "w") as f:
        f.write(f"works {[code]} {low}")
    os.rename(out + "+", out)

gmprt.run(main)
"""
    check(body)


@pytest.mark.parametrize("fork", ["os.fork", "subprocess", "posix_spawn"])
def test_children_close_everything(fork: str) -> None:
    """Between fork and exec nothing is kept: what the new program inherits is what it was given."""
    body = f"""
LIST = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])"

def spawn():
    r, w = os.pipe()
    os.set_inheritable(w, True)
    command = [sys.executable, "-S", "-c", LIST]
    if {fork!r} == "os.fork":
        pid = os.fork()
        if pid == 0:
            os.dup2(w, 1)
            os.closerange(3, 2000)
            os.execv(sys.executable, command)
        os.waitpid(pid, 0)
    elif {fork!r} == "subprocess":
        subprocess.run(command, stdout=w, close_fds=True, check=True)
    else:
        pid = os.posix_spawn(sys.executable, command, os.environ,
                             file_actions=[(os.POSIX_SPAWN_DUP2, w, 1), (os.POSIX_SPAWN_CLOSE, w)])
        os.waitpid(pid, 0)
    os.close(w)
    text = os.read(r, 999).decode()
    os.close(r)
    assert text.strip() == "[0, 1, 2]", text

def main():
    works()
    for _ in range(5):
        spawn()
    gmprt.go(spawn).result()
    works()

gmprt.run(main)
spawn()
print("done")
"""
    check(body)


def test_a_range_without_end_is_quick() -> None:
    """The limit of descriptors may be a thousand million."""
    body = """
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

def main():
    works()
    begin = time.process_time()
    for _ in range(1000):
        os.closerange(1000, 0x7FFFFFFF)
    assert time.process_time() - begin < 10

gmprt.run(main)
works()
print("done")
"""
    check(body)


def test_few_descriptors() -> None:
    body = """
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
def main():
    works()
    os.closerange(3, 24)
    works()
gmprt.run(main)
print("done")
"""
    check(body)
