"""Sends tasks to Celery's worker, and waits for what they return."""

import sys

from answers import checked
from celery import group
from tasks import ask

count = int(sys.argv[1])
checked(group(ask.s(n) for n in range(count)).apply_async().get())
