"""The PROXY protocol, for a gevent server: a trusted proxy introduces its client before TLS and HTTP begin.

From such a proxy the introduction must come, from anybody else it is a malformed request (proxy-protocol.txt, section
2: nothing is guessed). What it says is parsed by forwarded.py.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent

from etherws import addresses
from etherws.errors import ProxyError
from etherws.server import forwarded
from etherws.server.http import HEADER_TIMEOUT
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)


class IntroducedMixin:
    """For a gevent server, before what speaks TLS."""

    _confused = False

    def introducers(self) -> addresses.Networks | None:
        """The proxies that must introduce their clients, if any."""
        raise NotImplementedError

    def handle(self, client_socket: Any, address: Any) -> None:
        """As gevent's, for the client's own address."""
        if not isinstance(client_socket, TlsStream):
            address = self._introduced(client_socket, address)
        if address is not None:
            super().handle(client_socket, address)  # type: ignore[misc]

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As gevent's, for the client's own address; the introduction comes ahead of TLS."""
        address = self._introduced(client_socket, address)
        if address is not None:
            super().wrap_socket_and_handle(client_socket, address)  # type: ignore[misc]

    def _introduced(self, sock: Any, address: Any) -> Any:
        """The address of who is at the other end in truth; None, and the connection closed, if that is not said."""
        introducers = self.introducers()
        if not introducers or addresses.peer(address) not in introducers:
            return address
        try:
            with gevent.Timeout(HEADER_TIMEOUT, ProxyError(f"no PROXY header within {HEADER_TIMEOUT:g} s")):
                return forwarded.source(lambda size: _exactly(sock, size)) or address
        except (ProxyError, OSError) as exc:
            # A port scan or a health check on the proxy's machine would say it each time.
            level = logging.DEBUG if self._confused else logging.WARNING
            self._confused = True
            log.log(level, "the proxy %s was hung up on: %s", addresses.peer(address) or "on the UNIX socket", exc)
            sock.close()
            return None


def _exactly(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data
