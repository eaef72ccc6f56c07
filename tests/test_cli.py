"""python -m gmprt run, info, demo."""

from __future__ import annotations

import os
import py_compile
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import DEBUG_311, Child, eventually, run_child

import gmprt


def cli(*args: str, status: int | None = 0, **options: object) -> subprocess.CompletedProcess[str]:
    return run_child(args=["-m", "gmprt", *args], status=status, **options)  # type: ignore[arg-type]


# ---- run ---------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text("""\
import os, sys, threading
import gmprt
import beside

ch = gmprt.Chan()

def child():
    ch.send(__name__)

if __name__ == "__main__":
    gmprt.go(child)
    print(ch.recv())
    print(sys.argv)
    print(gmprt.current() is not None, threading.current_thread() is threading.main_thread())
    print(__file__ == sys.argv[0], sys.path[0] == os.path.dirname(os.path.abspath(__file__)))
    print(sys.modules["__main__"].ch is ch, beside.value)
    gmprt.go(gmprt.Chan().recv)
""")
    (tmp_path / "beside.py").write_text("value = 42\n")
    return path


def test_run(script: Path) -> None:
    lines = cli("run", str(script), "--flag", "-m", "x").stdout.splitlines()
    assert lines == [
        "__main__",
        str([str(script), "--flag", "-m", "x"]),
        "True True",
        "True True",
        "True 42",
    ]


@pytest.mark.parametrize("name", ["script.py", "./script.py", "down/../script.py"])
def test_run_finds_its_files_after_a_chdir(tmp_path: Path, name: str) -> None:
    """What python gives a script that is named by where it is."""
    (tmp_path / "down").mkdir()
    (tmp_path / "script.py").write_text(
        "import os, sys, types\n"
        "os.chdir('/')\n"
        "print(__file__, os.path.exists(__file__), sys.argv, (lambda: 0).__code__.co_filename)\n"
        "print(sorted(globals()), isinstance(__builtins__, types.ModuleType))\n"
    )
    plain, ours = [
        subprocess.run(
            [sys.executable, *args, name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(gmprt.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for args in ([], ["-m", "gmprt", "run"])
    ]
    assert ours == plain


def test_run_a_module(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import gmprt, sys\nprint(__name__, sys.argv[1:], gmprt.current() is not None)\n"
    )
    out = cli("run", "-m", "pack", "a", "-b", env={"PYTHONPATH": str(tmp_path)}).stdout
    assert out == "__main__ ['a', '-b'] True\n"


def test_run_a_compiled_script(tmp_path: Path) -> None:
    source, compiled, bad = tmp_path / "s.py", tmp_path / "s.pyc", tmp_path / "bad.pyc"
    source.write_text("import sys\nprint(__file__, sys.argv, type(__loader__), sys.path[0])\n")
    py_compile.compile(str(source), str(compiled))
    bad.write_bytes(b"\1\2\r\n" + compiled.read_bytes()[4:])
    for path, status in ((compiled, 0), (bad, 1)):
        plain = subprocess.run([sys.executable, path, "a"], capture_output=True, text=True)
        done = cli("run", str(path), "a", status=status)
        assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)
        assert plain.returncode == status


def test_run_a_folder_and_a_zip_file(tmp_path: Path) -> None:
    source = "import gmprt, beside\nprint(beside.value, gmprt.current() is not None)\n"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__main__.py").write_text(source)
    (folder / "beside.py").write_text("value = 1\n")
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("__main__.py", source)
        z.writestr("beside.py", "value = 2\n")
    assert cli("run", str(folder)).stdout == "1 True\n"
    assert cli("run", str(archive)).stdout == "2 True\n"


@pytest.mark.parametrize("status", [0, 3])
def test_run_keeps_the_exit_status(tmp_path: Path, status: int) -> None:
    path = tmp_path / "s.py"
    path.write_text(f"import sys\nsys.exit({status})\n")
    cli("run", str(path), status=status)


def test_run_reports_errors_as_python_does(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("def f():\n    raise LookupError('why')\nf()\n")
    err = cli("run", str(path), status=1).stderr
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True).stderr
    assert err == plain
    path.write_text("def f(:\n")
    err = cli("run", str(path), status=1).stderr
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True).stderr
    assert err == plain


def test_run_reports_ctrl_c_as_python_does(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("def f():\n    raise KeyboardInterrupt\nf()\n")
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert cli("run", str(path), status=plain.returncode).stderr == plain.stderr


def test_run_what_has_no_main(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").touch()
    for args in (["-m", "pack"], [str(package)]):
        plain = subprocess.run(
            [sys.executable, *args], capture_output=True, text=True, cwd=tmp_path
        )
        done = cli("run", *args, status=1, env={"PYTHONPATH": str(tmp_path)})
        assert (done.stderr, plain.returncode) == (plain.stderr, 1)


def test_run_what_is_not_there(tmp_path: Path) -> None:
    err = cli("run", str(tmp_path / "missing.py"), status=2).stderr
    assert "can't open file" in err
    assert "missing.py" in err
    err = cli("run", "-m", "no_such_module_at_all", status=1).stderr
    assert "No module named no_such_module_at_all" in err


def test_run_and_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("import gmprt\nprint('ready', flush=True)\ngmprt.sleep(1000)\n")
    with Child(args=["-m", "gmprt", "run", str(path)]) as child:
        child.expect("ready")
        child.interrupt()
        done = child.finish()
    assert done.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in done.stderr


def test_run_deadlock(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("import gmprt\ngmprt.Chan().recv()\n")
    assert "all goroutines are asleep - deadlock!" in cli("run", str(path), status=1).stderr


def test_threads_and_multiprocessing_of_a_script(tmp_path: Path) -> None:
    """What looks for its functions in __main__ finds them."""
    path = tmp_path / "s.py"
    path.write_text("""\
