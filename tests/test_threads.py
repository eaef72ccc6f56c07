"""csrc/py/host/pythread.c, csrc/py/interpose/hooks/thread.c: threads of Python as goroutines.

Each in a process of its own, for there is no way back for threads that have been started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support import Child, run_child

import gmprt

PRELUDE = """
import _thread, faulthandler, gc, os, signal, sys, threading, time
import gmprt
faulthandler.dump_traceback_later(25, exit=True)

def on_goroutine():
    g = gmprt.current()
    return g is not None and g.is_thread

def threads_of_process():
    return len(os.listdir("/proc/self/task"))

def started(fn, *args, **options):
    t = threading.Thread(target=fn, args=args, **options)
    t.start()
    return t

def joined(*threads):
    for t in threads:
        t.join(20)
        assert not t.is_alive(), gmprt.debug.dump_string()
    return threads

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, gmprt.debug.dump_string()
        time.sleep(0.001)
"""

ON = PRELUDE + "gmprt.threads(True)\n"


def indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


def played(code: str, *, where: str = "thread", on: bool = True, **env: str) -> str:
    """What the code prints, on the main thread or in run()."""
    if where == "run":
        code = f"def main():\n{indented(code)}\ngmprt.run(main)"
    return run_child((ON if on else PRELUDE) + code, env=env).stdout


# ---- what a thread is ----------------------------------------------------------------------------

SCENES = {
    "start, join": """
seen = []
def f(x, *, y):
    seen.append((on_goroutine(), x, y))
t = threading.Thread(target=f, args=(1,), kwargs={"y": 2})
assert not t.is_alive() and t.ident is None
t.start()
joined(t)
assert seen == [(True, 1, 2)], seen
t.join()
try:
    t.start()
except RuntimeError:
    pass
else:
    raise AssertionError
""",
    "identity": """
idents = set()
gate = threading.Barrier(50)
def f():
    me = threading.current_thread()
    assert type(me) is threading.Thread and me.name.startswith("Thread-"), me
    assert me.ident == threading.get_ident() == gmprt.current().ident
    assert me.native_id and threading.get_native_id() > 0
    assert threading.main_thread() is not me
    assert me in threading.enumerate()
    idents.add(me.ident)
    gate.wait()
    assert me.ident == threading.get_ident()
ts = [started(f) for _ in range(50)]
joined(*ts)
assert len(idents) == 50 and threading.get_ident() not in idents
assert threading.active_count() == 1, threading.enumerate()
again = joined(started(threading.get_ident))[0].ident
assert again in idents, "idents are used again"
""",
    "locals": """
local = threading.local()
ended = []
class Value:
    def __del__(self):
        ended.append(threading.current_thread().name)
def f(n):
    assert not hasattr(local, "n")
    local.n, local.value = n, Value()
    time.sleep(0.001)
    assert local.n == n
joined(*[started(f, n) for n in range(20)])
until(lambda: len(ended) == 20)
assert not hasattr(local, "n")
""",
    "excepthook": """
seen = []
threading.excepthook = lambda args: seen.append((args.exc_type, args.thread.name))
joined(started(lambda: 1 / 0, name="one"))
joined(started(sys.exit))
assert [kind for kind, _ in seen] == [ZeroDivisionError, SystemExit] and seen[0][1] == "one", seen
raised = []
sys.unraisablehook = lambda u: raised.append((u.exc_type, u.object))
done = threading.Event()
def bad():
    try:
        [][1]
    finally:
        done.set()
_thread.start_new_thread(bad, ())
done.wait()
until(lambda: raised)
assert raised[0][0] is IndexError and len(raised) == 1, raised
assert raised[0][1] is (bad if sys.version_info < (3, 13) else None), raised
""",
    "settrace": """
seen = set()
def trace(frame, event, arg):
    seen.add((event, frame.f_code.co_name))
    return trace
threading.settrace(trace)
threading.setprofile(lambda *a: None)
def traced():
    assert sys.gettrace() is trace and sys.getprofile() is not None
    time.sleep(0)
joined(started(traced))
assert ("call", "traced") in seen and ("line", "traced") in seen, seen
threading.settrace(None)
threading.setprofile(None)
joined(started(lambda: None))
""",
    "_thread": """
