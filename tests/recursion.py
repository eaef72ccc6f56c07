"""Recursion of every kind, a thousand levels deep and without end: in a goroutine as on a thread.

    python -m tests.recursion [PLACE...]     the whole table, beside a plain thread's

Each row is a function that goes n levels deep.  It is played on a thread with 8 MiB of stack and in
each PLACE (goroutine; main: that of run()), in children, many rows in one: who crashes ends its
child, and the rest goes on in another.  What a thread does a goroutine must do.  Where a thread
crashes, as it does somewhere on most versions of Python, anything will do, and is printed.

    ends        without end (data is nested DEEP levels): RecursionError, as a rule
    thousand    1000 levels, with room for them in the limit; or as many as a thread can
    high        without end, with a recursion limit that no stack holds.  A goroutine does not
                crash, unless a thread does with an ordinary limit, for nothing is counted there.
                main is as deep as its thread, and may crash where a thread does with this limit
"""

from __future__ import annotations

import abc
import ast
import asyncio
import bisect
import codecs
import collections
import contextlib
import contextvars
import copy
import ctypes
import dataclasses
import functools
import heapq
import inspect
import io
import itertools
import json
import marshal
import operator
import os
import pickle
import pprint
import re
import subprocess
import sys
import threading
import tokenize
import traceback
import types
import typing
import weakref
import xml.etree.ElementTree
import xml.parsers.expat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Row = Callable[[int], object]

DEEP = 20_000  # 100 000 by the command
ROWS: dict[str, Row] = {}


def row(fn: Row) -> Row:
    ROWS[fn.__name__.replace("_", " ")] = fn
    return fn


def nested(n: int, around: Callable[[Any], Any] = lambda x: [x], core: Any = None) -> Any:
    x = core
    for _ in range(min(n, DEEP)):
        x = around(x)
    return x


# ---- calls ---------------------------------------------------------------------------------------


@row
def python(n: int) -> object:
    return n and python(n - 1)


@row
def keywords(n: int) -> object:
    def level(n: int, *args: int, **kwargs: int) -> object:
        return n and level(n - 1, *args, **kwargs)

    return level(min(n, DEEP))  # 3.15 does not count them


@row
def sorted_with_a_key(n: int) -> object:
    return n and sorted([n - 1], key=sorted_with_a_key)


@row
def min_with_a_key(n: int) -> object:
    return n and min([n - 1], key=min_with_a_key)


@row
def a_map(n: int) -> object:
    return n and list(map(a_map, [n - 1]))


@row
def a_filter(n: int) -> object:
    return n and list(filter(a_filter, [n - 1]))


@row
def a_partial(n: int) -> object:
    return n and functools.partial(a_partial, n - 1)()


@row
def a_reduce(n: int) -> object:
    def step(x: int, y: int) -> int:
        return functools.reduce(step, [x - 1, y]) if x > 0 else 0

    return step(n, 0)


@row
def a_cache(n: int) -> object:
    @functools.lru_cache(None)
    def f(n: int) -> object:
        return n and f(n - 1)

    return f(n)


@row
def a_comparison_by_cmp(n: int) -> object:
    def cmp(a: int, b: int) -> int:
        if n > 0:
            a_comparison_by_cmp(n - 1)
        return a - b

    return sorted([2, 1], key=functools.cmp_to_key(cmp))


@row
def single_dispatch(n: int) -> object:
    @functools.singledispatch
    def f(x: int) -> object:
        return x and f(x - 1)

    return f(n)


@row
def a_cached_property(n: int) -> object:
    class Level:
        def __init__(self, n: int) -> None:
            self.n = n

        @functools.cached_property
        def below(self) -> object:
            return self.n and Level(self.n - 1).below

    return Level(n).below


@row
def total_ordering(n: int) -> object:
    @functools.total_ordering
    class Level:
        def __init__(self, n: int) -> None:
            self.n = n

        def __eq__(self, other: object) -> bool:
            return False

        def __lt__(self, other: Any) -> bool:
            return self.n <= 0 or Level(self.n - 1) >= other

    return Level(n) < Level(n)


@row
def method_caller(n: int) -> object:
    class Level:
        def down(self, n: int) -> object:
            return n and operator.methodcaller("down", n - 1)(self)

    return Level().down(n)


@row
def attribute_getter(n: int) -> object:
    class Level:
        n = 0

        @property
        def below(self) -> object:
            self.n -= 1
            return self.n > 0 and operator.attrgetter("below")(self)

    level = Level()
    level.n = n
    return level.below


@row
def a_starmap(n: int) -> object:
    return n and list(itertools.starmap(a_starmap, [(n - 1,)]))


