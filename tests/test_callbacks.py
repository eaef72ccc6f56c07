"""Python entered from C: goroutines park inside callbacks of C code and of foreign libraries."""

from __future__ import annotations

import ctypes
import functools
import gc
import heapq
import json
import random
import re
import sqlite3
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.parsers import expat

import cffi
import pytest
from support import PATIENCE, Thread, ended, mixed, parked

import gmprt
from gmprt import Chan, go

COMPARE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int64)
)


def qsort(values: list[int], pause: Callable[[], Any]) -> list[int]:
    """Sorted by libc's qsort with a comparison that calls pause()."""

    def compare(a: Any, b: Any) -> int:
        pause()
        return int((a[0] > b[0]) - (a[0] < b[0]))

    array = (ctypes.c_int64 * len(values))(*values)
    ctypes.CDLL(None).qsort(array, len(values), 8, COMPARE(compare))
    return list(array)


def shuffled(n: int, seed: int) -> list[int]:
    values = list(range(n))
    random.Random(seed).shuffle(values)
    return values


class Server:
    """A goroutine that answers on a channel: what callbacks wait for."""

    def __init__(self) -> None:
        self.requests: Chan[Chan[int]] = Chan()
        self.goroutine = go(self._serve)

    def _serve(self) -> None:
        for reply in self.requests:
            reply.send(1)

    def ask(self) -> int:
        reply: Chan[int] = Chan()
        self.requests.send(reply)
        return reply.recv()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *args: object) -> None:
        self.requests.close()
        ended(self.goroutine)


PAUSES: dict[str, Callable[[], Any]] = {
    "gosched": gmprt.gosched,
    "sleep": lambda: gmprt.sleep(0.00001),
    "recv": lambda: _server.ask(),
    "select": lambda: gmprt.select(gmprt.after(0.00001), Chan()),
}

_server: Server


@pytest.fixture(autouse=True)
def server(_nothing_left: None) -> Any:
    global _server
    with Server() as _server:
        yield _server


@pytest.mark.parametrize("pause", list(PAUSES))
def test_ctypes_callbacks_park(pause: str, procs: int) -> None:
    """Many goroutines inside libc's qsort at once, each with frames of C on its stack."""
    goroutines = [go(qsort, shuffled(40, i), PAUSES[pause]) for i in range(20)]
    for g in goroutines:
        assert g.result(PATIENCE) == list(range(40))


def test_ctypes_callbacks_in_goroutines_threads_and_main(procs: int) -> None:
    tasks = [mixed(i, qsort, shuffled(30, i), _server.ask) for i in range(8)]
    assert gmprt.run(qsort, shuffled(30, 99), _server.ask) == list(range(30))
    assert qsort(shuffled(30, 98), _server.ask) == list(range(30))
    for t in tasks:
        assert t.result(PATIENCE) == list(range(30))


def test_callbacks_within_callbacks(procs: int) -> None:
    def nested(depth: int) -> list[int]:
        return qsort([2, 1, 3], lambda: nested(depth - 1) if depth else _server.ask())

    for g in [go(nested, 2) for _ in range(5)]:
        assert g.result(PATIENCE) == [1, 2, 3]


def test_callbacks_start_goroutines() -> None:
    def pause() -> None:
        assert go(_server.ask).result() == 1

    for g in [go(qsort, shuffled(20, i), pause) for i in range(5)]:
        assert g.result(PATIENCE) == list(range(20))


def test_a_callback_that_fails_while_parked() -> None:
    """ctypes prints the error and goes on, as it always does; the goroutine is whole."""
    errors: list[Any] = []
    before = sys.unraisablehook
    sys.unraisablehook = errors.append
    try:

        def pause() -> None:
            gmprt.sleep(0.0001)
            raise LookupError

        g = go(qsort, [2, 1], pause)
        assert sorted(g.result(PATIENCE)) == [1, 2]
    finally:
        sys.unraisablehook = before
    assert {e.exc_type for e in errors} == {LookupError}


def test_cancel_inside_a_callback() -> None:
    """Cancelled ends the wait; ctypes swallows it as it does any exception, C goes on."""
    before, sys.unraisablehook = sys.unraisablehook, lambda args: None
    gate: Chan[int] = Chan()
    waits = 0

    def pause() -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            gate.recv()

    try:
        g = go(qsort, [2, 1, 3], pause)
        parked(g)
        g.cancel()
        assert sorted(g.result(PATIENCE)) == [1, 2, 3]
    finally:
        sys.unraisablehook = before


def test_cffi_callbacks_park(procs: int) -> None:
    ffi = cffi.FFI()
    ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const void *, const void *));")
    libc = ffi.dlopen(None)

    def sort(values: list[int]) -> list[int]:
        @ffi.callback("int(const void *, const void *)")
        def compare(a: Any, b: Any) -> int:
            _server.ask()
            x, y = ffi.cast("int64_t *", a)[0], ffi.cast("int64_t *", b)[0]
            return int((x > y) - (x < y))

        array = ffi.new("int64_t[]", values)
        libc.qsort(array, len(values), 8, compare)
        return list(array)

    for g in [go(sort, shuffled(30, i)) for i in range(15)]:
        assert g.result(PATIENCE) == list(range(30))