before = _thread._count()
out, gate = [], _thread.allocate_lock()
gate.acquire()
def f():
    me = threading.current_thread()
    out.append((on_goroutine(), type(me).__mro__[0] is threading._DummyThread, me.ident))
    gate.release()
    time.sleep(0.01)
ident = _thread.start_new_thread(f, ())
gate.acquire()
assert out[0][0] and out[0][2] == ident, out
assert _thread._count() == before + 1
until(lambda: _thread._count() == before)
""",
    "locks": """
lock, r, cond, turns = threading.Lock(), threading.RLock(), threading.Condition(), []
def f(n):
    for _ in range(200):
        with r, r:
            with lock:
                turns.append(n)
        if len(turns) % 7 == 0:
            time.sleep(0)
    with cond:
        cond.notify_all()
ts = [started(f, n) for n in range(8)]
with cond:
    cond.wait_for(lambda: len(turns) == 1600, 20)
joined(*ts)
assert not lock.locked()
""",
    "asynchronous exception": """
import ctypes
class Stop(Exception):
    pass
stopped, begun = [], threading.Event()
def f():
    begun.set()
    try:
        while True:
            pass
    except Stop:
        stopped.append(True)
t = started(f)
begun.wait()
n = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(t.ident), ctypes.py_object(Stop))
assert n == 1, n
joined(t)
assert stopped
""",
    "signals by ident": """
ended = []
def f(go_on):
    go_on.acquire()
    ended.append(True)
for _ in range(100):  # most have not begun
    go_on = _thread.allocate_lock()
    go_on.acquire()
    ident = _thread.start_new_thread(f, (go_on,))
    signal.pthread_kill(ident, 0)
    go_on.release()
until(lambda: len(ended) == 100)  # 3.11 crashes if it ends before its threads have begun
""",
    "recursion": """
def deep(n):
    return deep(n + 1)
seen = []
def f():
    try:
        deep(0)
    except RecursionError:
        seen.append(True)
    assert sorted([3, 1, 2], key=lambda x: -x) == [3, 2, 1]
joined(started(f), started(f))
assert len(seen) == 2
""",
    "contextvars": """
import contextvars
var = contextvars.ContextVar("var", default=0)
var.set(1)
seen = []
joined(started(lambda: seen.append(var.get())))
inherits = getattr(sys.flags, "thread_inherit_context", False)
assert seen == [1 if inherits else 0], seen
""",
    "frames": """
gate = threading.Event()
def waits_here():
    gate.wait()
t = started(waits_here)
def found():
    frame = sys._current_frames().get(t.ident)
    while frame is not None and frame.f_code.co_name != "waits_here":
        frame = frame.f_back
    return frame is not None
until(found)
gate.set()
joined(t)
assert t.ident not in sys._current_frames()
""",
    "signal mask": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
seen = []
joined(started(lambda: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))))
assert signal.SIGUSR1 in seen[0], seen
""",
    "callbacks": """
import ctypes
libc = ctypes.CDLL(None)
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
seen = []
def f():
    def sleeps(a, b):
        time.sleep(0.0005)
        return a[0] - b[0]
    numbers = (ctypes.c_int * 5)(4, 2, 5, 1, 3)
    libc.qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), compare(sleeps))
    seen.append(list(numbers))
joined(*[started(f) for _ in range(5)])
assert seen == [[1, 2, 3, 4, 5]] * 5, seen
""",
    "children and sockets": """
import socket, subprocess
def f():
    done = subprocess.run(["cat"], input="x", capture_output=True, text=True)
    assert done.stdout == "x", done
    a, b = socket.socketpair()
    with a, b:
        t = started(lambda: (time.sleep(0.01), a.sendall(b"y")))
        assert b.recv(1) == b"y"
        joined(t)
    seen.append(True)
seen = []
joined(*[started(f) for _ in range(5)])
assert len(seen) == 5
""",
    "garbage": """
gc.collect()
for _ in range(3):
    joined(*[started(lambda: [[]].append([])) for _ in range(100)])
    gc.collect()
assert gmprt.stats().python_threads <= 1
""",
}


