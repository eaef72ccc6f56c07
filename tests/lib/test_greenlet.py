"""csrc/py/interpose/greenlet.c: a goroutine that uses greenlets keeps its thread, and they work
there."""

from __future__ import annotations

import textwrap

import pytest
from support import run_child

pytest.importorskip("greenlet")

RAW = """
    import ctypes, gc, os, socket, threading, time
    import gmprt
    from gmprt import go, run
    from greenlet import GreenletExit, error, getcurrent, greenlet

    tid = threading.get_native_id

    def gone(thread):
        for _ in range(20000):
            if not os.path.exists(f"/proc/self/task/{thread}"):
                return True
            gmprt.sleep(.001)
        return False
"""

GEVENT = """
    def spawns(i):
        jobs = [gevent.spawn(lambda: (gevent.sleep(.1), i)[1]) for _ in range(3)]
        gevent.joinall(jobs)
        return [job.value for job in jobs]
    def main():
        goroutines = [gmprt.go(spawns, i) for i in range(20)]
        assert [g.result(30) for g in goroutines] == [[i] * 3 for i in range(20)]
        assert spawns(7) == [7] * 3
        gevent.get_hub().destroy()
    for _ in range(3):
        gmprt.run(main)
    print("ok")
"""


def passes(*code: str, procs: int = 2) -> None:
    """The scripts, joined, print "ok" in a process of their own."""
    whole = "\n".join(textwrap.dedent(part) for part in code)
    assert run_child(whole, env={"GOMAXPROCS": str(procs)}, timeout=60).stdout == "ok\n"


@pytest.mark.parametrize("procs", [1, 4])
def test_greenlets_that_block(procs: int) -> None:
    passes(
        RAW,
        """
        def work(i):
            a, b = socket.socketpair()
            threads = set()
            def sleeps(other):
                for _ in range(5):
                    time.sleep(.002)
                    threads.add(tid())
                    other.switch()
            def receives():
                got = b""
                while len(got) < 5:
                    got += b.recv(1)
                    threads.add(tid())
                    one.switch()
                return got
            def sends():
                for _ in range(5):
                    time.sleep(.001)
                    a.send(b"x")
            sender = go(sends)
            here = getcurrent()
            two = greenlet(receives)
            one = greenlet(sleeps)
            assert one.switch(two) is None and one.dead
            assert two.switch() == b"xxxxx" and two.dead
            sender.result(30)
            a.close(), b.close()
            together.wait(30)
            assert getcurrent() is here
            threads.add(tid())
            return threads
        together = threading.Barrier(20)
        def main():
            seen = [g.result(30) for g in [go(work, i) for i in range(20)]]
            assert [len(threads) for threads in seen] == [1] * 20, seen
            assert len(set.union(*seen)) == 20, "each on a thread of its own"
            assert all(gone(thread) for thread in set.union(*seen)), "which ends with it"
        run(main)
        print("ok")
        """,
        procs=procs,
    )


def test_gevent_patches_in_main() -> None:
    """The main thread is what it was, to threading, though its greenlet in main has ended."""
    pytest.importorskip("gevent")
    passes("""
        import threading, time
        import gevent.monkey
        import gmprt
        def main():
            gevent.monkey.patch_all()
            time.sleep(.001)
            gevent.get_hub().destroy()
        gmprt.run(main)
        time.sleep(.001)
        assert threading.current_thread() is threading.main_thread()
        gmprt.go(time.sleep, .001).result()
        print("ok")
    """)


@pytest.mark.parametrize("procs", [1, 4])
@pytest.mark.parametrize("imports", ["import gmprt, gevent", "import gevent, gmprt"])
def test_gevent(imports: str, procs: int) -> None:
    pytest.importorskip("gevent")
    passes(imports, GEVENT, procs=procs)


def test_sqlalchemy_asyncio() -> None:
    for library in ("sqlalchemy", "aiosqlite"):
        pytest.importorskip(library)
    passes(
        """
        import asyncio, gmprt
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        async def work(i):
            engine = create_async_engine("sqlite+aiosqlite://")
            async def one(j):
                async with engine.connect() as connection:
                    return (await connection.execute(text(f"select {i} * 100 + {j}"))).scalar()
            rows = await asyncio.gather(*(one(j) for j in range(5)))
            await engine.dispose()
            return rows
        def main():
            goroutines = [gmprt.go(asyncio.run, work(i)) for i in range(20)]
            for i, g in enumerate(goroutines):
                assert g.result(40) == [i * 100 + j for j in range(5)]
            assert asyncio.run(work(1)) == [100, 101, 102, 103, 104]
        asyncio.run(work(0))
        gmprt.run(main)
        gmprt.run(main)
        asyncio.run(work(0))
        print("ok")
        """
    )


