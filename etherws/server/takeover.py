"""Takes the connection of a request from a WSGI server that is not ours, if that server can give it away.

server_of() finds out which server it is. Those that can are gevent's servers: gunicorn's worker gevent, which has read
bytes behind the request; gevent's own WSGIServer; and gevent-websocket's handler, which has sent a 101 before the
application runs. There a refusal is a Close, with the status in its reason. Read next: application.py,
gunicorn_workers.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from gevent.pywsgi import Input, WSGIHandler
from gevent.socket import socket as GeventSocket

from etherws.access.certificates import CERTIFICATE
from etherws.access.client_certificates import ClientCertificate
from etherws.close_codes import CloseCode
from etherws.errors import ClientGone, Refused
from etherws.server.authenticate import address
from etherws.server.http import PRESENCE, UPGRADE, read_early
from etherws.server.presence import Presence
from etherws.server.refusals import refusals
from etherws.tunnel import wire
from etherws.tunnel.connection import Connection
from etherws.tunnel.gevent_tls import stream_of
from etherws.tunnel.stream import Stream
from etherws.tunnel.tls import der_chain

log = logging.getLogger(__name__)

#: Set in the environment if the 101 was sent before the application ran: then no version can be negotiated.
EARLY_101 = "etherws.early_101"

#: A refusal after the 101 by one of these is for a while only. Any other is final, as long as nobody changes anything.
_FOR_A_WHILE = {"429", "503"}

#: A request's environment, and what answers it (PEP 3333).
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]


class Server:
    """The server of one request: ours, or one that keeps its sockets to itself."""

    #: Whether it is another server, whose socket we take.
    foreign = False

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.environ, self._start_response = environ, start_response

    def add_certificate(self, contexts: Any) -> None:
        """Put the client's certificate into the environment, if it showed one to another server's TLS, which has
        verified it. `contexts` is as for ClientCertificate; None if clients need none."""

    def refuse(self, refusal: Refused, identity: str | None = None) -> Iterable[bytes]:
        """Answer with the refusal's status, and its reason as text; return what the application is to return.
        `identity` is the client's name, as far as it is known."""
        body = f"{self.words(refusal, identity)}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        self._start_response(refusal.status, [*headers, *refusal.headers])
        return [body]

    def words(self, refusal: Refused, identity: str | None) -> str:
        """Note the refusal; return what its client is told: the reason, and the number by which the log has it."""
        if isinstance(refusal, ClientGone):
            return str(refusal)
        return f"{refusal} (refusal {refusals.note(refusal, address(self.environ), identity)})"

    def finish(self) -> Iterable[bytes]:
        """The tunnel has ended: return what the application is to return."""
        return []


class _Foreign(Server):
    """A server whose socket is one of gevent's."""

    foreign = True

    def __init__(self, environ: Environ, start_response: StartResponse, sock: Any) -> None:
        super().__init__(environ, start_response)
        self._sock = sock
        environ[UPGRADE] = self.upgrade
        environ[PRESENCE] = Presence(sock)

    def add_certificate(self, contexts: Any) -> None:
        """As Server.add_certificate()."""
        if contexts and hasattr(self._sock, "getpeercert") and (subject := self._sock.getpeercert()):
            self.environ[CERTIFICATE] = ClientCertificate(subject, der_chain(self._sock), contexts)

    def upgrade(self, headers: Headers) -> tuple[Stream, bytes]:
        """environ[UPGRADE]: see http.py."""
        # The server's own way to send an answer would add headers that a 101 may not have, such as
        # Transfer-Encoding.
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._sock.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1"))
        early = self._early()
        return stream_of(self._sock), early

    def _early(self) -> bytes:
        """What the client sent behind its request, and the server has read already."""
        raise NotImplementedError


class _GunicornGevent(_Foreign):
    """gunicorn's worker gevent (gunicorn.workers.base_async)."""

    def _early(self) -> bytes:
        unreader = self.environ["wsgi.input"].reader.unreader
        # take_buffered() is there since gunicorn 24.
        return bytes(unreader.take_buffered() if hasattr(unreader, "take_buffered") else unreader.buf.getvalue())

    def finish(self) -> NoReturn:
        """End the request as gunicorn itself ends one after which the connection is closed. Whatever were returned, it
        would write an answer into the tunnel, or wait for the next request."""
        raise StopIteration


