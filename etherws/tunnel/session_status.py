"""What one session counts, and what is shown of it.

The counting itself is done where the bytes and the packets pass: wire.py (frames), the kernel or sender.py and
receiver.py (bytes), backlog.py and connection.py (delays.py). Here it is put together when somebody asks, and each few
seconds for the history and the totals of the process. Read next: sampling.py, which says when; counters.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import monotonic, time
from typing import NamedTuple

from etherws.counters import Totals, Traffic, Values
from etherws.tunnel.backlog import Backlog
from etherws.tunnel.connection import Connection
from etherws.tunnel.history import History
from etherws.tunnel.tap import Tap

#: Seconds that a rate is over at least, unless the session is younger. With the samples of sampling.py it is over 2.5
#: to 7.5 s: five on average.
RATE_SECONDS = 2.5

#: Seconds between two moments, for a rate, at least.
SECONDS_MIN = 0.001

#: Seconds for which the wait of the last packet is shown after the backlog has become empty.
WAIT_SHOWN = 5.0


class Moment(NamedTuple):
    """A time by monotonic(), and the bytes that were sent and received until then."""

    at: float
    sent: int
    received: int


class SessionStatus:
    """The counters of one session. `totals` has what they had counted at the last settle()."""

    __slots__ = (
        *("_backlog", "_before", "_began", "_connection", "_drops", "_history", "_last", "_received", "_sent"),
        *("_left", "_moved", "_rests", "_since", "_still", "_tap", "totals"),
    )

    def __init__(self, connection: Connection, backlog: Backlog, tap: Tap, totals: Totals) -> None:
        """`connection` adds its delays to the histograms of `totals` from now on."""
        self._connection, self._backlog, self._tap, self.totals = connection, backlog, tap, totals
        connection.delays.totals = totals
        self._history = History()
        self._since, self._began = time(), monotonic()
        # What the TAP had dropped when another session took it over.
        self._left: Counter[str] | None = None
        # What `totals` has of this session already.
        self._sent, self._received = Traffic(), Traffic()
        self._drops: Mapping[str, int] = {}
        # What was seen at the last sample, and whether it was the same at the one before.
        self._moved, self._still = (0.0, 0), False
        # Whether that was so twice: then all has been counted.
        self._rests = False
        # The last two samples, the earlier one first.
        self._before = self._last = Moment(self._began, *connection.carried())

    @property
    def age(self) -> float:
        """For how many seconds the session has been there."""
        return monotonic() - self._began

    def leave_tap(self) -> None:
        """What the TAP drops from now on is another session's."""
        if self._left is None:
            self._left = Counter(self._tap.drops)

    def drops(self) -> Counter[str]:
        """What was dropped so far, by reason."""
        found: Counter[str] = Counter()
        at_tap = self._tap.drops if self._left is None else self._left
        for drops in (self._connection.drops, self._connection.wire.drops, at_tap, self._backlog.drops):
            if drops:
                found.update(drops)
        return found

    def values(self) -> Values:
        """For JSON: the session's own part of docs/status.rst."""
        connection = self._connection
        sent, received = self._carried()
        now = Moment(monotonic(), sent.bytes, received.bytes)
        rates = _rates(self._last if now.at - self._last.at >= RATE_SECONDS else self._before, now)
        tls = connection.tls
        return {
            "wire": connection.wire.number,
            "features": list(connection.features),
            "tls": {"version": tls[0], "cipher": tls[1]} if tls else None,
            "peer_mtu": connection.peer_mtu,
            "congestion": connection.congestion.current or None,
            "since": self._since,
            "heard": max(0.0, now.at - connection.heard),
            "round_trip": connection.delays.round_trip,
            "loaded_round_trip": connection.delays.loaded_round_trip,
            "sent": sent.values(),
            "received": received.values(),
            "rates": {"sent": rates[0], "received": rates[1]},
            "drops": dict(self.drops()),
            "queue": self._queue(now.at),
            # For several connections of a link: link_status.py.
            "members": 1,
            "connections": [],
        }

    def history(self) -> Values:
        """For JSON: the last ten minutes, as history.py has them."""
        return self._history.values()

    def settle(self) -> None:
        """Count in `totals` what has come since the last time."""
        if self._rests and self._now() == self._moved:
            # All was counted when it was sampled last.
            return
        sent, received = self._carried()
        self.totals.sent.add(_more(sent, self._sent))
        self.totals.received.add(_more(received, self._received))
        self._sent, self._received = sent, received
        if drops := self.drops():
            for reason, count in drops.items():
                self.totals.drops[reason] += count - self._drops.get(reason, 0)
            self._drops = drops

    def sample(self) -> None:
        """Add a row to the history, and settle()."""
        if self._at_rest():
            # Nothing is asked of the kernel: with a thousand sessions, most are.
            self._before, self._last = self._last, self._last._replace(at=monotonic())
            self._history.add(time(), 0.0, 0.0, self._connection.delays.round_trip, 0.0, 0)
            return
        dropped = sum(self._drops.values())
        self.settle()
        delays = self._connection.delays
        self._before, self._last = self._last, Moment(monotonic(), self._sent.bytes, self._received.bytes)
        wait = max(delays.longest_wait(), self._backlog.waiting(self._last.at).seconds)
        dropped = sum(self._drops.values()) - dropped
        self._history.add(time(), *_rates(self._before, self._last), delays.round_trip, wait, dropped)

    def _at_rest(self) -> bool:
        """Whether nothing has come or gone, or waits, since the sample before the last one."""
        # The last sample may have been taken before all was acknowledged.
        still, now = self._still, self._now()
        self._still, self._moved = now == self._moved and self._backlog.empty(), now
        self._rests = still and self._still
        return self._rests

    def _now(self) -> tuple[float, int]:
        """What changes whenever anything has come or gone, padding too."""
        return self._connection.heard, self._connection.written

    def _carried(self) -> tuple[Traffic, Traffic]:
        """What was sent and received so far. Never less than the last time: the kernel tells no more about a socket
        that is closed."""
        (sent, received), wire = self._connection.carried(), self._connection.wire
        return (
            Traffic(max(sent, self._sent.bytes), wire.sent.frames, wire.sent.super_frames),
            Traffic(max(received, self._received.bytes), wire.received.frames, wire.received.super_frames),
        )

    def _queue(self, now: float) -> Values:
        """What waits, and how long the oldest packet has; if there is none, how long the last one had."""
        waiting, delays = self._backlog.waiting(now), self._connection.delays
        delay = waiting.seconds
        if not waiting.packets and now - delays.waited_at < WAIT_SHOWN:
            delay = delays.last_wait
        return {"delay": delay, "packets": waiting.packets, "bytes": waiting.bytes}


def _more(now: Traffic, before: Traffic) -> Traffic:
    return Traffic(now.bytes - before.bytes, now.frames - before.frames, now.super_frames - before.super_frames)


def _rates(then: Moment, now: Moment) -> tuple[float, float]:
    """Bits per second that were sent and received between two moments."""
    seconds = max(now.at - then.at, SECONDS_MIN)
    return 8 * (now.sent - then.sent) / seconds, 8 * (now.received - then.received) / seconds
