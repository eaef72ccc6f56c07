"""The tests of libraries, in three positions: does a program of theirs notice that it runs here?

    plain    python -m pytest
    run      python -m gmprt run -m pytest: the tests in the main goroutine
    threads  python -m gmprt run --threads -m pytest: what they start as threads are goroutines, too

The other two must do as plain does, test by test.  `python -m tests.thirdparty --help` runs them,
from the root of the project, with gmprt built for the interpreter.  Its parts:

    suites.toml   which libraries, at which versions, and what their tests need
    suites        its rows
    environment   a virtual environment and the tests of each, kept outside of the project
    recorder      pytest's plugin that writes down what becomes of each test
    expected.toml differences that are meant
    report        the tables in docs/thirdparty.md

Workers, the comparison and what is kept of a run are those of tests/cpython.
"""

POSITIONS = ("plain", "run", "threads")