@row
def an_accumulate(n: int) -> object:
    def step(a: int, b: int) -> int:
        if a > 0:
            list(itertools.accumulate([a - 1, 0], step))
        return 0

    return step(n, 0)


@row
def context_run(n: int) -> object:
    return n and contextvars.copy_context().run(context_run, n - 1)


@row
def eval_in_eval(n: int) -> object:
    return n and eval("f(n - 1)", {"f": eval_in_eval, "n": n})


@row
def exec_in_exec(n: int) -> object:
    exec("n and f(n - 1)", {"f": exec_in_exec, "n": n})
    return None


@row
def a_heap(n: int) -> object:
    class Level:
        def __lt__(self, other: Level) -> bool:
            a_heap(n - 1)
            return True

    if n > 0:
        heap = [Level(), Level()]
        heapq.heapify(heap)
    return None


@row
def a_bisection(n: int) -> object:
    return n and bisect.bisect([0], 0, key=lambda _: a_bisection(n - 1) and 0)


@row
def a_substitution(n: int) -> object:
    def below(m: re.Match[str]) -> str:
        a_substitution(n - 1)
        return "b"

    return n and re.sub("a", below, "a")


class _Callback:
    """What fails where C calls Python is printed and ignored."""

    def __init__(self, kind: Any, call: Callable[[Any], object]) -> None:
        self.left, self.failed = 0, False
        self.called = kind(self.down)
        self.call = call

    def down(self, *args: int) -> int:
        self.left -= 1
        if self.left > 0 and not self.failed:
            try:
                self.call(self.called)
            except RecursionError:
                self.failed = True
        return 0

    def dive(self, n: int) -> None:
        self.left = n
        self.call(self.called)
        if self.left > 0:
            raise RecursionError


@row
def a_callback_of_c(n: int) -> object:
    return _Callback(ctypes.CFUNCTYPE(ctypes.c_int), lambda called: called()).dive(n)


@row
def a_sort_in_c_with_a_callback(n: int) -> object:
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    qsort = ctypes.CDLL(None).qsort
    return _Callback(kind, lambda called: qsort((ctypes.c_int * 2)(2, 1), 2, 4, called)).dive(n)


@row
def a_codec_error_handler(n: int) -> object:
    def handler(error: UnicodeError) -> tuple[str, int]:
        a_codec_error_handler(n - 1)
        return "", 1

    codecs.register_error("gmprt-recursion", handler)
    return n and b"\xff".decode("ascii", "gmprt-recursion")


# ---- special methods -----------------------------------------------------------------------------


def below(name: str, use: Callable[[Any], object], give: Any = None) -> Row:
    """A class whose method `name` uses one of the next level."""

    def dive(n: int) -> object:
        def method(self: Any, *args: Any) -> Any:
            if self.n > 0:
                use(Level(self.n - 1))
            return give(self) if callable(give) else give

        class Level:
            def __init__(self, n: int) -> None:
                self.n = n

        setattr(Level, name, method)
        return use(Level(n))

    return dive


for _name, _use, _give in [
    ("__getattr__", lambda x: x.missing, None),
    ("__call__", lambda x: x(), None),
    ("__eq__", lambda x: x == 1, True),
    ("__eq__ in a list", lambda x: [x] == [1], True),
    ("__eq__ in a dict", lambda x: {1: x} == {1: 1}, True),
    ("__lt__", lambda x: x < 1, True),
    ("__lt__ in a tuple", lambda x: (x,) < (1,), True),
    ("__hash__", hash, 1),
    ("__hash__ in a tuple", lambda x: hash((x,)), 1),
    ("__hash__ in a set", lambda x: {x}, 1),
    ("__repr__", repr, "x"),
    ("__repr__ in a list", lambda x: repr([x]), "x"),
    ("__repr__ in a dict", lambda x: repr({1: x}), "x"),
    ("__repr__ in a deque", lambda x: repr(collections.deque([x])), "x"),
    ("__repr__ in an exception", lambda x: repr(ValueError(x)), "x"),
    ("__str__", str, "x"),
    ("__str__ by %", lambda x: "%s" % x, "x"),  # noqa: UP031
    ("__str__ in print", lambda x: print(x, file=io.StringIO()), "x"),
    ("__format__", lambda x: f"{x:spec}", "x"),
    ("__format__ in str.format", lambda x: "{0:{1}}".format(x, "spec"), "x"),
    ("__bool__", bool, True),
    ("__bool__ in any", lambda x: any([x]), True),
    ("__len__", len, 1),
    ("__index__", operator.index, 1),
    ("__int__", int, 1),
    ("__float__", float, 1.0),
    ("__bytes__", bytes, b"x"),
    ("__add__", lambda x: x + 1, 1),
    ("__radd__ in sum", lambda x: sum([x], 1), 1),
    ("__iadd__", lambda x: operator.iadd(x, 1), 1),
    ("__getitem__", lambda x: x[0], 1),
    ("__setitem__", lambda x: operator.setitem(x, 0, 0), None),
    ("__contains__", lambda x: 1 in x, True),
    ("__iter__", list, lambda self: iter(())),
    ("__next__", next, 1),
    ("__length_hint__", operator.length_hint, 1),
    ("__enter__", lambda x: x.__enter__(), None),
    ("__dir__", dir, ()),
    ("__sizeof__", sys.getsizeof, 1),
    ("__copy__", copy.copy, 1),
    ("__deepcopy__", copy.deepcopy, 1),
    ("__reduce__", pickle.dumps, lambda self: (int, ())),
    ("__getstate__", copy.copy, ()),
    ("__fspath__", os.fspath, "x"),
    ("__round__", round, 1),
    ("__divmod__", lambda x: divmod(x, 1), 1),
    ("__reversed__", reversed, 1),
]:
    ROWS[_name] = below(_name.split()[0], _use, _give)


