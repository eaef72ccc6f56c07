"""send_from and recv_into: many elements of a native channel, from and to arrays in memory.

What sync/chansome.c does, seen from Python: order, waits, ends, and what is left after them.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

import cffi
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import PATIENCE, Spawn, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import go, native

Where = Callable[[Callable[[], Any]], Any]


def doubles(capacity: int = 0) -> native.NativeChan:
    return native.chan("double", capacity)


def ints(capacity: int = 0) -> native.NativeChan:
    return native.chan("int64_t", capacity)


def numbers(first: int, n: int) -> array[int]:
    return array("q", range(first, first + n))


def room(n: int) -> array[int]:
    return array("q", [-1]) * n


def take(ch: native.NativeChan, most: int, timeout: float | None = PATIENCE) -> list[int]:
    block = room(most)
    n = ch.recv_into(block, timeout=timeout)
    assert 1 <= n <= most
    assert block[n:].tolist() == [-1] * (most - n), "the rest is as it was"
    return block[:n].tolist()


# ---- what comes out is what went in ------------------------------------------------------------


def test_through_the_buffer(where: Where) -> None:
    def body() -> None:
        ch = doubles(6)
        assert ch.send_from(array("d", [0.5, 1.5])) == 2
        ch.send(2.5)
        assert ch.recv() == 0.5
        block = array("d", bytes(8 * 9))
        assert ch.recv_into(block) == 2
        assert block.tolist() == [1.5, 2.5] + [0.0] * 7
        assert ch.send_from(array("d")) == 0
        assert len(ch) == 0

    where(body)


@pytest.mark.parametrize("capacity", [0, 1, 3, 100, 5000])
def test_more_than_there_is_room_for(spawn: Spawn, capacity: int) -> None:
    ch = ints(capacity)
    t = spawn(ch.send_from, numbers(0, 3000))
    got: list[int] = []
    while len(got) < 3000:
        got += take(ch, 700)
    assert got == list(range(3000))
    assert t.result(PATIENCE) == 3000


@pytest.mark.parametrize("capacity", [0, 3, 100_000])
def test_large_blocks_go_in_several_steps(spawn: Spawn, capacity: int) -> None:
    """More than is copied under the lock at once."""
    ch = ints(capacity)
    t = spawn(ch.send_from, numbers(0, 100_000))
    got: list[int] = []
    while len(got) < 100_000:
        got += take(ch, 100_000)
    assert got == list(range(100_000))
    ended(t)


@pytest.mark.parametrize("capacity", [0, 2])
def test_large_elements(spawn: Spawn, capacity: int) -> None:
    """One is more than is copied under the lock at once."""
    ch = native.chan("char[60000]", capacity)
    sent = b"".join(bytes([i]) * 60000 for i in range(5))
    t = spawn(ch.send_from, sent)
    got, block = b"", bytearray(2 * 60000)
    while len(got) < len(sent):
        got += block[: 60000 * ch.recv_into(block, timeout=PATIENCE)]
    assert got == sent
    ended(t)


def test_single_operations_beside() -> None:
    ch = ints()
    g = go(ch.send_from, numbers(0, 4))
    assert [ch.recv(timeout=PATIENCE) for _ in range(4)] == [0, 1, 2, 3]
    assert g.result(PATIENCE) == 4
    g = go(take, ch, 9)
    parked(g, "chan receive")
    ch.send(7)
    assert g.result(PATIENCE) == [7]


def test_a_wait_ends_with_the_first_that_come() -> None:
    ch = ints()
    g = go(take, ch, 10)
    parked(g, "chan receive")
    assert ch.send_from(numbers(0, 6)) == 6
    assert g.result(PATIENCE) == list(range(6)), "the two of them had enough room"
    g = go(take, ch, 2)
    parked(g, "chan receive")
    h = go(ch.send_from, numbers(0, 5))
    assert g.result(PATIENCE) == [0, 1]
    parked(h, "chan send")
    assert take(ch, 2) + take(ch, 9) == [2, 3, 4]
    ended(h)


def test_waiters_take_turns() -> None:
    """Who has somebody behind it gets one, or parts with one."""
    ch = ints()
    receivers = []
    for _ in range(3):
        receivers.append(go(take, ch, 10))
        parked(receivers[-1], "chan receive")
    receivers[1].cancel()
    ended(receivers[1])
    assert ch.send_from(numbers(0, 5)) == 5
    assert receivers[0].result(PATIENCE) == [0]
    assert receivers[2].result(PATIENCE) == [1, 2, 3, 4]
    first = go(ch.send_from, numbers(0, 3))
    parked(first, "chan send")
    second = go(ch.send, 50)
    parked(second, "chan send")
    assert take(ch, 1) == [0]
    parked(first, "chan send")
    assert take(ch, 9) == [50, 1, 2]
    ended(first, second)


def test_a_full_buffer_and_senders_behind_it() -> None:
    ch = ints(4)
    ch.send_from(numbers(0, 4))
    senders = []
    for n in (4, 5, 6):
        senders.append(go(ch.send, n))
        parked(senders[-1], "chan send")
    senders.append(go(ch.send_from, numbers(7, 9)))
    parked(senders[-1], "chan send")
    assert take(ch, 3) == [0, 1, 2]
    ended(*senders[:3])
    assert (len(ch), senders[3].done()) == (4, False)
    assert take(ch, 100) == list(range(3, 16))
    assert senders[3].result(PATIENCE) == 9


# ---- ends: close, timeout, cancel --------------------------------------------------------------


def test_closed(where: Where, spawn: Spawn) -> None:
    def body() -> None:
        ch = ints(3)
        ch.send_from(numbers(0, 2))
        ch.close()
        with pytest.raises(gmprt.ChannelClosed) as caught:
            ch.send_from(numbers(2, 2))
        assert caught.value.sent == 0
        assert ch.send_from(room(0)) == 0
        assert take(ch, 9) == [0, 1]
        for timeout in (0, None):
            with pytest.raises(gmprt.EndOfChannel):
                ch.recv_into(room(9), timeout=timeout)

    where(body)


def test_closed_while_they_wait(spawn: Spawn) -> None:
    full = ints(2)
    t = spawn(full.send_from, numbers(0, 9))
    eventually(lambda: len(full) == 2)
    assert take(full, 1) == [0]
    eventually(lambda: len(full) == 2)
    full.close()
    with pytest.raises(gmprt.ChannelClosed) as caught:
        t.result(PATIENCE)
    assert caught.value.sent == 3
    assert take(full, 9) == [1, 2]
    empty = ints()
    block = room(4)
    r = spawn(empty.recv_into, block)
    gmprt.sleep(0.001)
    empty.close()
    with pytest.raises(gmprt.EndOfChannel):
        r.result(PATIENCE)
    assert block == room(4)


def test_timeouts_and_polls(where: Where) -> None:
    def body() -> None:
        ch = ints(2)
        for timeout in (0, 0.005):
            block = room(3)
            with pytest.raises(gmprt.Timeout):
                ch.recv_into(block, timeout=timeout)
            assert block == room(3)
            with pytest.raises(gmprt.Timeout) as caught:
                ch.send_from(numbers(0, 5), timeout=timeout)
            assert caught.value.sent == 2
            assert take(ch, 9, timeout=timeout) == [0, 1]
        assert ch.send_from(numbers(0, 2), timeout=0) == 2

    where(body)


def test_cancel_says_how_many_went() -> None:
    ch, sent = ints(3), []

    def sender() -> None:
        try:
            ch.send_from(numbers(0, 10))
        except gmprt.Cancelled as error:
            sent.append(error.sent)
            raise

    g = go(sender)
    parked(g, "chan send")
    assert ch.recv() == 0
    parked(g, "chan send")
    g.cancel()
    ended(g)
    assert sent == [4]
    assert take(ch, 99) == [1, 2, 3]
    block = room(5)
    r = go(ch.recv_into, block)
    parked(r, "chan receive")
    r.cancel()
    ended(r)
    ch.send(9)
    assert block == room(5)
    assert take(ch, 5) == [9]


def test_a_signal_in_between() -> None:
    """A handler runs in the middle, and the call goes on with what is left."""
    code = """
        import gmprt, signal
        from array import array
        from gmprt import native
        ticks = []
        signal.signal(signal.SIGALRM, lambda n, f: ticks.append(1))
        ch = native.chan("int64_t", 2)
        got = array("q")
        def late():
            block = array("q", bytes(8 * 3))
            while len(got) < 100:
                seen = len(ticks)
                while len(ticks) == seen:
                    gmprt.sleep(0.0005)
                n = ch.recv_into(block)
                got.extend(block[:n])
        def main():
            g = gmprt.go(late)
            assert ch.send_from(array("q", range(100))) == 100
            g.result()
            assert got.tolist() == list(range(100))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        gmprt.run(main)
        got = array("q")
        main()
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("done")
    """
    assert run_child(code).stdout == "done\n"


# ---- buffers -----------------------------------------------------------------------------------


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("id", ctypes.c_int64))


def test_buffers_of_all_kinds() -> None:
    ch = native.chan("uint8_t", 100)
    memory = mmap.mmap(-1, 4096)
    memory[:3] = b"abc"
    assert ch.send_from(b"bytes") == 5
    assert ch.send_from(memoryview(memory)[:3]) == 3
    block = bytearray(20)
    assert ch.recv_into(memoryview(block)[2:]) == 8
    assert block[:10] == b"\0\0bytesabc"
    assert ch.send_from(memoryview(array("H", [1, 2])).cast("B")) == 4
    assert ch.recv_into((ctypes.c_uint8 * 9)()) == 4


def test_records() -> None:
    ffi = cffi.FFI()
    ffi.cdef("struct point { double x; int64_t id; };")
    ch = native.chan(ffi.typeof("struct point"), 10)
    points = (Point * 3)(Point(0.5, 1), Point(1.5, 2), Point(2.5, 3))
    assert ch.send_from(points) == 3
    first = ch.recv()
    assert (first.x, first.id) == (0.5, 1)
    block = (Point * 5)()
    assert ch.recv_into(block) == 2
    assert [(p.x, p.id) for p in block[:3]] == [(1.5, 2), (2.5, 3), (0.0, 0)]
    cdata = ffi.new("struct point[4]", [(9.5, 9)])
    assert ch.send_from(ffi.buffer(cdata, 16)) == 1, "memory without a type holds records"
    assert ch.recv().id == 9


def test_rows() -> None:
    """An element may be an array: a row of one with two dimensions."""
    ch = native.chan("int64_t[3]", 4)
    assert ch.send_from(numbers(0, 9)) == 3
    block = memoryview(bytearray(8 * 12)).cast("q", (4, 3))
    assert ch.recv_into(block) == 3
    assert block.tolist()[:3] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    with pytest.raises(ValueError, match="whole elements of 24 bytes"):
        ch.send_from(numbers(0, 4))


FITS = {
    "double": "d",
    "float": "f",
    "int": "i",
    "unsigned short": "H",
    "long": "q",
    "size_t": "Q",
    "_Bool": "?",
    "char": "B",
}


@pytest.mark.parametrize("ctype", FITS)
def test_types_of_numbers(ctype: str) -> None:
    """The same size is not enough: a number must mean the same on both sides."""
    ch = native.chan(ctype, 1)
    for code in "bBhHiIqQfd?":
        memory = memoryview(bytearray(48)).cast(code)
        same = memory.itemsize == native.ffi.sizeof(ctype) and (
            memory.itemsize == 1 or code == FITS[ctype]
        )
        for call in (ch.send_from, ch.recv_into):
            if same:
                if call == ch.recv_into:
                    assert call(memory) == 1
                else:
                    with pytest.raises(gmprt.Timeout):
                        call(memory, timeout=0)
            else:
                with pytest.raises((TypeError, ValueError), match="buffer must have"):
                    call(memory)
    assert len(ch) == 0


def test_complex_numbers_are_a_kind_of_their_own() -> None:
    """NumPy's are in tests/lib/test_numpy.py: no buffer of the standard library has any."""
    ch = native.chan("float _Complex", 2)
    for block in (array("d", [1.0]), array("q", [1]), array("Q", [1])):
        for call in (ch.send_from, ch.recv_into):
            with pytest.raises(TypeError, match="buffer must have complex items"):
                call(block)
    assert len(ch) == 0


