"""Packets <-> messages: what a WebSocket message of each version of the wire holds.

Pure: no sockets, no devices, no waiting. tap.py fills a Batch, a version of the wire makes messages of it, frames.py
makes bytes of those; and the reverse. docs/wire.rst is the specification.

In this package a *packet* is what the TAP reads and writes: struct virtio_net_hdr and an Ethernet frame
(include/uapi/linux/virtio_net.h, little endian by TUNSETVNETLE). The header says what is left to do for the network
card: fill in a checksum, cut a TCP super-frame of up to 64 KiB into segments.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from etherws.counters import Traffic
from etherws.errors import ProtocolError
from etherws.tunnel.offloads import Gso, Offload, VnetFlag, added_headers, is_usual, settle
from etherws.tunnel.record_errors import wrong, wrong_length
from etherws.tunnel.udp_super_frames import cut, is_cut_early

Buffer = bytes | bytearray | memoryview

#: Bytes after which a batch is full. Many enough that a system call and a turn of the event loop cost little for each
#: frame (about 85 full frames), few enough to be sent within a millisecond.
BATCH_BYTES = 128 * 1024

#: struct virtio_net_hdr: u8 flags, gso_type; u16 hdr_len, gso_size, csum_start, csum_offset.
VNET_BYTES = 10

#: The header of a frame that is complete.
COMPLETE = bytes(VNET_BYTES)

#: Room for the largest frame that a TAP can give: MTU 65,521 + 14 (Ethernet) + 4 (802.1Q), rounded up.
FRAME_ROOM = 65_600

#: An Ethernet header (IEEE 802.3, clause 3.2): two addresses and a type. A TAP refuses less with EINVAL.
FRAME_MIN = 14

# Compared with bytes of each packet: plain integers are faster than members of an enum.
_NEEDS_CSUM, _GSO_NONE, _GSO_UDP = int(VnetFlag.NEEDS_CSUM), int(Gso.NONE), int(Gso.UDP_L4)

_LENGTH = struct.Struct(">I")

#: A record's length; and flags, gso_type and hdr_len of its header as one number, which is 0 if the frame is complete.
_RECORD = struct.Struct(">II")

#: The least and the most that a record's length may say, in bytes (docs/wire.rst).
RECORD_MIN, RECORD_MAX = VNET_BYTES + FRAME_MIN, 65_568

#: Bytes of padding that an end sends at most in the life of a connection, with the length before it (docs/wire.rst).
#: It fills four to five round trips of TCP's slow start, from 10 segments on: docs/performance.rst has what it gains.
PADDING_MAX = 128 * 1024

#: The bits of a record's second number that are its gso_type: a super-frame has one.
_GSO_TYPE = 0xFF << 16

#: Bytes of a packet that is sent, from which on its gso_type is looked at, to count it: more than a full frame with two
#: VLAN tags. To look at each would cost 30 ns. A super-frame that is no longer, as of two segments of 536 bytes, counts
#: as a frame.
SUPER_FRAME_MIN = VNET_BYTES + 1514 + 2 * 4 + 1

#: Packets that unpack() gives at once. The TAP takes 0.1 ms for them, and 3 ms if the bridge floods them to 60 ports.
SLICE_PACKETS = 64

#: The segments of a super-frame that count as one packet: this machine's kernel may have to cut it at once.
SEGMENTS_PER_PACKET = 4

#: As how many more packets one counts whose checksum offloads.py may have to fill in.
UNFINISHED_WEIGHT = 1


def anonymous_memory(size: int) -> mmap.mmap:
    """`size` zero bytes. The kernel allocates each page when it is first used: an idle connection has few."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def buffer(size: int) -> memoryview:
    """The same, to read into."""
    return memoryview(anonymous_memory(size))


class Batch:
    """Packets in one buffer, in the order in which the TAP gave them.

    `view` is the buffer, `spans` the (start, end) of each packet in it. Before each packet GAP bytes are free. There
    version 2 writes the record's length: the batch becomes a message, and no byte is copied.
    """

    GAP = _LENGTH.size

    __slots__ = ("spans", "view")

    def __init__(self) -> None:
        self.view = buffer(BATCH_BYTES + self.GAP + VNET_BYTES + FRAME_ROOM)
        self.spans: list[tuple[int, int]] = []


