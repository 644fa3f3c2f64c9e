"""The bytes of the clients of load.py: upgrade requests, messages both ways, and answers to ARP and to pings.

Each client has a number. Its Ethernet address and its IPv4 address follow from that. No socket is here; see
load_client.py.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

from bench.light_session import BRIDGE, TYPE
from bench.raw_client import LINES, LINES_V2, masked, request
from etherws.tunnel.frames import Opcode

#: The first address inside the tunnels; client n has this plus n. The network is 10.99.0.0/16.
FIRST_IP = IPv4Address("10.99.4.1")
#: A group address that no bridge forwards, but whose sender each bridge learns (IEEE 802.1D, table 7-10).
NOT_FORWARDED = bytes.fromhex("0180c2000003")
BROADCAST = b"\xff" * 6
#: Of a full frame without a VLAN tag, and of the least one, without FCS.
FRAME_MAX, FRAME_MIN = 1514, 60
#: A BINARY message, FIN set (RFC 6455, section 5.2).
BINARY = 0x80 | Opcode.BINARY

_ARP, _IPV4, _ICMP = b"\x08\x06", b"\x08\x00", 1
#: Ethernet, IPv4, a request (RFC 826).
_ARP_REQUEST = bytes.fromhex("0001080006040001")
#: In front of the frame of a record: the length, and a virtio header that asks for nothing (docs/wire.rst).
_RECORD = struct.Struct(">I10x")
_RNG = random.Random(7)


def mac(number: int) -> bytes:
    """Return the Ethernet address of a client."""
    return b"\x02\xee\x01\0" + number.to_bytes(2, "big")


def ip(number: int) -> IPv4Address:
    """Return the IPv4 address of a client."""
    return FIRST_IP + number


def upgrade(version: int, token: str = "") -> bytes:
    """Return the request for this version of the wire, with this resume token if it is not empty."""
    more = [b"Etherws-Resume: " + token.encode()] if token else []
    return request([*(LINES if version == 1 else LINES_V2), *more])


def frame(destination: bytes, source: bytes, size: int = FRAME_MIN) -> bytes:
    """Return a frame of the type for experiments."""
    return (destination + source + TYPE.to_bytes(2, "big")).ljust(size, b"\0")


def destination(word: str, number: int, clients: int) -> bytes:
    """Return where a client sends to: the bridge, all, the next client, or nowhere (the bridge drops it)."""
    places: dict[str, bytes] = {
        "bridge": BRIDGE,
        "all": BROADCAST,
        "next": mac((number + 1) % clients),
        "nowhere": NOT_FORWARDED,
    }
    return places[word]


def message(version: int, *frames: bytes) -> bytes:
    """Return what a client sends for these frames: a message for each (version 1), or one message of records."""
    if version == 1:
        return b"".join(masked(_RNG, BINARY, frame) for frame in frames)
    payload = b"".join(_RECORD.pack(10 + len(frame)) + frame for frame in frames)
    if len(payload) < 1 << 16:
        return masked(_RNG, BINARY, payload)
    # The key does not matter here, and to mask so much would take long.
    return bytes([BINARY, 0xFF]) + len(payload).to_bytes(8, "big") + bytes(4) + payload


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return masked(_RNG, 0x80 | Opcode.PONG, payload)


def head(data: memoryview, at: int) -> tuple[int, int, int] | None:
    """Return the opcode, the begin and the length of the payload of a server's frame; None if the head is not whole."""
    if len(data) - at < 2:
        return None
    size, begin = data[at + 1] & 0x7F, at + 2
    if size > 125:
        length = 2 if size == 126 else 8
        if len(data) - begin < length:
            return None
        size, begin = int.from_bytes(data[begin : begin + length], "big"), begin + length
    return data[at] & 0xF, begin, size


def frames_of(version: int, payload: memoryview) -> Iterator[memoryview]:
    """The frames of a whole BINARY message."""
    if version == 1:
        yield payload
        return
    at = 0
    while at < len(payload):
        (size,) = _RECORD.unpack_from(payload, at)
        yield payload[at + _RECORD.size : at + 4 + size]
        at += 4 + size


def answer(number: int, asked: memoryview) -> bytes | None:
    """Return the client's answer to an ARP request (RFC 826) or a ping (RFC 792) for its address; None otherwise."""
    kind, own = bytes(asked[12:14]), ip(number).packed
    if kind == _ARP and asked[14:22] == _ARP_REQUEST and asked[38:42] == own:
        sender = bytes(asked[22:32])
        head = sender[:6] + mac(number) + _ARP + _ARP_REQUEST[:7] + b"\x02"
        return (head + mac(number) + own + sender).ljust(FRAME_MIN, b"\0")
    if kind == _IPV4 and asked[14] == 0x45 and asked[23] == _ICMP and asked[30:34] == own and asked[34] == 8:
        found = bytearray(asked)
        found[0:6], found[6:12] = asked[6:12], mac(number)
        found[26:30], found[30:34] = asked[30:34], asked[26:30]
        # Type 0 in place of 8: the checksum grows by as much (RFC 1624, equation 3).
        found[34] = 0
        checksum = int.from_bytes(found[36:38], "big") + 0x0800
        found[36:38] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
        return bytes(found)
    return None


def ping(source: bytes, address: IPv4Address, number: int, sequence: int) -> bytes:
    """Return a ping for a client, from this Ethernet and IPv4 address, with this sequence number."""
    echo = struct.pack(">BBHHH", 8, 0, 0, 0xE7, sequence & 0xFFFF) + bytes(18)
    echo = echo[:2] + checksum(echo) + echo[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, 64, _ICMP, 0)
    header += address.packed + ip(number).packed
    header = header[:10] + checksum(header) + header[12:]
    return mac(number) + source + _IPV4 + header + echo


def checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def jain(rates: list[float]) -> float:
    """Return Jain's index of fairness: 1 if all are equal, 1/n if one has all (Jain, Chiu and Hawe, 1984)."""
    squares = len(rates) * sum(rate * rate for rate in rates)
    return sum(rates) * sum(rates) / squares if squares else 1.0
