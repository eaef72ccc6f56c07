"""run(): the main goroutine, what it leaves behind, and signals."""

from __future__ import annotations

import contextvars
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Child, Thread, ended, eventually, parked, run_child

import gmprt
from gmprt import Chan, GoroutineCancelled, go, run
from gmprt._life.run import _Ending  # pyright: ignore[reportPrivateUsage]

# ---- result -------------------------------------------------------------------------------------


def test_result_and_arguments() -> None:
    def main(*args: int, **kwargs: int) -> Any:
        gmprt.sleep(0.001)
        return args, kwargs

    assert run(main, 1, 2, x=3) == ((1, 2), {"x": 3})
    assert run(int) == 0
    assert run(main, main=1, fn=2) == ((), {"main": 1, "fn": 2})


@pytest.mark.parametrize("error", [LookupError("e"), SystemExit(3), KeyboardInterrupt()])
def test_exception(error: BaseException) -> None:
    def main() -> None:
        gmprt.gosched()
        raise error

    with pytest.raises(type(error)) as caught:
        run(main)
    assert caught.value is error


def test_in_a_traceback_the_way_leads_from_run_to_the_error() -> None:
    def main() -> None:
        inner()

    def inner() -> None:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        run(main)
    names = [entry.name for entry in caught.traceback]
    assert names[-2:] == ["main", "inner"]
    assert names.index("run") < names.index("main")


@pytest.mark.parametrize("garbage", [None, 1, "main", []])
def test_garbage(garbage: Any) -> None:
    with pytest.raises(TypeError):
        run(garbage)
    with pytest.raises(TypeError):
        run()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        go(run, garbage).result(PATIENCE)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError):
        run(lambda: 1, 2)  # type: ignore[call-arg]


def test_nested_it_is_a_call() -> None:
    def main() -> Any:
        me = gmprt.current()
        return me is run(gmprt.current), go(lambda: run(gmprt.current)).result() is me

    assert run(main) == (True, False)


def test_many_in_sequence() -> None:
    def main(i: int) -> int:
        ch: Chan[int] = Chan()
        go(ch.send, i)
        return ch.recv()

    threads = threading.active_count()
    assert [run(main, i) for i in range(50)] == list(range(50))
    assert threading.active_count() <= threads


def test_from_another_thread() -> None:
    def main() -> tuple[int, str]:
        gmprt.sleep(0.002)
        return threading.get_ident(), threading.current_thread().name

    t = Thread(run, main)
    assert t.result() == (t.thread.ident, t.thread.name)


def test_several_at_once(procs: int) -> None:
    """Each thread has a main goroutine of its own; they can talk to each other."""
    size = 6
    ring: list[Chan[int]] = [Chan() for _ in range(size)]

    def main(i: int) -> int:
        got = 0
        for _ in range(50):
            if i == 0:
                ring[1].send(got)
                got = ring[0].recv()
            else:
                ring[(i + 1) % size].send(ring[i].recv() + 1)
        return got

    tasks = [Thread(run, main, i) for i in range(size)]
    assert tasks[0].result() == 50 * (size - 1)
    ended(*tasks)


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def _failing(meet: Callable[[], object]) -> None:
    meet()
    raise LookupError


def _inside(meet: Callable[[], object]) -> None:
    Thread(run, meet).result()


def _deep(meet: Callable[[], object], levels: int = 200) -> None:
    """C code and Python code in turn: much stack."""
    if levels:
        list(map(_deep, [meet], [levels - 1]))
    else:
        meet()


@pytest.mark.parametrize("main", [None, _failing, _inside, _deep])
def test_several_at_once_leave_no_stack_behind(main: Callable[..., None] | None) -> None:
    """Their main stacks are mappings of 8 MiB and more, and are as deep as they have been."""
    size = 8

    def overlap(rounds: int) -> None:
        for _ in range(rounds):
            barrier = threading.Barrier(size)
            args = (barrier.wait,) if main is None else (main, barrier.wait)
            tasks = [Thread(run, *args) for _ in range(size)]
            for task in tasks:
                error = task.exception()
                assert error is None or (main is _failing and isinstance(error, LookupError))
            ended(*tasks)  # their own stacks go, too
        gc.collect()

    overlap(10)
    mappings, resident = _mappings(), _resident()
    overlap(20)
    assert _mappings() - mappings < 20 * size / 2
    assert _resident() - resident < 20 * size * (64 << 10)