@row
def an_attribute_of_a_property(n: int) -> object:
    class Level:
        def __init__(self, n: int) -> None:
            self.n = n

        @property
        def below(self) -> object:
            return self.n and Level(self.n - 1).below

    return Level(n).below


@row
def descriptors(n: int) -> object:
    class Descriptor:
        def __get__(self, instance: Any, owner: Any) -> object:
            n = instance.n
            if n <= 0:
                return 0
            below = Level()
            below.n = n - 1
            below.d = below.d
            return 0

        def __set__(self, instance: Any, value: Any) -> None:
            pass

    class Level:
        n = 0
        d: Any = Descriptor()

    level = Level()
    level.n = n
    return level.d


@row
def getattribute(n: int) -> object:
    class Level:
        def __getattribute__(self, name: str) -> object:
            left = int(name[1:])
            return left and getattr(self, f"x{left - 1}")

    return getattr(Level(), f"x{n}")


@row
def setattr_(n: int) -> object:
    class Level:
        def __setattr__(self, name: str, value: int) -> None:
            if value > 0:
                self.x = value - 1

    Level().x = n
    return None


@row
def missing_(n: int) -> object:
    class Level(dict[int, Any]):
        def __missing__(self, key: int) -> object:
            return key and self[key - 1]

    return Level()[n]


@row
def a_default_factory(n: int) -> object:
    left = [n]

    def factory() -> object:
        left[0] -= 1
        return left[0] > 0 and levels[left[0]]

    levels: Any = collections.defaultdict(factory)
    return levels[n]


@row
def init(n: int) -> object:
    class Level:
        def __init__(self, n: int) -> None:
            self.below = n and Level(n - 1)

    return Level(n)


@row
def new(n: int) -> object:
    class Level:
        def __new__(cls, n: int) -> Any:
            return n and cls(n - 1)

    return Level(n)


@row
def a_metaclass(n: int) -> object:
    class Meta(type):
        def __call__(cls, n: int) -> Any:
            return n and cls(n - 1)

    class Level(metaclass=Meta):
        def __init__(self, n: int) -> None: ...

    return Level(n)


@row
def making_classes(n: int) -> object:
    class Level:
        def __init_subclass__(cls) -> None:
            left[0] -= 1
            if left[0] > 0:
                type("Level", (Level,), {})

    left = [n]
    return type("Level", (Level,), {})


@row
def set_name(n: int) -> object:
    class Member:
        def __set_name__(self, owner: Any, name: str) -> None:
            left[0] -= 1
            if left[0] > 0:
                type("Level", (), {"member": Member()})

    left = [n]
    return type("Level", (), {"member": Member()})


@row
def class_getitem(n: int) -> object:
    class Level:
        def __class_getitem__(cls, n: int) -> Any:
            return n and cls[n - 1]

    return Level[n]


@row
def instance_checks(n: int) -> object:
    class Meta(type):
        def __instancecheck__(cls, instance: int) -> bool:
            return not instance or isinstance(instance - 1, Level)

    class Level(metaclass=Meta):
        pass

    return isinstance(n, Level)


@row
def subclass_checks(n: int) -> object:
    left = [n]

    class Meta(type):
        def __subclasscheck__(cls, other: Any) -> bool:
            left[0] -= 1
            return left[0] <= 0 or issubclass(other, Level)

    class Level(metaclass=Meta):
        pass

    return issubclass(int, Level)


