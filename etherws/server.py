"""``etherws server``: gevent's WSGIServer around the application, plain or TLS.

Listens, serves until told to stop, then closes tunnels and removes the TAPs. The application is wsgi.py's, HTTP is
handler.py's.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from etherws import unixsocket
from etherws.errors import ListenError
from etherws.forwarded import Trusted
from etherws.handler import HEADER_TIMEOUT, Handler
from etherws.introduced import IntroducedMixin
from etherws.tls import TlsSocket
from etherws.wsgi import Application

log = logging.getLogger(__name__)

#: Connections that wait to be accepted; listen(2) caps it at net.core.somaxconn.
BACKLOG = 1024


class TlsMixin:
    """For a gevent server: TLS that is ours (tls.py), with a deadline for its handshake."""

    def __init__(self, *args: Any, ssl_context: ssl.SSLContext | None = None, **kwargs: Any) -> None:
        tls: dict[str, Any] = {"ssl_context": ssl_context} if ssl_context else {}
        super().__init__(*args, **kwargs, **tls)
        self._context = ssl_context

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As gevent's, without a traceback for a stranger who fails the handshake."""
        assert self._context is not None
        try:
            wrapped = TlsSocket(client_socket, self._context)
            with gevent.Timeout(HEADER_TIMEOUT, TimeoutError("no TLS handshake")):
                wrapped.do_handshake()
        except OSError as exc:
            log.debug("TLS with %s failed: %s", address, exc)
            client_socket.close()
            return
        try:
            self.handle(wrapped, address)  # type: ignore[attr-defined]
        finally:
            wrapped.close()


class Server(IntroducedMixin, TlsMixin, WSGIServer):
    """Accepts connections for one Application."""

    def __init__(self, sock: Any, application: Application, context: ssl.SSLContext | None) -> None:
        super().__init__(sock, application, log=None, handler_class=Handler, ssl_context=context)
        self._ours = application

    def introducers(self) -> Trusted | None:
        """The proxies that must introduce their clients, if any."""
        return self._ours.introducers


def tls_context(keyfile: str, certfile: str) -> ssl.SSLContext:
    """A server's TLS context from two PEM files. Raises ListenError that names the file at fault."""
    for option, path in (("--keyfile", keyfile), ("--certfile", certfile)):
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ListenError(f"cannot read {option} {path}: {exc.strerror}") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION

    def no_password() -> str:
        raise ListenError(f"--keyfile {keyfile} is encrypted; decrypt it first ('openssl pkey')")

    try:
        context.load_cert_chain(certfile, keyfile, password=no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ListenError(f"--keyfile {keyfile} is not the key of --certfile {certfile}") from exc
        raise ListenError(f"--keyfile {keyfile}, --certfile {certfile}: no PEM key and certificate") from exc
    return context


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
        mend = "choose another --port, or stop what listens there"
        if isinstance(exc, PermissionError):
            mend = "run as root or with CAP_NET_BIND_SERVICE, or choose a --port above 1023"
        elif isinstance(exc, (socket.gaierror, UnicodeError)) or "assign" in str(exc):
            mend = "choose an --address of this machine"
        raise ListenError(f"cannot listen on {where}: {getattr(exc, 'strerror', exc)}; {mend}") from exc
    sock.setblocking(False)
    return gevent_socket.socket(fileno=sock.detach())


def serve(
    application: Application,
    *,
    address: str | None,
    port: int,
    context: ssl.SSLContext | None,
    ready: Callable[[str], None],
    stop: Event,
) -> None:
    """Serve until `stop` is set. `ready` is told, once, where this listens and by which TAP.

    Raises ListenError or DeviceError, with nothing left behind.
    """
    sock = listen(address, port)
    server = Server(sock, application, context)
    try:
        name = application.start()
        server.start()
        scheme, path = "wss" if context else "ws", application.settings.path
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


def _listen_everywhere(port: int) -> socket.socket:
    # A kernel without IPv6, or with ipv6.disable=1, has no dual-stack socket.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", port), backlog=BACKLOG)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
