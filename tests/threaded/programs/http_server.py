"""The standard library's own: a thread for each connection."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from answers import answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = answer(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


host, _, port = sys.argv[1].partition(":")
try:
    Server((host, int(port)), Handler).serve_forever()
except KeyboardInterrupt:
    pass
