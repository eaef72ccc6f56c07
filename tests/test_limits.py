"""At a limit of the system go() raises, nothing leaks, and the others go on.

When it is lifted go() works again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import EMULATOR, PATIENCE, not_emulated, run_child

COMMON = f"""
import ctypes, mmap, os, resource, sys, threading, time
import gmprt
from gmprt import Chan, go

PATIENCE = {PATIENCE}
SLOT = 20 if sys.version_info < (3, 14) else 10  # MiB, of a stack
libc = ctypes.CDLL(None, use_errno=True)

def lines(path):
    with open(path) as f:
        return sum(1 for _ in f)

def held():
    '''Descriptors, threads, mappings, kilobytes of memory.'''
    with open("/proc/self/statm") as f:
        pages = int(f.read().split()[1])
    fds, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    return fds, threads, lines("/proc/self/maps"), pages * 4

def not_more(after, before):
    assert after[:2] == before[:2], (before, after)
    assert after[2] < before[2] + 20 and after[3] < before[3] + 2500, (before, after)

def refused(times, error=(MemoryError, gmprt.TooManyThreads)):
    for _ in range(times):
        try:
            go(int)
        except error:
            continue
        raise AssertionError("started")

def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

class Crowd:
    '''Goroutines that wait.'''
    def __init__(self):
        self.gate, self.members = Chan(), []

    def add(self, n):
        for _ in range(n):
            self.members.append(go(self.gate.recv))

    def parked(self):
        eventually(lambda: all(g.state == "waiting" for g in self.members))

    def fill(self, most):
        '''Until one is refused.'''
        try:
            self.add(most)
        except MemoryError:
            return
        raise AssertionError(f"{{most}} fit")

    def ends(self):
        for i in range(len(self.members)):
            self.gate.send(i)
        assert sorted(g.result(PATIENCE) for g in self.members) == list(range(len(self.members)))
        self.members.clear()
"""

# ---- address space -------------------------------------------------------------------------------

LATE = """
def limit(room):
    with open("/proc/self/statm") as f:
        pages = int(f.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (room << 20), -1))

def lift():
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
"""


@pytest.mark.parametrize("room", [100, 700, 3000])
@not_emulated("the address space that is limited is the emulator's")
def test_address_space_limited_late(room: int) -> None:
    """It is used up in large pieces, then in small ones."""
    code = f"""
crowd = Crowd()
crowd.add(10)
limit({room})
crowd.fill(10_000)
# 256 had been reserved.
assert len(crowd.members) >= 250 + 0.7 * {room} / SLOT, len(crowd.members)
assert gmprt.num_goroutine() == len(crowd.members)
crowd.parked()
refused(100)
before = held()
refused(10_000)
after = held()
not_more(after, before)
lift()
crowd.add(600)
crowd.ends()
"""
    run_child(COMMON + LATE + code)


@not_emulated("the address space that is limited is the emulator's")
def test_address_space_that_is_scarce_is_taken_in_small_pieces() -> None:
    """What is left of it belongs to the program."""
    code = """
go(int).join()
crowd = Crowd()
crowd.add(250)
limit(2500)
before = gmprt.stats().stack_reserved
crowd.add(20)
assert gmprt.stats().stack_reserved - before <= 32 * SLOT << 20
mmap.mmap(-1, 1 << 30).close()
lift()
crowd.ends()
"""
    run_child(COMMON + LATE + code)


BEFORE = """
import os, resource, sys
if resource.getrlimit(resource.RLIMIT_AS)[0] != LIMIT << 20:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT << 20, -1))
    os.execv(sys.executable, sys.orig_argv)
"""


@pytest.mark.parametrize(
    ("limit", "least"),
    [(600, 200), (2000, 1000)],
    ids=str,
)
@not_emulated("the address space that is limited is the emulator's")
def test_address_space_limited_before_the_start(limit: int, least: int) -> None:
    """ulimit -v, in MiB: stacks are smaller, and there is room for many."""
    code = f"""
crowd = Crowd()
crowd.fill(10_000)
assert len(crowd.members) >= {least}, len(crowd.members)
refused(1000)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
crowd.add(500)
crowd.ends()
"""
    run_child(f"LIMIT = {limit}\n" + BEFORE + COMMON + code)


@not_emulated("the address space that is limited is the emulator's")
def test_a_limit_that_leaves_room_leaves_stacks_as_they_are() -> None:
    """128 GiB: as deep as where there is no limit."""
    code = """
import json
deep = 400 if hasattr(sys, "gettotalrefcount") else 900  # a debug build of 3.13 allows for 500
text = "[" * deep + "]" * deep
assert go(lambda: len(json.dumps(json.loads(text)))).result(PATIENCE) == 2 * deep
go(int).join()
assert gmprt.stats().stack_reserved >= 16 * SLOT << 20
"""
    run_child("LIMIT = 128 << 10\n" + BEFORE + COMMON + code)


# ---- threads -------------------------------------------------------------------------------------

NOBODY = """
from gmprt._life import activate  # what the first go() imports: nobody may not read it, perhaps
gmprt.stats()
if os.getuid() == 0:  # whom no such limit holds
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: or /proc/self is root's
_, most = resource.getrlimit(resource.RLIMIT_NPROC)

