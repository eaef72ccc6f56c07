"""Tee: each value goes to two channels; neither reader is kept waiting by the order of sends."""

from gmprt import Chan, RecvChan, Send, go, run, select


def tee(source: RecvChan[int]) -> tuple[RecvChan[int], RecvChan[int]]:
    one, two = Chan[int](), Chan[int]()

    def copy() -> None:
        with one, two:
            for value in source:
                left: list[Chan[int] | None] = [one, two]
                for _ in range(2):
                    # Whoever is ready first; then it is None, which is never ready.
                    chosen = select(*[Send(ch, value) for ch in left])
                    left[chosen.index] = None

    go(copy)
    return one.receiver, two.receiver


def main() -> None:
    source = Chan[int](4)
    source.send_many([1, 2, 3, 4])
    source.close()
    one, two = tee(source)
    total = go(sum, two)
    print(list(one), total.result())


if __name__ == "__main__":
    run(main)
