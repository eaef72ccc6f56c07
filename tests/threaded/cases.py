"""What is started, and what happens to it: the commands are those of docs/servers.md."""

from __future__ import annotations

import importlib.util
import os
import shutil
import site
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR2

from tests.threaded.crowd import Closed, get
from tests.threaded.process import Program
from tests.threaded.stage import Stage

Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    play: Play
    needs: tuple[str, ...]

    def missing(self) -> list[str]:
        """Modules, programs and startup files that are not installed."""
        return [name for name in self.needs if not _installed(name)]


def _installed(name: str) -> bool:
    if name.endswith(".pth"):
        return any(Path(folder, name).exists() for folder in site.getsitepackages())
    return bool(importlib.util.find_spec(name) or shutil.which(name))


CASES: dict[str, Case] = {}


def case(name: str, *needs: str) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        CASES[name] = Case(play, needs)
        return play

    return add


def inherited(stage: Stage) -> dict[str, str]:
    """The environment of a program that starts another Python."""
    return {} if stage.how == "os" else {"GMPRT_THREADS": "1"}


# ---- gunicorn ------------------------------------------------------------------------------------


def gunicorn(stage: Stage, *more: str, env: Mapping[str, str] | None = None) -> Program:
    """A worker could get all connections.  Beyond its threads they may be kept alive."""
    pool = [
        "-k",
        "gthread",
        f"--threads={stage.count}",
        f"--worker-connections={stage.count + 1000}",
    ]
    return stage.start("-m", "gunicorn", *pool, f"--bind={stage.at}", *more, env=env)