import concurrent.futures, multiprocessing, pickle, threading

def double(x):
    return 2 * x

if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(double)) is double
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        print(list(pool.map(double, range(3))))
    for method in ("spawn", "fork"):
        ctx = multiprocessing.get_context(method)
        with ctx.Pool(1) as pool:
            print(pool.map(double, range(3)))
""")
    assert cli("run", str(path)).stdout == "[0, 2, 4]\n" * 3


# ---- info --------------------------------------------------------------------------------------


def test_info() -> None:
    out = cli("info").stdout
    facts, *objects = out.split("\n\n")
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in facts.splitlines())
    assert rows["gmprt"] == gmprt.__version__
    assert rows["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert rows["CPUs"].startswith(str(len(os.sched_getaffinity(0))))
    for name in ("platform", "kernel", "GOMAXPROCS", "RLIMIT_NOFILE", "stack slot", "poller"):
        assert rows[name]
    assert rows["interposition"] == "on"
    assert rows["preemption"].startswith("off" if DEBUG_311 else "on")
    (interpreter,) = [text for text in objects if " pthread_self," in text]
    assert interpreter.startswith("interposed in ")
    assert " clock_nanosleep," in interpreter


def test_version_and_help() -> None:
    assert cli("--version").stdout == f"gmprt {gmprt.__version__}\n"
    out = cli("--help").stdout
    for command in ("run", "info", "demo"):
        assert command in out
        assert "usage: " in cli(command, "--help").stdout


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["run"],
        ["demo", "--workers", "0"],
        ["demo", "--workers", "x"],
        ["demo", "--parked", "-1"],
        ["demo", "/no/such/folder"],
        ["info", "extra"],
    ],
)
def test_usage_errors(args: list[str]) -> None:
    err = cli(*args, status=2).stderr
    assert "usage: " in err
    assert "Traceback" not in err


# ---- demo --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(30):
        (tmp_path / f"m{i}.py").write_text("def f(argument):\n    return argument\n" * (i + 1))
    (tmp_path / "broken.py").write_text("x = '''\n")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.txt").write_text("not python")
    return tmp_path


@pytest.mark.parametrize("procs", ["1", "2"])
@pytest.mark.parametrize("workers", ["1", "8"])
def test_demo(folder: Path, workers: str, procs: str) -> None:
    out = cli(
        "demo", str(folder), "--workers", workers, "--parked", "500", env={"GOMAXPROCS": procs}
    ).stdout
    assert re.search(r"\b32\b.*files|files.*\b32\b", out), out
    assert "argument" in out, "among the most frequent names"
    assert re.search(r"same|equal|identical|matches", out), out
    assert re.search(r"\b500\b", out), out
    for word in ("goroutines", "parks", "steals", "hand-offs"):
        assert word in out, out
    assert "\r" not in out, "no progress bar without a terminal"


def test_demo_of_an_empty_folder(tmp_path: Path) -> None:
    err = cli("demo", str(tmp_path), status=2).stderr
    assert "no Python files" in err
    assert "Traceback" not in err


def test_demo_interrupted(tmp_path: Path) -> None:
    """While it runs; before, it would be the interpreter that is interrupted in its imports."""
    fifo = tmp_path / "fifo.py"
    os.mkfifo(fifo)

    writers: list[int] = []

    def being_read() -> bool:
        try:
            writers.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    with Child(args=["-m", "gmprt", "demo", str(tmp_path), "--parked", "0"]) as child:
        eventually(being_read)
        child.interrupt()
        done = child.finish()
    os.close(writers.pop())
    assert done.returncode in (-signal.SIGINT, 130, 1)
