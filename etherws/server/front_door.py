"""The front door: what happens to a connection between accept() and HTTP, in one function.

    accept -> waiting list -> PROXY header -> TLS -> HTTP

FrontDoor.admit() shows the order. Both servers call it once for each connection, in a greenlet of its own: serve.py
(gevent) and worker.py (gunicorn). Each step before HTTP can end the connection. Read next: accepting.py, which comes
before, visitor.py, proxy_protocol.py, tunnel/tls.py, http.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket

from etherws.access.client_certificates import ClientCertificate
from etherws.addresses import UNIX, Networks, peer, source_key
from etherws.errors import ClientGone, ProxyError
from etherws.events import REFUSED, event
from etherws.log_limit import LogLimit
from etherws.reloadable import Reloadable
from etherws.server import presence, proxy_protocol
from etherws.server.refusals import refusals
from etherws.server.visitor import Visitor
from etherws.server.waiting_list import MAX_WAITING, WaitingList
from etherws.settings import ServerSettings
from etherws.tunnel.stream import PlainStream, Stream, read_exactly
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Seconds, and reads, that a client whose TLS handshake failed has to receive the TLS alert.
DRAIN_TIMEOUT, DRAIN_READS = 1.0, 16

#: For a client that speaks HTTP without TLS. Most TLS servers answer so.
_WANTS_TLS = "this is an HTTP request to an HTTPS server; use wss:// or https://"

#: An address as socket.accept() returns it: a tuple for TCP, a string for a UNIX socket.
Address = tuple[Any, ...] | str

#: A server's TLS context, made again when its files change.
TlsContexts = Reloadable[ssl.SSLContext]


@dataclass(frozen=True)
class Admitted:
    """A connection that may speak HTTP."""

    stream: Stream
    #: The connection in the waiting list.
    visitor: Visitor
    #: The client's address. With a PROXY header, the one that the header names.
    address: Address
    #: The client's verified certificate; None if it showed none.
    certificate: ClientCertificate | None = None
    #: The trusted proxy whose PROXY header named the client, if one did: its address, or UNIX.
    proxy: str = ""
    #: Takes what is to be done with the connection by another greenlet, when HTTP has ended; None: HTTP must wait.
    later: Callable[[Callable[[], None]], None] | None = None


class FrontDoor:
    """The way of each new connection to HTTP, for one server."""

    def __init__(self, settings: ServerSettings, contexts: TlsContexts | None) -> None:
        """Of `settings`, `trusted_proxy` and `proxy_protocol` are used. `contexts` is the TLS context; None: no TLS."""
        self._trusted = Networks(settings.trusted_proxy)
        self._proxy_protocol = settings.proxy_protocol
        self._contexts = contexts
        self._log = LogLimit(log)
        # Half of the descriptors are for sessions, whatever strangers do.
        self.waiting = WaitingList(min(MAX_WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        presence.prepare()

    def admit(
        self, sock: GeventSocket, address: Address, speak_http: Callable[[Admitted], None], *, later: bool = False
    ) -> None:
        """Take one accepted connection to HTTP, and close it when `speak_http` has returned, or at the first failure.
        With `later`, that may have given it to another greenlet: a tunnel's.

        A connection waits from here until it is upgraded or closed.
        """
        calls: list[Callable[[], None]] = []
        visitor = Visitor(sock, self._source(peer(address)), self.waiting)
        try:
            client = self._read_proxy_header(sock, address, visitor)
            if client is None:
                return
            secured = self._start_tls(sock, client, visitor)
            if secured is None:
                return
            stream, certificate = secured
            proxy = "" if client is address else peer(address) or UNIX
            speak_http(Admitted(stream, visitor, client, certificate, proxy, calls.append if later else None))
        except ClientGone:
            pass
        finally:
            visitor.leave()
            if calls:
                # This greenlet has gone through TLS and HTTP, and its stack has grown: a new one takes 8 KB less.
                gevent.spawn(calls.pop())
            else:
                sock.close()

    def _source(self, address: str) -> str:
        """The key that connections of `address` are counted by. Empty for those of this machine and of trusted proxies:
        each of these brings many clients, who share a key until HTTP tells more."""
        source = remote_source(address)
        return "" if not source or address in self._trusted else source

    def _read_proxy_header(self, sock: GeventSocket, address: Address, visitor: Visitor) -> Address | None:
        """The client's address; None if a proxy that must name its client did not.

        With --proxy-protocol every trusted proxy must send the header, and nobody else may: what is in front of HTTP
        is never guessed (proxy-protocol.txt, section 2). For others it is a malformed request.
        """
        if not self._proxy_protocol or peer(address) not in self._trusted:
            return address
        try:
            with visitor.listening():
                client = proxy_protocol.read_header(partial(read_exactly, sock)) or address
        except (ProxyError, OSError) as exc:
            # A port scan or a health check on the proxy's machine repeats it for ever.
            proxy = peer(address) or "on the UNIX socket"
            reason = f"no PROXY header: {exc}" if isinstance(exc, TimeoutError) else exc
            refusals.count("PROXY header")
            self._log.log(
                logging.WARNING,
                "PROXY header",
                "closed a connection of the proxy %s: %s",
                proxy,
                reason,
                extra=event(REFUSED, address=proxy, identity=None, reason=str(reason), cause="PROXY header"),
            )
            return None
        visitor.begin_step()
        visitor.source = self._source(peer(client))
        return client

    def _start_tls(
        self, sock: GeventSocket, address: Address, visitor: Visitor
    ) -> tuple[Stream, ClientCertificate | None] | None:
        """The connection's stream, and the client's certificate; None if the TLS handshake failed."""
        if self._contexts is None:
            return PlainStream(sock), None
        try:
            stream = TlsStream(PlainStream(sock), self._contexts.get())
            stream.do_handshake(visitor.working, visitor.listening)
        except OSError as exc:
            who, why = peer(address) or "a local client", _reason(exc)
            answer = b""
            if getattr(exc, "reason", None) == "HTTP_REQUEST":
                # OpenSSL sends no alert then. These bytes fit into the new connection's buffer.
                number = refusals.add("no TLS", who, f"TLS failed: {_WANTS_TLS}", status=400)
                answer = bad_request(f"{_WANTS_TLS} (refusal {number})")
            else:
                self._tls_failed(who, why, of_certificate=isinstance(exc, ssl.SSLCertVerificationError))
            # This is a step of its own, and so short that it needs no other end.
            with contextlib.suppress(OSError), visitor.listening():
                if answer:
                    sock.send(answer)
                let_rest_arrive(sock)
            return None
        visitor.begin_step()
        subject = stream.getpeercert()
        return stream, ClientCertificate(subject, stream.peer_chain(), self._contexts) if subject else None

    def _tls_failed(self, who: str, why: str, *, of_certificate: bool) -> None:
        """A client's TLS failed. A certificate that does not verify needs the administrator; other failures are port
        scans and the like."""
        level, kind = (logging.WARNING, "TLS certificate") if of_certificate else (logging.DEBUG, "TLS")
        refusals.count(kind)
        about = event(REFUSED, address=who, identity=None, reason=f"TLS failed: {why}", cause=kind)
        self._log.log(level, kind, "TLS with %s failed: %s", who, why, extra=about)


def bad_request(words: str, status: str = "400 Bad Request") -> bytes:
    """The answer to what is no request that could reach the application."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(words)}\r\nConnection: close"
    return f"{head}\r\n\r\n{words}".encode("ascii")


@lru_cache(MAX_WAITING)
def remote_source(address: str) -> str:
    """The source key of an address; empty for an address of this machine, and for the empty one of a UNIX socket."""
    return "" if not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback else source_key(address)


def let_rest_arrive(sock: GeventSocket) -> None:
    """End the connection so that what was sent last, such as a TLS alert, arrives. To close a socket with unread bytes
    sends a RST, and the client's kernel may then drop what it has not read."""
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
