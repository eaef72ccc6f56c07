"""All goroutines are asleep: run() says so, with a dump, but only when nothing else can wake them.

Each in a process of its own: another thread of this one would be a reason not to report anything.
"""

from __future__ import annotations

import signal

import pytest
from support import Child, run_child, untimed

import gmprt

WAITS = {
    "chan receive": "gmprt.Chan().recv()",
    "chan send": "gmprt.Chan().send(1)",
    "select": "gmprt.select(gmprt.Chan(), gmprt.Send(gmprt.Chan(), 1))",
    "select (no cases)": "gmprt.select()",
    "sync.Mutex.Lock": "m = gmprt.Mutex(); m.lock(); m.lock()",
    "semacquire": "gmprt.Semaphore(0).acquire()",
    "sync.WaitGroup.Wait": "w = gmprt.WaitGroup(); w.add(); w.wait()",
    "join": "gmprt.go(gmprt.Chan().recv).join()",
}


@pytest.mark.parametrize("reason", list(WAITS))
def test_main_alone(reason: str) -> None:
    code = f"""
import gmprt
def main():
    {WAITS[reason]}
try:
    gmprt.run(main)
except gmprt.Deadlock as error:
    assert isinstance(error, RuntimeError) and isinstance(error, gmprt.Error)
    assert str(error).startswith("all goroutines are asleep - deadlock!")
    assert error.dump.rstrip() in str(error)
    print(error.dump)
"""
    dump = run_child(code).stdout
    assert f"goroutine 1 [{reason}]:" in dump.replace('"main" ', "")
    assert "__main__.main(...)\n\t<string>:4\n" in dump


def test_the_dump_names_everybody() -> None:
    code = """
        import gmprt
        def left(ch):
            ch.send(1)
        def right(ch, m):
            with m:
                ch.recv()
        def third(m):
            m.lock()
        def main():
            m = gmprt.Mutex()
            gmprt.go(left, gmprt.Chan()).name = "lefty"
            holder = gmprt.go(right, gmprt.Chan(), m)
            while holder.state != "waiting":
                gmprt.sleep(0.001)
            gmprt.go(third, m)
            gmprt.WaitGroup().wait()
            w = gmprt.WaitGroup()
            w.add()
            w.wait()
        try:
            gmprt.run(main)
        except gmprt.Deadlock as error:
            print(error)
    """
    out = untimed(run_child(code).stdout)
    assert 'goroutine 2 "lefty" [chan send]:\n__main__.left(...)\n\t<string>:4\n' in out
    assert "[chan receive]:\n__main__.right(...)\n\t<string>:7\n" in out
    assert "[sync.Mutex.Lock]:\n__main__.third(...)\n\t<string>:9\n" in out
    assert "[sync.WaitGroup.Wait]:\n__main__.main(...)\n" in out
    assert out.count("created by main in goroutine 1") == 3


def test_uncaught_it_ends_the_process() -> None:
    done = run_child("import gmprt; gmprt.run(gmprt.select)", status=1)
    assert "Deadlock: all goroutines are asleep - deadlock!" in done.stderr
    assert "[select (no cases)]:" in done.stderr


def test_main_may_catch_it_and_go_on() -> None:
    """It is raised in main, which may know a way out; what it left is cleaned up as ever."""
    code = """
        import gmprt
        def child(ch):
            try:
                return ch.recv()
            finally:
                print("child's finally")
        def main():
            ch = gmprt.Chan()
            g = gmprt.go(child, ch)
            for _ in range(3):
                try:
                    g.join()
                except gmprt.Deadlock:
                    print("caught")
            ch.send(7)
            print(g.result())
            gmprt.go(child, ch)
            gmprt.gosched()
            gmprt.Chan().recv()
        try:
            gmprt.run(main)
        except gmprt.Deadlock:
            print("raised by run")
        print(gmprt.num_goroutine())
    """
    assert run_child(code).stdout.splitlines() == [
        "caught", "caught", "caught", "child's finally", "7", "child's finally", "raised by run",
        "0",
    ]  # fmt: skip


def test_after_work_and_blocking_calls() -> None:
    """Threads of the runtime that have idled, blocked and come back are no reason to wait."""
    code = """
        import gmprt, time
        def main():
            for g in [gmprt.go(time.sleep, 0.02) for _ in range(5)]:
                g.join()
            for g in [gmprt.go(gmprt.sleep, 0.02) for _ in range(5)]:
                g.join()
            gmprt.Chan().recv()
        try:
            gmprt.run(main)
        except gmprt.Deadlock:
            print("deadlock")
    """
    assert run_child(code).stdout == "deadlock\n"


@pytest.mark.parametrize("procs", ["1", "2", "4"])
def test_found_every_time(procs: str) -> None:
    code = """
        import gmprt
        def main():
            goroutines = [gmprt.go(gmprt.Chan().recv) for _ in range(20)]
            gmprt.gosched()
            goroutines[0].join()
        for _ in range(20):
            try:
                gmprt.run(main)
            except gmprt.Deadlock as error:
                assert error.dump.count("[chan receive") == 20, error.dump
        print("done")
    """
    assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "done\n"


