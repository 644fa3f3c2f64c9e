"""Sockets of this process."""

from __future__ import annotations

import socket
from typing import Any

from gevent.socket import socket as GeventSocket


def gevent_pair() -> tuple[Any, Any]:
    """Two connected sockets."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return tuple(GeventSocket(fileno=end.detach()) for end in ends)  # type: ignore[return-value]
