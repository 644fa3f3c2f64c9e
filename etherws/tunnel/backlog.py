"""The slow path from the TAP to the peer: where packets wait while the socket is full.

The pump (session.py) calls drain() when the socket stays full. Then packets are taken from the TAP by the event loop
and queued by flow; fq_codel.py decides which is sent next, and which is dropped. While the socket takes everything
this costs nothing. Read next: fq_codel.py.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Any

import gevent

from etherws.errors import DeviceLost
from etherws.tunnel.connection import Connection
from etherws.tunnel.fair_turns import Entry, fair_turns
from etherws.tunnel.fq_codel import FlowQueue, Waiting
from etherws.tunnel.tap import Tap
from etherws.tunnel.udp_super_frames import UDP_L4, cut
from etherws.tunnel.wire import BATCH_BYTES, Batch

#: Seconds after which a socket that takes nothing counts as stalled, and seconds between two looks at its TAP then.
#: What does not fit into the TAP meanwhile is dropped by the kernel, which costs this process nothing.
STALLED_AFTER, STALLED_PAUSE = 0.5, 0.1


class Backlog:
    """The packets of one session that wait for its socket."""

    def __init__(self, tap: Tap, connection: Connection) -> None:
        self._tap, self._connection = tap, connection
        self._queue = FlowQueue(source=connection.source)
        # The pump's own batch is still being sent.
        self._spare: Batch | None = None
        # What fair_turns still has to call.
        self._owed: Entry = []
        self._draining = False
        # When the socket took something last, and what waits for the next look at the TAP of one that takes nothing.
        self._moved = 0.0
        self._pause: Any = None
        #: Whether the session takes no more packets from the TAP; see retire().
        self.retired = False

    @property
    def drops(self) -> Counter[str]:
        """How many packets were dropped from the queue, by reason."""
        return self._queue.drops

    def empty(self) -> bool:
        """Whether nothing waits in the queue."""
        return not self._queue.bytes

    def waiting(self, now: float) -> Waiting:
        """What is in the queue at `now`, by monotonic()."""
        return self._queue.waiting(now)

    def drain(self) -> None:
        """Block this greenlet, from a full socket until every packet that was queued is sent.

        Raises ConnectionClosed once the connection is closing or lost.
        """
        self._spare = Batch()
        if not self.retired:
            self._tap.on_readable(self._readable)
        self._draining, self._moved = True, monotonic()
        try:
            while packets := self._take(room := self._room()):
                taken = self._connection.send_queued(packets)
                # At this rate a batch more does not matter. Packets come out of the TAP in each wait for room, so that
                # the queue would hardly ever be empty after one, though the socket was full for a moment only.
                if taken and room >= BATCH_BYTES and self.empty():
                    break
        finally:
            self._draining, self._spare = False, None
            self._forget()
            self._queue.clear()
            # Another session may wait for the TAP now.
            if not self.retired:
                self._tap.on_readable(None)

    def retire(self) -> bool:
        """Take no more packets from the TAP; drain() still sends what was taken before. Return whether the pump waits
        for the TAP, in vain from now on."""
        if self.retired:
            return False
        self.retired = True
        self._forget()
        return self._tap.stop_waiting() and not self._draining

    def _forget(self) -> None:
        """Move no more packets to the queue."""
        self._owed.clear()
        if self._pause is not None:
            self._pause.close()
            self._pause = None

    def _room(self) -> int:
        """Wait for room in the socket, and for our turn; return how many bytes to send."""
        if not self.retired:
            self._tap.turn.end()
        size = self._connection.wait_writable()
        # If it has retired meanwhile, the turns are another session's.
        if not self.retired:
            self._tap.turn.begin()
        self._moved = monotonic()
        if self._pause is not None:
            self._listen()
        return size

    def _listen(self) -> None:
        """Look at the TAP again, of a socket that had stalled."""
        self._pause.close()
        self._pause = None
        self._tap.on_readable(self._readable)

    def _readable(self) -> None:
        """Packets wait in the TAP. Called by the event loop."""
        self._tap.on_readable(None)
        self._owed = fair_turns.call(self._tap.turn.share, self._fill)

    def _fill(self) -> None:
        """Move packets from the TAP to the queue, as many as one turn has time for."""
        assert self._spare
        now = monotonic()
        try:
            self._tap.poll_batch(self._spare)
        except DeviceLost:
            # The pump's next read of the TAP raises it again, in a greenlet, where it ends the session.
            return
        # A UDP super-frame is as long as its sender likes, on a slow path too. What is next would wait for all of it.
        most = self._connection.congestion.chunk
        for start, end in self._spare.spans:
            packet = bytes(self._spare.view[start:end])
            for each in cut(packet) if packet[1] == UDP_L4 and len(packet) > most else (packet,):
                self._queue.push(each, now)
        turn = self._tap.turn
        turn.share.used += fair_turns.weighed(monotonic() - now, turn.carried)
        turn.carried = 0
        if now - self._moved > STALLED_AFTER:
            self._pause = gevent.get_hub().loop.timer(STALLED_PAUSE)
            self._pause.start(self._listen)
        else:
            self._tap.on_readable(self._readable)

    def _take(self, size: int) -> list[bytes]:
        """The next packets, of `size` bytes and less than one packet more; none if the queue is empty."""
        now = monotonic()
        packets: list[bytes] = []
        while size > 0 and (packet := self._queue.pop(now)):
            packets.append(packet)
            size -= len(packet)
        if packets:
            # That of the last one: the first of a turn are of flows with few packets, which never wait.
            self._connection.delays.waited(now - self._queue.came, now)
        return packets
