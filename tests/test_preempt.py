"""Preemption: a goroutine that never waits delays the others by one slice, and nobody else notices.

What is judged in milliseconds is measured beside a control, a process that only sleeps: what the
machine does to that one it does to the scheduler, twice, for the one who asks and the one who
yields are two threads.  The best of some rounds counts: a machine that is busy elsewhere is late at
random, a scheduler that is late is late in every round.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import DEBUG_311, OTHER_STATE, compiled, preempts, run_child

import gmprt
from gmprt import _core

# ---- hogs beside a thousand that tick ------------------------------------------------------------

HOGS = {
    "loop": """
def hog():
    while True: pass
""",
    "loop in two lines": """
def hog():
    while True:
        pass
""",
    "comprehension": """
def hog():
    while True:
        [0 for _ in range(1_000_000)]
""",
    "one comprehension": """
def hog():
    [0 for i in range(10 ** 15) if i < 0]
""",
    "generator": """
def endless():
    while True: pass
    yield
def hog():
    next(endless())
""",
    "fib": """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def hog():
    fib(80)
""",
    "sorted": """
data = [(i * 7919) % 10007 for i in range(10000)]
def hog():
    while True:
        sorted(data, key=lambda x: x)
""",
    "after a blocking call": """
import ctypes
def hog():
    ctypes.CDLL(None).usleep(30_000)
    while True: pass
""",
    "after reading a file": """
def hog():
    open("/proc/self/stat").read()
    while True: pass
""",
    "traced": """
def tracer(frame, event, arg):
    return tracer
def hog():
    sys.settrace(tracer)
    while True:
        pass
""",
    "profiled": """
def hog():
    sys.setprofile(lambda frame, event, arg: None)
    while True:
        pass
""",
}

BESIDE = """
import gmprt, json, os, subprocess, sys, time, traceback

PERIOD, SECONDS, SLICE = 0.02, 0.5, 0.012

CONTROL = '''
import sys, time
late = []
for line in sys.stdin:
    end = time.monotonic() + float(line)
    late = [0.0]
    while time.monotonic() < end:
        began = time.monotonic()
        time.sleep(0.002)
        late.append(time.monotonic() - began - 0.002)
    print(max(late), flush=True)
'''

delays = []

def tick(i):
    gmprt.sleep(PERIOD * i / 1000)
    while True:
        began, used = time.monotonic(), time.process_time()
        gmprt.sleep(PERIOD)
        # Not while others of the machine computed: the hog wants to run all the time.
        passed = min(time.monotonic() - began, time.process_time() - used)
        delays.append(passed - PERIOD)

def threads():
    return len(os.listdir("/proc/self/task"))

