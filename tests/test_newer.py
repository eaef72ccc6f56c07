"""What came with 3.14 and 3.15, inside goroutines: as in threads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from support import OTHER_STATE, Child, compiled, run_child

import gmprt

since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="came with Python 3.14")
since_315 = pytest.mark.skipif(sys.version_info < (3, 15), reason="came with Python 3.15")

# ---- recursion through C: it ends by addresses ---------------------------------------------------

DEPTH = """
import gmprt, functools, sys

def depth():
    # Levels of recursion through C until the interpreter ends it.
    n = 0
    def down(_):
        nonlocal n
        n += 1
        return sorted([1, 2], key=down)
    try:
        down(0)
    except RecursionError as error:
        assert "tack overflow" in str(error) or "recursion" in str(error), error
    return n

sys.setrecursionlimit(10**9)
"""


@since_314
@pytest.mark.parametrize("preempt", ["0", "1"])
def test_recursion_through_c_ends_in_an_error(preempt: str) -> None:
    """On each stack that there is: goroutine's, the main one's, a pooled one's, a thread's."""
    code = """
        def main():
            own = depth()
            others = [gmprt.go(depth).result() for _ in range(3)]  # on a pooled stack, too
            return own, *others
        for _ in range(2):
            print(*gmprt.run(main), depth())
    """
    for line in run_child(DEPTH + dedent(code), env={"GMPRT_PREEMPT": preempt}).stdout.splitlines():
        main, *others, thread = map(int, line.split())
        assert len(set(others)) == 1, line
        assert others[0] > 50, line
        assert others[0] > thread / 2, line  # 8 MiB, as a rule, against 8 MiB
        assert abs(main - thread) < thread / 2, line


@since_314
def test_a_larger_stack_allows_deeper_recursion_through_c() -> None:
    code = """
        gmprt.set_max_stack(1 << 20)
        gmprt.set_max_stack(16 << 20)
        def main():
            return gmprt.go(depth).result()
        print(gmprt.run(main))
        gmprt.set_max_stack(256 << 10)
        small = [gmprt.go(depth) for _ in range(20)]
        print(min(g.result() for g in small))
    """
    large, small = map(int, run_child(DEPTH + dedent(code)).stdout.split())
    assert large > 10 * small, (large, small)


@since_314
def test_a_state_that_c_code_makes_knows_the_stack_it_is_on(tmp_path: Path) -> None:
    library = compiled(tmp_path, OTHER_STATE)
    code = f"""
        import ctypes
        other = ctypes.PyDLL({str(library)!r}).on_another_state
        other.argtypes, other.restype = [ctypes.py_object], ctypes.py_object
        def main():
            g = gmprt.go(lambda: (depth(), other(depth)))
            return (depth(), other(depth)), g.result()
        for own, others in gmprt.run(main):
            assert others > own * 0.9, (own, others)
        print("ok")
    """
    assert run_child(DEPTH + dedent(code)).stdout == "ok\n"


ENTERS = """
#include <Python.h>
/* Calls f as a library does that knows nothing of the interpreter's thread. */
PyObject *enters(PyObject *f) {
  PyInterpreterGuard *guard = PyInterpreterGuard_FromCurrent();
  PyObject *r;
  Py_BEGIN_ALLOW_THREADS
  PyThreadStateToken *token = PyThreadState_Ensure(guard);
  r = PyObject_CallNoArgs(f);
  PyThreadState_Release(token);
  Py_END_ALLOW_THREADS
  PyInterpreterGuard_Close(guard);
  return r;
}
"""


@since_315
def test_what_c_code_entered_by_ensure_keeps_its_thread(tmp_path: Path) -> None:
    code = f"""
        import ctypes, gmprt, threading, time
        enters = ctypes.PyDLL({str(compiled(tmp_path, ENTERS))!r}).enters
        enters.argtypes, enters.restype = [ctypes.py_object], ctypes.py_object
        stop = []
        def busy():
            while not stop: gmprt.gosched()
        def inside():
            seen = set()
            for _ in range(50):
                gmprt.gosched(); time.sleep(0.0005)
                seen.add(threading.get_native_id())
            return len(seen)
        def main():
            others = [gmprt.go(busy) for _ in range(3)]
            kept = [gmprt.go(enters, inside) for _ in range(10)]
            threads = [g.result() for g in kept]
            stop.append(1)
            for g in others: g.join()
            return threads
        threads = gmprt.run(main)
        assert threads == [1] * 10, threads
        print("ok")
    """
    assert run_child(code, env={"GOMAXPROCS": "3", "GMPRT_CHAOS": "3"}).stdout == "ok\n"


@since_314
def test_deep_structures_are_freed() -> None:
    """By the trashcan, which asks how much stack is left."""
    code = """
        import gmprt
        def deep(n):
            x = None
            for _ in range(n):
                x = [x]
            del x
            return n
        def main():
            return [gmprt.go(deep, 300_000).result(), deep(300_000)]
        print(gmprt.run(main))
    """
    assert run_child(code).stdout == "[300000, 300000]\n"


# ---- objects -------------------------------------------------------------------------------------


def test_a_result_of_select_hashes_as_its_tuple() -> None:
    ch = gmprt.Chan[int](1)
    ch.send(7)
    selected = gmprt.select(gmprt.Recv(ch))
    assert hash(selected) == hash(tuple(selected))
    assert {selected: 1}[tuple(selected)] == 1  # type: ignore[index]


# ---- seen from outside ---------------------------------------------------------------------------


def _attach_allowed() -> bool:
    """May a process read the memory of its child?  (yama, containers)"""
    try:
        return int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text()) <= 1
    except OSError:
        return True


may_attach = pytest.mark.skipif(not _attach_allowed(), reason="the kernel lets nobody attach")


@since_314
@may_attach
@pytest.mark.parametrize("main", ["busy", "yields"])
def test_remote_exec(main: str, tmp_path: Path) -> None:
    """Runs in the main goroutine, as in a main thread."""
    script = tmp_path / "script.py"
    script.write_text(
        "import gmprt, threading, __main__\n"
        "main = threading.current_thread() is threading.main_thread()\n"
        "__main__.seen.append((gmprt.current() is not None, main))\n"
    )
    code = f"""
        import gmprt, sys
        seen = []
        def other():
            while not seen: gmprt.gosched()
        def main():
            others = [gmprt.go(other) for _ in range(3)]
            print("ready", flush=True)
            while not seen:
                if {main!r} == "yields": gmprt.gosched()
            for g in others: g.join()
        gmprt.run(main)
        print(seen)
    """
    with Child(code) as child:
        child.expect("ready")
        sys.remote_exec(child.process.pid, str(script))  # type: ignore[attr-defined, unused-ignore]
        done = child.finish()
    assert done.stdout.splitlines()[-1] == "[(True, True)]", done


LOOPS = """
import asyncio, gmprt, queue, threading, time
ready = queue.SimpleQueue()
async def waits():
    ready.put(None)
    await asyncio.sleep(1000)
