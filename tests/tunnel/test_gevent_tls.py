"""A stream on gevent's own TLS socket, with a client of ours at the other end."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.ssl import SSLContext

from etherws.access.certificates import client_context
from etherws.settings import Trust
from etherws.tunnel.gevent_tls import GeventTlsStream, stream_of
from etherws.tunnel.stream import PlainStream, Stream
from etherws.tunnel.tls import RECORDS_AT_ONCE, TlsStream, der_chain
from tests.lab.hosts import PATIENCE
from tests.lab.pki import Certificate
from tests.lab.sockets import gevent_pair


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run each in a greenlet, to the end of all."""
    greenlets = [gevent.spawn(call) for call in calls]
    gevent.joinall(greenlets, timeout=PATIENCE)
    return [greenlet.get(block=False) for greenlet in greenlets]


def take(stream: Stream, size: int) -> bytes:
    """Exactly `size` bytes."""
    found = b""
    while len(found) < size:
        found += stream.recv(size - len(found))
    return found


@pytest.fixture
def pair(certificate: Certificate) -> Iterator[tuple[TlsStream, GeventTlsStream]]:
    """A client of ours, and the stream of the server's end after the handshake."""
    one, other = gevent_pair()
    client = TlsStream(PlainStream(one), client_context(Trust(str(certificate.cert))), server_hostname="localhost")
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    _, server = together(client.do_handshake, lambda: context.wrap_socket(other, server_side=True))
    found = stream_of(server)
    assert isinstance(found, GeventTlsStream)
    yield client, found
    client.close()
    found.close()


def test_both_ends_tell_the_same_version_and_cipher(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    near, far = pair
    agreed = near.tls_version()
    assert agreed is not None
    assert agreed[0] == "TLSv1.3"
    assert agreed[1].startswith("TLS_")
    assert far.tls_version() == agreed


def test_it_has_what_the_protocol_asks_for(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    assert {name for name in vars(Stream) if not name.startswith("_")} <= set(dir(pair[1]))
    assert pair[1].tcp.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert der_chain(pair[1].tcp) == []
    near, far = gevent_pair()
    with near, far:
        assert isinstance(stream_of(near), PlainStream)


def test_bytes_arrive_in_order_and_a_full_socket_blocks_nobody(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    client, server = pair
    data = random.Random(1).randbytes(3 << 20)

    def write() -> int:
        left, blocked = [memoryview(data), memoryview(b"end")], 0
        watcher = server.writable()
        while left:
            try:
                size = server.write(left)
            except BlockingIOError:
                blocked += 1
                gevent.get_hub().wait(watcher)
                continue
            while left and size >= len(left[0]):
                size -= len(left.pop(0))
            if size:
                left[0] = left[0][size:]
        watcher.close()
        return blocked

    blocked, got = together(write, lambda: take(client, len(data) + 3))
    assert got == data + b"end"
    assert blocked
    _, got = together(lambda: client.sendall(data), lambda: take(server, len(data)))
    assert got == data
    _, got = together(lambda: server.sendall(data), lambda: take(client, len(data)))
    assert got == data


def test_small_buffers_are_one_record_and_large_ones_stay(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    assert pair[1].encode([b"a", b"b"]) == (b"ab",)
    large = [bytes(16_000), bytes(16_000)]
    assert pair[1].encode(large) is large


def test_one_call_takes_few_records_and_says_when_there_are_more(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    client, server = pair
    for _ in range(RECORDS_AT_ONCE + 1):
        client.sendall(b"x")
    with gevent.Timeout(PATIENCE):
        space = bytearray(1000)
        assert server.recv_into(space) == RECORDS_AT_ONCE
        assert server.unread()
        assert server.recv_into(space) == 1
        assert server.drained
        assert not server.unread()
        # The rest of a record is not the kernel's.
        client.sendall(bytes(100))
        assert server.recv_into(bytearray(60)) == 60
        assert not server.drained
        assert server.recv_into(space) == 40
        assert server.drained


def test_the_end_of_sending_is_told_and_what_comes_is_still_read(pair: tuple[TlsStream, GeventTlsStream]) -> None:
    client, server = pair
    with gevent.Timeout(PATIENCE):
        server.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        assert server.recv(10) == b"last"
        assert server.recv(10) == b""
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        assert server.recv(10) == b""
        with pytest.raises(OSError, match="TLS has ended"):
            server.write([b"x"])
