"""csrc/py/cpython/follow.c: parks below C code of the interpreter, which goes on on another thread.

On arm64 that code has kept the old thread's address.  Elsewhere nothing can go wrong here.
"""

from __future__ import annotations

import pytest
from support import PATIENCE, run_child

MOVES = """
import builtins, contextvars, ctypes, functools, heapq, itertools, json, os, pathlib, pickle, re
import sys, threading, weakref

import gmprt

libc = ctypes.CDLL(None)
moves = 0


def wait(value=1):
    '''Comes back on another thread.'''
    global moves
    before = now = threading.get_native_id()
    while now == before:  # who is to block there may have to yield first
        ready = gmprt.Chan(1)
        blocked.send((before, ready))
        ready.recv()
        now = threading.get_native_id()
    moves += 1
    return value


builtins.wait = wait
blocked = gmprt.Chan(1)


def block(tids, fd, entered):
    tids.append(threading.get_native_id())
    entered.send(None)
    libc.read(fd, ctypes.create_string_buffer(1), 1)


def mover():
    '''A thread: keeps the one that a goroutine has parked on, and lets it go on.'''
    tids, last = [], None
    while True:
        tid, ready = blocked.recv()
        if tid in tids:  # blocks, or is about to
            ready.send(None)
            continue
        tids, gate = [], os.pipe()
        while tid not in tids and os.path.exists(f"/proc/self/task/{tid}"):  # else it has ended
            entered = gmprt.Chan(1)
            gmprt.go(block, tids, gate[0], entered)
            entered.recv()
        ready.send(None)
        if last:
            os.close(last[1])  # it had to stay until its goroutine had come back
        last = gate


class Object:
    def __init__(self, value=0): self.value = wait(value)
    def __call__(self, *args, **kwargs): return wait(self.value)
    def __str__(self): return wait("str")
    def __repr__(self): return wait("repr")
    def __format__(self, spec): return wait("format")
    def __index__(self): return wait(1)
    def __bool__(self): return wait(True)
    def __len__(self): return wait(3)
    def __hash__(self): return wait(7)
    def __eq__(self, other): return wait(self is other)
    def __lt__(self, other): return wait(False)
    def __add__(self, other): return wait(5)
    def __getattr__(self, name): return wait(name)
    def __setattr__(self, name, value): object.__setattr__(self, name, wait(value))
    def __getitem__(self, i): return wait(i)
    def __contains__(self, x): return wait(True)
    def __enter__(self): return wait(self)
    def __exit__(self, *error): return wait(True)
    def __reduce__(self): return wait((int, ()))
    def __init_subclass__(cls): wait()


class Sized:
    def __iter__(self): return (wait(i) for i in range(2))
    def __length_hint__(self): return wait(2)


class Finalized:
    def __init__(self, log): self.log = log
    def __del__(self): self.log.append(wait(1))


class Plain:
    pass


class Named:
    def __set_name__(self, owner, name): wait()
    def __get__(self, instance, owner): return wait(9)
    def __set__(self, instance, value): wait()


def finalized():
    log = []
    Finalized(log)
    return log


def weak():
    log, x = [], Plain()
    r = weakref.ref(x, lambda r: log.append(wait(1)))
    del x
    return log


def raised():
    try:
        try:
            wait()
            raise KeyError(wait(1))
        finally:
            wait()
    except KeyError as error:
        return error.args[0], wait(error.__traceback__ is not None)


def subclassed():
    class Sub(Object):
        field = Named()
    s = Sub(4)
    s.field = 1
    return Sub.__name__, s.field


def generated():
    def inner():
        x = yield wait(1)
        return x
    def outer():
        return (yield from inner())
    g = outer()
    next(g)
    try:
        g.send(8)
    except StopIteration as end:
        return end.value


def closed():
    log = []
    def generator():
        try:
            yield
        finally:
            log.append(wait(1))
    g = generator()
    next(g)
    g.close()
    g = generator()
    next(g)
    del g
    return log


def awaited():
    class A:
        def __await__(self):
            yield wait(2)
    async def f():
        await A()
        return 3
    c = f()
    c.send(None)
    try:
        c.send(None)
    except StopIteration as end:
        return end.value


def managed():
    with Object(1) as o:
        raise ValueError
    return wait(6)


@functools.lru_cache
def cached(x):
    return wait(x)


scenes = {
    "class": (lambda: Object(3).value, 3),
    "call": (lambda: Object(2)(1, k=2), 2),
    "partial": (lambda: functools.partial(Object(2), 1, k=2)(), 2),
    "reduce": (lambda: functools.reduce(lambda a, b: wait(a + b), range(4)), 6),
    "lru_cache": (lambda: cached(4), 4),
    "sorted": (lambda: sorted([2, 1, 3], key=wait), [1, 2, 3]),
    "sort": (lambda: sorted("ab", key=functools.cmp_to_key(lambda a, b: wait(0))), ["a", "b"]),
    "min": (lambda: min([2, 1], key=wait), 1),
    "map": (lambda: list(map(wait, [1, 2])), [1, 2]),
    "filter": (lambda: tuple(filter(wait, [0, 1])), (1,)),
    "tuple": (lambda: tuple(wait(i) for i in range(3)), (0, 1, 2)),
    "set": (lambda: {wait(i) for i in range(2)}, {0, 1}),
    "dict": (lambda: dict((wait(i), i) for i in range(2)), {0: 0, 1: 1}),
    "starred": (lambda: max(*(wait(i) for i in range(3))), 2),
    "str": (lambda: str(Object()), "str"),
    "repr": (lambda: repr([Object()]), "[repr]"),
    "format": (lambda: f"{Object()} {Object()!r}", "format repr"),
    "percent": (lambda: "%s %r" % (Object(), Object()), "str repr"),
    "join": (lambda: "-".join(wait(c) for c in "ab"), "a-b"),
    "index": (lambda: [1, 2][Object()], 2),
    "slice": (lambda: "abc"[Object():], "bc"),
    "range": (lambda: len(range(Object())), 1),
    "bool": (lambda: not Object(), False),
    "len": (lambda: len(Object()), 3),
    "any": (lambda: any(wait(0) for _ in range(2)), False),
    "hint": (lambda: list(Sized()), [0, 1]),
    "extend": (lambda: (x := [9], x.extend(Sized()), x)[2], [9, 0, 1]),
    "hash": (lambda: len({Object(): 1, Object(): 2}), 2),
    "in": (lambda: 1 in Object(), True),
    "add": (lambda: sum([Object()], Object()), 5),
    "getattr": (lambda: getattr(Object(), "missing"), "missing"),
    "setattr": (lambda: setattr(o := Object(), "a", 1) or o.__dict__["a"], 1),
    "item": (lambda: Object()[5], 5),
    "with": (managed, 6),
    "finalizer": (finalized, [1]),
    "weakref": (weak, [1]),
    "raise": (raised, (1, True)),
    "subclass": (subclassed, ("Sub", 9)),
    "generator": (generated, 8),
    "close": (closed, [1, 1]),
    "await": (awaited, 3),
    "exec": (lambda: eval("wait(3)") + (exec("wait()") or 0), 3),
    "import": (lambda: __import__("waits").value, 4),
    "context": (lambda: contextvars.copy_context().run(wait, 2), 2),
    "json": (lambda: json.dumps(Plain(), default=lambda o: wait(1)), "1"),
    "re": (lambda: re.sub("a", lambda m: wait("b"), "aa"), "bb"),
    "pickle": (lambda: pickle.loads(pickle.dumps(Object())), 0),
    "heap": (lambda: len(heapq.nsmallest(2, [Object(), Object(), Object()])), 2),
    "groupby": (lambda: [k for k, _ in itertools.groupby([1, 1, 2], wait)], [1, 2]),
    "iter": (lambda: list(iter(lambda n=[0]: (n.append(0), wait(len(n)))[1], 4)), [2, 3]),
    "print": (lambda: print(Object(), file=open(os.devnull, "w")), None),
    "property": (lambda: type("P", (), {"p": property(wait)})().p.__class__.__name__, "P"),
}

pathlib.Path(sys.argv[1], "waits.py").write_text("value = wait(4)")
sys.path.insert(0, sys.argv[1])
threading.Thread(target=mover, daemon=True).start()
for name, (scene, expected) in scenes.items():
    print(name, file=sys.stderr)
    before = moves
    result = gmprt.go(scene).result()
    assert result == expected, (name, result)
    assert moves > before, name  # it did wait
print("moved", moves)
os._exit(0)
"""


@pytest.fixture(name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("waits"))


def test_c_code_that_goes_on_on_another_thread(folder: str) -> None:
    done = run_child(MOVES, args=[folder], timeout=6 * PATIENCE)
    assert "moved" in done.stdout
