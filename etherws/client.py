"""``etherws client``: reach the server, carry frames, and reach it again, for ever.

The opening handshake is the websockets library's (its sans-I/O protocol); once the 101 is there, the socket belongs to
link.py, as on the server.
"""

from __future__ import annotations

import logging
import random
import re
import signal
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from etherws import __version__, congestion, doorbell, wire
from etherws.errors import ConnectError, EtherwsError, SettingsError, printable
from etherws.link import Link
from etherws.ports import Ports
from etherws.session import Session
from etherws.settings import DeviceSettings, Retry
from etherws.tls import TlsSocket

log = logging.getLogger(__name__)

#: Bytes of a server's answer to the upgrade request, headers included.
RESPONSE_MAX = 16 * 1024

#: A session of this many seconds was a success: the next attempt starts with the shortest wait again.
STEADY = 10.0

#: Seconds that a session has to say good-bye, of the 2 s in which SIGTERM ends the process.
STOP_TIMEOUT = 1.7

_MENDS = {
    401: "it asks for a user and password",
    403: "it does not let this client in",
    404: "is the path right?",
    426: "does a proxy between drop the Upgrade header?",
    500: "the server's log says why",
    503: "it has no port free, or is stopping; the server's log says why",
}


_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |$|\r)")


def parse(uri: str) -> WebSocketURI:
    """The parts of a ws:// or wss:// URI. Raises SettingsError."""
    try:
        found = parse_uri(uri)
    except (InvalidURI, ValueError) as exc:
        why = exc.msg if isinstance(exc, InvalidURI) else str(exc)
        # Whatever stands before an @ may be a password.
        shown = uri.rpartition("@")[2]
        raise SettingsError(f"--uri {shown!r}: {why}; write ws://HOST/ or wss://HOST/") from None
    if found.user_info:
        raise SettingsError("--uri: user and password in a URI are not supported yet")
    return found


def tls_context(cacert: str | None, insecure: bool) -> ssl.SSLContext:
    """A client's TLS context: verifies against `cacert` (a PEM file), else against the system's store.

    Raises SettingsError when the file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if cacert:
            context.load_verify_locations(cacert)
        else:
            context.load_default_certs()
    except OSError as exc:
        why = "no certificate in PEM form in it" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise SettingsError(f"cannot use --cacert {cacert}: {why}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect(uri: WebSocketURI, context: ssl.SSLContext | None, timeout: float, settings: DeviceSettings) -> Link:
    """One attempt, in `timeout` seconds from the look-up of the name to the 101. Raises ConnectError."""
    deadline = gevent.Timeout.start_new(timeout)
    sock: Any = None
    try:
        sock = socket.create_connection((uri.host, uri.port))
        if context:
            sock = TlsSocket(sock, context, server_hostname=uri.host)
            sock.do_handshake()
        link, sock = _upgrade(sock, uri, settings), None
        return link
    except gevent.Timeout as exc:
        if exc is not deadline:
            raise
        raise ConnectError(f"no answer within {timeout:g} s") from None
    except ssl.SSLCertVerificationError as exc:
        raise ConnectError(f"its certificate does not verify: {exc.verify_message}; see --cacert") from exc
    except ssl.SSLError as exc:
        raise ConnectError(f"TLS failed ({exc.reason or exc}); does it speak wss:// there?") from exc
    except (OSError, UnicodeError) as exc:
        raise ConnectError(getattr(exc, "strerror", None) or str(exc)) from exc
    finally:
        deadline.close()
        if sock is not None:
            sock.close()


def _upgrade(sock: Any, uri: WebSocketURI, settings: DeviceSettings) -> Link:
    """Ask for the upgrade, read the answer, and hand the socket and what came behind the answer to a Link."""
    protocol = ClientProtocol(uri, subprotocols=[Subprotocol(name) for name in wire.offer(settings.wire)])
    request = protocol.connect()
    request.headers["User-Agent"] = f"etherws/{__version__}"
    protocol.send_request(request)
    sock.sendall(b"".join(protocol.data_to_send()))
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) > RESPONSE_MAX:
            raise ConnectError(f"answered with headers of over {RESPONSE_MAX} bytes; is that an etherws server?")
        data = sock.recv(4096)
        if not data:
            raise ConnectError("ended the connection without an answer; is that an etherws server?")
        answer += data
    head, _, early = answer.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status and status[1] != b"101":
        raise ConnectError(_explain(int(status[1]), head))
    protocol.receive_data(head + b"\r\n\r\n")
    if protocol.handshake_exc is not None:
        raise ConnectError(f"gave no proper answer to the upgrade: {printable(str(protocol.handshake_exc))}")
    version = wire.best([protocol.subprotocol or ""], settings.wire)
    return Link(sock, server=False, wire=version, congestion=settings.congestion, early=early)


def _explain(status: int, head: bytes) -> str:
    """A refusal in words; the peer's own are not trusted to be any."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown status"
    text = f"answered {status} {phrase}"
    if 300 <= status < 400:
        to = next((line[9:] for line in head.split(b"\r\n") if line[:9].lower() == b"location:"), b"")
        return f"{text} to {printable(to.decode('latin-1').strip())}; etherws follows no redirects, name that URI"
    return f"{text}; {_MENDS[status]}" if status in _MENDS else text


