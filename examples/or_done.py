"""Or-done: receive from a channel until it ends, or until somebody says that it is enough."""

from collections.abc import Iterator

from gmprt import Chan, RecvChan, go, run, select


def or_done(done: RecvChan[None], source: RecvChan[int]) -> Iterator[int]:
    while True:
        chosen = select(done, source)
        if chosen.index == 0 or not chosen.ok:
            return
        yield chosen.get(source)


def main() -> None:
    done, endless, short = Chan[None](), Chan[int](), Chan[int](3)

    def count() -> None:
        n = 0
        while True:
            endless.send(n)
            n += 1

    go(count)  # main's end cancels it
    got: list[int] = []
    for n in or_done(done, endless):
        got.append(n)
        if n == 4:
            done.close()  # a closed channel is always ready: all who look at it stop
            break
    print(got, list(or_done(done, Chan())))

    short.send_many([1, 2, 3])
    short.close()
    print(list(or_done(Chan(), short)))


if __name__ == "__main__":
    run(main)
