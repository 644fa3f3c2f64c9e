"""One connection: what it makes of each frame, how it ends, and what it does while its socket is full."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from time import monotonic

import gevent
import pytest
from gevent import socket as gevent_socket

from etherws.errors import ConnectionClosed, ProtocolError
from etherws.tunnel import connection as module
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import PARSE_FRAMES, Decoder, Encoder, Opcode
from etherws.tunnel.rate_limit import CREDIT, Pacer
from etherws.tunnel.sender import CONTROL_QUEUE
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import COMPLETE, SLICE_PACKETS, Batch, Version1, Version2
from tests.lab.hosts import PATIENCE
from tests.lab.sockets import gevent_pair
from tests.lab.streams import FakeStream
from tests.lab.udp import super_frame
from tests.lab.websocket import feed, frame

FRAME = bytes(range(60))


def connection(stream: FakeStream, *, early: bytes = b"") -> Connection:
    """A server's."""
    return Connection(stream, server=True, wire=Version1(), early=early)


def from_peer(first: int, payload: bytes) -> bytes:
    """A frame of a client's."""
    return frame(first, payload, masked=True)


def sent(stream: FakeStream) -> list[tuple[int, bytes]]:
    """Everything that was sent, decoded."""
    return feed(Decoder(server=False, max_message=1 << 20), bytes(stream.sent))


def packets(found: Connection) -> list[bytes]:
    with gevent.Timeout(PATIENCE):
        return [bytes(packet) for packet in found.recv()]


def filled(*frames: bytes) -> Batch:
    """A batch as the TAP would fill it."""
    batch, end = Batch(), 0
    for each in frames:
        start = end + batch.GAP
        end = start + len(COMPLETE + each)
        batch.view[start:end] = COMPLETE + each
        batch.spans.append((start, end))
    return batch


def test_packets_go_in_and_out() -> None:
    stream = FakeStream(from_peer(0x82, FRAME) * 2)
    one = connection(stream, early=from_peer(0x82, FRAME[:20]))
    assert packets(one) == [COMPLETE + FRAME[:20]]
    assert packets(one) == [COMPLETE + FRAME] * 2
    assert one.send(filled(FRAME, FRAME[:14]))
    assert one.send_queued([COMPLETE + FRAME])
    assert sent(stream) == [(Opcode.BINARY, FRAME), (Opcode.BINARY, FRAME[:14]), (Opcode.BINARY, FRAME)]


def test_a_full_socket_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeStream(room=10)
    one = connection(stream)
    assert not one.send(filled(FRAME))
    stream.room = 1000
    assert one.wait_writable() == one.congestion.chunk
    # With room in time it was not full.
    monkeypatch.setattr(module, "FULL_SOCKET_TIMEOUT", PATIENCE)
    stream.room = 10
    sending = gevent.spawn(one.send, filled(FRAME))
    gevent.sleep(0)
    assert not sending.ready()
    stream.room = 1000
    assert sending.get(timeout=PATIENCE) is True
    assert sent(stream) == [(Opcode.BINARY, FRAME)] * 2


def test_text_is_warned_of_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    stream = FakeStream(*[from_peer(0x81, b"{}")] * 3, from_peer(0x82, FRAME), b"")
    one = Connection(stream, server=True, wire=Version1(), name="192.0.2.9")
    assert packets(one) == [COMPLETE + FRAME]
    assert one.drops + one.wire.drops == {"text": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "192.0.2.9 sends text messages, which are no Ethernet and are dropped; is it another kind of tunnel?"
    ]
    one.close(None)