def test_alive_when_the_goroutine_ends() -> None:
    """They are what those of a thread that has ended are."""
    passes(
        RAW,
        """
        kept, ends = [], []
        def waits(local):
            try:
                getcurrent().parent.switch(tid())
            except GreenletExit:
                ends.append(local)
        def work(i):
            one, two = greenlet(waits), greenlet(waits)
            assert one.switch(i) == two.switch(i) == tid()
            kept.append(one)  # the other one ends here
            return tid()
        def main():
            for i in range(20):
                assert gone(go(work, i).result(30))
            assert ends == list(range(20))
            for one in kept:
                try:
                    one.switch()
                except error as e:
                    assert "different thread" in str(e)
                else:
                    raise AssertionError
            for g in [go(kept[i].switch) for i in range(20)]:
                assert isinstance(g.exception(30), error)
            kept.clear()
            gc.collect()
            assert [go(work, i).result(30) > 0 for i in range(20)] == [True] * 20
        run(main)
        print("ok")
        """,
    )


def test_pairs_of_lock_and_unlock_around() -> None:
    passes(
        RAW,
        """
        def work(before, first):
            for _ in range(before):
                gmprt.lock_os_thread()
            here = first()
            threads = {tid()}
            for _ in range(before + 3):
                gmprt.unlock_os_thread()
                gmprt.sleep(.001)
                threads.add(tid())
            gmprt.lock_os_thread()
            gmprt.unlock_os_thread()
            assert gmprt.current().locked_to_thread
            assert greenlet(lambda: 5).switch() == 5
            return len(threads)
        class Sub(greenlet):
            pass
        firsts = [getcurrent, greenlet, Sub, lambda: greenlet.__new__(Sub),
                  lambda: greenlet(int).switch()]
        def main():
            other = go(lambda: [gmprt.sleep(.0005) for _ in range(200)])
            goroutines = [go(work, n, first) for n in range(3) for first in firsts]
            assert [g.result(30) for g in goroutines] == [1] * 15
            other.result(30)
        run(main)
        print("ok")
        """,
    )


def test_subclasses_from_before() -> None:
    passes(
        """
        from greenlet import greenlet
        class Sub(greenlet):
            pass
        class New(Sub):
            def __new__(cls):
                return Sub.__new__(cls)
        """,
        RAW,
        """
        def work(make):
            one = make()
            assert gmprt.current().locked_to_thread
            return type(one)
        for make in Sub, New, lambda: greenlet.__new__(New):
            assert issubclass(go(work, make).result(30), Sub)
        print("ok")
        """,
    )


def test_main_goroutine() -> None:
    """It gets a thread of its own as well: the caller's greenlets are on another stack."""
    passes(
        RAW,
        """
        gettid = ctypes.CDLL(None).gettid  # the real one
        def raises(kind, fn, *args):
            try:
                fn(*args)
            except kind as e:
                return str(e)
            raise AssertionError(fn)
        def ping():
            while True:
                getcurrent().parent.switch(tid())
        outside = greenlet(ping)
        assert outside.switch() == os.getpid()
        def main():
            gmprt.lock_os_thread()
            assert "before lock_os_thread" in raises(RuntimeError, greenlet)
            gmprt.unlock_os_thread()
            assert "different thread" in raises(error, outside.switch)
            inside = greenlet(ping)
            threads = set()
            for _ in range(10):
                inside.switch()
                threads.add(gettid())
                gmprt.sleep(.001)
            assert len(threads) == 1 and os.getpid() not in threads
            assert "uses greenlets" in raises(RuntimeError, gmprt.lock_os_thread)
            gmprt.unlock_os_thread()
            return inside
        for _ in range(3):
            assert "different thread" in raises(error, run(main).switch)
            assert outside.switch() == os.getpid()
        print("ok")
        """,
    )