def late(control):
    # Of one round: how late 999 of 1000 ticks were at most, and how late the control was.
    delays.clear()
    control.stdin.write(f"{SECONDS}\\n")
    control.stdin.flush()
    gmprt.sleep(SECONDS)
    while not delays:  # forty hogs take longer for one round, on a machine that does other things
        gmprt.sleep(SECONDS)
    own = sorted(delays)
    return own[len(own) * 999 // 1000], float(control.stdout.readline())

def main():
    control = subprocess.Popen(
        [sys.executable, "-c", CONTROL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    tickers = [gmprt.go(tick, i) for i in range(1000)]
    for number in range(HOGS):
        gmprt.go(hog)
    gmprt.sleep(0.3)  # the tickers are under way, and so is the hog
    before, first = gmprt.stats(), threads()
    rounds = []
    while len(rounds) < ROUNDS:
        own, machine = late(control)
        rounds.append((own, machine))
        if own <= SLICE + 2 * machine:
            break
    now = gmprt.stats()
    print(json.dumps({
        "rounds": rounds,
        "in_time": own <= SLICE + 2 * machine,
        "threads": threads() - first,
        "preemptions": now.preemptions - before.preemptions,
    }), flush=True)
    control.kill()

def to_the_end():
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # the hogs do not end
"""


def beside(hog: str, procs: int, hogs: int = 1, rounds: int = 10) -> Any:
    code = f"{BESIDE}{hog}\nHOGS, ROUNDS = {hogs}, {rounds}\ngmprt.run(to_the_end)"
    return json.loads(run_child(code, env={"GOMAXPROCS": str(procs)}, timeout=50).stdout)


@preempts
@pytest.mark.parametrize("kind", list(HOGS))
def test_a_hog_delays_the_others_by_one_slice(kind: str) -> None:
    """What a regular expression, or another long call of C code that keeps the GIL, does not."""
    seen = beside(HOGS[kind], procs=2)
    assert seen["in_time"], seen
    assert seen["preemptions"] > 0, seen


@preempts
def test_a_hog_on_the_only_processor() -> None:
    seen = beside(HOGS["loop"], procs=1)
    assert seen["in_time"], seen


@preempts
@pytest.mark.parametrize("kind", ["loop", "after reading a file", "traced"])
def test_hogs_take_no_threads(kind: str) -> None:
    """Forty of them take turns on the threads that there are, and a few more.

    On a busy machine one that the kernel has set aside may be taken for one that blocks.
    """
    seen = beside(HOGS[kind], procs=2, hogs=40, rounds=2)
    assert seen["preemptions"] > 0, seen
    assert seen["threads"] < 20, seen


# ---- whoever watches the interpreter sees what it would see without ------------------------------

BUSY = """
import gmprt, sys, threading, time

RUNS = 100

def others():
    while True:
        gmprt.sleep(0.001)  # somebody waits for the end of a slice

def step(i):
    a = i + 1
    b = a * 2
    return b

def busy(n):
    total = 0
    for i in range(n):
        total += step(i)
    return total

def beside(fn, *args):
    before = gmprt.stats().preemptions
    def hog():  # one goroutine throughout: on a fast machine one call is shorter than a slice
        for _ in range(RUNS):
            result = fn(*args)
            n = gmprt.stats().preemptions - before
            if n >= 10: break
        return result, n
    def main():
        for _ in range(3):
            gmprt.go(others)
        return gmprt.go(hog).result()
    result, n = gmprt.run(main)
    return result, n
"""


def preempted(body: str) -> str:
    return run_child(BUSY + body, env={"GOMAXPROCS": "2"}, timeout=50).stdout


def script(folder: Path, body: str) -> tuple[Path, dict[str, str]]:
    """For tools that want to see the source: a file, and the environment to run it in."""
    path = folder / "script.py"
    path.write_text(BUSY + body)
    here = [str(Path(gmprt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return path, {"GOMAXPROCS": "2", "PYTHONPATH": os.pathsep.join(here)}


@preempts
def test_a_hog_on_a_state_that_c_code_has_made(tmp_path: Path) -> None:
    """It is not the goroutine's, so there is no yielding."""
    library = compiled(tmp_path, OTHER_STATE)
    code = f"""
        import ctypes, gmprt, time
        other = ctypes.PyDLL({str(library)!r}).on_another_state
        other.argtypes, other.restype = [ctypes.py_object], ctypes.py_object
        stop = []
        def ticks():
            while not stop: gmprt.gosched()
        def hog():
            until, caught = time.monotonic() + 0.2, 0
            while time.monotonic() < until:
                try:
                    int("x")
                except ValueError:
                    caught += 1
            return caught
        def main():
            ticking = [gmprt.go(ticks) for _ in range(3)]
            for _ in range(5):
                assert other(hog) > 0
                assert hog() > 0
            stop.append(1)
            for g in ticking: g.join()
        gmprt.run(main)
        print("ok")
    """
    assert run_child(code).stdout == "ok\n"


@preempts
def test_settrace_sees_every_line() -> None:
    """And each goroutine has its own trace function, before and after."""
    body = """
from collections import Counter
N = 60_000
def traced(n):
    lines, calls, me = Counter(), Counter(), threading.get_ident()
    def tracer(frame, event, arg):
        assert threading.get_ident() == me
        calls[event] += 1
        if event == "line" and frame.f_code is step.__code__:
            lines[frame.f_lineno - step.__code__.co_firstlineno] += 1
        return tracer
    assert sys.gettrace() is None
    sys.settrace(tracer)
    busy(n)
    assert sys.gettrace() is tracer
    sys.settrace(None)
    assert lines == {1: n, 2: n, 3: n}, lines
    assert calls["call"] == n + 1 and calls["return"] == n + 1, calls
    assert "opcode" not in calls
    busy(n)
    assert sys.gettrace() is None
def three():
    goroutines = [gmprt.go(traced, N) for _ in range(3)]
    busy(N * 10)
    for g in goroutines:
        g.result()
_, n = beside(three)
assert n >= 10, n
assert sys.gettrace() is None
print("ok")
"""
    assert preempted(body) == "ok\n"


def test_a_tracer_sees_no_opcode_events() -> None:
    """Preemption asks for some on 3.11, of loops that jump to themselves; never beside a tracer."""
    body = """
import os
events = {"opcode": 0, "line": 0}
def tracer(frame, event, arg):
    events[event] = events.get(event, 0) + 1
    return tracer
def spin():
    sys.settrace(tracer)
    for _ in range(300_000): pass
    while True: pass
def main():
    gmprt.go(spin)
    for _ in range(100):
        gmprt.sleep(0.005)
    print(events["opcode"], flush=True)
    os._exit(0)
gmprt.run(main)
"""
    assert preempted(body) == "0\n"


@preempts
def test_the_tracer_of_the_main_thread_is_there_after_run() -> None:
    body = """
def tracer(frame, event, arg):
    seen.add(frame.f_code.co_name)
    return tracer
for i in range(20):
    seen = set()
    sys.settrace(tracer)
    def main():
        gmprt.go(others)
        busy(40_000)
    gmprt.run(main)
    assert sys.gettrace() is tracer
    busy(1)
    sys.settrace(None)
    assert {"busy", "step", "main"} <= seen, seen
print(gmprt.stats().preemptions > 0)
"""
    assert preempted(body) == "True\n"


@preempts
def test_threading_settrace_reaches_goroutines() -> None:
    body = """
seen = {}
def tracer(frame, event, arg):
    me = threading.get_ident()
    seen[me] = seen.get(me, 0) + (frame.f_code is step.__code__)
    return tracer
threading.settrace(tracer)
def three():
    goroutines = [gmprt.go(busy, 60_000) for _ in range(3)]
    for g in goroutines:
        g.result()
_, n = beside(three)
assert sorted(seen.values())[-3:] == [60_000 * 5] * 3, seen
assert n >= 10, n
print("ok")
"""
    assert preempted(body) == "ok\n"


@preempts
def test_setprofile_sees_every_call() -> None:
    body = """
def profiled(n):
    events = {}
    def profile(frame, event, arg):
        if frame.f_code is step.__code__:
            events[event] = events.get(event, 0) + 1
    sys.setprofile(profile)
    busy(n)
    sys.setprofile(None)
    return events
def two():
    goroutines = [gmprt.go(profiled, 400_000) for _ in range(2)]
    return [g.result() for g in goroutines]
events, n = beside(two)
assert events == [{"call": 400_000, "return": 400_000}] * 2, events
assert n >= 10, n
print("ok")
"""
    assert preempted(body) == "ok\n"


@preempts
def test_cprofile_counts_every_call() -> None:
    """One profiler, in one goroutine: since 3.12 there may be one at a time."""
    body = """
import cProfile, pstats
def profiled(n):
    profile = cProfile.Profile()
    profile.runcall(busy, n)
    stats = pstats.Stats(profile).stats
    return {name: entry[0] for (_, _, name), entry in stats.items() if name in ("busy", "step")}
calls, n = beside(profiled, 300_000)
assert calls == {"busy": 1, "step": 300_000}, calls
assert n >= 10, n
print("ok")
"""
    assert preempted(body) == "ok\n"


@preempts
def test_pdb_steps_beside_hogs(tmp_path: Path) -> None:
    body = """
import io, pdb
def debugged():
    x = 1
    x = step(x)
    return x
def session():
    commands = io.StringIO("break step\\ncontinue\\nnext\\np a\\nreturn\\nnext\\np x\\ncontinue\\n")
    out = io.StringIO()
    debugger = pdb.Pdb(stdin=commands, stdout=out, nosigint=True, readrc=False)
    debugger.prompt = ""
    result = debugger.runcall(debugged)
    busy(200_000)
    return result, out.getvalue()
(result, out), n = beside(session)
assert result == 4, result
lines = [line for line in out.splitlines() if line.strip().isdigit()]
assert "--Return--" in out and lines[0] == "2", out
assert n > 0
print("ok")
"""
    path, env = script(tmp_path, body)
    assert run_child(args=[str(path)], env=env, timeout=50).stdout == "ok\n"


@preempts
def test_coverage_sees_every_line(tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    body = """
def branches(n):
    odd = 0
    for i in range(n):
        if i % 2:
            odd += 1
        else:
            odd += 0
    return odd

assert beside(branches, 2_000_000)[1] > 0
"""
    path, env = script(tmp_path, body)
    data, report = f"--data-file={tmp_path / 'data'}", tmp_path / "report.json"
    run_child(args=["-m", "coverage", "run", data, str(path)], env=env, timeout=50)
    run_child(args=["-m", "coverage", "json", data, "-q", "-o", str(report)], env=env)
    source = path.read_text().splitlines()
    files = json.loads(report.read_text())["files"]
    (missing,) = [f["missing_lines"] for name, f in files.items() if name.endswith("script.py")]
    missed = {source[n - 1].strip() for n in missing}
    assert not {"odd += 1", "odd += 0", "return odd"} & missed, missed


def test_loops_that_count() -> None:
    """Wherever in an instruction the request comes: also where a debug build asserts much."""
    body = """
def count(n):
    total = 0
    for i in range(n):
        total += i
    return total
def four():
    goroutines = [gmprt.go(count, 1_500_000) for _ in range(4)]
    return [g.result() for g in goroutines]
RUNS = 5  # there nobody is preempted, and no number of runs is enough
print(set(beside(four)[0]))
"""
    assert preempted(body) == "{1124999250000}\n"


# ---- switches and the world ----------------------------------------------------------------------


@preempts
@pytest.mark.parametrize(("switch", "state"), [("0", "off"), ("1", "on")])
def test_the_switch(switch: str, state: str) -> None:
    code = BUSY + "RUNS = 1\nprint(beside(busy, 2_000_000)[1] > 0)"
    done = run_child(code, env={"GMPRT_PREEMPT": switch})
    assert done.stdout == f"{state == 'on'}\n"
    info = run_child(args=["-m", "gmprt", "info"], env={"GMPRT_PREEMPT": switch}).stdout
    (line,) = [line for line in info.splitlines() if line.startswith("preemption ")]
    assert line.split()[1] == state


def test_nobody_waits_nobody_is_preempted() -> None:
    """A goroutine alone is left alone."""
    code = BUSY + "gmprt.run(busy, 2_000_000); print(gmprt.stats().preemptions)"
    assert run_child(code).stdout == "0\n"


def test_the_world_stops_beside_hogs() -> None:
    """gomaxprocs() returns within a slice, whoever runs on the other processors."""
    body = """
import json, os, subprocess
LATE = '''
import time
began = time.monotonic()
time.sleep(0.05)
print(time.monotonic() - began - 0.05)
'''
def stop_the_world():
    took = []
    for n in [3, 4] * 3:
        gmprt.sleep(0.001)  # behind the hogs
        began = time.monotonic()
        gmprt.gomaxprocs(n)
        took.append(time.monotonic() - began)
    return sorted(took)[len(took) // 2]
def spin():
    while True: pass
def main():
    gmprt.gomaxprocs(4)
    for _ in range(2):
        gmprt.go(spin)
    rounds = []
    for _ in range(10):
        control = subprocess.Popen([sys.executable, "-c", LATE], stdout=subprocess.PIPE)
        own = gmprt.go(stop_the_world).result()
        machine = float(control.communicate()[0])
        rounds.append((own, machine))
        if own <= 0.012 + 2 * machine:
            break
    print(json.dumps(rounds), own <= 0.012 + 2 * machine, flush=True)
    os._exit(0)
gmprt.run(main)
"""
    out = preempted(body)
    assert out.endswith("True\n"), out


def test_info_says_whether() -> None:
    expected = "off (a debug build of Python 3.11 has no place for it)" if DEBUG_311 else "on"
    assert _core.features()["preemption"] == expected
