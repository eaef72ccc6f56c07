"""APScheduler: jobs that are due at the same time."""

import sys
import threading

from answers import ask, checked
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler

count = int(sys.argv[1])
results = [-1] * count
left = threading.Semaphore(0)
scheduler = BlockingScheduler(executors={"default": ThreadPoolExecutor(count)})


def job(n: int) -> None:
    results[n] = ask(n)
    left.release()


def end() -> None:
    for _ in range(count):
        left.acquire()
    scheduler.shutdown(wait=False)


for n in range(count):
    scheduler.add_job(job, args=[n], misfire_grace_time=None)
threading.Thread(target=end).start()
scheduler.start()
checked(results)
