"""gunicorn's worker class: `gunicorn -k gmprt`.

The worker's main thread is the main goroutine of a run(): it tells the arbiter every second that
the worker lives, and gunicorn's signal handlers run in it.  Requests cannot keep it from that for
long: one that computes in Python is preempted after 10 ms.  C code that keeps the GIL can; then
nothing of the process goes on, and the arbiter ends it after `timeout`, as it should.

gunicorn's own parser takes the place of httptools where that is not installed, where the settings
say so (`http_parser`), and for what httptools does not know: the proxy protocol, uwsgi's, and
gunicorn's switches for clients that are out of order.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import gmprt
from gmprt._serve.connection import Connection
from gmprt._serve.request import CONTINUE, Limits, Parser, Refused, Request, Stream, Trust
from gmprt._serve.response import FileWrapper, Response
from gmprt._serve.server import Server, Settings

if TYPE_CHECKING:

    class Base:
        """What is used of gunicorn.workers.base.Worker, which has no annotations."""

        PIPE: tuple[int, int]
        alive: bool
        cfg: Any
        log: Any
        max_requests: int
        nr: int
        ppid: int
        sockets: list[Any]
        timeout: float  # half of what the arbiter waits for a sign of life; 0: for ever
        wsgi: Any

        def notify(self) -> None: ...

else:
    from gunicorn.workers.base import Worker as Base

_BEAT = 1.0  # seconds between two signs of life, at most

# Settings of gunicorn's that httptools cannot follow, and what they are when nobody has set them.
_OWN_PARSER: dict[str, tuple[object, ...]] = {
    "permit_obsolete_folding": (False,),
    "strip_header_spaces": (False,),
    "permit_unconventional_http_method": (False,),
    "permit_unconventional_http_version": (False,),
    "casefold_http_method": (False,),
    "proxy_protocol": (False, "off"),
    "http_parser": ("auto",),
}


def _gunicorn(module: str) -> Any:
    return import_module(f"gunicorn.{module}")


# Those that ask for other protocols.
_HTTP_1: dict[str, tuple[object, ...]] = {
    "protocol": ("http",),
    "http_protocols": (["h1"],),
    "http2_cleartext": ("off",),
}


class Worker(Base):
    """A goroutine for each connection."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        for name, ours in _HTTP_1.items():
            if getattr(cfg, name, ours[0]) not in ours:
                raise RuntimeError(f"{name}: the gmprt worker speaks HTTP/1.1 only")

    def run(self) -> None:
        gmprt.run(self._main)

    def _main(self) -> None:
        server = _Server(self)
        server.start()
        beat = min(_BEAT, self.timeout or _BEAT)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            self._nap(beat)
        server.stop()
        last = time.monotonic() + self.cfg.graceful_timeout
        while not server.drain(min(beat, max(0.0, last - time.monotonic()))):
            if time.monotonic() >= last:
                self.log.warning("Requests are left after graceful_timeout (pid: %s)", os.getpid())
                break
            self.notify()

    def _nap(self, seconds: float) -> None:
        """Until a signal comes, or rouse()."""
        reader = self.PIPE[0]
        if select.select([reader], [], [], seconds)[0]:
            os.read(reader, 4096)

    def rouse(self) -> None:
        try:
            os.write(self.PIPE[1], b"1")
        except BlockingIOError:  # it is full: somebody has
            pass


class _Server(Server):
    """With gunicorn's hooks, logs and counts."""

    def __init__(self, worker: Worker) -> None:
        environ: dict[str, Any] = _gunicorn("http.wsgi").base_environ(worker.cfg)
        environ |= {"wsgi.multithread": True, "wsgi.file_wrapper": FileWrapper}
        environ["SERVER_SOFTWARE"] = self.name
        sockets = [listener.sock for listener in worker.sockets]
        super().__init__(worker.wsgi, sockets, _settings(worker), environ, worker.log)
        self._worker = worker
        self._cfg = worker.cfg

    def before(self, request: Request, environ: dict[str, Any]) -> None:
        worker = self._worker
        proxy = request.proxy_protocol_info
        if proxy:
            environ.update(_gunicorn("http.wsgi").proxy_environ(request))
        self._cfg.pre_request(worker, request)
        worker.nr += 1
        if worker.nr >= worker.max_requests and worker.alive:
            worker.log.info("Autorestarting worker after current request.")
            worker.alive = False
            self.stopping = True  # so that this one's client is told, too
            worker.rouse()

    def after(
        self, request: Request, environ: dict[str, Any], response: Response, seconds: float
    ) -> None:
        if response.status is not None:
            self.log.access(response, request, environ, timedelta(seconds=seconds))
        try:
            self._cfg.post_request(self._worker, request, environ, response)
        except Exception:
            self.log.exception("Exception in post_request hook")