@row
def subclass_hooks(n: int) -> object:
    left = [n]

    class Level(abc.ABC):  # noqa: B024
        @classmethod
        def __subclasshook__(cls, other: Any) -> Any:
            left[0] -= 1
            return left[0] <= 0 or issubclass(type("New", (), {}), Level)

    return issubclass(int, Level)


@row
def bases_hooks(n: int) -> object:
    left = [n]

    class Level:
        @property
        def __bases__(self) -> Any:
            left[0] -= 1
            return (Level(), Level()) if left[0] > 0 else ()

    return issubclass(Level(), int)  # type: ignore[arg-type]


@row
def a_raw_file(n: int) -> object:
    class Level(io.RawIOBase):
        def __init__(self, n: int) -> None:
            self.n = n

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.n > 0:
                io.BufferedReader(Level(self.n - 1)).read(1)
            return 0

    return io.BufferedReader(Level(n)).read(1)


@row
def a_text_file(n: int) -> object:
    class Level(io.StringIO):
        def write(self, text: str) -> int:
            left[0] -= 1
            if left[0] > 0:
                print("x", file=self)
            return 1

    left = [n]
    return print("x", file=Level())


@row
def join_(n: int) -> object:
    def items() -> Iterator[str]:
        join_(n - 1)
        yield "x"

    return n and "".join(items())


# ---- generators and coroutines -------------------------------------------------------------------


def _yield_from(n: int) -> Iterator[int]:
    if n > 0:
        yield from _yield_from(n - 1)
    yield n


@row
def yield_from(n: int) -> object:
    return next(_yield_from(n))


def _for_in(n: int) -> Iterator[int]:
    if n > 0:
        for x in _for_in(n - 1):  # noqa: UP028
            yield x
    yield n


@row
def generators_in_generators(n: int) -> object:
    return next(_for_in(n))


@row
def a_generator_expression(n: int) -> object:
    return n and sum(x for x in [a_generator_expression(n - 1)] if x)


@row
def closing_generators(n: int) -> object:
    def level(n: int) -> Iterator[int]:
        try:
            yield n
        finally:
            if n > 0:
                inner = level(n - 1)
                next(inner)
                inner.close()  # type: ignore[attr-defined]

    outer = level(n)
    next(outer)
    outer.close()  # type: ignore[attr-defined]
    return None


@row
def coroutines(n: int) -> object:
    async def level(n: int) -> int:
        return await level(n - 1) if n > 0 else 0

    return _driven(level(n))


def _driven(coro: Any) -> object:
    try:
        coro.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


@row
def awaitables(n: int) -> object:
    class Level:
        def __init__(self, n: int) -> None:
            self.n = n

        def __await__(self) -> Any:
            if self.n > 0:
                yield from Level(self.n - 1).__await__()

    async def main() -> None:
        await Level(n)

    return _driven(main())


@row
def async_generators(n: int) -> object:
    async def level(n: int) -> AsyncIterator[int]:
        if n > 0:
            async for x in level(n - 1):
                yield x
        yield n

    async def main() -> int:
        async for x in level(n):
            return x
        return 0

    return _driven(main())


@row
def tasks(n: int) -> object:
    async def level(n: int) -> int:
        return await asyncio.create_task(level(n - 1)) if n > 0 else 0

    return asyncio.run(level(min(n, 3000)))


# ---- contexts ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _level(n: int) -> Iterator[None]:
    if n > 0:
        with _level(n - 1):
            yield
    else:
        yield


@row
def context_managers(n: int) -> object:
    with _level(n):
        return None


@row
def exit_stacks(n: int) -> object:
    def level(n: int) -> None:
        with contextlib.ExitStack() as stack:
            if n > 0:
                stack.callback(level, n - 1)

    return level(n)


@row
def exceptions_in_exceptions(n: int) -> object:
    def level(n: int) -> object:
        try:
            raise ValueError(n)  # each goes through the contexts of all before
        except ValueError:
            return n and level(n - 1)

    return level(min(n, 2000))


# ---- nested data ---------------------------------------------------------------------------------


@row
def repr_of_lists(n: int) -> object:
    return len(repr(nested(n)))


@row
def repr_of_dicts(n: int) -> object:
    return len(repr(nested(n, lambda x: {1: x})))


@row
def equal_lists(n: int) -> object:
    return nested(n) == nested(n)


@row
def ordered_tuples(n: int) -> object:
    n = min(n, 2000)  # it takes the square of it
    return nested(n, lambda x: (x,), 1) < nested(n, lambda x: (x,), 2)


@row
def equal_dicts(n: int) -> object:
    return nested(n, lambda x: {1: x}) == nested(n, lambda x: {1: x})


