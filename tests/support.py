"""What the tests share: children with a time limit, waiting for conditions, callers of any kind."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Protocol, TypeVar

import pytest

import gmprt

T = TypeVar("T")

EMULATOR = os.environ.get("GMPRT_TEST_EMULATOR", "")
"""What plays the CPU (tests/matrix/run.sh), "qemu-user": system calls and signals are its, too."""

PATIENCE = 20.0 * (5 if EMULATOR else 1)
"""Seconds until something that must happen counts as missing: far above what any machine needs."""

DEBUG = hasattr(sys, "gettotalrefcount")
"""A debug build of the interpreter."""

DEBUG_311 = DEBUG and sys.version_info < (3, 12)
"""A debug build of Python 3.11: there is no preemption (csrc/py/cpython/preempt.c)."""


def not_emulated(what: str) -> pytest.MarkDecorator:
    """Skips a test of something that an emulator has not, or has only roughly."""
    return pytest.mark.skipif(bool(EMULATOR), reason=f"{EMULATOR}: {what}")


preempts = pytest.mark.skipif(DEBUG_311, reason="no preemption in a debug build of Python 3.11")

# ---- waiting -----------------------------------------------------------------------------------


def eventually(condition: Callable[[], object], what: str = "", timeout: float = PATIENCE) -> None:
    """Wait until condition() is true; fail with a dump of all goroutines if it does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            dump = gmprt.debug.dump_string()
            raise AssertionError(f"not within {timeout:g} s: {what or condition}\n\n{dump}")
        gmprt.sleep(0.001)


def parked(g: gmprt.Goroutine[Any], reason: str | None = None) -> None:
    """Wait until `g` is parked, for `reason` if given."""
    eventually(
        lambda: g.state == "waiting" and reason in (None, g.wait_reason),
        f"{g!r} waiting with reason {reason!r}",
    )


def waiting(ch: gmprt.Chan[Any], senders: int = 0, receivers: int = 0) -> None:
    """Wait until exactly so many wait on the channel, goroutines and threads."""

    def numbers() -> tuple[int, int]:
        now = ch.statistics()
        return now.waiting_senders, now.waiting_receivers

    eventually(lambda: numbers() == (senders, receivers), f"{senders} and {receivers} on {ch!r}")


def ended(*goroutines: gmprt.Goroutine[Any] | Thread[Any]) -> None:
    """Join them all."""
    for g in goroutines:
        assert g.join(PATIENCE), f"{g!r} does not end\n\n{gmprt.debug.dump_string()}"


# ---- what a busy machine does ------------------------------------------------------------------


def interruptions() -> int:
    """How often the kernel took a processor away from us, perhaps in the midst of a call.

    Such a call looks like one that blocks.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def undisturbed(fn: Callable[[], T]) -> T:
    """What fn() returns if the scheduler's order was its own: nobody was preempted or handed off.

    A thread that gets no processor for the length of a slice is, whatever it does.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        before = gmprt.stats()
        result = fn()
        now = gmprt.stats()
        if (now.preemptions, now.handoffs) == (before.preemptions, before.handoffs):
            return result
        assert time.monotonic() < deadline, (before, now)


# ---- C code that blocks ------------------------------------------------------------------------

_libc = ctypes.CDLL(None)


def c_sleep(seconds: float) -> None:
    """Blocks in the C library, called directly: not interposed, so it costs a thread."""
    _libc.usleep(round(seconds * 1e6))


class CGate:
    """A gate that C code blocks at, as c_sleep does: until open(), or for ever."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._entered = threading.Event()

    def wait(self) -> None:
        self._entered.set()
        _libc.read(self._read, ctypes.create_string_buffer(1), 1)

    def entered(self) -> bool:
        return self._entered.wait(PATIENCE)

    def open(self) -> None:
        """Lets all pass, and those who come later."""
        os.close(self._write)


# ---- callers -----------------------------------------------------------------------------------


class Thread(Generic[T]):
    """A call in an OS thread of its own, with as much of Goroutine's interface as tests need."""

    def __init__(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> None:
        self._future: Future[T] = Future()
        self._call = lambda: fn(*args, **kwargs)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            result = self._call()
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)
        finally:
            del self._call

    def join(self, timeout: float | None = None) -> bool:
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def result(self, timeout: float | None = PATIENCE) -> T:
        return self._future.result(timeout)

    def exception(self, timeout: float | None = PATIENCE) -> BaseException | None:
        return self._future.exception(timeout)


class Task(Protocol[T]):
    def join(self, timeout: float | None = None) -> bool: ...
    def result(self, timeout: float | None = None) -> T: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...


