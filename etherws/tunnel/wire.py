"""Frames <-> messages: what a WebSocket message of each version of the wire holds.

Pure: no sockets, no devices, no waiting. tap.py fills a Batch, a version turns it into messages, frames.py
turns those into bytes; and back. docs/wire.rst is the specification.

On this side of the wire a frame is always a *packet* as the TAP reads and writes it: struct virtio_net_hdr and the
frame (include/uapi/linux/virtio_net.h, little endian by TUNSETVNETLE). The header says what hardware would still have
to do: fill in a checksum, cut a TCP super-frame of up to 64 KiB into segments.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from etherws.errors import ProtocolError

Buffer = bytes | bytearray | memoryview

#: Bytes after which a batch is full. One turn of the pump: long enough that a system call and a turn of the
#: event loop weigh little (about 85 full frames), short enough to send within a millisecond.
BATCH_BYTES = 128 * 1024

#: struct virtio_net_hdr: u8 flags, gso_type; u16 hdr_len, gso_size, csum_start, csum_offset.
VNET_BYTES = 10

#: The header of a frame that is complete.
COMPLETE = bytes(VNET_BYTES)

#: Room for the largest frame that a TAP can give: MTU 65,521 + 14 (Ethernet) + 4 (802.1Q), rounded up.
FRAME_ROOM = 65_600

#: An Ethernet header (IEEE 802.3, clause 3.2): two addresses and a type. A TAP refuses less with EINVAL.
FRAME_MIN = 14

#: Close codes that a wrong record is due (RFC 6455, section 7.4.1).
PROTOCOL_ERROR, TOO_BIG = 1002, 1009

NEEDS_CSUM, DATA_VALID = 1, 2
#: The least that a kernel cuts TCP into (include/net/tcp.h, TCP_MIN_GSO_SIZE). Less would only make ours work: one byte
#: to a segment are 65,000 packets for one record.
SEGMENT_MIN = 8

GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN = 0, 1, 4, 0x80

_GSO_LEGAL = frozenset(kind | ecn for kind in (GSO_TCPV4, GSO_TCPV6) for ecn in (0, GSO_ECN))

_LENGTH = struct.Struct(">I")

#: A record's length, and of its header flags and gso_type as one number: 0 says that the frame is complete.
_RECORD = struct.Struct(">IH")
_VNET = struct.Struct("<BBHHHH")

#: What a record announces, at least and at most (docs/wire.rst).
RECORD_MIN, RECORD_MAX = VNET_BYTES + FRAME_MIN, 65_568


def buffer(size: int) -> memoryview:
    """`size` zero bytes to read into. The kernel gives the pages as they are used: an idle link has few."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Batch:
    """Packets in one buffer, in the order in which the TAP gave them.

    `view` is the buffer, `spans` the (start, end) of each packet in it. Before each there are GAP bytes free, where
    version 2 puts a record's length, so that the batch is a message without a byte being copied.
    """

    GAP = _LENGTH.size

    __slots__ = ("spans", "view")

    def __init__(self) -> None:
        self.view = buffer(BATCH_BYTES + self.GAP + VNET_BYTES + FRAME_ROOM)
        self.spans: list[tuple[int, int]] = []


class Version1:
    """One whole frame per message, nothing around it; what etherws 0.1 to 1.3, v86 and others speak."""

    number = 1

    #: As the subprotocol of the opening handshake. Need not be named; browsers must name one beside their token.
    name = "etherws.v1"

    #: Whether the peer's kernel takes what ours left unfinished: super-frames and partial checksums.
    offload = False

    #: The longest message that is taken from the peer, in bytes: 64 KiB, and what the largest frame has beyond.
    max_message = FRAME_ROOM

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()

    def pack(self, batch: Batch) -> list[memoryview]:
        """The batch as messages; they are views of its buffer, valid until it is filled again."""
        view = batch.view
        # The offloads are off, but what passed the kernel's queue as they were switched may still be unfinished.
        messages = [
            view[start + VNET_BYTES : end]
            for start, end in batch.spans
            if not view[start] & NEEDS_CSUM and view[start + 1] == GSO_NONE
        ]
        if len(messages) < len(batch.spans):
            self.drops["unfinished"] += len(batch.spans) - len(messages)
        return messages

    def pack_kept(self, packets: Sequence[bytes]) -> list[Buffer]:
        """Packets that were kept for a while, as messages."""
        messages: list[Buffer] = [
            packet[VNET_BYTES:] for packet in packets if not packet[0] & NEEDS_CSUM and packet[1] == GSO_NONE
        ]
        if len(messages) < len(packets):
            self.drops["unfinished"] += len(packets) - len(messages)
        return messages

    def unpack(self, messages: Sequence[Buffer]) -> Sequence[Buffer]:
        """The packets in `messages`. A message too short for a frame is dropped and counted."""
        # To copy a frame behind its header costs less than to hand the kernel two pieces.
        join = b"".join
        packets = [join((COMPLETE, message)) for message in messages if len(message) >= FRAME_MIN]
        if len(packets) < len(messages):
            self.drops["runt"] += len(messages) - len(packets)
        return packets


