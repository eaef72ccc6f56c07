"""gmprt.native: C functions as goroutines, and channels of C values between C and Python."""

from __future__ import annotations

import copy
import gc
import math
import os
import pickle
import shlex
import subprocess
import sysconfig
import threading
import weakref
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cffi
import pytest
from support import PATIENCE, Spawn, Thread, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import go, native

Where = Callable[[Callable[[], Any]], Any]

ffi = cffi.FFI()
ffi.cdef("""
    typedef struct { uint64_t lock; uint32_t state, pad; void *waiters[2]; } gm_mutex;
    typedef struct { uint64_t lock; uint32_t value, pad; void *waiters[2]; } gm_sema;
    typedef struct job {
      void *in, *out; int64_t n, sum; gm_mutex mutex; gm_sema sema; int fd;
    } job;
    void probe_init(const void *api);
    void produce_many(void *); void consume_many(void *);
    void produce(void *); void square(void *); void closer(void *); void echo(void *);
    void sleeper(void *); void count(void *); void block(void *); void spin(void *);
    void selects(void *); void reads(void *); void tree(void *); void forest(void *);
""")


class Probe:
    """tests/native_probe.c, compiled and loaded."""

    def __init__(self, library: Path) -> None:
        self._lib = ffi.dlopen(str(library))
        self._lib.probe_init(ffi.cast("void *", native.api_pointer()))
        self._kept: list[Any] = []

    def go(self, name: str, **fields: Any) -> Any:
        """Start the function on a new job; keeps alive what C uses."""
        job = ffi.new("job *")
        for key, value in fields.items():
            if isinstance(value, native.NativeChan):
                self._kept.append(value)
                value = ffi.cast("void *", int(native.ffi.cast("uintptr_t", value.ptr)))
            setattr(job, key, value)
        self.start(name, job)
        return job

    def start(self, name: str, job: Any) -> None:
        self._kept.append(job)
        native.go(self.pointer(name), native.ffi.cast("void *", int(ffi.cast("uintptr_t", job))))

    def pointer(self, name: str) -> Any:
        address = int(ffi.cast("uintptr_t", ffi.addressof(self._lib, name)))
        return native.ffi.cast("void (*)(void *)", address)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("native_probe.c")
    target = tmp_path_factory.mktemp("native") / "probe.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    subprocess.run(
        [*compiler[:1], "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         f"-I{native.include_dir()}", str(source), "-o", str(target)],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture
def probe(library: Path) -> Iterator[Probe]:
    """Native goroutines must end before what they use is freed."""
    probe = Probe(library)
    yield probe
    eventually(lambda: gmprt.num_goroutine() == 0, "native goroutines end")


def int_chan(capacity: int = 0) -> native.NativeChan:
    return native.chan("int64_t", capacity)


# ---- goroutines of C functions -----------------------------------------------------------------


def test_from_c_to_python(where: Where, probe: Probe) -> None:
    def body() -> None:
        for capacity in (0, 1, 16):
            out = int_chan(capacity)
            probe.go("produce", out=out, n=200)
            assert list(out) == list(range(200))

    where(body)


def test_from_python_to_c_and_back(where: Where, spawn: Spawn, probe: Probe) -> None:
    def body() -> None:
        there, back = int_chan(), int_chan()
        probe.go("echo", **{"in": there, "out": back})
        for i in range(200):
            there.send(i)
            assert back.recv() == i + 1
        there.close()
        assert back.recv_ok() == (None, False)

    where(body)


def test_arrays_from_c_to_python_and_back(where: Where, probe: Probe) -> None:
    def body() -> None:
        for capacity in (0, 7, 1000):
            out, block, got = int_chan(capacity), array("q", bytes(8 * 150)), array("q")
            probe.go("produce_many", out=out, n=2020)
            while len(got) < 2020:
                got += block[: out.recv_into(block, timeout=PATIENCE)]
            assert got.tolist() == list(range(2020))
            with pytest.raises(gmprt.EndOfChannel):
                out.recv_into(block, timeout=PATIENCE)
            there, answer = int_chan(capacity), int_chan()
            probe.go("consume_many", **{"in": there, "out": answer})
            with there:
                assert there.send_from(got) == 2020
            assert [answer.recv(timeout=PATIENCE) for _ in range(3)] == [2020, sum(got), 1]

    where(body)


def test_a_pipeline_in_c(probe: Probe, procs: int) -> None:
    source, squares = int_chan(4), int_chan(4)
    job = probe.go("square", **{"in": source, "out": squares})
    for _ in range(3):
        probe.start("square", job)
    job.n = 4
    probe.start("closer", job)
    probe.go("produce", out=source, n=1000)
    assert sorted(squares) == [i * i for i in range(1000)]


def test_sleep_in_c(probe: Probe) -> None:
    out = int_chan(10)
    for ms in range(10):
        probe.go("sleeper", out=out, n=ms * 1_000_000)
    took = sorted(out.recv(timeout=PATIENCE) for _ in range(10))
    assert all(t >= ms * 1_000_000 for ms, t in enumerate(took))


def test_mutex_and_semaphore_in_c(probe: Probe, procs: int) -> None:
    job = probe.go("count", n=2000)
    for _ in range(7):
        probe.start("count", job)
    eventually(lambda: job.sema.value == 8)
    assert job.sum == 16000


def test_blocking_in_c(probe: Probe, procs: int) -> None:
    """Announced blocking calls run side by side, and Python goes on."""
    import time

    out = int_chan(20)
    begun = time.monotonic()
    for _ in range(20):
        probe.go("block", out=out, n=1_000_000)
    turns = 0
    while len(out) < 20:
        gmprt.sleep(0.001)
        turns += 1
    assert time.monotonic() - begun < 10, "one after the other would be 20 s"
    assert turns > 10
    assert len({out.recv() for _ in range(20)}) == 20, "ids are unique"


def test_select_in_c(probe: Probe) -> None:
    inward, out = int_chan(), int_chan()
    probe.go("selects", **{"in": inward, "out": out, "n": 1_000_000})
    assert out.recv() == -1
    probe.go("selects", **{"in": inward, "out": out, "n": -1})
    inward.send(7)
    assert out.recv() == 7


def test_descriptors_in_c(probe: Probe) -> None:
    r, w = os.pipe()
    out = int_chan()
    probe.go("reads", out=out, fd=r)
    for part in (b"hello", b", ", b"native world, a little longer than sixteen bytes"):
        os.write(w, part)
        assert bytes(out.recv(timeout=PATIENCE) for _ in part) == part
    os.close(w)
    assert out.recv_ok(timeout=PATIENCE) == (None, False)
    os.close(r)


def test_c_starts_goroutines(probe: Probe, procs: int) -> None:
    out = int_chan()
    probe.go("forest", out=out, n=12)
    assert out.recv(timeout=PATIENCE) == 1 << 12


def test_python_and_native_share_the_processors(probe: Probe, procs: int) -> None:
    """Native goroutines that compute do not keep Python's from running, nor the other way."""
    out = int_chan(8)
    stop = False
    turns = 0

    def python() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            gmprt.gosched()

    g = go(python)
    for _ in range(8):
        probe.go("spin", out=out, n=5_000_000)
    rounds = 0
    while turns < 100 or rounds < 8:  # there are always eight
        assert out.recv(timeout=PATIENCE) == 1
        probe.go("spin", out=out, n=5_000_000)
        rounds += 1
        assert rounds < 10_000, "Python's does not get its turn"
    assert [out.recv(timeout=PATIENCE) for _ in range(8)] == [1] * 8
    stop = True
    ended(g)


def test_native_ones_are_counted(probe: Probe) -> None:
    gate, out = int_chan(), int_chan()
    for _ in range(5):
        probe.go("echo", **{"in": gate, "out": out})
    eventually(lambda: gmprt.stats().waiting == 5)
    assert gmprt.num_goroutine() == 5
    assert gmprt.debug.goroutines() == [], "they have no handles"
    gate.close()
    eventually(lambda: gmprt.num_goroutine() == 0)


def test_from_threads_and_goroutines(probe: Probe, procs: int) -> None:
    def use(i: int) -> int:
        out = int_chan(i % 3)
        probe.go("produce", out=out, n=100)
        return sum(out)

    assert [t.result(PATIENCE) for t in [mixed(i, use, i) for i in range(10)]] == [4950] * 10


@pytest.mark.parametrize(
    "garbage",
    [None, print, 1, "produce", b"x", native.ffi.NULL, native.ffi.cast("void (*)(int)", 1)],
)
def test_go_of_garbage(garbage: Any) -> None:
    before = gmprt.num_goroutine()
    with pytest.raises(TypeError):
        native.go(garbage)
    assert gmprt.num_goroutine() == before


def test_go_with_a_garbage_argument(probe: Probe) -> None:
    for garbage in (1, "x", b"bytes", object(), native.ffi.cast("int", 1)):
        with pytest.raises(TypeError):
            native.go(probe.pointer("produce"), garbage)
    with pytest.raises(TypeError):
        native.go()  # type: ignore[call-arg]


def test_a_null_function() -> None:
    code = """
        from gmprt import native
        try:
            native.go(native.ffi.cast("void (*)(void *)", 0))
        except (TypeError, ValueError):
            print("refused")
    """
    assert run_child(code).stdout == "refused\n"


# ---- channels of C values ----------------------------------------------------------------------


def test_attributes() -> None:
    ch = native.chan("int32_t", 3)
    assert (ch.capacity, len(ch), ch.closed) == (3, 0, False)
    assert bool(ch)
    ch.send(1)
    assert len(ch) == 1
    assert "int32_t" in repr(ch)
    assert "1/3" in repr(ch)
    ch.close()
    assert ch.closed


def test_element_types() -> None:
    ch = native.chan("double", 1)
    ch.send(1.5)
    assert ch.recv() == 1.5
    small = native.chan("uint8_t", 1)
    for wrong, error in ((256, OverflowError), (-1, OverflowError), ("x", TypeError)):
        with pytest.raises(error):
            small.send(wrong)
    assert len(small) == 0
    small.send(255)
    assert small.recv() == 255
    pointers = native.chan("void *", 1)
    data = native.ffi.new("char[]", b"data")
    pointers.send(data)
    assert native.ffi.string(native.ffi.cast("char *", pointers.recv())) == b"data"
    arrays = native.chan("int[3]", 1)
    arrays.send([1, 2, 3])
    assert list(arrays.recv()) == [1, 2, 3]
    structs = native.chan(ffi.typeof("job"), 1)
    structs.send({"n": 7, "fd": 3})
    got = structs.recv()
    assert (got.n, got.fd) == (7, 3)


@pytest.mark.parametrize("ctype", [1, None, "no such type", "int[", object(), b"int"])
def test_what_is_no_type(ctype: Any) -> None:
    with pytest.raises(TypeError):
        native.chan(ctype)


@pytest.mark.parametrize("ctype", ["void", "char[65536]", "int[]", "int[0]"])
def test_types_without_a_usable_size(ctype: str) -> None:
    with pytest.raises(ValueError):
        native.chan(ctype)


def test_bad_capacities() -> None:
    for capacity in (-1, 2**63, 2**70):
        with pytest.raises((ValueError, MemoryError)):
            native.chan("int", capacity)
    with pytest.raises(MemoryError):
        native.chan("char[65535]", 2**46)
    for garbage in ("1", 1.0, None, []):
        with pytest.raises(TypeError, match=r"^chan\(\): capacity must"):
            native.chan("int", garbage)


def test_waiting_and_closing(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch = int_chan(1)
        with pytest.raises(gmprt.WouldBlock):
            ch.recv_nowait()
        ch.send_nowait(1)
        with pytest.raises(gmprt.WouldBlock):
            ch.send_nowait(2)
        for timeout in (0, 0.005):
            with pytest.raises(gmprt.Timeout):
                ch.send(2, timeout=timeout)
        t = spawn(ch.send, 2)
        assert [ch.recv(), ch.recv(timeout=PATIENCE)] == [1, 2]
        ended(t)
        for timeout in (0, 0.005):
            with pytest.raises(gmprt.Timeout):
                ch.recv(timeout=timeout)
        r = spawn(ch.recv)
        ch.send(3)
        assert r.result(PATIENCE) == 3
        ch.send(4)
        ch.close()
        assert ch.recv_ok() == (4, True)
        assert ch.recv_ok() == (None, False)
        assert list(ch) == []
        for call in (ch.recv, ch.recv_nowait):
            with pytest.raises(gmprt.EndOfChannel):
                call()
        for call in (lambda: ch.send(5), lambda: ch.send_nowait(5), ch.close):
            with pytest.raises(gmprt.ChannelClosed):
                call()

    where(body)


def test_with() -> None:
    with int_chan(1) as ch:
        ch.send(1)
    assert ch.closed
    assert list(ch) == [1]


def test_closed_by_c(probe: Probe) -> None:
    out = int_chan(1)
    probe.go("produce", out=out, n=1)
    assert list(out) == [0]
    assert out.closed
    with pytest.raises(gmprt.ChannelClosed):
        out.close()


def test_close_wakes_everybody() -> None:
    ch = int_chan()
    tasks = [mixed(i, ch.recv_ok) for i in range(6)]
    gmprt.sleep(0.01)
    ch.close()
    assert [t.result(PATIENCE) for t in tasks] == [(None, False)] * 6


# ---- waits of goroutines -----------------------------------------------------------------------


def test_waits_park() -> None:
    """They take no thread each; all end by the close."""
    ch = int_chan()

    def crowd(fn: Callable[[], Any], reason: str) -> list[gmprt.Goroutine[Any]]:
        goroutines = [go(fn) for _ in range(200)]
        for g in goroutines:
            parked(g, reason)
        return goroutines

    before = gmprt.stats().threads
    receivers = crowd(ch.recv_ok, "chan receive")
    assert gmprt.stats().threads < before + 10
    ch.close()
    assert [g.result(PATIENCE) for g in receivers] == [(None, False)] * 200

    ch = int_chan()
    senders = crowd(lambda: ch.send(1), "chan send")
    assert gmprt.stats().threads < before + 10
    ch.close()
    assert all(isinstance(g.exception(PATIENCE), gmprt.ChannelClosed) for g in senders)


def test_a_native_peer_wakes_those_who_park(probe: Probe, procs: int) -> None:
    ch = int_chan()
    goroutines = [go(ch.recv) for _ in range(100)]
    for g in goroutines:
        parked(g)
    probe.go("produce", out=ch, n=100)
    assert sorted(g.result(PATIENCE) for g in goroutines) == list(range(100))


def test_a_wait_is_cancelled() -> None:
    """At once, with the reason; the channel is as it was."""
    ch = int_chan()
    for wait in (ch.recv, lambda: ch.send(1)):
        g = go(wait)
        parked(g)
        g.cancel("why")
        with pytest.raises(gmprt.GoroutineCancelled, match="why"):
            g.result(PATIENCE)
    with pytest.raises(gmprt.WouldBlock):
        ch.recv_nowait()
    r = go(ch.recv)
    parked(r)
    ch.send_nowait(7)
    assert r.result(PATIENCE) == 7


def test_waits_time_out(procs: int) -> None:
    ch = int_chan()
    for wait in (lambda: ch.recv(timeout=0.01), lambda: ch.send(1, timeout=0.01)):
        goroutines = [go(wait) for _ in range(100)]
        assert all(isinstance(g.exception(PATIENCE), gmprt.Timeout) for g in goroutines)


def test_waits_for_nobody_are_a_deadlock() -> None:
    code = """
        import gmprt
        from gmprt import native
        try:
            gmprt.run(native.chan("int").recv)
        except gmprt.Deadlock as error:
            print(str(error).splitlines()[0])
    """
    assert run_child(code).stdout == "all goroutines are asleep - deadlock!\n"


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), ([], TypeError)],
)
def test_bad_timeouts(timeout: Any, error: type[Exception]) -> None:
    ch = int_chan(2)
    ch.send(1)
    for call in (lambda: ch.send(2, timeout=timeout), lambda: ch.recv(timeout=timeout)):
        with pytest.raises(error):
            call()
    assert len(ch) == 1


