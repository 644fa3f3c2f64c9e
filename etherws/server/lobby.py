"""The connections that are no tunnels yet: how many there may be, in total and from one address.

A stranger who says nothing is given ten seconds (http.py, serve.py). Here is what keeps a thousand such from being
in the way of others: when there are too many, whoever has waited longest is hung up on. An honest client needs the
lobby for some milliseconds.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from functools import lru_cache
from typing import Any

from etherws.addresses import Networks, peer, source_key

log = logging.getLogger(__name__)

#: Connections that wait at once, in total and from one address.
TOTAL, EACH = 1024, 64


@lru_cache(TOTAL)
def _place(address: str) -> str:
    """The source_key of an address; empty for this machine."""
    return "" if ipaddress.ip_address(address.partition("%")[0]).is_loopback else source_key(address)


class LobbyMixin:
    """For a gevent server. leave() is to be called when a connection has become a tunnel."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Where each connection is from, in the order in which they came.
        self._waiting: dict[Any, str] = {}

    def do_handle(self, client_socket: Any, address: Any) -> None:
        """As gevent's, once there is room."""
        whence = self._whence(peer(address))
        neighbours = [sock for sock, other in self._waiting.items() if other == whence] if whence else []
        if len(neighbours) >= EACH:
            self._hang_up(neighbours[0])
        elif len(self._waiting) >= TOTAL:
            self._hang_up(next(iter(self._waiting)))
        self._waiting[client_socket] = whence
        super().do_handle(client_socket, address)  # type: ignore[misc]

    def do_close(self, client_socket: Any, *args: Any) -> None:
        """As gevent's."""
        self.leave(client_socket)
        super().do_close(client_socket, *args)  # type: ignore[misc]

    def leave(self, sock: Any) -> None:
        """This connection, plain or in TLS, waits no more."""
        self._waiting.pop(getattr(sock, "tcp", sock), None)

    def trusted(self) -> Networks:
        """The reverse proxies: each brings clients of many addresses."""
        raise NotImplementedError

    def _whence(self, address: str) -> str:
        """What is counted as one address; empty for this machine and for proxies, which are not limited so."""
        place = _place(address) if address else ""
        return "" if not place or address in self.trusted() else place

    def _hang_up(self, sock: Any) -> None:
        log.debug("too many wait; hanging up on the first, from %s", self._waiting.pop(sock) or "this machine")
        # Whoever reads from it finds its end, and closes it.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
