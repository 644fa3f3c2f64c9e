"""HTTP at both doors: how many connections there may be, and how long each may take. One request for each connection.

Connections are accepted and requests are read as the server does it for its clients (server/accepting.py,
server/http.py): in turns, within bounds. Read next: application.py, which answers.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket

from etherws.addresses import peer
from etherws.server.accepting import Accepting
from etherws.server.front_door import FrontDoor, let_rest_arrive, remote_source
from etherws.server.http import REQUEST_HEADERS_MAX_BYTES, Handler, speak_http
from etherws.server.presence import UNKNOWN
from etherws.settings import ServerSettings

#: Connections at once, in all and of one address that is not this machine's. A page takes two, and a browser opens six.
CONNECTIONS_MAX, OF_ADDRESS_MAX = 64, 8

#: Connections at once of all other machines. Strangers with many addresses leave some to the programs of this one.
REMOTE_MAX = 48

#: Seconds within which a reader must take what is sent to it at once (pieces.py, PIECE).
SEND_TIMEOUT = 10.0

#: environ[THERE] is the client's Presence: it is gone when it ends its sending.
THERE = "etherws.there"

_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 41\r\nRetry-After: 1\r\n"
    b"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\ntoo many connections come from elsewhere\n"
)


class _Handler(Handler):
    """One connection."""

    is_tunnels = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._there = self._visitor.presence
        # Some programs, such as socat, end their sending with the request, and wait for the answer.
        self._visitor.presence = UNKNOWN

    def get_environ(self) -> Any:
        """As the server's, with THERE."""
        environ = super().get_environ()
        environ[THERE] = self._there
        return environ

    def handle_one_request(self) -> Any:
        """As the server's. To close a socket with unread bytes would take the answer from the client."""
        result = super().handle_one_request()
        if result is None and self.content_length:
            let_rest_arrive(self.socket.tcp)
        return result

    def finalize_headers(self) -> None:
        """As gevent's, but the answer to HEAD has no body, also if its length is not known."""
        super().finalize_headers()
        if self.command == "HEAD":
            self.response_use_chunked = False

    def log_request(self) -> None:
        """Nothing: the line of a request may have a one-time token."""

    def _sendall(self, data: Any) -> None:
        # A reader that takes nothing is as one that is gone: no error of ours.
        try:
            super()._sendall(data)
        except OSError as exc:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from exc


class Server(Accepting, WSGIServer):
    """Serves one door."""

    def __init__(self, listener: Any, application: Callable[..., Iterable[bytes]]) -> None:
        """`listener` is a listening socket of gevent."""
        super().__init__(listener, application, log=None, handler_class=_Handler, spawn=Pool(CONNECTIONS_MAX))
        self.front_door = FrontDoor(ServerSettings(), None)
        #: Connections of other machines, by the key of their address.
        self.of_address: Counter[str] = Counter()

    def handle(self, sock: GeventSocket, address: Any) -> None:
        """Serve one connection, in a greenlet of its own."""
        sock.settimeout(SEND_TIMEOUT)
        source = remote_source(peer(address))
        if not source:
            self.front_door.admit(sock, address, partial(speak_http, self))
            return
        self.of_address[source] += 1
        try:
            if self.of_address[source] <= OF_ADDRESS_MAX and self.of_address.total() <= REMOTE_MAX:
                self.front_door.admit(sock, address, partial(speak_http, self))
                return
            # Without a wait, which would take one of the places. What has come is read, so that the answer arrives.
            with sock, contextlib.suppress(OSError):
                sock.settimeout(0.0)
                sock.send(_TOO_MANY)
                sock.recv(REQUEST_HEADERS_MAX_BYTES)
        finally:
            self.of_address[source] -= 1
            if not self.of_address[source]:
                del self.of_address[source]