@row
def equal_deques(n: int) -> object:
    def around(x: Any) -> Any:
        return collections.deque([x])

    return nested(n, around) == nested(n, around)


@row
def hash_of_frozensets(n: int) -> object:
    return hash(nested(min(n, 5000), lambda x: frozenset([x])))


@row
def instances_of_nested_tuples(n: int) -> object:
    return isinstance(1, nested(n, lambda x: (x,), str))


@row
def except_nested_tuples(n: int) -> object:
    try:
        raise ValueError
    except nested(n, lambda x: (x,), ValueError):
        return None
    except ValueError:
        return None


@row
def generic_aliases(n: int) -> object:
    return len(repr(nested(n, lambda x: list[x], int)))  # type: ignore[valid-type]


@row
def hash_of_generic_aliases(n: int) -> object:
    return hash(nested(n, lambda x: list[x], int))  # type: ignore[valid-type]


@row
def typing_aliases(n: int) -> object:
    return len(repr(nested(min(n, 5000), lambda x: typing.List[x], int)))  # noqa: UP006  # type: ignore


@row
def partials_of_partials(n: int) -> object:
    return len(repr(nested(n, lambda x: functools.partial(print, x), 1)))


@row
def methods_of_methods(n: int) -> object:
    return hash(nested(n, lambda x: types.MethodType(print, x), 1))


@row
def calls_of_methods_of_methods(n: int) -> object:
    n = min(n, 5000)  # likewise
    return nested(n, lambda x: types.MethodType(x, 1), print)(file=io.StringIO())


@row
def weak_proxies(n: int) -> object:
    class Level:
        def __init__(self, below: Any) -> None:
            self.below = below

        def __str__(self) -> str:
            return str(weakref.proxy(self.below)) if self.below else ""

    return str(nested(n, Level))


@row
def named_tuples_and_dataclasses(n: int) -> object:
    @dataclasses.dataclass
    class Level:
        below: Any

    return repr(nested(n, Level)) and nested(n, Level) == nested(n, Level)


@row
def simple_namespaces(n: int) -> object:
    return len(repr(nested(n, lambda x: types.SimpleNamespace(x=x))))


@row
def mapping_proxies(n: int) -> object:
    return len(repr(nested(n, types.MappingProxyType, {})))


@row
def ordered_dicts(n: int) -> object:
    return len(repr(nested(n, lambda x: collections.OrderedDict(x=x))))


@row
def slices(n: int) -> object:
    return nested(n, slice) == nested(n, slice)


@row
def json_dumps(n: int) -> object:
    return len(json.dumps(nested(n)))


@row
def json_dumps_of_dicts(n: int) -> object:
    return len(json.dumps(nested(n, lambda x: {"a": x})))


@row
def json_dumps_indented(n: int) -> object:
    return len(json.dumps(nested(min(n, 1500)), indent=1))


@row
def json_loads(n: int) -> object:
    n = min(n, DEEP)
    return json.loads("[" * n + "]" * n)


@row
def json_loads_of_dicts(n: int) -> object:
    n = min(n, DEEP)
    return json.loads('{"a":' * n + "1" + "}" * n)


@row
def json_default(n: int) -> object:
    class Level:
        def __init__(self, n: int) -> None:
            self.n = n

    return json.dumps(Level(n), default=lambda x: x.n and [Level(x.n - 1)])


@row
def json_object_hook(n: int) -> object:
    left = [n]

    def hook(_: Any) -> Any:
        left[0] -= 1
        return left[0] > 0 and json.loads("{}", object_hook=hook)

    return json.loads("{}", object_hook=hook)


@row
def deep_copies(n: int) -> object:
    return copy.deepcopy(nested(n))


@row
def pickled(n: int) -> object:
    return len(pickle.dumps(nested(n)))


@row
def pickled_by_an_old_protocol(n: int) -> object:
    return len(pickle.dumps(nested(n, lambda x: (x,)), 0))


class _Pickled:
    def __init__(self, below: Any) -> None:
        self.below = below

    def __setstate__(self, state: Any) -> None:
        pickle.loads(state)

    def __reduce__(self) -> Any:
        return _Pickled, (), self.below


@row
def pickled_objects(n: int) -> object:
    return len(pickle.dumps(nested(n, lambda x: _Pickled([x]))))


@row
def unpickled(n: int) -> object:
    return pickle.loads(b"\x80\x04" + b"(l" * min(n, DEEP) + b"N" + b"a" * min(n, DEEP) + b".")


@row
def marshalled(n: int) -> object:
    return marshal.loads(marshal.dumps(nested(n)))


