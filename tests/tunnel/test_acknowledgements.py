"""Which acknowledgements are left out of what came at once, and which packets never are."""

from __future__ import annotations

import random
import struct

import pytest

from etherws.tunnel.acknowledgements import LEFT_OUT, newest
from etherws.tunnel.wire import COMPLETE

TIMES = b"\x01\x01\x08\x0a" + bytes(8)
SACK = b"\x01\x01\x05\x0a" + bytes(8)
MACS = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"


def tcp(
    number: int,
    *,
    sequence: int = 7,
    flags: int = 0x10,
    port: int = 1000,
    options: bytes = TIMES,
    window: int = 500,
    reserved: int = 0,
) -> bytes:
    """A header of TCP that acknowledges up to `number`."""
    words = (20 + len(options)) // 4
    numbers = sequence, number & 0xFFFFFFFF, words << 4 | reserved, flags, window
    return struct.pack(">HHIIBBHHH", port, 80, *numbers, 0, 0) + options


def ipv4(payload: bytes, *, first: int = 0x45, tos: int = 0, fragment: int = 0x4000, protocol: int = 6) -> bytes:
    """A packet of IPv4."""
    head = struct.pack(">BBHHHBBH", first, tos, 20 + len(payload), 0, fragment, 64, protocol, 0)
    return COMPLETE + MACS + b"\x08\x00" + head + bytes(7) + b"\x01" + payload


def ipv6(payload: bytes, protocol: int = 6, *, label: int = 0) -> bytes:
    """A packet of IPv6."""
    head = struct.pack(">IHBB", 6 << 28 | label, len(payload), protocol, 64)
    return COMPLETE + MACS + b"\x86\xdd" + head + bytes(32) + payload


def tagged(packet: bytes, tag: bytes = b"\x81\x00\x00\x05") -> bytes:
    """The packet with a VLAN tag."""
    return packet[:22] + tag + packet[22:]


@pytest.mark.parametrize("options", [TIMES, b""], ids=["times", "plain"])
@pytest.mark.parametrize(
    "make", [ipv4, ipv6, lambda tcp: tagged(ipv4(tcp)), lambda tcp: tagged(ipv6(tcp))], ids=["4", "6", "tag 4", "tag 6"]
)
def test_the_newest_says_what_the_older_ones_say(make: object, options: bytes) -> None:
    assert callable(make)
    # Also where the numbers begin again at zero.
    packets = [make(tcp(number, options=options)) for number in range(-3000, 3000, 1000)]
    assert newest(packets) == packets[-1:]
    assert newest([memoryview(packet) for packet in packets]) == packets[-1:]


def test_one_in_eight_is_kept() -> None:
    packets = [ipv4(tcp(number)) for number in range(20)]
    assert newest(packets) == [packets[at] for at in (LEFT_OUT, 2 * LEFT_OUT + 1, 19)]


def test_each_flow_keeps_its_own_and_the_order_stays() -> None:
    data = ipv4(tcp(2) + bytes(1000))
    one, other = ipv4(tcp(1)), ipv4(tcp(1, port=2000))
    packets = [one, other, data, ipv4(tcp(3)), ipv4(tcp(3, port=2000), tos=2), ipv4(tcp(2, port=2000))]
    assert newest(packets) == packets[2:]


