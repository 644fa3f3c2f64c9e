"""IP packets that tests make, and their checksums (RFC 791, RFC 8200, RFC 1071)."""

from __future__ import annotations

import socket
import struct

IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
TAG, SERVICE_TAG = b"\x81\x00\x00\x64", b"\x88\xa8\x00\x65"
TCP, UDP, ICMPV6 = 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60


def checksum(data: bytes) -> int:
    """The Internet checksum of these bytes, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    """An IPv4 packet from 10.0.0.1 to 10.0.0.2, behind its EtherType; the header's checksum is right."""
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | (20 + len(options)) // 4, 0, 20 + len(options) + len(payload), 1, fragment, 64, protocol, 0,
        bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)),
    ) + options  # fmt: skip
    return IPV4 + head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def ipv6(following: int, payload: bytes) -> bytes:
    """An IPv6 packet from fe80::1 to ff02::1, behind its EtherType."""
    source, to = b"\xfe\x80" + bytes(13) + b"\1", b"\xff\2" + bytes(13) + b"\1"
    return IPV6 + struct.pack(">IHBB", 6 << 28, len(payload), following, 255) + source + to + payload


def extension(following: int, size: int = 8) -> bytes:
    """A hop-by-hop or destination options header of `size` bytes: padding only."""
    return bytes((following, size // 8 - 1, 1, size - 4)) + bytes(size - 4)


def udp(sender: int, receiver: int, payload: bytes = bytes(32)) -> bytes:
    """A UDP datagram whose checksum is 0."""
    return struct.pack(">HHHH", sender, receiver, 8 + len(payload), 0) + payload


def icmpv6(kind: int) -> bytes:
    """An ICMPv6 message of this type, without its checksum."""
    return bytes((kind, 0, 0, 0)) + bytes(20)


def tcp(payload: bytes = bytes(32)) -> bytes:
    """A TCP segment whose checksum is 0."""
    return struct.pack(">HHIIBBHHH", 1000, 2000, 1, 0, 0x50, 0x10, 8192, 0, 0) + payload


def balanced(frame: bytes, start: int, wanted: int, at: int) -> bytes:
    """The frame with two bytes at `at` chosen so that the checksum of all from `start` on becomes `wanted`."""
    frame = frame[:at] + bytes(2) + frame[at + 2 :]
    return frame[:at] + ((checksum(frame[start:]) - wanted) % 0xFFFF).to_bytes(2, "big") + frame[at + 2 :]


def router_advertisement(prefix: str) -> bytes:
    """A router's advertisement to all: a default route by it, and the prefix to make addresses of (RFC 4861)."""
    information = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 1800, 1800, 0) + socket.inet_pton(socket.AF_INET6, prefix)
    message = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + information
    packet = ipv6(ICMPV6, message)
    pseudo = packet[10:42] + struct.pack(">II", len(message), ICMPV6)
    return packet[:42] + message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
