"""One attempt of the client to reach a server: TCP, TLS, and the opening handshake up to the 101.

The opening handshake is the websockets library's (its sans-I/O protocol); once the 101 is there, the socket belongs to
tunnel/connection.py, as on the server. reconnect.py says when to try.
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import gevent
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from etherws import __version__
from etherws.access import certificates
from etherws.client.credentials import Login
from etherws.client.dial import Dialer
from etherws.client.proxy_choice import Route
from etherws.errors import ConnectError, NotAdmitted, SettingsError, printable
from etherws.reloadable import Reloadable
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel import wire
from etherws.tunnel.connection import Connection
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Bytes of a server's answer to the upgrade request, headers included.
RESPONSE_MAX = 16 * 1024

#: Seconds for which a server can ask to be left alone (RFC 9110, section 10.2.3).
RETRY_AFTER_MAX = 300

_HINTS = {
    400: "does a proxy between drop headers, or speak HTTP/1.0? see docs/reverse-proxies.rst",
    404: "is the path right? a proxy between may change it",
    426: "does a proxy between drop the Upgrade header? see docs/reverse-proxies.rst",
    429: "too many wrong passwords came from this address; it wants to be left alone for a while",
    500: "the server's log says why",
    502: "a proxy is there, but cannot reach etherws behind it; the proxy's log says why",
    503: "it has no port free, or is stopping; the server's log says why",
    504: "a proxy is there, but had no answer from etherws behind it in time",
}

#: What the server's TLS alerts mean (RFC 8446, section 6.2), by OpenSSL's names.
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of this client; give --certfile and --keyfile",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of --certfile",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take --certfile",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take --certfile",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "--certfile is of a kind that it does not take, as one for servers only",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "--certfile has expired; renew it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "--certfile was revoked; get a new one",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not take --certfile",
    "TLSV1_ALERT_DECRYPT_ERROR": "it does not take --certfile",
}

#: Before there was a word of the server's hello, or after.
_NO_COMMON = "it speaks no TLS 1.2 or later, or has no cipher in common with this client; renew its TLS"
_HANDSHAKE_FAILURE = "SSLV3_ALERT_HANDSHAKE_FAILURE"
_VERSIONS = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |$|\r)")


def parse(text: str) -> tuple[WebSocketURI, str | None, str | None]:
    """The parts of a ws:// or wss:// URI, and apart from it the user and the password in it. Raises SettingsError."""
    # Whatever stands before an @ may be a password.
    shown = text.rpartition("@")[2]
    try:
        parts = urlsplit(text)
        user, password = (
            part if part is None else unquote(part, errors="strict") for part in (parts.username, parts.password)
        )
        found = parse_uri(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    except (InvalidURI, ValueError) as exc:
        why = exc.msg if isinstance(exc, InvalidURI) else str(exc)
        if "@" in text:
            why = "cannot be parsed; in the user and password, write / ? # @ : [ ] as %2F %3F %23 %40 %3A %5B %5D"
        raise SettingsError(f"--uri {shown!r}: {why}; write ws://HOST/ or wss://HOST/") from None
    return found, user, password


class Connector:
    """Reaches one server. `name` is what to call it in the log."""

    def __init__(
        self,
        uri: WebSocketURI,
        settings: DeviceSettings,
        *,
        route: Route,
        trust: Trust,
        login: Login,
        headers: Sequence[tuple[str, str]] = (),
        timeout: float = 10.0,
    ) -> None:
        """`headers` go with the upgrade request; `timeout` is in seconds, from the look-up of the name to the 101.

        Raises SettingsError if a file of `trust`, or the route's proxy, cannot be used.
        """
        self._uri, self._settings, self._trust, self._login = uri, settings, trust, login
        self._headers, self._timeout = headers, timeout
        route.through(uri.host, uri.secure)
        self._dialer = Dialer(route)
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        self.name = f"{'wss' if uri.secure else 'ws'}://{host}:{uri.port}"
        self._contexts = Reloadable(lambda: certificates.client_context(trust), trust.files) if uri.secure else None
        # Known to the server and us alone: by it we get our port back after a blip.
        self._resume = secrets.token_urlsafe(16)

    @property
    def exposes(self) -> bool:
        """Whether a password or token goes over the network in the clear."""
        return bool(self._login) and not self._uri.secure

    def connect(self) -> Connection:
        """One attempt. Raises ConnectError; NotAdmitted if it is about who we are."""
        deadline = gevent.Timeout.start_new(self._timeout)
        sock: Any = None
        try:
            sock = self._dialer.dial(self._uri.host, self._uri.port, self._uri.secure)
            if self._contexts:
                sock = TlsStream(sock, self._contexts.get(), server_hostname=self._trust.sni or self._uri.host)
                sock.do_handshake()
                self._check_pin(sock)
            link, sock = self._upgrade(sock), None
            return link
        except gevent.Timeout as exc:
            if exc is not deadline:
                raise
            raise ConnectError(f"no answer{self._dialer.awaited} within {self._timeout:g} s") from None
        except ssl.SSLCertVerificationError as exc:
            raise ConnectError(f"its certificate does not verify: {exc.verify_message}; see --cacert") from exc
        except ssl.SSLError as exc:
            raise _tls_failed(exc, begun=isinstance(sock, TlsStream) and sock.cipher() is not None) from exc
        except (OSError, UnicodeError) as exc:
            raise ConnectError(getattr(exc, "strerror", None) or str(exc)) from exc
        except SettingsError as exc:
            # A file that was there at the start.
            raise ConnectError(str(exc)) from exc
        finally:
            deadline.close()
            if sock is not None:
                sock.close()

    def _check_pin(self, sock: TlsStream) -> None:
        if self._trust.pins and (pin := certificates.pin_of(sock.getpeercert(True))) not in self._trust.pins:
            raise ConnectError(f"its key is not the pinned one but {pin}; is that the right server? See --pinnedpubkey")

    def _upgrade(self, sock: Any) -> Connection:
        """Ask for the upgrade, read the answer, and hand the socket and what came behind the answer to a Connection."""
        newest = self._settings.wire
        protocol = ClientProtocol(self._uri, subprotocols=[Subprotocol(name) for name in wire.offer(newest)])
        request = protocol.connect()
        request.headers["User-Agent"] = f"etherws/{__version__}"
        request.headers["Etherws-Resume"] = self._resume
        if authorization := self._login.authorization():
            request.headers["Authorization"] = authorization
        for name, _ in self._headers:
            request.headers.pop(name, None)
        for name, value in self._headers:
            request.headers[name] = value
        protocol.send_request(request)
        sock.sendall(b"".join(protocol.data_to_send()))
        head, early = _answer(sock)
        status = _STATUS.match(head)
        if status and status[1] != b"101":
            raise _refusal(int(status[1]), head, bool(authorization))
        protocol.receive_data(head + b"\r\n\r\n")
        if protocol.handshake_exc is not None:
            raise ConnectError(f"gave no proper answer to the upgrade: {printable(str(protocol.handshake_exc))}")
        version = wire.best([protocol.subprotocol or ""], newest)
        return Connection(sock, server=False, wire=version, congestion=self._settings.congestion, early=early)


def _tls_failed(exc: ssl.SSLError, *, begun: bool) -> ConnectError:
    """What went wrong with TLS, in words; `begun` is whether a cipher was agreed on."""
    reason = exc.reason or str(exc)
    if reason == _HANDSHAKE_FAILURE:
        # TLS 1.2 has one alert for both.
        reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED" if begun else _VERSIONS[0]
    if reason in _ALERTS:
        return NotAdmitted(f"TLS was refused: {_ALERTS[reason]}")
    if reason in _VERSIONS:
        return ConnectError(f"TLS failed: {_NO_COMMON}")
    return ConnectError(f"TLS failed ({reason}); does it speak wss:// there?")


def _answer(sock: Any) -> tuple[bytes, bytes]:
    """The head of the answer to a request, and what came behind it. Raises ConnectError."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) > RESPONSE_MAX:
            raise ConnectError(f"answered with headers of over {RESPONSE_MAX} bytes; is that an etherws server?")
        data = sock.recv(4096)
        if not data:
            raise ConnectError("ended the connection without an answer; is that an etherws server?")
        answer += data
    head, _, early = answer.partition(b"\r\n\r\n")
    return head, early


def _refusal(status: int, head: bytes, authorized: bool) -> ConnectError:
    """A refusal in words; the peer's own are not trusted to be any."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown status"
    text = f"answered {status} {phrase}"
    if status == 401:
        if authorized:
            return NotAdmitted(f"{text}; it does not take this user and password, or this token")
        kinds = {value.split()[0].lower() for value in _values(head, b"www-authenticate") if value.strip()}
        wants = {"basic": "a user and password (--user)", "bearer": "a token (--token-file)"}
        named = " or ".join(wants[kind] for kind in sorted(kinds & wants.keys()))
        return NotAdmitted(f"{text}; it asks for {named or 'credentials of a kind that etherws has not'}")
    if status == 403:
        return NotAdmitted(f"{text}; it does not let this client in")
    if 300 <= status < 400:
        to = printable("".join(_values(head, b"location")[:1]))
        return ConnectError(f"{text} to {to}; etherws follows no redirects, name that URI")
    found = ConnectError(f"{text}; {_HINTS[status]}" if status in _HINTS else text)
    if status in (429, 503):
        after = "".join(_values(head, b"retry-after")[:1])
        found.wait = float(min(int(after), RETRY_AFTER_MAX)) if re.fullmatch("[0-9]{1,9}", after) else 0.0
    return found


def _values(head: bytes, name: bytes) -> list[str]:
    """The values of a header."""
    pairs = (line.partition(b":") for line in head.split(b"\r\n"))
    return [value.decode("latin-1").strip() for found, _, value in pairs if found.lower() == name]
