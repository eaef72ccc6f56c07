"""For Celery's worker."""

import os

import answers
from celery import Celery

app = Celery("tasks", broker=os.environ["REDIS"], backend=os.environ["REDIS"])


@app.task
def ask(n: int) -> int:
    return answers.ask(n)
