"""csrc/py/interpose/got.c: what a stand-in calls is never its own entry of an offset table."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("got_host.c")
PROBE = SOURCE.with_name("got_probe.c")
CC = shlex.split(sysconfig.get_config_var("CC") or "cc")

WORK = """
import os, select, signal, socket, subprocess, sys, tempfile, threading, time
import gmprt

def work():
    with tempfile.NamedTemporaryFile() as f:
        f.write(b"x")
        f.flush()
        os.fsync(f.fileno())
        os.fdatasync(f.fileno())
    r, w = os.pipe()
    t = threading.Thread(target=lambda: (time.sleep(0.01), os.write(w, b"hello")))
    t.start()
    poll = select.poll()
    poll.register(r, select.POLLIN)
    assert poll.poll() and select.select([r], [], [])[0]
    assert os.read(r, 9) == b"hello"
    t.join()
    os.dup2(r, w)
    os.close(r)
    os.close(w)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as a, server.accept()[0] as b:
            a.sendall(b"hello")
            assert b.recv(9) == b"hello"
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=0.01)
    assert threading.get_ident() == threading.current_thread().ident
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert subprocess.run(["/bin/true"]).returncode == 0

work()
gmprt.go(work).result()
gmprt.run(work)
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
print("done")
"""


def build(folder: Path, *flags: str) -> Path:
    """The executable, with this interpreter in it."""
    config, name = sysconfig.get_config_var, sysconfig.get_config_var("LDLIBRARY") or ""
    folders = [config("LIBDIR") or "", config("LIBPL") or ""]
    if not any(Path(folder, name).exists() for folder in folders if folder):
        pytest.skip(f"this interpreter comes without its library ({name})")
    paths = [f"{flag}{folder}" for folder in folders if folder for flag in ("-L", "-Wl,-rpath,")]
    library = name.removeprefix("lib").removesuffix(".a").partition(".so")[0]
    rest = shlex.split(f"{config('LIBS') or ''} {config('SYSLIBS') or ''}")
    out = folder / "host"
    command = [*CC, "-O1", "-fno-pie", "-no-pie", "-rdynamic", *flags, str(SOURCE), "-o", str(out)]
    subprocess.run([*command, *paths, f"-l{library}", *rest], check=True)
    return out


def host(executable: Path, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    path = [str(Path(__file__).parents[1]), *(p for p in sys.path if p)]
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run(
        [str(executable), *args], env=environment, text=True, capture_output=True, timeout=timeout
    )


def own_entries(executable: Path) -> int:
    """How many of the functions are, by address, entries of the executable itself."""
    lines = host(executable, "--taken").stdout.splitlines()
    return sum(int(line.split()[1], 16) < 1 << 32 for line in lines)


def test_an_executable_that_takes_addresses(tmp_path: Path) -> None:
    executable = build(tmp_path)
    assert own_entries(executable) > 20
    done = host(executable, "-c", WORK)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_info_of_such_an_executable(tmp_path: Path) -> None:
    done = host(build(tmp_path), "-m", "gmprt", "info")
    line = next(line for line in done.stdout.splitlines() if line.startswith("interposition"))
    assert line.split() == ["interposition", "on"]


def probe(folder: Path, *libraries: str) -> str:
    """What a program prints that is linked with these, in this order."""
    sources = SOURCE.parents[1] / "csrc"
    cc = [*CC, "-O0", "-fsemantic-interposition", "-fPIC", "-shared"]
    for name in libraries:
        library = folder / f"lib{name}.so"
        subprocess.run([*cc, f"-D{name.upper()}", str(PROBE), "-o", str(library)], check=True)
    links = [
        f"-L{folder}",
        "-Wl,--no-as-needed",
        f"-Wl,-rpath,{folder}",
        *(f"-l{name}" for name in libraries),
    ]
    command = [
        *CC,
        "-O1",
        f"-I{sources}",
        str(PROBE),
        str(sources / "py" / "interpose" / "got.c"),
        *links,
    ]
    subprocess.run([*command, "-ldl", "-o", str(folder / "probe")], check=True)
    return subprocess.run([folder / "probe"], text=True, capture_output=True, timeout=30).stdout


def test_behind_a_definition_that_calls_its_own_name(tmp_path: Path) -> None:
    """A function that calls itself through a patched entry is no original: the next one is."""
    assert probe(tmp_path, "front", "back") == "121\n21\n"


def test_a_preloaded_definition_is_the_original(tmp_path: Path) -> None:
    assert probe(tmp_path, "back", "front") == "121\n21\n"


def test_without_any_proven_definition(tmp_path: Path) -> None:
    assert probe(tmp_path, "front") == "wait_once is not proven\n"