@pytest.mark.parametrize("where", ["thread", "run"])
@pytest.mark.parametrize("scene", list(SCENES))
def test_as_a_thread(scene: str, where: str) -> None:
    played(SCENES[scene], where=where)


@pytest.mark.parametrize("scene", list(SCENES))
def test_scenes_tell_the_truth_of_threads(scene: str) -> None:
    """What they check is how threads are, but for the questions whether they are goroutines."""
    code = f"on_goroutine = lambda: True\n{SCENES[scene]}"
    code = code.replace("== gmprt.current().ident", "")
    code = code.replace("gmprt.stats().python_threads", "0")
    played(code, on=False)


ALL = "".join(SCENES[scene] for scene in SCENES if scene not in ("signal mask", "_thread"))


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("where", ["thread", "run"])
def test_chaos(where: str, seed: str) -> None:
    played(ALL, where=where, GMPRT_CHAOS=seed)


@pytest.mark.parametrize("procs", ["1", "2"])
@pytest.mark.parametrize("where", ["thread", "run"])
def test_processors(procs: str, where: str) -> None:
    played(ALL, where=where, GOMAXPROCS=procs)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="joins a lock, not the thread")
@pytest.mark.parametrize("where", ["thread", "run"])
def test_joined_is_ended(where: str) -> None:
    """As the C library has it: nothing is left of a thread that was joined."""
    code = """
for _ in range(300):
    threads = [threading.Thread(target=time.sleep, args=(n * 1e-5,)) for n in range(3)]
    joiner = threading.Thread(target=lambda: joined(*threads))
    for t in threads:
        t.start()
    joiner.start()
    joined(*threads, joiner)
    assert gmprt.stats().python_threads == 0, gmprt.debug.dump_string()
"""
    played(code, where=where)


# ---- what becomes a goroutine -------------------------------------------------------------------


def test_off_by_default_and_switched() -> None:
    code = """
        def where():
            seen.append(on_goroutine())
        seen = []
        joined(started(where))
        assert gmprt.threads(True) is False
        joined(started(where))
        assert gmprt.threads(False) is True
        joined(started(where))
        assert gmprt.threads(True) is False
        def in_goroutine():
            joined(started(where))
            return gmprt.current().is_thread
        assert gmprt.go(in_goroutine).result() is False
        assert seen == [False, True, False, True], seen
    """
    run_child(PRELUDE + "\n".join(line[8:] for line in code.splitlines()))


def test_nothing_is_started_before_the_first_thread() -> None:
    played("assert threads_of_process() == 2, threads_of_process()  # faulthandler's watchdog")


CROWD = """
import asyncio, concurrent.futures
def f(x):
    assert on_goroutine()
    time.sleep(0.2)
    return x
with concurrent.futures.ThreadPoolExecutor(1000) as pool:
    assert list(pool.map(f, range(1000))) == list(range(1000))
    assert threads_of_process() < 50, threads_of_process()
async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(300))
    return await asyncio.gather(*[asyncio.to_thread(f, i) for i in range(300)])
assert asyncio.run(main()) == list(range(300))
"""


@pytest.mark.parametrize("where", ["thread", "run"])
def test_crowd(where: str) -> None:
    played(CROWD, where=where)


@pytest.mark.parametrize("where", ["thread", "run"])
def test_greenlets(where: str) -> None:
    pytest.importorskip("greenlet")
    code = """
import greenlet
out = []
def f(n):
    def inner(x):
        time.sleep(0.001)
        return greenlet.getcurrent().parent.switch(x + 1)
    g = greenlet.greenlet(inner)
    out.append((g.switch(n), g.switch(5)))
    assert on_goroutine()
joined(*[started(f, n) for n in range(10)])
assert sorted(out) == [(n + 1, 5) for n in range(10)], out
"""
    played(code, where=where)


def test_watchdog_is_a_thread() -> None:
    code = """
faulthandler.cancel_dump_traceback_later()
faulthandler.dump_traceback_later(0.3, file=sys.stdout)
def f():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
joined(started(f, name="busy"))
faulthandler.cancel_dump_traceback_later()
"""
    assert "Timeout" in played(code, where="run")


