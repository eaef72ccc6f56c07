"""Trio: a loop in goroutines, in run() and in threads beside them."""

from __future__ import annotations

import textwrap

import pytest
from support import run_child

pytest.importorskip("trio")

WORK = """
    import signal, threading, time
    import gmprt, trio

    async def work():
        ended = []
        async def child(i):
            await trio.sleep(0.001 * i)
            ended.append(i)
        async with trio.open_nursery() as nursery:
            for i in range(5):
                nursery.start_soon(child, i)
        assert sorted(ended) == list(range(5))
        await trio.to_thread.run_sync(lambda: trio.from_thread.run(trio.sleep, 0.001))
        async def echo(stream):
            async for data in stream:
                await stream.send_all(data)
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, echo, 0)
            address = listeners[0].socket.getsockname()[:2]
            async with await trio.open_tcp_stream("127.0.0.1", address[1]) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some(5) == b"hello"
            nursery.cancel_scope.cancel()
        ran = await trio.run_process(["echo", "hi"], capture_stdout=True)
        assert ran.stdout == b"hi\\n"
        ch = gmprt.Chan()
        gmprt.go(lambda: (time.sleep(0.001), ch.send(4)))
        assert await trio.to_thread.run_sync(ch.recv) == 4
        return 1

    def loop():
        return trio.run(work)
"""

WAYS = {
    "goroutines": "assert sum(g.result() for g in [gmprt.go(loop) for _ in range(5)]) == 5",
    "main": "assert gmprt.run(loop) == loop() == 1",
    "beside": """
        ch = gmprt.Chan()
        def busy():
            while not ch.closed:
                time.sleep(0.001)
        goroutines = [gmprt.go(busy) for _ in range(5)]
        results = []
        thread = threading.Thread(target=lambda: results.append(loop()))
        thread.start()
        assert loop() == 1
        thread.join()
        assert results == [1]
        ch.close()
        for g in goroutines:
            g.result()
    """,
    "guest": """
        def main():
            calls, outcomes = gmprt.Chan(1000), []
            def done(outcome):
                outcomes.append(outcome)
                calls.send(int)
            trio.lowlevel.start_guest_run(
                work, run_sync_soon_threadsafe=calls.send, done_callback=done)
            while not outcomes:
                calls.recv()()
            assert outcomes[0].unwrap() == 1
        gmprt.run(main)
    """,
    "Ctrl-C": """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ends = []
        async def sleeps():
            gmprt.go(signal.raise_signal, signal.SIGINT)
            try:
                await trio.sleep_forever()
            finally:
                ends.append("finally")
        def main():
            try:
                trio.run(sleeps)
            except KeyboardInterrupt:
                ends.append("interrupted")
        gmprt.run(main)
        assert ends == ["finally", "interrupted"], ends
    """,
    "cancelled by its scope": """
        ends = []
        def loop_until(ch):
            async def sleeps():
                with trio.CancelScope() as scope:
                    ch.send((trio.lowlevel.current_trio_token(), scope))
                    try:
                        await trio.sleep_forever()
                    finally:
                        ends.append("finally")
                return "cancelled"
            return trio.run(sleeps)
        ch = gmprt.Chan(1)
        g = gmprt.go(loop_until, ch)
        token, scope = ch.recv()
        token.run_sync_soon(scope.cancel)
        assert g.result() == "cancelled" and ends == ["finally"]
    """,
}


@pytest.mark.parametrize("interpose", ["1", "0"])
@pytest.mark.parametrize("way", WAYS)
def test_trio(way: str, interpose: str) -> None:
    code = "\n".join(textwrap.dedent(part) for part in (WORK, WAYS[way], 'print("ok")'))
    assert run_child(code, env={"GMPRT_INTERPOSE": interpose}, timeout=60).stdout == "ok\n"
