"""``etherws server``: listen, serve until told to stop, then close the tunnels and remove the TAPs.

Server is gevent's WSGIServer behind our front door. The application is in application.py, sockets to listen on are in
listen.py. Read next: front_door.py, which each new connection passes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket

from etherws import garbage
from etherws.access import certificates
from etherws.addresses import authority
from etherws.errors import NoSuchAddress, printable, some_of
from etherws.events import START, STOP, event
from etherws.file_names import absolute
from etherws.kernel import service_manager
from etherws.kernel.store import Store
from etherws.reloadable import Reloadable
from etherws.server.accepting import Accepting, allow_descriptors
from etherws.server.application import Application
from etherws.server.front_door import Address, FrontDoor, TlsContexts
from etherws.server.http import Handler, speak_http
from etherws.server.kept_listener import KeptListener
from etherws.server.listen import name_of
from etherws.server.observed import About, ObservedServer
from etherws.server.own_sessions import OwnSessions
from etherws.server.passed_sockets import UnitListener
from etherws.server.ports import Ports
from etherws.server.scarcity import descriptors_warning
from etherws.server.takeover import Environ, StartResponse
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

#: Seconds between two attempts to listen on an address that cannot be found yet.
LISTEN_INTERVAL = 1.0

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
        self.front_door.admit(sock, address, partial(speak_http, self), later=True)

    def do_close(self, sock: GeventSocket, *_: Any) -> None:
        """Called by gevent after handle(). admit() has closed it, or a tunnel has it now."""


@dataclass(frozen=True)
class Endpoint:
    """Where to listen, unless a socket unit says it: as listen(). `chosen` is whether the user gave an address or a
    port. With `patient`, an address that cannot be found yet is waited for."""

    address: str | None
    port: int
    chosen: bool = True
    patient: bool = False


@dataclass(frozen=True)
class Hooks:
    """What serve() calls: `opened` once, before the first client, when all is open that may need root; `ready` once,
    with a text that names the TAP and where the server listens, with 0, and with what its record in the log is about;
    `reload` at SIGHUP, with what reads all files again; `observed` once, before `opened`, with what the server shows of
    itself: the block is left when the server ends. `certificate` is the file of its certificate, None without TLS: when
    that expires is shown, too."""

    ready: Callable[[str, int, Mapping[str, object]], None]
    opened: Callable[[], object]
    reload: Callable[[Callable[[], object]], object]
    observed: Callable[[ObservedServer], AbstractContextManager[object]] = contextlib.nullcontext
    certificate: str | None = None


class Service(Protocol):
    """What serves the clients of a listening socket: OneProcess, or Parent of workers/parent.py."""

    def open(self) -> str:
        """Make the first TAP, or take those that the last process has left; return its name. Raises DeviceError,
        SettingsError."""

    def start(self) -> str:
        """Serve from now on; return what is to be said of it in addition. Raises WorkerError."""

    def reload(self) -> None:
        """Read all files again."""

    def log_counters(self) -> None:
        """Log a line for each session."""

    def observed(self, about: About) -> ObservedServer:
        """What the service shows of itself, after open()."""

    def stop(self) -> None:
        """End what open() and start() have begun, as far as they came, and close the socket. Raises DeviceError."""


def tls_contexts(certfile: str, keyfile: str, client_ca: str | None) -> TlsContexts:
    """A server's TLS context. It is made again when one of its files changes. Raises ListenError with the file's
    name; SettingsError if a name cannot be used."""
    certfile, keyfile = absolute("--certfile", certfile), absolute("--keyfile", keyfile)
    client_ca = client_ca and absolute("--client-ca", client_ca)
    return Reloadable(lambda: certificates.server_context(certfile, keyfile, client_ca), [certfile, keyfile, client_ca])


def serve(
    application: Application,
    endpoint: Endpoint,
    make: Callable[[GeventSocket], Service],
    hooks: Hooks,
    stop: Event,
    verify_mode: int | None = None,
) -> None:
    """Serve until `stop` is set, by the service that `make` makes for the listening socket. SIGHUP makes it read its
    files again, SIGUSR1 log counters. `verify_mode` is as for exposure().

    If the application's store outlives this image of the process, clients are told at the end to come back, and TAPs,
    rules, bridges and the listening socket stay; the store has them.

    Raises ListenError, DeviceError or WorkerError; then nothing of what it made remains.
    """
    allow_descriptors()
    if (application.settings.bridge or application.settings.policy) and (short := descriptors_warning()):
        log.warning("%s", short)
    listener = listener_of(application.store, endpoint, stop)
    if listener is None:
        return
    sock = listener.socket
    service = make(sock)
    address = None if isinstance(listener, UnitListener) else endpoint.address
    uri = listening(sock, address, application.settings.path, tls=verify_mode is not None)
    watchers = contextlib.ExitStack()
    try:
        name = service.open()
        about = About(
            service_manager.instance("server") or name,
            uri,
            lambda: hooks.reload(service.reload),
            stop.set,
            hooks.certificate,
        )
        watchers.enter_context(hooks.observed(service.observed(about)))
        hooks.opened()
        close_rest(application.store)
        garbage.settle()
        more = service.start()
        gevent.signal_handler(signal.SIGHUP, hooks.reload, service.reload)
        gevent.signal_handler(signal.SIGUSR1, service.log_counters)
        if warning := exposure(sock, application, verify_mode):
            log.warning("%s", warning)
        hooks.ready(f"{name} is up, listening on {uri}{more}", 0, event(START, device=name, listen=uri))
        stop.wait()
        log.info("the server stops: its tunnels end now", extra=event(STOP))
    finally:
        # Who watches sees nothing of the end: the interfaces go one after another.
        watchers.close()
        listener.close()
        service.stop()


class OneProcess:
    """The service of this process alone."""

    def __init__(self, sock: GeventSocket, application: Application, contexts: TlsContexts | None) -> None:
        self._application, self._contexts = application, contexts
        self._server = Server(sock, application, contexts)

    def open(self) -> str:
        """As Service.open()."""
        return self._application.start()

    def start(self) -> str:
        """As Service.start()."""
        self._server.start()
        return ""

    def reload(self) -> None:
        """As Service.reload()."""
        read_again(self._application, self._contexts)

    def log_counters(self) -> None:
        """As Service.log_counters()."""
        self._application.log_counters()

    def observed(self, about: About) -> ObservedServer:
        """As Service.observed()."""
        ports = self._application.ports
        assert isinstance(ports, Ports)
        return ObservedServer(ports, OwnSessions(self._application), about)

    def stop(self) -> None:
        """As Service.stop()."""
        self._server.close()
        self._application.stop()
        self._server.stop(timeout=STOP_TIMEOUT)


def listener_of(store: Store, endpoint: Endpoint, stop: Event) -> KeptListener | UnitListener | None:
    """What to listen with: see UnitListener, and else KeptListener; None if `stop` is set before there is one. Raises
    ListenError."""
    address, port = endpoint.address, endpoint.port
    if found := UnitListener.found(store, address, port, chosen=endpoint.chosen):
        return found
    told = False
    while True:
        try:
            return KeptListener(store, address, port)
        except NoSuchAddress as exc:
            if not endpoint.patient:
                raise
            if not told:
                log.warning("%s. Until then it is tried again each %g s", exc, LISTEN_INTERVAL)
            told = True
        if stop.wait(LISTEN_INTERVAL):
            return None


def close_rest(store: Store) -> None:
    """The start is over: close what the process before has left and nobody took."""
    if rest := store.drop_rest():
        log.warning("the process before has left what is not needed here: %s", printable(some_of(rest, NAMED)))


def listening(sock: Any, address: str | None, path: str, *, tls: bool) -> str:
    """Where a server listens: `address` is the option, None for the socket's own; `path` is the tunnel's."""
    scheme = "wss" if tls else "ws"
    if sock.family == socket.AF_UNIX:
        return f"{name_of(sock)} for {scheme}, path {path}"
    host, port = sock.getsockname()[:2]
    where = authority("*" if host in ("::", "0.0.0.0") else address or host, port)
    return f"{scheme}://{where}{path}"


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
