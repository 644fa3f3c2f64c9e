"""RFC 6455's framing, both ways and both ends: literal bytes, each rule broken once, and what hypothesis thinks of."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import ProtocolError
from etherws.tunnel.frames import PARSE_FRAMES, READ_BYTES, Decoder, Encoder, Opcode, header
from tests.lab.websocket import feed, frame, xor

MAX = 70_000

BINARY, CLOSE, PING, PONG, TEXT = Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG, Opcode.TEXT


SIZES = [0, 1, 13, 14, 125, 126, 127, 128, 1514, 65535, 65536, MAX]


@pytest.mark.parametrize("server", [True, False], ids=["to the server", "to the client"])
@pytest.mark.parametrize("size", SIZES)
def test_a_message_of_any_length_is_taken(size: int, server: bool) -> None:
    payload = bytes(at % 251 for at in range(size))
    decoder = Decoder(server=server, max_message=MAX)
    assert feed(decoder, frame(0x82, payload, masked=server)) == [(BINARY, payload)]


@pytest.mark.parametrize("size", [126, 65_536])
def test_a_header_that_comes_byte_by_byte_is_waited_for(size: int) -> None:
    data = frame(0x82, bytes(size), masked=True)
    assert feed(Decoder(server=True, max_message=MAX), data, range(1, 15)) == [(BINARY, bytes(size))]


@pytest.mark.parametrize("size", SIZES)
def test_a_server_sends_unmasked_frames(size: int) -> None:
    payload = bytes(size)
    assert b"".join(Encoder(server=True).data([payload])) == frame(0x82, payload, masked=False)


def test_a_client_masks_each_frame_with_a_key_of_its_own() -> None:
    payloads = [bytes(range(20)), bytes(300)] * 20
    encoded = Encoder(server=False).data(payloads)
    keys = set()
    for at, payload in enumerate(payloads):
        head, body = bytes(encoded[2 * at]), bytes(encoded[2 * at + 1])
        assert head[:-4] == header(BINARY, len(payload), 0x80)
        assert xor(body, head[-4:]) == payload
        keys.add(head[-4:])
    assert len(keys) == len(payloads)


def test_control_frames_carry_their_payload() -> None:
    assert Encoder(server=True).control(PONG, b"Hi!") == b"\x8a\x03Hi!"
    masked = Encoder(server=False).control(PING, b"Hi!")
    assert masked[:2] == b"\x89\x83"
    assert xor(masked[6:], masked[2:6]) == b"Hi!"
    with pytest.raises(ValueError, match="125 bytes at most"):
        Encoder(server=True).control(PING, bytes(126))


def test_close_frames_carry_a_code_and_a_reason_that_fits() -> None:
    encoder = Encoder(server=True)
    assert encoder.close() == b"\x88\x00"
    assert encoder.close(1001) == b"\x88\x02\x03\xe9"
    assert encoder.close(1002, "no") == b"\x88\x04\x03\xeano"
    # Cut at a character, not inside one.
    assert encoder.close(1002, "\u00e9" * 100) == b"\x88\x7c\x03\xea" + "\u00e9".encode() * 61


CONTROL = [(CLOSE, b""), (CLOSE, b"\x03\xe8bye"), (PING, b""), (PING, bytes(125)), (PONG, b"Hi!")]


@pytest.mark.parametrize(("opcode", "payload"), CONTROL)
def test_control_frames_are_taken_between_fragments(opcode: int, payload: bytes) -> None:
    data = (
        frame(0x02, b"abc", masked=True)
        + frame(0x80 | opcode, payload, masked=True)
        + frame(0x00, b"", masked=True)
        + frame(0x80, b"def", masked=True)
    )
    assert feed(Decoder(server=True, max_message=MAX), data) == [(opcode, payload), (BINARY, b"abcdef")]


def test_text_is_taken_whole_and_in_fragments() -> None:
    word = "h\u00e9llo".encode()
    data = frame(0x81, word, masked=True) + frame(0x01, word[:2], masked=True) + frame(0x80, word[2:], masked=True)
    assert feed(Decoder(server=True, max_message=MAX), data) == [(TEXT, word), (TEXT, word)]


WRONG_TEXT = [b"\xce\xba\xe1\xbd\xb9\xf4\x90", b"abc\xe0\x80", b"a\xc0", b"\xf0\x9d\x84\x9e\x80"]


@pytest.mark.parametrize("server", [True, False], ids=["to the server", "to the client"])
@pytest.mark.parametrize("text", WRONG_TEXT)
def test_text_is_refused_at_the_first_byte_that_is_wrong(text: bytes, server: bool) -> None:
    rest = b"and more"
    whole = frame(0x81, text + rest, masked=server)
    begin, ping = frame(0x01, text[:1], masked=server), frame(0x89, b"?", masked=server)
    for data in (whole, begin + ping + frame(0x80, text[1:] + rest, masked=server)):
        at = len(data) - len(rest)
        for cuts in ((), range(1, at)):
            decoder = Decoder(server=server, max_message=MAX)
            feed(decoder, data[: at - 1], cuts)
            with pytest.raises(ProtocolError, match="UTF-8") as caught:
                feed(decoder, data[at - 1 : at])
            assert caught.value.code == 1007


BROKEN = {
    "RSV1": (frame(0xC2, b"", masked=True), 1002, "reserved bit"),
    "RSV2": (frame(0xA2, b"", masked=True), 1002, "reserved bit"),
    "RSV3": (frame(0x92, b"", masked=True), 1002, "reserved bit"),
    "opcode 3": (frame(0x83, b"", masked=True), 1002, "reserved opcode 0x3"),
    "opcode 11": (frame(0x8B, b"", masked=True), 1002, "reserved opcode 0xb"),
    "unmasked": (frame(0x82, b"", masked=False), 1002, "unmasked frame"),
    "control of 126": (frame(0x89, bytes(126), masked=True), 1002, "over 125 bytes"),
    "fragmented control": (frame(0x09, b"", masked=True), 1002, "fragmented control frame"),
    "16-bit length below 126": (b"\x82\xfe\x00\x7d", 1002, "shortest form"),
    "64-bit length below 65,536": (b"\x82\xff" + (65_535).to_bytes(8, "big"), 1002, "shortest form"),
    "length with the top bit": (b"\x82\xff" + (1 << 63).to_bytes(8, "big"), 1002, "shortest form"),
    "a byte too many": (frame(0x82, b"", masked=True, length=MAX + 1)[:10], 1009, "70001 bytes; the limit is 70000"),
    "exabytes": (b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"), 1009, "the limit is 70000"),
    "fragments too many": (
        frame(0x02, bytes(MAX), masked=True) + frame(0x80, b"a", masked=True),
        1009,
        "fragment of 1 bytes; the limit is 0",
    ),
    "continuation of nothing": (frame(0x80, b"", masked=True), 1002, "continuation of no message"),
    "message in a message": (
        frame(0x02, b"", masked=True) + frame(0x82, b"", masked=True),
        1002,
        "inside a fragmented",
    ),
    "text in a message": (frame(0x02, b"", masked=True) + frame(0x01, b"", masked=True), 1002, "inside a fragmented"),
    "text not UTF-8": (frame(0x81, b"\xc3(", masked=True), 1007, "not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_told_by_its_code(case: str) -> None:
    data, code, words = BROKEN[case]
    with pytest.raises(ProtocolError, match=words) as caught:
        feed(Decoder(server=True, max_message=MAX), data)
    assert caught.value.code == code


def test_a_masked_frame_from_the_server_is_refused() -> None:
    with pytest.raises(ProtocolError, match="masked frame from the server") as caught:
        feed(Decoder(server=False, max_message=MAX), frame(0x82, b"", masked=True))
    assert caught.value.code == 1002


def test_what_came_before_the_mistake_is_delivered_first() -> None:
    decoder = Decoder(server=True, max_message=MAX)
    data = frame(0x82, b"good", masked=True) + b"\xff\xff"
    assert feed(decoder, data) == [(BINARY, b"good")]
    for _ in range(2):
        with pytest.raises(ProtocolError, match="reserved bit"):
            feed(decoder, b"\x00")


payloads = st.lists(st.binary(max_size=400) | st.sampled_from([bytes(1514), bytes(65535), bytes(MAX)]), max_size=12)


cuts = st.lists(st.integers(1, 5_000), max_size=10)


@given(payloads=payloads, cuts=cuts, server=st.booleans())
def test_what_one_end_encodes_the_other_decodes(payloads: list[bytes], cuts: list[int], server: bool) -> None:
    data = b"".join(Encoder(server=server).data(payloads))
    decoder = Decoder(server=not server, max_message=MAX)
    assert feed(decoder, data, cuts) == [(BINARY, payload) for payload in payloads]


@given(data=st.binary(max_size=3_000), cuts=cuts, server=st.booleans())
def test_bytes_of_strangers_give_messages_or_a_protocol_error(data: bytes, cuts: list[int], server: bool) -> None:
    decoder = Decoder(server=server, max_message=1_000)
    try:
        events = feed(decoder, data, cuts)
    except ProtocolError as exc:
        assert exc.code in (1002, 1007, 1009)
    else:
        assert all(len(payload) <= 1_000 for _, payload in events)


def test_fragments_of_just_the_limit_are_taken_and_binary_need_not_be_utf8() -> None:
    data = b"\x02\x7e\x03\xe7" + b"\xff" * 999 + b"\x80\x01\xfe"
    assert feed(Decoder(server=False, max_message=1000), data) == [(BINARY, b"\xff" * 999 + b"\xfe")]


@pytest.mark.parametrize("first", [*range(0x83, 0x88), *range(0x8B, 0x90), 0x03, 0x0F], ids=hex)
def test_every_reserved_opcode_is_refused(first: int) -> None:
    with pytest.raises(ProtocolError, match=f"reserved opcode {first & 15:#x}") as error:
        feed(Decoder(server=False, max_message=1000), bytes([first, 0]))
    assert error.value.code == 1002


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A], ids=["close", "ping", "pong"])
def test_every_control_frame_of_over_125_bytes_is_refused_by_its_second_byte(first: int) -> None:
    with pytest.raises(ProtocolError, match="over 125") as error:
        feed(Decoder(server=False, max_message=1000), bytes([first, 126]))
    assert error.value.code == 1002


@pytest.mark.parametrize("server", [True, False], ids=["at the server", "at the client"])
def test_there_is_always_room_for_one_more_read(server: bool) -> None:
    # 8 bytes of length, and but one byte of the payload missing: the most that ever waits.
    data = b"".join(Encoder(server=not server).data([bytes(65_536)]))
    decoder = Decoder(server=server, max_message=65_536)
    events: list[tuple[int, bytes]] = []
    for start in range(0, len(data) - 1, READ_BYTES):
        events += feed(decoder, data[start : min(start + READ_BYTES, len(data) - 1)])
    assert events == []
    assert len(decoder.space()) >= READ_BYTES
    assert feed(decoder, data[-1:]) == [(BINARY, bytes(65_536))]


def test_a_control_frame_may_carry_125_bytes() -> None:
    assert Encoder(server=True).control(PING, b"x" * 125) == b"\x89\x7d" + b"x" * 125


def test_each_control_frame_of_a_client_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter([b"\1\2\3\4", b"\5\6\7\x08"])
    monkeypatch.setattr(os, "urandom", lambda size: next(keys)[:size])
    encoder = Encoder(server=False)
    assert encoder.control(PING, b"\0\0") == b"\x89\x82\1\2\3\4\1\2"
    assert encoder.close() == b"\x88\x80\5\6\7\x08"


@pytest.mark.parametrize("limit", [0, 1, 100, 124], ids=lambda limit: f"limit {limit}")
def test_the_limit_holds_below_126_bytes_too(limit: int) -> None:
    assert feed(Decoder(server=False, max_message=limit), bytes([0x82, limit]) + bytes(limit)) == [
        (BINARY, bytes(limit))
    ]
    with pytest.raises(ProtocolError) as error:
        feed(Decoder(server=False, max_message=limit), bytes([0x82, limit + 1]) + bytes(limit + 1))
    assert error.value.code == 1009


def test_an_error_stays_the_same_error() -> None:
    decoder = Decoder(server=False, max_message=1000)
    with pytest.raises(ProtocolError) as first:
        feed(decoder, b"\x01\x01\xc3\x80\x01(")
    with pytest.raises(ProtocolError) as again:
        feed(decoder, b"\0")
    assert (again.value.code, str(again.value)) == (first.value.code, str(first.value))


def test_many_frames_come_in_pieces() -> None:
    decoder = Decoder(server=True, max_message=100)
    data = frame(0x89, b"", masked=True) * (PARSE_FRAMES * 2) + b"\x82"
    decoder.space()[: len(data)] = data
    assert len(decoder.received(len(data))) == PARSE_FRAMES
    assert decoder.pending
    assert len(decoder.received(0)) == PARSE_FRAMES
    # A frame that is not complete is perhaps left.
    assert decoder.pending
    assert decoder.received(0) == []
    assert not decoder.pending


def test_the_memory_of_a_long_message_goes_back() -> None:
    decoder = Decoder(server=False, max_message=1 << 20)
    message = frame(0x82, bytes(1 << 20), masked=False)
    events = feed(decoder, message[:-1])
    assert events == []
    assert decoder.excess > 1 << 18
    assert len(feed(decoder, message[-1:])[0][1]) == 1 << 20
    decoder.space()
    assert decoder.excess == 0
    # Half a message at the end of the usual buffer moves to the front.
    small = frame(0x82, bytes(READ_BYTES // 3), masked=False)
    assert len(feed(decoder, small * 20 + small[:-1])) == 20
    assert decoder.excess == 0
    assert decoder.rest() == len(small) - 1
    assert feed(decoder, small[-1:]) == [(Opcode.BINARY, bytes(READ_BYTES // 3))]


def test_fragments_are_counted_as_a_long_message_too() -> None:
    decoder = Decoder(server=False, max_message=1 << 20)
    piece = frame(0x00, bytes(1000), masked=False)
    feed(decoder, frame(0x02, b"", masked=False) + piece * 1000)
    assert decoder.excess > 700_000
    feed(decoder, frame(0x80, b"", masked=False))
    assert decoder.excess == 0


def test_at_rest_only_what_has_come_of_a_message_is_kept() -> None:
    decoder = Decoder(server=False, max_message=1000)
    message, piece = frame(0x82, b"message", masked=False), frame(0x02, b"mess", masked=False)
    assert decoder.rest() == 0
    for at in range(len(message)):
        assert feed(decoder, message + message[:at]) == [(Opcode.BINARY, b"message")]
        assert decoder.rest() == decoder.rest() == at
        assert feed(decoder, message[at:]) == [(Opcode.BINARY, b"message")]
    # What has come of a message in fragments counts, too.
    assert feed(decoder, piece + b"\x80") == []
    assert decoder.rest() == len(b"mess") + 1
    assert feed(decoder, b"\x03age") == [(Opcode.BINARY, b"message")]
    assert decoder.rest() == 0
