"""CPython's own tests, in five positions: does a goroutine behave as a thread does?

    plain    the main thread, gmprt not imported
    run      the main goroutine of gmprt.run(): must do as plain does
    thread   a daemon thread of threading, gmprt not imported
    go       a goroutine started with go(): must do as thread does
    threads  the main thread, with gmprt.threads(True): must do as plain does

`python -m tests.cpython --help` runs them, from the root of the project.  Its parts:

    worker      one module in one position, in this process
    processes   workers: started, watched, started again behind a test that took one down
    compare     two positions of one module: what differs, and whether it does so again
    expected    differences that are meant, from expected.toml
    results     what is printed of a run, and kept as JSON
    report      the table in docs/cpython-tests.md
"""

import importlib.util

POSITIONS = ("plain", "run", "thread", "go", "threads")

PAIRS = (("plain", "run"), ("thread", "go"), ("plain", "threads"))
"""(what the interpreter does by itself, what gmprt does in its place)"""


def find(module: str) -> str | None:
    """The full name of a module of tests; None: distributions leave out some, or all.

    Of those of multiprocessing some leave out only the parts that name the start method: we have
    our own.
    """
    if "." in module:
        return module if importlib.util.find_spec(module) else None
    if importlib.util.find_spec("test") is None:
        return None
    if importlib.util.find_spec(f"test.{module}"):
        return f"test.{module}"
    ours = f"tests.cpython.{module.removeprefix('test_')}"
    source = importlib.util.find_spec("test._test_multiprocessing")
    return ours if source and importlib.util.find_spec(ours) else None
