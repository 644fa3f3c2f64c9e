"""IP packets that tests send, in frames: as they should be, or as somebody makes them who wants round a filter."""

from __future__ import annotations

import struct
from socket import inet_aton

from tests.lab.frames import BROADCAST, SOURCE

IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
TAG, QINQ, PRIORITY = b"\x81\x00\x00\x64", b"\x88\xa8\x00\x65", b"\x81\x00\x20\x00"
SNAP = b"\xaa\xaa\x03\x00\x00\x00"

#: Protocols above IP, and IPv6's extension headers.
HOP, ICMP, UDP, ROUTING, FRAGMENT, AH, ICMPV6, NOTHING, DESTINATION = 0, 1, 17, 43, 44, 51, 58, 59, 60

LINK_LOCAL = b"\xfe\x80" + bytes(13) + b"\x01"
ALL_NODES = b"\xff\x02" + bytes(13) + b"\x01"


def frame(behind: bytes, *, to: bytes = BROADCAST, sender: bytes = SOURCE) -> bytes:
    """A frame with this EtherType and payload, padded."""
    return (to + sender + behind).ljust(60, b"\0")


def llc(behind: bytes, length: int | None = None) -> bytes:
    """A length in the EtherType's place, and an LLC header behind it."""
    return (len(behind) if length is None else length).to_bytes(2, "big") + behind


def ipv4(
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    source: bytes = b"\xc0\0\2\1",
    to: bytes = b"\xff" * 4,
    length: int | None = None,
) -> bytes:
    """An IPv4 packet. `fragment` is the field of flags and offset, `length` the total length if it is to be wrong."""
    size = 20 + len(options)
    total = size + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH4s4s", 0x40 | size // 4, 0, total, 1, fragment, 64, protocol, 0, source, to) + options
    return head[:10] + _checksum(head) + head[12:] + payload


def udp(sender: int, receiver: int, data: bytes = bytes(32)) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack(">HHHH", sender, receiver, 8 + len(data), 0) + data


def ipv6(
    following: int,
    payload: bytes,
    *,
    source: bytes = LINK_LOCAL,
    to: bytes = ALL_NODES,
    length: int | None = None,
) -> bytes:
    """An IPv6 packet. `length` is the payload's length if it is to be wrong: what is behind it is a trailer."""
    size = len(payload) if length is None else length
    return struct.pack(">IHBB16s16s", 6 << 28, size, following, 255, source, to) + payload


def finished(protocol: int, datagram: bytes, source: bytes = LINK_LOCAL, to: bytes = ALL_NODES) -> bytes:
    """A UDP datagram or ICMPv6 message with its checksum for IPv6 (RFC 8200, section 8.1)."""
    at = 6 if protocol == UDP else 2
    pseudo = source + to + struct.pack(">II", len(datagram), protocol)
    return datagram[:at] + _checksum(pseudo + datagram) + datagram[at + 2 :]


def icmpv6(kind: int, body: bytes = bytes(12)) -> bytes:
    """An ICMPv6 message without a checksum."""
    return bytes([kind, 0, 0, 0]) + body


def option(following: int) -> bytes:
    """A hop-by-hop or destination options header without options."""
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def fragment(following: int, offset: int, *, more: bool) -> bytes:
    """IPv6's fragment header. `offset` is in bytes."""
    return struct.pack(">BBHI", following, 0, offset | more, 7)


def arp(
    sender: str, target: str, *, operation: int = 1, hardware: bytes = SOURCE, kind: bytes = b"\0\1\x08\0\6\4"
) -> bytes:
    """An ARP packet with its EtherType."""
    addresses = hardware + inet_aton(sender) + bytes(6) + inet_aton(target)
    return bytes(ARP + kind + operation.to_bytes(2, "big") + addresses)


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