@case("gunicorn", "gunicorn")
async def _gunicorn(stage: Stage) -> None:
    """Two workers are forked; SIGHUP while some clients wait in them."""
    program = gunicorn(stage, "--workers=2", "wsgi:app")
    await stage.crowd()
    old = set(program.processes())
    crowd = await stage.held(stage.count // 10)
    program.signal(SIGHUP)
    await stage.another(old)
    stage.backend.open()
    await crowd.served
    await program.until(lambda: old & set(program.processes()) == {program.pid}, "old workers end")
    await stage.ends(program.stop(SIGTERM), 0)


@case("gunicorn-restart", "gunicorn")
async def _restart(stage: Stage) -> None:
    """One worker: it has served its number, its successor hangs, the next is killed."""
    requests = 2 * stage.count + 20  # the crowd's, and a few
    program = gunicorn(
        stage, "--workers=1", "--timeout=5", f"--max-requests={requests}", "wsgi:app"
    )
    await program.accepts(stage.address)
    workers = {await stage.pid()}
    await stage.crowd()
    workers.add(await stage.another(workers))
    assert "Autorestarting" in program.log
    try:
        await get(stage.address, "/hang")
    except Closed:
        pass
    workers.add(hung := await stage.another(workers))
    assert "WORKER TIMEOUT" in program.log
    os.kill(hung, SIGKILL)
    await stage.another(workers)
    await stage.ends(program.stop(SIGTERM), 0)


@case("gunicorn-upgrade", "gunicorn", "gmprt_threads.pth")
async def _upgrade(stage: Stage) -> None:
    """SIGUSR2: a new master, which begins as every Python does, takes over from the old one."""
    pidfile = stage.folder / "pid"
    env = inherited(stage)
    program = gunicorn(stage, "--workers=1", f"--pid={pidfile}", "wsgi:app", env=env)
    await program.accepts(stage.address)
    old = {program.pid, await stage.pid()}
    program.signal(SIGUSR2)
    await program.until(Path(f"{pidfile}.2").exists, "there is another master")
    new = int(Path(f"{pidfile}.2").read_text())
    os.kill(program.pid, SIGTERM)
    await stage.another(old)
    await stage.crowd()
    os.kill(new, SIGTERM)
    await stage.ends(program.ended(), 0)
    await program.nothing_left()


@case("gunicorn-django", "gunicorn", "django")
async def _django(stage: Stage) -> None:
    program = gunicorn(stage, "--workers=2", "django_wsgi:application")
    await stage.crowd()
    await stage.ends(program.stop(SIGTERM), 0)


# ---- other servers -------------------------------------------------------------------------------


@case("http.server")
async def _http_server(stage: Stage) -> None:
    await stage.server("http_server.py", stage.at, stop=SIGINT)


@case("flask", "flask")
async def _flask(stage: Stage) -> None:
    host, port = stage.address
    options = [f"--host={host}", f"--port={port}"]
    await stage.server("-m", "flask", "--app", "flask_app", "run", *options, stop=SIGINT, queue=100)


@case("waitress", "waitress")
async def _waitress(stage: Stage) -> None:
    """select() knows no descriptor above 1024."""
    pool = [f"--threads={stage.count}", f"--connection-limit={stage.count + 100}"]
    options = ["--asyncore-use-poll", f"--listen={stage.at}"]
    await stage.server("-m", "waitress", *pool, *options, "wsgi:app", stop=SIGINT)


@case("cheroot", "cheroot")
async def _cheroot(stage: Stage) -> None:
    pool = [f"--threads={stage.count}", "--request-queue-size=1024"]
    await stage.server(
        "-m", "cheroot", *pool, f"--bind={stage.at}", "wsgi:app", stop=SIGINT, status=-SIGINT
    )


@case("runserver", "django")
async def _runserver(stage: Stage) -> None:
    command = ["manage.py", "runserver", "--noreload", stage.at]
    await stage.server(*command, stop=SIGINT, queue=8)  # of ten


@case("flask-reload", "flask", "gmprt_threads.pth")
async def _flask_reload(stage: Stage) -> None:
    host, port = stage.address
    options = ["--debug", f"--host={host}", f"--port={port}"]
    stage.start("-m", "flask", "--app", "flask_app", "run", *options, env=inherited(stage))
    await reload(stage, "flask_app.py", queue=100)


@case("runserver-reload", "django", "gmprt_threads.pth")
async def _runserver_reload(stage: Stage) -> None:
    stage.start("manage.py", "runserver", stage.at, env=inherited(stage))
    await reload(stage, "django_urls.py", queue=8)


async def reload(stage: Stage, source: str, queue: int) -> None:
    """The program watches its sources, and has another Python do the work."""
    await stage.crowd(queue)
    old = {await stage.pid()}
    (stage.folder / source).touch()
    await stage.another(old)
    stage.backend.close()
    await stage.crowd(queue)
    os.killpg(stage.program.pid, SIGINT)  # Ctrl-C
    await stage.program.ended()
    await stage.program.nothing_left()


@case("grpc", "grpc")
async def _grpc(stage: Stage) -> None:
    program = stage.start("grpc_server.py", stage.at, str(stage.count))
    await program.accepts(stage.address)
    client = stage.start("grpc_client.py", stage.at, str(stage.count), how="os")
    await stage.asks(client, stage.count)
    await stage.ends(program.stop(SIGTERM), 0)


@case("celery", "celery", "redis", "redis-server")
async def _celery(stage: Stage) -> None:
    with redis(stage.folder / "redis") as path:
        env = {"REDIS": f"redis+socket://{path}"}
        pool = ["--pool=threads", f"--concurrency={stage.count}", "--prefetch-multiplier=1"]
        program = stage.start(
            "-m", "celery", "-A", "tasks", "worker", "--loglevel=INFO", *pool, env=env
        )
        await program.until(lambda: "ready." in program.log, "it is ready")
        client = stage.start("send_tasks.py", str(stage.count), how="os", env=env)
        await stage.asks(client, stage.count)
        await stage.ends(program.stop(SIGTERM), 0)


@contextmanager
def redis(path: Path) -> Iterator[Path]:
    """A server that listens there."""
    options = ["--port", "0", "--save", "", "--tcp-backlog", "4096"]
    command = ["redis-server", *options, "--dir", path.parent, "--unixsocket", path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not path.exists():
                assert process.poll() is None, "redis-server does not start"
                time.sleep(0.01)
            yield path
        finally:
            process.terminate()


# ---- pools ---------------------------------------------------------------------------------------


@case("executor")
async def _executor(stage: Stage) -> None:
    """ThreadPoolExecutor(10 000), where there are 2000 of others."""
    await stage.pool("executor.py", 5 * stage.count)


@case("multiprocessing.pool")
async def _thread_pool(stage: Stage) -> None:
    await stage.pool("thread_pool.py", stage.count)


@case("to_thread")
async def _to_thread(stage: Stage) -> None:
    await stage.pool("to_thread.py", stage.count)


@case("apscheduler", "apscheduler")
async def _apscheduler(stage: Stage) -> None:
    await stage.pool("scheduler.py", stage.count)


@case("dask", "dask")
async def _dask(stage: Stage) -> None:
    await stage.pool("graph.py", stage.count)
