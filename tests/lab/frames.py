"""Ethernet frames that tests send."""

from __future__ import annotations

import random

from tests.lab.hosts import OURS

BROADCAST = b"\xff" * 6


SOURCE = OURS + b"\x00\x00\x01"


PEER = OURS + b"\x00\x00\x02"


def frame(size: int, *, to: bytes = PEER, source: bytes = SOURCE, kind: bytes = b"\x88\xb5", seed: int = 0) -> bytes:
    """A frame of `size` bytes with the EtherType for local experiments, and a payload that is its own."""
    head = to + source + kind
    return head + random.Random(f"{size} {seed}").randbytes(size - len(head))


KINDS = {
    "shortest": frame(14),
    "ARP, unpadded": frame(42, to=BROADCAST, kind=b"\x08\x06"),
    "padded": frame(60),
    "full": frame(1514),
    "full with VLAN tag": frame(1518, kind=b"\x81\x00\x20\x64\x88\xb5"),
    "broadcast": frame(200, to=BROADCAST),
    "IPv4 multicast": frame(300, to=b"\x01\x00\x5e\x00\x00\xfb", kind=b"\x08\x00"),
    "IPv6 multicast": frame(300, to=b"\x33\x33\x00\x00\x00\x01", kind=b"\x86\xdd"),
    "LLDP": frame(120, to=b"\x01\x80\xc2\x00\x00\x0e", kind=b"\x88\xcc"),
    "STP": frame(60, to=b"\x01\x80\xc2\x00\x00\x00", kind=b"\x00\x26\x42\x42\x03"),
    **{f"{size} bytes": frame(size) for size in (15, 125, 126, 127, 128, 1000, 1500)},
}
