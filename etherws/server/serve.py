"""``etherws server``: gevent's WSGIServer around the application, plain or TLS.

Listens, serves until told to stop, then closes tunnels and removes the TAPs. The application is wsgi.py's, HTTP is
http.py's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from etherws.access import certificates
from etherws.addresses import Networks, peer
from etherws.errors import ListenError
from etherws.reloadable import Reloadable
from etherws.server import unixsocket
from etherws.server.application import Application
from etherws.server.http import HEADER_TIMEOUT, Handler
from etherws.server.introduced import IntroducedMixin
from etherws.server.lobby import LobbyMixin
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Connections that wait to be accepted; listen(2) caps it at net.core.somaxconn.
BACKLOG = 1024

#: Seconds, and reads, that a client who failed the TLS handshake has to take in why.
DRAIN_TIMEOUT, DRAIN_READS = 1.0, 16


class TlsMixin:
    """For a gevent server: TLS that is ours (tunnel/tls.py), by what access/certificates.py makes of the files as they
    are now."""

    def __init__(self, *args: Any, contexts: Reloadable[ssl.SSLContext] | None = None, **kwargs: Any) -> None:
        tls: dict[str, Any] = {"ssl_context": contexts.get()} if contexts else {}
        super().__init__(*args, **kwargs, **tls)
        self._contexts = contexts

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As gevent's, with a deadline for the handshake, and without a traceback for a stranger who fails it."""
        assert self._contexts is not None
        try:
            wrapped = TlsStream(PlainStream(client_socket), self._contexts.get())
            with gevent.Timeout(HEADER_TIMEOUT, TimeoutError("no TLS handshake")):
                wrapped.do_handshake()
        except OSError as exc:
            # No client of ours shows a wrong certificate by chance; other strangers speak anything.
            told = isinstance(exc, ssl.SSLCertVerificationError)
            log.log(
                logging.WARNING if told else logging.DEBUG,
                "TLS with %s failed: %s",
                peer(address) or "a local client",
                _why(exc),
            )
            _hang_up(client_socket)
            return
        try:
            self.handle(wrapped, address)  # type: ignore[attr-defined]
        finally:
            wrapped.close()


class Server(LobbyMixin, IntroducedMixin, TlsMixin, WSGIServer):
    """Accepts connections for one Application."""

    def __init__(self, sock: Any, application: Application, contexts: Reloadable[ssl.SSLContext] | None) -> None:
        super().__init__(sock, application, log=None, handler_class=Handler, contexts=contexts)
        self._ours = application

    def trusted(self) -> Networks:
        """The reverse proxies whose word about their clients counts."""
        return self._ours.trusted

    def introducers(self) -> Networks | None:
        """Those of them that must introduce their clients, if any."""
        return self._ours.introducers


def contexts(certfile: str, keyfile: str, client_ca: str | None) -> Reloadable[ssl.SSLContext]:
    """A server's TLS context, made anew when its files change. Raises ListenError that names the file at fault."""
    return Reloadable(lambda: certificates.server_context(certfile, keyfile, client_ca), [certfile, keyfile, client_ca])


def listen(address: str | None, port: int) -> Any:
    """A listening socket on `address`, or on all of IPv4 and IPv6. Raises ListenError."""
    if address and address.startswith(unixsocket.PREFIX):
        return unixsocket.Listener(address, BACKLOG)
    where = f"{_bracketed(address) if address else '*'}:{port}"
    try:
        if address is None:
            sock = _listen_everywhere(port)
        else:
            family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            sock = socket.create_server(target, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as exc:
        hint = "choose another --port, or stop what listens there"
        if isinstance(exc, PermissionError):
            hint = "run as root or with CAP_NET_BIND_SERVICE, or choose a --port above 1023"
        elif isinstance(exc, (socket.gaierror, UnicodeError)) or "assign" in str(exc):
            hint = "choose an --address of this machine"
        raise ListenError(f"cannot listen on {where}: {getattr(exc, 'strerror', exc)}; {hint}") from exc
    sock.setblocking(False)
    return gevent_socket.socket(fileno=sock.detach())


def serve(
    application: Application,
    *,
    address: str | None,
    port: int,
    contexts: Reloadable[ssl.SSLContext] | None,
    ready: Callable[[str], None],
    stop: Event,
) -> None:
    """Serve until `stop` is set. `ready` is told, once, where this listens and by which TAP. SIGHUP has the files read
    again.

    Raises ListenError or DeviceError, with nothing left behind.
    """
    # A tunnel has two descriptors. The usual limit of 1,024 is there for the sake of select(2) only.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sock = listen(address, port)
    server = Server(sock, application, contexts)
    try:
        name = application.start()
        server.start()
        gevent.signal_handler(signal.SIGHUP, _reload, application, contexts)
        if warning := exposure(server.socket, application, contexts):
            log.warning("%s", warning)
        scheme, path = "wss" if contexts else "ws", application.settings.path
        if isinstance(sock, unixsocket.Listener):
            ready(f"{name} is up, listening on {address} for {scheme}, path {path}")
        else:
            ready(f"{name} is up, listening on {scheme}://{_bracketed(address or '*')}:{server.address[1]}{path}")
        stop.wait()
    finally:
        if isinstance(sock, unixsocket.Listener):
            sock.remove()
        server.close()
        application.stop()
        # Whoever is still speaking HTTP is not worth waiting for.
        server.stop(timeout=0.1)


def _reload(application: Application, contexts: Reloadable[ssl.SSLContext] | None) -> None:
    application.reload()
    if contexts:
        contexts.reload()


def exposure(sock: Any, application: Application, contexts: Reloadable[ssl.SSLContext] | None) -> str | None:
    """What of a server that listens on `sock` stands open to others than this machine, as a warning; or None."""
    if sock.family == socket.AF_UNIX or ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback:
        return None
    hint = "or listen on --address 127.0.0.1 behind a proxy that does; see docs/security.rst"
    if not (application.gate.guarded or (contexts and contexts.get().verify_mode == ssl.CERT_REQUIRED)):
        more = "" if contexts else ", and whoever is on the way may read and change what passes"
        option = "" if contexts else "--certfile and --keyfile and "
        return (
            f"anyone who reaches this server may join the LAN{more}: give {option}"
            f"--htpasswd, --token-file or --client-ca, {hint}"
        )
    if not contexts:
        return (
            "whoever is on the way may read passwords, tokens and all that passes: give --certfile and --keyfile,"
            f" {hint}"
        )
    return None


def _hang_up(sock: Any) -> None:
    """Close, but let what was said last arrive: unread bytes would make a RST of the end, which overtakes it."""
    with contextlib.suppress(OSError), gevent.Timeout(DRAIN_TIMEOUT, TimeoutError()):
        sock.shutdown(socket.SHUT_WR)
        for _ in range(DRAIN_READS):
            if not sock.recv(65536):
                break
    sock.close()


def _why(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return exc.strerror or str(exc)


def _listen_everywhere(port: int) -> socket.socket:
    # A kernel without IPv6, or with ipv6.disable=1, has no dual-stack socket.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", port), backlog=BACKLOG)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
