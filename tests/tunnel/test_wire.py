"""What a message of each version holds, and what becomes of one that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.counters import Traffic
from etherws.errors import ProtocolError
from etherws.settings import MTU_MAX
from etherws.tunnel.offloads import Offload
from etherws.tunnel.udp_super_frames import cut
from etherws.tunnel.wire import (
    BATCH_BYTES,
    COMPLETE,
    FRAME_ROOM,
    PADDING_MAX,
    RECORD_MAX,
    SLICE_PACKETS,
    VNET_BYTES,
    Batch,
    Buffer,
    Version1,
    Version2,
    buffer,
)
from tests.lab.ip import DESTINATION, TAG, TCP, UDP, checksum, extension, ipv4, ipv6, tcp, udp
from tests.lab.records import BAD, record, vnet
from tests.lab.udp import super_frame

#: Two unicast addresses.
MACS = b"\x02" * 12


def filled(packets: list[bytes]) -> Batch:
    """A batch as the TAP would fill it."""
    batch, end = Batch(), 0
    for packet in packets:
        start = end + batch.GAP
        end = start + len(packet)
        batch.view[start:end] = packet
        batch.spans.append((start, end))
    return batch


def unpacked(wire: Version1 | Version2, messages: Sequence[Buffer]) -> list[bytes]:
    """All packets of the messages."""
    return [bytes(packet) for packets in wire.unpack(messages) for packet in packets]


FRAMES = [bytes([at]) * size for at, size in enumerate((14, 60, 1514, 65_549))]


def test_version_1_has_a_frame_in_each_message() -> None:
    wire = Version1()
    batch = filled([COMPLETE + frame for frame in FRAMES])
    assert [bytes(message) for message in wire.pack(batch)] == FRAMES
    assert wire.pack_queued([COMPLETE + frame for frame in FRAMES]) == FRAMES
    assert unpacked(wire, FRAMES) == [COMPLETE + frame for frame in FRAMES]
    assert not wire.drops


def test_version_1_never_sends_what_is_unfinished() -> None:
    wire = Version1()
    packets = [COMPLETE + FRAMES[0], vnet(flags=1) + FRAMES[1], vnet(gso=1) + FRAMES[2], vnet(flags=2) + FRAMES[1]]
    assert [bytes(message) for message in wire.pack(filled(packets))] == [FRAMES[0], FRAMES[1]]
    assert wire.pack_queued(packets) == [FRAMES[0], FRAMES[1]]
    assert wire.drops == {"unfinished": 4}


def test_version_1_counts_what_is_too_short() -> None:
    wire = Version1()
    assert unpacked(wire, [bytes(size) for size in range(20)]) == [COMPLETE + bytes(size) for size in range(14, 20)]
    assert unpacked(wire, []) == []
    assert wire.drops == {"runt": 14}


GOOD = [
    COMPLETE + bytes(14),
    COMPLETE + bytes(RECORD_MAX - VNET_BYTES),
    vnet(flags=2) + bytes(60),
    vnet(flags=1, start=34, offset=6) + MACS + ipv4(UDP, udp(1, 2, b"")),
    vnet(flags=3, start=34, offset=16) + MACS + ipv4(TCP, tcp(b"")),
    vnet(flags=1, start=62, offset=6) + MACS + ipv6(DESTINATION, extension(UDP) + udp(1, 2, b"")),
    *(vnet(1, gso, 54, 1448, 34, 16) + MACS + ipv4(TCP, tcp(bytes(5000))) for gso in (0x01, 0x81)),
    *(vnet(1, gso, 74, 1428, 54, 16) + MACS + ipv6(TCP, tcp(bytes(5000))) for gso in (0x04, 0x84)),
    vnet(1, 1, 54, 8, 34, 16) + MACS + ipv4(TCP, tcp(bytes(5000))),
]


def test_version_1_counts_frames_whatever_their_length() -> None:
    wire = Version1()
    packets = [COMPLETE + frame for frame in FRAMES]
    wire.pack(filled([*packets, vnet(gso=1) + FRAMES[2]]))
    wire.pack_queued([*packets, vnet(flags=1) + FRAMES[1]])
    unpacked(wire, [*FRAMES, bytes(13)])
    assert (wire.sent, wire.received) == (Traffic(0, 2 * len(FRAMES), 0), Traffic(0, len(FRAMES), 0))


def test_version_2_counts_frames_and_super_frames() -> None:
    wire = Version2()
    long = COMPLETE + bytes(9014)
    super_frame = vnet(1, 1, 54, 1448, 34, 16) + MACS + ipv4(TCP, tcp(bytes(5000)))
    short = vnet(1, 1, 54, 536, 34, 16) + MACS + ipv4(TCP, tcp(bytes(600)))
    unfinished = vnet(flags=1, start=34, offset=6) + MACS + ipv4(UDP, udp(1, 2, b""))
    wire.pack(filled([long, super_frame, unfinished, super_frame]))
    assert wire.sent == Traffic(0, 2, 2)
    # One that is no longer than a full frame is not looked at.
    wire.pack(filled([short]))
    assert wire.sent == Traffic(0, 3, 2)
    wire.pack_queued([short, long])
    assert wire.sent == Traffic(0, 4, 3)
    false = vnet(1, 1, 54, 1448, 34, 16) + MACS + ipv4(UDP, udp(1, 2, bytes(5000)))
    assert len(unpacked(wire, [b"".join(map(record, (false, long, short, unfinished)))])) == 3
    assert wire.received == Traffic(0, 2, 1)
    # In slices, and before a mistake.
    with pytest.raises(ProtocolError):
        unpacked(wire, [record(super_frame) * 20 + record(COMPLETE + bytes(60)) * 2 * SLICE_PACKETS + b"x"])
    assert wire.received == Traffic(0, 2 + 2 * SLICE_PACKETS, 21)


def test_version_2_has_the_whole_batch_in_one_message() -> None:
    wire = Version2()
    packets = [COMPLETE + FRAMES[0], vnet(1, 1, 54, 1448, 34, 16) + MACS + ipv4(TCP, tcp(FRAMES[2]))]
    (message,) = wire.pack(filled(packets))
    assert bytes(message) == record(packets[0]) + record(packets[1])
    assert wire.pack_queued(packets) == [bytes(message)]
    assert unpacked(wire, [message]) == packets
    assert wire.pack(Batch()) == wire.pack_queued([]) == unpacked(wire, []) == unpacked(wire, [b""]) == []


def test_version_2_cuts_a_batch_into_messages_at_its_records() -> None:
    wire = Version2()
    packets = [COMPLETE + bytes([number]) * size for number, size in enumerate((1514, 60, 1514, 5000, 60, 60))]
    messages = [bytes(message) for message in wire.pack(filled(packets), 1600)]
    one, two, three, four, five, six = map(record, packets)
    assert messages == [one + two, three + four, five + six]
    assert [bytes(message) for message in wire.pack(filled(packets), 1)] == [one, two, three, four, five, six]
    assert len(wire.pack(filled(packets), sum(map(len, messages)))) == 1
    assert wire.pack(Batch(), 1) == []
    assert wire.sent.frames + wire.sent.super_frames == 18


@pytest.mark.parametrize("packet", GOOD, ids=range(len(GOOD)))
def test_version_2_takes(packet: bytes) -> None:
    message = record(packet)
    assert unpacked(Version2(), [message * 2, message]) == [packet] * 3


def test_version_2_drops_false_super_frames_and_fills_in_checksums_elsewhere() -> None:
    wire = Version2()
    false = vnet(1, 1, 54, 1448, 34, 16) + MACS + ipv4(UDP, udp(1, 2, bytes(5000)))
    elsewhere = vnet(1, start=34, offset=0) + MACS + ipv4(UDP, udp(1, 2))
    last = COMPLETE + bytes(60)
    filled_in, found = unpacked(wire, [record(false) + record(elsewhere) + record(last)])
    assert found == last
    assert bytes(filled_in[:VNET_BYTES]) == COMPLETE
    assert bytes(filled_in[44:]) == checksum(elsewhere[44:]).to_bytes(2, "big") + elsewhere[46:]
    assert wire.drops == {"super-frame": 1}


@pytest.mark.parametrize("what", BAD)
def test_version_2_refuses(what: str) -> None:
    message, code = BAD[what]
    wire = Version2()
    good = record(COMPLETE + bytes(14))
    for before in (0, 1, SLICE_PACKETS + 1):
        found = list[int]()
        with pytest.raises(ProtocolError) as caught:
            found.extend(map(len, wire.unpack([good * before, message])))
        # What comes before the wrong record is never lost. Some of the wrong messages begin with right ones.
        assert sum(found) >= before
    assert caught.value.code == code
    assert "record" in str(caught.value)


@given(st.lists(st.binary(min_size=14, max_size=300), max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_whatever_is_packed_is_unpacked(frames: list[bytes], cuts: list[bool]) -> None:
    packets = [COMPLETE + frame for frame in frames]
    for wire in (Version1(), Version2()):
        assert unpacked(wire, wire.pack(filled(packets))) == packets
        assert unpacked(wire, wire.pack_queued(packets)) == packets


@pytest.mark.parametrize("size", [0, 1, 24, 25, 5000])
@pytest.mark.parametrize("before", [0, 1, SLICE_PACKETS + 1])
def test_padding_is_the_rest_of_its_message_where_it_was_agreed_on(size: int, before: int) -> None:
    packet = COMPLETE + bytes(60)
    # What would be wrong records elsewhere.
    padding = bytes(4) + b"\xff" * size
    wire = Version2(padding=True)
    found = unpacked(wire, [record(packet) * before + padding, record(packet)])
    assert found == [packet] * (before + 1)
    # It is no frame, and nothing was dropped.
    assert wire.received == Traffic(0, before + 1, 0)
    assert not wire.drops
    with pytest.raises(ProtocolError) as caught:
        unpacked(Version2(), [padding])
    assert caught.value.code == 1002
    assert ("cut short" if size < 24 else "record of 0 bytes; the least is 24") in str(caught.value)


def test_padding_does_not_make_other_mistakes_right() -> None:
    for message, _ in BAD.values():
        if message[:4] != bytes(4):
            with pytest.raises(ProtocolError):
                unpacked(Version2(padding=True), [message])
    with pytest.raises(ProtocolError, match="cut short: 3 bytes"):
        unpacked(Version2(padding=True), [bytes(3)])


@pytest.mark.parametrize("size", [4, 1000, 16 * 1024, 100_000, Version2.max_message])
def test_more_padding_than_was_agreed_on_is_a_mistake(size: int) -> None:
    wire, good = Version2(padding=True), COMPLETE + bytes(60)
    for _ in range(PADDING_MAX // size):
        assert unpacked(wire, [record(good) + bytes(size)]) == [good]
    slices = wire.unpack([record(good) + bytes(size)])
    # What comes before is delivered.
    assert len(next(slices)) == 1
    with pytest.raises(ProtocolError, match="more than 131072 bytes of padding") as caught:
        next(slices)
    assert caught.value.code == 1002


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_is_packets_and_nothing_else(message: bytes) -> None:
    try:
        packets = unpacked(Version2(), [message])
    except ProtocolError as exc:
        assert exc.code in (1002, 1009)
    else:
        assert b"".join(map(record, packets)) == message


@given(st.integers(0, 255), st.integers(0, 255), *[st.integers(0, 0xFFFF)] * 4)
def test_any_header_is_refused_or_lies_within_its_frame(
    flags: int, gso: int, hdr_len: int, gso_size: int, start: int, offset: int
) -> None:
    try:
        unpacked(Version2(), [record(vnet(flags, gso, hdr_len, gso_size, start, offset) + bytes(100))])
    except ProtocolError as exc:
        assert exc.code == 1002
    else:
        assert gso & 0x7F in (0, 1, 4)
        assert not flags & 1 or start + offset + 2 <= 100
        assert not gso or (gso_size >= 8 and hdr_len <= 100)


def test_a_message_of_37_000_packets_comes_in_slices_which_are_made_one_by_one() -> None:
    message = record(COMPLETE + bytes(14)) * 37_000
    slices = Version2().unpack([message])
    assert len(next(slices)) == SLICE_PACKETS
    sizes = [len(packets) for packets in slices]
    assert sum(sizes) == 37_000 - SLICE_PACKETS
    assert max(sizes) == SLICE_PACKETS


def test_many_messages_of_version_1_come_in_slices_too() -> None:
    assert [len(packets) for packets in Version1().unpack([bytes(14)] * (SLICE_PACKETS + 1))] == [SLICE_PACKETS, 1]


def test_a_frame_of_version_1_is_called_what_it_may_be() -> None:
    for to in (b"\xff" * 6, b"\x33\x33\0\0\0\1", b"\1\0\x5e\0\0\1", b"\2\xee\0\0\0\1"):
        with pytest.raises(ProtocolError, match="the limit is 65568: this is not version 2 of the wire; try --wire 1"):
            list(Version2().unpack([to + bytes(60)]))


def test_a_super_frame_counts_as_what_it_is_cut_into() -> None:
    frame = MACS + ipv4(TCP, tcp(bytes(60_000)))
    few, many = (record(vnet(1, 1, 54, size, 34, 16) + frame) for size in (1448, 8))
    # Each of the usual ones counts as 11.
    assert [len(packets) for packets in Version2().unpack([many * 3 + few * 8])] == [1, 1, 1, 6, 2]


def test_short_segments_are_charged_with_the_headers_that_they_get() -> None:
    charged: list[int] = []
    wire = Version2(uso=True)
    wire.charge = charged.append
    tiny, group = (super_frame(bytes(128), 1, macs=macs + bytes(6)) for macs in (bytes(6), b"\1\0\x5e\0\0\1"))
    frame = MACS + ipv4(TCP, tcp(bytes(60_000)))
    short, usual = (vnet(1, 1, 54, size, 34, 16) + frame for size in (8, 536))
    list(wire.unpack([b"".join(map(record, (tiny, group, short, usual, UDP_LARGE, COMPLETE + FRAMES[1])))]))
    # 180 bytes become 128 frames of 43, and 60,054 become 7,500 of 62. A usual one has few headers.
    assert charged == [128 * 42, 128 * 42, 7500 * 54]
    # Whoever has no rate is charged with nothing.
    list(Version2(uso=True).unpack([record(tiny)]))


def test_long_headers_are_charged_too_where_segments_are_not_short() -> None:
    # 60,000 bytes become 118 frames, each with 530 bytes of headers.
    charged: list[int] = []
    wire = Version2()
    wire.charge = charged.append
    chain = extension(DESTINATION, 256) + extension(TCP, 200)
    frame = MACS + ipv6(DESTINATION, chain + tcp(bytes(60_000)))
    start = 54 + len(chain)
    packet = vnet(1, 4, start + 20, 512, start, 16) + frame
    assert unpacked(wire, [record(packet)]) == [packet]
    assert charged == [60_000 // 512 * (start + 20)]


UDP_LARGE = super_frame(bytes(5000), 1400)


def test_a_udp_super_frame_is_sent_if_it_was_agreed_on_and_else_dropped() -> None:
    small, last = super_frame(bytes(20), 10), COMPLETE + FRAMES[1]
    packets = [last, UDP_LARGE, small, last]
    for agreed, wanted in ((True, packets), (False, [last, last])):
        wire = Version2(uso=agreed)
        (message,) = wire.pack(filled(packets))
        assert bytes(message) == b"".join(map(record, wanted))
        assert wire.pack_queued(packets) == [bytes(message)]
        # A short one that is sent at once is not looked at.
        assert wire.sent.super_frames == (3 if agreed else 0)
        assert wire.sent.frames + wire.sent.super_frames == 2 * len(wanted)
        assert unpacked(wire, [message]) == wanted
        assert wire.drops == ({} if agreed else {"unfinished": 4})
    # There may be nothing else.
    assert (wire.pack(filled([UDP_LARGE])), wire.pack_queued([UDP_LARGE])) == ([], [])


def test_a_udp_super_frame_to_a_group_is_cut_before_the_filters_count_it() -> None:
    wire = Version2(uso=True)
    group = super_frame(bytes(5000), 1400, macs=b"\1\0\x5e\0\0\1" + b"\2" * 6)
    assert unpacked(wire, [record(group) + record(UDP_LARGE)]) == [*cut(group), UDP_LARGE]
    assert wire.received == Traffic(0, 4, 1)


@pytest.mark.parametrize("port", [67, 547])
@pytest.mark.parametrize("how", [{}, {"tags": TAG}, {"version": 6}, {"version": 6, "more": extension(UDP)}])
def test_a_udp_super_frame_to_a_dhcp_server_is_cut_before_the_filters_look_at_it(
    port: int, how: dict[str, Any]
) -> None:
    packet = super_frame(bytes(5000), 1400, **how)
    receiver = 10 + int.from_bytes(packet[6:8], "little") + 2
    packet = packet[:receiver] + port.to_bytes(2, "big") + packet[receiver + 2 :]
    from_there = packet[: receiver - 2] + packet[receiver : receiver + 2] + bytes(2) + packet[receiver + 2 :]
    assert unpacked(Version2(uso=True), [record(packet)]) == cut(packet)
    assert unpacked(Version2(uso=True), [record(from_there)]) == [from_there]


def test_a_udp_super_frame_counts_as_what_it_is_cut_into() -> None:
    many = record(super_frame(bytes(128), 1))
    assert [len(packets) for packets in Version2(uso=True).unpack([many * 5])] == [2, 2, 1]


def test_the_datagrams_to_a_group_come_in_slices_too() -> None:
    # The bridge floods each of them to all ports.
    group = super_frame(bytes(128), 1, macs=b"\1\0\x5e\0\0\1" + b"\2" * 6)
    wire = Version2(uso=True)
    found = list(wire.unpack([record(COMPLETE + FRAMES[1]) * 7 + record(group) * 2]))
    assert [len(packets) for packets in found] == [64, 64, 7, 64, 64, 0]
    assert [packet for packets in found for packet in packets] == [COMPLETE + FRAMES[1]] * 7 + cut(group) * 2
    assert wire.received.frames == 7 + 256


def test_what_a_session_may_leave_to_the_peer() -> None:
    assert (Version1().offload, Version2().offload, Version2(uso=True).offload) == (
        Offload.NONE,
        Offload.TCP,
        Offload.TCP_UDP,
    )


def test_a_batch_has_room_for_the_largest_frame_behind_a_full_batch() -> None:
    assert len(Batch().view) - (BATCH_BYTES - 1 + Batch.GAP) >= VNET_BYTES + FRAME_ROOM
    assert Batch().spans == []
    assert RECORD_MAX <= VNET_BYTES + FRAME_ROOM


def test_a_full_batch_fits_a_message() -> None:
    assert len(Batch().view) <= Version2.max_message


def test_a_buffer_is_zero_and_writable() -> None:
    view = buffer(10_000)
    assert bytes(view) == bytes(10_000)
    view[9_999] = 1
    assert view[9_999] == 1


def test_a_message_of_64_kib_is_taken() -> None:
    assert Version1.max_message >= 65_536


def test_the_longest_tagged_frame_of_the_largest_mtu_is_taken_by_the_peer() -> None:
    assert Version1.max_message >= MTU_MAX + 14 + 4