def test_a_number_is_no_row_of_smaller_ones() -> None:
    ch = native.chan("int32_t[2]", 2)
    for call in (ch.send_from, ch.recv_into):
        with pytest.raises(TypeError, match="buffer must have 'int32_t' items, not 'q'"):
            call(array("q", [1]))
    assert ch.send_from(array("i", [1, 2])) == 1


class Union(ctypes.Union):
    _fields_ = (("number", ctypes.c_int64), ("thing", ctypes.py_object))


class Below(Union):
    _fields_ = (("more", ctypes.c_int64),)


class Holder(ctypes.Structure):
    _fields_ = (("unions", Union * 1),)


class Numbers(ctypes.Union):
    _fields_ = (("number", ctypes.c_int64), ("bits", ctypes.c_double))


class Node(ctypes.Structure):
    pass


Node._fields_ = (("next", ctypes.POINTER(Node)),)


def test_objects_in_unions() -> None:
    """The format of a union does not tell of what: it is that of bytes."""
    ch = native.chan("int64_t", 5)
    for kind in (Union, Below, Holder, Union * 2, Holder * 2):
        for buffer in (kind(), memoryview(kind()).cast("B")):
            for call in (ch.send_from, ch.recv_into):
                with pytest.raises(TypeError, match="buffer must not hold Python objects"):
                    call(buffer)
    assert ch.send_from((Numbers * 2)(Numbers(7), Numbers(8))) == 2
    assert take(ch, 2) == [7, 8]
    assert ch.send_from(Node()) == 1


