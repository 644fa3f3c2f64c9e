"""The WSGI application: a request's way from its arrival to a tunnel, or to a refusal.

Application.__call__ shows the order: check the request, authenticate the client, look up its policy, run its tunnel.
The server must be able to give its socket away: http.py does that for gevent's. An import opens, patches and parses
nothing. Read next: handshake.py, authenticate.py, tunnels.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from urllib.parse import unquote_to_bytes

import gevent

from etherws import addresses
from etherws.access import policy
from etherws.access.policy import Profile
from etherws.counters import Totals
from etherws.errors import DeviceError, EtherwsError, Refused, printable
from etherws.kernel.store import Store
from etherws.reloadable import Reloadable
from etherws.server import authenticate, gunicorn_workers, handshake, takeover
from etherws.server.http import PRESENCE, UPGRADE
from etherws.server.login_queue import Limiter
from etherws.server.ports_api import PortApi, PortsApi
from etherws.server.presence import UNKNOWN, Presence
from etherws.server.review import Review
from etherws.server.takeover import Environ, Headers, StartResponse
from etherws.server.trusted_proxies import TrustedProxies
from etherws.server.tunnels import Tunnels
from etherws.settings import ServerSettings
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)

#: Seconds that tunnels have to close if another process goes on at once: longer than most paths need for the client's
#: answer. One client that does not answer would keep the others waiting for that process. Without the answer it finds
#: the connection lost, and its port as well.
HAND_OVER_TIMEOUT = 0.5


class Application:
    """A WSGI callable, for one server."""

    def __init__(
        self,
        settings: ServerSettings,
        store: Store | None = None,
        *,
        make_ports: Callable[[], PortsApi] | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        """`store` has what the last process left, and keeps what the next one needs; by default there is neither. In a
        worker, `make_ports` gives the ports and `limiter` counts the failed logins of all; by default this process has
        its own. Raises SettingsError if a file of passwords, tokens or rules cannot be used."""
        self.settings = settings
        self.store = store or Store()
        # The URL path of the tunnel. PATH_INFO has the decoded bytes, as latin-1 (PEP 3333).
        self._url_path = unquote_to_bytes(settings.path).decode("latin-1").rstrip("/")
        self._proxies = TrustedProxies(settings.trusted_proxy)
        self.authenticator = authenticate.Authenticator(settings, limiter)
        usual = Profile(vlan=settings.vlan)
        self._policy = Reloadable(
            lambda: policy.load(settings.policy, usual) if settings.policy else policy.Policy(usual, {}),
            [settings.policy],
        )
        self._review = Review(self.authenticator, self._policy)
        self._tunnels = Tunnels(settings, self._review, self.store, make_ports)
        #: Another server that runs this.
        self._host: gunicorn_workers.Host | None = None
        self._end: gevent.Greenlet[..., DeviceError | None] | None = None
        self._warned_of_server = False

    def start(self) -> str:
        """Make the first TAP, unless that was done before; return its name. Raises DeviceError or SettingsError."""
        return self._tunnels.start()

    @property
    def ports(self) -> PortsApi:
        """What start() has made."""
        return self._tunnels.ports

    @property
    def totals(self) -> Totals:
        """What all sessions of this process have counted, as of their last sample."""
        return self._tunnels.totals

    def session_on(self, port: PortApi) -> Session | None:
        """The session on a port; None if there is none in this process."""
        return self._review.session_on(port)

    @property
    def tunnels(self) -> int:
        """How many clients have a port."""
        return self._tunnels.count

    def reload(self) -> None:
        """Read the files of passwords, tokens and rules again. Within two seconds they also count for the clients that
        are connected: see review.py."""
        self.authenticator.reload()
        self._policy.reload()

    def log_counters(self) -> None:
        """Log a line for each session: how long it runs, what it has carried and dropped."""
        self._review.log_counters()

    def keep(self) -> None:
        """Have the store keep all ports as they are now, for a process that only looks at them. Sessions go on."""
        self._tunnels.keep()

    def stop(self, timeout: float = 1.7, *, handing_over: bool = False) -> None:
        """Close every tunnel with 1001 and remove what start() made. It takes `timeout` seconds, or a little longer,
        and may be called again. Raises DeviceError.

        If the store outlives this image of the process, or with `handing_over`, another one comes at once: tunnels are
        closed with 1012 (service restart), within HAND_OVER_TIMEOUT, and all that start() made stays. It is in the
        store."""
        # In a greenlet of its own: gunicorn raises SystemExit in this one when a signal comes, also now.
        if self._end is None:
            if handing_over := handing_over or self.store.outlives:
                timeout = min(timeout, HAND_OVER_TIMEOUT)
            self._end = gevent.spawn(self._tunnels.stop, timeout, handing_over=handing_over)
        if error := self._end.get():
            raise error

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run one client's tunnel. Any other request gets a 4xx or 503, and a line of text with the reason."""
        server = takeover.server_of(environ, start_response)
        identity: str | None = None
        try:
            with _turn(environ):
                if server.foreign:
                    self._take_from(server)
                self._proxies.follow(environ)
                headers = self._check(environ)
            admission = self.authenticator.authenticate(environ)
            identity = admission.identity
            self._tunnels.run(environ, headers, admission, self._profile(identity))
        except Refused as exc:
            return server.refuse(exc, identity)
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
        return Refused(
            "501 Not Implemented", "this server cannot carry a tunnel; its log says why", kind="wrong server"
        )

    def _check(self, environ: Environ) -> Headers:
        """The headers of the 101. Raises Refused unless this is a valid upgrade request for the tunnel's path, and this
        server can serve it."""
        if (environ.get("PATH_INFO") or "/").rstrip("/") != self._url_path:
            raise Refused("404 Not Found", "there is no tunnel at this path", kind="wrong path")
        headers = handshake.accept(environ)
        if UPGRADE not in environ:
            raise self._cannot_serve(gunicorn_workers.unfit(environ))
        self._tunnels.check()
        return headers

    def _profile(self, identity: str | None) -> Profile:
        """What the policy allows this client. Raises Refused if it may not connect."""
        profile = self._policy.get().profile(identity)
        if not profile.connect:
            who = repr(printable(identity)) if identity else "clients without a name"
            raise Refused(
                "403 Forbidden",
                "the policy does not let this client connect",
                kind="policy",
                warning=f"was refused: the policy does not let {who} connect",
            )
        return profile


def _turn(environ: Environ) -> AbstractContextManager[None]:
    """A turn of the client's, or of its proxy's: see Presence.turn()."""
    source = addresses.source_key(environ.get("REMOTE_ADDR") or "")
    presence: Presence = environ.get(PRESENCE, UNKNOWN)
    return presence.turn(source)
