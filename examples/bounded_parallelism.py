"""Bounded parallelism: a goroutine for each job, but only so many of them at work."""

from gmprt import AtomicInt, Semaphore, WaitGroup, run, sleep


def main() -> None:
    slots, jobs = Semaphore(3), WaitGroup()
    busy, most, done = AtomicInt(), AtomicInt(), AtomicInt()

    def job() -> None:
        with slots:  # waits for one of three
            now = busy.add(1)
            most.store(max(now, most.load()))
            sleep(0.001)
            busy.add(-1)
        done.add(1)

    for _ in range(12):
        jobs.go(job)
    jobs.wait()
    print(done.load(), "jobs; never more than three at once:", most.load() <= 3)


if __name__ == "__main__":
    run(main)
