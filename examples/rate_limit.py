"""Rate limit: so many requests a second, a few of them at once."""

import time

from gmprt import AtomicInt, Limiter, WaitGroup, run


def main() -> None:
    limiter = Limiter(200, burst=5)
    requests, sent = WaitGroup(), AtomicInt()

    def client() -> None:
        limiter.wait()
        sent.add(1)

    begun = time.monotonic()
    for _ in range(15):
        requests.go(client)
    requests.wait()
    took = time.monotonic() - begun
    print(sent.load(), "sent; ten of them had to wait:", took >= 10 / 200 - 0.001)
    rarely = Limiter(1 / 3600, burst=1)
    print("now, or not at all:", [rarely.allow(), rarely.allow(), rarely.wait(timeout=0)])


if __name__ == "__main__":
    run(main)
