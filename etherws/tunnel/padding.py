"""Padding: bytes that mean nothing, sent at the start of a connection, so that TCP knows the path before it is needed.

TCP begins with ten segments, and may send twice as many after each round trip. Without padding, the first flow in the
tunnel would wait for that beside its own slow start. Padding takes what frames leave of TCP's window. It ends when a
frame had to wait, or when the path becomes slower. Here is how much is sent, when, and on which connections. Pure.
wire.py reads it; docs/wire.rst, "Padding", is the specification. Read next: session.py, sender.py, tcp_facts.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple, Protocol

from etherws.tunnel.tcp_facts import TcpFacts
from etherws.tunnel.wire import PADDING_MAX

log = logging.getLogger(__name__)

#: Seconds of round trip from which on padding is sent. On a shorter path nobody notices how long TCP needs to start.
ROUND_TRIP_MIN = 0.005

#: Bytes of a message of padding at most, and of all that is unsent in the kernel with it: a frame waits behind no more.
MESSAGE_MAX = 16 * 1024

#: Bytes of the shortest message: the record's length.
MESSAGE_MIN = 4

#: Looks at TCP in each round trip: each sends what has room by then. Two are LOOK_MIN seconds apart at least.
LOOKS, LOOK_MIN = 4, 0.002

#: Segments of TCP's window that are left for frames.
RESERVE = 2

#: Padding ends when the average round trip is so many times what it was, and these seconds more: then padding waits in
#: the path's buffer, and TCP knows the path's rate. And when so many segments were sent again meanwhile.
SLOWER, SLOWER_BY, LOST_MAX = 1.25, 0.005, 8

#: Seconds after which padding ends: ten round trips by a satellite.
SECONDS_MAX = 6.0


class Alarm(Protocol):
    """What is needed of timers.py."""

    def set(self, seconds: float) -> None:
        """Have the call made in so many seconds."""

    def cancel(self) -> None:
        """Have the call made no more."""


class Padded(Protocol):
    """What is needed of a connection."""

    def tcp_facts(self) -> TcpFacts:
        """What the kernel tells of it."""

    def pad(self, message: bytes, /) -> bool:
        """Send this message, unless something else waits or had to wait; return whether it was sent."""


class Padding:
    """What one end of a connection sends, from begin() on, until it is over or stop() is called."""

    __slots__ = ("_alarm", "_before", "_clock", "_connection", "_left", "_name", "_until")

    def __init__(
        self,
        connection: Padded,
        alarm: Callable[[Callable[[], object]], Alarm],
        name: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`alarm` makes the Alarm of a call. `name` is the interface's, for the log. `clock` gives seconds."""
        self._connection, self._name, self._clock = connection, name, clock
        self._alarm = alarm(self._look)
        self._left, self._until = PADDING_MAX, 0.0
        self._before = TcpFacts()

    def begin(self) -> None:
        """Send padding from now on, if the path is long."""
        self._before = self._connection.tcp_facts()
        if self._before.shortest >= ROUND_TRIP_MIN:
            self._until = self._clock() + SECONDS_MAX
            self._alarm.set(0.0)
        else:
            log.debug("%s: no padding: the round trip of TCP is %.1f ms", self._name, self._before.shortest * 1e3)

    def stop(self) -> None:
        """Send no more."""
        self._alarm.cancel()

    def _look(self) -> None:
        """Send what has room now. Called by the event loop."""
        facts = self._connection.tcp_facts()
        if over := self._over(facts) or self._send(facts):
            self.stop()
            log.debug("%s: sent %d bytes of padding: %s", self._name, PADDING_MAX - self._left, over)
        else:
            self._alarm.set(max(facts.shortest / LOOKS, LOOK_MIN))

    def _over(self, facts: TcpFacts) -> str:
        """Why it ends now; empty if it goes on."""
        if not facts.segment:
            return "the connection has ended"
        if self._clock() >= self._until:
            return "the time is over"
        if facts.round_trip > self._before.round_trip * SLOWER + SLOWER_BY:
            return "the path becomes slower"
        return "the path loses much" if facts.retransmitted > self._before.retransmitted + LOST_MAX else ""

    def _send(self, facts: TcpFacts) -> str:
        """Send what has room; return as _over() does."""
        room = (facts.window - RESERVE - facts.on_their_way) * facts.segment
        size = min(room, MESSAGE_MAX - facts.unsent, self._left)
        if size < min(facts.segment, self._left):
            return ""
        if not self._connection.pad(message(size)):
            return "frames wait"
        self._left -= size
        return "" if self._left >= MESSAGE_MIN else "that is all"


def message(size: int) -> bytes:
    """A message of padding, of `size` bytes, MESSAGE_MIN at least. They are random: else what compresses on the way, as
    some VPNs do, would leave little of them."""
    return bytes(MESSAGE_MIN) + os.urandom(size - MESSAGE_MIN)


class Rate(NamedTuple):
    """So many at once, and one more each time that so many seconds have passed."""

    burst: int
    seconds: float


#: A client has padding on the same connection of its link once in five minutes: a connection that is lost again and
#: again, or replaced often (--max-age), costs a metered user little.
CLIENT = Rate(1, 300.0)

#: What a server grants one client, or one address without a name: the connections of a link at once.
ONE_CLIENT = Rate(16, 60.0)

#: What a process grants all together. In a storm of connections there is next to none: 1 Mbit/s each way.
ALL = Rate(16, 1.0)


class Grants:
    """Which connections get padding."""

    def __init__(self, each: Rate, together: Rate = ALL, clock: Callable[[], float] = monotonic) -> None:
        """`each` is the rate of one source. `clock` gives seconds."""
        self._each, self._together, self._clock = each, together, clock
        # When all that was taken is free again: of all, and of each source that has not all of it.
        self._whole = clock()
        self._wholes: dict[str, float] = {}

    def has(self, source: str) -> bool:
        """Whether take() would return True."""
        now = self._clock()
        return _has(self._whole, now, self._together) and _has(self._wholes.get(source, now), now, self._each)

    def take(self, source: str) -> bool:
        """Whether a new connection of this source gets padding; if so, it counts."""
        if not self.has(source):
            return False
        now = self._clock()
        self._whole = max(self._whole, now) + self._together.seconds
        # The rate of all bounds how many there are.
        self._wholes = {each: whole for each, whole in self._wholes.items() if whole > now}
        self._wholes[source] = max(self._wholes.get(source, now), now) + self._each.seconds
        return True


def _has(whole: float, now: float, rate: Rate) -> bool:
    return max(whole, now) + rate.seconds <= now + rate.burst * rate.seconds
