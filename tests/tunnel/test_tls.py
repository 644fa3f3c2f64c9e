"""TLS by way of memory, on sockets of this process."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.socket import wait_read

from etherws.access.certificates import client_context, server_context
from etherws.settings import Trust
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream
from tests.lab.hosts import PATIENCE
from tests.lab.pki import Certificate
from tests.lab.sockets import gevent_pair


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run each in a greenlet, to the end of all."""
    greenlets = [gevent.spawn(call) for call in calls]
    gevent.joinall(greenlets, timeout=PATIENCE)
    return [greenlet.get(block=False) for greenlet in greenlets]


@pytest.fixture(params=[1, 2], ids=["TLS", "TLS in TLS"])
def pair(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[tuple[TlsStream, TlsStream]]:
    """A client and a server that shook hands."""
    one, other = gevent_pair()
    ends: tuple[Any, Any] = PlainStream(one), PlainStream(other)
    for _ in range(request.param):
        ends = (
            TlsStream(ends[0], client_context(Trust(str(certificate.cert))), server_hostname="localhost"),
            TlsStream(ends[1], server_context(str(certificate.cert), str(certificate.key))),
        )
        together(*(end.do_handshake for end in ends))
    yield ends
    for end in ends:
        end.close()


def take(sock: TlsStream, size: int, piece: int) -> bytes:
    """Exactly `size` bytes, asked for in pieces."""
    found = b""
    while len(found) < size:
        found += sock.recv(min(piece, size - len(found)))
    return found


@pytest.mark.parametrize("piece", [1 << 20, 16_384, 1000, 7])
def test_bytes_arrive_in_order_whatever_the_pieces(pair: tuple[TlsStream, TlsStream], piece: int) -> None:
    sent = random.Random(piece).randbytes(300_000 if piece > 7 else 20_000)
    for sender, receiver in (pair, pair[::-1]):
        _, found = together(partial(sender.sendall, sent), partial(take, receiver, len(sent), piece))
        assert found == sent


def test_who_waits_for_the_wire_only_while_it_is_dry_misses_nothing(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    sent = random.Random(1).randbytes(1_000_000)
    # Less than one read from the socket brings.
    other._space = other._space[:10_000]

    def receive() -> bytes:
        found, space = b"", bytearray(50_000)
        while len(found) < len(sent):
            if other.drained:
                wait_read(other.fileno(), PATIENCE)
            found += space[: other.recv_into(space)]
        return found

    assert together(lambda: one.sendall(sent), receive)[1] == sent


def test_many_buffers_are_one_stream(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    buffers = [bytes([at]) * size for at, size in enumerate((0, 1, 16_384, 0, 16_385, 100_000))]
    for some in (buffers, buffers[:2], [b""], []):
        (data,) = one.encode(some)
        plain = b"".join(some)
        _, found = together(partial(one.tcp.sendall, data), partial(take, other, len(plain), 65_536))
        assert found == plain


def test_the_end_is_told_in_tls(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    one.sendall(b"last words")
    one.shutdown(socket.SHUT_WR)
    assert other.recv(100) == b"last words"
    assert other.recv(100) == b""


def test_an_end_that_is_not_told_in_tls_is_an_error(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    one.tcp.shutdown(socket.SHUT_WR)
    with pytest.raises(ssl.SSLEOFError):
        other.recv(100)


def test_what_was_changed_on_the_way_is_an_error(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    data = bytearray(one.encode([b"something"])[0])
    data[-1] ^= 1
    one.tcp.sendall(data)
    with pytest.raises(ssl.SSLError):
        other.recv(100)


def test_a_file_reads_lines(pair: tuple[TlsStream, TlsStream]) -> None:
    one, other = pair
    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest")
    file = other.makefile("rb", -1)
    assert [file.readline() for _ in range(3)] == [b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"]
    assert file.peek() == b"rest"


def test_the_work_of_a_handshake_and_the_waits_in_it_are_told_apart(certificate: Certificate) -> None:
    parts: list[str] = []
    inside: list[str] = []

    @contextmanager
    def part(name: str) -> Iterator[None]:
        assert not inside
        inside.append(name)
        parts.append(name)
        try:
            yield
        finally:
            inside.pop()

    one, other = gevent_pair()
    client = TlsStream(PlainStream(one), client_context(Trust(str(certificate.cert))), server_hostname="localhost")
    server = TlsStream(PlainStream(other), server_context(str(certificate.cert), str(certificate.key)))
    together(client.do_handshake, lambda: server.do_handshake(partial(part, "work"), partial(part, "wait")))
    assert parts[0] == "work"
    # One after the other: nothing is sent or waited for in the work.
    assert parts == ["work", "wait"] * (len(parts) // 2)
    assert len(parts) >= 6
    client.close()
    server.close()
