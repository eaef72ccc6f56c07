"""The application that bench/serve.py has served."""

from __future__ import annotations

import time

from flask import Flask  # type: ignore[import-not-found, unused-ignore]

app = Flask("bench")


@app.get("/")
def hello() -> str:
    return "hello"


@app.get("/sleep")
def sleep() -> str:
    time.sleep(0.1)
    return "slept"


@app.get("/burn/<float:seconds>")
def burn(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "burned"