def test_a_bool_is_0_or_1() -> None:
    """Another could not be received: it would be taken, and lost in a ValueError."""
    flags = native.chan("_Bool", 5)
    pairs = native.chan("_Bool[2]", 5)
    for ch in (flags, pairs):
        for wrong in (b"\0\2", b"\xff\1"):
            with pytest.raises(ValueError, match=r"send_from\(\): buffer must have 0 and 1 only"):
                ch.send_from(wrong)
        assert len(ch) == 0
    assert flags.send_from(b"\0\1") == 2
    assert [flags.recv(), flags.recv()] == [False, True]
    assert pairs.send_from(b"\1\0") == 1
    assert list(pairs.recv()) == [True, False]


def test_what_does_not_fit() -> None:
    ch = doubles(10)
    ch.send(1.0)
    block = array("d", bytes(80))
    refused: list[tuple[Any, type[Exception], str]] = [
        (None, TypeError, "buffer must be an array or another buffer, not NoneType"),
        ([1.0], TypeError, "not list"),
        (1.0, TypeError, "not float"),
        (memoryview(block)[::2], BufferError, "contiguous"),
        (memoryview(block)[::-1], BufferError, "contiguous"),
        (array("f", [1]), ValueError, "items of 8 bytes, as 'double', not 4"),
        (array("q", [1]), TypeError, "floating-point items, not 'q'"),
        (bytearray(16), ValueError, "items of 8 bytes"),
        ((ctypes.py_object * 2)(None, None), TypeError, "must not hold Python objects"),
        ((ctypes.c_double.__ctype_be__ * 2)(), TypeError, "floating-point items, not '>d'"),
    ]
    for buffer, error, text in refused:
        for name in ("send_from", "recv_into"):
            with pytest.raises(error, match=text) as caught:
                getattr(ch, name)(buffer)
            assert str(caught.value).startswith(f"{name}(): buffer must ")
    with pytest.raises(BufferError, match="writable"):
        ch.recv_into(memoryview(block).toreadonly())
    with pytest.raises(ValueError, match="room for one element"):
        ch.recv_into(array("d"))
    assert (len(ch), ch.recv()) == (1, 1.0), "nothing was lost"
    own = array("f", [1])
    with pytest.raises(ValueError, match="items of 8 bytes"):
        ch.send_from(own)
    own.append(0.0)  # no view is left open: it may be resized


