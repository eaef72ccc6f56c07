"""Publish/subscribe: a message goes to all who listen now; they come and go as they like."""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice

from gmprt import Chan, ChannelClosed, Mutex, RecvChan, WaitGroup, go, run


class Topic:
    def __init__(self) -> None:
        self._channels: dict[Chan[str], Chan[str]] = {}
        self._order = Mutex()  # all see the messages of all publishers in one order

    @contextmanager
    def subscribe(self, room: int) -> Generator[RecvChan[str], None, None]:
        channel = Chan[str](room)
        self._channels[channel] = channel
        try:
            yield channel.receiver
        finally:
            self._end(channel)

    def publish(self, message: str) -> None:
        with self._order:
            for channel in list(self._channels):
                try:
                    channel.send(message)  # waits for the slowest; send_nowait() would drop
                except ChannelClosed:
                    pass  # it has left, perhaps while we waited

    def close(self) -> None:
        for channel in list(self._channels):
            self._end(channel)

    def _end(self, channel: Chan[str]) -> None:
        if self._channels.pop(channel, None):  # who takes it out closes it: once
            channel.close()


def main() -> None:
    topic, listening = Topic(), WaitGroup()

    def reader(most: int) -> list[str]:
        with topic.subscribe(room=1) as messages:
            listening.done()
            return list(islice(messages, most))

    listening.add(3)
    readers = [go(reader, most) for most in (100, 100, 2)]
    listening.wait()
    for n in range(4):
        topic.publish(f"m{n}")
    topic.close()
    for g in readers:
        print(g.result())


if __name__ == "__main__":
    run(main)
