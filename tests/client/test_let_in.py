"""What a server sends first after a 101 that proves nothing."""

from __future__ import annotations

import gevent
import pytest

from etherws.client.let_in import LET_IN_TIMEOUT, first_bytes
from etherws.errors import ConnectError, NotAdmitted
from etherws.tunnel.frames import Decoder, Encoder, Opcode
from tests.lab.streams import FakeStream
from tests.lab.websocket import feed

SERVER = Encoder(server=True)


def answering(data: bytes) -> FakeStream:
    """A stream on which the server says this, and then ends."""
    stream = FakeStream()
    stream.feed(data, b"")
    return stream


def pings(stream: FakeStream) -> list[int]:
    """The opcodes of what we sent."""
    return [opcode for opcode, _ in feed(Decoder(server=True, max_message=1), bytes(stream.sent))]


def test_a_pong_lets_us_in_and_belongs_to_the_session() -> None:
    pong = SERVER.control(Opcode.PONG, b"12345678")
    stream = answering(pong)
    assert first_bytes(stream, b"") == pong
    assert pings(stream) == [Opcode.PING]


def test_what_came_with_the_101_is_enough() -> None:
    stream = answering(b"")
    assert first_bytes(stream, b"\x82\x00") == b"\x82\x00"
    assert not pings(stream)


@pytest.mark.parametrize("early", [True, False], ids=["with the 101", "behind it"])
def test_a_refusal_is_a_failed_attempt(early: bool) -> None:
    close = SERVER.close(1008, "401 Unauthorized; wrong token")
    with pytest.raises(NotAdmitted) as found:
        first_bytes(answering(close), close if early else b"")
    assert str(found.value) == "refused after its 101: 401 Unauthorized; wrong token"
    # Whatever the server adds, it is one reason for the log.
    assert found.value.kind == "refused after its 0: 0 Unauthorized"


def test_a_server_without_a_place_is_one_too() -> None:
    with pytest.raises(ConnectError) as found:
        first_bytes(answering(SERVER.close(1013, "503 Service Unavailable; Retry-After: 7; no port")), b"")
    assert found.value.wait == 7


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x88",
        b"\x88\x7e\x00",
        b"\x88\x02\x03\xec",
        b"\x88\x00",
        SERVER.close(1000, "bye"),
        b"\x88\x20\x03\xf0401 ",
    ],
    ids=["end", "half a head", "too long", "wrong code", "no code", "another", "cut"],
)
def test_anything_else_is_for_the_session(data: bytes) -> None:
    assert first_bytes(answering(data), b"") == data


def test_a_server_that_answers_no_ping_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.client.let_in.LET_IN_TIMEOUT", 0.001)
    assert LET_IN_TIMEOUT > 1
    stream = FakeStream()
    monkeypatch.setattr(stream, "recv", lambda _: gevent.sleep(60))
    assert first_bytes(stream, b"") == b""
