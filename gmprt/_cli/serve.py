"""`python -m gmprt serve`: a WSGI application behind a socket, in one process."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import signal
import socket
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import gmprt

if TYPE_CHECKING:
    from collections.abc import Generator

    from gmprt._serve.server import Application, Settings

log = logging.getLogger("gmprt.serve")


def add_to(commands: Any) -> None:
    """The command's parser."""
    serve = commands.add_parser(
        "serve",
        help="serve a WSGI application, a goroutine for each connection",
        description="Serve a WSGI application over HTTP/1.1, a goroutine for each connection, "
        "until SIGTERM or Ctrl-C: then no more connections are accepted, and requests that have "
        "begun are finished. It needs httptools: pip install 'gmprt[serve]'.",
    )
    serve.add_argument("app", metavar="MODULE:APP", help="the application; APP may be a.b")
    serve.add_argument(
        "--bind",
        type=_address,
        default="127.0.0.1:8000",
        metavar="ADDRESS",
        help="HOST:PORT, [HOST]:PORT or unix:PATH (default: %(default)s)",
    )
    serve.add_argument(
        "--backlog",
        type=number,
        default=2048,
        metavar="N",
        help="connections that may wait to be accepted (default: %(default)s)",
    )
    serve.add_argument(
        "--connections",
        type=number,
        default=10_000,
        metavar="N",
        help="connections at a time; others wait (default: %(default)s)",
    )
    serve.add_argument(
        "--keep-alive",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="until a connection without a request is closed, 0 for at once (default: %(default)s)",
    )
    serve.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="for a client to send a head or the next part of a body, and to take the next part of "
        "an answer (default: %(default)s)",
    )
    serve.add_argument(
        "--grace",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="for requests that have begun when the server is stopped (default: %(default)s)",
    )
    serve.add_argument(
        "--threads",
        action="store_true",
        help="make goroutines of the threads that the application starts: gmprt.threads(True)",
    )
    serve.set_defaults(command=run)


def _address(text: str) -> str:
    _, colon, port = text.rpartition(":")
    tcp = colon and port.isascii() and port.isdigit() and int(port) < 1 << 16
    if not tcp and not (text.startswith("unix:") and text != "unix:"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor unix:PATH")
    return text


def number(text: str) -> int:
    value = int(text)
    if not 1 <= value < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {(1 << 31) - 1}")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:  # NaN is not
        raise argparse.ArgumentTypeError(f"{text} is negative, or not a number")
    return value


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    if importlib.util.find_spec("httptools") is None:
        print("gmprt serve needs httptools: pip install 'gmprt[serve]'", file=sys.stderr)
        return 2
    _log_to_stderr()
    from gmprt._serve.server import Settings

    settings = Settings(
        connections=options.connections,
        keepalive=options.keep_alive,
        patience=options.timeout,
        script_name=os.environ.get("SCRIPT_NAME", ""),
    )
    if options.threads:
        gmprt.threads(True)
    with listening(options.bind, options.backlog) as (listener, where):
        gmprt.run(_serve, application(options.app), listener, where, settings, options.grace)
    return 0


def _log_to_stderr() -> None:
    """What the server says; the application's logs are its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def application(name: str) -> Application:
    module, found, path = name.partition(":")
    if not found:
        sys.exit(f"gmprt serve: {name!r} is not MODULE:APP")
    app: Any = importlib.import_module(module)
    for attribute in path.split("."):
        app = getattr(app, attribute)
    if not callable(app):
        kind = type(app).__name__
        sys.exit(f"gmprt serve: {name} must be callable, as an application is, not {kind}")
    return cast("Application", app)


@contextmanager
def listening(address: str, backlog: int) -> Generator[tuple[socket.socket, str]]:
    """The socket, and what to call it."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)  # of a server that is no more
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            ours = _identity(path)
            sock.listen(backlog)
            try:
                yield sock, address
            finally:
                if _identity(path) == ours:  # else it is another server's by now, or removed
                    os.unlink(path)
    else:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.create_server(
            (host.strip("[]"), int(port)), family=family, backlog=backlog
        ) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
            yield sock, f"http://{host}:{sock.getsockname()[1]}"


def _identity(path: str) -> tuple[int, int] | None:
    """What file that is; None if there is none."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


def _serve(
    app: Application, listener: socket.socket, where: str, settings: Settings, grace: float
) -> None:
    from gmprt._serve.server import Server

    signalled: gmprt.Chan[None] = gmprt.Chan()
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]

    def stop(number: int, _: object) -> None:
        # The next one is for whoever does not want to wait.
        for usual, which in zip(handlers, (signal.SIGTERM, signal.SIGINT), strict=True):
            signal.signal(which, usual)
        signalled.close()

    environ = {"wsgi.errors": sys.stderr, "wsgi.multiprocess": False}
    server = Server(app, [listener], settings, environ, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.start()
    log.info("Listening on %s", where)  # and a signal stops it in order
    signalled.recv_ok()
    log.info("Stopping")
    server.stop()
    listener.close()
    if not server.drain(grace):
        log.warning("Requests are left after %g s", grace)
