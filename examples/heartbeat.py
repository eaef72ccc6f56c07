"""Heartbeat: a worker shows that it is alive, and whoever misses that acts."""

from gmprt import Chan, Send, Ticker, after, go, run, select, sleep


def worker(jobs: Chan[int], pulse: Chan[None], results: Chan[int]) -> None:
    ticker = Ticker(0.002)
    while True:
        chosen = select(jobs, ticker.c)
        if chosen.index == 1:
            select(Send(pulse, None), default=True)  # nobody listens: no matter
        elif chosen.ok:
            n = chosen.get(jobs)
            if n < 0:
                sleep(60)  # it hangs
            results.send(n * n)
        else:
            return


def main() -> None:
    jobs, pulse, results = Chan[int](), Chan[None](), Chan[int](1)
    g = go(worker, jobs, pulse, results)
    pulse.recv()
    print("alive")
    jobs.send(7)
    print("result", results.recv())
    jobs.send(-1)
    while select(pulse, after(0.25)).index == 0:
        pass
    print("no pulse: cancelled", g.cancel())


if __name__ == "__main__":
    run(main)
