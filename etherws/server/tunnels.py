"""The tunnels of one server: each from the moment its client was let in, to the end of its session.

Tunnels.run() shows the order: take a port, send the 101, carry frames, give the port back. Who is let in, and by which
profile, was decided before: application.py. Read next: ports.py, negotiation.py, review.py, tunnel/session.py.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from etherws import features
from etherws.access.policy import Profile
from etherws.close_codes import CloseCode
from etherws.counters import Totals
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError, NoPort, Refused
from etherws.features import Membership
from etherws.kernel.store import Store
from etherws.log_limit import LogLimit
from etherws.server import authenticate, comings, forwarded, handshake, negotiation, responder, takeover
from etherws.server.authenticate import Admission
from etherws.server.http import LATER, PRESENCE, UPGRADE
from etherws.server.port import ClientKey
from etherws.server.ports import Ports
from etherws.server.ports_api import PortApi, PortsApi
from etherws.server.presence import UNKNOWN
from etherws.server.review import Guest, Review
from etherws.server.scarcity import Scarcity
from etherws.server.takeover import Environ, Headers
from etherws.settings import ServerSettings
from etherws.tunnel import congestion, tap_probe
from etherws.tunnel.connection import Connection
from etherws.tunnel.padding import ONE_CLIENT, Grants
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)


class Tunnels:
    """Creates and removes the server's TAPs and sessions."""

    def __init__(
        self,
        settings: ServerSettings,
        review: Review,
        store: Store,
        make_ports: Callable[[], PortsApi] | None = None,
    ) -> None:
        """`review` is told of each client that gets a port, and stopped with the tunnels. `make_ports` makes the ports
        when they are needed; by default they are this process's own, and in `store`."""
        self._settings, self._review = settings, review
        self._make_ports = make_ports or (lambda: Ports(settings, settings.resume_timeout, store))
        self._ports: PortsApi | None = None
        self._starting = BoundedSemaphore(1)
        #: Set when a tunnel is over: its session, None before it runs.
        self._sessions: dict[Event, Session | None] = {}
        self._responder = responder.Responder(settings)
        self._stopping = self._handing_over = False
        #: What all sessions have counted so far.
        self.totals = Totals()
        self._scarcity = Scarcity()
        self._padding = Grants(ONE_CLIENT)
        self._log = LogLimit(log)

    def start(self) -> str:
        """Make the first TAP, unless that was done before; return its name. Raises DeviceError or SettingsError."""
        # This waits for the kernel. Without start(), the first two clients may come at once.
        with self._starting:
            if self._ports is None:
                congestion.check(self._settings.congestion)
                self._ports = self._make_ports()
            return self._ports.name

    @property
    def ports(self) -> PortsApi:
        """What start() has made."""
        assert self._ports is not None
        return self._ports

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def keep(self) -> None:
        """Have the store keep the ports as they are now, for a process that only looks at them."""
        if self._ports is not None:
            self._ports.keep()

    def stop(self, timeout: float, *, handing_over: bool = False) -> DeviceError | None:
        """Close every tunnel with 1001, within `timeout` seconds, and remove what start() made. Return what could not
        be removed. With `handing_over` tunnels are closed with 1012, and what start() made stays, in the store."""
        self._stopping, self._handing_over = True, handing_over
        self._review.stop()
        for session in filter(None, self._sessions.values()):
            self._have_stop(session)
        gevent.wait([*self._sessions, *self._responder.stop()], timeout=timeout)
        if self._ports is not None and handing_over:
            # Something must still have them: else their descriptors would be closed before the other process comes.
            self._ports.hand_over()
        elif self._ports is not None:
            try:
                self._ports.close()
            except DeviceError as exc:
                return exc
            self._ports = None
        return None

    def _have_stop(self, session: Session) -> None:
        session.restart() if self._handing_over else session.stop()

    def check(self) -> None:
        """Raises Refused when the server stops."""
        if self._stopping:
            raise Refused("503 Service Unavailable", "this server is stopping", kind="stopping")

    def run(self, environ: Environ, headers: Headers, admission: Admission, profile: Profile) -> None:
        """Run one client's tunnel, or its check, or have it run later (http.py). `headers` are those of the 101. Raises
        Refused if there is no port for the client; then no 101 was sent."""
        proxy = environ.get(forwarded.PROXY, "")
        key = ClientKey(admission.identity, _resume(environ), authenticate.address(environ), proxy)
        if kind := responder.wanted(environ):
            self.check()
            self.start()
            self._responder.run(environ, headers, key, profile, self.ports, kind)
            return
        session: Session | None = None

        def evict() -> None:
            if session:
                session.evict()

        newest = 1 if takeover.EARLY_101 in environ else self._settings.wire
        # Who cannot be recognised cannot come again by another connection.
        membership = negotiation.link_wanted(environ, newest) if key.resume else None
        port = self._take(environ, key, profile, evict, membership)
        over = Event()
        self._sessions[over] = None
        assert self._ports is not None
        guest = self._review.add(self._ports, port, admission)
        carry: Callable[[], None] | None = None
        try:
            with self._scarcity.survived(key.label):
                connection = self._upgrade(environ, headers, key, port, newest, profile)
                if profile.rate_up:
                    connection.limit_rate(port.pacer(profile.rate_up))
                session = Session(port.tap, connection, self._settings, port.sink(), self.totals)
                self._sessions[over] = guest.session = session
                if self._stopping:
                    # It has waited for its port, and stop() has not seen it.
                    self._have_stop(session)
                port.on_failure(session.end)
                port.began(session.retire)
                if not port.joining:
                    comings.joined(key, port.tap.present_name(), connection.wire.number, port.membership)
                carry = partial(self._carry, key, port, guest, over, session)
        finally:
            if carry is None:
                self._end(port, guest, over, None)
        if carry:
            # The request, and what its server knows of it, takes as much memory as all the rest of an idle tunnel.
            environ.get(LATER, _now)(carry)

    def _carry(self, key: ClientKey, port: PortApi, guest: Guest, over: Event, session: Session) -> None:
        """Run the session of a client that has joined."""
        reason: EtherwsError | None = None
        try:
            with self._scarcity.survived(key.label):
                reason = session.run(linked=port.membership is not None, joining=port.joining, prepared=True)
                port.left(session, reason)
        finally:
            self._end(port, guest, over, reason)

    def _end(self, port: PortApi, guest: Guest, over: Event, reason: EtherwsError | None) -> None:
        """The tunnel of the port is over."""
        session = self._sessions[over]
        # The port may be kept, but not the buffers of its last session.
        guest.session = None
        # Before close(), so that a client that waits for this port need not wait for the closing handshake.
        # That is low-priority work: the peer need not wait for it either.
        gevent.spawn(self._leave, port, reason)
        try:
            if session:
                session.close(reason)
        finally:
            del self._sessions[over]
            over.set()

    def _take(
        self,
        environ: Environ,
        key: ClientKey,
        profile: Profile,
        evict: Callable[[], None],
        membership: Membership | None,
    ) -> PortApi:
        """The client's port. `evict` has its session end. Raises Refused."""
        # The client may have waited since the application asked.
        self.check()
        try:
            self.start()
            assert self._ports is not None
            self._scarcity.require_memory()
            port = self._ports.take(key, profile, evict, environ.get(PRESENCE, UNKNOWN), membership)
        except (DeviceError, NoPort, MemoryError) as exc:
            raise self._scarcity.refusal(exc) from exc
        self._scarcity.enough()
        return port

    def _upgrade(
        self, environ: Environ, headers: Headers, key: ClientKey, port: PortApi, newest: int, profile: Profile
    ) -> Connection:
        """Send the 101, and take the connection from the HTTP server. `newest` is the highest version allowed."""
        source = f"identity {key.identity}" if key.identity else key.source
        limited = profile.rate_up is not None or profile.rate_down is not None
        padding = self._settings.padding and not limited
        mtu = port.tap.mtu()
        bearer = authenticate.bearer(handshake.subprotocols(environ))
        grant, uso = partial(self._padding.take, source) if padding else bool, tap_probe.takes_uso()
        agreed = negotiation.negotiate(environ, newest, bearer, mtu, link=port.membership, uso=uso, padding=grant)
        self._note(agreed, key.label, port.tap.name, mtu)
        # Before the 101: whoever knows that the client is there may send to it at once.
        port.tap.begin(offload=agreed.version.offload, joining=port.joining)
        try:
            stream, early = environ[UPGRADE](headers + agreed.headers)
        except BaseException:
            if port.membership is None:
                port.tap.start_carrier_timeout(self._settings.carrier_timeout)
            raise
        return Connection(
            stream,
            server=True,
            wire=agreed.version,
            congestion=self._settings.congestion,
            early=early,
            source=source,
            name=key.label,
            mtu=port.tap.mtu,
            peer_mtu=agreed.mtu,
            agreed=agreed.features,
        )

    def _note(self, agreed: negotiation.Agreement, client: str, name: str, mtu: int | None) -> None:
        """Log what may slow the client down, or lose its frames. It may come again and again."""
        if agreed.doubt:
            self._log.log(
                logging.WARNING, "no version 2", "%s gets version 1: it offers version 2, %s", client, agreed.doubt
            )
        if agreed.mtu and mtu and agreed.mtu != mtu:
            self._log.log(logging.WARNING, "MTU", "%s", features.mtu_warning(name, mtu, client, agreed.mtu))

    def _leave(self, port: PortApi, reason: EtherwsError | None) -> None:
        """The session has ended. The port is kept for its client, unless one side closed the WebSocket on purpose, and
        not to come back at once."""
        if self._ports is None or self._handing_over:
            return
        try:
            if isinstance(reason, ConnectionClosed) and reason.code not in (None, CloseCode.SERVICE_RESTART):
                self._ports.free(port)
            else:
                self._ports.park(port)
        except DeviceError as exc:
            log.error("%s", exc)


def _now(carry: Callable[[], None]) -> None:
    """Another HTTP server would close the connection when its application returns."""
    carry()


def _resume(environ: Environ) -> str | None:
    """The token by which the server knows this client when it connects again; None if it sent none, or not a valid
    one."""
    token = environ.get("HTTP_ETHERWS_RESUME", "")
    return token if re.fullmatch(r"[A-Za-z0-9_-]{22,64}", token) else None
