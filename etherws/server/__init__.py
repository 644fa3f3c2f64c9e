"""A request's way on the server: from the listening socket to a port.

serve.py -> front_door.py -> http.py -> application.py -> tunnels.py -> ports.py. Start reading at front_door.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etherws.server.serve import Server, tls_contexts

__all__ = ["Server", "tls_contexts"]


def __getattr__(name: str) -> Any:
    # Public names. Imported only when they are used, because the pure modules of this folder need no gevent.
    if name in __all__:
        from etherws.server import serve

        return getattr(serve, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