class Version2:
    """Many packets per message: a sequence of records, each its length in 4 bytes, big endian, and a packet."""

    number = 2
    name = "etherws.v2"
    offload = True
    max_message = 1024 * 1024

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()

    def pack(self, batch: Batch) -> list[memoryview]:
        """The batch as one message: the lengths are written between its packets."""
        view, pack_into = batch.view, _LENGTH.pack_into
        for start, end in batch.spans:
            pack_into(view, start - 4, end - start)
        return [view[:end]] if batch.spans else []

    def pack_kept(self, packets: Sequence[bytes]) -> list[Buffer]:
        """Packets that were kept for a while, as one message."""
        pack = _LENGTH.pack
        message = b"".join([piece for packet in packets for piece in (pack(len(packet)), packet)])
        return [message] if message else []

    def unpack(self, messages: Sequence[Buffer]) -> Sequence[Buffer]:
        """The packets in `messages`, as views of them. Raises ProtocolError at the first wrong record.

        Then nothing of these messages is returned: whoever breaks a record's rules has lost the place.
        """
        packets: list[Buffer] = []
        unpack_from = _RECORD.unpack_from
        for message in messages:
            # A fragmented message comes as bytes, whose slices would be copies.
            view, at, size = memoryview(message), 0, len(message)
            while at < size:
                if size - at < 4 + RECORD_MIN:
                    raise ProtocolError(PROTOCOL_ERROR, f"record cut short: {size - at} bytes are left for it")
                length, kind = unpack_from(view, at)
                start = at + 4
                at = start + length
                if not RECORD_MIN <= length <= RECORD_MAX or at > size:
                    raise _wrong_length(length, size - start)
                if kind:
                    _check(view[start : start + VNET_BYTES], length - VNET_BYTES)
                packets.append(view[start:at])
        return packets


def offer(newest: int) -> list[str]:
    """The subprotocols for a client to offer, if versions up to `newest` are to be agreed on."""
    return [Version2.name] if newest >= 2 else []


def best(offered: Iterable[str], newest: int) -> Version1 | Version2:
    """The version to speak with a peer that names these subprotocols; not above `newest`, 1 or 2."""
    return Version2() if newest >= 2 and Version2.name in offered else Version1()


def _wrong_length(length: int, left: int) -> ProtocolError:
    if length > RECORD_MAX:
        return ProtocolError(TOO_BIG, f"record of {length} bytes; {RECORD_MAX} are taken at most")
    if length < RECORD_MIN:
        return ProtocolError(PROTOCOL_ERROR, f"record of {length} bytes; the least is {RECORD_MIN}")
    return ProtocolError(PROTOCOL_ERROR, f"record of {length} bytes runs past its message, which has {left} more")


def _check(vnet: Buffer, size: int) -> None:
    """Raise ProtocolError unless the header, of a frame of `size` bytes, is one that version 2 allows."""
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = _VNET.unpack(vnet)
    if flags & ~(NEEDS_CSUM | DATA_VALID):
        raise ProtocolError(PROTOCOL_ERROR, f"record with the unknown flags {flags:#x}")
    if flags & NEEDS_CSUM and csum_start + csum_offset + 2 > size:
        raise ProtocolError(PROTOCOL_ERROR, "record whose checksum lies outside its frame")
    if gso_type == GSO_NONE:
        return
    if gso_type not in _GSO_LEGAL:
        raise ProtocolError(PROTOCOL_ERROR, f"record of GSO type {gso_type:#x}, which version 2 has not")
    if gso_size < SEGMENT_MIN:
        raise ProtocolError(PROTOCOL_ERROR, f"record of a super-frame with segments of {gso_size} bytes")
    if hdr_len > size:
        raise ProtocolError(PROTOCOL_ERROR, "record whose headers are longer than its frame")
