"""The WSGI application: one upgrade request is one client's tunnel, from the request to the end of the session.

`application` is for gunicorn, with its settings from the environment (ETHERWS_SERVER_DEVICE, _BRIDGE, _MTU, _PATH);
Application(ServerSettings(...)) is for embedding. The server must be able to hand its socket over, which handler.py
teaches to gevent's. Importing this opens, patches and parses nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.event import Event

from etherws import congestion, handshake, wire
from etherws.errors import DeviceError, NoPort, Refused
from etherws.handler import UPGRADE
from etherws.link import Link
from etherws.ports import Ports
from etherws.session import Session
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]


class Application:
    """A WSGI callable, and the owner of the server's TAPs and sessions."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        # A WSGI path is decoded, and its bytes are shown as latin-1 (PEP 3333).
        self._path = unquote_to_bytes(settings.path).decode("latin-1").rstrip("/")
        self._ports: Ports | None = None
        self._tunnels: dict[Event, Session | None] = {}
        self._stopping = False
        self._full = False

    def start(self) -> str:
        """Make the standing TAP, if that has not happened yet; return its name. Raises DeviceError or SettingsError."""
        if self._ports is None:
            congestion.check(self.settings.congestion)
            self._ports = Ports(self.settings)
        return self._ports.name

    def stop(self, timeout: float = 1.7) -> None:
        """Close every tunnel with 1001 and remove what start() made, in `timeout` seconds or little more."""
        self._stopping = True
        for session in self._tunnels.values():
            if session:
                session.stop()
        gevent.wait(list(self._tunnels), timeout=timeout)
        if self._ports is not None:
            self._ports.close()
            self._ports = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run one client's tunnel; any other request gets a 4xx or 503 with a line of text that says why."""
        try:
            return self._tunnel(environ, self._admit(environ))
        except Refused as exc:
            body = f"{exc}\n".encode()
            log.debug("%s was refused: %s: %s", _client(environ), exc.status, exc)
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            start_response(exc.status, [*headers, *exc.headers])
            return [body]

    def _admit(self, environ: Environ) -> Headers:
        """The headers of the 101. Raises Refused unless this is a proper request for our path, and can be served."""
        if (environ.get("PATH_INFO") or "/").rstrip("/") != self._path:
            raise Refused("404 Not Found", "there is no tunnel at this path")
        headers = handshake.accept(environ)
        if UPGRADE not in environ:
            log.error("this server cannot hand its socket over; run gunicorn with -k etherws.worker.Worker")
            raise Refused("501 Not Implemented", "this server cannot carry a tunnel; its log says why")
        if self._stopping:
            raise Refused("503 Service Unavailable", "this server is stopping")
        return headers

    def _tunnel(self, environ: Environ, headers: Headers) -> Iterable[bytes]:
        client = _client(environ)
        try:
            self.start()
            assert self._ports is not None
            tap = self._ports.take()
        except (DeviceError, NoPort) as exc:
            # A client tries again and again: say it once, until one gets through.
            log.log(logging.DEBUG if self._full else logging.WARNING, "%s was refused: %s", client, exc)
            self._full = True
            raise Refused("503 Service Unavailable", "no port is free for one more client") from exc
        self._full = False
        over = Event()
        self._tunnels[over] = None
        try:
            version = wire.best(handshake.subprotocols(environ), self.settings.wire)
            # Browsers end a connection that names a subprotocol which they did not offer.
            chosen = [("Sec-WebSocket-Protocol", version.name)] if version.name else []
            sock, early = environ[UPGRADE](headers + chosen)
            link = Link(sock, server=True, wire=version, congestion=self.settings.congestion, early=early)
            self._tunnels[over] = session = Session(tap, link, self.settings)
            begin = monotonic()
            log.info("%s joined on %s, by version %d of the wire", client, tap.name, version.number)
            reason = session.run()
            log.info("%s left %s after %.0f s: %s%s", client, tap.name, monotonic() - begin, reason, session.summary())
        finally:
            try:
                if self._ports is not None:
                    self._ports.give_back(tap)
            except DeviceError as exc:
                log.error("%s", exc)
            del self._tunnels[over]
            over.set()
        return []


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The application with its settings from the environment, made at the first call or by start()."""
    return from_environ()(environ, start_response)


@cache
def from_environ() -> Application:
    """The one Application of this process that is configured by the environment. Raises SettingsError."""
    return Application(ServerSettings.from_environ(os.environ))


def _client(environ: Environ) -> str:
    # A dual-stack socket shows IPv4 addresses mapped (RFC 4291, section 2.5.5.2).
    return str(environ.get("REMOTE_ADDR") or "a local client").removeprefix("::ffff:")