def test_others_stay_free() -> None:
    passes(
        RAW,
        """
        def main():
            goroutines = [go(time.sleep, .1) for _ in range(200)]
            gmprt.sleep(.05)
            assert not any(g.locked_to_thread for g in goroutines)
            assert len(os.listdir("/proc/self/task")) < 50
            for g in goroutines:
                g.result(30)
        run(main)
        print("ok")
        """,
    )


def test_no_thread_left() -> None:
    passes(
        RAW,
        """
        gmprt.set_max_threads(4)
        stop = gmprt.Chan()
        def work(first):
            try:
                first()
            except gmprt.TooManyThreads:
                assert not gmprt.current().locked_to_thread
                return False
            stop.recv()
            return True
        def main():
            goroutines = [go(work, f) for _ in range(5) for f in (getcurrent, greenlet)]
            while sum(g.done() for g in goroutines) + stop.statistics().waiting_receivers < 10:
                gmprt.sleep(.001)
            assert 0 < stop.statistics().waiting_receivers < 4
            stop.close()
            for g in goroutines:
                g.join(30)
            assert go(lambda: greenlet(int).switch()).result(30) == 0
        go(main).result(50)
        print("ok")
        """,
    )


def test_switches_below_file_objects_and_cancel() -> None:
    """Reads of buffered files that end in another order than they have begun in, and a cancel."""
    passes(
        RAW,
        """
        import io
        class Raw(io.RawIOBase):
            def readable(self):
                return True
            def readinto(self, b):
                getcurrent().parent.switch()
                b[:1] = b"x"
                return 1
        def reads():
            return io.BufferedReader(Raw()).read(3)
        def deep(n):
            return deep(n - 1) if n else reads()
        ready, never = gmprt.Chan(1), gmprt.Chan()
        def work():
            jobs = [greenlet(reads if i % 2 else lambda: deep(20)) for i in range(10)]
            for _ in range(4):
                for job in jobs:
                    got = job.switch()
                    time.sleep(.0001)
                    assert got in ((), b"xxx")
            assert all(job.dead for job in jobs)
            ready.send(1)
            time.sleep(.05)  # no end to it
            ends.append("slept")
            never.recv()
        class First(Raw):
            def readinto(self, b):
                getcurrent()
                b[:1] = b"x"
                return 1
        def first():
            got = io.BufferedReader(First()).read(3)
            time.sleep(.0001)
            return got
        ends = []
        def main():
            g = go(work)
            ready.recv()
            g.cancel()
            assert g.join(30) and g.cancelled() and ends == ["slept"]
            assert go(first).result(30) == b"xxx"
        run(main)
        print("ok")
        """,
    )


def test_forked_child() -> None:
    passes(
        RAW,
        """
        def uses():
            one = greenlet(lambda: getcurrent().parent.switch(1) or 2)
            return one.switch(), one.switch()
        def main(before):
            assert not before or uses() == (1, 2)
            child = os.fork()
            if not child:
                gmprt.lock_os_thread()
                gmprt.sleep(.001)
                gmprt.unlock_os_thread()
                assert uses() == go(uses).result(30) == uses() == (1, 2)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        for before in False, True:
            run(main, before)
            go(main, before).result(30)
            run(lambda: go(main, before).result(30))
        print("ok")
        """,
    )


def test_a_forked_child_that_leaves_run() -> None:
    """Its thread is the one that the greenlets are of: what is left of them needs their stack."""
    passes(
        RAW,
        """
        kept = []
        def counts(x):
            while True:
                x = list(map(lambda y: getcurrent().parent.switch(y + 1), [x]))[0]
        def forks():
            kept.extend(greenlet(counts) for _ in range(3))
            assert [g.switch(1) for g in kept] == [2] * 3
            child = os.fork()
            if child:
                print("ok" if os.waitpid(child, 0)[1] == 0 else "died")
            return child
        def together(n):
            '''So many in run(), then none: more than one stack of main goroutines is not kept.'''
            ends = [threading.Event() for _ in range(n)]
            for end in ends:
                up = threading.Event()
                end.of = threading.Thread(target=run, args=(lambda: (up.set(), end.wait()),))
                end.of.start()
                up.wait()
            for end in reversed(ends):
                end.set()
                end.of.join()
        if run(forks) == 0:
            together(2)
            assert [g.switch(7) for g in kept] == [8] * 3
            assert greenlet(lambda: 5).switch() == 5
            del kept[:]
            together(2)
        """,
    )