class Version1:
    """One whole frame per message, without its virtio header. etherws 0.1 to 1.3, v86 and others speak it.

    `sent` and `received` count frames, not bytes. None is a super-frame: a message has one frame, of any length.
    """

    number = 1

    #: The subprotocol in the opening handshake. It need not be named; but a browser that sends a token must name one.
    name = "etherws.v1"

    #: What may be sent that the kernel left unfinished: super-frames and partial checksums.
    offload = Offload.NONE

    #: Whether the two ends have agreed on padding.
    padding = False

    #: The longest message that the peer may send, in bytes: the largest frame.
    max_message = FRAME_ROOM

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.sent, self.received = Traffic(), Traffic()

    def pack(self, batch: Batch, most: int = BATCH_BYTES) -> list[memoryview]:
        """The batch as messages: views of its buffer, valid until it is filled again. Unfinished frames are dropped and
        counted. Only version 2 needs `most`."""
        view = batch.view
        # The offloads are off. But frames that were in the kernel's queue at the switch may still be unfinished.
        messages = [
            view[start + VNET_BYTES : end]
            for start, end in batch.spans
            if not view[start] & _NEEDS_CSUM and view[start + 1] == _GSO_NONE
        ]
        self.sent.frames += len(messages)
        if len(messages) < len(batch.spans):
            self.drops["unfinished"] += len(batch.spans) - len(messages)
        return messages

    def pack_queued(self, packets: Sequence[bytes]) -> list[Buffer]:
        """Packets from the queue, as messages; as pack() does."""
        messages: list[Buffer] = [
            packet[VNET_BYTES:] for packet in packets if not packet[0] & _NEEDS_CSUM and packet[1] == _GSO_NONE
        ]
        self.sent.frames += len(messages)
        if len(messages) < len(packets):
            self.drops["unfinished"] += len(packets) - len(messages)
        return messages

    def unpack(self, messages: Sequence[Buffer]) -> Iterator[Sequence[Buffer]]:
        """The packets in `messages`, in slices that the kernel takes within a short time. A message that is too short
        for a frame is dropped and counted."""
        # To copy a frame behind its header costs less than to give the kernel two pieces.
        join = b"".join
        packets = [join((COMPLETE, message)) for message in messages if len(message) >= FRAME_MIN]
        self.received.frames += len(packets)
        if len(packets) < len(messages):
            self.drops["runt"] += len(messages) - len(packets)
        for at in range(0, len(packets), SLICE_PACKETS):
            yield packets[at : at + SLICE_PACKETS]