def test_large_stacks_are_threads() -> None:
    """Recursion through C code that only they have room for."""
    code = """
seen = []
threading.stack_size(64 << 20)
joined(started(lambda: seen.append(on_goroutine())))
threading.stack_size(256 << 10)
joined(started(lambda: seen.append(on_goroutine())))
assert seen == [False, True], seen
"""
    played(code)


def test_subinterpreters_have_threads() -> None:
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
r, w = os.pipe()
here = threads_of_process()
script = f'''
import _thread, os
lock = _thread.allocate_lock()
lock.acquire()
def f():
    os.write({w}, str(len(os.listdir("/proc/self/task"))).encode())
    lock.release()
_thread.start_new_thread(f, ())
lock.acquire()
'''
options = {"isolated": False} if sys.version_info < (3, 13) else {}
interp = interpreters.create(*([] if options else ["legacy"]), **options)
failed = (interpreters.run_string if hasattr(interpreters, "run_string") else interpreters.exec)(
    interp, script)
assert not failed, failed
assert int(os.read(r, 9)) == here + 1
interpreters.destroy(interp)
seen = []
joined(started(lambda: seen.append(on_goroutine())))
assert seen == [True]
"""
    played(code)


def test_stopping_runtime_starts_threads() -> None:
    code = """
def late():
    seen = []
    try:
        joined(started(lambda: seen.append(gmprt.current())))
    except RuntimeError:  # 3.12 and later
        print("refused")
    else:
        print(seen)
joined(started(int))
"""
    # What was registered before gmprt is imported runs after its end.
    before = "import atexit\natexit.register(lambda: late())\n"
    assert run_child(before + ON + code).stdout.strip() in ("refused", "[None]")


def test_replaced_start() -> None:
    """gevent does so: its threads are greenlets, and not our business."""
    code = """
real = _thread.start_new_thread
_thread.start_new_thread = lambda fn, args: 1
try:
    gmprt.threads(True)
except RuntimeError as error:
    print(error)
_thread.start_new_thread = real
gmprt.threads(True)
seen = []
joined(started(lambda: seen.append(on_goroutine())))
assert seen == [True]
"""
    assert "start_new_thread" in played(code, on=False)


def test_nothing_replaced() -> None:
    code = """
try:
    gmprt.threads(True)
except gmprt.Error as error:
    print(error)
gmprt.threads(False)
joined(started(int))
"""
    assert "interposition" in played(code, on=False, GMPRT_INTERPOSE="none")


def test_without_parking() -> None:
    played(SCENES["start, join"] + SCENES["locks"], GMPRT_INTERPOSE="0")


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["thread", "run"])
def test_exit_waits_for_threads_but_daemons(where: str) -> None:
    code = """
def f():
    time.sleep(0.3)
    print("thread", flush=True)
def daemon():
    try:
        time.sleep(60)
    finally:
        print("daemon", flush=True)
started(daemon, daemon=True)
started(f)
"""
    if where == "run":
        code = f"def main():\n{indented(code)}\ngmprt.run(main)\nprint('main', flush=True)"
    done = run_child(f"{ON}\nbegan = time.monotonic()\n{code}", timeout=20)
    assert done.stdout.splitlines()[-1:] == ["thread"]
    assert "daemon" not in done.stdout
    assert done.stderr == ""


DAEMONS = {
    "in a lock": "l = _thread.allocate_lock(); l.acquire(); l.acquire()",
    "asleep": "time.sleep(60)",
    "in C": "import ctypes; ctypes.CDLL(None).usleep(500_000)",
    "busy": "while True: pass",
    "in a system call": "os.system('sleep 1')",
}


@pytest.mark.parametrize("what", list(DAEMONS))
@pytest.mark.parametrize("where", ["thread", "run"])
def test_exit_abandons_daemons(what: str, where: str) -> None:
    """At once: what goroutines get at the end is not spent on them."""
    code = f"""
import gmprt._life.run
gmprt._life.run._EXIT_DEADLINE = 1000
begun = threading.Event()
def daemon():
    begun.set()
    {DAEMONS[what]}
for _ in range(3):
    started(daemon, daemon=True)