# ---- the identity of the caller ----------------------------------------------------------------


def test_it_is_the_calling_thread() -> None:
    local = threading.local()
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")
    local.x = "before"
    var.set("before")
    ident, thread = threading.get_ident(), threading.current_thread()

    def main() -> None:
        for _ in range(5):
            assert threading.get_ident() == ident
            assert threading.current_thread() is thread
            assert threading.main_thread() is thread
            assert local.x == "before"
            assert var.get() == "before"
            gmprt.sleep(0.001)
        local.x = "inside"
        var.set("inside")

    run(main)
    assert (local.x, var.get()) == ("inside", "inside")
    assert threading.get_ident() == ident


def test_it_is_the_calling_thread_wherever_it_runs(procs: int) -> None:
    """Also when it goes on, after a blocking call, on another OS thread."""
    ident = threading.get_ident()
    busy = True

    def spin() -> None:
        while busy:
            gmprt.gosched()

    def main() -> None:
        nonlocal busy
        spinners = [go(spin) for _ in range(3)]
        for _ in range(5):
            time.sleep(0.005)
            assert threading.get_ident() == ident
            gmprt.gosched()
        busy = False
        ended(*spinners)

    run(main)
    assert threading.get_ident() == ident


def test_an_rlock_taken_before_is_ours_inside() -> None:
    lock = threading.RLock()
    with lock:

        def main() -> bool:
            gmprt.sleep(0.001)
            with lock:
                return go(lock.acquire, blocking=False).result()

        assert run(main) is False


def test_lock_os_thread() -> None:
    """Locked, the main goroutine is on the thread that called run(), natively too."""
    import ctypes
    import os

    gettid = ctypes.CDLL(None).gettid

    def main() -> list[int]:
        gmprt.lock_os_thread()
        seen = []
        for _ in range(5):
            seen.append(gettid())
            gmprt.sleep(0.001)
        gmprt.lock_os_thread()
        gmprt.unlock_os_thread()
        seen.append(gettid())
        gmprt.unlock_os_thread()
        gmprt.sleep(0.001)
        gmprt.unlock_os_thread()  # once too often: no harm
        return seen

    assert set(run(main)) == {os.getpid()}
    here: set[int] = set(Thread(lambda: run(main)).result())
    assert len(here) == 1


def test_a_locked_thread_ends_with_its_goroutine(procs: int) -> None:
    """What it has done to the thread (priority, affinity) nobody meets, and no thread inherits."""
    code = """
        import ctypes, os, threading, time
        import gmprt
        from gmprt import Chan, go, run
        libc = ctypes.CDLL(None)
        def nice():
            return os.getpriority(os.PRIO_PROCESS, 0)
        def changes(parks, fails):
            gmprt.lock_os_thread()
            os.setpriority(os.PRIO_PROCESS, 0, 15)
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            if parks:
                gmprt.sleep(.001)
                go(int).join()
            tid = threading.get_native_id()
            assert nice() == 15
            if fails:
                raise LookupError(tid)
            return tid
        def looks():
            libc.usleep(500)  # needs a thread of its own
            return threading.get_native_id(), nice(), len(os.sched_getaffinity(0))
        def main():
            had = nice(), len(os.sched_getaffinity(0))
            for i in range(20):
                changed = go(changes, i % 2, i % 3 == 0)
                lookers = [go(looks) for _ in range(8)]
                error = changed.exception()
                tid = error.args[0] if error else changed.result()
                later = [go(looks) for _ in range(8)]
                for g in lookers + later:
                    assert g.result()[1:] == had, (g.result(), had)
                assert tid not in [g.result()[0] for g in later]
            for _ in range(20000):
                if not os.path.exists(f"/proc/self/task/{tid}"):
                    break
                gmprt.sleep(.001)
            else:
                raise AssertionError("the thread has not ended")
            return had
        had = run(main)
        def mine():
            gmprt.lock_os_thread()
            os.setpriority(os.PRIO_PROCESS, 0, 10)
        found = []
        caller = threading.Thread(target=lambda: (run(mine), found.append(nice())))
        caller.start()
        go(looks).result()
        print("ok")
        caller.join()
        print("the caller's:", *found)
    """
    out = run_child(code, env={"GOMAXPROCS": str(procs)}, timeout=60).stdout
    assert sorted(out.splitlines()) == ["ok", "the caller's: 10"]


