"""asyncio.to_thread, with a default executor that is large enough."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from answers import ask, checked


async def main(count: int) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(count))
    checked(await asyncio.gather(*(asyncio.to_thread(ask, n) for n in range(count))))


asyncio.run(main(int(sys.argv[1])))
