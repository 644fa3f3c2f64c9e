"""What a tenant can send behind the 101, as bytes that are ready to be sent again and again: for hostile_kinds.py.

Each function returns frames of the WebSocket, masked before the attack begins, so that the attacker needs as little of
the machine's cores as possible. See docs/wire.rst for messages and records.
"""

from __future__ import annotations

import random

from bench.raw_client import masked

#: Bytes of a buffer that is sent in a loop: as many as a server reads at once.
BUFFER_BYTES = 256 * 1024
#: Bytes of the buffer in which each frame has another source: 40,000 of them, more than any table holds.
SOURCES_BYTES = 4 << 20
#: First bytes of frames (RFC 6455, section 5.2): the last or only one of a message, and others.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
FIRST, MIDDLE, LAST = 0x02, 0x00, 0x80
#: Our own address, that of the server's bridge (light_session.py sets it), and all.
OWN, BRIDGE, ALL = bytes.fromhex("02ee00000066"), bytes.fromhex("02ee000000b0"), b"\xff" * 6
#: An Ethernet type for experiments (IEEE 802), which no host has a use for.
TYPE = b"\x88\xb6"
#: struct virtio_net_hdr of a complete frame.
COMPLETE = bytes(10)
#: A Close with the code 1000.
GOODBYE = masked(random.Random(0), CLOSE, b"\x03\xe8")


def ethernet(size: int, to: bytes = BRIDGE, source: bytes = OWN) -> bytes:
    """Return an Ethernet frame of that many bytes, zeros behind its header."""
    return (to + source + TYPE).ljust(size, b"\0")


def repeated(*frames: tuple[int, bytes], size: int = BUFFER_BYTES) -> bytes:
    """Return these frames, given by first byte and payload, again and again, in about `size` bytes."""
    rng, data = random.Random(1), bytearray()
    while len(data) < size:
        # The masks differ, as honest ones do.
        for first, payload in frames:
            data += masked(rng, first, payload)
    return bytes(data)


def record(frame: bytes, header: bytes = COMPLETE) -> bytes:
    """Return a record of version 2."""
    return (len(header) + len(frame)).to_bytes(4, "big") + header + frame


def many_records(one: bytes, size: int) -> bytes:
    """Return one message of version 2 with this record as often as `size` bytes hold it."""
    return _long(one * (size // len(one)))


def new_sources() -> bytes:
    """Return frames of 60 bytes, each with another source address."""
    rng = random.Random(2)
    frames = [(BINARY, ethernet(60, source=b"\x02" + rng.randbytes(5))) for _ in range(SOURCES_BYTES // 66)]
    return repeated(*frames, size=1)


def super_frames() -> bytes:
    """Return super-frames of 64 kB with the smallest segments, to all: where a port takes none, as of a session of
    version 1, the kernel makes 8,000 packets of each."""
    size = 65_000
    header = bytes([1, 1]) + b"".join(number.to_bytes(2, "little") for number in (54, 8, 34, 16))
    packet = ALL + OWN + b"\x08\x00" + _ipv4(size, 6)
    tcp = b"\x30\x39\x00\x09" + bytes(8) + b"\x50\x10\xff\xff" + bytes(4)
    return repeated((BINARY, record((packet + tcp).ljust(14 + size, b"\0"), header)))


def partial_checksums() -> bytes:
    """Return UDP datagrams whose checksum the server's kernel is to fill in."""
    header = b"\1\0" + bytes(4) + b"\x22\0\x06\0"
    datagram = _ipv4(46, 17) + b"\x30\x39\x00\x09\x00\x1a\0\0" + bytes(18)
    return repeated((BINARY, record(BRIDGE + OWN + b"\x08\x00" + datagram, header) * 20))


def refused_by_the_kernel() -> bytes:
    """Return records that break no rule of version 2, but that a TAP refuses with EINVAL: complete frames whose
    headers are said to be longer than they are (drivers/net/tun.c, tun_get_user)."""
    return repeated((BINARY, record(ethernet(60), b"\0\0\xff\xff" + bytes(6)) * 20))


def unfinished() -> bytes:
    """Return the most of a message of 1 MiB, without its end."""
    return _long(bytes(1 << 20))[:-1]


def wrong_record() -> bytes:
    """Return some good records, and one that ends the connection."""
    return repeated((BINARY, record(ethernet(60)) * 20), size=1) + masked(random.Random(0), BINARY, bytes(40))


def _ipv4(size: int, protocol: int) -> bytes:
    """Return the header of an IPv4 packet of that many bytes, to an address that the server does not have."""
    header = bytearray(b"\x45\0" + size.to_bytes(2, "big") + b"\0\0\0\0\x40" + bytes([protocol]) + b"\0\0")
    header += b"\x0a\x63\0\x66\x0a\x63\0\xfe"
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(header)


def _long(payload: bytes) -> bytes:
    """Return one BINARY message of any length, under a mask of zeros."""
    return bytes([BINARY, 0xFF]) + len(payload).to_bytes(8, "big") + bytes(4) + payload
