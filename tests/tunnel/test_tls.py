"""TLS by way of memory, on sockets of this process."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.socket import wait_read

from bench.tls_records import DATA, KEY_UPDATE_REQUESTED, RecordWriter, secrets
from etherws.access.certificates import client_context, server_context
from etherws.settings import Trust
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import ANSWERS_BYTES, RECORDS_AT_ONCE, USELESS_RECORDS, TlsStream
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
        data = b"".join(one.encode(some))
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


class Counted:
    """Counts the calls of an SSLObject."""

    def __init__(self, tls: Any) -> None:
        self._tls, self.reads = tls, 0

    def read(self, *args: Any) -> Any:
        """Count it."""
        self.reads += 1
        return self._tls.read(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)


@pytest.fixture(params=["server", "client"])
def flooded(request: pytest.FixtureRequest, certificate: Certificate, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Both ends take records by hand: the one whose name is the parameter, and what the other one would send."""
    one, other = gevent_pair()
    contexts = (
        client_context(Trust(str(certificate.cert))),
        server_context(str(certificate.cert), str(certificate.key)),
    )
    contexts[0].keylog_filename = str(tmp_path / "keys")
    # Session tickets would be the first records.
    contexts[1].num_tickets = 0
    client = TlsStream(PlainStream(one), contexts[0], server_hostname="localhost")
    server = TlsStream(PlainStream(other), contexts[1])
    together(client.do_handshake, server.do_handshake)
    label, stream, raw = {
        "server": ("CLIENT_TRAFFIC_SECRET_0", server, one),
        "client": ("SERVER_TRAFFIC_SECRET_0", client, other),
    }[request.param]
    keys = RecordWriter(secrets(tmp_path / "keys")[label][1])
    yield stream, (keys, raw)
    client.close()
    server.close()


@pytest.mark.parametrize("kind", ["key updates", "answered key updates", "empty records"])
def test_records_without_data_end_a_connection_in_bounded_work(flooded: tuple[Any, Any], kind: str) -> None:
    stream, (keys, raw) = flooded
    make = {
        "key updates": keys.key_update,
        "answered key updates": partial(keys.key_update, KEY_UPDATE_REQUESTED),
        "empty records": partial(keys.record, DATA, b""),
    }[kind]
    raw.sendall(b"".join(make() for _ in range(2000)))
    stream._tls = Counted(stream._tls)
    with gevent.Timeout(PATIENCE), pytest.raises(ssl.SSLError):
        stream.recv(100)
    # A part of what came was looked at, and the answers are few.
    assert stream._tls.reads <= 2 + USELESS_RECORDS / RECORDS_AT_ONCE
    assert len(stream._waiting) > 2000
    assert stream._outgoing.pending < 4096


def test_some_records_without_data_are_taken(flooded: tuple[Any, Any]) -> None:
    stream, (keys, raw) = flooded
    for _ in range(10):
        raw.sendall(b"".join(keys.key_update() for _ in range(5)) + keys.record(DATA, b"data"))
        with gevent.Timeout(PATIENCE):
            assert stream.recv(100) == b"data"


def test_answers_that_nobody_takes_end_a_connection(flooded: tuple[Any, Any]) -> None:
    stream, (keys, raw) = flooded
    most = 0

    def read() -> None:
        nonlocal most
        while True:
            stream.recv(100)
            most = max(most, stream._outgoing.pending)

    reading = gevent.spawn(read)
    with gevent.Timeout(PATIENCE):
        while not reading.ready():
            with contextlib.suppress(OSError):
                raw.sendall(keys.key_update(KEY_UPDATE_REQUESTED) + keys.record(DATA, b"x"))
            gevent.sleep(0)
    assert "without data" in str(reading.exception)
    # One piece more, at most.
    assert most <= ANSWERS_BYTES + 32 * RECORDS_AT_ONCE


def test_small_records_come_in_pieces(flooded: tuple[Any, Any]) -> None:
    stream, (keys, raw) = flooded
    raw.sendall(b"".join(keys.record(DATA, b"x") for _ in range(100)))
    space = bytearray(1000)
    assert stream.recv_into(space) == RECORDS_AT_ONCE
    # There is more, which no event of the kernel will tell.
    assert not stream.drained
    sizes = [stream.recv_into(space) for _ in range(3)]
    assert sum(sizes) == 100 - RECORDS_AT_ONCE
    assert stream.drained


def test_records_arrive_whatever_the_pieces_of_their_headers(flooded: tuple[Any, Any]) -> None:
    stream, (keys, raw) = flooded
    data = b"".join(keys.record(DATA, bytes([at])) for at in range(20))

    def send() -> None:
        for at in range(len(data)):
            raw.sendall(data[at : at + 1])
            gevent.sleep(0)

    _, found = together(send, partial(take, stream, 20, 5))
    assert found == bytes(range(20))


def test_a_handshake_of_endless_records_can_be_ended_by_a_deadline(certificate: Certificate) -> None:
    one, other = gevent_pair()
    server = TlsStream(PlainStream(other), server_context(str(certificate.cert), str(certificate.key)))
    blocks = 0

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        nonlocal blocks
        blocks += 1
        yield

    # The beginning of a ClientHello of 16 MB less one byte, in records of one byte.
    hello = b"\x01\x00\x40\x00" + bytes(16_000)
    one.sendall(b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(3000)))
    with pytest.raises(TimeoutError), gevent.Timeout(0.0, TimeoutError()):
        server.do_handshake(turn)
    assert blocks < 100
    one.close()
    server.close()


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
