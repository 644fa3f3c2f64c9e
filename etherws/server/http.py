"""HTTP for one connection: gevent-websocket's handler, stricter, and able to hand its socket over.

gevent-websocket sends the 101 before the application runs. Here the application decides first: it finds in its
environment, under UPGRADE, a function that sends the 101 and gives up the socket. What gevent's parser lets through
and an attacker could use is refused before that (RFC 9112, sections 2.2, 3, 5 and 6).
"""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import gevent
from gevent.pywsgi import Input, WSGIHandler
from geventwebsocket.handler import WebSocketHandler

from etherws.access.certificates import CERTIFICATE
from etherws.server.lobby import LobbyMixin
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: environ[UPGRADE](headers) sends the 101 and returns (socket, bytes that came behind the request).
UPGRADE = "etherws.upgrade"

#: Seconds for a request's line and headers, from the first byte that is waited for.
HEADER_TIMEOUT = 10.0

#: Bytes of all header lines together, and their number; a browser with large cookies behind proxies stays below.
HEADER_MAX, HEADERS_MAX = 16 * 1024, 100

#: A field line (RFC 9112, section 5): a token, a colon, and no control characters but the tab.
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")

#: A request line (section 3), as bytes in latin-1. HTTP/0.9 and absolute targets are not spoken here.
_REQUEST = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.[01]\r\n")


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Speaks HTTP with one client until it is a tunnel. One request per connection."""

    def get_environ(self) -> Any:
        """As gevent's, with the client's certificate if it was asked for one."""
        environ = super().get_environ()
        if isinstance(self.socket, TlsStream) and (certificate := self.socket.getpeercert()):
            environ[CERTIFICATE] = certificate
        return environ

    def run_application(self) -> None:
        """Let the application answer, or take the socket by environ[UPGRADE]."""
        self.close_connection = True
        self.environ[UPGRADE] = self._upgrade
        try:
            WSGIHandler.run_application(self)
        finally:
            # gevent would wait for the rest of a body that was announced; no request follows it here.
            self.wsgi_input = Input(self.rfile, 0)

    def read_request(self, raw_requestline: str) -> Any:
        """As gevent's, for requests that every parser on the way understands alike."""
        if not _REQUEST.fullmatch(raw_requestline):
            raise ValueError("malformed request line")
        return super().read_request(raw_requestline)

    def MessageClass(self, rfile: Any, *args: Any) -> Any:
        """The header lines from `rfile`, checked before gevent parses them. Raises ValueError."""
        lines: list[bytes] = []
        size = 0
        while (line := rfile.readline(HEADER_MAX + 1)) != b"\r\n":
            size += len(line)
            if size > HEADER_MAX:
                raise ValueError(f"headers of over {HEADER_MAX} bytes")
            if len(lines) == HEADERS_MAX:
                raise ValueError(f"over {HEADERS_MAX} headers")
            if not _FIELD.fullmatch(line):
                raise ValueError("malformed header line")
            lines.append(line)
        names = [line.split(b":", 1)[0].lower() for line in lines]
        # More than one Host is for the application to name; these two decide where the request ends.
        for name in (b"content-length", b"transfer-encoding"):
            if names.count(name) > 1:
                raise ValueError(f"more than one {name.decode()} header")
        headers = super().MessageClass(io.BytesIO(b"".join(lines) + b"\r\n"), *args)
        if not (headers.get("content-length") or "0").isdecimal():
            raise ValueError("malformed Content-Length header")
        return headers

    def handle_one_request(self) -> Any:
        """As gevent's, with a deadline until the headers are read."""
        self._deadline = gevent.Timeout.start_new(HEADER_TIMEOUT)
        try:
            return super().handle_one_request()
        except gevent.Timeout as timeout:
            if timeout is not self._deadline:
                raise
            return None
        finally:
            self._deadline.close()

    def handle_one_response(self) -> None:
        """As gevent's; the request has been read in time."""
        self._deadline.close()
        super().handle_one_response()

    def log_request(self) -> None:
        """As gevent-websocket's; what nobody reads is not even put into words."""
        if self.logger.isEnabledFor(logging.INFO):
            super().log_request()

    def log_error(self, msg: str, *args: Any) -> None:
        """A stranger's mistake: no traceback, no raw bytes, and only for those who debug."""
        log.debug(
            "bad request from %s: %s", self.client_address or "a local client", ascii(msg % args if args else msg)[:200]
        )

    def _upgrade(self, headers: list[tuple[str, str]]) -> tuple[Any, bytes]:
        # gevent-websocket writes neither a length, chunks nor a date with a 101 if it sees this.
        self.environ["wsgi.websocket"] = True
        self.start_response("101 Switching Protocols", headers)
        self.write(b"")
        if isinstance(self.server, LobbyMixin):
            self.server.leave(self.socket)
        # An application that mounts us may run a server of its own, which knows no streams.
        stream = self.socket if isinstance(self.socket, TlsStream) else PlainStream(self.socket)
        return stream, self._early()

    def _early(self) -> bytes:
        """What the client sent behind its request: in the file's buffer, no more in the socket."""
        self.socket.settimeout(0.0)
        try:
            return bytes(self.rfile.peek())
        except OSError:
            return b""
        finally:
            self.socket.settimeout(None)