def test_sqlite_functions_park(procs: int) -> None:
    def query(i: int) -> int:
        db = sqlite3.connect(":memory:")
        db.create_function("slow", 1, lambda x: x + _server.ask())
        db.execute("create table t (x)")
        db.executemany("insert into t values (?)", [(x,) for x in range(20)])
        (total,) = db.execute("select sum(slow(x)) from t where slow(x) > ?", (i,)).fetchone()
        db.close()
        return int(total)

    for i, g in enumerate([go(query, i) for i in range(10)]):
        assert g.result(PATIENCE) == sum(x + 1 for x in range(20) if x + 1 > i)


def test_pygilstate_calls_park() -> None:
    """PyGILState_Ensure inside a goroutine finds the goroutine's own state."""
    api = ctypes.pythonapi
    ensure, release = api.PyGILState_Ensure, api.PyGILState_Release

    def work() -> bool:
        for _ in range(20):
            state = ensure()
            me = gmprt.current()
            gmprt.sleep(0.0001)
            if gmprt.current() is not me or me is None:
                return False
            release(state)
        return True

    assert all(g.result(PATIENCE) for g in [go(work) for _ in range(10)])
    assert Thread(lambda: [release(ensure()) for _ in range(10)]).exception() is None


def test_a_c_call_that_drops_the_gil_and_calls_back() -> None:
    """ctypes drops the GIL around the call; the callback takes it again, perhaps elsewhere."""
    libc = ctypes.CDLL(None)
    seen: set[int] = set()

    def pause() -> None:
        seen.add(libc.gettid())
        libc.usleep(200)
        gmprt.gosched()

    goroutines = [go(qsort, shuffled(10, i), pause) for i in range(10)]
    for g in goroutines:
        assert g.result(PATIENCE) == list(range(10))
    assert seen


# ---- the interpreter's own C -------------------------------------------------------------------


