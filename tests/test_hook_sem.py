"""csrc/py/interpose/hooks/sem.c: locks of the interpreter, and all that is built on them."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scenes import Bell, Scene, Scenes, Stage, brief, broken_off, cancelled, failure, interrupted
from support import PATIENCE, Thread, ended, eventually, mixed, parked, run_child

import gmprt
from gmprt import go

scenes = Scenes()


@scenes(True)
def lock(stack: ExitStack) -> Stage:
    lock = threading.Lock()
    lock.acquire()
    return lock.acquire, lock.release


@scenes("inside")
def lock_with(stack: ExitStack) -> Stage:
    lock = threading.Lock()
    lock.acquire()

    def call() -> str:
        with lock:
            return "inside"

    return call, lock.release


@scenes(True)
def lock_with_timeout(stack: ExitStack) -> Stage:
    lock = threading.Lock()
    lock.acquire()
    return lambda: lock.acquire(timeout=PATIENCE), lock.release


@scenes(False, wakes=False)
def lock_times_out(stack: ExitStack) -> Stage:
    lock = threading.Lock()
    lock.acquire()
    return lambda: lock.acquire(timeout=brief()), None


@scenes(False, parks=False)
def lock_now(stack: ExitStack) -> Stage:
    lock = threading.Lock()
    lock.acquire()
    return lambda: lock.acquire(blocking=False), None


@scenes("inside")
def rlock(stack: ExitStack) -> Stage:
    lock = threading.RLock()
    held = threading.Event()
    enough = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            enough.wait()

    holder = Thread(hold)
    stack.callback(holder.join)
    stack.callback(enough.set)
    held.wait()

    def call() -> str:
        with lock, lock:
            return "inside"

    return call, enough.set


@scenes(True)
def event(stack: ExitStack) -> Stage:
    event = threading.Event()
    return event.wait, event.set


@scenes(True)
def event_with_timeout(stack: ExitStack) -> Stage:
    event = threading.Event()
    return lambda: event.wait(PATIENCE), event.set


@scenes(False, wakes=False)
def event_times_out(stack: ExitStack) -> Stage:
    event = threading.Event()
    return lambda: event.wait(brief()), None


@scenes(True)
def condition(stack: ExitStack) -> Stage:
    condition = threading.Condition()

    def call() -> bool:
        with condition:
            return condition.wait()

    def wake() -> None:
        # A thread that sleeps may have been about to wait: for the GIL.
        eventually(lambda: condition._waiters)  # type: ignore[attr-defined]
        with condition:
            condition.notify()

    return call, wake


@scenes(False, wakes=False)
def condition_times_out(stack: ExitStack) -> Stage:
    condition = threading.Condition()

    def call() -> bool:
        with condition:
            return condition.wait(brief())

    return call, None


@scenes(True)
def semaphore(stack: ExitStack) -> Stage:
    semaphore = threading.Semaphore(0)
    return semaphore.acquire, semaphore.release


@scenes({0, 1}, cancels=False)
def barrier(stack: ExitStack) -> Stage:
    barrier = threading.Barrier(2)
    first: list[int] = []
    return lambda: {barrier.wait(), *first, 0, 1}, lambda: first.append(barrier.wait())


@scenes("item")
def queue_get(stack: ExitStack) -> Stage:
    q: queue.Queue[str] = queue.Queue()
    return q.get, lambda: q.put("item")


@scenes("item")
def queue_get_with_timeout(stack: ExitStack) -> Stage:
    q: queue.Queue[str] = queue.Queue()
    return lambda: q.get(timeout=PATIENCE), lambda: q.put("item")


@scenes(failure(queue.Empty), wakes=False)
def queue_times_out(stack: ExitStack) -> Stage:
    q: queue.Queue[str] = queue.Queue()
    return lambda: q.get(timeout=brief()), None


@scenes(None)
def queue_put(stack: ExitStack) -> Stage:
    q: queue.Queue[int] = queue.Queue(1)
    q.put(1)
    return lambda: q.put(2), q.get


@scenes(None)
def queue_join(stack: ExitStack) -> Stage:
    q: queue.Queue[int] = queue.Queue()
    q.put(1)
    return q.join, q.task_done


@scenes("item")
def simple_queue(stack: ExitStack) -> Stage:
    q: queue.SimpleQueue[str] = queue.SimpleQueue()
    return q.get, lambda: q.put("item")


@scenes(failure(queue.Empty), wakes=False)
def simple_queue_times_out(stack: ExitStack) -> Stage:
    q: queue.SimpleQueue[str] = queue.SimpleQueue()
    return lambda: q.get(timeout=brief()), None


@scenes(False, cancels=False)
def thread_join(stack: ExitStack) -> Stage:
    """Not cancelled: threading takes the lock of a thread that runs for its own."""
    enough = threading.Event()
    thread = threading.Thread(target=enough.wait)
    thread.start()

    def call() -> bool:
        thread.join()
        return thread.is_alive()

    return call, enough.set


@scenes(True, wakes=False, cancels=False)
def thread_join_times_out(stack: ExitStack) -> Stage:
    enough = threading.Event()
    thread = threading.Thread(target=enough.wait)
    thread.start()
    stack.callback(thread.join)
    stack.callback(enough.set)

    def call() -> bool:
        thread.join(brief())
        return thread.is_alive()

    return call, None


@scenes("result")
def future(stack: ExitStack) -> Stage:
    pool = stack.enter_context(ThreadPoolExecutor(1))
    enough = threading.Event()
    stack.callback(enough.set)

    def work() -> str:
        enough.wait()
        return "result"

    f = pool.submit(work)
    return f.result, enough.set


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


@scenes.waking()
def test_a_signal_in_between(scene: Scene) -> None:
    assert interrupted(scene.build) == scene.expected


@scenes.cancellable()
def test_cancelled(scene: Scene) -> None:
    cancelled(scene)


@pytest.mark.parametrize("build", [lock, rlock, event, queue_get, simple_queue, future])
def test_a_handler_that_raises_ends_a_wait(build: Any) -> None:
    assert broken_off(build) == failure(Bell)


# ---- exclusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock, lambda: threading.Semaphore(1)])
def test_goroutines_and_threads_exclude_each_other(kind: Callable[[], Any], procs: int) -> None:
    lock = kind()
    inside = total = 0

    def work() -> None:
        nonlocal inside, total
        for i in range(50):
            with lock:
                inside += 1
                assert inside == 1
                if i % 10 == 0:
                    time.sleep(0.0001)  # parks with the lock in hand
                inside -= 1
                total += 1

    ended(*[mixed(0 if i % 8 else 1, work) for i in range(40)])
    assert total == 2000


def test_nobody_is_forgotten(procs: int) -> None:
    """Posts and time-outs race: whoever is left gets the lock."""
    lock = threading.Lock()
    got = missed = 0

    def work(i: int) -> None:
        nonlocal got, missed
        for turn in range(50):
            if lock.acquire(timeout=(i + turn) % 5 * 0.0005):
                got += 1
                lock.release()
            else:
                missed += 1

    def hold() -> None:
        for _ in range(100):
            with lock:
                time.sleep(0.0005)

    ended(*[mixed(0 if i % 8 else 1, work, i) for i in range(40)], go(hold), Thread(hold))
    assert got + missed == 2000
    assert lock.acquire(blocking=False)


def test_producers_and_consumers(procs: int) -> None:
    q: queue.Queue[int | None] = queue.Queue(10)
    seen: list[int] = []

    def produce(i: int) -> None:
        for k in range(100):
            q.put(100 * i + k)

    def consume() -> None:
        while (item := q.get()) is not None:
            seen.append(item)

    producers = [mixed(0 if i % 4 else 1, produce, i) for i in range(20)]
    consumers = [mixed(0 if i % 4 else 1, consume) for i in range(20)]
    ended(*producers)
    for _ in consumers:
        q.put(None)
    ended(*consumers)
    assert sorted(seen) == list(range(2000))


def test_a_crowd_at_one_lock_parks() -> None:
    """Ten thousand goroutines at a lock and not one thread more."""
    lock = threading.Lock()
    lock.acquire()
    threads = gmprt.stats().threads
    entered = 0

    def work() -> None:
        nonlocal entered
        with lock:
            entered += 1

    goroutines = [go(work) for _ in range(10_000)]
    eventually(lambda: gmprt.stats().waiting >= 10_000)
    assert gmprt.stats().threads <= threads + 10
    lock.release()
    ended(*goroutines)
    assert entered == 10_000


CC = os.environ.get("CC", "gcc").split()[0]


@pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")
@pytest.mark.parametrize("how", ["with lock", "acquire", "acquire with timeout", "others"])
def test_exclusion_does_not_need_memory(how: str, tmp_path: Path) -> None:
    """The module's every malloc fails; a body is never entered without its lock."""
    library = tmp_path / "starve.so"
    source = Path(__file__).parent / "starve.c"
    command = [CC, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    code = """
        import ctypes, select, socket, sys, threading, time
        from gmprt import go, run, sleep

        how = sys.argv[1]
        starving = ctypes.c_int.in_dll(ctypes.CDLL(None), "starving")
        inside = entered = 0

        def body():
            global inside, entered
            inside += 1
            assert inside == 1, "two are inside"
            for _ in range(20):
                pass
            time.sleep(0)
            inside -= 1
            entered += 1

        def work(lock):
            if how == "with lock":
                with lock:
                    body()
            elif how == "acquire":
                assert lock.acquire()
                body()
                lock.release()
            else:
                assert lock.acquire(timeout=20), "too early"
                body()
                lock.release()

        def starve(goroutines, wake):
            # without memory from here on, until all have ended
            starving.value = 1
            wake()
            while not all(g.join(0) for g in goroutines):
                sleep(0)
            starving.value = 0
            return [g.result() for g in goroutines]

        def main():
            # the threads that may be needed are there, with their states
            warm = [go(ctypes.CDLL(None).usleep, 100_000) for _ in range(30)]
            for g in warm:
                g.join()
            a, b = socket.socketpair()
            if how == "others":
                gate = threading.Event()
                calls = [(a.recv, 10), (time.sleep, 0.01), (select.select, [b], [], [], 0.01)]
                goroutines = [go(lambda c=c: (gate.wait(), c[0](*c[1:]))[1]) for c in calls]
                results = starve(goroutines, lambda: (gate.set(), sleep(0), b.send(b"x")))
                assert results == [b"x", None, ([], [], [])], results
                return
            for i in range(10):
                lock = threading.Lock()
                lock.acquire()
                gate = threading.Event()
                goroutines = [go(lambda: (gate.wait(), work(lock))) for _ in range(20)]
                sleep(0)
                starve(goroutines, lambda: (gate.set(), sleep(0), lock.release()))

        run(main)
        if how != "others":
            assert entered == 200, entered
        print("refused", ctypes.c_int.in_dll(ctypes.CDLL(None), "refused").value)
    """
    done = run_child(code, args=[how], env={"LD_PRELOAD": str(library)}, timeout=60)
    assert "refused" in done.stdout
    assert "sem_wait" not in done.stderr


# ---- cancelled waits -----------------------------------------------------------------------------


def test_a_cancelled_wait_leaves_the_lock_alone(procs: int) -> None:
    """The body of `with` is not entered, and nobody's lock is released."""
    lock = threading.Lock()
    lock.acquire()
    entered: list[bool] = []

    def work() -> None:
        with lock:
            entered.append(True)

    goroutines = [go(work) for _ in range(50)]
    for g in goroutines:
        parked(g)
        g.cancel()
    for g in goroutines:
        assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    assert lock.locked()
    assert not entered
    lock.release()
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize("first", ["cancel", "release", "neither"])
def test_a_lock_that_was_taken_is_kept(first: str, procs: int) -> None:
    """The lock is taken or not, never both and never neither, and the cancel is not forgotten."""
    for _ in range(50):
        lock = threading.Lock()
        lock.acquire()
        entered: list[bool] = []

        def work(lock: threading.Lock = lock, entered: list[bool] = entered) -> None:
            lock.acquire()
            entered.append(True)
            gmprt.sleep(3600)

        g = go(work)
        parked(g)
        steps = [g.cancel, lock.release] if first == "cancel" else [lock.release, g.cancel]
        if first == "neither":
            ended(*[go(step) for step in steps])
        else:
            go(lambda steps=steps: [step() for step in steps]).result(PATIENCE)
        assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
        assert lock.locked() == bool(entered)


@pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")
@pytest.mark.parametrize("taken", ["by another", "by nobody"])
def test_released_between_a_cancel_and_the_look_at_it(taken: str, tmp_path: Path) -> None:
    """From 3.13 on who released the lock has begun to wake the goroutine, which waits once more.

    Then it has the lock, or somebody else has, and it parks anew: the cancel must end that.
    """
    library = tmp_path / "slow.so"
    source = Path(__file__).with_name("slow.c")
    subprocess.run(
        [CC, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True
    )
    body = f"""
import ctypes, threading, time, gmprt
late = ctypes.c_int.in_dll(ctypes.CDLL(None), "late")
def take():
    lock.acquire()
    lock.acquire()
for _ in range(50):
    lock = threading.Lock()
    lock.acquire()
    g = gmprt.go(take)
    while g.wait_reason != "semacquire":
        time.sleep(0)
    late.value = 1
    g.cancel()
    while late.value != 2:
        time.sleep(0)
    lock.release()
    if {taken == "by another"}:
        lock.acquire(blocking=False)
    late.value = 0
    assert g.join(20), gmprt.debug.block(g)
    assert g.cancelled()
"""
    run_child(body, env={"LD_PRELOAD": str(library)})


def test_a_condition_is_held_after_a_cancel() -> None:
    """Its lock is taken again before the exception goes on, whatever that takes."""
    condition = threading.Condition(threading.Lock())
    held: list[bool] = []

    def work() -> None:
        with condition:
            try:
                condition.wait()
            finally:
                held.append(condition._lock.locked())  # type: ignore[attr-defined]

    g = go(work)
    parked(g)
    with condition:
        g.cancel()  # the wait ends, and the lock is ours
        gmprt.sleep(0.01)
        assert not g.join(0)
        assert not held
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
    assert held == [True]
    assert condition.acquire(blocking=False)


def test_a_thread_is_alive_after_a_cancelled_join() -> None:
    enough = threading.Event()
    thread = threading.Thread(target=enough.wait)
    thread.start()
    g = go(thread.join)
    parked(g)
    g.cancel()
    gmprt.sleep(0.01)
    assert not g.join(0)
    assert thread.is_alive()
    enough.set()
    assert g.join(PATIENCE)
    thread.join()


# ---- semaphores of other processes ---------------------------------------------------------------


def _post(semaphore: Any, gate: Any) -> None:
    gate.recv()
    semaphore.release()


def test_a_semaphore_posted_by_another_process(procs: int) -> None:
    context = multiprocessing.get_context("spawn")
    semaphore = context.Semaphore(0)
    ours, theirs = context.Pipe()
    process = context.Process(target=_post, args=(semaphore, theirs))
    process.start()
    goroutines = [go(semaphore.acquire) for _ in range(3)]
    ours.send("go")
    eventually(lambda: any(g.join(0) for g in goroutines))
    semaphore.release()
    semaphore.release()
    assert all(g.result(PATIENCE) for g in goroutines)
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_a_lock_that_is_older_than_the_runtime() -> None:
    """Made when nothing was replaced, as at the top of a program: the other process is heard."""
    text = """
        import multiprocessing, os, gmprt

        lock = multiprocessing.Lock()
        lock.acquire()
        ours, theirs = multiprocessing.Pipe()

        def main():
            if os.fork() == 0:
                theirs.recv()
                lock.release()
                os._exit(0)
            g = gmprt.go(lock.acquire)
            while g.state not in ("syscall", "waiting"):
                gmprt.gosched()
            ours.send("go")
            print(g.result())
            os.wait()

        gmprt.run(main)
    """
    assert run_child(text).stdout == "True\n"


def test_the_others_go_on_beside_a_named_semaphore() -> None:
    gmprt.gomaxprocs(1)
    semaphore = multiprocessing.get_context("spawn").Semaphore(0)
    g = go(semaphore.acquire, True, PATIENCE)
    for _ in range(100):
        assert go(int).join(PATIENCE)
        time.sleep(0.001)
    assert not g.join(0)
    semaphore.release()
    assert g.result(PATIENCE)


def test_a_named_semaphore_times_out() -> None:
    semaphore = multiprocessing.get_context("spawn").Semaphore(0)
    begun = time.monotonic()
    assert go(semaphore.acquire, True, 0.05).result(PATIENCE) is False
    assert time.monotonic() - begun >= 0.05


def test_thousands_of_named_semaphores() -> None:
    """As many as there are; no run() may take a wait for another process for a deadlock."""
    text = """
        import multiprocessing, os, gmprt

        def main():
            locks = [multiprocessing.Lock() for _ in range(4100)]
            ours, theirs = multiprocessing.Pipe()
            for lock in locks[::-100]:
                lock.acquire()
            if os.fork() == 0:
                theirs.recv()
                for lock in locks[::-100]:
                    lock.release()
                os._exit(0)
            g = gmprt.go(lambda: [lock.acquire() for lock in locks[::-100]])
            gmprt.sleep(0.05)
            ours.send("go")
            print(all(g.result()))
            os.wait()

        gmprt.run(main)
    """
    assert run_child(text, timeout=120).stdout == "True\n"


def test_time_outs_of_named_semaphores_beside_other_errors(tmp_path: Path) -> None:
    """SemLock.acquire looks at the errno of the thread on which it has tried first."""
    semaphore = multiprocessing.get_context("spawn").Semaphore(0)

    def fail() -> None:
        while True:
            with pytest.raises(FileNotFoundError):
                (tmp_path / "missing").stat()
            gmprt.sleep(0.0001)

    def acquire() -> list[bool]:
        return [semaphore.acquire(True, 0.005) for _ in range(20)]

    failing = go(fail)
    waiting = [go(acquire) for _ in range(8)]
    assert all(g.result(PATIENCE) == [False] * 20 for g in waiting)
    failing.cancel()
    ended(failing)


def test_a_named_semaphore_is_cancelled() -> None:
    semaphore = multiprocessing.get_context("spawn").Semaphore(0)
    g = go(semaphore.acquire)
    gmprt.sleep(0.05)  # beyond its first, short tries
    g.cancel("enough")
    with pytest.raises(gmprt.GoroutineCancelled, match="enough"):
        g.result(PATIENCE)
    semaphore.release()
    assert semaphore.acquire(False)
