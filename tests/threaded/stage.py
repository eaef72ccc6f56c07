"""One case on its way: its program, its backend, its clients, and what was seen of it."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.threaded.crowd import Backend, Closed, Crowd, get
from tests.threaded.process import Program

PROGRAMS = Path(__file__).parent / "programs"


@dataclass
class Figures:
    """Of the moment when all are in the program at once, if not said otherwise."""

    count: int = 0
    processes: int = 0
    threads: int = 0
    """OS threads, of the process that has most of them."""
    most: int = 0
    """The same at any time."""
    memory: int = 0
    """Bytes of all processes."""
    arrived: float = 0.0
    """Seconds, from when the first was sent."""
    answered: float = 0.0
    """Seconds until all had their answers."""
    processor: float = 0.0
    """Seconds of CPU time, from the start of the program until all had their answers."""


class Stage:
    """What a case is given."""

    def __init__(self, count: int, how: str, folder: Path, backend: Backend) -> None:
        self.count = count
        self.how = how
        self.folder = folder
        self.backend = backend
        self.figures = Figures()
        self.programs: list[Program] = []
        # Nobody else has this address: its port is free.
        host = ".".join(["127", *(str(random.randint(1, 250)) for _ in range(3))])
        self.address = (host, 8000)
        shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True)
        self._began = time.monotonic()

    @property
    def at(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def program(self) -> Program:
        """The one that is looked at: the first."""
        return self.programs[0]

    def start(
        self, *command: str, how: str | None = None, env: Mapping[str, str] | None = None
    ) -> Program:
        log = self.folder / f"log.{len(self.programs)}"
        variables = {"BACKEND": str(self.backend.port), **(env or {})}
        program = Program(how or self.how, command, log, variables)
        self.programs.append(program)
        return program

    # ---- scenes ----------------------------------------------------------------------------------

    async def server(
        self,
        *command: str,
        stop: signal.Signals,
        status: int = 0,
        queue: int = 500,
    ) -> None:
        """`command` serves a crowd, gets `stop`, and ends with `status`."""
        self.start(*command)
        await self.crowd(queue)
        await self.ends(self.program.stop(stop), status)

    async def crowd(self, queue: int = 500) -> None:
        """The server has been started: a crowd comes, is in it at once, and is answered."""
        await self.program.accepts(self.address)
        self._began = time.monotonic()
        crowd = Crowd(self.address, self.count, queue)
        await unless(crowd.served, self._held(self.count))
        self.backend.open()
        await crowd.served
        self._answered()

    async def pool(self, script: str, count: int) -> None:
        """`script` asks `count` times at once, checks the answers, says so, and ends."""
        self._began = time.monotonic()
        await self.asks(self.start(script, str(count)), count)

    async def asks(self, asker: Program, count: int) -> None:
        """That program gets all its answers."""
        ended = asyncio.create_task(asker.ended())
        await unless(ended, self._held(count))
        self.backend.open()
        await self.ends(ended, 0)
        self._answered()
        assert f"{count} answers" in asker.log, "no answers"

    async def ends(self, ended: asyncio.Task[int] | Coroutine[Any, Any, int], status: int) -> None:
        found = await ended
        assert found == status, f"it ended with {found}, not {status}"

    async def held(self, count: int) -> Crowd:
        """Some more clients, who are left waiting in the server."""
        self.backend.close()
        crowd = Crowd(self.address, count, queue=500)
        await unless(crowd.served, self.backend.full(count))
        return crowd

    async def pid(self) -> int:
        """Of the worker that answers."""
        return int(await get(self.address, "/pid"))

    async def another(self, old: set[int]) -> int:
        """As soon as a worker answers that is none of the old ones."""
        while True:
            try:
                if (pid := await self.pid()) not in old:
                    return pid
            except (OSError, Closed):
                pass  # the one that was asked has just ended
            await asyncio.sleep(0.02)

    # ---- what is seen ----------------------------------------------------------------------------

    async def _held(self, count: int) -> None:
        await self.backend.full(count)
        program, figures = self.program, self.figures
        figures.count = count
        figures.arrived = time.monotonic() - self._began
        figures.processes = len(program.processes())
        figures.threads = program.threads()
        figures.memory = program.memory()

    def _answered(self) -> None:
        self.figures.answered = time.monotonic() - self._began
        self.figures.processor = self.program.used


async def unless(ended: asyncio.Future[Any], wanted: Coroutine[Any, Any, None]) -> None:
    """Wait for what is wanted; fail if the other one fails, or ends before."""
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise AssertionError(f"it ended too early: {ended.result()!r}")
        task.result()
    finally:
        task.cancel()
