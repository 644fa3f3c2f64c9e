"""The WSGI application: one upgrade request becomes one client's tunnel, until its session ends.

Application.__call__ shows the order: check the request, authenticate the client, look up its policy, give it a port,
send the 101, run the session. The server must be able to give its socket away: http.py does that for gevent's. An
import opens, patches and parses nothing. Read next: handshake.py, authenticate.py, ports.py, review.py,
tunnel/session.py.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from etherws import addresses, features
from etherws.access import policy
from etherws.access.policy import Profile
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError, NoPort, Refused, printable
from etherws.kernel.loop_watch import LoopWatch
from etherws.log_limit import LogLimit
from etherws.reloadable import Reloadable
from etherws.server import authenticate, gunicorn_workers, handshake, negotiation, takeover
from etherws.server.authenticate import Admission
from etherws.server.http import PRESENCE, UPGRADE
from etherws.server.port import ClientKey, Port
from etherws.server.ports import Ports
from etherws.server.presence import UNKNOWN, Presence
from etherws.server.review import Review
from etherws.server.trusted_proxies import TrustedProxies
from etherws.settings import ServerSettings
from etherws.tunnel import congestion
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]


class Application:
    """A WSGI callable. It creates and removes the server's TAPs and sessions."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises SettingsError if a file of passwords, tokens or rules cannot be used."""
        self.settings = settings
        # The URL path of the tunnel. PATH_INFO has the decoded bytes, as latin-1 (PEP 3333).
        self._url_path = unquote_to_bytes(settings.path).decode("latin-1").rstrip("/")
        self._proxies = TrustedProxies(settings.trusted_proxy)
        self.authenticator = authenticate.Authenticator(settings)
        self._policy = Reloadable(
            lambda: policy.load(settings.policy) if settings.policy else policy.DEFAULT, [settings.policy]
        )
        self._review = Review(self.authenticator, self._policy)
        self._ports: Ports | None = None
        #: Another server that runs this.
        self._host: gunicorn_workers.Host | None = None
        self._starting = BoundedSemaphore(1)
        self._tunnels: dict[Event, Session | None] = {}
        self._stopping = False
        self._end: gevent.Greenlet[..., DeviceError | None] | None = None
        self._full = self._warned_of_server = False
        self._log = LogLimit(log)
        self._loops = LoopWatch(self._clients)

    def start(self) -> str:
        """Make the first TAP, unless that was done before; return its name. Raises DeviceError or SettingsError."""
        # This waits for the kernel. Without start(), the first two clients may come at once.
        with self._starting:
            if self._ports is None:
                congestion.check(self.settings.congestion)
                self._ports = Ports(self.settings, self.settings.resume_timeout)
                self._loops.start()
            return self._ports.name

    def reload(self) -> None:
        """Read the files of passwords, tokens and rules again. Within two seconds they also count for the clients that
        are connected: see review.py."""
        self.authenticator.reload()
        self._policy.reload()

    def log_counters(self) -> None:
        """Log a line for each session: how long it runs, what it has carried and dropped."""
        self._review.log_counters()

    def stop(self, timeout: float = 1.7) -> None:
        """Close every tunnel with 1001 and remove what start() made. It takes `timeout` seconds, or a little longer,
        and may be called again. Raises DeviceError."""
        # In a greenlet of its own: gunicorn raises SystemExit in this one when a signal comes, also now.
        if self._end is None:
            self._end = gevent.spawn(self._stop, timeout)
        if error := self._end.get():
            raise error

    def _stop(self, timeout: float) -> DeviceError | None:
        self._stopping = True
        self._review.stop()
        for session in filter(None, self._tunnels.values()):
            session.stop()
        gevent.wait(list(self._tunnels), timeout=timeout)
        self._loops.close()
        if self._ports is not None:
            try:
                self._ports.close()
            except DeviceError as exc:
                return exc
            self._ports = None
        return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run one client's tunnel. Any other request gets a 4xx or 503, and a line of text with the reason."""
        server = takeover.server_of(environ, start_response)
        try:
            with _turn(environ):
                if server.foreign:
                    self._take_from(server)
                self._proxies.follow(environ)
                headers = self._check(environ)
            admission = self.authenticator.authenticate(environ)
            profile = self._profile(environ, admission.identity)
            self._tunnel(environ, headers, admission, profile)
        except Refused as exc:
            return server.refuse(exc)
        return server.finish()

    def adopt(self) -> gunicorn_workers.Host:
        """This process is another server's: stop when it does. Raises SettingsError or ListenError."""
        if self._host is None:
            self._host = gunicorn_workers.Host(self.settings, self.stop)
        return self._host

    def _take_from(self, server: takeover.Server) -> None:
        """Prepare to take a connection from another server. Raises Refused if the settings need our own."""
        try:
            server.add_certificate(self.adopt().contexts)
        except EtherwsError as exc:
            raise self._cannot_serve(str(exc)) from exc

    def _cannot_serve(self, reason: str) -> Refused:
        """The refusal under a server that cannot carry tunnels. The reason is logged once: it stays the same."""
        log.log(logging.DEBUG if self._warned_of_server else logging.ERROR, "%s", reason)
        self._warned_of_server = True
        return Refused("501 Not Implemented", "this server cannot carry a tunnel; its log says why")

    def _check(self, environ: Environ) -> Headers:
        """The headers of the 101. Raises Refused unless this is a valid upgrade request for the tunnel's path, and this
        server can serve it."""
        if (environ.get("PATH_INFO") or "/").rstrip("/") != self._url_path:
            raise Refused("404 Not Found", "there is no tunnel at this path")
        headers = handshake.accept(environ)
        if UPGRADE not in environ:
            raise self._cannot_serve(gunicorn_workers.unfit(environ))
        if self._stopping:
            raise _stops()
        return headers

    def _profile(self, environ: Environ, identity: str | None) -> Profile:
        """What the policy allows this client. Raises Refused if it may not connect."""
        profile = self._policy.get().profile(identity)
        if not profile.connect:
            self._log.log(
                logging.WARNING,
                "refused by the policy",
                "%s was refused: the policy does not let %s connect",
                authenticate.address(environ),
                _who(identity),
            )
            raise Refused("403 Forbidden", "the policy does not let this client connect")
        return profile

    def _tunnel(self, environ: Environ, headers: Headers, admission: Admission, profile: Profile) -> None:
        key = ClientKey(admission.identity, _resume(environ), authenticate.address(environ))
        session: Session | None = None

        def evict() -> None:
            if session:
                session.evict()

        client = _name(key)
        port = self._take(environ, key, profile, evict)
        reason: EtherwsError | None = None
        over = Event()
        self._tunnels[over] = None
        assert self._ports is not None
        guest = self._review.add(self._ports, port, admission)
        try:
            connection = self._upgrade(environ, headers, key, port)
            if profile.rate_up:
                connection.limit_rate(port.pacer(profile.rate_up))
            session = Session(port.tap, connection, self.settings, port.sink())
            self._tunnels[over] = guest.session = session
            port.on_failure(session.end)
            name = port.tap.present_name
            log.info("%s joined on %s, by version %d of the wire", client, name(), connection.wire.number)
            reason = session.run()
            text = f"{reason}{session.counters(port.filter.drops())}"
            log.info("%s left %s after %.0f s: %s", client, name(), session.age, text)
        finally:
            # The port may be kept, but not the buffers of its last session.
            guest.session = None
            # Before close(), so that a client that waits for this port need not wait for the closing handshake.
            # That is low-priority work: the peer need not wait for it either.
            gevent.spawn(self._leave, port, reason)
            try:
                if session:
                    session.close(reason)
            finally:
                del self._tunnels[over]
                over.set()

    def _take(self, environ: Environ, key: ClientKey, profile: Profile, evict: Callable[[], None]) -> Port:
        # The client may have waited since _check().
        if self._stopping:
            raise _stops()
        try:
            self.start()
            assert self._ports is not None
            port = self._ports.take(key, profile, evict, environ.get(PRESENCE, UNKNOWN))
        except (DeviceError, NoPort) as exc:
            # Clients retry for ever. Log it once, until a client gets a port again.
            log.log(logging.DEBUG if self._full else logging.WARNING, "%s was refused: %s", _name(key), exc)
            self._full = True
            raise Refused(
                "503 Service Unavailable", "no port is free for one more client", [("Retry-After", "10")]
            ) from exc
        self._full = False
        return port

    def _upgrade(self, environ: Environ, headers: Headers, key: ClientKey, port: Port) -> Connection:
        """Send the 101, and take the connection from the HTTP server."""
        mtu = port.tap.mtu()
        bearer = authenticate.bearer(handshake.subprotocols(environ))
        newest = 1 if takeover.EARLY_101 in environ else self.settings.wire
        agreed = negotiation.negotiate(environ, newest, bearer, mtu)
        client = _name(key)
        self._note(agreed, client, port.tap.name, mtu)
        stream, early = environ[UPGRADE](headers + agreed.headers)
        source = f"identity {key.identity}" if key.identity else key.source
        return Connection(
            stream,
            server=True,
            wire=agreed.version,
            congestion=self.settings.congestion,
            early=early,
            source=source,
            name=client,
            mtu=port.tap.mtu,
        )

    def _note(self, agreed: negotiation.Agreement, client: str, name: str, mtu: int | None) -> None:
        """Log what may slow the client down, or lose its frames. It may come again and again."""
        if agreed.doubt:
            self._log.log(
                logging.WARNING, "no version 2", "%s gets version 1: it offers version 2, %s", client, agreed.doubt
            )
        if agreed.mtu and mtu and agreed.mtu != mtu:
            self._log.log(logging.WARNING, "MTU", "%s", features.mtu_warning(name, mtu, client, agreed.mtu))

    def _clients(self) -> dict[int, str]:
        """Who has each port, or had it last, by the number of its interface."""
        return {port.tap.index: _name(port.client) for port in self._ports or ()}

    def _leave(self, port: Port, reason: EtherwsError | None) -> None:
        """The session has ended. The port is kept for its client, unless one side closed the WebSocket on purpose."""
        if self._ports is None:
            return
        try:
            if isinstance(reason, ConnectionClosed) and reason.code:
                self._ports.free(port)
            else:
                self._ports.park(port)
        except DeviceError as exc:
            log.error("%s", exc)


def _stops() -> Refused:
    return Refused("503 Service Unavailable", "this server is stopping")


def _turn(environ: Environ) -> AbstractContextManager[None]:
    """A turn of the client's, or of its proxy's: see Presence.turn()."""
    source = addresses.source_key(environ.get("REMOTE_ADDR") or "")
    presence: Presence = environ.get(PRESENCE, UNKNOWN)
    return presence.turn(source)


def _name(key: ClientKey) -> str:
    """The client, as the log shows it."""
    return key.address + (f" as {_who(key.identity)}" if key.identity else "")


def _who(identity: str | None) -> str:
    return repr(printable(identity)) if identity else "clients without a name"


def _resume(environ: Environ) -> str | None:
    """The token by which the server knows this client when it connects again; None if it sent none, or not a valid
    one."""
    token = environ.get("HTTP_ETHERWS_RESUME", "")
    return token if re.fullmatch(r"[A-Za-z0-9_-]{22,64}", token) else None
