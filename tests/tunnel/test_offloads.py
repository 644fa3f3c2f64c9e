"""Which checksums and super-frames are left to the kernel, which are finished before it, and which are dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import ProtocolError
from etherws.tunnel.offloads import EXTENSIONS_MAX, SEGMENT_USUAL, added_headers, is_usual, settle
from etherws.tunnel.udp_super_frames import cut
from tests.lab.ip import (
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMPV6,
    IPV4,
    IPV6,
    ROUTING,
    SERVICE_TAG,
    TAG,
    TCP,
    UDP,
    checksum,
    extension,
    icmpv6,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.lab.records import vnet
from tests.lab.udp import super_frame

#: To a machine, from a machine.
MACS = b"\x02" * 12
TO_ALL = b"\xff" * 6 + b"\x02" * 6

UDP4, TCP4 = MACS + ipv4(UDP, udp(1, 2)), MACS + ipv4(TCP, tcp())
UDP6, TCP6 = MACS + ipv6(UDP, udp(1, 2)), MACS + ipv6(TCP, tcp())
LARGE4, LARGE6 = MACS + ipv4(TCP, tcp(bytes(5000))), MACS + ipv6(TCP, tcp(bytes(5000)))

#: What a quick look is enough for.
USUAL = {
    "UDP, IPv4": vnet(1, start=34, offset=6) + UDP4,
    "UDP, IPv4, to all": vnet(1, start=34, offset=6) + TO_ALL + UDP4[12:],
    "UDP, empty": vnet(1, start=34, offset=6) + MACS + ipv4(UDP, udp(1, 2, b"")),
    "TCP, IPv4": vnet(1, start=34, offset=16) + TCP4,
    "TCP, IPv4, don't fragment": vnet(1, start=34, offset=16) + MACS + ipv4(TCP, tcp(), fragment=0x4000),
    "UDP, IPv6": vnet(1, start=54, offset=6) + UDP6,
    "TCP, IPv6": vnet(3, start=54, offset=16) + TCP6,
    "a super-frame, IPv4": vnet(1, 1, 54, 1448, 34, 16) + LARGE4,
    "a super-frame, IPv4, ECN": vnet(1, 0x81, 54, 8, 34, 16) + LARGE4,
    "a super-frame, IPv6": vnet(1, 4, 74, 1428, 54, 16) + LARGE6,
    "a super-frame, IPv6, ECN": vnet(3, 0x84, 5000, 1428, 54, 16) + LARGE6,
    "verified": vnet(2) + UDP4,
    "verified, no IP": vnet(2) + MACS + b"\x88\xb5" + bytes(46),
}

#: What takes a longer look, and is left to the kernel as well.
TAKEN = {
    "verified, short": vnet(2) + MACS + b"\x88\xb5",
    "TCP, IPv4, options": vnet(1, start=38, offset=16) + MACS + ipv4(TCP, tcp(), options=b"\1\1\1\0"),
    "UDP, IPv4, options": vnet(1, start=74, offset=6) + MACS + ipv4(UDP, udp(1, 2), options=bytes(40)),
    "UDP, tagged": vnet(1, start=38, offset=6) + MACS + TAG + UDP4[12:],
    "TCP, IPv6, two tags": vnet(1, start=62, offset=16) + MACS + SERVICE_TAG + TAG + TCP6[12:],
    "UDP, IPv6, hop by hop": vnet(1, start=62, offset=6) + MACS + ipv6(HOP_BY_HOP, extension(UDP) + udp(1, 2)),
    "TCP, IPv6, three headers": vnet(1, start=94, offset=16)
    + MACS
    + ipv6(HOP_BY_HOP, extension(DESTINATION) + extension(ROUTING, 24) + extension(TCP) + tcp()),
    "a super-frame, tagged": vnet(1, 1, 58, 1448, 38, 16) + MACS + TAG + LARGE4[12:],
    "a super-frame, IPv6, options": vnet(1, 4, 82, 1420, 62, 16)
    + MACS
    + ipv6(DESTINATION, extension(TCP) + tcp(bytes(5000))),
}

MANY = b"".join([extension(DESTINATION)] * EXTENSIONS_MAX) + extension(UDP) + udp(1, 2)

#: A frame, and where its header wants a checksum that is not the outermost TCP's or UDP's own.
ELSEWHERE = {
    "the receiver's port": (UDP4, 34, 2),
    "the length": (UDP4, 34, 4),
    "TCP's place in UDP": (UDP4, 34, 16),
    "UDP's place in TCP": (TCP4, 34, 6),
    "before the header": (UDP4, 33, 7),
    "behind the header": (UDP4, 42, 6),
    "the IP header": (UDP4, 14, 10),
    "the addresses": (UDP4, 0, 0),
    "an odd number of bytes": (UDP4 + b"\xaa", 34, 30),
    "ICMPv6": (MACS + ipv6(ICMPV6, icmpv6(136)), 54, 0),
    "ICMPv6's own": (MACS + ipv6(ICMPV6, icmpv6(136)), 54, 2),
    "IPv4's place in IPv6": (UDP6, 34, 6),
    "IPv6's place in IPv4": (UDP4, 54, 6),
    "no IP": (MACS + b"\x88\xb5" + UDP4[14:], 34, 6),
    "IPv4 that says version 6": (MACS + IPV4 + b"\x65" + UDP4[15:], 34, 6),
    "IPv6 that says version 4": (MACS + IPV6 + b"\x45" + UDP6[15:], 54, 6),
    "a first fragment": (MACS + ipv4(UDP, udp(1, 2), fragment=0x2000), 34, 6),
    "a later fragment": (MACS + ipv4(UDP, udp(1, 2), fragment=5), 34, 6),
    "an IPv6 fragment": (MACS + ipv6(FRAGMENT, bytes((UDP, 0, 0, 0)) + bytes(4) + udp(1, 2)), 62, 6),
    "an IPv6 options header": (MACS + ipv6(DESTINATION, extension(UDP) + udp(1, 2)), 54, 6),
    "in a tunnel": (MACS + ipv4(UDP, udp(1, 4789, bytes(8) + UDP4)), 84, 6),
    "IPv4 in IPv4": (MACS + ipv4(4, UDP4[14:]), 54, 6),
    "behind three tags": (MACS + TAG * 3 + UDP4[12:], 46, 6),
    "behind options without end": (MACS + ipv6(DESTINATION, MANY), 54 + len(MANY) - 40, 6),
    "IPv4 cut off": (MACS + IPV4 + b"\x45" + bytes(5), 14, 0),
    "IPv6 cut off": (MACS + ipv6(DESTINATION, extension(UDP))[:-8] + b"\x3c", 14, 0),
    "a tag and nothing": (MACS + TAG, 0, 0),
    "zeros": (bytes(60), 14, 0),
}

#: Super-frames whose header is not what the frame is. All bytes are within the frame.
FALSE = {
    "UDP": vnet(1, 1, 42, 1448, 34, 16) + MACS + ipv4(UDP, udp(1, 2, bytes(5000))),
    "UDP by its own place": vnet(1, 1, 42, 1448, 34, 6) + MACS + ipv4(UDP, udp(1, 2, bytes(5000))),
    "IPv6 in IPv4": vnet(1, 4, 54, 1448, 34, 16) + LARGE4,
    "IPv4 in IPv6": vnet(1, 1, 74, 1448, 54, 16) + LARGE6,
    "a header elsewhere": vnet(1, 1, 54, 1448, 33, 16) + LARGE4,
    "a checksum elsewhere": vnet(1, 1, 54, 1448, 34, 14) + LARGE4,
    "a finished checksum": vnet(0, 1, 54, 1448, 34, 16) + LARGE4,
    "a verified checksum": vnet(2, 1, 54, 1448) + LARGE4,
    "a fragment": vnet(1, 1, 54, 1448, 34, 16) + MACS + ipv4(TCP, tcp(bytes(5000)), fragment=0x2000),
    "to all": vnet(1, 1, 54, 8, 34, 16) + TO_ALL + LARGE4[12:],
    "to a group": vnet(1, 4, 74, 1428, 54, 16) + b"\x33\x33\0\0\0\1" + LARGE6[6:],
    "no IP": vnet(1, 1, 54, 1448, 34, 16) + MACS + b"\x88\xb5" + LARGE4[14:],
}


@pytest.mark.parametrize(("last", "taken"), [(200, True), (208, False), (256, False)])
def test_a_super_frame_has_headers_of_512_bytes_at_most(last: int, taken: bool) -> None:
    # Each of 8,000 segments would repeat them.
    start = 54 + 256 + last
    frame = MACS + ipv6(DESTINATION, extension(DESTINATION, 256) + extension(TCP, last) + tcp(bytes(5000)))
    packet = memoryview(vnet(1, 4, start + 20, 8, start, 16) + frame)
    assert settle(packet) == (packet if taken else None)
    # A frame is sent as it is.
    alone = memoryview(vnet(1, start=start, offset=16) + frame)
    assert settle(alone) is alone


@pytest.mark.parametrize("what", USUAL)
def test_a_quick_look_is_enough_for(what: str) -> None:
    packet = memoryview(USUAL[what])
    assert is_usual(packet)
    # The longer look finds the same.
    assert settle(packet) is packet


@pytest.mark.parametrize("what", TAKEN)
def test_a_longer_look_takes(what: str) -> None:
    packet = memoryview(TAKEN[what])
    assert not is_usual(packet)
    assert settle(packet) is packet


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_checksum_elsewhere_is_filled_in(what: str) -> None:
    frame, start, offset = ELSEWHERE[what]
    packet = memoryview(vnet(1, start=start, offset=offset) + frame)
    assert not is_usual(packet)
    at = start + offset
    # As skb_checksum_help() of the kernel: never 0, which would mean none.
    wanted = (checksum(frame[start:]) or 0xFFFF).to_bytes(2, "big")
    found = settle(packet)
    assert found is not None
    assert bytes(found) == bytes(10) + frame[:at] + wanted + frame[at + 2 :]


def test_a_filled_in_checksum_is_never_zero() -> None:
    frame = UDP4[:42] + bytes(30) + b"\xff\xff"
    found = settle(memoryview(vnet(1, start=42, offset=0) + frame))
    assert found is not None
    assert bytes(found[10 + 42 : 10 + 44]) == b"\xff\xff"


@pytest.mark.parametrize("what", FALSE)
def test_a_super_frame_that_its_header_does_not_describe_is_dropped(what: str) -> None:
    packet = memoryview(FALSE[what])
    assert not is_usual(packet)
    assert settle(packet) is None


@pytest.mark.parametrize(
    "packet",
    [
        vnet(1, start=34, offset=19) + bytes(54),
        vnet(1, start=34, offset=16) + UDP4[:51],
        vnet(1, start=34, offset=16) + MACS + ipv4(TCP, bytes(17)),
        vnet(4) + UDP4,
        vnet(1, 3, 42, 1000, 34, 6) + UDP4,
        vnet(1, 1, 54, 7, 34, 16) + LARGE4,
        vnet(1, 1, 5055, 1448, 34, 16) + LARGE4,
    ],
)
def test_what_version_2_does_not_have_is_an_error(packet: bytes) -> None:
    assert not is_usual(memoryview(packet))
    with pytest.raises(ProtocolError) as caught:
        settle(memoryview(packet))
    assert caught.value.code == 1002


LARGE = bytes(5000)

#: UDP super-frames that are taken if they were agreed on.
UDP_TAKEN = {
    "IPv4": super_frame(LARGE, 1400),
    "IPv4, options": super_frame(LARGE, 1400, more=b"\1\1\1\0"),
    "IPv4, tagged twice": super_frame(LARGE, 1400, tags=SERVICE_TAG + TAG),
    "IPv6": super_frame(LARGE, 1400, version=6),
    "IPv6, hop by hop": super_frame(LARGE, 1400, version=6, more=extension(UDP)),
    "datagrams of one byte": super_frame(bytes(128), 1),
    "datagrams of odd lengths": super_frame(bytes(1001), 333),
    "of a VXLAN": super_frame(bytes(8) + UDP4 + LARGE, 1400),
    "to all": super_frame(LARGE, 1400, macs=TO_ALL),
    "verified as well": b"\3" + super_frame(LARGE, 1400)[1:],
}


def changed(packet: bytes, at: int, new: bytes) -> bytes:
    """The packet with other bytes at this place."""
    return packet[:at] + new + packet[at + len(new) :]


#: UDP super-frames that are not what their header says.
UDP_FALSE = {
    "one datagram": super_frame(bytes(1400), 1400),
    "the largest size": super_frame(LARGE, 0xFFFF),
    "129 datagrams": super_frame(bytes(129), 1),
    "TCP": vnet(1, 5, 54, 1400, 34, 16) + LARGE4,
    "TCP at UDP's place": vnet(1, 5, 54, 1400, 34, 6) + LARGE4,
    "UDP as TCP": changed(super_frame(LARGE, 1400), 1, b"\1"),
    "a header elsewhere": changed(super_frame(LARGE, 1400), 6, b"\x24"),
    "a checksum elsewhere": changed(super_frame(LARGE, 1400), 8, b"\x04"),
    "a finished checksum": changed(super_frame(LARGE, 1400), 0, b"\0"),
    "a verified checksum": changed(super_frame(LARGE, 1400), 0, b"\2"),
    "no checksum": changed(super_frame(LARGE, 1400), 50, bytes(2)),
    "a longer datagram": changed(super_frame(LARGE, 1400), 48, b"\x14\x00"),
    "a shorter datagram": changed(super_frame(LARGE, 1400), 48, b"\0\x08"),
    "a longer IPv4 packet": changed(super_frame(LARGE, 1400), 26, b"\xff\xff"),
    "an IPv4 packet of no length": changed(super_frame(LARGE, 1400), 26, bytes(2)),
    "a shorter IPv6 packet": changed(super_frame(LARGE, 1400, version=6), 28, b"\0\x08"),
    "a jumbogram": changed(super_frame(LARGE, 1400, version=6), 28, bytes(2)),
    "padding behind": super_frame(LARGE, 1400) + b"\0",
    "a first fragment": changed(super_frame(LARGE, 1400), 30, b"\x20\0"),
    "a later fragment": changed(super_frame(LARGE, 1400), 30, b"\0\5"),
    "an IPv6 fragment": super_frame(LARGE, 1400, version=6, more=bytes((UDP, 0, 0, 1)) + bytes(4))[:30]
    + bytes((FRAGMENT,))
    + super_frame(LARGE, 1400, version=6, more=bytes((UDP, 0, 0, 1)) + bytes(4))[31:],
    "a short IPv4 header": changed(super_frame(LARGE, 1400), 24, b"\x44"),
    "in a VXLAN": vnet(1, 5, 92, 1000, 84, 6)
    + MACS
    + ipv4(UDP, udp(1, 4789, bytes(8) + super_frame(LARGE, 1000)[10:])),
    "no IP": changed(super_frame(LARGE, 1400), 22, b"\x88\xb5"),
}


@pytest.mark.parametrize("what", UDP_TAKEN)
def test_a_udp_super_frame_is_taken_if_it_was_agreed_on(what: str) -> None:
    packet = memoryview(UDP_TAKEN[what])
    assert not is_usual(packet)
    assert settle(packet, uso=True) is packet
    with pytest.raises(ProtocolError, match="0x5, which was not agreed on") as caught:
        settle(packet)
    assert caught.value.code == 1002


@pytest.mark.parametrize("what", UDP_FALSE)
def test_a_udp_super_frame_that_its_header_does_not_describe_is_dropped(what: str) -> None:
    packet = memoryview(UDP_FALSE[what])
    assert not is_usual(packet)
    assert settle(packet, uso=True) is None


@pytest.mark.parametrize(
    "change", [(4, bytes(2)), (1, b"\x85"), (2, b"\xff\xff"), (8, b"\xff\xff"), (0, b"\5"), (1, b"\3")]
)
def test_what_nobody_sends_of_udp_is_an_error(change: tuple[int, bytes]) -> None:
    packet = memoryview(changed(super_frame(LARGE, 1400), *change))
    with pytest.raises(ProtocolError):
        settle(packet, uso=True)


@given(
    st.sampled_from([*UDP_TAKEN.values(), *UDP_FALSE.values()]),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
)
def test_whatever_is_taken_of_udp_can_be_cut(packet: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(packet)
    for at, value in changes:
        data[at % len(data)] = value
    try:
        settled = settle(memoryview(data), uso=True)
    except ProtocolError:
        return
    if settled is not None and settled[1] == 5:
        packets = cut(settled)
        assert 2 <= len(packets) <= 128
        start = int.from_bytes(data[6:8], "little")
        assert b"".join(each[10 + start + 8 :] for each in packets) == data[10 + start + 8 :]


heads = st.sampled_from([*USUAL.values(), *TAKEN.values(), *FALSE.values()])
changes = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4)


@given(heads, changes)
def test_the_quick_look_never_takes_what_the_longer_one_does_not(packet: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(packet)
    for at, value in changes:
        changed[at % len(changed)] = value
    view = memoryview(changed)
    if is_usual(view):
        assert settle(view) is view


@pytest.mark.parametrize("flags", [0, 2])
@pytest.mark.parametrize("size", [1, 14, 20, 9999])
def test_only_a_super_frame_has_a_length_of_headers(flags: int, size: int) -> None:
    packet = memoryview(vnet(flags, 0, size) + UDP6)
    assert not is_usual(packet)
    settled = settle(packet)
    assert settled is not None
    assert bytes(settled) == vnet(flags) + UDP6


def test_a_length_of_headers_counts_for_no_unfinished_checksum() -> None:
    packet = memoryview(vnet(1, 0, 14, start=54, offset=6) + UDP6)
    assert not is_usual(packet)
    settled = settle(packet)
    assert settled is not None
    assert bytes(settled) == vnet(1, start=54, offset=6) + UDP6
    # One that is filled in here.
    settled = settle(memoryview(vnet(1, 0, 14, start=54, offset=0) + UDP6))
    assert settled is not None
    assert bytes(settled[:10]) == bytes(10)


@pytest.mark.parametrize(
    ("size", "start", "added"),
    [
        (1, 34, 958 * 42),
        (100, 34, 9 * 42),
        (SEGMENT_USUAL, 34, 0),
        (SEGMENT_USUAL, 62, 0),
        (1448, 54, 0),
        (0, 34, 0),
        (0, 0xFFFF, 0),
        # Few segments, with long headers each.
        (SEGMENT_USUAL, 80, 88),
        (200, 300, 3 * 308),
        (1000, 0xFFFF, 0),
        (1, 0xFFFF, 0),
    ],
)
def test_short_segments_get_many_headers(size: int, start: int, added: int) -> None:
    assert added_headers(memoryview(vnet(1, 5, 0, size, start, 6) + bytes(1000))) == added


@pytest.mark.parametrize(("words", "added"), [(5, 118 * 54), (15, 113 * 94), (0, 120 * 34)])
def test_the_headers_of_a_segment_have_tcps_options(words: int, added: int) -> None:
    frame = bytes(46) + bytes((words << 4,)) + bytes(953)
    assert added_headers(memoryview(vnet(1, 1, 0, 8, 34, 16) + frame)) == added
    # One that is dropped may end before them.
    assert added_headers(memoryview(vnet(1, 1, 0, 8, 34, 16) + frame[:34])) == 0
