"""The WSGI environment of an upgrade request."""

from __future__ import annotations

from typing import Any

GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "server.example.com",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    # RFC 6455, section 1.3.
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}


def environ(**changes: str | None) -> dict[str, Any]:
    """The good request with changes; None leaves a header out."""
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
