"""For Flask's own server."""

from answers import answer
from flask import Flask

app = Flask(__name__)


@app.get("/<path:path>")
def view(path: str) -> str:
    return answer(f"/{path}")
