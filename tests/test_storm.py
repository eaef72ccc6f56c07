"""Unmodified blocking Python while everything happens: signals every millisecond, time-outs that
end as data comes, closes under those who wait, cancels, forks, changes of GOMAXPROCS; with and
without chaos.  tests/c/storm_test.c does the same to the runtime alone, under the sanitizers.

Of one call little can be expected, but each goroutine ends, nothing is lost that was guarded, no
exception is one that a thread could not have had, and the process ends well.
"""

from __future__ import annotations

import pytest
from support import run_child

COMMON = """
    import errno, gmprt, os, queue, random, select, signal, socket, sys, threading, time
    from gmprt import Cancelled, go

    END = time.monotonic() + 1.2
    LEGAL = (
        TimeoutError, queue.Empty, queue.Full, BlockingIOError, ConnectionError,
        ValueError,  # a negative descriptor: the socket was closed before the call
    )
    counts = {}
    odd = []

    def storming():
        return time.monotonic() < END

    def count(what):
        counts[what] = counts.get(what, 0) + 1

    def legal(error):
        if isinstance(error, LEGAL):
            return True
        # closed before or under the call, and the number is used again
        closed = errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN
        return isinstance(error, OSError) and error.errno in closed

    def until_the_end(operation):
        def body(seed):
            rng = random.Random(seed)
            while storming():
                try:
                    operation(rng)
                    count(operation.__name__)
                except Cancelled:
                    count("cancelled")
                except Exception as error:
                    count(type(error).__name__)
                    if not legal(error):
                        odd.append((operation.__name__, repr(error)))
        return body

    # ---- descriptors -------------------------------------------------------------------------

    pairs = [socket.socketpair() for _ in range(4)]

    @until_the_end
    def receives(rng):
        s = rng.choice(pairs)[0]
        s.settimeout(rng.choice([0.0002, 0.002, 0.02, 1]))
        s.recv(100)

    @until_the_end
    def sends(rng):
        s = rng.choice(pairs)[1]
        s.settimeout(0.001)
        s.sendall(bytes(rng.randrange(1, 3000)))
        time.sleep(rng.random() / 2000)

    @until_the_end
    def selects(rng):
        a, b = rng.choice(pairs)
        select.select([a], [b], [], rng.random() / 500)
        p = select.poll()
        p.register(rng.choice(pairs)[0], select.POLLIN)
        p.poll(rng.randrange(3))

    @until_the_end
    def closes(rng):
        i = rng.randrange(len(pairs))
        old, pairs[i] = pairs[i], socket.socketpair()
        for s in old:
            s.shutdown(socket.SHUT_RDWR)
            s.close()
        time.sleep(rng.random() / 200)

    @until_the_end
    def connects(rng):
        with socket.create_connection(server.getsockname(), rng.choice([None, 0.01, 1])) as s:
            s.settimeout(0.05)  # the server ends when the storm does
            s.sendall(b"x")
            s.recv(1)

    def serves(seed):
        server.settimeout(0.01)
        while storming():
            try:
                connection = server.accept()[0]
            except TimeoutError:
                continue
            except Cancelled:
                continue
            with connection:
                connection.settimeout(0.01)
                try:
                    connection.sendall(connection.recv(1))
                except Cancelled:
                    pass
                except Exception as error:
                    if not legal(error):
                        odd.append(("serves", repr(error)))

    # ---- what must not be lost -----------------------------------------------------------------

    lock, rlock, condition = threading.Lock(), threading.RLock(), threading.Condition()
    semaphore, jobs = threading.Semaphore(2), queue.Queue(3)
    guarded = {"lock": 0, "rlock": 0, "put": 0, "got": 0}
    inside = [0, 0]

    @until_the_end
    def locks(rng):
        if lock.acquire(timeout=rng.choice([-1, 0.0005])):
            try:
                before = guarded["lock"]
                inside[0] += 1
                assert inside[0] == 1
                gmprt.gosched()
                guarded["lock"] = before + 1
            finally:
                inside[0] -= 1
                lock.release()
        with rlock, rlock:
            guarded["rlock"] += 1
        with condition:
            condition.wait(rng.random() / 1000)
            condition.notify()
        if semaphore.acquire(timeout=0.001):
            try:
                inside[1] += 1
                assert inside[1] <= 2
                time.sleep(0.0001)
            finally:
                inside[1] -= 1
                semaphore.release()

    @until_the_end
    def puts(rng):
        jobs.put(rng.random(), timeout=0.002)

    @until_the_end
    def gets(rng):
        jobs.get(timeout=0.002)

    # ---- weather ------------------------------------------------------------------------------

    ticks = [0]
    def tick(number, frame):
        ticks[0] += 1
        if ticks[0] % 7 == 0:
            time.sleep(0)

    def weather(goroutines, forks):
        rng = random.Random(0)
        while storming():
            gmprt.gomaxprocs(rng.randint(1, 4))
            rng.choice(goroutines).cancel()
            if forks and rng.random() < 0.2:
                pid = os.fork()
                if pid == 0:
                    child()
                status = os.waitpid(pid, 0)[1]
                assert status == 0, status
                count("forked")
            gmprt.sleep(rng.random() / 100)

    def child():
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            a, b = socket.socketpair()
            g = go(a.recv, 9)
            time.sleep(0.001)
            go(b.send, b"hello").result(10)
            os._exit(0 if g.result(10) == b"hello" else 3)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(4)

    def storm(kinds, forks=False):
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        goroutines = [go(kind, i) for kind in kinds for i in range(3)]
        threads = [threading.Thread(target=kind, args=(100,)) for kind in kinds]
        for t in threads if not forks else []:
            t.start()
        weather(goroutines, forks)
        for t in threads if not forks else []:
            t.join()
        for g in goroutines:
            e = g.exception(20)
            assert e is None or isinstance(e, gmprt.GoroutineCancelled), e
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert not odd, odd
        assert ticks[0] > 10, ticks
"""

CHAOS = pytest.mark.parametrize("chaos", ["", "20261126"])


@CHAOS
def test_descriptors(chaos: str) -> None:
    code = """
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    gmprt.run(storm, [receives, sends, selects, closes, connects, serves])
    assert gmprt.num_goroutine() == 0
    missing = {"receives", "sends", "selects", "closes", "connects", "cancelled"} - counts.keys()
    assert not missing, (missing, counts)
    print("done")
    """
    assert run_child(COMMON + code, env={"GMPRT_CHAOS": chaos}, timeout=50).stdout == "done\n"


@CHAOS
def test_locks(chaos: str) -> None:
    code = """
    gmprt.run(storm, [locks, puts, gets])
    assert gmprt.num_goroutine() == 0
    assert not lock.locked() and rlock.acquire(blocking=False) and inside == [0, 0]
    missing = {"locks", "puts", "gets", "cancelled"} - counts.keys()
    assert not missing, (missing, counts)
    print("done")
    """
    assert run_child(COMMON + code, env={"GMPRT_CHAOS": chaos}, timeout=50).stdout == "done\n"


@CHAOS
def test_forks(chaos: str) -> None:
    """In the midst of it; goroutines, descriptors and timers of the child are its own."""
    code = """
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    gmprt.run(storm, [receives, sends, closes, connects, serves, locks], True)
    assert counts.get("forked", 0) > 0, counts
    print("done")
    """
    assert run_child(COMMON + code, env={"GMPRT_CHAOS": chaos}, timeout=50).stdout == "done\n"
