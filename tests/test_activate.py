"""csrc/py/activate.c: importing changes nothing of the process, the first use does; and what stays
as it is where nothing may be replaced."""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest
from support import run_child

SOURCE = Path(__file__).with_name("process_probe.c")
CC = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-O1", "-shared", "-fPIC"]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("probe") / "process_probe.so"
    subprocess.run([*CC, str(SOURCE), "-o", str(out), "-ldl"], check=True)
    return str(out)


# What there is of the process, by name.  All that it looks through is imported before it looks.
LOOK = """
import ctypes, os, re, select, signal, socket, sys, threading, time, warnings
import _cffi_backend, _io, _queue, _socket, _ssl, _thread
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
probe = ctypes.CDLL(os.environ["LD_PRELOAD"])
probe.tables.restype = probe.handled.restype = ctypes.c_ulong
probe.tables.argtypes = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_ulong
dlfunc = ctypes.pythonapi.PyCFunction_GetFunction
dlfunc.argtypes, dlfunc.restype = (ctypes.py_object,), ctypes.c_void_p

def method(type, name):
    # PyMethodDescrObject: three words and two of the descriptor's, then the PyMethodDef.
    descriptor = type.__dict__[name]
    size = object.__basicsize__ // 8 + 3
    definition = (ctypes.c_void_p * (size + 1)).from_address(id(descriptor))[size]
    return (ctypes.c_void_p * 2).from_address(definition)[1]

def tables():
    room = 100_000
    words = (ctypes.c_ulong * (2 * room))()
    n = probe.tables(b"/gmprt/", words, room)
    assert 1000 < n < room, n
    return dict(zip(words[0 : 2 * n : 2], words[1 : 2 * n : 2]))

def methods():
    types = {
        type(threading.Lock()): ("acquire", "__enter__"),
        type(threading.RLock()): ("acquire",),
        _queue.SimpleQueue: ("get",),
        _socket.socket: ("recv", "send", "connect"),
        _io.FileIO: ("read", "write"),
        _io.BufferedReader: ("read", "readline"),
        _io.TextIOWrapper: ("write",),
        _io._IOBase: ("readline",),
    }
    functions = [time.sleep, os.read, os.write, os.waitpid, select.select]
    functions += [sys.modules["_imp"].create_dynamic, sys.modules["_ctypes"].dlopen]
    return [dlfunc(f) for f in functions] + [method(t, n) for t in types for n in types[t]]

def slots():
    # tp_iternext is word 28 of a type.
    types = _io.BufferedReader, _io.TextIOWrapper
    return [(ctypes.c_void_p * 29).from_address(id(t))[28] for t in types]

def files():
    numbers = os.listdir("/proc/self/fd")  # one of them is what it was read by
    paths = [f"/proc/self/fd/{n}" for n in numbers]
    return {path: os.readlink(path) for path in paths if os.path.lexists(path)}

def look():
    # Python's handlers of forks are seen by what a fork calls.
    return {
        "tables": tables(),
        "methods": methods(),
        "slots": slots(),
        "signals": probe.handled(),
        "python's signals": [signal.getsignal(s) for s in signal.valid_signals()],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "atfork": ctypes.c_uint.in_dll(probe, "registered").value,
        "threading": {k: v for k, v in vars(threading).items() if not k.startswith("__")},
        "active": dict(threading._active),
        "os": dict(vars(os)),
        "hooks": (sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "threads": sorted(os.listdir("/proc/self/task")),
        "files": files(),
    }

def objects():
    # The memory of loaded objects and its protection, but for gmprt's own and what is no file.
    with open("/proc/self/maps") as f:
        rows = [line.split(None, 5) for line in f]
    rows = [r for r in rows if len(r) == 6 and "/" in r[5] and "/gmprt/" not in r[5]]
    return [(r[0], r[1], r[5]) for r in rows]

def changed(before, after):
    # Of what there was: objects that have been loaded since have tables of their own.
    known = after["tables"]
    after["tables"] = {at: known.get(at) for at in before["tables"]}
    return sorted(k for k in before if before[k] != after[k])

look(), objects()
before, protections = look(), objects()
import gmprt, gmprt.native
import gmprt._core as core
"""
EVERYTHING = "atfork files methods signals slots tables threading threads"