def test_lock_os_thread_in_a_goroutine(procs: int) -> None:
    import ctypes

    gettid = ctypes.CDLL(None).gettid

    def work() -> set[int]:
        gmprt.lock_os_thread()
        seen = set()
        for _ in range(20):
            seen.add(gettid())
            gmprt.sleep(0.0005)
        me = gmprt.current()
        assert me is not None
        assert me.locked_to_thread
        return seen  # ends locked

    others = [go(lambda: [gmprt.sleep(0.0005) for _ in range(20)]) for _ in range(10)]
    locked = [go(work) for _ in range(4)]
    tids = [g.result(PATIENCE) for g in locked]
    assert [len(s) for s in tids] == [1] * 4
    assert len(set.union(*tids)) == 4, "each on a thread of its own"
    ended(*others)
    gmprt.lock_os_thread()  # an ordinary thread is always so
    gmprt.unlock_os_thread()


# ---- what it leaves ----------------------------------------------------------------------------


def test_leftovers_are_cancelled_and_waited_for() -> None:
    log: list[str] = []
    cleanup = gmprt.Mutex()

    def child() -> None:
        try:
            parked(go(grandchild), "sleep")
            cleanup.lock()
            Chan().recv()
        except gmprt.Cancelled as error:
            log.append(str(error.reason))
            raise
        finally:
            log.append("child")
            cleanup.unlock()

    def grandchild() -> None:
        try:
            gmprt.sleep(1000)
        finally:
            cleanup.lock()  # waits for the child's
            log.append("grandchild")

    def main() -> str:
        parked(go(child), "chan receive")
        return "result"

    assert run(main) == "result"
    assert log == ["the main goroutine has ended", "child", "grandchild"]
    assert gmprt.num_goroutine() == 0


def test_leftovers_that_did_not_start_yet() -> None:
    started: list[int] = []

    def child(i: int) -> None:
        started.append(i)
        gmprt.sleep(1000)

    def main() -> None:
        for i in range(10):
            go(child, i)

    run(main)
    assert gmprt.num_goroutine() == 0
    assert sorted(started) in ([], list(range(10)))


def test_leftovers_of_a_failed_main() -> None:
    log: list[str] = []

    def child() -> None:
        try:
            Chan().recv()
        finally:
            log.append("cleaned up")

    def main() -> None:
        parked(go(child))
        raise LookupError

    with pytest.raises(LookupError):
        run(main)
    assert log == ["cleaned up"]


def test_leftovers_started_while_it_ends() -> None:
    log: list[str] = []

    def last() -> None:
        try:
            gmprt.sleep(1000)
        finally:
            log.append("last")

    def child() -> None:
        try:
            Chan().recv()
        finally:
            go(last)

    def main() -> None:
        parked(go(child))

    run(main)
    assert log == ["last"]


def test_others_goroutines_are_left_alone() -> None:
    gate: Chan[int] = Chan()
    mine = go(gate.recv)
    nested: list[gmprt.Goroutine[int]] = []

    def outside() -> None:
        nested.append(go(gate.recv))
        gmprt.sleep(1000)

    def main() -> gmprt.Goroutine[int]:
        g = go(gate.recv)
        g.detach()
        assert g.detached
        return g

    parent = go(outside)
    parked(parent)
    detached = run(main)
    gmprt.sleep(0.005)
    assert not mine.done()
    assert not detached.done()
    assert not nested[0].done()
    parent.cancel()
    for i in range(3):
        gate.send(i)
    assert sorted(g.result(PATIENCE) for g in (mine, detached, nested[0])) == [0, 1, 2]
    ended(parent)


def test_cancelled_from_outside() -> None:
    handle: Chan[Any] = Chan(1)

    def main() -> None:
        handle.send(gmprt.current())
        try:
            Chan().recv()
        finally:
            gmprt.sleep(0.001)

    t = Thread(run, main)
    g = handle.recv(timeout=PATIENCE)
    parked(g)
    g.cancel("enough")
    error = t.exception()
    assert isinstance(error, GoroutineCancelled)
    assert error.reason == "enough"


