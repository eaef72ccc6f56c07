"""`python -m gmprt info`: what a bug report should contain."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import gmprt
from gmprt import _core


def info(_: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    # In a goroutine: how stacks are guarded is known once there is one.
    rows = gmprt.go(lambda: list(_facts())).result()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    for path, functions in _core.interposed().items():
        print(f"\ninterposed in {path}:")
        print(
            textwrap.fill(
                ", ".join(sorted(functions)), 100, initial_indent="  ", subsequent_indent="  "
            )
        )
    return 0


def _facts() -> Iterator[tuple[str, str]]:
    yield "gmprt", gmprt.__version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "compiler", platform.python_compiler()
    yield "executable", sys.executable
    yield "platform", f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}"
    yield "kernel", platform.release()
    yield "CPUs", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"
    yield "GOMAXPROCS", str(gmprt.gomaxprocs())
    yield from _core.features().items()
    yield "RLIMIT_NOFILE", _limit(resource.RLIMIT_NOFILE)
    yield "RLIMIT_AS", _limit(resource.RLIMIT_AS)
    yield "RLIMIT_STACK", _limit(resource.RLIMIT_STACK)
    for name in ("vm/max_map_count", "vm/overcommit_memory", "kernel/threads-max"):
        yield name.replace("/", "."), _kernel_setting(name)


def _limit(which: int) -> str:
    """Soft and hard limit."""
    words = [
        "unlimited" if n == resource.RLIM_INFINITY else str(n) for n in resource.getrlimit(which)
    ]
    return f"{words[0]} (at most {words[1]})"


def _kernel_setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text("ascii").strip()
    except OSError as error:  # containers hide some
        return f"unknown ({error.strerror})"
