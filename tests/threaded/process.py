"""A program that is made of threads: started as its users do, watched, stopped as they do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gmprt

_PACKAGE = str(Path(gmprt.__file__).parents[1])

HOW: dict[str, tuple[list[str], dict[str, str]]] = {
    "run": ([sys.executable, "-m", "gmprt", "run", "--threads"], {}),
    "variable": ([sys.executable], {"GMPRT_THREADS": "1"}),
    "os": ([sys.executable], {}),
}
"""What stands before `-m module` or `script.py`, and in the environment."""


class Program:
    """It and the processes that it starts, from `start` to `stop`."""

    def __init__(self, how: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        before, switch = HOW[how]
        self.command = [*before, *command]
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self.command,
                cwd=log.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **_importable(), **switch, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.most = 0
        self.used = 0.0
        self._watching = asyncio.create_task(self._watch())

    # ---- what it says and does -------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """For as long as the case may take."""
        while not condition():
            assert self._process.poll() is None, f"it has ended before {what}"
            await asyncio.sleep(0.02)

    async def accepts(self, address: tuple[str, int]) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(*address)
            except OSError:
                assert self._process.poll() is None, "it has ended before it listened"
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def ended(self) -> int:
        while self._process.poll() is None:
            await asyncio.sleep(0.02)
        return self._process.returncode

    async def stop(self, number: signal.Signals) -> int:
        """As a user does: the exit status.  Nothing of it may be left."""
        self._process.send_signal(number)
        status = await self.ended()
        left = self.processes()
        assert not left, f"processes left behind: {left}"
        return status

    async def nothing_left(self) -> None:
        """Processes of it that it does not wait for have ended, too."""
        while self.processes():
            await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """However it is, and all that it has started."""
        self._watching.cancel()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    # ---- what it takes ---------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Those of its session that have not ended: all that it has started."""
        stats = ((int(entry), _stat(entry)) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid, s in stats if s and int(s[3]) == self.pid and s[0] not in "ZX"]

    def threads(self) -> int:
        """OS threads, of the process that has most of them."""
        return max((_status(pid, "Threads:") for pid in self.processes()), default=0)

    def memory(self) -> int:
        """Bytes; what several processes share is counted once."""
        return 1024 * sum(_status(pid, "Pss:", "smaps_rollup") for pid in self.processes())

    def _processor(self) -> float:
        """Seconds so far, of those that are alive and of children that have been waited for."""
        ticks = sum(sum(map(int, _stat(pid)[11:15])) for pid in self.processes())
        return ticks / os.sysconf("SC_CLK_TCK")

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self.threads())
            self.used = max(self.used, self._processor())
            await asyncio.sleep(0.05)


def _importable() -> dict[str, str]:
    """So that a gmprt that is not installed is found."""
    path = [_PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {} if "site-packages" in _PACKAGE else {"PYTHONPATH": os.pathsep.join(path)}


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _status(pid: int, field: str, file: str = "status") -> int:
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