def limit():
    resource.setrlimit(resource.RLIMIT_NPROC, (1, most))

def lift():
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
"""

CGROUP = """
folder = sys.argv[1]

def write(name, text):
    with open(f"{folder}/{name}", "w") as f:
        f.write(str(text))

write("cgroup.procs", os.getpid())

def limit():
    write("pids.max", len(os.listdir("/proc/self/task")))

def lift():
    write("pids.max", "max")
"""


def _cgroups(controller: str) -> Path | None:
    """Where groups with a limit of that can be made: of v2, or of v1."""
    root = Path("/sys/fs/cgroup")
    controllers = root / "cgroup.subtree_control"
    if controllers.exists() and controller in controllers.read_text().split():
        where = root
    else:
        where = root / controller
    may = os.getuid() == 0 and (where / "cgroup.procs").exists() and os.access(where, os.W_OK)
    return where if may else None


@contextmanager
def _cgroup(controller: str, what: str) -> Iterator[Path]:
    where = _cgroups(controller)
    if where is None:
        pytest.skip(f"no cgroup that limits {what} can be made")
    folder = where / f"gmprt-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


@pytest.fixture(params=["RLIMIT_NPROC", "cgroup"])
def few_threads(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[str]]]:
    """Code with limit() and lift(), and the arguments that it wants."""
    if EMULATOR:
        pytest.skip("the emulator has threads of its own")
    if request.param == "RLIMIT_NPROC":
        yield NOBODY, []
        return
    with _cgroup("pids", "threads") as folder:
        yield CGROUP, [str(folder)]


def test_no_threads_to_start_with(few_threads: tuple[str, list[str]]) -> None:
    limiter, args = few_threads
    code = """
limit()
refused(1, gmprt.TooManyThreads)
before = held()
refused(300, gmprt.TooManyThreads)  # glibc 2.43 itself loses a page each time
after = held()
not_more(after, before)
try:
    gmprt.run(int)
except gmprt.TooManyThreads:
    pass
else:
    raise AssertionError("no thread was needed")
lift()
assert gmprt.run(lambda: go(int, "7").result()) == 7
"""
    run_child(COMMON + limiter + code, args=args)


def test_no_more_threads(few_threads: tuple[str, list[str]]) -> None:
    """Goroutines go on with those that there are; who blocks one keeps others waiting, no more."""
    limiter, args = few_threads
    code = """
gmprt.gomaxprocs(2)
crowd = Crowd()
crowd.add(10)
crowd.parked()
limit()
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise AssertionError("a thread from nowhere")
crowd.add(1000)
blocked = [go(libc.usleep, 100_000) for _ in range(5)]  # each wants a thread
assert [g.result(PATIENCE) for g in blocked] == [0] * 5
crowd.ends()
lift()
before = gmprt.stats().threads_started
entered, (r, w) = Chan(), os.pipe()
def blocks():
    entered.send(None)
    libc.read(r, ctypes.create_string_buffer(1), 1)
blocked = [go(blocks) for _ in range(10)]  # all at once: each gets one
for _ in blocked:
    entered.recv(timeout=PATIENCE)
assert go(int, "7").result(PATIENCE) == 7
os.write(w, b"x" * 10)
for g in blocked:
    g.result(PATIENCE)
assert gmprt.stats().threads_started > before
"""
    run_child(COMMON + limiter + code, args=args)


# ---- a cgroup's memory ---------------------------------------------------------------------------

IN_THE_GROUP = """
with open(f"{sys.argv[1]}/cgroup.procs", "w") as f:
    f.write(str(os.getpid()))
"""


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A group that may have 64 MiB, and no swap."""
    if EMULATOR:
        pytest.skip("the emulator has memory of its own")
    with _cgroup("memory", "memory") as folder:
        v2 = folder / "memory.max"
        (v2 if v2.exists() else folder / "memory.limit_in_bytes").write_text(str(64 << 20))
        for name, least in [("memory.swap.max", "0"), ("memory.swappiness", "0")]:
            if (folder / name).exists():
                (folder / name).write_text(least)
        yield folder


def _killed_for_memory(group: Path) -> int:
    v2 = group / "memory.events"
    text = (v2 if v2.exists() else group / "memory.oom_control").read_text()
    return int(dict(line.split() for line in text.splitlines())["oom_kill"])


def test_who_takes_more_than_its_group_may_have_is_killed(little_memory: Path) -> None:
    """No call fails: memory is refused when it is touched, and there the kernel can only kill."""
    code = """
crowd = Crowd()
print("begins", flush=True)
crowd.add(200_000)  # asleep, too, they take more
crowd.parked()
print("has them", flush=True)
"""
    done = run_child(COMMON + IN_THE_GROUP + code, args=[str(little_memory)], status=-9)
    assert (done.stdout, done.stderr) == ("begins\n", "")
    assert _killed_for_memory(little_memory) == 1