OTHERS = {
    "data": ipv4(tcp(1) + b"x"),
    "FIN": ipv4(tcp(1, flags=0x11)),
    "RST": ipv4(tcp(1, flags=0x14)),
    "urgent": ipv4(tcp(1, flags=0x30)),
    "ECN": ipv4(tcp(1, flags=0x50)),
    "SACK": ipv4(tcp(1, options=SACK)),
    "other options": ipv4(tcp(1, options=b"\x01" * 4)),
    "another sequence number": ipv4(tcp(1, sequence=6)),
    "what is not newer": ipv4(tcp(9)),
    "what is far ahead": ipv4(tcp(9 + (1 << 31))),
    "a later one": ipv4(tcp(10)),
    "a fragment": ipv4(tcp(1), fragment=0x2000),
    "its end": ipv4(tcp(1), fragment=1),
    "options of IPv4": ipv4(tcp(1), first=0x46),
    "UDP": ipv4(tcp(1), protocol=17),
    "UDP, IPv6": ipv6(tcp(1), protocol=17),
    "IPv6 cut short": ipv6(b"")[:64],
    "ARP": COMPLETE + MACS + b"\x08\x06" + bytes(46),
    "two tags": tagged(tagged(ipv4(tcp(1, options=b"")))),
    "cut short": ipv4(tcp(1))[:-1],
    "a length that lies": ipv4(tcp(1))[:26] + b"\x05\xdc" + ipv4(tcp(1))[28:],
    "a reserved bit": ipv4(tcp(1)[:12] + b"\x81" + tcp(1)[13:]),
    "a super-frame": ipv4(tcp(1) + bytes(5000)),
    "nothing": COMPLETE + bytes(14),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_says_more_is_kept(other: bytes) -> None:
    last = ipv4(tcp(9))
    assert newest([other, last]) == [other, last]


MD5, AO = b"\x01\x01\x13\x12" + bytes(16), b"\x1d\x10\x01\x01" + bytes(12)

STAY = {
    # Three that repeat a number make a sender send again (RFC 5681, section 3.2).
    "repeated": [ipv4(tcp(1))] * 4 + [ipv4(tcp(9))],
    "a new window": [ipv4(tcp(1, window=0)), ipv4(tcp(1, window=9)), ipv4(tcp(9, window=9))],
    # The answer to a keepalive probe repeats a number; the probe has an old sequence number.
    "keepalive": [ipv4(tcp(1)), ipv4(tcp(1, sequence=6)), ipv4(tcp(1)), ipv4(tcp(1, sequence=6)), ipv4(tcp(9))],
    # DCTCP counts the bytes of either kind (RFC 8257, section 3.2).
    "ECE before": [ipv4(tcp(1, flags=0x50)), ipv4(tcp(9))],
    "ECE behind": [ipv4(tcp(1)), ipv4(tcp(5, flags=0x50)), ipv4(tcp(9))],
    "ECE alone": [ipv4(tcp(1, flags=0x50)), ipv4(tcp(5, flags=0x50)), ipv4(tcp(9, flags=0x50))],
    "CWR": [ipv4(tcp(1, flags=0x90)), ipv4(tcp(9, flags=0x90))],
    # The counter of three bits of RFC 9768; a receiver counts how often it has gone round by how much is new.
    "AccECN": [ipv4(tcp(1, flags=0x50, reserved=1)), ipv4(tcp(5, reserved=1)), ipv4(tcp(9, flags=0x50, reserved=1))],
    "SACK behind": [ipv4(tcp(1)), ipv4(tcp(1, options=SACK)), ipv4(tcp(9))],
    "MD5": [ipv4(tcp(1, options=MD5)), ipv4(tcp(9, options=MD5))],
    "AO": [ipv4(tcp(1, options=AO)), ipv4(tcp(9, options=AO))],
    "the end": [ipv4(tcp(1)), ipv4(tcp(5, flags=0x11)), ipv4(tcp(9))],
    "older ones that come late": [ipv4(tcp(9)), ipv4(tcp(1))],
    "another flow label": [ipv6(tcp(1), label=1), ipv6(tcp(9), label=2)],
    "another VLAN": [tagged(ipv4(tcp(1))), ipv4(tcp(9))],
    "another class": [ipv4(tcp(1)), ipv4(tcp(9), tos=3)],
    "another sender": [ipv4(tcp(1)), ipv4(tcp(9)).replace(MACS, MACS[::-1])],
    "within VXLAN": [ipv4(bytes(16) + ipv4(tcp(at))[10:], protocol=17) for at in (1, 9)],
}


@pytest.mark.parametrize("packets", STAY.values(), ids=STAY)
def test_what_a_sender_counts_or_needs_stays(packets: list[bytes]) -> None:
    assert newest(packets) == packets


def test_between_others_and_in_two_slices_each_run_keeps_its_newest() -> None:
    run = [ipv4(tcp(number)) for number in (1, 3, 5)]
    marked = ipv4(tcp(7, flags=0x50))
    assert newest([*run, marked, *run]) == [run[-1], marked, run[-1]]
    assert [*newest(run[:2]), *newest(run[2:])] == run[1:]
    # Time stamps are no part of what makes them alike (RFC 7323, section 4.1): the newest one's are the newest.
    stamped = [ipv4(tcp(number, options=TIMES[:4] + bytes([number] * 8))) for number in (1, 3, 5)]
    assert newest(stamped) == stamped[-1:]


def test_of_few_or_none_nothing_is_left_out() -> None:
    for packets in ([], [ipv4(tcp(1))], [COMPLETE + bytes(60)] * 3):
        assert newest(packets) == packets


def test_any_bytes_are_read_without_an_error() -> None:
    source = random.Random(1)
    whole = [ipv4(tcp(1)), ipv6(tcp(1)), tagged(ipv4(tcp(1))), tagged(ipv6(tcp(1)))]
    for _ in range(3000):
        packet = bytearray(source.choice(whole))
        for _ in range(source.randrange(4)):
            packet[source.randrange(10, len(packet))] = source.randrange(256)
        del packet[source.randrange(24, len(packet) + 1) :]
        assert newest([packet, whole[0]])[-1] == whole[0]