def test_many_to_many(procs: int) -> None:
    ch = int_chan(3)

    def produce(first: int) -> None:
        for i in range(first, first + 200):
            ch.send(i)

    consumers = [mixed(i, lambda: list(ch)) for i in range(4)]
    for t in [mixed(i, produce, 200 * i) for i in range(6)]:
        t.result(PATIENCE)
    ch.close()
    assert sorted(v for c in consumers for v in c.result(PATIENCE)) == list(range(1200))


def test_interrupted_waits_go_on() -> None:
    code = """
        import gmprt, signal
        from gmprt import native
        signal.signal(signal.SIGALRM, lambda n, f: ticks.append(1))
        ticks = []
        ch = native.chan("int", 0)
        def late():
            while len(ticks) < 20:
                gmprt.sleep(0.001)
            ch.send(7)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        gmprt.go(late)
        assert ch.recv() == 7
        ticks.clear()
        def main():
            gmprt.go(late)
            return ch.recv()
        assert gmprt.run(main) == 7
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_freed_with_its_last_reference() -> None:
    ch = int_chan(1000)
    ref, pointer = weakref.ref(ch), ch.ptr
    del ch
    gc.collect()
    assert ref() is None
    assert native.lib.gm_chan_cap(pointer) == 1000, "the pointer alone keeps it"


@pytest.mark.parametrize("what", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copies(what: Callable[[Any], Any]) -> None:
    """A copy would outlive what it points to."""
    with pytest.raises(TypeError, match="cannot copy or pickle 'NativeChan'"):
        what(native.chan("int", 1))


def test_the_header_and_the_table() -> None:
    assert Path(native.include_dir(), "gmprt.h").is_file()
    assert native.api_pointer() != 0
    version = native.ffi.cast("uint32_t *", native.api_pointer())[0]
    assert version == 1
    assert gmprt.native is native


def test_threads_run_native_goroutines(probe: Probe) -> None:
    """Started by a thread that then ends."""
    out = int_chan(5)

    def start() -> None:
        for _ in range(5):
            probe.go("sleeper", out=out, n=1000)

    t = Thread(start)
    ended(t)
    assert len([out.recv(timeout=PATIENCE) for _ in range(5)]) == 5
    assert threading.active_count() >= 1
