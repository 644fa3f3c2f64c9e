"""An ASGI server that was given the WSGI application."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from etherws.server.asgi import REASON
from etherws.wsgi import application


def talk(kind: str, *, version: int) -> list[dict[str, Any]]:
    """What the application sends for a scope of this kind."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "anything"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    called: Any = application
    scope = {"type": kind}
    asyncio.run(called(scope, receive, send) if version == 3 else called(scope)(receive, send))
    return sent


@pytest.mark.parametrize("version", [2, 3])
def test_it_is_told_at_its_start_and_by_each_answer(version: int, caplog: pytest.LogCaptureFixture) -> None:
    assert talk("lifespan", version=version) == [{"type": "lifespan.startup.failed", "message": REASON}]
    start, body = talk("http", version=version)
    assert start["status"] == 501
    assert body["body"] == f"{REASON}\n".encode()
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert talk("websocket", version=version) == [{"type": "websocket.close"}]
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert "run gunicorn with -k etherws.worker.Worker" in REASON
