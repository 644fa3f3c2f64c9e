"""A connected socket to the server: whichever of its addresses answers first, through a proxy or not.

TLS to the proxy is done here, TLS to the server is not. The deadline is the caller's. Read next: proxy_choice.py, which
says which way; proxies.py, what a proxy is told; reconnect.py, what follows. Source: RFC 8305, sections 4 and 5.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import ssl
from itertools import zip_longest
from typing import Any

import gevent
from gevent import socket
from gevent.queue import Empty, SimpleQueue
from gevent.socket import socket as GeventSocket

from etherws.client import proxies as asking
from etherws.client.proxy_choice import Proxy, Route
from etherws.errors import ConnectError
from etherws.tunnel.stream import PlainStream, Stream
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Seconds that an attempt has before the next address is tried beside it (RFC 8305, section 8).
HEAD_START = 0.25

#: Of several errors the one that says most: one that the other machine sent rather than one of the way there.
_TELLING = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)

_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Dialer:
    """Dials by one route, as often as need be."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._told = ""
        #: The proxy that has not yet answered, for an error about a time-out: " of the proxy http://proxy:3128".
        self.awaited = ""

    def dial(self, host: str, port: int, secure: bool) -> Stream:
        """A socket connected to the host and port of a ws:// URI, or wss:// if `secure`, or to what the route has
        instead. Raises ConnectError, which names the proxy if it is the proxy that failed."""
        self.awaited = ""
        proxy, why = self._route.through(host, secure)
        if why != self._told:
            self._told = why
            log.info("%s", why)
        host, port = self._route.connect_to or (host, port)
        if proxy is None:
            return self._connect(host, port)
        self.awaited = f" of the proxy {proxy}"
        try:
            sock = self._through(proxy, host, port)
        except ssl.SSLCertVerificationError as exc:
            words = f"its certificate does not verify: {exc.verify_message}; the system's store is what it is held to"
            raise ConnectError(f"the proxy {proxy}: {words}") from exc
        except ssl.SSLError as exc:
            raise ConnectError(f"the proxy {proxy}: TLS failed ({exc.reason or exc}); is it an http:// proxy?") from exc
        except (ConnectError, OSError) as exc:
            raise ConnectError(f"the proxy {proxy}: {getattr(exc, 'strerror', None) or exc}") from exc
        self.awaited = ""
        return sock

    def _through(self, proxy: Proxy, host: str, port: int) -> Stream:
        if proxy.scheme != "socks5":
            return asking.tunnel(proxy, host, port, lambda: self._greet(proxy))
        sock = self._connect(proxy.host, proxy.port)
        try:
            asking.socks5(proxy, host, port, sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _greet(self, proxy: Proxy) -> Stream:
        """Connect to an HTTP proxy, in TLS to an HTTPS proxy."""
        sock = self._connect(proxy.host, proxy.port)
        if proxy.scheme == "http":
            return sock
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_default_certs()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.options |= ssl.OP_NO_RENEGOTIATION
            secured = TlsStream(sock, context, server_hostname=proxy.host)
            secured.do_handshake()
        except BaseException:
            sock.close()
            raise
        return secured

    def _connect(self, host: str, port: int) -> Stream:
        try:
            # In gevent's threads: the event loop does not wait for it.
            found = socket.getaddrinfo(host, port, _FAMILIES[self._route.family], socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise ConnectError(getattr(exc, "strerror", None) or str(exc)) from exc
        return PlainStream(first_of(found))


def interleaved(addresses: list[Any]) -> list[Any]:
    """Addresses as of getaddrinfo(), both families by turns, the first one's first (RFC 8305, section 4)."""
    families: tuple[list[Any], list[Any]] = ([], [])
    for address in addresses:
        families[address[0] != addresses[0][0]].append(address)
    return [address for pair in zip_longest(*families) for address in pair if address]


def first_of(addresses: list[Any]) -> GeventSocket:
    """A socket connected to the first of the addresses, as of getaddrinfo(), that answers; the others are closed.

    Raises ConnectError for the most telling of their errors once all have failed.
    """
    waiting = interleaved(addresses)
    attempts: list[gevent.Greenlet[..., None]] = []
    ended: SimpleQueue[tuple[Any, GeventSocket | OSError]] = SimpleQueue()
    errors: list[tuple[OSError, Any]] = []
    try:
        while len(errors) < len(addresses):
            if waiting:
                attempts.append(gevent.spawn(_attempt, waiting.pop(0), ended))
            try:
                address, result = ended.get(timeout=HEAD_START if waiting else None)
            except Empty:
                continue
            if isinstance(result, GeventSocket):
                return result
            errors.append((result, address))
    finally:
        gevent.killall(attempts)
        while not ended.empty():
            _, late = ended.get()
            if isinstance(late, GeventSocket):
                late.close()
    error, address = min(errors, key=lambda pair: [*_TELLING, pair[0].errno].index(pair[0].errno))
    where = f" by {address[4][0]}" if len(addresses) > 1 else ""
    raise ConnectError(f"{error.strerror or error}{where}") from error


def _attempt(address: Any, ended: SimpleQueue[tuple[Any, GeventSocket | OSError]]) -> None:
    """Connect to one address; what comes of it goes into the queue."""
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(*address[:3]))
            sock.connect(address[4])
        except OSError as exc:
            ended.put((address, exc))
        else:
            stack.pop_all()
            ended.put((address, sock))
