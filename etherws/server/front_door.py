"""The front door: what happens to a connection between accept() and HTTP, in one function.

    accept -> limit -> PROXY header -> TLS -> HTTP

FrontDoor.admit() shows the order. Both servers call it once for each connection, in a greenlet of its own: serve.py
(gevent) and worker.py (gunicorn). Each step before HTTP can end the connection. Read next: proxy_protocol.py,
tunnel/tls.py, http.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket

from etherws.access.client_certificates import ClientCertificate
from etherws.addresses import Networks, peer, source_key
from etherws.errors import ProxyError
from etherws.reloadable import Reloadable
from etherws.server import proxy_protocol
from etherws.settings import ServerSettings
from etherws.tunnel.stream import PlainStream, Stream, read_exactly
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Seconds that a client has for each step: the PROXY header, the TLS handshake, the request's headers (http.py). An
#: honest client needs some milliseconds.
STEP_TIMEOUT = 10.0

#: Connections that wait at once, in total and from one source. With STEP_TIMEOUT, this is what silent clients can take.
MAX_WAITING, MAX_WAITING_PER_SOURCE = 1024, 64

#: Seconds, and reads, that a client whose TLS handshake failed has to receive the TLS alert.
DRAIN_TIMEOUT, DRAIN_READS = 1.0, 16

#: An address as socket.accept() returns it: a tuple for TCP, a string for a UNIX socket.
Address = tuple[Any, ...] | str

#: A server's TLS context, made again when its files change.
TlsContexts = Reloadable[ssl.SSLContext]


def _nothing() -> None:
    """For connections that are in no waiting list."""


@dataclass(frozen=True)
class Admitted:
    """A connection that may speak HTTP."""

    stream: Stream
    #: The client's address. With a PROXY header, the one that the header names.
    address: Address
    #: The client's verified certificate; None if it showed none.
    certificate: ClientCertificate | None = None
    #: To be called when the connection has become a tunnel: it then no longer counts as waiting.
    upgraded: Callable[[], None] = _nothing


class FrontDoor:
    """The way of each new connection to HTTP, for one server."""

    def __init__(self, settings: ServerSettings, contexts: TlsContexts | None) -> None:
        """Of `settings`, `trusted_proxy` and `proxy_protocol` are used. `contexts` is the TLS context; None: no TLS."""
        self._trusted = Networks(settings.trusted_proxy)
        self._proxy_protocol = settings.proxy_protocol
        self._contexts = contexts
        self._waiting = WaitingList()
        self._warned = False

    def admit(self, sock: GeventSocket, address: Address, speak_http: Callable[[Admitted], None]) -> None:
        """Take one accepted connection to HTTP, and close it when `speak_http` has returned, or at the first failure.

        A connection waits from here until it is upgraded or closed.
        """
        self._waiting.add(sock, self._source(peer(address)))
        try:
            client = self._read_proxy_header(sock, address)
            if client is None:
                return
            secured = self._start_tls(sock, client)
            if secured is None:
                return
            stream, certificate = secured
            speak_http(Admitted(stream, client, certificate, partial(self._waiting.remove, sock)))
        finally:
            self._waiting.remove(sock)
            sock.close()

    def _source(self, address: str) -> str:
        """The key that connections of `address` are counted by. Empty if they are not limited: those of this machine
        and of trusted proxies, because each of these brings many clients."""
        source = _remote_source(address) if address else ""
        return "" if not source or address in self._trusted else source

    def _read_proxy_header(self, sock: GeventSocket, address: Address) -> Address | None:
        """The client's address; None if a proxy that must name its client did not.

        With --proxy-protocol every trusted proxy must send the header, and nobody else may: what is in front of HTTP
        is never guessed (proxy-protocol.txt, section 2). For others it is a malformed request.
        """
        if not self._proxy_protocol or peer(address) not in self._trusted:
            return address
        try:
            with gevent.Timeout(STEP_TIMEOUT, ProxyError(f"no PROXY header within {STEP_TIMEOUT:g} s")):
                return proxy_protocol.read_header(partial(read_exactly, sock)) or address
        except (ProxyError, OSError) as exc:
            # Once only: a port scan or a health check on the proxy's machine would repeat it for ever.
            log.log(
                logging.DEBUG if self._warned else logging.WARNING,
                "closed a connection of the proxy %s: %s",
                peer(address) or "on the UNIX socket",
                exc,
            )
            self._warned = True
            return None

    def _start_tls(self, sock: GeventSocket, address: Address) -> tuple[Stream, ClientCertificate | None] | None:
        """The connection's stream, and the client's certificate; None if the TLS handshake failed."""
        if self._contexts is None:
            return PlainStream(sock), None
        try:
            stream = TlsStream(PlainStream(sock), self._contexts.get())
            with gevent.Timeout(STEP_TIMEOUT, TimeoutError("no TLS handshake")):
                stream.do_handshake()
        except OSError as exc:
            # A certificate that does not verify needs the administrator. Other failures are port scans and the like.
            log.log(
                logging.WARNING if isinstance(exc, ssl.SSLCertVerificationError) else logging.DEBUG,
                "TLS with %s failed: %s",
                peer(address) or "a local client",
                _reason(exc),
            )
            _let_alert_arrive(sock)
            return None
        subject = stream.getpeercert()
        return stream, ClientCertificate(subject, stream.peer_chain(), self._contexts) if subject else None


class WaitingList:
    """The connections that are not tunnels yet, and how many there may be."""

    def __init__(self) -> None:
        #: The source of each connection. The order is that of arrival.
        self._sources: dict[GeventSocket, str] = {}

    def add(self, sock: GeventSocket, source: str) -> None:
        """Add a connection. If there are too many, in total or of its source, hang up on the one that waited longest.
        The empty source has no limit of its own."""
        same = [other for other, its_source in self._sources.items() if its_source == source] if source else []
        if len(same) >= MAX_WAITING_PER_SOURCE:
            self._hang_up(same[0])
        elif len(self._sources) >= MAX_WAITING:
            self._hang_up(next(iter(self._sources)))
        self._sources[sock] = source

    def remove(self, sock: GeventSocket) -> None:
        """Remove a connection, if it still waits."""
        self._sources.pop(sock, None)

    def _hang_up(self, sock: GeventSocket) -> None:
        source = self._sources.pop(sock)
        log.debug("too many connections wait; closing the oldest, from %s", source or "this machine or a proxy")
        # The greenlet that reads from it sees the end, and closes it.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@lru_cache(MAX_WAITING)
def _remote_source(address: str) -> str:
    """The source key of an address; empty for an address of this machine."""
    return "" if ipaddress.ip_address(address.partition("%")[0]).is_loopback else source_key(address)


def _let_alert_arrive(sock: GeventSocket) -> None:
    """End the connection so that the TLS alert, which was sent last, arrives. To close a socket with unread bytes sends
    a RST, and the client's kernel may then drop the alert."""
    with contextlib.suppress(OSError), gevent.Timeout(DRAIN_TIMEOUT, TimeoutError()):
        sock.shutdown(socket.SHUT_WR)
        for _ in range(DRAIN_READS):
            if not sock.recv(65536):
                break


def _reason(exc: OSError) -> str:
    """The cause of a failed handshake, in OpenSSL's words if there are any."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return exc.strerror or str(exc)
