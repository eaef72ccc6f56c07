"""The runner of libraries' tests: whether what differs would be seen, and what suites.toml says.

The libraries themselves: python -m tests.thirdparty run (docs/thirdparty.md).
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Run from the root, where tests is a package; the rest of the suite imports it as a folder.
CODE = """
    import sys
    from pathlib import Path
    from tests.cpython.compare import verdicts
    from tests.thirdparty import POSITIONS
    from tests.thirdparty.__main__ import Runner
    from tests.thirdparty.environment import LINKS, Environment
    from tests.thirdparty.suites import Suite

    folder = Path(sys.argv[1])
    links = folder / "links"
    links.mkdir()
    for name, target in LINKS.items():
        (links / name).symlink_to(target)
    variables = {"PYTHONPATH": str(links), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    suite = Suite("bad", "1", tests=["test_bad.py"], variables=variables)
    runner = Runner(suite, Environment(Path(sys.executable), folder), folder, limit=5)
    outcomes = {position: runner.run("bad", position) for position in POSITIONS}
    outcomes["again"] = runner.run("bad", "run", ["test_bad.py::test_fails[2]"])
    for position in outcomes:
        for test, both in verdicts(outcomes["plain"], outcomes[position]).items():
            print(position, test.removeprefix("test_bad.py::"), *both)
    suite = Suite("none", "1", arguments=["--no-such-option"], variables=variables)
    runner = Runner(suite, Environment(Path(sys.executable), folder), folder, limit=5)
    print("none", runner.run("none", "plain").tests)
"""

BAD = """
    import os, sys, threading, time, pytest

    HERE = "gmprt" in sys.modules
    THREADS = HERE and "--threads" in sys.orig_argv

    def test_passes(): pass
    def test_fails_everywhere(): assert False
    @pytest.mark.parametrize("i", [1, 2])
    def test_fails(i): assert not (HERE and i == 2)
    def test_crashes():
        if HERE: os.abort()
    def test_hangs():
        if THREADS: time.sleep(1000)
    @pytest.mark.skipif(HERE, reason="here")
    def test_is_skipped(): pass
    @pytest.fixture
    def broken():
        yield
        assert not HERE
    def test_breaks_behind_itself(broken): pass
    def test_thread():
        def look():
            if HERE:
                import gmprt
                seen.append(gmprt.current() is not None)
        seen = []
        t = threading.Thread(target=look)
        t.start()
        t.join()
        assert seen != [True]
"""


@pytest.mark.skipif(sys.version_info[:2] != (3, 12), reason="once is enough: with CPython 3.12")
def test_differences_are_seen(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(textwrap.dedent(BAD))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    both = [
        "test_fails[2] ok fail",
        "test_crashes ok crashes",
        "test_is_skipped ok skip",
        "test_breaks_behind_itself ok error",
    ]
    assert {x for x in lines if x.startswith("run ")} == {f"run {x}" for x in both}
    threads = [*both, "test_hangs ok hangs", "test_thread ok fail"]
    assert {x for x in lines if x.startswith("threads ")} == {f"threads {x}" for x in threads}
    assert {x for x in lines if x.startswith("again ") and not x.endswith(" not run")} == {
        "again test_fails[2] ok fail"
    }
    # Where pytest does not even begin, that is said, and once is enough.
    assert "none {'none (between tests)': 'crashes'}" in lines


def test_what_is_expected_is_of_a_library() -> None:
    """And has its reason."""
    folder = ROOT / "tests" / "thirdparty"
    suites = tomllib.loads((folder / "suites.toml").read_text("utf-8"))
    rows = tomllib.loads((folder / "expected.toml").read_text("utf-8")).get("difference", [])
    assert all(row["version"] for row in suites.values())
    assert any(row.get("core") for row in suites.values())
    assert all(row["module"] in suites and row["reason"] for row in rows)
    assert not [row for row in rows if fnmatch.fnmatchcase("anything", row["test"])]
