"""Tells an ASGI server that the application is for WSGI: once at its start, and then by 501.

Such a server (uvicorn, hypercorn, gunicorn's ASGI workers) would log a traceback for each request otherwise. Read next:
wsgi.py, which calls this.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from etherws.log_limit import LogLimit
from etherws.server.gunicorn_workers import HINT

log = LogLimit(logging.getLogger(__name__))

REASON = f"this server speaks ASGI, and cannot give its socket to etherws, which is for WSGI: {HINT}"

Scope = MutableMapping[str, Any]


def refuse(scope: Scope, receive: Any = None, send: Any = None) -> Any:
    """What the ASGI server gets for its call: version 3 calls with all three, version 2 with the scope alone."""
    return partial(_refuse, scope) if receive is None else _refuse(scope, receive, send)


async def _refuse(
    scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Scope], Awaitable[None]]
) -> None:
    # The first event of each kind says that it begins.
    await receive()
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.failed", "message": REASON})
        return
    log.log(logging.ERROR, "ASGI", "%s", REASON)
    if scope["type"] == "websocket":
        # Before it is accepted: the client gets 403.
        await send({"type": "websocket.close"})
        return
    body = f"{REASON}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 501, "headers": headers})
    await send({"type": "http.response.body", "body": body})