class _Pywsgi(_Foreign):
    """gevent's pywsgi, also as gunicorn's worker gevent_pywsgi."""

    def __init__(self, environ: Environ, start_response: StartResponse, handler: Any) -> None:
        super().__init__(environ, start_response, handler.socket)
        self._handler = handler

    def upgrade(self, headers: Headers) -> tuple[Stream, bytes]:
        """environ[UPGRADE]: see http.py."""
        # For the access log.
        self._handler.status = self._handler._orig_status = "101 Switching Protocols"
        self._handler.response_headers = list(headers)
        self._handler.headers_sent = True
        return super().upgrade(headers)

    def _early(self) -> bytes:
        return read_early(self._sock, self._handler.rfile)

    def refuse(self, refusal: Refused, identity: str | None = None) -> Iterable[bytes]:
        """As Server.refuse(). The handler would wait for another request without end."""
        self._handler.close_connection = True
        return super().refuse(refusal, identity)

    def finish(self) -> Iterable[bytes]:
        """Let the handler neither answer nor look for a body and for the next request."""
        self._handler.close_connection = True
        self._handler.wsgi_input = Input(self._handler.rfile, 0)
        return []


class _GeventWebSocket(_Pywsgi):
    """gevent-websocket's handler, also as gunicorn's worker (geventwebsocket.handler)."""

    def __init__(self, environ: Environ, start_response: StartResponse, websocket: Any) -> None:
        super().__init__(environ, start_response, websocket.handler)
        environ[EARLY_101] = True
        # Otherwise it sends a Close of its own when it is forgotten, and when the application returns.
        websocket.closed = True

    def upgrade(self, headers: Headers) -> tuple[Stream, bytes]:
        """environ[UPGRADE]: see http.py. The 101 was sent; `headers` are of no use."""
        early = self._early()
        return stream_of(self._sock), early

    def refuse(self, refusal: Refused, identity: str | None = None) -> Iterable[bytes]:
        """Close with the refusal's status in the reason. What the client has sent is not looked at."""
        words = self.words(refusal, identity)
        stream, early = self.upgrade([])
        with contextlib.suppress(OSError):
            Connection(stream, server=True, wire=wire.Version1(), early=early).close(*close_of(refusal, words))
        return self.finish()

    def finish(self) -> Iterable[bytes]:
        """As _Pywsgi.finish()."""
        # It keeps its clients by their addresses, and on a UNIX socket all have the same: the second one that leaves
        # would find its entry gone.
        self._handler.server.clients.setdefault(self._handler.client_address, None)
        return super().finish()


def close_of(refusal: Refused, words: str = "") -> tuple[int, str]:
    """The code and reason of the Close that stands for a refusal: the status, Retry-After if there is one, and `words`,
    by default its text; docs/wire.rst has the form."""
    code = CloseCode.TRY_AGAIN_LATER if refusal.status[:3] in _FOR_A_WHILE else CloseCode.POLICY_VIOLATION
    waits = [f"Retry-After: {value}; " for name, value in refusal.headers if name == "Retry-After"]
    return code, f"{refusal.status}; {''.join(waits)}{words or refusal}"


def server_of(environ: Environ, start_response: StartResponse) -> Server:
    """The server that sent this request. One whose socket can be taken has put UPGRADE into the environment."""
    if UPGRADE in environ:
        return Server(environ, start_response)
    websocket = environ.get("wsgi.websocket")
    if isinstance(getattr(websocket, "handler", None), WSGIHandler):
        return _GeventWebSocket(environ, start_response, websocket)
    # PEP 3333 says nothing about it, but gevent gives a method.
    handler = getattr(start_response, "__self__", None)
    if isinstance(handler, WSGIHandler):
        return _Pywsgi(environ, start_response, handler)
    sock = environ.get("gunicorn.socket")
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    if isinstance(sock, GeventSocket) and hasattr(reader, "unreader"):
        return _GunicornGevent(environ, start_response, sock)
    return Server(environ, start_response)