@row
def pretty_printed(n: int) -> object:
    return len(pprint.pformat(nested(min(n, 300))))  # it takes the square of it


# ---- source code ---------------------------------------------------------------------------------

for _name, _text in {
    "minus": ("-", "1", ""),
    "not": ("not ", "1", ""),
    "parentheses": ("(", "1", ")"),
    "lists": ("[", "1", "]"),
    "subscripts": ("a[", "1", "]"),
    "calls": ("f(", "1", ")"),
    "lambdas": ("lambda:", "1", ""),
    "attributes": ("", "a", ".a"),
    "indices": ("", "a", "[0]"),
    "sums": ("1+", "1", ""),
    "powers": ("1**", "1", ""),
    "conditions": ("1 if a else ", "1", ""),
    "comparisons": ("1<", "1", ""),
    "walrus": ("(a:=", "1", ")"),
    "stars": ("*", "a", ""),
    "f-strings": ("f'{'", "1", "'}'"),
    "targets": ("a=", "1", ""),
    "awaits": ("await ", "1", ""),
}.items():

    def _source(n: int, text: tuple[str, str, str] = _text) -> str:
        before, core, after = text
        n = min(n, DEEP)
        return before * n + core + after * n

    def _compile(n: int, source: Callable[[int], str] = _source) -> object:
        return compile(source(n), "<source>", "exec")

    def _parse(n: int, source: Callable[[int], str] = _source) -> object:
        return ast.parse(source(n))

    ROWS[f"compile {_name}"] = _compile
    ROWS[f"parse {_name}"] = _parse


@row
def blocks(n: int) -> object:
    source = "".join(" " * i + "if 1:\n" for i in range(min(n, 2000)))
    return compile(source + " " * min(n, 2000) + "1", "<source>", "exec")


@row
def functions_in_functions(n: int) -> object:
    source = "".join(" " * i + "def f():\n" for i in range(min(n, 2000)))
    return compile(source + " " * min(n, 2000) + "1", "<source>", "exec")


@row
def else_if(n: int) -> object:
    source = "if 1: 1\n" + "elif 1: 1\n" * min(n, 20_000)
    return compile(source, "<source>", "exec")


@row
def patterns(n: int) -> object:
    n = min(n, DEEP)
    return compile(f"match 1:\n case {'[' * n}a{']' * n}: 1", "<source>", "exec")


def _trees(n: int) -> ast.Expression:
    at = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 1}
    node: ast.expr = ast.Constant(1, **at)
    for _ in range(min(n, DEEP)):
        node = ast.UnaryOp(ast.USub(), node, **at)
    return ast.Expression(node)


@row
def a_tree_compiled(n: int) -> object:
    return compile(_trees(n), "<tree>", "eval")


@row
def a_tree_dumped(n: int) -> object:
    return len(ast.dump(_trees(min(n, 5000))))


@row
def a_tree_unparsed(n: int) -> object:
    return len(ast.unparse(_trees(min(n, 5000))))


@row
def a_tree_visited(n: int) -> object:
    return ast.NodeVisitor().visit(_trees(n))


@row
def a_tree_copied(n: int) -> object:
    return copy.deepcopy(_trees(min(n, 5000)))


@row
def literal_eval(n: int) -> object:
    n = min(n, DEEP)
    return ast.literal_eval("[" * n + "]" * n)


@row
def literal_eval_of_sums(n: int) -> object:
    return ast.literal_eval("-" * min(n, DEEP) + "1")


@row
def tokens(n: int) -> object:
    text = "(" * min(n, DEEP)
    try:
        return len(list(tokenize.generate_tokens(io.StringIO(text).readline)))
    except tokenize.TokenError:
        return None


@row
def groups_of_a_pattern(n: int) -> object:
    n = min(n, 5000)
    return re.compile("(?:" * n + "a" + ")*" * n) and None


@row
def a_pattern_on_a_long_text(n: int) -> object:
    return re.match(r"(?:a|b)*?c", "ab" * min(n, DEEP))


@row
def signatures(n: int) -> object:
    def f() -> None: ...

    def around(x: Any) -> Any:
        def g() -> None: ...

        g.__wrapped__ = x  # type: ignore[attr-defined]
        return g

    return inspect.signature(nested(min(n, 5000), around, f))


@row
def tracebacks(n: int) -> object:
    def around(x: Any) -> BaseException:
        error = ValueError(1)
        error.__cause__ = x
        return error

    return len("".join(traceback.format_exception(nested(min(n, 2000), around))))


@row
def exception_groups(n: int) -> object:
    group = nested(min(n, 20_000), lambda x: ExceptionGroup("x", [x]), ValueError())
    return group.split(KeyError)