begun.wait()
time.sleep(0.1)
"""
    done = run_child(
        f"{ON}\ndef main():\n{indented(code)}\n{'gmprt.run(main)' if where == 'run' else 'main()'}",
        timeout=20,
    )
    assert (done.stdout, done.stderr) == ("", "")


COMES_BACK = """
import atexit, sys, time
class Late:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)
late = Late()
atexit.register(time.sleep, 0.5)  # runs when the runtime has been stopped
import ctypes, threading, gmprt
gmprt.threads(True)
libc = ctypes.CDLL(None)
def daemon(ms, more):
    libc.usleep(ms * 1000)
    if more:
        time.sleep(0.1)
ended = []
def main():
    for ms in (200, 300, 700, 800):
        for more in (False, True):
            threading.Thread(target=daemon, args=(ms, more), daemon=True).start()
    ended.append(threading.Thread(target=int))
    ended[0].start()  # and is never joined
    time.sleep(0.1)
    END
START
"""


@pytest.mark.parametrize("end", ["pass", "ctypes.pythonapi.Py_Exit(3)"])
@pytest.mark.parametrize("where", ["main()", "gmprt.run(main)"])
def test_daemons_that_come_back_at_exit(where: str, end: str) -> None:
    """From C code, when the runtime is stopped already, and the interpreter on its way."""
    code = COMES_BACK.replace("START", where).replace("END", end)
    done = run_child(code, status=3 if "Exit" in end else 0)
    assert (done.stdout, done.stderr) == ("", "")


def test_run_leaves_threads_alone() -> None:
    """They are not its descendants: neither cancelled nor waited for."""
    code = """
out = gmprt.Chan(1)
def f():
    time.sleep(0.2)
    out.send("thread")
def main():
    started(f)
gmprt.run(main)
assert len(out) == 0
assert out.recv() == "thread"
"""
    played(code)


def test_cancelled_by_handle_only() -> None:
    code = """
seen = []
def f():
    handle.append(gmprt.current())
    try:
        time.sleep(60)
    except gmprt.Cancelled as error:
        seen.append(error.reason)
handle = []
t = started(f)
until(lambda: handle)
handle[0].cancel("by hand")
joined(t)
assert seen == ["by hand"], seen
assert handle[0].result() is None
"""
    played(code)


IN_THE_TABLES = """
tables, name = threading._active_limbo_lock, "_start_joinable_thread"
if not hasattr(threading, name):
    name = "_start_new_thread"
def cancelled():
    (g,) = gmprt.debug.goroutines()
    until(lambda: g.state == "waiting")
    g.cancel("by hand")
    until(lambda: g.state == "waiting")
    tables.release()
def ended():
    joined(t)
    assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
    assert not threading._limbo, threading._limbo
    print(seen)
seen = []
threading.excepthook = lambda args: seen.append(args.exc_type.__name__)
"""

WAITS_FOR_THE_TABLES = {
    "begins": """
real = getattr(threading, name)
setattr(threading, name, lambda *args, **options: (tables.acquire(), real(*args, **options)))
t = started(time.sleep, 60)
cancelled()
ended()
""",
    "ends": """
gate = threading.Event()
t = started(gate.wait)
until(lambda: any(g.state == "waiting" for g in gmprt.debug.goroutines()))
tables.acquire()
gate.set()
until(lambda: sys._current_frames()[t.ident].f_code.co_name == "_delete")
cancelled()
ended()
""",
}


@pytest.mark.parametrize("when", list(WAITS_FOR_THE_TABLES))
def test_cancelled_while_threading_notes_it(when: str) -> None:
    """It waits until nothing of threading's is left half done."""
    seen = played(IN_THE_TABLES + WAITS_FOR_THE_TABLES[when])
    assert seen == ("['Cancelled']\n" if when == "begins" else "[]\n")


def test_callbacks_of_its_end() -> None:
    """They run in the goroutine, which is no thread any more."""
    code = """
gate, seen = threading.Event(), []
t = started(gate.wait, name="thread")
until(lambda: gmprt.stats().python_threads == 1)
(g,) = gmprt.debug.goroutines()
def callback(g):
    before = gmprt.stats().parks
    time.sleep(0.001)
    seen.append((gmprt.stats().parks > before, threading.current_thread().name != "thread"))
    seen.append(threading.get_ident())
g.add_done_callback(callback)
gate.set()
joined(t)
until(lambda: len(seen) == 2)
assert seen[0] == (True, True), seen
until(lambda: gmprt.num_goroutine() == 0)
assert seen[1] != t.ident and seen[1] not in threading._active, (seen, threading._active)
"""
    played(code)