def test_wrong_arguments() -> None:
    ch: Any = ints(5)
    for call in (ch.send_from, ch.recv_into):
        for wrong in (
            lambda call=call: call(),
            lambda call=call: call(room(1), 2),
            lambda call=call: call(room(1), timeout="1"),
            lambda call=call: call(room(1), block=True),
        ):
            with pytest.raises(TypeError):
                wrong()
        for bad in (-1, math.nan):
            with pytest.raises(ValueError, match="timeout"):
                call(room(1), timeout=bad)
    assert len(ch) == 0


def test_the_buffer_is_held_while_it_waits() -> None:
    """It can neither move nor shrink; afterwards it can."""
    ch, block = ints(), room(4)
    g = go(ch.recv_into, block)
    parked(g, "chan receive")
    with pytest.raises(BufferError):
        block.append(1)
    ch.send_from(numbers(0, 3))
    assert g.result(PATIENCE) == 3
    block.append(9)
    assert block.tolist() == [0, 1, 2, -1, 9]


# ---- many at once ------------------------------------------------------------------------------

STORM = """
import random, gmprt
from array import array
from gmprt import go, native
sent, got = set(), []
ch, serial = native.chan("int64_t", CAPACITY), gmprt.AtomicInt()

def sender(seed):
    rng = random.Random(seed)
    for _ in range(60):
        n = rng.choice([1, rng.randrange(2, 40), 3000])
        first = serial.add(n) - n
        values = range(first, first + n)
        timeout = rng.choice([None, None, 0, 0.0003])
        try:
            if n == 1:
                ch.send(first, timeout=timeout)
                count = 1
            else:
                count = ch.send_from(array("q", values), timeout=timeout)
        except (gmprt.Timeout, gmprt.Cancelled) as e:
            count = 0 if n == 1 else e.sent
        assert not sent & set(values[:count])
        sent.update(values[:count])

def receiver(seed):
    rng = random.Random(seed)
    block = array("q", bytes(8 * 5000))
    while True:
        timeout = rng.choice([None, None, 0, 0.0003])
        try:
            if rng.random() < 0.2:
                got.append(ch.recv(timeout=timeout))
            else:
                n = ch.recv_into(memoryview(block)[:rng.choice([1, 30, 5000])], timeout=timeout)
                got.extend(block[:n])
        except (gmprt.Timeout, gmprt.Cancelled):
            pass
        except gmprt.EndOfChannel:
            return

def main():
    senders = [go(sender, i) for i in range(8)]
    receivers = [go(receiver, 100 + i) for i in range(6)]
    rng = random.Random(7)
    while not all(g.done() for g in senders):
        rng.choice(senders + receivers).cancel()
        gmprt.sleep(0.0003)
    for g in senders:
        g.result()
    ch.close()
    for g in receivers:
        g.result()
    assert sorted(got) == sorted(sent), (len(got), len(sent))
    print("done")

gmprt.run(main)
"""


