"""Connections of servers that are not ours, in this process: gevent's plain WSGIServer, gevent-websocket's handler, and
those that keep their sockets."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from gevent.ssl import SSLContext
from geventwebsocket.handler import WebSocketHandler

from etherws.errors import Refused
from etherws.server.http import UPGRADE, Handler
from etherws.server.takeover import EARLY_101, close_of
from etherws.settings import ServerSettings
from etherws.tunnel.gevent_tls import GeventTlsStream
from etherws.wsgi import Application
from tests.lab.environ import environ
from tests.lab.hosts import PATIENCE, Host
from tests.lab.peer import Peer, masked, request
from tests.lab.pki import Certificate


class Gate(Application):
    """Lets clients in and sends back what came behind the request, instead of giving them a TAP."""

    streams: list[Any]

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self._tunnels.run = self._run  # type: ignore[assignment, method-assign]

    def _run(self, environ: dict[str, Any], headers: list[tuple[str, str]], *_: Any) -> None:
        assert (EARLY_101 in environ) == ("wsgi.websocket" in environ and environ["wsgi.websocket"] is not True)
        stream, early = environ[UPGRADE](headers)
        self.streams = [stream]
        stream.sendall(early)
        stream.shutdown(1)
        stream.close()


@contextlib.contextmanager
def serving(host: Host, application: Any, **options: Any) -> Iterator[int]:
    """A WSGIServer; gives its port. The clients are in this thread, so each of their waits is one of gevent's."""
    with host.namespace.inside():
        server = WSGIServer(("127.0.0.1", 0), application, log=None, **options)
        server.start()
    try:
        with gevent.Timeout(PATIENCE):
            yield int(server.address[1])
    finally:
        server.stop(timeout=0)


def conversation(host: Host, port: int, data: bytes, *, tls: bool = False) -> bytes:
    """What the server says to a client that says this."""

    def talk() -> bytes:
        peer = Peer(host, ("127.0.0.1", port), tls=tls)
        peer.say(data)
        return peer.rest()

    return gevent.get_hub().threadpool.apply(talk)


@pytest.mark.parametrize("handler", [None, Handler, WebSocketHandler], ids=["plain", "ours", "gevent-websocket"])
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_a_connection_is_taken_with_what_came_behind_the_request(
    host: Host, certificate: Certificate, tls: bool, handler: Any
) -> None:
    gate = Gate(ServerSettings())
    options: dict[str, Any] = {}
    if tls:
        options["ssl_context"] = context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
    with serving(host, gate, **({"handler_class": handler} if handler else {}), **options) as port:
        early = b"".join(masked(0x82, bytes(size)) for size in (14, 1500, 3000))
        head, _, rest = conversation(host, port, request() + early, tls=tls).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"transfer-encoding" not in head.lower()
        # Nothing of the server's own before it or behind it, such as gevent-websocket's Close.
        assert rest == early
        assert isinstance(gate.streams[0], GeventTlsStream) == tls


def test_a_refusal_after_the_101_is_a_close_and_other_refusals_end_the_connection(host: Host) -> None:
    for handler, expected in (
        (None, b"HTTP/1.1 404 Not Found"),
        # Behind it is the number of the refusal.
        (
            WebSocketHandler,
            b"\x88" + bytes([2 + 46 + 19]) + b"\x03\xf0" + b"404 Not Found; there is no tunnel at this path (refusal ",
        ),
    ):
        options = {"handler_class": handler} if handler else {}
        with serving(host, Gate(ServerSettings()), **options) as port:
            answer = conversation(host, port, request("GET /other HTTP/1.1") + masked(0x82, bytes(60)))
            assert expected in answer


def test_a_refusal_keeps_its_status_and_the_time_to_wait() -> None:
    assert close_of(Refused("401 Unauthorized", "no")) == (1008, "401 Unauthorized; no")
    assert close_of(Refused("503 Service Unavailable", "full", [("Retry-After", "10")])) == (
        1013,
        "503 Service Unavailable; Retry-After: 10; full",
    )


def test_a_server_that_keeps_its_sockets_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(ServerSettings())
    statuses = []
    for _ in range(3):
        gate({**environ(SERVER_SOFTWARE="waitress"), "PATH_INFO": "/"}, lambda status, _: statuses.append(status))
    assert statuses == ["501 Not Implemented"] * 3
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert errors == [
        "this server (waitress) cannot give its socket to etherws: run gunicorn with -k etherws.worker.Worker"
    ]


def test_a_proxy_protocol_that_nobody_reads_lets_nobody_in(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    settings = ServerSettings(proxy_protocol=True, trusted_proxy=("127.0.0.1",))
    with serving(host, Gate(settings)) as port:
        for _ in range(2):
            assert conversation(host, port, request()).startswith(b"HTTP/1.1 501 ")
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "this server cannot read the PROXY header" in errors[0]


def test_what_a_server_lacks_is_said_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with serving(host, Gate(ServerSettings())) as port:
        for _ in range(2):
            assert conversation(host, port, request()).startswith(b"HTTP/1.1 101 ")
    assert [record.getMessage() for record in caplog.records if "no waiting list" in record.getMessage()]
    assert caplog.text.count("no waiting list") == 1
