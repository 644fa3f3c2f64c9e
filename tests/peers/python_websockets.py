"""The package websockets: ``connect URI``, or ``listen``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.peers.machine import take


async def run(socket: Any) -> None:
    """Be the machine, until the connection ends."""
    async for message in socket:
        for frame in take(message) if isinstance(message, bytes) else []:
            await socket.send(frame)


async def main() -> None:
    """Connect or listen."""
    if sys.argv[1] == "connect":
        async with connect(sys.argv[2], proxy=None) as socket:
            await run(socket)
        return
    async with serve(run, "0.0.0.0", 0) as server:
        print(f"listening on {next(iter(server.sockets)).getsockname()[1]}.", flush=True)
        await server.wait_closed()


asyncio.run(main())