def test_warning_names_those_who_stay(tmp_path: Path) -> None:
    """After five seconds a message says who keeps run() waiting, and it goes on waiting."""
    enough = tmp_path / "enough"
    code = f"""
        import gmprt, os
        def stays():
            while not os.path.exists({str(enough)!r}):
                try:
                    gmprt.sleep(0.01)
                except gmprt.Cancelled:
                    pass
            print("ended by itself")
        def main():
            g = gmprt.go(stays)
            g.name = "stubborn"
            gmprt.gosched()
            print("main ends")
        gmprt.run(main)
        print("run returned")
    """
    with Child(code) as child:
        child.expect("created by main", stream="stderr")
        enough.touch()
        done = child.finish()
    assert done.stdout == "main ends\nended by itself\nrun returned\n"
    assert "waits for 1 cancelled goroutine(s)" in done.stderr
    assert '"stubborn" [' in done.stderr
    assert "created by main" in done.stderr


def test_looking_for_those_that_stay_takes_a_small_share() -> None:
    """With 300 000 of them a look takes long, and keeps them from ending meanwhile."""
    looks = 0

    def stays() -> None:
        try:
            gmprt.sleep(PATIENCE)
        finally:
            gmprt.sleep(0.5)

    def alive() -> list[gmprt.Goroutine[Any]]:
        nonlocal looks
        looks += 1
        time.sleep(0.02)
        return [] if g.done() else [g]

    g = go(stays)
    parked(g)
    ending = _Ending(alive, "")
    began = time.monotonic()
    assert ending.wait(began + PATIENCE) == []
    # The first at once, the last when all have ended; in between twenty times as long as a look.
    assert looks <= 2 + (time.monotonic() - began) / (20 * 0.02)


def test_callbacks_are_leftovers_too() -> None:
    """One that waits is cancelled, and waited for: what it does then is not lost."""
    seen: list[str] = []

    def callback(_: gmprt.Goroutine[Any]) -> None:
        try:
            Chan[None]().recv()
        except gmprt.Cancelled:
            gmprt.sleep(0.001)
            seen.append("cancelled")

    def main() -> None:
        g = go(int)
        g.add_done_callback(callback)
        assert g.join(PATIENCE)

    run(main)
    assert seen == ["cancelled"]


def test_callbacks_at_the_end_of_the_process() -> None:
    done = run_child(
        """
        import gmprt

        def callback(_):
            try:
                gmprt.Chan().recv()
            except gmprt.Cancelled:
                gmprt.sleep(0.001)
                print("cancelled")

        g = gmprt.go(int)
        g.add_done_callback(callback)
        g.join()
        """
    )
    assert done.stdout == "cancelled\n"


def test_a_cancel_of_a_callback_is_not_the_next_goroutines() -> None:
    """Which has the same G."""
    entered: Chan[None] = Chan()
    leave: Chan[None] = Chan()

    def callback(_: gmprt.Goroutine[Any]) -> None:
        entered.send(None)
        leave.recv_ok()

    g = go(int)
    g.add_done_callback(callback)
    entered.recv()
    leave.close()
    gmprt._core.cancel_leaving(g)  # too late: it waits no more
    assert gmprt._core.join_leaving(g, PATIENCE)
    assert all(go(gmprt.sleep, 0.0001).result(PATIENCE) is None for _ in range(10))


def test_who_ends_while_others_are_cancelled_does_not_stay() -> None:
    class Ending(_Ending):
        def _cancel(self, goroutines: list[gmprt.Goroutine[Any]]) -> None:
            super()._cancel(goroutines)
            ended(*goroutines)

    ch: Chan[int] = Chan()
    g = go(ch.recv)
    parked(g)
    assert Ending(lambda: [] if g.done() else [g], "").wait(time.monotonic() - 1) == []


# ---- Ctrl-C ------------------------------------------------------------------------------------

