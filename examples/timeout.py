"""Timeout: the first answer counts, and none may take too long."""

from gmprt import Chan, after, go, run, select, sleep


def ask(delay: float, answer: str) -> Chan[str]:
    reply = Chan[str](1)  # room for an answer that nobody waits for any more

    def server() -> None:
        sleep(delay)
        reply.send(answer)

    go(server)
    return reply


def first(*replies: Chan[str], seconds: float) -> str | None:
    chosen = select(*replies, after(seconds))
    return None if chosen.index == len(replies) else str(chosen.value)


def main() -> None:
    print(first(ask(60, "slow"), ask(0.001, "quick"), seconds=30))
    print(first(ask(60, "slow"), ask(60, "as slow"), seconds=0.01))
    try:
        ask(60, "slow").recv(timeout=0.01)  # the same for one channel
    except TimeoutError:
        print("timed out")


if __name__ == "__main__":
    run(main)