class Version2:
    """Many packets per message: a sequence of records, each its length in 4 bytes, big endian, and a packet.

    `sent` and `received` count packets, not bytes: those with a gso_type are super-frames. Length alone would not tell:
    with an MTU of 9,000 a single frame is longer than a super-frame of two segments.
    """

    number = 2
    name = "etherws.v2"
    max_message = 1024 * 1024

    def __init__(self, *, uso: bool = False, padding: bool = False) -> None:
        """`uso` and `padding` are whether the two ends have agreed on these features."""
        #: As that of Version1.
        self.offload = Offload.TCP_UDP if uso else Offload.TCP
        self._uso, self.padding = uso, padding
        #: Told how many bytes received super-frames have more when they are cut, if that is much.
        self.charge: Callable[[int], object] = lambda size: None
        self.drops: Counter[str] = Counter()
        self.sent, self.received = Traffic(), Traffic()
        self._padding_left = PADDING_MAX  # Bytes that the peer may still send.

    def pack(self, batch: Batch, most: int = BATCH_BYTES) -> list[memoryview]:
        """The batch as one message: the lengths are written between its packets. If it has more than `most` bytes, as
        messages of so many bytes and less than one packet more."""
        view, pack_into, super_frames = batch.view, _LENGTH.pack_into, 0
        for start, end in batch.spans:
            size = end - start
            pack_into(view, start - 4, size)
            if size >= SUPER_FRAME_MIN and view[start + 1]:
                super_frames += 1
                if view[start + 1] == _GSO_UDP and not self._uso:
                    whole = self.pack_queued([bytes(view[at:end]) for at, end in batch.spans])
                    return [memoryview(one) for one in whole]
        self.sent.frames += len(batch.spans) - super_frames
        self.sent.super_frames += super_frames
        return _cut(view, batch.spans, most) if batch.spans else []

    def pack_queued(self, packets: Sequence[bytes]) -> list[Buffer]:
        """Packets from the queue, as one message. UDP super-frames that were not agreed on are dropped and counted."""
        if not self._uso and len(agreed := [packet for packet in packets if packet[1] != _GSO_UDP]) < len(packets):
            # They were in the kernel's queue at the switch of the offloads. If they were cut, a batch of those with 128
            # datagrams of a byte would become a message of 5 MB, which no peer takes.
            self.drops["unfinished"] += len(packets) - len(agreed)
            packets = agreed
        pack = _LENGTH.pack
        super_frames = len([packet for packet in packets if packet[1]])
        self.sent.frames += len(packets) - super_frames
        self.sent.super_frames += super_frames
        message = b"".join([piece for packet in packets for piece in (pack(len(packet)), packet)])
        return [message] if message else []

    def unpack(self, messages: Sequence[Buffer]) -> Iterator[Sequence[Buffer]]:
        """The packets in `messages`, as views of them, in slices that the kernel takes within a short time; as copies
        where offloads.py fills in a checksum. Some UDP super-frames are cut: filters have to see each datagram.
        Super-frames that are not what their header says are dropped and counted. A message can have 700,000 packets.

        Raises ProtocolError at the first wrong record, after the packets before it: behind a wrong record nobody can
        tell where the next one begins.
        """
        packets: list[Buffer] = []
        room, unpack_from, super_frames = SLICE_PACKETS, _RECORD.unpack_from, 0
        try:
            for message in messages:
                # A fragmented message comes as bytes, and slices of bytes would be copies.
                view, at, size = memoryview(message), 0, len(message)
                while at < size:
                    if size - at < 4 + RECORD_MIN:
                        if self._is_padding(view[at:]):
                            break
                        raise wrong(f"record cut short: {size - at} bytes are left for it")
                    length, kind = unpack_from(view, at)
                    start = at + 4
                    at = start + length
                    if not RECORD_MIN <= length <= RECORD_MAX or at > size:
                        if self._is_padding(view[start - 4 :]):
                            break
                        raise wrong_length(length, size - start, RECORD_MIN, RECORD_MAX)
                    packet = view[start:at]
                    if not kind or is_usual(packet):
                        packets.append(packet)
                    elif (settled := settle(packet, uso=self._uso)) is None:
                        self.drops["super-frame"] += 1
                        super_frames -= 1  # It has a gso_type, so it is counted below.
                    elif packet[1] == _GSO_UDP and is_cut_early(packet):
                        packets += cut(packet)
                        super_frames -= 1
                    else:
                        packets.append(settled)
                    if kind:
                        room -= _weight(packet)
                        if kind & _GSO_TYPE:
                            super_frames += 1
                            if headers := added_headers(packet):
                                self.charge(headers)
                    if len(packets) >= room:
                        self._count(packets, super_frames)
                        while len(packets) > SLICE_PACKETS:
                            yield packets[:SLICE_PACKETS]
                            packets = packets[SLICE_PACKETS:]
                        yield packets
                        packets, room, super_frames = [], SLICE_PACKETS, 0
        except ProtocolError:
            self._count(packets, super_frames)
            yield packets
            raise
        self._count(packets, super_frames)
        yield packets

    def _is_padding(self, rest: memoryview) -> bool:
        """Whether the rest of a message is padding, which is then counted. Raises ProtocolError if it is more than the
        peer may send."""
        if not self.padding or rest[: _LENGTH.size] != bytes(_LENGTH.size):
            return False
        self._padding_left -= len(rest)
        if self._padding_left < 0:
            raise wrong(f"more than {PADDING_MAX} bytes of padding")
        return True

    def _count(self, packets: Sequence[Buffer], super_frames: int) -> None:
        """Count received packets, of which so many are super-frames."""
        self.received.frames += len(packets) - super_frames
        self.received.super_frames += super_frames


def _cut(view: memoryview, spans: Sequence[tuple[int, int]], most: int) -> list[memoryview]:
    begin, last, messages = 0, spans[-1][1], []
    for _, end in spans if last > most else spans[-1:]:
        if end - begin >= most or end == last:
            messages.append(view[begin:end])
            begin = end
    return messages


def _weight(packet: memoryview) -> int:
    """As how many more packets one counts that is not complete: by the time that it takes."""
    gso_size = packet[4] | packet[5] << 8
    return len(packet) // gso_size // SEGMENTS_PER_PACKET if packet[1] and gso_size else UNFINISHED_WEIGHT
