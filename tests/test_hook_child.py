"""csrc/py/interpose/hooks/child.c: waiting for child processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from scenes import Bell, Scene, Scenes, Stage, brief, broken_off, cancelled, failure, interrupted
from support import PATIENCE, eventually, parked

import gmprt
from gmprt import go

scenes = Scenes()


def child(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    """A process that ends with status 7 when the function is called."""
    process = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
    assert process.stdin
    stdin = process.stdin

    def reap() -> None:
        stdin.close()
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
        process.returncode = 7

    stack.callback(reap)
    return process.pid, stdin.close


@scenes((True, 7))
def waitpid(stack: ExitStack) -> Stage:
    pid, end = child(stack)

    def call() -> tuple[bool, int]:
        who, status = os.waitpid(pid, 0)
        return who == pid, os.waitstatus_to_exitcode(status)

    return call, end


@scenes((True, 7, True))
def wait4(stack: ExitStack) -> Stage:
    pid, end = child(stack)

    def call() -> tuple[bool, int, bool]:
        who, status, usage = os.wait4(pid, 0)
        return who == pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss > 0

    return call, end


@scenes((True, 7, os.CLD_EXITED))
def waitid(stack: ExitStack) -> Stage:
    pid, end = child(stack)

    def call() -> tuple[bool, int, int]:
        info = os.waitid(os.P_PID, pid, os.WEXITED)
        assert info is not None
        return info.si_pid == pid, info.si_status, info.si_code

    return call, end


@scenes((7, 7))
def waitid_and_leave_it(stack: ExitStack) -> Stage:
    pid, end = child(stack)

    def call() -> tuple[int, int]:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        return info.si_status, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return call, end


@scenes(-signal.SIGKILL)
def waitpid_of_a_killed_one(stack: ExitStack) -> Stage:
    pid, _ = child(stack)

    def call() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return call, lambda: os.kill(pid, signal.SIGKILL)


@scenes((0, 0), parks=False)
def waitpid_now(stack: ExitStack) -> Stage:
    pid, _ = child(stack)
    return lambda: os.waitpid(pid, os.WNOHANG), None


@scenes(None, parks=False)
def waitid_now(stack: ExitStack) -> Stage:
    pid, _ = child(stack)
    return lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG), None


@scenes(failure(ChildProcessError, errno.ECHILD), parks=False)
def waitpid_of_a_stranger(stack: ExitStack) -> Stage:
    return lambda: os.waitpid(os.getppid(), 0), None


@scenes(failure(ChildProcessError, errno.ECHILD), parks=False)
def waitpid_twice(stack: ExitStack) -> Stage:
    pid, end = child(stack)
    end()
    os.waitpid(pid, 0)
    return lambda: os.waitpid(pid, 0), None


@scenes(failure(OSError, errno.EINVAL), parks=False)
def waitid_of_nothing(stack: ExitStack) -> Stage:
    pid, _ = child(stack)
    return lambda: os.waitid(os.P_PID, pid, 0), None


@scenes(7)
def popen_wait(stack: ExitStack) -> Stage:
    process = stack.enter_context(
        subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
    )
    assert process.stdin
    return process.wait, process.stdin.close


@scenes((b"hello\n", 7), cancels=False)
def popen_communicate(stack: ExitStack) -> Stage:
    """Not to be called again after a cancel: what it has read is lost."""
    r, w = os.pipe()
    process = stack.enter_context(
        subprocess.Popen(
            ["sh", "-c", "echo hello; read x; exit 7"], stdin=r, stdout=subprocess.PIPE
        )
    )
    os.close(r)

    def call() -> tuple[bytes, int]:
        out, _ = process.communicate()
        return out, process.returncode

    return call, lambda: os.close(w)


@scenes(failure(subprocess.TimeoutExpired), wakes=False)
def popen_wait_times_out(stack: ExitStack) -> Stage:
    process = subprocess.Popen(["sleep", "60"])
    stack.callback(process.wait)
    stack.callback(process.kill)
    return lambda: process.wait(brief()), None


@scenes.everywhere()
def test_as_on_a_thread(scene: Scene, play: Any) -> None:
    assert play(scene.build) == scene.expected


@scenes.waking()
def test_a_signal_in_between(scene: Scene) -> None:
    assert interrupted(scene.build) == scene.expected


@scenes.cancellable()
def test_cancelled(scene: Scene) -> None:
    """Nothing is reaped by a wait that was cancelled."""
    cancelled(scene)


def test_a_handler_that_raises_ends_a_wait() -> None:
    assert broken_off(waitpid) == failure(Bell)


# ---- any child -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [os.wait, lambda: os.waitpid(-1, 0), lambda: os.wait3(0)[:2], lambda: os.waitpid(0, 0)],
    ids=["wait", "waitpid(-1)", "wait3", "waitpid(0)"],
)
def test_any_child_blocks_the_thread(wait: Callable[[], tuple[int, int]], procs: int) -> None:
    """There is nothing to poll: the thread waits, and the others go on."""
    with ExitStack() as stack:
        pid, end = child(stack)
        g = go(wait)
        eventually(lambda: g.state == "syscall")
        assert go(int).join(PATIENCE)
        end()
        who, status = g.result(PATIENCE)
        assert who == pid
        assert os.waitstatus_to_exitcode(status) == 7


def test_a_child_that_stops(procs: int) -> None:
    with ExitStack() as stack:
        pid, _ = child(stack)
        g = go(os.waitpid, pid, os.WUNTRACED)
        eventually(lambda: g.state == "syscall")
        os.kill(pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(g.result(PATIENCE)[1])
        os.kill(pid, signal.SIGCONT)


# ---- many ----------------------------------------------------------------------------------------


def test_many_children_on_few_threads(procs: int) -> None:
    threads = gmprt.stats().threads
    r, w = os.pipe()

    def work(i: int) -> int:
        return subprocess.run(["sh", "-c", f"read line; exit {i}"], stdin=r).returncode

    goroutines = [go(work, i) for i in range(50)]
    for g in goroutines:
        parked(g)  # so all of them run at once
    assert gmprt.stats().threads <= threads + 20  # starting a process blocks until it has begun
    os.close(w)
    assert [g.result(PATIENCE) for g in goroutines] == list(range(50))
    os.close(r)


def test_two_wait_for_one_child(procs: int) -> None:
    """One gets it, the other hears that there is none."""
    with ExitStack() as stack:
        pid, end = child(stack)

        def wait() -> int:
            try:
                return os.waitpid(pid, 0)[0]
            except ChildProcessError:
                return 0

        goroutines = [go(wait), go(wait)]
        for g in goroutines:
            parked(g)
        end()
        assert sorted(g.result(PATIENCE) for g in goroutines) == [0, pid]


def test_output_of_many(procs: int) -> None:
    def work(i: int) -> bytes:
        code = f"print({i}); import sys; print('e', file=sys.stderr)"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True)
        return done.stdout + done.stderr

    goroutines = [go(work, i) for i in range(20)]
    assert [g.result(PATIENCE) for g in goroutines] == [b"%d\ne\n" % i for i in range(20)]


def test_an_interrupted_run_kills_its_child() -> None:
    """subprocess.run: a cancel ends the child, too."""
    g = go(subprocess.run, ["sleep", "3600"])
    parked(g)
    g.cancel()
    assert isinstance(g.exception(PATIENCE), gmprt.GoroutineCancelled)
