"""Calls that are all under way at the same time."""

import asyncio
import sys

import grpc.aio
from answers import checked

address, count = sys.argv[1], int(sys.argv[2])


async def main() -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_unary("/test.Test/Ask")

        async def one(n: int) -> int:
            return int(await ask(b"%d" % n, wait_for_ready=True))

        checked(await asyncio.gather(*(one(n) for n in range(count))))


asyncio.run(main())
