"""The package aiohttp: ``connect URI``, or ``listen``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiohttp import ClientSession, WSMsgType, web

from tests.peers.machine import take


async def run(socket: Any) -> None:
    """Be the machine, until the connection ends."""
    async for message in socket:
        for frame in take(message.data) if message.type is WSMsgType.BINARY else []:
            await socket.send_bytes(frame)


async def accept(request: web.Request) -> web.WebSocketResponse:
    """One client."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await run(socket)
    return socket


async def main() -> None:
    """Connect or listen."""
    if sys.argv[1] == "connect":
        async with ClientSession() as session, session.ws_connect(sys.argv[2]) as socket:
            await run(socket)
        return
    application = web.Application()
    application.router.add_get("/", accept)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    print(f"listening on {runner.addresses[0][1]}.", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
