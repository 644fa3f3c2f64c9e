"""A request's way on the server: from the listening socket to a port. Start reading at serve.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etherws.server.serve import Server

__all__ = ["Server"]


def __getattr__(name: str) -> Any:
    # A documented name. Imported only when asked for: the pure modules of this folder need no gevent.
    if name == "Server":
        from etherws.server.serve import Server

        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