def test_no_deadlock_while_there_is_a_thread() -> None:
    """They hang as threads do; the dump says who waits for whom."""
    code = """
gate = threading.Lock()
gate.acquire()
def waits():
    gate.acquire()
def main():
    started(waits, daemon=True, name="waiter")
    until(lambda: any(g.is_thread and g.state == "waiting" for g in gmprt.debug.goroutines()))
    print("hangs", flush=True)
    gmprt.Chan().recv()
gmprt.run(main)
"""
    with Child(ON + code) as child:
        child.expect("hangs")
        with pytest.raises(AssertionError):
            child.expect("Deadlock", stream="stderr", timeout=2)
        child.signal(signal.SIGQUIT)
        child.expect('"waiter" [semacquire', stream="stderr")
        child.expect("thread", stream="stderr")


def test_deadlock_again_when_it_has_ended() -> None:
    code = """
def main():
    joined(started(int))
    try:
        gmprt.Chan().recv()
    except gmprt.Deadlock:
        print("deadlock")
faulthandler.cancel_dump_traceback_later()
gmprt.run(main)
"""
    assert played(code) == "deadlock\n"


@pytest.mark.parametrize("where", ["thread", "run"])
def test_interrupts(where: str) -> None:
    code = """
def f():
    time.sleep(0.1)
    _thread.interrupt_main()
    gate.wait()
gate = threading.Event()
t = started(f)
try:
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    gate.set()
joined(t)
def g():
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
t = started(g)
try:
    t.join()
except KeyboardInterrupt:
    print("interrupted")
joined(t)
"""
    assert played(code, where=where) == "interrupted\n"


# ---- what is seen -------------------------------------------------------------------------------


def test_seen() -> None:
    code = """
gate = threading.Event()
t = started(gate.wait, name="someone")
g = gmprt.go(gate.wait)
until(lambda: sum(x.state == "waiting" for x in gmprt.debug.goroutines()) == 2)
stats = gmprt.stats()
assert (stats.goroutines, stats.python_threads) == (2, 1), stats
dump = gmprt.debug.dump_string()
assert '"someone" [semacquire, thread]:' in dump, dump
assert dump.count("thread]") == 1 and "threading.Event.wait" in dump, dump
print([x.is_thread for x in gmprt.debug.goroutines()])
gate.set()
joined(t)
g.join()
"""
    assert played(code) == "[True, False]\n"


def test_info() -> None:
    done = run_child(args=["-m", "gmprt", "info"])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Python's threads")]
    assert line.split() == ["Python's", "threads", "OS", "threads"]


# ---- fork ---------------------------------------------------------------------------------------

QUIET = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"


def test_forked_children_inherit_it() -> None:
    code = """
joined(started(int))
for fork in (os.fork, lambda: None):
    pid = os.fork()
    if pid == 0:
        seen = []
        joined(*[started(lambda: seen.append(on_goroutine())) for _ in range(20)])
        os._exit(0 if seen == [True] * 20 else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""
    for where in ("thread", "run"):
        played(QUIET + code, where=where)


def test_forked_before_anything_was_started() -> None:
    code = """