def test_a_crowd_sleeps_the_sooner_the_less_memory_there_is(little_memory: Path) -> None:
    """Its stacks would not fit, neither at the same time nor in the pool when all have ended."""
    code = """
N = 6_000
crowd = Crowd()
while len(crowd.members) < N:
    crowd.add(500)
    eventually(lambda: gmprt.stats().hibernating == len(crowd.members))

def few_are_kept():
    go(int).join()  # whoever ends looks at the pool
    return gmprt.stats().stacks_committed < 1000

for left in range(N - 500, -1, -500):
    for _ in range(500):
        crowd.gate.send(None)
    eventually(lambda: gmprt.num_goroutine() == left)
    eventually(few_are_kept)
"""
    run_child(COMMON + IN_THE_GROUP + code, args=[str(little_memory)])
    assert _killed_for_memory(little_memory) == 0


# ---- mappings ------------------------------------------------------------------------------------

OLD_KERNEL = """
# As before Linux 6.13: madvise knows no guards, so each costs mappings.
import struct
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]

def refuse_guards():
    number = {"x86_64": 28, "aarch64": 233}[os.uname().machine]
    words = [
        (0x20, 0, 0, 0), (0x15, 0, 3, number),  # madvise?
        (0x20, 0, 0, 32), (0x15, 0, 1, 102),    # MADV_GUARD_INSTALL?
        (0x06, 0, 0, 0x50016), (0x06, 0, 0, 0x7FFF0000),  # EINVAL; all else goes through
    ]
    code = b"".join(struct.pack("HBBI", *word) for word in words)
    program = Program(len(words), code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
@not_emulated("no seccomp")
@pytest.mark.parametrize("old_kernel", [False, True], ids=["", "old kernel"])
def test_mappings_that_the_program_uses(old_kernel: bool) -> None:
    """What is left of vm.max_map_count is the program's: guards take nothing of it."""
    code = f"""
if {old_kernel}:
    refuse_guards()
with open("/proc/sys/vm/max_map_count") as f:
    most = int(f.read())
if most > 300_000:
    sys.exit(0)  # would take too long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
size = most * 4096
at = libc.mmap(None, size, 3, 0x22, -1, 0)

def split(i):
    return libc.mprotect(at + i * 8192, 4096, 1) == 0  # two more

crowd = Crowd()
crowd.add(10)
crowd.parked()
used = (most - lines("/proc/self/maps") - 400) // 2
assert all(split(i) for i in range(used))
crowd.add(3000)
crowd.parked()
assert all(split(i) for i in range(used, used + 100)), lines("/proc/self/maps")
more = used + 100
while split(more):
    more += 1
try:
    crowd.add(100)  # none is left
except MemoryError:
    pass
libc.munmap(at, size)
crowd.ends()
crowd.add(2000)
crowd.ends()
"""
    run_child(COMMON + OLD_KERNEL + code)


# ---- memory --------------------------------------------------------------------------------------

DEEP = """
chain = iter([1] * 1000)
for _ in range(20_000):
    chain = map(abs, chain)

def deep():
    '''Megabytes of stack, by calls that nobody counts, and nothing else.'''
    next(chain)

def falls(to):
    '''It is given back in the background.'''
    eventually(lambda: held()[3] < to)

def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))

go(int).join()
low = peak()
go(deep).join()
assert peak() > low + 1000
crowd = Crowd()
crowd.add(100)
crowd.ends()
eventually(lambda: gmprt.num_goroutine() == 0)
"""


@pytest.mark.parametrize(
    "lives",
    ["waits", "waits for a lock", "ticks", "has ended", "is the main one"],
)
def test_a_deep_recursion_keeps_no_memory(lives: str) -> None:
    """Twenty goroutines, each of which needed more than a megabyte once."""
    code = {
        "waits": """
def work():
    deep()
    done.send(None)
    stop.recv_ok()
""",
        "waits for a lock": """
lock = threading.Lock()
lock.acquire()
def work():
    deep()
    done.send(None)
    with lock:
        pass
""",
        "ticks": """
def work():
    deep()
    done.send(None)
    while not stop.closed:
        time.sleep(0.02)
""",
        "has ended": """
def work():
    deep()
    done.send(None)
    held_back.recv_ok()
""",
        "is the main one": """
def work():
    done.send(None)
""",
    }[lives]
    end = {
        "has ended": "held_back.close()",
        "is the main one": "gmprt.run(main)",
    }.get(lives, "pass")
    code += f"""
done, stop, held_back = Chan(20), Chan(), Chan()
def main():
    deep()
    time.sleep(0.1)
    falls(before + 6000)
before = held()[3]
workers = [go(work) for _ in range(20)]
for _ in workers:
    done.recv(timeout=PATIENCE)
{end}
falls(before + 6000)
stop.close()
if {lives!r} == "waits for a lock":
    lock.release()
for g in workers:
    g.result(PATIENCE)
"""
    run_child(COMMON + DEEP + code)
