"""Pool: things are used again, never by two at once, and dropped when nobody asks for them."""

from __future__ import annotations

import gc
import weakref

import pytest
from support import PATIENCE, mixed

import gmprt
from gmprt import Pool


class Thing:
    users = 0


def test_get_and_put() -> None:
    pool = Pool(Thing)
    first = pool.get()
    second = pool.get()
    assert first is not second
    pool.put(first)
    assert pool.get() is first
    pool.put(first)
    pool.put(second)
    assert pool.get() is second, "the last is the warmest"
    pool.new = lambda: second
    pool.get()
    assert pool.get() is second


def test_new_must_be_callable() -> None:
    with pytest.raises(TypeError, match=r"^Pool\(\): new must be callable, not int$"):
        Pool(1)  # type: ignore[arg-type]


def test_nobody_shares(procs: int) -> None:
    pool = Pool(Thing)

    def work() -> None:
        for i in range(500):
            thing = pool.get()
            thing.users += 1
            assert thing.users == 1
            if i % 3 == 0:
                gmprt.gosched()
            thing.users -= 1
            pool.put(thing)

    for t in [mixed(i, work) for i in range(8)]:
        t.result(PATIENCE)


def test_what_is_not_used_is_dropped() -> None:
    pool = Pool(Thing)
    thing = pool.get()
    gone = weakref.ref(thing)
    pool.put(thing)
    del thing
    gc.collect()
    assert gone() is not None, "one collection makes it a victim"
    thing = pool.get()
    assert thing is gone()
    pool.put(thing)
    del thing
    gc.collect()
    gc.collect()
    assert gone() is None


def test_a_pool_itself_goes() -> None:
    pool = Pool(Thing)
    gone = weakref.ref(pool)
    del pool
    assert gone() is None
