"""UDP super-frames: what one must be, and how it is cut into datagrams where the kernel is not to do it.

A sender makes one by the socket option UDP_SEGMENT, as QUIC and WireGuard do: one UDP header, and the payloads of many
datagrams, all of the same length but for the last. The kernel cuts TCP in its place always, so only UDP is cut here.

Pure. Read next: offloads.py, which asks for each record; wire.py and backlog.py, which cut.
Source: Linux, include/linux/virtio_net.h (virtio_net_hdr_to_skb), net/ipv4/udp_offload.c (__udp_gso_segment),
net/ipv4/af_inet.c (inet_gso_segment).
"""

from __future__ import annotations

import struct

#: Datagrams of one super-frame at most (include/linux/udp.h, UDP_MAX_SEGMENTS, since Linux 6.9). A kernel takes no
#: more, so a record makes this machine's kernel handle no more packets.
SEGMENTS_MAX = 128

#: VIRTIO_NET_HDR_GSO_UDP_L4, VIRTIO_NET_HDR_F_NEEDS_CSUM.
UDP_L4, _NEEDS_CSUM = 5, 1

#: struct virtio_net_hdr: u8 flags, gso_type; u16 hdr_len, gso_size, csum_start, csum_offset; little endian.
_VNET = struct.Struct("<BBHHHH")
_FRAME = _VNET.size

_NUMBER, _NUMBERS = struct.Struct(">H"), struct.Struct(">HH")

#: UDP's header (RFC 768): its bytes, where the receiver's port and the length are, and the checksum behind that.
_UDP_BYTES, _RECEIVER, _LENGTH, _CHECKSUM = 8, 2, 4, 6

#: The ports of DHCP servers and relays, for IPv4 and IPv6. A filter looks at each message there: one from a server is
#: known by its first byte (kernel/headers.py).
_DHCP_SERVERS = 67, 547

#: In IPv4's header (RFC 791): where the total length is, and the identification behind it; and the checksum.
_IPV4_LENGTH, _IPV4_CHECKSUM = 2, 10

#: IPv6's header (RFC 8200): its bytes, and where the length of what follows it is.
_IPV6_BYTES, _IPV6_LENGTH = 40, 4


def is_sound(frame: memoryview, network: int, start: int, gso_size: int) -> bool:
    """Whether a frame may be cut into datagrams of `gso_size` bytes: `network` is where its IP header begins, `start`
    where the UDP header does.

    All lengths must be those of the frame, it must be more than one datagram, and the checksum must be begun: 0 would
    say that there is none, and the kernel would begin from that.
    """
    length, checksum = _NUMBERS.unpack_from(frame, start + _LENGTH)
    payload = len(frame) - start - _UDP_BYTES
    return (
        length == payload + _UDP_BYTES
        and checksum != 0
        and gso_size < payload <= gso_size * SEGMENTS_MAX
        and _ip_length(frame, network) == len(frame) - network
    )


def _ip_length(frame: memoryview, network: int) -> int:
    """The bytes of an IP packet, as its header says."""
    version_4 = frame[network] >> 4 == 4
    length: int = _NUMBER.unpack_from(frame, network + (_IPV4_LENGTH if version_4 else _IPV6_LENGTH))[0]
    return length if version_4 else _IPV6_BYTES + length


def is_cut_early(packet: memoryview) -> bool:
    """Whether filters have to see each datagram of a sound super-frame by itself: those to a group are counted, and
    messages to DHCP's servers and relays are looked at. The kernel cuts a super-frame behind its filters."""
    start: int = _VNET.unpack_from(packet)[4]
    receiver: int = _NUMBER.unpack_from(packet, _FRAME + start + _RECEIVER)[0]
    return bool(packet[_FRAME] & 1) or receiver in _DHCP_SERVERS


def cut(packet: bytes | bytearray | memoryview) -> list[bytes]:
    """The datagrams of a UDP super-frame, as packets: with the same headers as the kernel gives them. Each checksum is
    begun, and left to the kernel.

    The packet is what a kernel gave, or what offloads.py has let pass: its headers lie where the virtio header says.
    """
    _, _, _, gso_size, start, _ = _VNET.unpack_from(packet)
    view = memoryview(packet)
    udp = _FRAME + start
    # Nothing but VLAN tags, of four bytes each, is between Ethernet's addresses and the EtherType of IP.
    network = _FRAME + 14
    while bytes(view[network - 2 : network]) in (b"\x81\x00", b"\x88\xa8"):
        network += 4
    version_4 = view[network] >> 4 == 4
    head = bytearray(view[: udp + _UDP_BYTES])
    _VNET.pack_into(head, 0, _NEEDS_CSUM, 0, 0, 0, start, _CHECKSUM)
    whole, begun = _NUMBERS.unpack_from(head, udp + _LENGTH)
    identification = header_sum = 0
    if version_4:
        identification = _NUMBERS.unpack_from(head, network + _IPV4_LENGTH)[1]
        _NUMBERS.pack_into(head, network + _IPV4_LENGTH, 0, 0)
        _NUMBER.pack_into(head, network + _IPV4_CHECKSUM, 0)
        header_sum = int.from_bytes(head[network : network + (head[network] & 15) * 4], "big")
    found = []
    for number, at in enumerate(range(udp + _UDP_BYTES, len(view), gso_size)):
        payload = view[at : at + gso_size]
        length = _UDP_BYTES + len(payload)
        # To add in ones' complement is to add modulo 65,535 (RFC 1071); 0 would say that there is no checksum.
        _NUMBERS.pack_into(head, udp + _LENGTH, length, (begun - whole + length) % 0xFFFF or 0xFFFF)
        total = udp - network + length
        if version_4:
            own = (identification + number) & 0xFFFF
            _NUMBERS.pack_into(head, network + _IPV4_LENGTH, total, own)
            _NUMBER.pack_into(head, network + _IPV4_CHECKSUM, -(header_sum + total + own) % 0xFFFF)
        else:
            _NUMBER.pack_into(head, network + _IPV6_LENGTH, total - _IPV6_BYTES)
        found.append(b"".join((head, payload)))
    return found
