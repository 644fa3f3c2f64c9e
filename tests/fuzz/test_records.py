"""Records of version 2: our reading against a second one, made from docs/wire.rst sentence by sentence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import ProtocolError
from etherws.tunnel.wire import Version1, Version2
from tests.lab.ip import checksum


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def records(message: bytes) -> list[bytes] | int:
    """The packets in a message by docs/wire.rst, read sentence by sentence; or the close code of the first mistake."""
    packets = []
    while message:
        if len(message) < 4 + 24:
            return 1002
        length = int.from_bytes(message[:4], "big")
        if length > 65_568:
            return 1009
        packet, message = message[4 : 4 + length], message[4 + length :]
        if length < 24 or len(packet) < length:
            return 1002
        flags, gso_type, frame = packet[0], packet[1], packet[10:]
        hdr_len, gso_size, csum_start, csum_offset = (number(packet[at : at + 2]) for at in (2, 4, 6, 8))
        if flags not in (0, 1, 2, 3) or (flags in (1, 3) and csum_start + csum_offset + 1 >= len(frame)):
            return 1002
        if gso_type not in (0, 1, 4, 0x81, 0x84) or (gso_type and (gso_size < 8 or hdr_len > len(frame))):
            return 1002
        if gso_type:
            # No frame here is TCP.
            continue
        packet = packet[:2] + bytes(2) + packet[4:]
        if flags in (1, 3):
            # None is UDP: its checksum is filled in.
            place = slice(csum_start + csum_offset, csum_start + csum_offset + 2)
            filled = bytearray(frame)
            filled[place] = (checksum(frame[csum_start:]) or 0xFFFF).to_bytes(2, "big")
            packet = bytes(10) + filled
        packets.append(packet)
    return packets


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Records, mostly right."""
    message = b""
    small = st.integers(0, 90) | st.sampled_from([1448, 0xFFFF])
    for _ in range(draw(st.integers(0, 5))):
        packet = bytes([draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 0xFF]))])
        packet += bytes([draw(st.sampled_from([0, 0, 0, 1, 4, 0x81, 0x84, 0x80, 3, 5]))])
        packet += b"".join(draw(small).to_bytes(2, "little") for _ in range(4))
        packet += bytes(draw(st.sampled_from([14, 14, 60, 60, 90, 13, 0, 65_558, 65_559])))
        off = draw(st.sampled_from([0] * 12 + [1, -1, 70_000]))
        message += max(0, len(packet) + off).to_bytes(4, "big") + packet
    at = draw(st.integers(0, len(message)))
    return draw(st.sampled_from([message, message, message, message[:at], message + bytes(at % 40)]))


@given(messages() | st.binary(max_size=100))
def test_records_are_read_as_the_specification_says(message: bytes) -> None:
    expected = records(message)
    try:
        found = [bytes(packet) for packets in Version2().unpack([message]) for packet in packets]
    except ProtocolError as exc:
        assert exc.code == expected
    else:
        assert found == expected


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_messages_of_version_1_are_frames(messages: list[bytes]) -> None:
    wire = Version1()
    found = [bytes(packet) for packets in wire.unpack(messages) for packet in packets]
    assert found == [bytes(10) + message for message in messages if len(message) >= 14]
    assert wire.drops["runt"] == len(messages) - len(found)