# ---- XML -----------------------------------------------------------------------------------------


def _element(n: int) -> xml.etree.ElementTree.Element:
    root = at = xml.etree.ElementTree.Element("a")
    for _ in range(min(n, DEEP)):
        at = xml.etree.ElementTree.SubElement(at, "a")
    return root


@row
def elements_as_text(n: int) -> object:
    return len(xml.etree.ElementTree.tostring(_element(min(n, 5000))))


@row
def elements_copied(n: int) -> object:
    return copy.deepcopy(_element(n))


@row
def elements_parsed(n: int) -> object:
    n = min(n, DEEP)
    return xml.etree.ElementTree.fromstring("<a>" * n + "a" + "</a>" * n) is None


@row
def elements_walked(n: int) -> object:
    return sum(1 for _ in _element(n).iter())


@row
def elements_found(n: int) -> object:
    return _element(min(n, 5000)).findall(".//b")


@row
def elements_pickled(n: int) -> object:
    return len(pickle.dumps(_element(n)))


@row
def parsers_in_parsers(n: int) -> object:
    def begin(name: str, attributes: dict[str, str]) -> None:
        parsers_in_parsers(n - 1)

    if n > 0:
        parser = xml.parsers.expat.ParserCreate()
        parser.StartElementHandler = begin
        parser.Parse("<a/>", True)
    return None


# ---- the end of what is nested -------------------------------------------------------------------


def ends(around: Callable[[Any], Any]) -> Row:
    def dive(n: int) -> object:
        x = nested(n, around)
        del x
        return None

    return dive


class _Node:
    def __init__(self, below: Any) -> None:
        self.below = below


class _Slotted:
    __slots__ = ("below",)

    def __init__(self, below: Any) -> None:
        self.below = below


class _Told(_Node):
    def __del__(self) -> None:
        pass


class _List(list[Any]):
    pass


def _suspended(below: Any) -> Iterator[Any]:
    yield below


def _generator(below: Any) -> Any:
    g = _suspended(below)
    next(g)
    return g


def _weakly(below: Any) -> Any:
    node = _Node(below)
    node.ref = weakref.ref(node, lambda _: None)  # type: ignore[attr-defined]
    return node


def _closure(below: Any) -> Any:
    return lambda: below


def _with_a_traceback(below: Any) -> Any:
    try:
        raise ValueError(below)
    except ValueError as error:
        return error


for _name, _around in {
    "lists": lambda x: [x],
    "tuples": lambda x: (x,),
    "dicts": lambda x: {1: x},
    "objects": _Node,
    "objects with slots": _Slotted,
    "objects with __del__": _Told,
    "subclassed lists": lambda x: _List([x]),
    "deques": lambda x: collections.deque([x]),
    "ordered dicts": lambda x: collections.OrderedDict(x=x),
    "partials": lambda x: functools.partial(print, a=x),
    "generators": _generator,
    "closures": _closure,
    "cells": types.CellType,
    "bound methods": lambda x: types.MethodType(print, x or 1),
    "exceptions": ValueError,
    "exceptions with tracebacks": _with_a_traceback,
    "elements": lambda x: _append(xml.etree.ElementTree.Element("a"), x),
    "weakly referenced objects": _weakly,
    "namespaces": lambda x: types.SimpleNamespace(x=x),
    "iterators": lambda x: iter([x]),
    "chains": lambda x: itertools.chain([x]),
    "properties": property,
    "static methods": staticmethod,
    "default dicts": lambda x: collections.defaultdict(int, a=x),
}.items():
    ROWS[f"the end of {_name}"] = ends(_around)


def _append(element: Any, child: Any) -> Any:
    if child is not None:
        element.append(child)
    return element


@row
def destructors_that_make_objects(n: int) -> object:
    left = [min(n, DEEP)]  # what it raises is ignored

    class Level:
        def __del__(self) -> None:
            left[0] -= 1
            if left[0] > 0:
                Level()

    Level()
    return None


@row
def weak_callbacks_that_free_objects(n: int) -> object:
    class Level:
        pass

    def dive(n: int) -> None:
        level = Level()
        ref = weakref.ref(level, lambda _: dive(n - 1) if n > 0 else None)
        del level
        del ref

    return dive(n)


# Not counted by the interpreter, nor by the library: on a thread of 8 MiB so deep is deep enough.
UNCOUNTED = 20_000


@row
def maps_of_maps(n: int) -> object:
    x: Any = iter([1])
    for _ in range(min(n, UNCOUNTED)):
        x = map(abs, x)
    return next(x)


