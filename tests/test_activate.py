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
gmprt._run._shutdown()
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