def loop(i):
    async def main():
        await asyncio.create_task(waits(), name=f"task-of-{i}")
    asyncio.run(main())
def main():
    for i in range(3): START(i)
    for _ in range(3): ready.get()
    print("ready", flush=True)
    time.sleep(1000)
RUN
"""


def tasks_seen(start: str, run: str) -> set[str]:
    with Child(LOOPS.replace("START(i)", start).replace("RUN", run)) as child:
        child.expect("ready")
        command = [sys.executable, "-m", "asyncio", "ps", str(child.process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"task-of-\d", done.stdout))


@since_314
@may_attach
def test_asyncio_tasks_of_goroutines_are_seen() -> None:
    """By ``python -m asyncio ps``, from another process, as far as it sees those of threads."""
    of_threads = tasks_seen(
        "threading.Thread(target=loop, args=(i,), daemon=True).start()", "main()"
    )
    assert tasks_seen("gmprt.go(loop, i)", "gmprt.run(main)") == of_threads
    if sys.version_info >= (3, 15):
        assert len(of_threads) == 3


def sampled(code: str) -> str:
    """What the sampling profiler sees of a child in a second; all threads."""
    with Child(code) as child:
        child.expect("ready")
        command = [
            sys.executable,
            "-m",
            "profiling.sampling",
            "attach",
            "-a",
            "-d",
            "1",
            "--pstats",
        ]
        done = subprocess.run(
            [*command, str(child.process.pid)], capture_output=True, text=True, timeout=60
        )
    return done.stdout


IDLE_STATE = """
import ctypes, time
ctypes.pythonapi.PyInterpreterState_Get.restype = ctypes.c_void_p
ctypes.pythonapi.PyThreadState_New.argtypes = [ctypes.c_void_p]
ctypes.pythonapi.PyThreadState_New(ctypes.pythonapi.PyInterpreterState_Get())
def a_sleeper(): time.sleep(1000)
print("ready", flush=True)
a_sleeper()
"""


@since_315
@may_attach
def test_the_sampling_profiler_sees_goroutines_as_threads() -> None:
    if "a_sleeper" not in sampled(IDLE_STATE):
        pytest.skip("this profiler can read no process with a thread that runs no Python")
    code = """
        import gmprt
        def a_hog_of_its_own():
            while True: sum(range(1000))
        def one_that_waits(ch):
            ch.recv()
        def main():
            ch = gmprt.Chan()
            for _ in range(2): gmprt.go(one_that_waits, ch)
            gmprt.go(a_hog_of_its_own)
            gmprt.gosched()
            print("ready", flush=True)
            gmprt.sleep(1000)
        gmprt.run(main)
    """
    seen = sampled(code)
    assert "a_hog_of_its_own" in seen, seen
    assert "one_that_waits" in seen, seen


@since_314
def test_dump_c_stack() -> None:
    """faulthandler walks the C stack of a goroutine to its end and no further."""
    code = """
        import faulthandler, gmprt, sys
        def main():
            def dumps():
                faulthandler.dump_c_stack(sys.stderr)
                return 1
            return gmprt.go(dumps).result() + dumps()
        print(gmprt.run(main))
    """
    done = run_child(code)
    assert done.stdout == "2\n"
    assert done.stderr.count("most recent call first") == 2, done.stderr


@since_314
def test_zstd() -> None:
    """Works without the GIL; two goroutines at it at once."""
    code = """
        import gmprt, os
        from compression import zstd
        def packs(n):
            data = os.urandom(1000) * n
            return zstd.decompress(zstd.compress(data)) == data
        def main():
            return all(g.result() for g in [gmprt.go(packs, n) for n in (1, 100, 1000, 3000)])
        print(gmprt.run(main))
    """
    assert run_child(code).stdout == "True\n"


@since_314
def test_interpreters_beside_goroutines() -> None:
    """An interpreter that a goroutine makes and runs has no goroutines, and says so."""
    code = """
        import gmprt
        from concurrent import interpreters
        def one():
            other = interpreters.create()
            other.exec("x = sum(range(100)); assert x == 4950")
            try:
                other.exec("import gmprt")
            except interpreters.ExecutionFailed as error:
                text = str(error)
            other.close()
            return text
        def main():
            return [gmprt.go(one).result(), one()]
        for text in gmprt.run(main):
            assert "interpreter" in text, text
        print("ok")
    """
    assert run_child(code).stdout == "ok\n"


# ---- the JIT -------------------------------------------------------------------------------------

LOOPS_THAT_WAIT = r"""
import gmprt, os, queue, select, socket, subprocess, sys, threading, time
from _opcode import get_executor

