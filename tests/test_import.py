"""Importing the package: what it brings along and what it does not; once, again, elsewhere."""

from __future__ import annotations

import dataclasses
import pickle
import sys

import pytest
from support import run_child

import gmprt

# What takes longer to import than gmprt itself, or has no business in a program that parks.
DEAR = (
    "argparse",
    "ast",
    "asyncio",
    "cffi",
    "collections",
    "concurrent",
    "contextlib",
    "dataclasses",
    "dis",
    "enum",
    "functools",
    "importlib.util",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "re",
    "selectors",
    "socket",
    "subprocess",
    "sysconfig",
    "tempfile",
    "threading",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unittest",
)
# What goroutines and the reports of their failures take, and marking the place in a line.
TAKEN = ("collections", "contextlib", "enum", "functools", "threading", "traceback", "typing")
if sys.version_info >= (3, 15):
    TAKEN += ("_colorize",)  # by traceback, when it first prints
TAKEN_BY_TRACEBACK = {"ast", "tokenize"}


def imported(code: str) -> list[str]:
    """Which of the dear modules the code imports, in an interpreter that has none of them."""
    out = run_child(
        f"""
        import sys
        before = {{name for name in {DEAR!r} if name in sys.modules}}
        {code}
        print(*(name for name in {DEAR!r} if name in sys.modules and name not in before))
        """,
        flags=["-S"],
        env={"PYTHONPATH": ":".join(paths())},
    ).stdout
    return out.split()


def by_the_first_go() -> set[str]:
    """With what those import themselves, which differs between versions."""
    return {*imported(f"import {', '.join(TAKEN)}"), *TAKEN_BY_TRACEBACK}


def paths() -> list[str]:
    """Where gmprt and what it needs lie, for a child without the site module."""
    import _cffi_backend

    files = [gmprt.__path__[0], _cffi_backend.__file__]
    return [file.rpartition("/")[0] for file in files]


def test_importing_is_cheap() -> None:
    assert imported("import gmprt") == []


def test_so_is_starting() -> None:
    assert set(imported("import gmprt; gmprt.run(gmprt.go(int).result)")) <= by_the_first_go()


def test_all_that_is_needed_later_comes_with_the_first_go() -> None:
    """Reports, dumps, the end of the process: the import system may be what hangs then."""
    code = """import gmprt, io
        gmprt.go(int).join()
        before |= {name for name in sys.modules}
        def main():
            g = gmprt.go(gmprt.Chan().recv)
            gmprt.go(lambda: 1 / 0)
        gmprt.run(main)
        gmprt.debug.dump_string()
        print(*(m for m in sys.modules if m.startswith("gmprt") and m not in before), end="")"""
    assert set(imported(code)) <= TAKEN_BY_TRACEBACK


def test_nothing_is_imported_in_bad_times() -> None:
    """A dump at a signal, a report at the end: the import system may be what hangs."""
    code = """import gmprt, io
        def main():
            g = gmprt.go(gmprt.Chan().recv)
            gmprt.debug.dump_string()
            gmprt.go(lambda: 1 / 0)
        gmprt.run(main)"""
    # What traceback imports to mark the place in a line (3.13) is its own affair.
    assert set(imported(code)) <= by_the_first_go()


@pytest.mark.parametrize("name", ["ChanStatistics", "CreatedBy", "Stats"])
def test_records_come_when_asked_for(name: str) -> None:
    assert imported(f"import gmprt; assert {name!r} not in vars(gmprt)") == []
    assert "dataclasses" in imported(f"import gmprt; gmprt.{name}")
    assert name in dir(gmprt)
    assert dataclasses.is_dataclass(getattr(gmprt, name))


def test_every_public_name_can_be_imported() -> None:
    run_child("from gmprt import *; import gmprt; assert set(gmprt.__all__) <= set(globals())")