PARKED = {
    "recv": "gmprt.Chan().recv()",
    "recv with timeout": "gmprt.Chan().recv(timeout=1000)",
    "send": "gmprt.Chan().send(1)",
    "select": "gmprt.select(gmprt.Chan(), gmprt.Chan())",
    "gmprt.sleep": "gmprt.sleep(1000)",
    "join": "gmprt.go(gmprt.sleep, 1000).join()",
    "result": "gmprt.go(time.sleep, 1000).result()",
    "mutex": "m = gmprt.Mutex(); m.lock(); m.lock()",
    "semaphore": "gmprt.Semaphore(0).acquire()",
    "waitgroup": "w = gmprt.WaitGroup(); w.add(); w.wait()",
    "timer": "gmprt.after(1000).recv()",
    "time.sleep": "time.sleep(1000)",
    "a lock": "l = threading.Lock(); l.acquire(); l.acquire()",
    "an event": "threading.Event().wait()",
    "a queue": "queue.Queue().get()",
    "a pipe": "os.read(os.pipe()[0], 1)",
    "a socket": "ends = socket.socketpair(); ends[0].recv(1)",
    "select.select": "select.select([], [], [], 1000)",
    "a loop": "while True: pass",
    "a loop of gosched": "while True: gmprt.gosched()",
    "a loop of channel operations": "c = gmprt.Chan(1)\n    while True: c.send(1); c.recv()",
    "subprocess": "subprocess.run(['sh', '-c', 'echo there; exec sleep 1000'])",
}


def interruptible(body: str, *, before: str = "") -> str:
    return f"""
import gmprt, os, queue, select, signal, socket, subprocess, sys, threading, time
{before}
def body():
    {body}
def main():
    # Keeps "all goroutines are asleep" from being true, and works meanwhile.
    def others():
        while True:
            gmprt.sleep(0.01)
    gmprt.go(others)
    try:
        print("ready")
        body()
    except KeyboardInterrupt:
        print("interrupted")
        raise
    print("ended")
try:
    gmprt.run(main)
except KeyboardInterrupt:
    print("out of run")
"""


@pytest.mark.parametrize("where", list(PARKED))
def test_ctrl_c(where: str) -> None:
    with Child(interruptible(PARKED[where])) as child:
        child.expect("ready")
        if where == "subprocess":  # Popen() itself may hang if it is interrupted: CPython's
            child.expect("there")
        time.sleep(0.05)  # any moment will do; most are in the wait
        child.interrupt()
        done = child.finish()
    assert done.stdout.replace("there\n", "") == "ready\ninterrupted\nout of run\n"
    assert done.returncode == 0


@pytest.mark.parametrize("where", ["recv", "time.sleep", "a loop"])
@pytest.mark.parametrize("procs", ["1", "2"])
def test_ctrl_c_at_any_moment(where: str, procs: str) -> None:
    with Child(interruptible(PARKED[where]), env={"GOMAXPROCS": procs}) as child:
        child.expect("ready")
        child.interrupt()
        done = child.finish()
    assert done.stdout == "ready\ninterrupted\nout of run\n"


def test_ctrl_c_uncaught() -> None:
    """The process dies as Python does of an uncaught KeyboardInterrupt."""
    code = "import gmprt\ndef main():\n  print('ready')\n  gmprt.sleep(1000)\ngmprt.run(main)"
    with Child(code) as child:
        child.expect("ready")
        child.interrupt()
        done = child.finish()
    assert done.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in done.stderr


def test_ctrl_c_is_for_main_alone() -> None:
    code = """
        import gmprt
        log = []
        def child(i):
            try:
                gmprt.sleep(1000)
            except BaseException as error:
                log.append(type(error).__name__)
                raise
        def main():
            kept = [gmprt.go(child, i) for i in range(5)]
            while any(g.state != "waiting" for g in kept):
                gmprt.sleep(0.001)
            print("ready")
            gmprt.Chan().recv()
        try:
            gmprt.run(main)
        except KeyboardInterrupt:
            print(log)
    """
    with Child(code) as child:
        child.expect("ready")
        child.interrupt()
        done = child.finish()
    assert done.stdout == "ready\n" + str(["Cancelled"] * 5) + "\n"


def test_ctrl_c_again_and_again() -> None:
    code = """
        import gmprt
        def main():
            for i in range(5):
                try:
                    print("ready", i)
                    gmprt.Chan().recv(timeout=1000)
                except KeyboardInterrupt:
                    print("interrupted", i)
            return "done"
        print(gmprt.run(main))
    """
    with Child(code) as child:
        for i in range(5):
            child.expect(f"ready {i}")
            child.interrupt()
            child.expect(f"interrupted {i}")
        assert child.finish().stdout.endswith("done\n")


