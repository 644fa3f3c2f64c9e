"""TLS by way of memory, and what is set on a TCP socket, on sockets of this process."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.socket import socket as GeventSocket
from gevent.socket import wait_read

from etherws.access.certificates import client_context, server_context
from etherws.errors import SettingsError
from etherws.settings import Trust
from etherws.tunnel.congestion import AUTO, Path, check
from etherws.tunnel.connection import CONTROL_QUEUE, Connection
from etherws.tunnel.frames import BINARY, PING, PONG, Decoder, Encoder
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream
from etherws.tunnel.wire import Version1
from tests.lab.hosts import PATIENCE, Host, until
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
            if other.dry:
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


def test_a_full_socket_gets_the_rest_later_and_the_latest_of_many_pings_is_answered() -> None:
    one, other = gevent_pair()
    link = Connection(PlainStream(one), server=True, wire=Version1())
    messages = [bytes([at]) * 60_000 for at in range(40)]
    assert not link.send(messages)
    reader = gevent.spawn(link.recv)
    pings = Encoder(server=False)
    for number in range(100):
        other.sendall(pings.control(PING, bytes([number])))
    gevent.sleep(0)
    decoder = Decoder(server=False, max_message=65_600)
    found: list[tuple[int, bytes]] = []
    with gevent.Timeout(PATIENCE):
        while len(found) < len(messages) + CONTROL_QUEUE + 1:
            found += [(opcode, bytes(data)) for opcode, data in decoder.received(other.recv_into(decoder.space()))]
    assert found[: len(messages)] == [(BINARY, message) for message in messages]
    assert found[-1] == (PONG, bytes([99]))
    assert link.sent.is_set()
    reader.kill()
    other.close()
    link.close(None)


def tcp_pair(host: Host) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over the loopback of a machine."""
    with host.namespace.inside(), socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def congestion(sock: socket.socket) -> str:
    """The socket's congestion control."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_a_named_congestion_control_is_set_and_stays(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        path = Path(one, "reno")
        other.sendall(b"x")
        path.look(1.0, narrow=True)
        assert congestion(one) == "reno"
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert path.chunk > 0


def test_options_of_tcp_are_set_below_tls_in_tls(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        one.setblocking(False)
        sock: Any = GeventSocket(fileno=one.detach())
        for _ in range(2):
            sock = TlsStream(PlainStream(sock), client_context(Trust(insecure=True)), server_hostname="localhost")
        path = Path(sock, "reno")
        assert congestion(sock) == "reno"
        assert path._info()[0] > 0
        sock.close()


def test_on_loopback_nothing_is_changed_without_need(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        before = congestion(one)
        path = Path(one, AUTO)
        path.look(1.0)
        assert congestion(one) == before


def test_bbr_is_left_again_where_much_passes(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        path, now = Path(one, AUTO), 0.0
        one.settimeout(PATIENCE)
        reader = threading.Thread(target=lambda: all(iter(lambda: other.recv(1 << 20), b"")), daemon=True)
        reader.start()

        def carry() -> None:
            one.sendall(bytes(4 << 20))

        carry()
        # As if the path had been narrow for a moment.
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError:
            pytest.skip("this kernel has no BBR for us")
        path._current = "bbr"
        assert path.doubtful

        def left() -> bool:
            nonlocal now
            carry()
            now += 1.0
            path.look(now, full=False)
            return congestion(one) == "reno"

        until(left, "BBR to be left")
        assert not path.doubtful
        one.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE)


def test_a_socket_that_is_not_tcp_is_left_alone() -> None:
    for end in socket.socketpair():
        with end:
            Path(end, AUTO).look(1.0, narrow=True)


def test_a_congestion_control_is_checked_by_name() -> None:
    check(AUTO)
    check("reno")
    with pytest.raises(SettingsError, match="warp9"):
        check("warp9")