@row
def chains_of_chains(n: int) -> object:
    x: Any = iter([1])
    for _ in range(min(n, UNCOUNTED)):
        x = itertools.chain(x)
    return next(x)


@row
def enumerations_of_slices(n: int) -> object:
    x: Any = iter([1])
    for _ in range(min(n, UNCOUNTED)):
        x = itertools.islice(x, 1)
    return next(x)


@row
def the_hash_of_tuples(n: int) -> object:
    return hash(nested(min(n, UNCOUNTED), lambda x: (x,)))


@row
def the_end_of_delegating_generators(n: int) -> object:
    def level(below: Iterable[int]) -> Iterator[int]:
        yield from below

    x: Any = [1]
    for _ in range(min(n, UNCOUNTED)):
        x = level(x)
    return None


# ---- a child -------------------------------------------------------------------------------------


def _on_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def _in_a_goroutine(call: Callable[[], None]) -> None:
    import gmprt

    gmprt.go(call).result()


def _in_main(call: Callable[[], None]) -> None:
    import gmprt

    gmprt.run(call)


PLACES: dict[str, Callable[[Callable[[], None]], None]] = {
    "thread": _on_a_thread,
    "goroutine": _in_a_goroutine,
    "main": _in_main,
}
MODES = ("ends", "thousand", "high")
ENDLESS = 10**9
LIMITS = {"ends": 1000, "thousand": 20_000, "high": 20_000}
LEVELS = (1000, 700, 500, 350, 200, 100)


def _ends(row: Row, levels: int) -> str:
    try:
        row(levels)
    except BaseException as error:
        return type(error).__name__
    return "returned"


def _reaches(row: Row) -> str:
    """As many levels as it can, of LEVELS."""
    for n in LEVELS:
        outcome = _ends(row, n)
        if outcome != "RecursionError":
            return f"{outcome} {n}"
    return "RecursionError"


def _child(place: str, mode: str, names: Sequence[str]) -> None:
    """Prints of each row that it begins, then what came of it."""
    threading.stack_size(8 << 20)
    sys.setrecursionlimit(LIMITS[mode])
    sys.unraisablehook = _ignored
    for name in names:
        outcomes = []

        def call(row: Row = ROWS[name], outcomes: list[str] = outcomes) -> None:
            outcomes.append(_reaches(row) if mode == "thousand" else _ends(row, ENDLESS))

        print(name, end="\t", flush=True)
        PLACES[place](call)
        print(*outcomes, flush=True)


def _ignored(_: object) -> None: ...


# ---- the table -----------------------------------------------------------------------------------

CRASH = "crash"
PATH = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]


def outcomes(place: str, mode: str, names: Sequence[str], deep: int = DEEP) -> dict[str, str]:
    """What came of each row there."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        command = [sys.executable, __file__, "--child", str(deep), place, mode, *left]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300
        )
        lines = [line.split("\t") for line in child.stdout.splitlines()]
        found.update((name, outcome or CRASH) for name, outcome in lines)
        if child.returncode == 0:
            break
        assert child.returncode < 0, child.stderr
        left = left[len(lines) :]
    return found


def _levels(outcome: str) -> int:
    word, _, n = outcome.partition(" ")
    return int(n) if word == "returned" and n else 0


def _agree(mode: str, thread: str, here: str) -> bool:
    if mode == "high":
        return here != CRASH or thread == CRASH
    ended = ("RecursionError", "MemoryError")
    alike = here == thread or (thread in ended and here in (*ended, "returned"))
    return alike or thread == CRASH or 0 < _levels(thread) < _levels(here)


def table(
    place: str, mode: str, names: Sequence[str], deep: int = DEEP
) -> Iterator[tuple[str, str, str, bool]]:
    """The row, what came of it on a thread and here, and whether that is right."""
    asked = "ends" if (mode, place) == ("high", "goroutine") else mode
    with ThreadPoolExecutor() as pool:
        there = pool.submit(outcomes, "thread", asked, names, deep)
        here = outcomes(place, mode, names, deep)
        thread = there.result()
    for name in names:
        yield name, thread[name], here[name], _agree(mode, thread[name], here[name])


def main(places: Sequence[str]) -> int:
    wrong = 0
    for mode in MODES:
        for place in places or ("goroutine", "main"):
            for name, thread, here, right in table(place, mode, list(ROWS), 100_000):
                wrong += not right
                mark = "" if right else "   <<<"
                print(f"{mode:9} {place:10} {name:40} {here:16} {thread}{mark}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        DEEP = int(sys.argv[2])
        _child(sys.argv[3], sys.argv[4], sys.argv[5:])
    else:
        sys.exit(main(sys.argv[1:]))
