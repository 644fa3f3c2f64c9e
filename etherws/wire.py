"""Frames <-> messages: what a WebSocket message of each version of the wire holds.

Pure: no sockets, no devices, no waiting. tap.py fills a Batch, a version turns it into messages, websocket.py
turns those into bytes; and back. A further version is a further class with the same three members.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview

#: Bytes after which a batch is full. One turn of the pump: long enough that a system call and a turn of the
#: event loop weigh little (about 85 full frames), short enough to send within a millisecond.
BATCH_BYTES = 128 * 1024

#: Room for the largest frame that a TAP can give: MTU 65,521 + 14 (Ethernet) + 4 (802.1Q), rounded up.
FRAME_ROOM = 65_600

#: An Ethernet header (IEEE 802.3, clause 3.2): two addresses and a type. A TAP refuses less with EINVAL.
FRAME_MIN = 14


def buffer(size: int) -> memoryview:
    """`size` zero bytes to read into. The kernel gives the pages as they are used: an idle link has few."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Batch:
    """Frames in one buffer, in the order in which the TAP gave them.

    `view` is the buffer, `spans` the (start, end) of each frame in it. Before each frame there are `headroom`
    bytes free, where a version of the wire can put a header without copying the frame.
    """

    __slots__ = ("headroom", "spans", "view")

    def __init__(self, headroom: int = 0) -> None:
        self.headroom = headroom
        self.view = buffer(BATCH_BYTES + FRAME_ROOM + headroom)
        self.spans: list[tuple[int, int]] = []


class Version1:
    """One whole frame per message, nothing around it; what etherws 0.1 to 1.3, v86 and others speak."""

    #: Bytes that a record's header takes before each frame.
    headroom = 0

    #: The longest message that is taken from the peer, in bytes: 64 KiB, and what the largest frame has beyond.
    max_message = FRAME_ROOM

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()

    def messages(self, batch: Batch) -> list[memoryview]:
        """The batch's frames as messages; they are views of the batch's buffer."""
        view = batch.view
        return [view[start:end] for start, end in batch.spans]

    def frames(self, messages: Sequence[Buffer]) -> Sequence[Buffer]:
        """The frames in `messages`. One too short to have an Ethernet header is dropped and counted."""
        frames = [message for message in messages if len(message) >= FRAME_MIN]
        if len(frames) < len(messages):
            self.drops["runt"] += len(messages) - len(frames)
        return frames