Spawn = Callable[..., Task[Any]]
"""spawn(fn, *args, **kwargs): in a goroutine or in a thread."""


def mixed(i: int, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Task[T]:
    """Goroutines for even i, threads for odd."""
    return Thread(fn, *args, **kwargs) if i % 2 else gmprt.go(fn, *args, **kwargs)


# ---- children ----------------------------------------------------------------------------------


def compiled(folder: Path, source: str) -> Path:
    """A library of the C code, with the interpreter's headers."""
    (folder / "code.c").write_text(source)
    compiler, include = shlex.split(sysconfig.get_config_var("CC"))[0], sysconfig.get_paths()
    library = folder / "code.so"
    command = [compiler, "-shared", "-fPIC", f"-I{include['include']}", "-o", str(library)]
    subprocess.run([*command, str(folder / "code.c")], check=True)
    return library


OTHER_STATE = """
#include <Python.h>
#include <time.h>
/* Computes until it is asked to yield, then calls f on a state of its own. */
PyObject *on_another_state(PyObject *f) {
  for (clock_t end = clock() + CLOCKS_PER_SEC / 20; clock() < end;) {
  }
  PyThreadState *mine = PyThreadState_Get(), *other = PyThreadState_New(PyInterpreterState_Get());
  PyThreadState_Swap(other);
  PyObject *r = PyObject_CallNoArgs(f);
  PyThreadState_Clear(other);
  PyThreadState_Swap(mine);
  PyThreadState_Delete(other);
  return r;
}
"""


def untimed(dump: str) -> str:
    """Without how long they have been waiting: on a busy machine that may be seconds."""
    return re.sub(r", \d+ (seconds|minutes)", "", dump)


def shortened(text: str) -> str:
    """What a person reads of it: the beginning and the end."""
    return text if len(text) < 9000 else f"{text[:4000]}\n...\n{text[-4000:]}"


class Child:
    """Python code in a process of its own, watched while it runs.

    A child that is late gets SIGQUIT, so that it dumps its goroutines to stderr, then SIGKILL.
    """

    def __init__(
        self,
        code: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        command = [sys.executable, "-X", "faulthandler", *flags]
        if code is not None:
            command += ["-c", textwrap.dedent(code)]
        environment = {k: v for k, v in os.environ.items() if k not in ("GOMAXPROCS", "COLUMNS")}
        self.process = subprocess.Popen(
            [*command, *args],
            env={**environment, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # no Ctrl-C of the test run's own terminal
        )
        self._changed = threading.Condition()
        self._text = {"stdout": "", "stderr": ""}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self._kill()
        for reader in self._readers:  # they close descriptors, which others may count
            reader.join(PATIENCE)

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._text[name] += line
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._changed.notify_all()

    @property
    def stdout(self) -> str:
        return self._text["stdout"]

    @property
    def stderr(self) -> str:
        return self._text["stderr"]

    def expect(self, text: str, *, stream: str = "stdout", timeout: float = PATIENCE) -> None:
        """Wait until the child has printed a line that contains `text`."""
        reader = self._readers[stream == "stderr"]
        with self._changed:
            self._changed.wait_for(
                lambda: text in self._text[stream] or not reader.is_alive(), timeout
            )
            found = text in self._text[stream]
        if not found:
            self._fail(f"no {text!r} from the child in {timeout:g} s")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def interrupt(self) -> None:
        self.signal(signal.SIGINT)

    def finish(self, timeout: float = 1.5 * PATIENCE) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail(f"the child has not ended in {timeout:g} s")
        for reader in self._readers:
            reader.join(PATIENCE)
        return subprocess.CompletedProcess(self.process.args, code, self.stdout, self.stderr)

    def _fail(self, message: str) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                pass
            self._kill()
        for reader in self._readers:
            reader.join(2)
        raise AssertionError(
            f"{message}; status {self.process.returncode}\n"
            f"--- stdout\n{shortened(self.stdout)}\n--- stderr\n{shortened(self.stderr)}"
        )

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def run_child(
    code: str | None = None,
    *,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    flags: Sequence[str] = (),
    timeout: float = 1.5 * PATIENCE,
    status: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own; fail unless it ends in time with `status` (None: any)."""
    with Child(code, env=env, args=args, flags=flags) as child:
        done = child.finish(timeout)
    if status is not None and done.returncode != status:
        pytest.fail(
            f"the child ended with status {done.returncode}, not {status}\n"
            f"--- stdout\n{shortened(done.stdout)}\n--- stderr\n{shortened(done.stderr)}"
        )
    return done
