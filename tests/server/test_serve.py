"""etherws.server.Server around an application of somebody else's, as docs/embedding.rst has it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from etherws.server import Server, tls_contexts
from etherws.settings import ServerSettings
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream
from etherws.wsgi import Application
from tests.lab.hosts import Host
from tests.lab.pki import Certificate
from tests.lab.proxy_protocol import header

PROXIED = ServerSettings(trusted_proxy=("127.0.0.1",), proxy_protocol=True)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Says who asks, and by which scheme."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']}".encode()]


Start = Callable[..., Any]


@pytest.fixture
def start(host: Host) -> Iterator[Start]:
    """Starts a server on a free port of the loopback; gives a socket that is connected to it."""
    servers: list[Server] = []

    def started(*args: Any, **options: Any) -> Any:
        servers.append(Server(("127.0.0.1", 0), *args, **options))
        servers[-1].start()
        return socket.create_connection(servers[-1].address)  # type: ignore[arg-type]

    with host.namespace.inside(), gevent.Timeout(20):
        yield started
        for server in servers:
            server.stop()


def answer(sock: Any) -> bytes:
    """Everything up to the end of TCP, a reset included."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return data


def test_an_application_without_settings_trusts_no_proxy(start: Start) -> None:
    with start(hello) as sock:
        sock.sendall(REQUEST)
        assert answer(sock).endswith(b"http 127.0.0.1")


def test_the_settings_name_the_proxies(start: Start) -> None:
    with start(hello, settings=PROXIED) as sock:
        sock.sendall(header(2, "203.0.113.9") + REQUEST)
        assert answer(sock).endswith(b"http 203.0.113.9")


def test_an_application_of_ours_brings_its_settings(start: Start) -> None:
    with start(Application(PROXIED)) as sock:
        sock.sendall(REQUEST)
        # There is no PROXY header.
        assert answer(sock) == b""


def test_tls_is_ours(start: Start, certificate: Certificate) -> None:
    with start(hello, tls_contexts(str(certificate.cert), str(certificate.key), None)) as sock:
        stream = TlsStream(
            PlainStream(sock), ssl.create_default_context(cafile=str(certificate.cert)), server_hostname="localhost"
        )
        stream.do_handshake()
        stream.sendall(REQUEST)
        data = b""
        while not data.endswith(b"https 127.0.0.1"):
            data += stream.recv(65536)