@pytest.mark.parametrize(
    ("capacity", "procs", "chaos"),
    [(0, "1", ""), (7, "2", "5"), (0, "4", "20261130"), (4000, "4", "")],
)
def test_storm_of_cancels(capacity: int, procs: str, chaos: str) -> None:
    """What the sender was told has gone, and nothing else, arrives once."""
    code = STORM.replace("CAPACITY", str(capacity))
    env = {"GOMAXPROCS": procs, "GMPRT_CHAOS": chaos}
    assert run_child(code, env=env, timeout=50).stdout == "done\n"


def test_between_threads(procs: int) -> None:
    ch = ints(16)
    senders = [mixed(i, ch.send_from, numbers(i * 1000, 1000)) for i in range(4)]

    def drain() -> list[int]:
        got: list[int] = []
        while True:
            try:
                got += take(ch, 50)
            except gmprt.EndOfChannel:
                return got

    receivers = [mixed(i, drain) for i in range(3)]
    for t in senders:
        assert t.result(PATIENCE) == 1000
    ch.close()
    parts = [t.result(PATIENCE) for t in receivers]
    assert sorted(v for part in parts for v in part) == list(range(4000))
    for part in parts:
        for i in range(4):
            mine = [v for v in part if v // 1000 == i]
            assert mine == sorted(mine), "one sender's values stay in order"


class Blocks(RuleBasedStateMachine):
    """Against a queue, with senders and receivers that wait, cancels, timeouts and a close.

    At most one side can wait.  Waiters end in the order in which they came; which of several gets
    what is checked as far as the order of elements goes: all come out as they went in.
    """

    @initialize(capacity=st.sampled_from([0, 1, 3, 8]))
    def start(self, capacity: int) -> None:
        self.ch = ints(capacity)
        self.capacity = capacity
        self.serial = 0
        self.queue: deque[int] = deque()
        """Sent and not received, as far as is known."""
        self.sender: tuple[gmprt.Goroutine[tuple[int, str]], int, int] | None = None
        self.receiver: gmprt.Goroutine[tuple[list[int], str]] | None = None
        self.closed = False

    def send(self, first: int, n: int, timeout: float | None) -> tuple[int, str]:
        try:
            return self.ch.send_from(numbers(first, n), timeout=timeout), "all"
        except gmprt.ChannelClosed as error:
            return error.sent, "closed"
        except gmprt.Timeout as error:
            return error.sent, "late"
        except gmprt.Cancelled as error:
            return error.sent, "cancelled"

    def recv(self, most: int, timeout: float | None) -> tuple[list[int], str]:
        try:
            return take(self.ch, most, timeout), "some"
        except gmprt.EndOfChannel:
            return [], "closed"
        except gmprt.Timeout:
            return [], "late"
        except gmprt.Cancelled:
            return [], "cancelled"

    def values(self, n: int) -> int:
        self.serial += n
        return self.serial - n

    def received(self, got: list[int]) -> None:
        """They are the oldest ones, of a sender that still waits, too."""
        if self.sender and len(got) > len(self.queue):
            g, first, n = self.sender
            self.queue.extend(range(first, first + n))
            self.sender = (g, first + n, 0)
        assert got == [self.queue.popleft() for _ in got]

    def sender_ends(self, how: str) -> None:
        """What it says that it has sent was received, or lies in the buffer; the rest it kept."""
        assert self.sender
        g, first, n = self.sender
        sent, why = g.result(PATIENCE)
        assert why == how
        whole = self.began
        self.queue.extend(range(first, first + n))
        for _ in range(whole - sent):
            self.queue.pop()
        self.sender = None

    @precondition(lambda self: not self.sender and not self.receiver)
    @rule(n=st.integers(0, 6), timeout=st.sampled_from([0, 0.001]))
    def send_with_patience(self, n: int, timeout: float) -> None:
        first = self.values(n)
        sent, why = self.send(first, n, timeout)
        fits = 0 if self.closed else min(n, self.capacity - len(self.queue))
        assert (sent, why) == (fits, "all" if fits == n else "closed" if self.closed else "late")
        self.queue.extend(range(first, first + fits))

    @precondition(lambda self: not self.sender and not self.receiver)
    @rule(most=st.integers(1, 6), timeout=st.sampled_from([0, 0.001]))
    def recv_with_patience(self, most: int, timeout: float) -> None:
        there = min(most, len(self.queue))
        got, why = self.recv(most, timeout)
        assert (len(got), why) == (
            there,
            "some" if there else "closed" if self.closed else "late",
        )
        self.received(got)

    @precondition(lambda self: not self.sender and not self.receiver and not self.closed)
    @rule(n=st.integers(1, 20))
    def send_and_wait(self, n: int) -> None:
        first = self.values(n)
        g = go(self.send, first, n, None)
        self.began = n
        if n <= self.capacity - len(self.queue):
            assert g.result(PATIENCE) == (n, "all")
            self.queue.extend(range(first, first + n))
        else:
            parked(g, "chan send")
            self.sender = (g, first, n)

    @precondition(lambda self: not self.receiver and not self.sender and not self.closed)
    @rule(most=st.integers(1, 20))
    def recv_and_wait(self, most: int) -> None:
        g = go(self.recv, most, None)
        if self.queue:
            got, why = g.result(PATIENCE)
            assert why == "some"
            assert len(got) == min(most, len(self.queue))
            self.received(got)
        else:
            parked(g, "chan receive")
            self.receiver = g

    @precondition(lambda self: self.sender is not None)
    @rule(most=st.integers(1, 30))
    def recv_from_who_waits(self, most: int) -> None:
        """The buffer is full, or there is none: as many come as there are, up to `most`."""
        assert self.sender
        there = len(self.queue) + self.sender[2]
        got, why = self.recv(most, None)
        assert (len(got), why) == (min(most, there), "some")
        self.received(got)
        self.settle()

    def settle(self) -> None:
        """The sender has been woken: it is done, or waits again."""
        assert self.sender
        g = self.sender[0]
        eventually(lambda: g.done() or g.state == "waiting")
        if g.done():
            self.sender_ends("all")

    @precondition(lambda self: self.receiver is not None)
    @rule(n=st.integers(1, 20))
    def send_to_who_waits(self, n: int) -> None:
        assert self.receiver
        first = self.values(n)
        g = go(self.send, first, n, None)
        got, why = self.receiver.result(PATIENCE)
        assert why == "some"
        self.receiver = None
        self.began = n
        self.sender = (g, first, n)
        self.received(got)
        self.settle()

    @rule()
    def cancel(self) -> None:
        if self.sender:
            self.sender[0].cancel()
            self.sender_ends("cancelled")
        if self.receiver:
            self.receiver.cancel()
            assert self.receiver.result(PATIENCE) == ([], "cancelled")
            self.receiver = None

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.ch.close()
        self.closed = True
        if self.sender:
            self.sender_ends("closed")
        if self.receiver:
            assert self.receiver.result(PATIENCE) == ([], "closed")
            self.receiver = None

    @invariant()
    def lengths(self) -> None:
        if hasattr(self, "ch"):
            assert 0 <= len(self.ch) <= self.capacity
            if not self.sender:
                assert len(self.ch) == len(self.queue)

    def teardown(self) -> None:
        if hasattr(self, "ch"):
            self.cancel()
            if not self.closed:
                self.ch.close()
            left = [int(v) for v in self.ch]
            assert left == list(self.queue)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
