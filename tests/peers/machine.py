"""A machine of one Ethernet address that speaks ARP only (RFC 826): it answers for 10.9.0.2, and then asks for
10.9.0.1.
"""

from __future__ import annotations

import struct

MAC = bytes.fromhex("02ee00000002")
OWN, OTHER = bytes([10, 9, 0, 2]), bytes([10, 9, 0, 1])

#: Ethernet's header, and ARP over Ethernet and IPv4.
_ARP = struct.Struct("!6s6sHHHBBH6s4s6s4s")


def _arp(operation: int, destination: bytes, target: bytes, target_ip: bytes) -> bytes:
    return _ARP.pack(destination, MAC, 0x0806, 1, 0x0800, 6, 4, operation, MAC, OWN, target, target_ip)


_QUESTION = _arp(1, b"\xff" * 6, bytes(6), OTHER)


def take(frame: bytes) -> list[bytes]:
    """The frames to send back for a frame. Says on standard output what happened."""
    if len(frame) < _ARP.size:
        return []
    _, _, kind, _, _, _, _, operation, sender, sender_ip, _, target_ip = _ARP.unpack(frame[: _ARP.size])
    if kind != 0x0806 or target_ip != OWN:
        return []
    if operation == 2:
        print("was answered", flush=True)
        return []
    print("was asked", flush=True)
    return [_arp(2, sender, sender, sender_ip), _QUESTION]