N = 6000  # calls that need not wait: meanwhile the loop is compiled
kept, children = [], []
some, numbers, never = range(N + 1), [0] * N + [10**6], [False] * N + [True]

def held():
    lock = threading.Lock()
    lock.acquire()
    return lock
def filled(data=b"x" * N):
    there, here = socket.socketpair()
    there.sendall(data)
    kept.append(there)
    return here
def filled_queue():
    q = queue.SimpleQueue()
    for i in range(N): q.put(i)
    return q
def filled_channel():
    ch = gmprt.Chan(N)
    for i in range(N): ch.send(i)
    return ch
def silent():
    poll = select.poll()
    poll.register(filled(b""), select.POLLIN)
    return poll
def child():
    children.append(subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL))
    return children[-1].pid
def below(o): return o.recv(1)
rows = b"row\n" * N
def loops():
    return {
        "sleep": ("time.sleep(x)", None, numbers),
        "acquire": ("o.acquire(x)", held(), never),
        "keyword": ("o.acquire(blocking=x)", held(), never),
        "star": ("o.acquire(*x)", held(), [(x,) for x in never]),
        "with": ("with x: pass", None, [threading.Lock()] * N + [held()]),
        "get": ("o.get()", filled_queue(), some),
        "recv": ("o.recv(1)", filled(), some),
        "recv_into": ("o.recv_into(x, 1)", filled(), [bytearray(1)] * (N + 1)),
        "read": ("os.read(o, 1)", filled().detach(), some),
        "select": ("select.select(o, (), (), x)", [filled(b"")], numbers),
        "poll": ("o.poll(x)", silent(), numbers),
        "waitpid": ("os.waitpid(o, x)", child(), [os.WNOHANG] * N + [0]),
        "readline": ("o.readline()", filled(rows).makefile("rb"), some),
        "rows of bytes": ("pass", None, open(filled(rows).detach(), "rb")),
        "rows of text": ("pass", None, open(filled(rows).detach())),
        "in a function": ("below(o)", filled(), some),
        "in a key": ("sorted([o], key=below)", filled(), some),
        "recv of a channel": ("o.recv()", filled_channel(), some),
    }

