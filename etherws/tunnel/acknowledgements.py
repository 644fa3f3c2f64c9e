"""Fewer acknowledgements of TCP inside the tunnel, where many of one flow arrive at once.

On a long path a lost segment of the outer TCP delays everything behind it by a round trip. Then many packets come at
once, and so do the acknowledgements for them, each of which tells the flow's sender of a long round trip. Eight of
these make Linux leave its slow start (HyStart), and from then on it grows by a twentieth per round trip. The newest
acknowledgement says all that the older ones say, so most of these are left out.

Pure. connection.py calls it for what has come over a long path. Source: RFC 3449, section 5.2.1 (ACK filtering).
"""

from __future__ import annotations

from collections.abc import Sequence

from etherws.tunnel.wire import VNET_BYTES, Buffer

#: How many acknowledgements are left out before one is kept: senders that count acknowledgements, not bytes (RFC 3465
#: allows two segments for each), must not become slow.
LEFT_OUT = 7

#: The lengths of a packet that is looked at: Ethernet, IPv4 and TCP without options; with a VLAN tag, IPv6 and as many
#: options as TCP can have.
SHORTEST, LONGEST = VNET_BYTES + 14 + 20 + 20, VNET_BYTES + 18 + 40 + 60

#: The only options that one may have that is left out: two bytes of padding and time stamps (RFC 7323, appendix A). One
#: with SACK tells more than its number, and a signature (RFC 2385, RFC 5925) is of no other packet.
_TIME_STAMPS = b"\x01\x01\x08\x0a"

_VLAN, _IPV4, _IPV6, _TCP = b"\x81\x00", b"\x08\x00", b"\x86\xdd", 6

#: The flag of TCP that an acknowledgement has, and no other (RFC 9293, section 3.1).
_ACK = 0x10

#: Half of all sequence numbers: what is less ahead is newer (RFC 9293, section 3.4).
_HALF, _ALL = 1 << 31, (1 << 32) - 1

#: Of a flow's last packet: it must stay.
_STAYS = -1


def newest(packets: Sequence[Buffer]) -> Sequence[Buffer]:
    """The packets without acknowledgements for which a newer one of the same flow comes next, but for one in eight.

    All others stay, in their order: what carries data, another flag, SACK or an unusual header, and the last one before
    these. So do acknowledgements that are repeated: senders count them (RFC 5681), and a new window comes so.
    """
    if len(packets) < 2:
        return packets
    # Of each flow, the last packet without data: where it is, what it acknowledges, and how many before it are left
    # out.
    last: dict[bytes, tuple[int, int, int]] = {}
    left_out: set[int] = set()
    for at, packet in enumerate(packets):
        if SHORTEST <= len(packet) <= LONGEST and (found := _acknowledgement(bytes(packet))):
            flow, number, plain = found
            before, older, count = last.get(flow, (_STAYS, -1, 0))
            if plain and before != _STAYS and count < LEFT_OUT and 0 < (number - older) & _ALL < _HALF:
                left_out.add(before)
                count += 1
            else:
                count = 0
            last[flow] = at if plain and number != older else _STAYS, number, count
    return [packet for at, packet in enumerate(packets) if at not in left_out] if left_out else packets


def _acknowledgement(packet: bytes) -> tuple[bytes, int, bool] | None:
    """The flow of a packet of TCP without data, the number that it acknowledges up to, and whether it says nothing
    else; None of any other packet.

    What is called the flow has all that acknowledgements of a flow have in common: Ethernet addresses, VLAN tag, the
    IP header's class of traffic and IPv6's flow label, addresses, ports, and TCP's own sequence number.
    """
    at = VNET_BYTES + 12
    if packet[at : at + 2] == _VLAN:
        at += 4
    kind, ip = packet[at : at + 2], at + 2
    if kind == _IPV4:
        # Without options, and no fragment.
        if packet[ip] != 0x45 or packet[ip + 9] != _TCP or packet[ip + 6] & 0x3F or packet[ip + 7]:
            return None
        tcp, size = ip + 20, int.from_bytes(packet[ip + 2 : ip + 4], "big") - 20
        common = packet[VNET_BYTES : ip + 2] + packet[ip + 12 : tcp]
    elif kind == _IPV6 and len(packet) >= ip + 60:
        if packet[ip + 6] != _TCP:
            return None
        tcp, size = ip + 40, int.from_bytes(packet[ip + 4 : ip + 6], "big")
        common = packet[VNET_BYTES : ip + 4] + packet[ip + 8 : tcp]
    else:
        return None
    # Its header is all that it has. The four bits behind the header's length are a flag (RFC 9768), or reserved.
    if packet[tcp + 12] >> 2 & 0x3C != size or len(packet) < tcp + size:
        return None
    plain = packet[tcp + 13] == _ACK and not packet[tcp + 12] & 0x0F
    if size != 20 and (size != 32 or packet[tcp + 20 : tcp + 24] != _TIME_STAMPS):
        plain = False
    return common + packet[tcp : tcp + 8], int.from_bytes(packet[tcp + 8 : tcp + 12], "big"), plain
