"""Pipeline: stages that receive from one channel and send to the next."""

from gmprt import Chan, RecvChan, go, run


def numbers(n: int) -> RecvChan[int]:
    out = Chan[int]()

    def stage() -> None:
        with out:  # closes it: the end travels down the pipeline
            for i in range(n):
                out.send(i)

    go(stage)
    return out.receiver


def squares(source: RecvChan[int]) -> RecvChan[int]:
    out = Chan[int]()

    def stage() -> None:
        with out:
            for i in source:
                out.send(i * i)

    go(stage)
    return out.receiver


def main() -> None:
    print(list(squares(numbers(6))))
    print(sum(squares(squares(numbers(6)))))


if __name__ == "__main__":
    run(main)
