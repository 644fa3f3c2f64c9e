"""The slow path from the TAP to the peer: where packets wait while the socket is full.

The pump (session.py) calls drain() when the socket stays full. Then packets are taken from the TAP by the event loop
and queued by flow; fq_codel.py decides which is sent next, and which is dropped. While the socket takes everything
this costs nothing. Read next: fq_codel.py.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic

from etherws.errors import DeviceLost
from etherws.tunnel.connection import Connection
from etherws.tunnel.fq_codel import FlowQueue, Waiting
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Batch


class Backlog:
    """The packets of one session that wait for its socket."""

    def __init__(self, tap: Tap, connection: Connection) -> None:
        self._tap, self._connection = tap, connection
        self._queue = FlowQueue()
        # The pump's own batch is still being sent.
        self._spare = Batch()

    @property
    def drops(self) -> Counter[str]:
        """How many packets were dropped from the queue, by reason."""
        return self._queue.drops

    def waiting(self, now: float) -> Waiting:
        """What is in the queue at `now`, by monotonic()."""
        return self._queue.waiting(now)

    def drain(self) -> None:
        """Block this greenlet, from a full socket until every packet that was queued is sent.

        Raises ConnectionClosed once the connection is closing or lost.
        """
        self._tap.on_readable(self._fill)
        try:
            while packets := self._take(self._connection.wait_writable()):
                self._connection.send_queued(packets)
        finally:
            self._tap.on_readable(None)

    def _fill(self) -> None:
        """Move packets from the TAP to the queue; called by the event loop."""
        try:
            self._tap.poll_batch(self._spare)
        except DeviceLost:
            # The pump's next read of the TAP raises it again, in a greenlet, where it ends the session.
            self._tap.on_readable(None)
            return
        now = monotonic()
        for start, end in self._spare.spans:
            self._queue.push(bytes(self._spare.view[start:end]), now)

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
