"""Records of version 2: our reading against a second one, made from docs/wire.rst sentence by sentence."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from etherws.errors import ProtocolError
from etherws.tunnel.udp_super_frames import cut
from etherws.tunnel.wire import Version1, Version2
from tests.lab.ip import checksum
from tests.lab.udp import super_frame


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def datagrams(packet: bytes) -> list[bytes] | None:
    """What the receiver's kernel gets of a UDP super-frame, by docs/wire.rst, "UDP super-frames", sentence by sentence;
    None if it is dropped. Frames here have no tags, options or extension headers."""
    gso_size, csum_start, csum_offset = (number(packet[at : at + 2]) for at in (4, 6, 8))
    frame = packet[10:]
    kind, first = frame[12:14], frame[14]
    start = 34 if kind == b"\x08\x00" and first == 0x45 else 54 if kind == b"\x86\xdd" and first >> 4 == 6 else None
    if not packet[0] & 1 or csum_start != start or csum_offset != 6 or frame[23 if start == 34 else 20] != 17:
        return None
    version_4, payload = start == 34, frame[start + 8 :]
    if version_4 and (frame[20] & 0x3F or frame[21]):
        return None
    ip_length = int.from_bytes(frame[16:18], "big") if version_4 else int.from_bytes(frame[18:20], "big") + 40
    if ip_length != len(frame) - 14 or int.from_bytes(frame[start + 4 : start + 6], "big") != 8 + len(payload):
        return None
    if not gso_size < len(payload) <= 128 * gso_size or frame[start + 6 : start + 8] == bytes(2):
        return None
    to_dhcp = int.from_bytes(frame[start + 2 : start + 4], "big") in (67, 547)
    return cut(packet) if frame[0] & 1 or to_dhcp else [packet]


def records(message: bytes, *, padding: bool, uso: bool = False) -> list[bytes] | int:
    """The packets in a message by docs/wire.rst, read sentence by sentence; or the close code of the first mistake. It
    is the first one of a connection, on which `padding` was agreed on, or was not."""
    packets = list[bytes]()
    while message:
        if padding and message[:4] == bytes(4):
            return 1002 if len(message) > 131_072 else packets
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
        if gso_type not in (0, 1, 4, 0x81, 0x84) + ((5,) if uso else ()):
            return 1002
        if gso_type and (gso_size < (1 if gso_type == 5 else 8) or hdr_len > len(frame)):
            return 1002
        if gso_type == 5:
            packets += datagrams(packet) or []
            continue
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
        message += draw(st.sampled_from([b""] * 20 + [bytes(4)]))
        off = draw(st.sampled_from([0] * 12 + [1, -1, 70_000]))
        message += max(0, len(packet) + off).to_bytes(4, "big") + packet
    at = draw(st.integers(0, len(message)))
    return draw(st.sampled_from([message, message, message, message[:at], message + bytes(at % 40)]))


@st.composite
def udp_messages(draw: st.DrawFn) -> bytes:
    """UDP super-frames, each with a few bytes of its headers changed."""
    message = b""
    for _ in range(draw(st.integers(0, 4))):
        size, version = draw(st.sampled_from([1, 2, 100, 1000])), draw(st.sampled_from([4, 4, 6]))
        macs = draw(st.sampled_from([b"\2" * 12, b"\xff" * 6 + b"\2" * 6]))
        payload = draw(st.integers(1, 129)) * size + draw(st.sampled_from([0, 0, 1, -1]))
        packet = bytearray(super_frame(bytes(min(payload, 60_000)), size, version=version, macs=macs))
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            # Flags and gso_type stay.
            packet[draw(st.integers(2, 51 if version == 4 else 71))] = draw(st.integers(0, 255))
        if draw(st.integers(0, 7)) == 0:
            at = 46 if version == 4 else 66
            packet[at : at + 2] = draw(st.sampled_from([67, 547])).to_bytes(2, "big")
        message += len(packet).to_bytes(4, "big") + packet
    return message


@given(messages() | udp_messages())
def test_records_are_read_as_the_specification_says_with_udp_super_frames(message: bytes) -> None:
    expected = records(message, padding=False, uso=True)
    try:
        found = [bytes(packet) for packets in Version2(uso=True).unpack([message]) for packet in packets]
    except ProtocolError as exc:
        assert exc.code == expected
    else:
        assert found == expected


@given(message=messages() | st.binary(max_size=100), padding=st.booleans())
@example(message=bytes(131_072), padding=True)
@example(message=bytes(131_073), padding=True)
@example(message=bytes(3), padding=True)
@example(message=bytes(4), padding=False)
def test_records_are_read_as_the_specification_says(message: bytes, padding: bool) -> None:
    expected = records(message, padding=padding)
    try:
        found = [bytes(packet) for packets in Version2(padding=padding).unpack([message]) for packet in packets]
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