def look(probe: str, code: str, **env: str) -> str:
    # What the linker binds late would be a change, too.
    return run_child(
        LOOK + code, env={"LD_PRELOAD": probe, "LD_BIND_NOW": "1", **env}
    ).stdout.rstrip()


def test_import_changes_nothing(probe: str) -> None:
    out = look(
        probe,
        """
print(changed(before, look()), set(protections) - set(objects()))
assert core.interposed() == {} and gmprt.stats().threads == 0
gmprt.go(int).join()
print(*changed(before, look()))
print(bool(core.interposed()))
""",
    )
    assert out.splitlines() == ["[] set()", EVERYTHING, "True"]


def test_an_exception_meanwhile_is_raised() -> None:
    """A signal handler's, say, or a tracer's: it is the first go()'s, and the next one goes on."""
    out = run_child(
        """
import sys
import gmprt
class Out(Exception):
    pass
def tracer(frame, event, arg):
    if frame.f_code.co_filename == "<gmprt>":
        raise Out
sys.settrace(tracer)
try:
    gmprt.go(int)
except Out:
    print("raised")
sys.settrace(None)
print(gmprt.go(lambda: 7).result())
"""
    )
    assert out.stdout == "raised\n7\n"


def test_a_go_in_the_midst_of_it_is_a_go() -> None:
    """A signal handler's, a destructor's, an import hook's: at any moment of the first go()."""
    out = run_child(
        """
import os, sys
import gmprt

class Handler:
    def __init__(self, at):
        self.left, self.said = at, ""
    def trace(self, frame, event, arg):
        if frame.f_code.co_name != "<module>":
            return self.trace  # those of importlib fail if there is an import in their midst
        self.left -= 1
        if self.left < 0:
            sys.settrace(None)
            try:
                self.said = str(gmprt.go(lambda: 7).result())
            except (NameError, AttributeError, ImportError, TypeError) as error:  # half there
                self.said = type(error).__name__
        return self.trace

def child(at):
    handler = Handler(at)
    sys.settrace(handler.trace)
    outer = gmprt.go(lambda: 7)
    sys.settrace(None)
    assert outer.result() == 7 and gmprt.run(lambda: 7) == 7
    return handler.said

outcomes = []
while outcomes[-1:] != [""]:
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(w, child(67 * len(outcomes)).encode())
        os._exit(0)
    os.close(w)
    outcomes.append(os.read(r, 100).decode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, (len(outcomes), status)
    os.close(r)
print(len(outcomes) > 10, "7" in outcomes)
"""
    )
    assert out.stdout == "True True\n"


def test_no_code_of_the_program_runs_in_between() -> None:
    """It is one step to everybody else: no tracer and no other thread sees half of it."""
    run_child(
        """
import builtins, sys
import gmprt
import gmprt._core as core

seen = []
original = builtins.__import__

def imports(*args, **kwargs):
    return original(*args, **kwargs)

def tracer(frame, event, arg):
    seen.append((frame.f_code.co_name, bool(core.interposed())))

builtins.__import__ = imports
sys.settrace(tracer)
g = gmprt.go(int)
sys.settrace(None)
assert g.result() == 0 and core.interposed()
assert seen and not any(half for _, half in seen), [name for name, half in seen if half]
"""
    )


