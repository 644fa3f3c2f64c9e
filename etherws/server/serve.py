"""``etherws server``: listen, serve until told to stop, then close the tunnels and remove the TAPs.

Server is gevent's WSGIServer behind our front door. The application is in application.py, sockets to listen on are in
listen.py. Read next: front_door.py, which each new connection passes.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket

from etherws.access import certificates
from etherws.addresses import authority
from etherws.errors import printable, some_of
from etherws.file_names import absolute
from etherws.kernel.store import Store
from etherws.reloadable import Reloadable
from etherws.server.accepting import Accepting, allow_descriptors
from etherws.server.application import Application
from etherws.server.front_door import Address, FrontDoor, TlsContexts
from etherws.server.http import Handler, speak_http
from etherws.server.kept_listener import KeptListener
from etherws.server.takeover import Environ, StartResponse
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

#: Seconds to wait, at the end, for clients that still speak HTTP: nothing that they wait for will come.
STOP_TIMEOUT = 0.1


#: How many names a line of the log has.
NAMED = 5


class Server(Accepting, WSGIServer):
    """gevent's WSGIServer, with our limits, PROXY protocol and TLS. A public name: docs/embedding.rst."""

    def __init__(
        self,
        listener: Any,
        application: Callable[[Environ, StartResponse], Iterable[bytes]],
        contexts: TlsContexts | None = None,
        *,
        settings: ServerSettings | None = None,
    ) -> None:
        """`listener` is a listening socket or an address, as for WSGIServer; `contexts` the TLS context, None for no
        TLS. Of `settings`, `trusted_proxy` and `proxy_protocol` are used; by default the application's own, or none if
        `application` is not an Application."""
        # TLS is ours. gevent is only told what the clients speak.
        environ = {"wsgi.url_scheme": "https" if contexts else "http"}
        super().__init__(listener, application, log=None, handler_class=Handler, environ=environ)
        if settings is None:
            settings = application.settings if isinstance(application, Application) else ServerSettings()
        self.front_door = FrontDoor(settings, contexts)

    def handle(self, sock: GeventSocket, address: Address) -> None:
        """Serve one connection, in a greenlet of its own."""
        self.front_door.admit(sock, address, partial(speak_http, self))


def nothing() -> None:
    """For whoever need not know when all is open."""


def at_once(read_again: Callable[[], object]) -> None:
    """For whoever has nothing to do before files are read again."""
    read_again()


def tls_contexts(certfile: str, keyfile: str, client_ca: str | None) -> TlsContexts:
    """A server's TLS context. It is made again when one of its files changes. Raises ListenError with the file's
    name; SettingsError if a name cannot be used."""
    certfile, keyfile = absolute("--certfile", certfile), absolute("--keyfile", keyfile)
    client_ca = client_ca and absolute("--client-ca", client_ca)
    return Reloadable(lambda: certificates.server_context(certfile, keyfile, client_ca), [certfile, keyfile, client_ca])


def serve(
    application: Application,
    *,
    address: str | None,
    port: int,
    contexts: TlsContexts | None,
    ready: Callable[[str], None],
    stop: Event,
    opened: Callable[[], object] = nothing,
    reload: Callable[[Callable[[], object]], object] = at_once,
    handing_over: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until `stop` is set. Calls `ready` once, with a text that names the TAP and where the server listens; and
    before the first client, `opened`, when all is open that may need root. SIGHUP makes it read its files again, by
    what it gives to `reload`; SIGUSR1 log counters.

    At the end `handing_over` says whether another process comes at once, such as a new image of this one. Then, and
    if the application's store lasts, clients are told to come back, and TAPs, rules, bridges and the listening socket
    stay; the store has them.

    Raises ListenError or DeviceError; then nothing of what it made remains.
    """
    allow_descriptors()
    listener = KeptListener(application.store, address, port)
    sock = listener.socket
    server = Server(sock, application, contexts)
    try:
        name = application.start()
        opened()
        close_rest(application.store)
        server.start()
        gevent.signal_handler(signal.SIGHUP, reload, partial(read_again, application, contexts))
        gevent.signal_handler(signal.SIGUSR1, application.log_counters)
        if warning := exposure(server.socket, application, contexts.get().verify_mode if contexts else None):
            log.warning("%s", warning)
        ready(started(name, server.socket, address, application.settings.path, tls=contexts is not None))
        stop.wait()
    finally:
        keep = application.store.lasting or handing_over()
        listener.close(handing_over=keep)
        server.close()
        application.stop(handing_over=keep)
        server.stop(timeout=STOP_TIMEOUT)


def close_rest(store: Store) -> None:
    """The start is over: close what the process before has left and nobody took."""
    if rest := store.drop_rest():
        log.warning("of what the process before has left, this is of no use here: %s", printable(some_of(rest, NAMED)))


def started(name: str, sock: Any, address: str | None, path: str, *, tls: bool) -> str:
    """What to say when all is up: `name` is the first TAP's, `address` the option, `path` the tunnel's."""
    scheme = "wss" if tls else "ws"
    if sock.family == socket.AF_UNIX:
        return f"{name} is up, listening on {address} for {scheme}, path {path}"
    return f"{name} is up, listening on {scheme}://{authority(address or '*', sock.getsockname()[1])}{path}"


def read_again(application: Application, contexts: TlsContexts | None) -> None:
    """Read all files again."""
    application.reload()
    if contexts:
        contexts.reload()


def exposure(sock: Any, application: Application, verify_mode: int | None) -> str | None:
    """A warning, if a server that listens on `sock` lets anybody on other machines in, or does not encrypt.

    `verify_mode` is that of its TLS context, one of ssl.VerifyMode; None without TLS.
    """
    if sock.family == socket.AF_UNIX or ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback:
        return None
    tls = verify_mode is not None
    hint = "or listen on --address 127.0.0.1 behind a proxy that does; see docs/security.rst"
    if not (application.authenticator.asks_login or verify_mode == ssl.CERT_REQUIRED):
        more = "" if tls else ", and anyone on the path can read and change the traffic"
        option = "" if tls else "--certfile and --keyfile and "
        return (
            f"anyone who reaches this server may join the LAN{more}: give {option}"
            f"--htpasswd, --token-file or --client-ca, {hint}"
        )
    if not tls:
        return f"anyone on the path can read the passwords, tokens and traffic: give --certfile and --keyfile, {hint}"
    return None