pid = os.fork()
if pid == 0:
    seen = []
    joined(started(lambda: seen.append(on_goroutine())))
    os._exit(0 if seen == [True] else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    played(QUIET + code)


FORK_IN_A_THREAD = """
r, w = os.pipe()
others = [started(threading.Event().wait, daemon=True) for _ in range(5)]
def f():
    pid = os.fork()
    if pid == 0:
        me = threading.current_thread()
        assert me is threading.main_thread() and threading.active_count() == 1
        assert threading.get_ident() == me.ident
        BODY
    status.append(os.waitpid(pid, 0)[1])
status = []
joined(started(f))
os.close(w)
with open(r) as file:
    print(status, file.read())
"""

IN_CHILD = {
    "exits": ("os.write(w, b'x'); os._exit(7)", f"[{7 << 8}] x"),
    "returns": ("os.write(w, b'x'); return", "[0] x"),
    "raises": ("os.write(w, b'x'); 1 / 0", "[0] x"),
    "starts threads and returns": (
        "joined(started(time.sleep, 0.01), started(os.write, w, b'x'))\n        return",
        "[0] x",
    ),
    "leaves a thread behind": (
        "started(lambda: (time.sleep(0.3), os.write(w, b'x')))\n        return",
        "[0] x",
    ),
    "sleeps and forks again": (
        "time.sleep(0.01)\n"
        "        if (again := os.fork()) == 0:\n"
        "            os.write(w, b'y')\n"
        "            return\n"
        "        os.write(w, str(os.waitpid(again, 0)[1]).encode())\n"
        "        return",
        "[0] y0",
    ),
    "starts goroutines and returns": (
        "gmprt.go(os.write, w, b'x').join()\n        return",
        "[0] x",
    ),
}


@pytest.mark.parametrize("how", list(IN_CHILD))
@pytest.mark.parametrize("where", ["thread", "run"])
def test_fork_in_a_thread(how: str, where: str) -> None:
    body, expected = IN_CHILD[how]
    assert played(QUIET + FORK_IN_A_THREAD.replace("BODY", body), where=where).strip() == expected


@pytest.mark.parametrize("how", [how for how in IN_CHILD if how != "starts goroutines and returns"])
def test_fork_in_a_thread_is_as_in_one(how: str) -> None:
    body, expected = IN_CHILD[how]
    code = QUIET + FORK_IN_A_THREAD.replace("BODY", body)
    assert played(code, on=False).strip() == expected


def test_pool_of_processes() -> None:
    code = """
import concurrent.futures, multiprocessing
context = multiprocessing.get_context("fork")
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
"""
    for where in ("thread", "run"):
        played(QUIET + code, where=where)


# ---- how it is asked for ------------------------------------------------------------------------


def test_command_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"""{PRELUDE}
seen = []
joined(started(lambda: seen.append(on_goroutine())))
print(seen, sys.argv[1:])
""")
    for target in (["program.py"], ["-m", "program"]):
        done = run_child(
            f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '')\n"
            f"sys.argv = ['gmprt', 'run', '--threads', *{target}, '--threads', 'x']\n"
            "runpy.run_module('gmprt', run_name='__main__')",
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.stdout == "[True] ['--threads', 'x']\n"


ROOT = Path(__file__).resolve().parents[1]


def test_installed_with_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    built = {path.name: path for path in tmp_path.iterdir()}
    assert sorted(built) == ["gmprt", "gmprt_gunicorn.pth", "gmprt_threads.pth"]
    for name in sorted(built)[1:]:
        assert built[name].read_text() == (ROOT / "tools" / name).read_text()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with gmprt installed, as far as its start is concerned."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "a_path.pth").write_text(str(Path(gmprt.__file__).parents[1]))
    shutil.copy(ROOT / "tools/gmprt_threads.pth", site)
    return folder / "bin" / "python"


ASKED = """
import sys, threading
def f():
    gmprt = sys.modules.get("gmprt")
    print(bool(gmprt and gmprt.current() and gmprt.current().is_thread))
t = threading.Thread(target=f)
t.start()
t.join()
"""


@pytest.mark.parametrize(
    ("value", "expected"), [("1", "True"), ("0", "False"), ("", "False"), (None, "False")]
)
def test_environment(environment: Path, value: str | None, expected: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "GMPRT_THREADS"}
    env |= {} if value is None else {"GMPRT_THREADS": value}
    for flags in ([], ["-I"]):
        done = subprocess.run(
            [environment, *flags, "-c", ASKED], env=env, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_children_that_exec(environment: Path) -> None:
    """Theirs is the variable, not what their parent has chosen for itself."""
    again = f"[sys.executable, '-c', {ASKED!r}]"
    code = f"import os, sys; sys.argv[1:] and os.execv(sys.executable, {again})"
    for how, expected in (({"GMPRT_THREADS": "1"}, "True\n"), ({}, "False\n")):
        env = {k: v for k, v in os.environ.items() if k != "GMPRT_THREADS"} | how
        program = f"import gmprt; gmprt.threads(True)\n{code}"
        done = subprocess.run(
            [environment, "-c", program, "x"], env=env, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.stderr) == (expected, "")
