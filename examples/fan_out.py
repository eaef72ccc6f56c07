"""Fan-out: several workers receive from one channel, each value goes to one of them."""

from gmprt import Chan, RecvChan, SendChan, WaitGroup, run


def worker(jobs: RecvChan[int], results: SendChan[tuple[int, int]]) -> None:
    for n in jobs:
        results.send((n, sum(range(n))))


def main() -> None:
    jobs, results, workers = Chan[int](), Chan[tuple[int, int]](100), WaitGroup()
    for _ in range(4):
        workers.go(worker, jobs.receiver, results.sender)
    jobs.send_many(range(20))
    jobs.close()
    workers.wait()  # then nobody sends any more
    results.close()
    done = dict(results)
    print(len(done), "jobs,", sum(done.values()))


if __name__ == "__main__":
    run(main)
