"""Facts about the machine, without which figures mean little."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import sysconfig
import time


def facts() -> dict[str, str]:
    """What stands above every table and in every JSON file."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cpus": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": _python(),
        "build": unoptimised() or "optimised",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "pace before": pace(),
    }


def pace() -> str:
    """How fast this interpreter runs now: what neighbours on a virtual machine leave of it."""
    turns = sorted(_turn() for _ in range(25))
    return f"{turns[len(turns) // 2]:.0f} ns (best {turns[0]:.0f}) a turn of an empty loop"


def _turn(count: int = 100_000) -> float:
    start = time.perf_counter_ns()
    for _ in range(count):
        pass
    return (time.perf_counter_ns() - start) / count


def unoptimised() -> str:
    """Why this interpreter is slower than those that people use: empty if it is not."""

    def variable(name: str) -> str:
        return str(sysconfig.get_config_var(name) or "")

    return judge_build(variable("CONFIG_ARGS"), variable("CFLAGS"), variable("Py_DEBUG"))


def judge_build(configured: str, flags: str, debug: str) -> str:
    """The same for a build of which sysconfig says this.

    Debian hands the profile to make, of which sysconfig knows nothing: told by a folder that only
    its builds are configured with.
    """
    levels = [flag for flag in flags.split() if flag.startswith("-O")]
    if debug not in ("", "0"):
        return "NOT OPTIMISED: a debug build"
    if levels and levels[-1] in ("-O0", "-Og"):  # the last one counts
        return f"NOT OPTIMISED: compiled with {levels[-1]}"
    if "--enable-optimizations" in configured or "/usr/share/python-wheels" in configured:
        return ""
    return "NOT OPTIMISED: configured without --enable-optimizations"


def _python() -> str:
    threaded = ", free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name = platform.python_implementation()
    return f"{name} {platform.python_version()}{threaded} ({platform.python_compiler()})"


def _line(path: str, key: str) -> str | None:
    """The value of the first ``key : value`` line of a file in /proc."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None


def _cpu_model() -> str:
    return _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _memory() -> str:
    total = _line("/proc/meminfo", "MemTotal")
    return f"{int(total.split()[0]) / 2**20:.1f} GiB" if total else f"unknown on {sys.platform}"