# Calls that need no runtime, and those that do.
@pytest.mark.parametrize(
    ("call", "active"),
    [
        ("gmprt.Chan(1).send(1)", False),
        ("gmprt.Mutex().lock()", False),
        ("gmprt.sleep(0.001)", False),
        ("gmprt.gosched()", False),
        ("gmprt.stats(), gmprt.num_goroutine(), gmprt.debug.dump_string()", False),
        ("gmprt.set_max_threads(100)", False),
        ("gmprt.go(int).join()", True),
        ("gmprt.run(int)", True),
        ("gmprt.gomaxprocs()", True),
        ("gmprt.set_max_stack(1 << 22)", True),
        ("gmprt.after_func(0, int)", True),
        ("gmprt.native.lib.gm_start()", True),
    ],
)
def test_by_what(probe: str, call: str, active: bool) -> None:
    out = look(probe, f"{call}\nprint('tables' in changed(before, look()))")
    assert out == str(active)


def test_nothing_is_left_behind_at_the_end(probe: str) -> None:
    """Tables and methods are as they were, once the runtime has stopped."""
    out = look(
        probe,
        """
gmprt.run(int)
gmprt._life.run._shutdown()
print(*sorted({"tables", "methods", "slots"} & set(changed(before, look()))))
try:
    gmprt.go(int)
except gmprt.RuntimeNotRunning:
    print("stopped")
""",
    )
    assert out.split() == ["stopped"]


# ---- GMPRT_INTERPOSE=none ----------------------------------------------------------------------


def test_none_replaces_nothing(probe: str) -> None:
    out = look(
        probe,
        """
def main():
    ch = gmprt.Chan()
    sleepers = [gmprt.go(time.sleep, 0.01) for _ in range(5)]
    gmprt.go(ch.send, 7)
    assert ch.recv() == 7 and [g.result() for g in sleepers] == [None] * 5
    return threading.current_thread() is threading.main_thread()
print(gmprt.run(main))
print(*changed(before, look()))
print(set(protections) - set(objects()))
print(core.interposed(), core.features()["interposition"])
""",
        GMPRT_INTERPOSE="none",
    )
    # What is left: threads, their descriptors, and a handler for forks.
    assert out.splitlines() == [
        "True",
        "atfork files threads",
        "set()",
        "{} none (GMPRT_INTERPOSE=none)",
    ]


def test_none_leaves_children_their_signals() -> None:
    """Nobody sees them being made, so the runtime's threads block nothing."""
    code = """
        import gmprt, multiprocessing, os, subprocess, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        show = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"

        def children():
            out = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True)
            assert out.stdout == "set()\\n", out
            assert os.popen(f"{sys.executable} -c '{show}'").read() == "set()\\n"
            sleeper = subprocess.Popen(["sleep", "1000"])
            sleeper.terminate()
            assert sleeper.wait() == -15
            process = multiprocessing.get_context("fork").Process(target=gmprt.run, args=(int,))
            process.start()
            process.join()
            assert process.exitcode == 0
            pid = os.fork()
            if pid == 0:
                ch = gmprt.Chan()
                gmprt.go(ch.send, 5)
                gmprt.gosched()
                os._exit(ch.recv())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5

        children()
        gmprt.go(children).result()
        gmprt.run(children)
        gmprt.run(lambda: gmprt.go(children).result())
        print("done")
    """
    assert run_child(code, env={"GMPRT_INTERPOSE": "none"}, timeout=60).stdout == "done\n"


