"""What a packet's virtio header leaves undone, and whether it may.

The header is struct virtio_net_hdr of include/uapi/linux/virtio_net.h. The kernel acts on it after its filters have
looked at the frame: it writes a checksum where the header says, and cuts a super-frame. So the header must say what the
frame is. Only the checksum of the outermost TCP or UDP header may be left to the kernel. Any other is filled in here,
before the filters look.

Pure. wire.py asks for each record whose header says anything. docs/wire.rst has the rules.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from etherws.close_codes import CloseCode
from etherws.errors import ProtocolError
from etherws.tunnel import udp_super_frames

#: The least that a kernel cuts TCP into (include/net/tcp.h, TCP_MIN_GSO_SIZE). With segments of one byte, one record
#: would give this machine's kernel 65,000 packets to handle.
SEGMENT_MIN = 8

#: Bytes of a segment from which on the headers are about a tenth of what a super-frame is cut into, or less.
SEGMENT_USUAL = 512

#: The headers before TCP's or UDP's count as few if a segment has so many times their bytes. IPv6's extension headers
#: may be longer than the segments.
SEGMENT_PER_HEADERS = 8

#: VLAN tags that a frame may have before its IP header. More than two are very rare.
TAGS_MAX = 2

#: IPv6 extension headers that a frame may have before TCP or UDP. RFC 8200, section 4.1, lists six; a longer chain
#: would only cost time.
EXTENSIONS_MAX = 6

#: Bytes before the TCP or UDP header of a super-frame. Each of its segments repeats them: with six long extension
#: headers one record would have this machine's kernel make 80 MB of it. SRv6 with 20 hops (RFC 8754) has less than 400.
HEADERS_MAX = 512


class Offload(IntEnum):
    """What this end's kernel may leave to the peer's; each includes the one before."""

    #: Nothing: each frame is complete.
    NONE = 0
    #: A checksum, and to cut TCP super-frames.
    TCP = 1
    #: To cut UDP super-frames too.
    TCP_UDP = 2


class VnetFlag(IntFlag):
    """What is known about a frame's checksum (VIRTIO_NET_HDR_F_*)."""

    #: The TCP or UDP checksum is not filled in yet; csum_start and csum_offset say where it is.
    NEEDS_CSUM = 1
    #: The checksum was verified. A TAP ignores that: the kernel that is told so still verifies the checksum.
    DATA_VALID = 2


class Gso(IntEnum):
    """What a super-frame is to be cut into (VIRTIO_NET_HDR_GSO_*)."""

    NONE = 0
    TCPV4 = 1
    TCPV6 = 4
    #: UDP over either version of IP, if the two ends have agreed on it.
    UDP_L4 = udp_super_frames.UDP_L4
    #: Not a kind but a bit beside TCPV4 or TCPV6: the TCP connection uses ECN.
    ECN = 0x80


# Compared with bytes of each packet: plain integers are faster than members of an enum.
_NEEDS_CSUM, _DATA_VALID = int(VnetFlag.NEEDS_CSUM), int(VnetFlag.DATA_VALID)
_UNFINISHED = (_NEEDS_CSUM, _NEEDS_CSUM | _DATA_VALID)
_GSO_NONE, _GSO_UDP = int(Gso.NONE), int(Gso.UDP_L4)
_GSO_TCPV4 = (int(Gso.TCPV4), int(Gso.TCPV4 | Gso.ECN))
_GSO_TCPV6 = (int(Gso.TCPV6), int(Gso.TCPV6 | Gso.ECN))

#: u8 flags, gso_type; u16 hdr_len, gso_size, csum_start, csum_offset.
_VNET = struct.Struct("<BBHHHH")
_FRAME = _VNET.size

#: The same; of the frame behind it the first byte and the EtherType, and the bytes 0, 6 and 7 (as one number) and 9 of
#: the IP header. In little endian as the virtio header, so that one call reads all.
_HEADERS = struct.Struct("<BBHHHHB11xHB5xHxB")

#: An untagged frame with an IPv4 header and a whole UDP header. A shorter one gets the longer look.
_QUICK_MIN = _FRAME + 14 + 20 + 8