def test_ctrl_c_while_it_waits_for_leftovers() -> None:
    """It dumps all goroutines and ends the process."""
    code = """
        import gmprt
        def stays():
            while True:
                try:
                    gmprt.sleep(1000)
                except gmprt.Cancelled:
                    print("not yet")
        def main():
            g = gmprt.go(stays)
            g.name = "stubborn"
            gmprt.gosched()
        gmprt.run(main)
    """
    with Child(code) as child:
        child.expect("not yet")
        child.interrupt()
        done = child.finish()
    assert done.returncode == 130
    assert '"stubborn" [' in done.stderr  # sleep, if it has come to that
    assert ".stays(...)" in done.stderr


def test_second_ctrl_c() -> None:
    """The first is main's, the second is for those that do not end."""
    code = """
        import gmprt
        def stays():
            while True:
                try:
                    gmprt.sleep(1000)
                except gmprt.Cancelled:
                    print("not yet")
        def main():
            gmprt.go(stays)
            print("ready")
            gmprt.Chan().recv()
        gmprt.run(main)
    """
    with Child(code) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("not yet")
        child.interrupt()
        done = child.finish()
    assert done.returncode == 130
    assert ".stays(...)" in done.stderr


@pytest.mark.parametrize("where", ["recv", "gmprt.sleep", "time.sleep", "a loop", "select", "join"])
def test_signal_handlers_run_in_main(where: str) -> None:
    """A handler of signal.signal runs in the main goroutine, and the wait goes on after it."""
    code = f"""
import gmprt, os, signal, sys, threading, time
def handler(number, frame):
    assert threading.current_thread() is threading.main_thread()
    assert gmprt.current() is main_g
    print("handled", number == signal.SIGUSR1)
    handled.append(1)
    if len(handled) == 3:
        raise LookupError("out of the handler")
handled = []
main_g = None
def body():
    {PARKED[where]}
def main():
    global main_g
    main_g = gmprt.current()
    signal.signal(signal.SIGUSR1, handler)
    print("ready")
    body()
try:
    gmprt.run(main)
except LookupError as error:
    print(error)
"""
    with Child(code) as child:
        child.expect("ready")
        for i in range(3):
            time.sleep(0.02)
            child.signal(signal.SIGUSR1)
            eventually(lambda n=i: child.stdout.count("handled True") == n + 1)  # type: ignore[misc]
        done = child.finish()
    assert done.stdout == "ready\n" + "handled True\n" * 3 + "out of the handler\n"
    assert done.returncode == 0


def test_signals_before_and_after_run() -> None:
    """The mask and the handlers of the thread are as they were."""
    code = """
        import gmprt, os, signal
        got = []
        signal.signal(signal.SIGUSR1, lambda n, f: got.append(gmprt.current() is not None))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        def main():
            os.kill(os.getpid(), signal.SIGUSR1)
            gmprt.sleep(0.01)
        for _ in range(5):
            gmprt.run(main)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == {signal.SIGUSR2}
        print(got)
    """
    assert run_child(code).stdout == str([True, False] * 5) + "\n"


def test_interval_timers() -> None:
    """setitimer's signals arrive however main waits, none is lost for good."""
    code = """
        import gmprt, signal, time
        ticks = 0
        def tick(number, frame):
            global ticks
            ticks += 1
        def main():
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
            ch = gmprt.Chan()
            while ticks < 200:
                for wait in (lambda: ch.recv(timeout=0.01), lambda: time.sleep(0.01)):
                    try:
                        wait()
                    except TimeoutError:
                        pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        gmprt.run(main)
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_signals_to_oneself_are_handled_at_once() -> None:
    """Other threads would take them, too: they do not block any."""
    code = """
        import gmprt, os, signal, threading
        handled = 0
        def handler(number, frame):
            global handled
            handled += 1
        def main():
            signal.signal(signal.SIGUSR1, handler)
            fd = os.open(f"/proc/{os.getpid()}", os.O_DIRECTORY)
            gate = threading.Event()
            thread = threading.Thread(target=gate.wait)
            thread.start()
            for i in range(2000):
                if i % 2:
                    os.kill(os.getpid(), signal.SIGUSR1)
                else:
                    signal.pidfd_send_signal(fd, signal.SIGUSR1)
                assert handled == i + 1, (handled, i)
            gate.set()
            thread.join()
        gmprt.run(main)
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_masks_beside_a_thread() -> None:
    """Whoever waits for the thread in run() holds no GIL: that thread may be waiting for it."""
    code = """
        import gmprt, signal, threading
        def work():
            for _ in range(200):
                sum(range(100_000))
                ch.send(None)
        def main():
            for _ in range(200):
                ch.recv()
                for _ in range(20):
                    signal.pthread_sigmask(signal.SIG_BLOCK, [])
        ch = gmprt.Chan(200)
        thread = threading.Thread(target=work)
        thread.start()
        gmprt.run(main)
        thread.join()
        print("done")
    """
    assert run_child(code).stdout == "done\n"


