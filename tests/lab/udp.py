"""UDP super-frames that tests make, and the datagrams that they stand for."""

from __future__ import annotations

import struct

from tests.lab.ip import UDP, checksum, ipv4, ipv6
from tests.lab.records import vnet

#: To a machine, from a machine.
MACS = b"\x02" * 12

#: VIRTIO_NET_HDR_GSO_UDP_L4
UDP_L4 = 5


def _pseudo(version: int, length: int) -> bytes:
    """The pseudo-header of what tests/lab/ip.py makes (RFC 768; RFC 8200, section 8.1)."""
    if version == 4:
        return bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack(">HH", UDP, length)
    return ipv6(0, b"")[10:42] + struct.pack(">II", length, UDP)


def begun(version: int, payload: bytes) -> bytes:
    """A datagram whose checksum is begun: the sum of the pseudo-header."""
    length = 8 + len(payload)
    return struct.pack(">HHHH", 1000, 2000, length, 0xFFFF - checksum(_pseudo(version, length))) + payload


def _frame(datagram: bytes, tags: bytes, more: bytes, version: int, identification: int, macs: bytes) -> bytes:
    if version == 6:
        return macs + tags + ipv6(0 if more else UDP, more + datagram)
    packet = bytearray(ipv4(UDP, datagram, options=more))
    packet[6:8], packet[12:14] = (identification & 0xFFFF).to_bytes(2, "big"), bytes(2)
    packet[12:14] = checksum(bytes(packet[2 : 22 + len(more)])).to_bytes(2, "big")
    return macs + tags + bytes(packet)


def super_frame(
    payload: bytes,
    size: int,
    *,
    tags: bytes = b"",
    more: bytes = b"",
    version: int = 4,
    identification: int = 7,
    macs: bytes = MACS,
) -> bytes:
    """A packet that is to be cut into datagrams of `size` bytes. `more` are options of IPv4, or an extension header of
    IPv6 in front of UDP."""
    start = 14 + len(tags) + (20 if version == 4 else 40) + len(more)
    frame = _frame(begun(version, payload), tags, more, version, identification, macs)
    return vnet(1, UDP_L4, start + 8, size, start, 6) + frame


def finished(payload: bytes, *, tags: bytes = b"", more: bytes = b"", version: int = 4, number: int = 0) -> bytes:
    """The frame of one of its datagrams, finished."""
    length = 8 + len(payload)
    head = struct.pack(">HHHH", 1000, 2000, length, 0)
    value = checksum(_pseudo(version, length) + head + payload) or 0xFFFF
    return _frame(head[:6] + value.to_bytes(2, "big") + payload, tags, more, version, 7 + number, MACS)