#: EtherTypes, and IPv4's More Fragments and offset, as _HEADERS reads them: with their bytes swapped.
_SWAPPED_IPV4, _SWAPPED_IPV6, _SWAPPED_FRAGMENT = 0x0008, 0xDD86, 0xFF3F

_IPV4, _IPV6, _TAGS = b"\x08\x00", b"\x86\xdd", (b"\x81\x00", b"\x88\xa8")
_TCP, _UDP = 6, 17
#: The IPv6 extension headers that the kernel's TCP passes over: hop-by-hop options, routing, destination options.
_EXTENSIONS = (0, 43, 60)

#: Where the checksum is in the header of TCP (RFC 9293, section 3.1) and UDP (RFC 768), in bytes.
_TCP_CHECKSUM, _UDP_CHECKSUM = 16, 6
#: Where TCP's header has its own length, in four bits; and the bytes of UDP's.
_TCP_LENGTH, _UDP_BYTES = 12, 8


def is_usual(packet: memoryview) -> bool:
    """Whether the packet's header is right, by a quick look at it; the packet needs no change then.

    False only means that settle() must look longer. Nearly every packet is usual: TCP or UDP without VLAN tags, IPv4
    options or IPv6 extension headers.
    """
    if len(packet) < _QUICK_MIN:
        return False
    # For mypy: a struct's values have no types.
    flags: int
    gso_type: int
    offset: int
    protocol: int
    first: int
    (flags, gso_type, hdr_len, gso_size, start, offset, first, kind, version, fragment, protocol) = (
        _HEADERS.unpack_from(packet)
    )
    if gso_type == _GSO_NONE and hdr_len:
        return False
    if flags == _DATA_VALID:
        return gso_type == _GSO_NONE
    if kind == _SWAPPED_IPV4:
        fits = start == 34 and version == 0x45 and not fragment & _SWAPPED_FRAGMENT
        super_frames = _GSO_TCPV4
    elif kind == _SWAPPED_IPV6:
        fits = start == 54 and version >> 4 == 6
        super_frames = _GSO_TCPV6
        protocol = fragment & 0xFF
    else:
        return False
    size = len(packet) - _FRAME
    if not fits or flags not in _UNFINISHED or start + offset + 2 > size:
        return False
    if gso_type == _GSO_NONE:
        return (protocol == _UDP and offset == _UDP_CHECKSUM) or (protocol == _TCP and offset == _TCP_CHECKSUM)
    return (
        gso_type in super_frames
        and protocol == _TCP
        and offset == _TCP_CHECKSUM
        and gso_size >= SEGMENT_MIN
        and hdr_len <= size
        and not first & 1
    )


def added_headers(packet: memoryview) -> int:
    """How many bytes of headers come to a super-frame when it is cut into segments that are short, or shorter than
    their headers: with segments of a byte it grows fifty-fold. 0 if they are not short."""
    gso_size, start = packet[4] | packet[5] << 8, packet[6] | packet[7] << 8
    if not gso_size or (gso_size >= SEGMENT_USUAL and start * SEGMENT_PER_HEADERS <= gso_size):
        return 0
    if packet[1] == _GSO_UDP:
        headers = start + _UDP_BYTES
    else:
        # One that is dropped may end before that.
        at = _FRAME + start + _TCP_LENGTH
        headers = start + (packet[at] >> 2 & 0x3C if at < len(packet) else 0)
    return max(0, len(packet) - _FRAME - headers) // gso_size * headers


def settle(packet: memoryview, *, uso: bool = False) -> memoryview | bytearray | None:
    """The packet as it may go to the kernel: itself; or a copy whose checksum is filled in; or None, to be dropped.

    None is a super-frame whose header does not say what the frame is. With `uso` the two ends have agreed on UDP
    super-frames: one that is to be cut here is returned, too. Raises ProtocolError if version 2 does not allow
    the virtio header.
    """
    flags, gso_type, hdr_len, gso_size, start, offset = _VNET.unpack_from(packet)
    frame = packet[_FRAME:]
    _check(flags, gso_type, hdr_len, gso_size, len(frame), uso)
    if gso_type == _GSO_NONE and hdr_len:
        # A kernel says it of super-frames only. It makes the first piece of a long frame so short that the receiver's
        # filters find no IPv6 header there (ipv6_find_hdr() of net/ipv6/exthdrs_core.c reads only that piece).
        packet = memoryview(bytes((*packet[:2], 0, 0)) + bytes(packet[4:]))
    if not flags & _NEEDS_CSUM:
        return packet if gso_type == _GSO_NONE else None
    if start + offset + 2 > len(frame):
        raise _wrong("record whose checksum lies outside its frame")
    found = _transport(frame)
    own = found is not None and found.start == start and found.checksum == offset
    if gso_type == _GSO_NONE:
        return packet if own else _finish(packet, start, offset)
    if not own or found is None or gso_type not in found.super_frames or start > HEADERS_MAX:
        return None
    if gso_type == _GSO_UDP:
        return packet if udp_super_frames.is_sound(frame, found.network, start, gso_size) else None
    # TCP never goes to a group. To cut one frame into many would circumvent limits to broadcasts.
    return packet if not frame[0] & 1 else None


