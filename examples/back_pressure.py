"""Back-pressure: a full buffer slows the producer down, or tells it to drop."""

from gmprt import Chan, WouldBlock, go, run, sleep


def main() -> None:
    queue, peak = Chan[int](4), 0

    def produce() -> None:
        with queue:
            for n in range(50):
                queue.send(n)  # waits while four are on their way

    go(produce)
    total = 0
    for n in queue:
        peak = max(peak, len(queue))
        total += n
        if n % 10 == 0:
            sleep(0.001)  # a slow consumer
    print(total, "in all; never more than four waited:", peak <= 4)

    full, dropped = Chan[int](2), 0
    for n in range(5):
        try:
            full.send_nowait(n)
        except WouldBlock:
            dropped += 1
    print("dropped", dropped, "kept", full.recv_many(10))


if __name__ == "__main__":
    run(main)