def test_threads_that_wait_for_us_count_as_asleep() -> None:
    code = """
        import gmprt, threading
        ch = gmprt.Chan()
        threads = [threading.Thread(target=ch.recv_ok) for _ in range(3)]
        for t in threads:
            t.start()
        def main():
            while ch.statistics().waiting_receivers < 3:
                gmprt.sleep(0.001)
            gmprt.Chan().recv()
        try:
            gmprt.run(main)
        except gmprt.Deadlock:
            print("deadlock")
        ch.close()
    """
    assert run_child(code).stdout == "deadlock\n"


def test_two_runs_that_wait_for_each_other() -> None:
    """Both sleep; whoever is told lets the other go."""
    code = """
        import gmprt, sys, threading
        def main(own, other):
            try:
                own.recv_ok()
            except gmprt.Deadlock as error:
                found = error.dump.count("[chan receive") >= 1
                sys.stdout.write(f"deadlock {found}\\n")  # in one piece: both may be told
            if not other.closed:
                other.close()
        for _ in range(10):
            a, b = gmprt.Chan(), gmprt.Chan()
            t = threading.Thread(target=gmprt.run, args=(main, a, b))
            t.start()
            gmprt.run(main, b, a)
            t.join()
    """
    out = run_child(code).stdout.splitlines()
    assert set(out) == {"deadlock True"}
    assert len(out) >= 10


# ---- when it is none ---------------------------------------------------------------------------

WAYS_OUT = {
    "a timer": "gmprt.go(lambda: (gmprt.after(0.15).recv(), ch.send(1)))",
    "a sleep": "gmprt.go(lambda: (gmprt.sleep(0.15), ch.send(1)))",
    "a timeout": """gmprt.go(lambda: gmprt.select(gmprt.Chan(), timeout=0.15))
    gmprt.go(lambda: (late(), ch.send(1)))""",
    "after_func": "gmprt.after_func(0.15, ch.send, 1)",
    "a blocking call": "gmprt.go(lambda: (time.sleep(0.15), ch.send(1)))",
    "a thread that works": "start(lambda: (time.sleep(0.15), ch.send(1)))",
    "a thread that waits with a timeout": "start(lambda: (late(), ch.send(1)))",
    "a thread that waits for something else":
        "e = threading.Event(); start(lambda: (e.wait(), ch.send(1))); start(lambda: "
        "(time.sleep(0.15), e.set()))",
    "a daemon thread": "start(lambda: (time.sleep(0.15), ch.send(1)), daemon=True)",
    "another run": "start(lambda: gmprt.run(lambda: (gmprt.sleep(0.15), ch.send(1))))",
    "a loop": "gmprt.go(lambda: (spin(0.15), ch.send(1)))",
}  # fmt: skip


@pytest.mark.parametrize("way", list(WAYS_OUT))
@pytest.mark.parametrize("procs", ["1", "2"])
def test_no_deadlock(way: str, procs: str) -> None:
    code = f"""
import gmprt, threading, time
def late():
    try:
        gmprt.Chan().recv(timeout=0.15)
    except TimeoutError:
        pass
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
def start(fn, daemon=False):
    threading.Thread(target=fn, daemon=daemon).start()
def main():
    ch = gmprt.Chan()
    {WAYS_OUT[way]}
    return ch.recv()
print(gmprt.run(main))
"""
    assert run_child(code, env={"GOMAXPROCS": procs}).stdout == "1\n"


def test_no_deadlock_with_a_signal_handler() -> None:
    """Whoever installs a handler may wake somebody from it."""
    code = """
        import gmprt, signal
        ch = gmprt.Chan(1)
        signal.signal(signal.SIGUSR1, lambda n, f: ch.send(n == signal.SIGUSR1))
        def main():
            print("ready")
            return ch.recv()
        print(gmprt.run(main))
    """
    with Child(code) as child:
        child.expect("ready")
        with pytest.raises(Exception, match="timed out"):
            child.process.wait(0.5)
        child.signal(signal.SIGUSR1)
        assert child.finish().stdout == "ready\nTrue\n"


def test_no_deadlock_without_run() -> None:
    """An ordinary thread that waits for goroutines is not judged; Ctrl-C ends it."""
    code = """
        import gmprt
        g = gmprt.go(gmprt.Chan().recv)
        try:
            print("ready")
            g.join()
        except KeyboardInterrupt:
            print("interrupted")
    """
    with Child(code) as child:
        child.expect("ready")
        with pytest.raises(Exception, match="timed out"):
            child.process.wait(0.5)
        child.interrupt()
        assert child.finish().stdout == "ready\ninterrupted\n"


def test_the_class() -> None:
    error = gmprt.Deadlock("the dump\n", "message")
    assert (error.dump, error.message) == ("the dump\n", "message")
    assert str(error) == "message\n\nthe dump"
    assert str(gmprt.Deadlock()) == "all goroutines are asleep - deadlock!"


def test_a_thread_about_to_run_is_no_deadlock() -> None:
    """Main has woken it, and waits for it, before it has got the GIL."""
    code = """
        import gmprt, threading
        def work():
            for _ in range(300):
                sum(range(100_000))
                ch.send(None)
        def main():
            for _ in range(300):
                ch.recv()
        ch = gmprt.Chan()
        thread = threading.Thread(target=work)
        thread.start()
        gmprt.run(main)
        thread.join()
        print("done")
    """
    assert run_child(code).stdout == "done\n"