def executors(f):
    found = 0
    for offset in range(0, len(f.__code__.co_code), 2):
        try: get_executor(code=f.__code__, offset=offset)
        except ValueError: continue
        found += 1
    return found

def compiled(call, o, xs):
    # A goroutine that waits in compiled code, and its function.
    names = dict(globals())
    lines = "def loop(o, xs, at, r=None):", "for x in xs:", " at[1] += 1"
    exec("\n ".join([*lines, " at[0] = sys._jit.is_active()", " " + call, "return r"]), names)
    at = [False, 0]
    g = gmprt.go(names["loop"], o, xs, at)
    while at[1] < N or g.state != "waiting": gmprt.sleep(0.001)
    return g, names["loop"], at[0] and executors(names["loop"])
"""


def with_jit(code: str) -> str:
    if not sys._jit.is_available():  # type: ignore[attr-defined, unused-ignore]
        pytest.skip("this interpreter has no JIT")
    return run_child(LOOPS_THAT_WAIT + dedent(code), env={"PYTHON_JIT": "1"}).stdout


@since_314
@pytest.mark.parametrize(
    "then", ["pass", "sys.setprofile(lambda *event: None); sys.setprofile(None)"]
)
def test_cancels_end_calls_of_compiled_code(then: str) -> None:
    """Also of such as has been taken out of use meanwhile: what is called has to return there."""
    code = f"""
        def main():
            for name, arguments in loops().items():
                g, loop, active = compiled(*arguments)
                assert active, name
                {then}
                assert bool(executors(loop)) == ({then!r} == "pass"), name
                g.cancel()
                print(name, type(g.exception()).__name__, sep=": ")
            for process in children: process.kill()
        gmprt.run(main)
    """
    seen = with_jit(code).splitlines()
    assert len(seen) == 18
    assert [row for row in seen if not row.endswith(": GoroutineCancelled")] == []


@since_314
def test_cancels_of_compiled_code_wait_for_c_code_in_between() -> None:
    """It calls map(), which calls: what map() has done would be lost."""
    code = """
        def main():
            lock = held()
            g, _, active = compiled("r = list(map(o.acquire, [x]))", lock, never)
            g.cancel()
            lock.release()
            print(bool(active), g.result())
        gmprt.run(main)
    """
    assert with_jit(code) == "True [True]\n"


@since_314
def test_a_hog_in_compiled_code_is_preempted() -> None:
    code = """
        def hog(at):
            while not at[1]: at[0] = sys._jit.is_active()
        def main():
            at = [False, False]
            g = gmprt.go(hog, at)
            while not at[0]: gmprt.gosched()
            before = gmprt.stats().preemptions
            while gmprt.stats().preemptions == before: gmprt.gosched()
            print(at[0])
            at[1] = True
            g.join()
        gmprt.run(main)
    """
    assert with_jit(code) == "True\n"


NAMES = """
import _thread, gmprt, os, threading

seen = {}

def work(name):
    began = _thread._get_name()
    _thread.set_name(name)
    gmprt.gosched()
    seen[began] = _thread._get_name()

def threads():
    gmprt.threads(True)
    crew = [threading.Thread(target=work, args=(f"then {i}",), name=f"worker {i}")
            for i in range(9)]
    for t in crew: t.start()
    for t in crew: t.join()
    assert seen == {f"worker {i}": f"then {i}" for i in range(9)}, seen

def goroutine():
    gmprt.run(lambda: gmprt.go(work, "a name that is cut").result())
    assert list(seen.values()) == ["a name that is "], seen

before = _thread._get_name()
"""


@since_314
@pytest.mark.parametrize("which", ["threads", "goroutine"])
def test_the_name_of_a_thread_is_its_own(which: str) -> None:
    """The system's threads keep theirs."""
    run_child(f"{NAMES}\n{which}()\nassert _thread._get_name() == before")
