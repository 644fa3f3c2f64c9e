"""HTTP on one connection: gevent's and gevent-websocket's handler, stricter, and able to give its socket away.

gevent-websocket sends the 101 before the application runs. Here the application decides first: its environment has,
under UPGRADE, a function that sends the 101 and gives the connection away. Requests that gevent's parser accepts, but
that other parsers may read differently, are refused (RFC 9112, sections 2.2, 3, 5 and 6). Read next: application.py.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable
from typing import Any

from gevent.pywsgi import Input, WSGIHandler
from geventwebsocket.handler import WebSocketHandler

from etherws.access.certificates import CERTIFICATE
from etherws.addresses import peer
from etherws.errors import ClientGone
from etherws.server.forwarded import PROXY
from etherws.server.front_door import Admitted, bad_request
from etherws.server.refusals import refusals
from etherws.server.visitor import Visitor
from etherws.settings import HTTP_TOKEN
from etherws.tunnel.gevent_tls import stream_of
from etherws.tunnel.stream import PlainStream, Stream

log = logging.getLogger(__name__)

#: environ[UPGRADE](headers) sends the 101; it returns the connection's stream, and the bytes that came behind the
#: request.
UPGRADE = "etherws.upgrade"

#: environ[PRESENCE] is the client's Presence: `with environ[PRESENCE].required():` raises ClientGone in a block that
#: waits for something, such as a place in a queue, as soon as the client hangs up.
PRESENCE = "etherws.presence"

#: environ[LATER](call) has `call` called, once, when the request has ended: then the connection is the caller's. It is
#: not there if HTTP must wait for the end of the tunnel.
LATER = "etherws.later"

#: Bytes of all header lines of a request together, and their number. Browsers with large cookies, behind proxies, stay
#: below.
REQUEST_HEADERS_MAX_BYTES, REQUEST_HEADERS_MAX = 16 * 1024, 100

#: Characters of what is said of a request that is none.
MISTAKE_MAX = 100

#: A header line (RFC 9112, section 5): a token, a colon, and no control characters but the tab.
_HEADER_LINE = re.compile(HTTP_TOKEN.encode() + rb":[\t\x20-\x7e\x80-\xff]*\r\n")

#: A request line (section 3). HTTP/0.9 and absolute targets are refused.
_REQUEST_LINE = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.[01]\r\n")


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Speaks HTTP with one client, until the connection is closed or upgraded. One request per connection."""

    #: Whether clients come here for tunnels: who is refused is counted among those who were refused one.
    is_tunnels = True

    #: What is wrong with a request that is none.
    _mistake = ""

    def __init__(
        self, sock: Any, address: Any, server: Any, rfile: Any = None, admitted: Admitted | None = None
    ) -> None:
        """`admitted` is what our front door passes on. A plain WSGIServer has no such door: it gives a socket."""
        self._admitted = admitted or Admitted(PlainStream(sock), Visitor(sock), address)
        self._visitor = self._admitted.visitor
        #: The lines of the request's headers.
        self._lines: list[bytes] = []
        #: Open while the request is parsed.
        self._parsing = contextlib.ExitStack()
        super().__init__(self._admitted.stream, address, server, rfile)

    def handle(self) -> None:
        """As gevent's."""
        try:
            super().handle()
        finally:
            # It has a method of this handler: both would be garbage that only a search finds, with all that they have.
            self.environ = dict[str, Any]()

    def get_environ(self) -> Any:
        """As gevent's, with the client's certificate if it showed one, and the proxy that named the client."""
        environ = super().get_environ()
        if self._admitted.certificate:
            environ[CERTIFICATE] = self._admitted.certificate
        if self._admitted.proxy:
            environ[PROXY] = self._admitted.proxy
        return environ

    def run_application(self) -> None:
        """Run the application, which answers, or takes the connection by environ[UPGRADE]."""
        self.close_connection = True
        self.environ[UPGRADE] = self._upgrade
        self.environ[PRESENCE] = self._visitor.presence
        if self._admitted.later:
            self.environ[LATER] = self._later
        try:
            WSGIHandler.run_application(self)
        finally:
            # gevent would wait for the rest of the body, so as to find the next request. There is no next one here.
            self.wsgi_input = Input(self.rfile, 0)

    def read_requestline(self) -> str:
        """The request line. Reads the headers too, so that parsing them waits for nobody; MessageClass() checks them.
        Raises OSError, TimeoutError if the client needs too long, and ClientGone."""
        with self._visitor.listening():
            first = str(super().read_requestline())
            if _REQUEST_LINE.fullmatch(first):
                self._lines = self._read_lines()
        self._parsing.enter_context(self._visitor.working())
        return first

    def _read_lines(self) -> list[bytes]:
        """The header lines, up to the empty line, or up to and with the first one that is wrong or too much."""
        lines: list[bytes] = []
        size = 0
        while (line := self.rfile.readline(REQUEST_HEADERS_MAX_BYTES + 1)) != b"\r\n":
            lines.append(line)
            size += len(line)
            if size > REQUEST_HEADERS_MAX_BYTES or len(lines) > REQUEST_HEADERS_MAX or not _HEADER_LINE.fullmatch(line):
                break
        return lines

    def read_request(self, raw_requestline: str) -> Any:
        """As gevent's, but only for request lines that every parser reads alike. Raises ValueError."""
        if not _REQUEST_LINE.fullmatch(raw_requestline):
            raise ValueError("malformed request line")
        return super().read_request(raw_requestline)

    def MessageClass(self, rfile: Any, *args: Any) -> Any:
        """The headers, checked before gevent parses them. `rfile` is left alone: read_requestline() has read them.
        Raises ValueError."""
        lines = self._lines
        if sum(map(len, lines)) > REQUEST_HEADERS_MAX_BYTES:
            raise ValueError(f"headers of over {REQUEST_HEADERS_MAX_BYTES} bytes")
        if len(lines) > REQUEST_HEADERS_MAX:
            raise ValueError(f"over {REQUEST_HEADERS_MAX} headers")
        if not all(map(_HEADER_LINE.fullmatch, lines)):
            raise ValueError("malformed header line")
        names = [line.split(b":", 1)[0].lower() for line in lines]
        # These two decide where the request ends. A second Host is refused by handshake.py, which can say so.
        for name in (b"content-length", b"transfer-encoding"):
            if names.count(name) > 1:
                raise ValueError(f"more than one {name.decode()} header")
        headers = super().MessageClass(io.BytesIO(b"".join(lines) + b"\r\n"), *args)
        if not (headers.get("content-length") or "0").isdecimal():
            raise ValueError("malformed Content-Length header")
        return headers

    def handle_one_request(self) -> Any:
        """As gevent's, but the request is read first, and then parsed as a turn of low-priority work."""
        try:
            with self._parsing:
                result = super().handle_one_request()
        except ClientGone:
            return None
        return self._with_reason(result[1]) if isinstance(result, tuple) else result

    def _handle_client_error(self, ex: Exception) -> Any:
        """As gevent's: the request is none."""
        # It may have the peer's bytes.
        self._mistake = ascii(str(ex))[1:-1][:MISTAKE_MAX]
        return super()._handle_client_error(ex)

    def _with_reason(self, answer: bytes) -> tuple[str, bytes]:
        """gevent's answer to a request that is none, with the reason, and the number by which the log has it."""
        status = answer.partition(b"\r\n")[0].decode("ascii").partition(" ")[2]
        words = self._mistake or status
        if self.is_tunnels:
            address = peer(self.client_address) or "a local client"
            number = refusals.add("bad request", address, f"was refused: {status}: {words}", status=int(status[:3]))
            words += f" (refusal {number})"
        return status[:3], bad_request(f"{words}\n", status)

    def handle_one_response(self) -> None:
        """As gevent's. The request has been parsed."""
        self._parsing.close()
        super().handle_one_response()

    def log_request(self) -> None:
        """As gevent-websocket's, but the line is only made if it will be logged."""
        if self.logger.isEnabledFor(logging.INFO):
            super().log_request()

    def log_error(self, msg: str, *args: Any) -> None:
        """A client's mistake: at debug level, without a traceback, and without raw bytes."""
        log.debug(
            "bad request from %s: %s", self.client_address or "a local client", ascii(msg % args if args else msg)[:200]
        )

    def _upgrade(self, headers: list[tuple[str, str]]) -> tuple[Stream, bytes]:
        # With this, gevent-websocket adds no length, chunks or date to the 101.
        self.environ["wsgi.websocket"] = True
        self.start_response("101 Switching Protocols", headers)
        self.write(b"")
        self._visitor.leave()
        stream, early = self._admitted.stream, read_early(self.socket, self.rfile)
        # A plain WSGIServer may have TLS of its own.
        return (stream_of(stream.tcp) if isinstance(stream, PlainStream) else stream), early

    def _later(self, call: Callable[[], None]) -> None:
        assert self._admitted.later
        # Else gevent would read from it, and close it.
        self.socket: Any = None
        self._admitted.later(call)


def read_early(sock: Any, rfile: Any) -> bytes:
    """What the client sent behind its request: it is in the buffer of the file `rfile`, and no longer in `sock`."""
    sock.settimeout(0.0)
    try:
        return bytes(rfile.peek())
    except OSError:
        return b""
    finally:
        sock.settimeout(None)


def speak_http(server: Any, admitted: Admitted) -> None:
    """Serve HTTP on an admitted connection, for a gevent WSGIServer whose handler_class is Handler."""
    server.handler_class(admitted.stream, admitted.address, server, admitted=admitted).handle()
