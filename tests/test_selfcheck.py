"""What import of gmprt finds out about the interpreter, and what it does if that is unexpected."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import DEBUG_311, run_child

from gmprt import _core

MOVE = """
import gmprt, json, sys
from gmprt import _core

def verdict(struct, offset, by):
    # What import says if the tail of that struct, from the offset on, lies elsewhere.
    try:
        return _core.selfcheck_moved(struct, offset, by) or "sound"
    except ImportError as error:
        return str(error)

fields = sorted({tuple(f) for f in _core.selfcheck_fields()})
"""


def test_as_it_is() -> None:
    """The interpreter that runs this has the layout of its headers, and looking is cheap."""
    code = """
import time
assert verdict(0, 0, 0) == "sound"
best = 1.0
for _ in range(20):
    began = time.perf_counter()
    _core.selfcheck_moved(0, 0, 0)
    best = min(best, time.perf_counter() - began)
assert best < 0.001, best
"""
    run_child(MOVE + code)


@pytest.mark.parametrize("by", [-8, 8])
def test_a_field_put_in_or_taken_out_is_noticed(by: int) -> None:
    """Before each field that is used: by the look at that one, or at one behind it."""
    code = f"""
by = {by}
for struct, offset, name in fields:
    if offset + by >= 0:  # nothing lies before the first
        seen = verdict(struct, offset, by)
        assert seen != "sound" and " is not where it was: build gmprt" in seen, (name, seen)
        print(name)
"""
    noticed = run_child(MOVE + code).stdout.split("\n")
    assert "PyThreadState.context_ver" in noticed
    assert "PyInterpreterState.gc.collecting" in noticed
    assert len(noticed) > 40


def test_import_in_a_thread() -> None:
    """To whom signals, and before 3.12 pending calls, say nothing."""
    code = """
import sys, threading
def main():
    import gmprt
    from gmprt import _core
    assert _core.selfcheck_moved(0, 0, 0) is None
    for struct, offset, name in _core.selfcheck_fields():
        if name.endswith("eval_breaker"):
            try:
                _core.selfcheck_moved(struct, offset, 8)
            except ImportError:
                continue
            raise AssertionError(name)
    return _core.features()["preemption"], gmprt.go(int, "5").result()
def note():
    said.append(main())
said = []
t = threading.Thread(target=note)
t.start()
t.join()
import gmprt
print(said == [(gmprt._core.features()["preemption"], 5)], gmprt.run(int, "6"))
print(gmprt._core.features()["preemption"])
"""
    same, preemption = run_child(code).stdout.splitlines()
    assert same == "True 6"
    assert preemption == _core.features()["preemption"]


def test_the_sentence_names_both_releases() -> None:
    code = """
(found,) = [f for f in fields if f[2] == "PyThreadState.gilstate_counter"]
print(json.dumps([verdict(*found[:2], 8), sys.version.split()[0]]))
"""
    sentence, version = json.loads(run_child(MOVE + code).stdout)
    built_for = _core.features()["built for"].split()[1]
    assert sentence.startswith(f"gmprt was built for CPython {built_for}, and in {version} ")
    assert "pip install --force-reinstall --no-cache-dir --no-binary gmprt gmprt" in sentence


@pytest.mark.skipif(DEBUG_311, reason="no preemption in a debug build of Python 3.11")
def test_without_what_preemption_needs_there_is_none() -> None:
    """But everything else: loops share the GIL."""
    code = """
lists = "PyInterpreterState.after_forkers_child", "PyInterpreterState.warnings.default_action"
last = max(f for f in fields if f[2].startswith("PyInterpreterState.") and f[2] not in lists)
why = verdict(*last[:2], 8)
assert why == _core.features()["preemption"], why
print(why)
def count(n):
    total = 0
    for i in range(n):
        total += i
    return total
def main():
    goroutines = [gmprt.go(count, 1_000_000) for _ in range(4)]
    return {g.result() for g in goroutines}
print(gmprt.run(main), gmprt.stats().preemptions)
"""
    why, counted = run_child(MOVE + code).stdout.splitlines()
    assert why.startswith("off (gmprt was built for CPython ")
    assert counted == "{499999500000} 0"


def test_info_shows_what_it_was_built_for() -> None:
    rows = dict(
        line.split("  ", 1)
        for line in run_child(args=["-m", "gmprt", "info"]).stdout.splitlines()
        if "  " in line.strip()
    )
    major, minor = sys.version_info[:2]
    assert rows["built for"].strip().startswith(f"CPython {major}.{minor}.")
    assert rows["Python"].strip().startswith(f"{major}.{minor}.")


CACHE = """
static __thread void *cached[8];
void keep(void *state) {
  for (int i = 0; i < 8; i++) cached[i] = state;
}
"""


def test_a_library_that_keeps_the_state_of_its_thread(tmp_path: Path) -> None:
    """In a thread-local of its own, as others may: it is not taken for the interpreter's."""
    (tmp_path / "cache.c").write_text(CACHE)
    compiler = shlex.split(sysconfig.get_config_var("CC"))[0]
    library = tmp_path / "libcache.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "cache.c")]
    subprocess.run(command, check=True)
    code = f"""
import ctypes
current = ctypes.pythonapi.PyThreadState_Get
current.restype = ctypes.c_void_p
ctypes.CDLL({str(library)!r}).keep(ctypes.c_void_p(current()))
import gmprt
print(gmprt.run(lambda: [gmprt.go(int, i).result() for i in range(3)]))
"""
    assert run_child(code).stdout == "[0, 1, 2]\n"


@pytest.mark.parametrize(
    ("compiler", "shared", "version", "refused"),
    [
        ("[Clang 19.1.7 ]", True, 0x030C0000, True),
        ("[Clang 19.1.7 ]", True, 0x030D05F0, True),
        ("[Clang 19.1.7 ]", True, 0x030B07F0, False),  # the current state is no thread-local
        ("[Clang 19.1.7 ]", False, 0x030D05F0, False),  # the executable's own: no address is kept
        ("[GCC 14.2.0]", True, 0x030D05F0, False),
    ],
)
def test_builds_that_keep_addresses_of_thread_locals(
    compiler: str, shared: bool, version: int, refused: bool
) -> None:
    assert _core.unsafe_build(compiler, shared, version) is refused
