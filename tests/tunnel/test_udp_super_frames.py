"""What a UDP super-frame must be, and the datagrams that it is cut into."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.tunnel.udp_super_frames import SEGMENTS_MAX, cut, is_sound
from tests.lab.ip import DESTINATION, SERVICE_TAG, TAG, UDP, checksum, extension, ipv4, ipv6
from tests.lab.udp import MACS, begun, finished, super_frame

#: A frame's headers before UDP's: what is before IP, options of IP or extension headers, and the version.
KINDS = {
    "IPv4": (b"", b"", 4),
    "IPv4, tagged twice": (SERVICE_TAG + TAG, b"", 4),
    "IPv4, options": (TAG, b"\1\1\1\0", 4),
    "IPv6": (b"", b"", 6),
    "IPv6, tagged, extension": (TAG, extension(UDP), 6),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "payload"), [(1400, 1401), (1000, 3000), (7, 100), (1, SEGMENTS_MAX), (512, 60_000)])
def test_a_super_frame_becomes_the_datagrams_that_its_sender_wanted(kind: str, size: int, payload: int) -> None:
    tags, more, version = KINDS[kind]
    data = bytes(at * 7 & 0xFF for at in range(payload))
    packets = cut(super_frame(data, size, tags=tags, more=more, version=version))
    wanted = [
        finished(data[at : at + size], tags=tags, more=more, version=version, number=number)
        for number, at in enumerate(range(0, payload, size))
    ]
    assert list(map(complete, packets)) == wanted


def complete(packet: bytes) -> bytes:
    """The frame as a kernel finishes it."""
    flags, gso, hdr_len, gso_size, start, offset = struct.unpack_from("<BBHHHH", packet)
    assert (flags, gso, hdr_len, gso_size, offset) == (1, 0, 0, 0, 6)
    frame = packet[10:]
    value = checksum(frame[start:]) or 0xFFFF
    return frame[: start + 6] + value.to_bytes(2, "big") + frame[start + 8 :]


@given(st.integers(0, 0xFFFF), st.integers(1, 300), st.binary(min_size=2, max_size=600))
def test_checksums_are_right_whatever_is_in_it(identification: int, size: int, data: bytes) -> None:
    packet = super_frame(data, size, identification=identification)
    for number, each in enumerate(cut(packet)):
        frame = complete(each)
        assert checksum(frame[14:34]) == 0
        # A kernel writes 0 for what would be 0xFFFF, and 0xFFFF is not what any header has.
        assert frame[24:26] != b"\xff\xff"
        assert int.from_bytes(frame[18:20], "big") == (identification + number) & 0xFFFF
        pseudo = frame[26:34] + struct.pack(">HH", UDP, len(frame) - 34)
        assert checksum(pseudo + frame[34:]) == 0


def sound(packet: bytes) -> bool:
    _, _, _, gso_size, start, _ = struct.unpack_from("<BBHHHH", packet)
    return is_sound(memoryview(packet)[10:], 14, start, gso_size)


@pytest.mark.parametrize("version", [4, 6])
def test_lengths_and_checksum_must_be_those_of_the_frame(version: int) -> None:
    packet = super_frame(bytes(3000), 1000, version=version)
    assert sound(packet)
    start = 24 + (20 if version == 4 else 40)
    for at in (24 + (2 if version == 4 else 4), start + 4):
        for change in (-1, 1, 1000, -2000):
            changed = bytearray(packet)
            value = int.from_bytes(packet[at : at + 2], "big") + change
            changed[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")
            assert not sound(bytes(changed))
    assert not sound(packet[: start + 6] + bytes(2) + packet[start + 8 :])
    assert not sound(packet + b"\0")
    assert not sound(packet[:-1])


@pytest.mark.parametrize(
    ("payload", "size", "wanted"),
    [(1000, 1000, False), (1001, 1000, True), (SEGMENTS_MAX, 1, True), (SEGMENTS_MAX + 1, 1, False), (2, 0, False)],
)
def test_it_is_two_datagrams_at_least_and_as_many_as_a_kernel_takes_at_most(
    payload: int, size: int, wanted: bool
) -> None:
    assert sound(super_frame(bytes(payload), size)) is wanted


def test_a_sum_that_is_all_ones_becomes_zero_in_the_ip_header() -> None:
    # Identifications that run through all sums.
    found = {
        bytes(each[34:36]) for at in range(512) for each in cut(super_frame(bytes(256), 2, identification=at * 128))
    }
    assert b"\0\0" in found
    assert b"\xff\xff" not in found


def test_what_tests_take_for_a_begun_checksum_is_the_sum_of_the_pseudo_header() -> None:
    frame = MACS + ipv4(UDP, begun(4, bytes(4)))
    assert struct.unpack_from(">H", frame, 40)[0] == 0xFFFF - checksum(bytes((10, 0, 0, 1, 10, 0, 0, 2, 0, UDP, 0, 12)))
    assert ipv6(DESTINATION, b"")[:2] == b"\x86\xdd"