def test_signals_that_another_thread_receives() -> None:
    """The kernel may give it one that is for the process; main is interrupted all the same."""
    code = """
        import ctypes, gmprt, os, platform, signal, struct, threading
        RT_TGSIGQUEUEINFO = {"x86_64": 297, "aarch64": 240}[platform.machine()]
        SI_USER = 0
        libc = ctypes.CDLL(None)
        started = gmprt.Chan()
        def handler(number, frame):
            raise LookupError("out of the handler")
        def chosen_by_the_kernel():
            started.recv()
            info = struct.pack("iii116x", signal.SIGUSR1, 0, SI_USER)
            me = threading.get_native_id()
            assert not libc.syscall(RT_TGSIGQUEUEINFO, os.getpid(), me, signal.SIGUSR1, info)
        def main():
            signal.signal(signal.SIGUSR1, handler)
            for _ in range(20):
                thread = threading.Thread(target=chosen_by_the_kernel)
                thread.start()
                try:
                    started.send(None)
                    gmprt.Chan().recv()
                except LookupError as error:
                    print(error)
                thread.join()
        gmprt.run(main)
    """
    assert run_child(code).stdout == "out of the handler\n" * 20


def test_signals_in_the_main_thread_without_run() -> None:
    """The main thread waiting as an ordinary thread is interrupted too."""
    code = """
        import gmprt
        try:
            print("ready")
            gmprt.Chan().recv()
        except KeyboardInterrupt:
            print("interrupted")
    """
    with Child(code) as child:
        child.expect("ready")
        time.sleep(0.02)
        child.interrupt()
        assert child.finish().stdout == "ready\ninterrupted\n"


def test_asyncio_signals_inside() -> None:
    code = """
        import asyncio, gmprt, os, signal
        async def amain():
            loop = asyncio.get_running_loop()
            got = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, got.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(got.wait(), 20)
            return "got it"
        print(gmprt.run(asyncio.run, amain()))
    """
    assert run_child(code).stdout == "got it\n"


def test_in_a_thread_ctrl_c_is_the_main_threads() -> None:
    code = """
        import gmprt, threading
        def main():
            ready.set()
            gate.recv()
        ready = threading.Event()
        gate = gmprt.Chan()
        t = threading.Thread(target=gmprt.run, args=(main,), daemon=True)
        t.start()
        ready.wait()
        try:
            print("ready")
            threading.Event().wait()
        except KeyboardInterrupt:
            gate.send(1, timeout=20)
            t.join()
            print("main thread interrupted")
    """
    with Child(code) as child:
        child.expect("ready")
        time.sleep(0.02)
        child.interrupt()
        done = child.finish()
    assert done.stdout == "ready\nmain thread interrupted\n"


# ---- leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_sys_exit_in_main(code: int) -> None:
    run_child(f"import gmprt, sys\ngmprt.run(sys.exit, {code})", status=code)


def test_sys_exit_with_a_message() -> None:
    done = run_child("import gmprt, sys\ngmprt.run(sys.exit, 'that is why')", status=1)
    assert done.stderr == "that is why\n"


def test_sys_exit_in_another_goroutine_ends_only_that() -> None:
    code = """
        import gmprt, sys
        def main():
            gmprt.go(sys.exit, 3).join()
            print("main goes on")
        gmprt.run(main)
    """
    done = run_child(code)
    assert (done.stdout, done.stderr) == ("main goes on\n", "")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
def test_monitoring_sees_goroutines() -> None:
    code = """
        import gmprt, sys
        mon = sys.monitoring
        mon.use_tool_id(3, "test")
        seen = set()
        mon.register_callback(3, mon.events.PY_START, lambda code, off: seen.add(code.co_name))
        mon.set_events(3, mon.events.PY_START)
        def inside(): gmprt.sleep(0)
        def main(): gmprt.go(inside).join()
        gmprt.run(main)
        mon.set_events(3, 0)
        print({"inside", "main"} <= seen)
    """
    assert run_child(code).stdout == "True\n"
