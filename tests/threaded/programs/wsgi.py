"""For gunicorn, waitress and cheroot."""

from collections.abc import Callable, Iterable
from typing import Any

from answers import answer


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = answer(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
