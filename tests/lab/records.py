"""Records of version 2 of the wire, right and wrong."""

from __future__ import annotations

import struct

from etherws.tunnel.wire import (
    RECORD_MAX,
)


def vnet(flags: int = 0, gso: int = 0, hdr_len: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    """struct virtio_net_hdr, little endian."""
    return struct.pack("<BBHHHH", flags, gso, hdr_len, gso_size, start, offset)


def record(packet: bytes, length: int | None = None) -> bytes:
    """A record of version 2."""
    return struct.pack(">I", len(packet) if length is None else length) + packet


BAD = {
    "half a length": (b"\0\0", 1002),
    "a length and nothing": (b"\0\0\0\x18", 1002),
    "a length of 0": (record(bytes(24), 0), 1002),
    "one byte less than the least": (record(bytes(23)) + bytes(10), 1002),
    "past its message": (record(bytes(24), 25), 1002),
    "far past its message": (record(bytes(24), RECORD_MAX), 1002),
    "one byte more than the most": (record(bytes(RECORD_MAX + 1)), 1009),
    "4 GiB": (record(bytes(24), 0xFFFFFFFF), 1009),
    "a byte behind the last": (record(bytes(24)) + b"\0", 1002),
    "unknown flags": (record(vnet(flags=4) + bytes(60)), 1002),
    "GSO of UDP": (record(vnet(1, 3, 42, 1000, 34, 6) + bytes(5000)), 1002),
    "GSO of UDP, by layer 4": (record(vnet(1, 5, 42, 1000, 34, 6) + bytes(5000)), 1002),
    "ECN alone": (record(vnet(1, 0x80, 54, 1448, 34, 16) + bytes(5000)), 1002),
    "GSO of nothing known": (record(vnet(0, 2) + bytes(60)), 1002),
    "segments of 0 bytes": (record(vnet(1, 1, 54, 0, 34, 16) + bytes(5000)), 1002),
    "segments of 7 bytes": (record(vnet(1, 1, 54, 7, 34, 16) + bytes(5000)), 1002),
    "headers longer than the frame": (record(vnet(1, 1, 5001, 1448, 34, 16) + bytes(5000)), 1002),
    "a checksum one byte behind the frame": (record(vnet(flags=1, start=34, offset=19) + bytes(54)), 1002),
    "a checksum far behind the frame": (record(vnet(flags=1, start=0xFFFF, offset=0xFFFF) + bytes(54)), 1002),
    "a frame of version 1": (b"\xff" * 6 + b"\x02" * 6 + b"\x08\x06" + bytes(46), 1009),
    "a unicast frame of version 1": (bytes.fromhex("0242ac110002") + bytes(54), 1009),
}