def test_none_the_main_goroutine_is_the_main_thread() -> None:
    """Signals reach it wherever it stands, and what it sets stays."""
    code = """
        import ctypes, gmprt, os, signal, threading, time
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.current_thread()))

        def later(seconds, sig):
            time.sleep(seconds)
            os.kill(os.getpid(), sig)

        def main():
            assert threading.get_native_id() == os.getpid()
            signal.signal(signal.SIGUSR2, lambda *_: seen.append(2))  # main thread only
            for wait in (time.sleep, gmprt.sleep):
                gmprt.go(later, 0.05, signal.SIGUSR1)
                wait(0.5)
            gmprt.go(os.kill, os.getpid(), signal.SIGUSR2)
            while len(seen) < 3:
                gmprt.sleep(0.001)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            gmprt.sleep(0.001)
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1}
            gmprt.unlock_os_thread()  # which it had not locked itself
            gmprt.sleep(0.001)
            assert threading.get_native_id() == os.getpid()
            gmprt.go(later, 0.05, signal.SIGINT)
            try:
                gmprt.Chan().recv()
            except KeyboardInterrupt:
                print(seen == [threading.main_thread()] * 2 + [2])

        gmprt.run(main)
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1})
    """
    assert run_child(code, env={"GMPRT_INTERPOSE": "none"}).stdout == "True\nTrue\n"


# ---- when and where ----------------------------------------------------------------------------


def test_by_two_threads_at_once() -> None:
    """Many more than two, which all come to the first go."""
    code = """
        import sys, threading
        import gmprt
        sys.setswitchinterval(1e-6)
        barrier = threading.Barrier(8)
        results = []
        def first():
            barrier.wait()
            results.append(gmprt.go(int, "7").result())
        threads = [threading.Thread(target=first) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        print(results == [7] * 8, threading._DummyThread.__mro__[1].__name__)
    """
    assert run_child(code).stdout == "True _DummyThread\n"


def test_in_a_forked_child_alone() -> None:
    code = """
        import gmprt, os
        from gmprt import _core
        for how in (gmprt.go, gmprt.run):
            pid = os.fork()
            if pid == 0:
                how(int)
                assert gmprt.run(gmprt.go(int, "7").result) == 7
                child = os.fork()
                if child == 0:
                    os._exit(gmprt.go(int, "7").result())
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), _core.interposed())
        print(gmprt.go(int, "7").result())
    """
    assert run_child(code, flags=["-W", "ignore"]).stdout == "7 {}\n7 {}\n7\n"


def test_while_tracemalloc_traces() -> None:
    """CPython's allocators take the GIL then, those of a thread that starts included."""
    code = """
        import gmprt, os, threading, tracemalloc
        tracemalloc.start()
        def in_a_child(fn):
            pid = os.fork()
            if pid == 0:
                os._exit(fn())
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        def begin():
            return gmprt.run(gmprt.go(int, "7").result)
        def both():
            together = threading.Barrier(2)
            def fn():
                together.wait()
                begin()
            threads = [threading.Thread(target=fn) for _ in range(2)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return begin()
        print(in_a_child(begin), in_a_child(both), begin())
        print(in_a_child(begin), in_a_child(both), gmprt.run(in_a_child, begin))
    """
    assert run_child(code, flags=["-W", "ignore"]).stdout == "7 7 7\n7 7 7\n"


def test_at_exit() -> None:
    """A handler that was registered after the import runs before ours: it may begin.  What was
    registered earlier comes too late, whether anything had run or not."""
    code = """
        import atexit
        def late():
            try:
                gmprt.go(int)
            except gmprt.RuntimeNotRunning:
                print("too late")
        atexit.register(late)
        import gmprt
        if {begins}:
            def begin():
                print(gmprt.run(gmprt.go(int, "7").result))
                gmprt.go(gmprt.Chan().recv)
            atexit.register(begin)
    """
    assert run_child(code.format(begins=True)).stdout == "7\ntoo late\n"
    assert run_child(code.format(begins=False)).stdout == "too late\n"