@pytest.mark.parametrize(("mtu", "size", "warned"), [(1500, 1522, 0), (1500, 1523, 1), (None, 9000, 0)])
def test_frames_of_a_larger_mtu_are_warned_of_once(
    mtu: int | None, size: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer of version 1 does not tell its MTU."""
    large = FakeStream(*[from_peer(0x82, bytes(size))] * 2, from_peer(0x82, FRAME), b"")
    one = Connection(large, server=True, wire=Version1(), name="192.0.2.9", mtu=lambda: mtu)
    got = packets(one) + packets(one) + packets(one)
    assert got == [bytes(10 + size)] * 2 + [COMPLETE + FRAME]
    assert [record.getMessage() for record in caplog.records] == [
        f"192.0.2.9 sends frames of {size} bytes, but the MTU here is 1500: the MTUs differ. Larger frames can be lost"
        " without an error; give both ends the lower one by --mtu"
    ] * warned
    one.close(None)


def test_an_mtu_that_was_raised_meanwhile_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    mtus = [1500, 9000]
    large = FakeStream(from_peer(0x82, FRAME), *[from_peer(0x82, bytes(9014))] * 2, b"")
    one = Connection(large, server=True, wire=Version1(), mtu=lambda: mtus.pop(0))
    assert len(packets(one) + packets(one) + packets(one)) == 3
    assert not mtus
    assert not caplog.records
    one.close(None)


def test_frames_of_version_2_are_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    record = (9024).to_bytes(4, "big") + bytes(9024)
    one = Connection(FakeStream(from_peer(0x82, record), b""), server=True, wire=Version2(), mtu=lambda: 1500)
    assert packets(one) == [bytes(9024)]
    assert not caplog.records
    one.close(None)


def test_pings_are_answered_and_text_and_short_messages_are_dropped() -> None:
    data = [from_peer(0x89, b"?"), from_peer(0x81, b"text"), from_peer(0x82, b"short"), from_peer(0x8A, b"unasked")]
    stream = FakeStream(b"".join(data), from_peer(0x82, FRAME))
    one = connection(stream)
    assert packets(one) == [COMPLETE + FRAME]
    assert sent(stream) == [(Opcode.PONG, b"?")]
    assert one.drops + one.wire.drops == {"text": 1, "runt": 1}
    assert one.delays.round_trip is None


def test_a_pong_tells_the_round_trip_and_a_wrong_one_does_not() -> None:
    stream = FakeStream()
    one = connection(stream)
    one.ping()
    ((opcode, payload),) = sent(stream)
    assert opcode == Opcode.PING
    stream.feed(from_peer(0x8A, b"another") + from_peer(0x82, FRAME))
    packets(one)
    assert one.delays.round_trip is None
    stream.feed(from_peer(0x8A, payload) + from_peer(0x82, FRAME))
    packets(one)
    assert one.delays.round_trip is not None
    assert 0 < one.delays.round_trip < PATIENCE
    # The same pong again tells nothing.
    before = one.delays.round_trip
    stream.feed(from_peer(0x8A, payload) + from_peer(0x82, FRAME))
    packets(one)
    assert one.delays.round_trip == before


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [(b"", None, "code none$"), (b"\x03\xe9", 1001, "code 1001$"), (b"\x03\xe9a\nb", 1001, "code 1001: a.b$")],
)
def test_a_close_ends_it_both_ways(payload: bytes, code: int | None, words: str) -> None:
    stream = FakeStream(from_peer(0x88, payload) + from_peer(0x82, FRAME))
    one = connection(stream)
    for call in (one.recv, one.recv, lambda: one.send(filled(FRAME)), lambda: one.send_queued([COMPLETE + FRAME])):
        with pytest.raises(ConnectionClosed, match=words) as error:
            call()
        assert error.value.code == code
    one.ping()
    assert not stream.sent
    # Nothing of the peer's is waited for any more.
    one.close(code)
    assert stream.reads == 1
    assert [opcode for opcode, _ in sent(stream)] == [Opcode.CLOSE]


def test_what_came_with_a_close_is_delivered_first() -> None:
    one = connection(FakeStream(from_peer(0x82, FRAME) + from_peer(0x88, b"")))
    assert packets(one) == [COMPLETE + FRAME]
    with pytest.raises(ConnectionClosed):
        one.recv()


def test_a_wrong_close_is_a_mistake() -> None:
    with pytest.raises(ProtocolError, match="close code 1005"):
        connection(FakeStream(from_peer(0x88, b"\x03\xed"))).recv()


def test_a_wrong_record_is_a_mistake() -> None:
    one = Connection(FakeStream(from_peer(0x82, b"no record")), server=True, wire=Version2())
    with pytest.raises(ProtocolError, match="record cut short"):
        one.recv()


def test_what_came_ahead_of_a_close_is_delivered_before_anybody_learns_of_it() -> None:
    record = (len(COMPLETE + FRAME)).to_bytes(4, "big") + COMPLETE + FRAME
    ends = {
        "Close": from_peer(0x88, b"\x03\xe8"),
        "invalid Close": from_peer(0x88, b"\x03\xed"),
        "wrong frame": b"\xff\xff",
        "wrong record": from_peer(0x82, b"no record"),
        "wrong record in the same message": b"",
    }
    for name, end in ends.items():
        message = from_peer(0x82, record * 2) if end else from_peer(0x82, record * 2 + b"no record")
        one = Connection(FakeStream(message + end), server=True, wire=Version2())
        assert packets(one) == [COMPLETE + FRAME] * 2, name
        # The other greenlet can send, until recv() is called again: everything is delivered then.
        assert one.send(filled(FRAME)), name
        with pytest.raises(ConnectionClosed if name == "Close" else ProtocolError):
            one.recv()
        if name == "Close":
            with pytest.raises(ConnectionClosed, match="closed by the peer, code 1000"):
                one.send(filled(FRAME))


def test_nothing_behind_a_close_is_delivered() -> None:
    one = connection(FakeStream(from_peer(0x82, FRAME) + from_peer(0x88, b"") + from_peer(0x82, FRAME)))
    assert packets(one) == [COMPLETE + FRAME]
    with pytest.raises(ConnectionClosed):
        one.recv()


def test_the_last_of_many_pings_is_answered_by_one_write() -> None:
    stream = FakeStream(b"".join(from_peer(0x89, bytes([at])) for at in range(200)) + from_peer(0x82, FRAME))
    one = connection(stream)
    assert packets(one) == [COMPLETE + FRAME]
    assert sent(stream) == [(Opcode.PONG, bytes([199]))]
    assert len(stream.writes) == 1


def test_a_read_full_of_pings_costs_a_bounded_part_of_it_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeStream(from_peer(0x89, b"") * 20_000 + from_peer(0x82, FRAME))
    one = connection(stream)
    waits = 0

    def wait(event: object = None) -> None:
        nonlocal waits
        waits += 1

    # Each turn is over at once.
    monkeypatch.setattr(one._turn, "over", lambda: True)
    monkeypatch.setattr(one._turn, "wait", wait)
    assert packets(one) == [COMPLETE + FRAME]
    assert waits >= 20_000 / PARSE_FRAMES
    assert len(stream.writes) <= 20_000 / PARSE_FRAMES + 1


def test_a_message_of_many_records_takes_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    record = (len(COMPLETE + FRAME[:14])).to_bytes(4, "big") + COMPLETE + FRAME[:14]
    one = Connection(FakeStream(from_peer(0x82, record * 37_000)), server=True, wire=Version2())
    waits, found = 0, list[int]()

    def wait(event: object = None) -> None:
        nonlocal waits
        waits += 1

    monkeypatch.setattr(one._turn, "over", lambda: True)
    monkeypatch.setattr(one._turn, "wait", wait)
    while sum(found) < 37_000:
        found.append(len(one.recv()))
    assert max(found) == SLICE_PACKETS
    assert waits >= len(found)


def test_reading_ends_a_while_after_sending_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeStream(from_peer(0x82, FRAME), from_peer(0x82, FRAME), b"")
    stream.fail(BrokenPipeError(32, "Broken pipe"))
    one = connection(stream)
    with pytest.raises(ConnectionClosed):
        one.send(filled(FRAME))
    assert packets(one) == [COMPLETE + FRAME]
    now = monotonic() + module.LAST_READ_TIMEOUT
    monkeypatch.setattr(module, "monotonic", lambda: now)
    with pytest.raises(ConnectionClosed, match="Broken pipe"):
        one.recv()


def test_end_receiving_ends_it_behind_what_came() -> None:
    near, far = gevent_pair()
    one = Connection(PlainStream(near), server=True, wire=Version1())
    far.sendall(from_peer(0x82, FRAME))
    one.end_receiving()
    assert packets(one) == [COMPLETE + FRAME]
    with pytest.raises(ConnectionClosed):
        one.recv()
    one.close(None)
    far.close()
    # Nothing is left to end.
    one.end_receiving()


def test_a_failure_to_send_ends_receiving_behind_what_came_before() -> None:
    stream = FakeStream(from_peer(0x89, b"?"), from_peer(0x82, FRAME))
    stream.fail(BrokenPipeError(32, "Broken pipe"))
    one = connection(stream)
    assert packets(one) == [COMPLETE + FRAME]
    with pytest.raises(ConnectionClosed, match="Broken pipe"):
        one.recv()
    assert stream.reads == 2


def test_the_end_is_told_and_the_peers_waited_for() -> None:
    stream = FakeStream(from_peer(0x82, FRAME), b"")
    one = connection(stream)
    one.close(1001, "bye")
    one.close(1002)
    assert sent(stream) == [(Opcode.CLOSE, b"\x03\xe9bye")]
    assert stream.reads == 2
    assert stream.ends == [socket.SHUT_WR, socket.SHUT_RDWR, "close"]
    assert stream.watchers_closed
    with pytest.raises(ConnectionClosed, match="closing"):
        one.send(filled(FRAME))


def fails(stream: FakeStream, limits: pytest.MonkeyPatch) -> None:
    """It resets TCP."""
    stream.feed(ConnectionResetError(104, "Connection reset by peer"))


def reads_nothing(stream: FakeStream, limits: pytest.MonkeyPatch) -> None:
    """And its window is closed."""
    stream.room = 0
    limits.setattr(module, "FLUSH_TIMEOUT", 0.01)


def goes_on(stream: FakeStream, limits: pytest.MonkeyPatch) -> None:
    """It never ends its side."""
    limits.setattr(module, "DISCARD_TIMEOUT", 0.01)

    def recv_into(space: memoryview) -> int:
        gevent.sleep(0.001)
        return 1

    limits.setattr(stream, "recv_into", recv_into)


@pytest.mark.parametrize("peer", [fails, reads_nothing, goes_on])
def test_no_peer_can_hold_up_the_end(
    peer: Callable[[FakeStream, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = FakeStream()
    one = connection(stream)
    peer(stream, monkeypatch)
    with gevent.Timeout(PATIENCE):
        one.close(None)
    assert stream.ends[-2:] == [socket.SHUT_RDWR, "close"]


def test_a_lost_peer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT", 10 * PATIENCE)
    stream = FakeStream(room=0)
    one = connection(stream)
    assert not one.send_queued([COMPLETE + FRAME])
    reason = ConnectionClosed("over")
    assert one.lost(reason) is reason
    assert one.lost(ConnectionClosed("again")) is reason
    with gevent.Timeout(PATIENCE):
        one.close(None)
    assert stream.tcp.options[socket.SOL_SOCKET, socket.SO_LINGER] == struct.pack("ii", 1, 0)
    assert stream.reads == 0


def test_a_lost_peer_is_not_waited_for_on_a_real_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT", 10 * PATIENCE)
    near, far = gevent_socket.socketpair()
    with far, gevent.Timeout(PATIENCE):
        one = Connection(PlainStream(near), server=True, wire=Version1())
        while one.send_queued([bytes(1000)]):
            pass
        one.lost(ConnectionClosed("over"))
        one.close(None)


def test_the_first_failure_is_the_reason() -> None:
    stream = FakeStream()
    one = connection(stream)
    stream.fail(BrokenPipeError(32, "Broken pipe"))
    with pytest.raises(ConnectionClosed):
        one.send(filled(FRAME))
    assert "Broken pipe" in str(one.lost(ConnectionClosed("later")))


def test_a_limited_rate_is_the_receivers_and_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[str, int | None]] = []
    one = connection(FakeStream())
    monkeypatch.setattr(one.congestion, "limit_receive_window", lambda rate: limits.append(("window", rate)))
    monkeypatch.setattr(one._receiver, "limit_rate", lambda pacer: limits.append(("receiver", pacer and pacer.rate)))
    one.limit_rate(Pacer(1_000_000))
    assert limits == [("window", 1_000_000), ("receiver", 1_000_000)]
    one.limit_rate(None)
    assert limits[2:] == [("window", None), ("receiver", None)]


def test_a_limited_rate_counts_what_super_frames_become() -> None:
    # Who sends 184 bytes that become 5,504 on the LAN would have thirty times the rate.
    tiny = super_frame(bytes(128), 1)
    message = struct.pack(">I", len(tiny)) + tiny
    one = Connection(FakeStream(frame(0x82, message, masked=True)), server=True, wire=Version2(uso=True))
    pacer = Pacer(80_000)
    one.limit_rate(pacer)
    before = monotonic()
    assert one.recv() == [tiny]
    assert pacer.wait(0, before) >= 5504 * 8 / 80_000 - CREDIT
    one.limit_rate(None)
    one._receiver.charge(1_000_000)
    assert pacer.wait(0, before) < 2


def test_what_waits_in_the_kernel_is_counted_and_a_local_socket_keeps_its_address() -> None:
    near, far = gevent_pair()
    with far, near:
        one = Connection(PlainStream(near), server=True, wire=Version1())
        assert one.unread() == 0
        far.sendall(b"seven b")
        assert one.unread() == 7
        assert not one.local_address_gone()


def test_a_full_socket_gets_the_rest_later_and_the_latest_of_many_pings_is_answered() -> None:
    one, other = gevent_pair()
    sending = Connection(PlainStream(one), server=True, wire=Version1())
    messages = [bytes([at]) * 60_000 for at in range(40)]
    assert not sending.send_queued([COMPLETE + message for message in messages])
    reader = gevent.spawn(sending.recv)
    pings = Encoder(server=False)
    for number in range(100):
        other.sendall(pings.control(Opcode.PING, bytes([number])))
        with gevent.Timeout(PATIENCE):
            while sending.unread():
                gevent.sleep(0)
    decoder = Decoder(server=False, max_message=65_600)
    found: list[tuple[int, bytes]] = []
    with gevent.Timeout(PATIENCE):
        while len(found) < len(messages) + CONTROL_QUEUE + 1:
            found += [(opcode, bytes(data)) for opcode, data in decoder.received(other.recv_into(decoder.space()))]
    assert found[: len(messages)] == [(Opcode.BINARY, message) for message in messages]
    assert found[-1] == (Opcode.PONG, bytes([99]))
    sending.flush()
    reader.kill()
    other.close()
    sending.close(None)