class _Transport(NamedTuple):
    """The outermost TCP or UDP header: where the IP header before it begins, and where it does; where in it the
    checksum is, and the GSO types that fit."""

    network: int
    start: int
    checksum: int
    super_frames: tuple[int, ...]


def _transport(frame: memoryview) -> _Transport | None:
    """The outermost TCP or UDP header of a frame. None if it has none, or is a fragment, or was cut off."""
    kind, at = bytes(frame[12:14]), 14
    for _ in range(TAGS_MAX):
        if kind in _TAGS:
            kind, at = bytes(frame[at + 2 : at + 4]), at + 4
    network = at
    try:
        # A header has five words at least.
        if kind == _IPV4 and 0x45 <= frame[at] < 0x50:
            if (frame[at + 6] << 8 | frame[at + 7]) & 0x3FFF:
                return None
            protocol, super_frames = frame[at + 9], _GSO_TCPV4
            at += (frame[at] & 15) * 4
        elif kind == _IPV6 and frame[at] >> 4 == 6:
            protocol, super_frames = frame[at + 6], _GSO_TCPV6
            at += 40
            for _ in range(EXTENSIONS_MAX):
                if protocol not in _EXTENSIONS:
                    break
                protocol, at = frame[at], at + 8 + frame[at + 1] * 8
        else:
            return None
    except IndexError:
        return None
    if protocol == _TCP:
        return _Transport(network, at, _TCP_CHECKSUM, super_frames)
    return _Transport(network, at, _UDP_CHECKSUM, (_GSO_UDP,)) if protocol == _UDP else None


def _finish(packet: memoryview, start: int, offset: int) -> bytearray:
    """A complete copy of the packet: the checksum of all from `start` on is in its place (RFC 1071)."""
    covered = packet[_FRAME + start :]
    total = int.from_bytes(covered, "big") << 8 * (len(covered) % 2)
    # To add up 16-bit words with their carries is to take the number that they make modulo 65,535. As the kernel does,
    # write 0xFFFF instead of 0, which means "no checksum" in UDP.
    checksum = 0xFFFF - total % 0xFFFF
    done = bytearray(packet)
    done[:_FRAME] = bytes(_FRAME)
    done[_FRAME + start + offset : _FRAME + start + offset + 2] = checksum.to_bytes(2, "big")
    return done


def _check(flags: int, gso_type: int, hdr_len: int, gso_size: int, size: int, uso: bool) -> None:
    """Raise ProtocolError unless version 2, with `uso` or without, allows these values for a frame of `size` bytes."""
    if flags & ~(_NEEDS_CSUM | _DATA_VALID):
        raise _wrong(f"record with the unknown flags {flags:#x}")
    if gso_type == _GSO_NONE:
        return
    udp = gso_type == _GSO_UDP
    if gso_type not in _GSO_TCPV4 + _GSO_TCPV6 and not (udp and uso):
        why = "was not agreed on" if udp else "version 2 does not have"
        raise _wrong(f"record of GSO type {gso_type:#x}, which {why}")
    # A program may send datagrams of one byte by UDP_SEGMENT. There are no more than 128 of them in one record.
    if gso_size < (1 if udp else SEGMENT_MIN):
        raise _wrong(f"record of a super-frame with segments of {gso_size} bytes")
    if hdr_len > size:
        raise _wrong("record whose headers are longer than its frame")


def _wrong(message: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, message)
