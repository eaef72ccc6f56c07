"""Facts about the machine, without which figures mean little."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import sysconfig


def facts() -> dict[str, str]:
    """What stands above every table and in every JSON file."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cpus": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": _python(),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


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