class Client:
    """A TAP, and what keeps it connected."""

    def __init__(
        self, uris: Sequence[WebSocketURI], settings: DeviceSettings, retry: Retry, context: ssl.SSLContext | None
    ) -> None:
        """Of several `uris` the first that can be reached is used; `context` is for those with TLS."""
        self._uris, self._settings, self._retry, self._context = uris, settings, retry, context
        self._session: Session | None = None
        self._stopping = False
        self._hurry = Event()

    def retry(self) -> None:
        """The path may have changed: try at once, with the shortest wait to follow; or, if connected, have the server
        give a sign of life soon."""
        if self._session:
            self._session.probe()
        else:
            self._hurry.set()

    def run(self, ready: Callable[[str], None], stop: Event) -> None:
        """Keep the tunnel up until `stop` is set. `ready` is told, once, how the first attempt went. SIGHUP, or a
        change of the machine's network, is as retry().

        Raises DeviceError if the TAP cannot be made, at the start or after it was deleted; SettingsError if this kernel
        has no such congestion control.
        """
        congestion.check(self._settings.congestion)
        ports = Ports(self._settings)
        watcher = gevent.spawn(doorbell.watch, lambda: ports.name, self.retry)
        gevent.signal_handler(signal.SIGHUP, self.retry)
        try:
            keeper: gevent.Greenlet[..., EtherwsError | None] = gevent.spawn(self._keep, ports, ready)
            gevent.wait((keeper, stop), count=1)
            self._stopping = True
            if self._session:
                self._session.stop()
                keeper.join(timeout=STOP_TIMEOUT)
            keeper.kill()
            if isinstance(keeper.value, EtherwsError):
                raise keeper.value
        finally:
            watcher.kill()
            ports.close()

    def _keep(self, ports: Ports, ready: Callable[[str], None]) -> EtherwsError | None:
        """Connect, carry, and again. The log has one line when the server is lost, and one when it is there."""
        report: Callable[[str], None] | None = ready
        wait = self._retry.first
        while True:
            ports.unlinked()
            try:
                server, link = self._reach()
            except ConnectError as exc:
                if report:
                    report(f"{ports.name} is up, but cannot connect to {exc}; trying on")
            else:
                begin = monotonic()
                (report or log.info)(f"{ports.name} is up, connected to {server}")
                try:
                    self._carry(ports, server, link)
                except EtherwsError as exc:
                    return exc
                if self._stopping:
                    return None
                if monotonic() - begin > STEADY:
                    wait = self._retry.first
            report = None
            # Jitter, or all clients of a server that restarts come back at once.
            hurry = self._hurry.wait(random.uniform(0.5, 1.0) * wait)
            self._hurry.clear()
            wait = self._retry.first if hurry else min(2 * wait, self._retry.most)

    def _reach(self) -> tuple[str, Link]:
        """The first server that takes us, in their order. Raises ConnectError with what each of them failed of."""
        failures = []
        for uri in self._uris:
            host = f"[{uri.host}]" if ":" in uri.host else uri.host
            server = f"{'wss' if uri.secure else 'ws'}://{host}:{uri.port}"
            try:
                context = self._context if uri.secure else None
                return server, connect(uri, context, self._retry.timeout, self._settings)
            except ConnectError as exc:
                log.debug("cannot connect to %s: %s", server, exc)
                failures.append(f"{server}: {exc}")
        raise ConnectError("; nor to ".join(failures))

    def _carry(self, ports: Ports, server: str, link: Link) -> None:
        tap = ports.take()
        self._hurry.clear()
        self._session = Session(tap, link, self._settings)
        try:
            reason = self._session.run()
            if not self._stopping:
                log.warning("lost %s: %s%s; trying again", server, reason, self._session.summary())
        finally:
            self._session = None
            ports.give_back(tap)