class Parking:
    """An object whose every method parks."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        _server.ask()
        return isinstance(other, Parking) and self.value == other.value

    def __lt__(self, other: Parking) -> bool:
        _server.ask()
        return self.value < other.value

    def __hash__(self) -> int:
        _server.ask()
        return hash(self.value) % 3

    def __repr__(self) -> str:
        _server.ask()
        return f"P{self.value}"

    def __format__(self, spec: str) -> str:
        _server.ask()
        return f"{self.value:{spec}}"

    def __bool__(self) -> bool:
        _server.ask()
        return bool(self.value)

    def __index__(self) -> int:
        _server.ask()
        return self.value

    def __len__(self) -> int:
        _server.ask()
        return self.value

    def __add__(self, other: Any) -> int:
        _server.ask()
        return self.value + int(other)

    __radd__ = __add__

    def __iter__(self) -> Any:
        for i in range(self.value):
            _server.ask()
            yield i

    def __getattr__(self, name: str) -> str:
        _server.ask()
        return name

    def __contains__(self, x: object) -> bool:
        _server.ask()
        return x == self.value

    def __call__(self, x: int) -> int:
        _server.ask()
        return x * self.value

    def __enter__(self) -> Parking:
        _server.ask()
        return self

    def __exit__(self, *args: object) -> None:
        _server.ask()


P = Parking


def _with() -> int:
    with P(3) as p:
        return p.value


def _dict() -> list[int]:
    d = {P(i): i for i in range(8)}
    return [d[P(i)] for i in range(8)]


def _heap() -> list[int]:
    heap: list[Parking] = []
    for i in shuffled(8, 1):
        heapq.heappush(heap, P(i))
    return [heapq.heappop(heap).value for _ in range(8)]


def _expat() -> list[str]:
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attrs: (_server.ask(), names.append(name))
    parser.Parse("<a><b/><c><d/></c></a>", True)
    return names


def _exec() -> int:
    scope: dict[str, Any] = {"ask": _server.ask}
    exec("x = sum(ask() for _ in range(5))", scope)
    return int(scope["x"])


def _property() -> int:
    class C:
        @functools.cached_property
        def x(self) -> int:
            return _server.ask()

    return C().x


BUILTINS: dict[str, tuple[Callable[[], Any], Any]] = {
    "sorted key": (lambda: sorted(shuffled(20, 1), key=P(-1)), list(range(19, -1, -1))),
    "sorted lt": (lambda: [p.value for p in sorted(map(P, shuffled(8, 2)))], list(range(8))),
    "min": (lambda: min(map(P, [3, 1, 2])).value, 1),
    "map": (lambda: list(map(P(2), range(5))), [0, 2, 4, 6, 8]),
    "filter": (lambda: list(filter(lambda x: _server.ask() and x % 2, range(5))), [1, 3]),
    "sum": (lambda: sum([P(1), P(2)]), 3),
    "sum of a generator": (lambda: sum(P(4)), 6),
    "zip": (lambda: list(zip(P(2), P(2), strict=True)), [(0, 0), (1, 1)]),
    "any": (lambda: any([P(0), P(0), P(1)]), True),
    "reduce": (lambda: functools.reduce(lambda a, b: a + b * _server.ask(), range(5)), 10),
    "re.sub": (lambda: re.sub(r"\d", lambda m: str(int(m[0]) + _server.ask()), "1a2b3"), "2a3b4"),
    "json hook": (
        lambda: json.loads('[{"a": 1}, {"a": 2}]', object_hook=lambda d: d["a"] + _server.ask()),
        [2, 3],
    ),
    "json default": (lambda: json.dumps([P(1)], default=repr), '["P1"]'),
    "dict": (_dict, list(range(8))),
    "set": (lambda: len({P(i % 4) for i in range(8)}), 4),
    "list ==": (lambda: [P(1), P(2)] == [P(1), P(2)], True),
    "in": (lambda: (P(2) in [P(1), P(2)], 3 in P(3)), (True, True)),
    "repr": (lambda: repr([P(1), (P(2),)]), "[P1, (P2,)]"),
    "format": (lambda: f"{P(1)!r} {P(2):03d} {P(3)!s}", "P1 002 P3"),
    "index": (lambda: (list(range(9))[P(3)], bytes([P(7)])), (3, b"\x07")),
    "getattr": (lambda: P().some_name, "some_name"),
    "with": (_with, 3),
    "heap": (_heap, list(range(8))),
    "expat": (_expat, ["a", "b", "c", "d"]),
    "exec": (_exec, 5),
    "cached_property": (_property, 1),
    "lru_cache": (lambda: functools.lru_cache(lambda x: x + _server.ask())(1), 2),
    "join": (lambda: ",".join(str(x) for x in P(3)), "0,1,2"),
    "star": (lambda: max(*P(4)), 3),
    "type()": (lambda: type("C", (), {"x": _server.ask()}).x, 1),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("kind", list(BUILTINS))
def test_builtins_call_what_parks(kind: str) -> None:
    call, expected = BUILTINS[kind]
    for g in [go(call) for _ in range(8)]:
        assert g.result(PATIENCE) == expected
    assert gmprt.run(call) == expected


def test_destructors_park() -> None:
    """__del__, weakref callbacks and the collector may run Python that parks."""
    done: Chan[str] = Chan(100)

    class Dying:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            _server.ask()
            done.send("del")

    def work() -> None:
        x = Dying()
        ref = weakref.ref(x, lambda _: (_server.ask(), done.send("weakref")))
        x.me = None  # type: ignore[assignment]
        del x
        assert ref() is None
        Dying()
        gc.collect()

    for g in [go(work) for _ in range(5)]:
        g.result(PATIENCE)
    gc.collect()
    got = [done.recv(timeout=PATIENCE) for _ in range(15)]
    assert got.count("del") == 10
    assert got.count("weakref") == 5


def test_an_end_that_parks() -> None:
    """What a goroutine leaves behind is destroyed in it, and may park there too."""
    done: Chan[int] = Chan(10)

    class Dying:
        def __del__(self) -> None:
            _server.ask()
            done.send(1)

    def work(arg: Dying) -> Dying:
        return Dying()

    def fail(arg: Dying) -> None:
        raise LookupError(Dying())

    ended(*[go(work, Dying()) for _ in range(3)])
    g = go(fail, Dying())
    assert isinstance(g.exception(PATIENCE), LookupError)
    del g
    for _ in range(8):
        done.recv(timeout=PATIENCE)


def test_imports_park(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that parks while it is imported, imported by many: it runs once, all wait for it."""
    (tmp_path / "parks_on_import.py").write_text(
        textwrap.dedent("""
            import gmprt
            count = globals().get("count", 0) + 1
            gmprt.sleep(0.02)
            value = 42
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def work() -> int:
        import parks_on_import  # type: ignore[import-not-found]

        return int(parks_on_import.value * parks_on_import.count)

    try:
        tasks = [mixed(i, work) for i in range(10)]
        assert [t.result(PATIENCE) for t in tasks] == [42] * 10
    finally:
        sys.modules.pop("parks_on_import", None)


def test_tracers_of_python_see_goroutines() -> None:
    """sys.settrace in a goroutine: events of its own code only, across parks."""
    lines: list[str] = []

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        lines.append(f"{frame.f_code.co_name} {event}")
        return tracer

    def traced() -> None:
        gmprt.sleep(0.0001)
        inner()

    def inner() -> None:
        gmprt.gosched()

    def work() -> None:
        sys.settrace(tracer)
        try:
            traced()
        finally:
            sys.settrace(None)

    other = [go(lambda: [gmprt.gosched() for _ in range(50)]) for _ in range(5)]
    ended(go(work), *other)
    assert [e for e in lines if e.endswith("call")] == ["traced call", "inner call"]
    assert not [e for e in lines if not e.startswith(("traced", "inner", "work"))]