def _settings(worker: Worker) -> Settings:
    cfg = worker.cfg
    reason = _why_own_parser(cfg)
    worker.log.info("Parser: %s", "httptools" if reason is None else f"gunicorn's own, {reason}")
    return Settings(
        connections=cfg.worker_connections,
        keepalive=cfg.keepalive,
        patience=cfg.timeout or inf,
        sendfile=cfg.sendfile is not False,
        script_name=os.environ.get("SCRIPT_NAME", ""),
        tls=_tls(cfg) if cfg.is_ssl else None,
        parser=_httptools(cfg) if reason is None else _own_parser(cfg),
    )


def _tls(cfg: Any) -> Callable[[socket.socket], ssl.SSLSocket]:
    context: ssl.SSLContext = _gunicorn("sock").ssl_context(cfg)
    if cfg.suppress_ragged_eofs:
        # Else OpenSSL tells the client of an error when Connection.shut() ends an idle connection.
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        return context.wrap_socket(
            sock,
            server_side=True,
            suppress_ragged_eofs=cfg.suppress_ragged_eofs,
            do_handshake_on_connect=False,
        )

    return wrap


# ---- the parsers ------------------------------------------------------------------------------


def _why_own_parser(cfg: Any) -> str | None:
    for name, usual in _OWN_PARSER.items():
        value = getattr(cfg, name, usual[0])
        if value not in usual:
            return f"because of {name} = {value}"
    if importlib.util.find_spec("httptools") is None:
        return "for there is no httptools"
    return None


def _httptools(cfg: Any) -> Callable[[Connection, Any], Parser]:
    limits = Limits(cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size)
    some = Trust(cfg.secure_scheme_headers, getattr(cfg, "forwarder_headers", ()), _header_map(cfg))
    none = Trust(header_map=some.header_map)
    forwards = _Forwarders(cfg.forwarded_allow_ips)
    scheme = "https" if cfg.is_ssl else "http"

    def parser(connection: Connection, address: Any) -> Parser:
        return Parser(connection, limits, some if forwards(address) else none, scheme)

    return parser


def _header_map(cfg: Any) -> str:
    return getattr(cfg, "header_map", "drop")


class _Forwarders:
    """Whether a client is a proxy that is to be believed."""

    def __init__(self, allowed: list[str]) -> None:
        self._all = "*" in allowed
        self._networks = [ipaddress.ip_network(a, strict=False) for a in allowed if a != "*"]

    def __call__(self, address: Any) -> bool:
        if self._all or isinstance(address, (str, bytes)):
            return True
        ip = ipaddress.ip_address(address[0])
        return any(ip in network for network in self._networks)


def _own_parser(cfg: Any) -> Callable[[Connection, Any], OwnParser]:
    def parser(connection: Connection, address: Any) -> OwnParser:
        return OwnParser(cfg, connection, address)

    return parser


class OwnParser:
    """gunicorn's parser in the clothes of a request.Parser."""

    def __init__(self, cfg: Any, stream: Stream, address: Any) -> None:
        errors = self._errors = _gunicorn("http.errors")
        self._parser = _gunicorn("http").get_parser(cfg, stream, address)
        self._stream = stream
        self._proxy: Any = None
        self._statuses = {
            errors.LimitRequestLine: "414 URI Too Long",
            errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
            errors.ForbiddenProxyRequest: "403 Forbidden",
            errors.UnsupportedTransferCoding: "501 Not Implemented",
            errors.ExpectationFailed: "417 Expectation Failed",
            errors.ConfigurationProblem: "500 Internal Server Error",
        }

    def next(self) -> Any:
        try:
            request = next(self._parser)
        except (StopIteration, self._errors.NoMoreData):
            return None
        except self._errors.ParseException as error:
            raise self._refused(error) from error
        self._proxy = request.proxy_protocol_info = request.proxy_protocol_info or self._proxy
        request.keep_alive = not request.should_close()
        request.expects_continue = False
        names = {name for name, _ in request.headers}
        request.complete = not names & {"CONTENT-LENGTH", "TRANSFER-ENCODING"}
        if request._expected_100_continue:
            self._stream.send(CONTINUE)
        return request

    def drain(self, request: Any, most: int) -> bool:
        return True  # next() does

    def refusal(self, error: BaseException) -> Refused | None:
        return self._refused(error) if isinstance(error, self._errors.ParseException) else None

    def _refused(self, error: Any) -> Refused:
        return Refused(self._statuses.get(type(error), "400 Bad Request"), str(error))
