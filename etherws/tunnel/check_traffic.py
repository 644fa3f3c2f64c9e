"""What both ends of a check do: send answers at once and bulk behind them, and count the bulk that comes.

As in a tunnel, little waits in the kernel, and what is urgent goes ahead of bulk (there backlog.py lets a ping go ahead
of a download). So a check finds the delay that a tunnel would have. Read next: check_frames.py; server/responder.py and
check/path/measure.py, the two ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, monotonic_ns
from typing import NoReturn

from gevent.event import Event

from etherws.tunnel.check_frames import DATA_HEAD, SIZE_FULL, Kind, Message, read, write
from etherws.tunnel.congestion import FREE, FULL
from etherws.tunnel.connection import FULL_SOCKET_TIMEOUT, Connection
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.turns import Turn
from etherws.tunnel.wire import VNET_BYTES, Buffer

#: Bytes of bulk that are sent at once: about what a batch of a TAP has (wire.py), and a turn's worth of work.
CHUNK = 64 * 1024

#: Seconds of a limited rate that are sent at once: an answer waits behind it.
CHUNK_SECONDS = 0.005

#: The packets of a chunk. All are the same: nobody reads more of them than their heads.
_DATA = write(Message(Kind.DATA), SIZE_FULL)
_CHUNK = [_DATA] * (CHUNK // len(_DATA))


class Bulk:
    """Frames that one end sends for some time, in its order: begin, due() again and again, and then it is over.

    `size` counts the bytes of its frames, `first` and `last` are when the first and the last were sent, in nanoseconds.
    """

    def __init__(self, seconds: float, pacers: Sequence[Pacer] = ()) -> None:
        """`pacers` limit the rate."""
        self.size = self.first = self.last = 0
        self._seconds, self._pacers = seconds, pacers
        # From when on, by the clock of due(), in seconds.
        self._began: float | None = None

    def due(self, now: float, most: int) -> tuple[Sequence[bytes], float]:
        """The packets to send now, of `most` bytes in all or one, and how many seconds to wait before the next look if
        there are none. `now` is in seconds of a monotonic clock. No packets and no wait: it is over."""
        self._began = now if self._began is None else self._began
        left = self._began + self._seconds - now
        if left <= 0:
            return (), 0.0
        # Not more than what is left: a low rate may have a debt of seconds.
        if (wait := max((pacer.wait(0, now) for pacer in self._pacers), default=0.0)) > 0:
            return (), min(wait, left)
        for pacer in self._pacers:
            most = min(most, int(pacer.rate / 8 * CHUNK_SECONDS))
        packets = _CHUNK[: max(1, most // len(_DATA))]
        size = len(packets) * SIZE_FULL
        for pacer in self._pacers:
            pacer.wait(size, now)
        nanoseconds = int(now * 1e9)
        self.size, self.first, self.last = self.size + size, self.first or nanoseconds, nanoseconds
        return packets, 0.0


class Count:
    """Bulk that came: when the first and the last frames came, in nanoseconds, and the bytes of those that came after
    the first. So `size` is what came in the time between, also if much had waited and came at once."""

    def __init__(self) -> None:
        self.size = self.first = self.last = 0

    def taken(self) -> tuple[int, int, int]:
        """The three values so far; the next ones begin anew."""
        values = self.size, self.first, self.last
        self.size = self.first = self.last = 0
        return values

    def take(self, packets: Sequence[Buffer], now: int) -> Iterator[Message]:
        """Count the bulk among the packets, which came at `now`, and yield the other messages, each when what came
        before it is counted. Raises ProtocolError at the first packet that is of no check."""
        for packet in packets:
            if packet[: len(DATA_HEAD)] == DATA_HEAD:
                self.first, self.last = self.first or now, now
                if now > self.first:
                    self.size += len(packet) - VNET_BYTES
            else:
                yield read(packet)


class CheckSender:
    """Sends for one end of a check, in a greenlet of its own: run()."""

    def __init__(self, connection: Connection, turn: Turn) -> None:
        """`turn` is this greenlet's."""
        self._connection, self._turn = connection, turn
        self._urgent: deque[Callable[[int], bytes]] = deque()
        self._bulk: Bulk | None = None
        self._over: Callable[[], None] = lambda: None
        self._wake = Event()
        #: Bytes of the packets that were given to the kernel.
        self.sent = 0

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent."""
        return len(self._urgent)

    @property
    def busy(self) -> bool:
        """Whether bulk is being sent."""
        return self._bulk is not None

    def say(self, make: Callable[[int], bytes]) -> None:
        """Send the packet that `make` returns when it can be sent; it is given the time, in nanoseconds."""
        self._urgent.append(make)
        self._wake.set()

    def begin(self, bulk: Bulk, over: Callable[[], None]) -> None:
        """Send bulk; call `over` when all of it was given to the kernel."""
        self._bulk, self._over = bulk, over
        self._wake.set()

    def run(self) -> NoReturn:
        """Send without end. Raises ConnectionClosed."""
        connection, turn = self._connection, self._turn
        chunk, blocked, resting = CHUNK, False, True
        try:
            while True:
                self._wake.clear()
                if blocked:
                    # Until the bulk is over little is to wait in the kernel, as while a backlog is sent.
                    turn.end()
                    chunk, resting = min(connection.wait_writable(), CHUNK), True
                if resting or turn.over():
                    turn.wait()
                    resting = False
                packets, wait = self._next(chunk)
                if not packets:
                    blocked = blocked and self._bulk is not None
                    turn.end()
                    self._wake.wait(wait)
                    resting = True
                    continue
                taken = connection.send_queued(packets)
                self.sent += sum(map(len, packets))
                if taken:
                    connection.congestion.update(monotonic(), FREE)
                else:
                    connection.congestion.update(monotonic(), FULL)
                    turn.end()
                    blocked = not connection.flush(FULL_SOCKET_TIMEOUT) or blocked
                    resting = True
        finally:
            turn.end()

    def _next(self, most: int) -> tuple[Sequence[bytes], float | None]:
        """What to send now; if nothing, how many seconds to wait, None for as long as nobody wakes this."""
        if self._urgent:
            # Each by itself: a frame of a tunnel that is alone is a message, too.
            return (self._urgent.popleft()(monotonic_ns()),), 0.0
        if self._bulk is None:
            return (), None
        packets, wait = self._bulk.due(monotonic(), most)
        if not packets and not wait:
            self._bulk = None
            self._over()
            return self._next(most)
        return packets, wait
