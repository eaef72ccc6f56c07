"""NumPy: arrays go through native channels as they lie in memory."""

from __future__ import annotations

from typing import Any

import pytest
from support import PATIENCE

import gmprt
from gmprt import go, native

np: Any = pytest.importorskip("numpy")


def test_a_pipeline_of_arrays() -> None:
    """A million numbers, in blocks of another size on each side."""
    samples = native.chan("double", 1000)
    values = np.arange(1_000_000, dtype=np.float64)

    def produce() -> None:
        with samples:
            for block in np.split(values, 100):
                assert samples.send_from(block) == 10_000

    g = go(produce)
    got, n = np.full(1_000_000, -1.0), 0
    while n < len(got):
        n += samples.recv_into(got[n : n + 7777], timeout=PATIENCE)
    assert (got == values).all()
    with pytest.raises(gmprt.EndOfChannel):
        samples.recv_into(got)
    assert g.result(PATIENCE) is None


def test_records_and_rows() -> None:
    point = np.dtype([("x", "<f8"), ("id", "<i8")])
    ch = native.chan("int64_t[2]", 4)
    assert ch.send_from(np.array([(0.5, 1), (1.5, 2)], dtype=point)) == 2
    block = np.zeros(3, dtype=point)
    assert ch.recv_into(block) == 2
    assert block["id"].tolist() == [1, 2, 0]
    named = np.zeros(1, dtype=[("O", "<f8"), ("Other", "<i8")])
    assert ch.send_from(named) == 1
    ch.recv()
    assert ch.send_from(np.arange(6, dtype=np.int64).reshape(3, 2)) == 3
    rows = np.zeros((3, 2), dtype=np.int64)
    assert ch.recv_into(rows) == 3
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: np.zeros(4, dtype=np.float32), ValueError),
        (lambda: np.zeros(4, dtype=np.int64), TypeError),
        (lambda: np.zeros(4, dtype=">f8"), TypeError),
        (lambda: np.zeros(8)[::2], BufferError),
        (lambda: np.zeros((3, 3)).T, BufferError),
        (lambda: np.zeros(4, dtype=object), TypeError),
        (lambda: np.zeros(4, dtype=[("x", object)]), TypeError),
    ],
)
def test_arrays_that_do_not_fit(make: Any, error: type[Exception]) -> None:
    ch = native.chan("double", 8)
    ch.send(1.0)
    for call in (ch.send_from, ch.recv_into):
        with pytest.raises(error):
            call(make())
    fixed = np.zeros(4)
    fixed.flags.writeable = False
    with pytest.raises(BufferError, match="writable"):
        ch.recv_into(fixed)
    assert ch.send_from(fixed) == 4
    assert len(ch) == 5


@pytest.mark.parametrize(
    ("ctype", "kind"),
    [
        ("double", "c8"),
        ("int64_t", "c8"),
        ("double[2]", "c16"),
        ("long double", "c16"),
        ("double _Complex", "g"),
        ("double _Complex", ">c16"),
        ("float _Complex", "f8"),
        ("float _Complex", "i8"),
    ],
)
def test_complex_numbers_where_others_are_meant(ctype: str, kind: str) -> None:
    if np.dtype(kind).itemsize != native.ffi.sizeof(ctype):
        pytest.skip(f"{ctype} and {kind} differ in size here")
    ch = native.chan(ctype, 2)
    for call in (ch.send_from, ch.recv_into):
        with pytest.raises(TypeError, match="buffer must have"):
            call(np.ones(2, dtype=kind))
    assert len(ch) == 0


@pytest.mark.parametrize(("ctype", "kind"), [("float _Complex", "c8"), ("double _Complex", "c16")])
def test_complex_numbers(ctype: str, kind: str) -> None:
    ch = native.chan(ctype, 2)
    assert ch.send_from(np.array([1 + 2j, -1j], dtype=kind)) == 2
    assert ch.recv() == 1 + 2j
    block = np.zeros(3, dtype=kind)
    assert ch.recv_into(block) == 1
    assert block.tolist() == [-1j, 0, 0]