def test_while_others_block_and_after_they_have_been_seen() -> None:
    """Threads that were there before are in functions that get a stand-in, or have objects."""
    code = """
        import _thread, gmprt, os, queue, signal, threading
        r, w = os.pipe()
        items, lock, seen = queue.SimpleQueue(), threading.Lock(), []
        lock.acquire()
        waits = [lambda: os.read(r, 1), items.get, lock.acquire, threading.Event().wait]
        def wait(fn):
            # A thread that threading has not made, and knows.
            before = threading.current_thread()
            ready.release()
            fn()
            seen.append(threading.current_thread() is before and before.ident)
            ready.release()
        ready = threading.Semaphore(0)
        for fn in waits:
            _thread.start_new_thread(wait, (fn,))
        for _ in waits:
            ready.acquire()
        assert gmprt.run(gmprt.go(int, "7").result) == 7
        def release():
            os.write(w, b"x")
            items.put(1)
            lock.release()
        gmprt.go(release).result()
        for _ in waits[:3]:
            ready.acquire()
        print(all(seen), len(set(seen)))
    """
    assert run_child(code).stdout == "True 3\n"


def test_a_library_loaded_between(tmp_path: Path) -> None:
    """By the first go it is there: its table is patched with the others."""
    code = """
        import gmprt, sys
        from gmprt import _core
        assert "_multiprocessing" not in sys.modules
        import _multiprocessing
        gmprt.go(int).join()
        print([path for path in _core.interposed() if "_multiprocessing" in path] != [] or
              "_multiprocessing" in sys.builtin_module_names)
    """
    assert run_child(code).stdout == "True\n"


def test_reload() -> None:
    code = """
        import importlib, gmprt
        from gmprt import _core
        importlib.reload(gmprt)
        assert _core.interposed() == {}
        gmprt.go(int).join()
        importlib.reload(gmprt)
        print(gmprt.run(gmprt.go(int, "7").result))
    """
    assert run_child(code).stdout == "7\n"


# ---- faults ------------------------------------------------------------------------------------

FAULTS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
int refuse_protection, refuse_atfork;
int mprotect(void *p, size_t n, int prot) {
  static int (*real)(void *, size_t, int);
  if (!real) real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "mprotect");
  if (refuse_protection && (prot & 2)) return errno = ENOMEM, -1;
  return real(p, n, prot);
}
typedef void handler(void);
int __register_atfork(handler *a, handler *b, handler *c, void *dso) {
  static int (*real)(handler *, handler *, handler *, void *);
  if (!real) real = (int (*)(handler *, handler *, handler *, void *))dlsym(RTLD_NEXT, __func__);
  return refuse_atfork ? ENOMEM : real(a, b, c, dso);
}
"""


@pytest.mark.parametrize("what", ["refuse_protection", "refuse_atfork"])
def test_what_fails_is_undone(probe: str, tmp_path: Path, what: str) -> None:
    """The caller of the first go hears of it; the next one works."""
    library = tmp_path / "faults.so"
    command = [*CC, "-w", "-xc", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=FAULTS, text=True, check=True)
    code = (
        LOOK.replace('os.environ["LD_PRELOAD"]', "sys.argv[1]")
        + f"""
refuse = ctypes.c_int.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), {what!r})
for how in (gmprt.go, gmprt.run, gmprt.go):
    refuse.value = 1
    try:
        how(int)
    except MemoryError:
        print(*changed(before, look()))
    refuse.value = 0
assert gmprt.run(gmprt.go(int, "7").result) == 7
print("works", *changed(before, look()))
"""
    )
    done = run_child(code, args=[probe], env={"LD_PRELOAD": str(library), "LD_BIND_NOW": "1"})
    lines = done.stdout.splitlines()
    assert lines[:-1] == [""] * 3, done
    assert lines[-1] == "works " + EVERYTHING.replace("atfork ", "")


def test_a_warning_that_is_an_error(tmp_path: Path) -> None:
    """That interposition is not possible is said once, to the first caller."""
    from test_interpose import NO_TABLE, preloaded

    code = """
        import warnings
        warnings.simplefilter("error")
        import gmprt
        try:
            gmprt.go(int)
        except RuntimeWarning:
            print("said")
        print(gmprt.run(gmprt.go(int, "7").result))
    """
    assert run_child(code, env=preloaded(tmp_path, NO_TABLE)).stdout == "said\n7\n"
