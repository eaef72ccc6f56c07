"""Fan-in: what several channels carry comes out of one, which closes when all have."""

from gmprt import Chan, RecvChan, WaitGroup, go, run


def merge(*sources: RecvChan[str]) -> RecvChan[str]:
    out, open_ones = Chan[str](), WaitGroup()

    def forward(source: RecvChan[str]) -> None:
        for value in source:
            out.send(value)

    def close() -> None:
        open_ones.wait()
        out.close()

    for source in sources:
        open_ones.go(forward, source)
    go(close)
    return out.receiver


def words(*text: str) -> RecvChan[str]:
    out = Chan[str](len(text))
    out.send_many(text)
    out.close()
    return out.receiver


def main() -> None:
    print(sorted(merge(words("one", "two"), words("three"), words())))


if __name__ == "__main__":
    run(main)