def test_classes_say_where_the_public_finds_them() -> None:
    """In reprs and pickles, which must not know in which file a class is written."""
    classes = [c for name in gmprt.__all__ if isinstance(c := getattr(gmprt, name), type)]
    assert {gmprt.Chan, gmprt.Error, gmprt.Once, gmprt.Stats, gmprt.Timer} <= set(classes)
    assert [c for c in classes if c.__module__ != "gmprt"] == []
    assert [c for c in classes if pickle.loads(pickle.dumps(c)) is not c] == []


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gmprt.nothing  # type: ignore[attr-defined]


def test_records_are_frozen_dataclasses() -> None:
    by = gmprt.CreatedBy("f", "f.py", 3, 0)
    assert by == gmprt.CreatedBy("f", "f.py", 3, 0) != gmprt.CreatedBy("f", "f.py", 4, 0)
    assert repr(by) == "CreatedBy(function='f', filename='f.py', lineno=3, goroutine_id=0)"
    assert str(by) == "f at f.py:3"
    with pytest.raises(dataclasses.FrozenInstanceError):
        by.lineno = 4  # type: ignore[misc]
    stats = gmprt.stats()
    assert pickle.loads(pickle.dumps(stats)) == stats
    assert {field.type for field in dataclasses.fields(stats)} == {"int"}


_AGAIN = """
    import gc, importlib, sys, threading
    import gmprt
    from gmprt import native

    gmprt.go(int).join()
    first, DummyThread = gmprt, threading._DummyThread
    ch = gmprt.Chan(1)
    reports = []

    def purge():
        for name in list(sys.modules):
            if name == "gmprt" or {what!r} == "all" and name.startswith("gmprt."):
                del sys.modules[name]

    def main():
        gmprt.go(lambda: 1 / 0)
        ch.send(1)
        select = gmprt.select(ch)
        assert type(gmprt.go(ch.recv)) is gmprt.Goroutine
        return select

    for _ in range(3):
        purge()
        import gmprt
        assert gmprt is first and gmprt.Chan is type(ch)
        assert sys.modules["gmprt._core"] is gmprt._core
        purge()
        import gmprt.debug
        import gmprt.native
        assert gmprt.debug is first.debug and gmprt.native is native
        purge()
        from gmprt import Cancelled, ChannelClosed
        assert Cancelled is first.Cancelled
        assert threading._DummyThread is DummyThread
        gmprt.excepthook = reports.append
        selected = gmprt.run(main)
        assert selected.value == 1 and type(selected) is gmprt.Selected
        gc.collect()
    assert len(reports) == 3, reports
    importlib.reload(gmprt)
    assert gmprt.run(gmprt.go(int).result) == 0
    closed = gmprt.Chan(1)
    closed.close()
    try:
        closed.send(1)
    except ChannelClosed:
        print("ok")
"""


@pytest.mark.parametrize("what", ["package", "all"])
def test_again(what: str) -> None:
    """Purged from sys.modules, as some test runners do, it comes back as it was."""
    assert run_child(_AGAIN.format(what=what), flags=["-X", "dev"]).stdout == "ok\n"


def test_in_another_interpreter() -> None:
    """Refused in a sentence, and the main one is none the worse."""
    done = run_child("""
        import gmprt, sys
        name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        interpreters = __import__(name)
        code = f'''
        import sys
        sys.path[:] = {sys.path!r}
        try:
            import gmprt
        except ImportError as error:
            import os
            os.write(1, str(error).encode() + bytes([10]))
        '''
        import textwrap
        for _ in range(2):
            other = interpreters.create()
            interpreters.run_string(other, textwrap.dedent(code))
            interpreters.destroy(other)
        print(gmprt.run(gmprt.go(int).result))
        """)
    # On 3.12 and later the sentence is the interpreter's own.
    assert done.stdout.count("interpreter") == 2, done.stdout + done.stderr
    assert done.stdout.endswith("\n0\n")
