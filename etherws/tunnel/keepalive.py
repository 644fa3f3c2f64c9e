"""Whether the peer is still there: pings, and an end to a link from which nothing has come for too long.

Life is what is received, any byte of it: a pong behind megabytes of frames, or a peer that answers no ping but talks,
is alive, and so is one that reads nothing but speaks. What is sent proves nothing: a path cut one way takes it all.
Frames never pass here; connection.py notes when it last read some bytes.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import NoReturn

from gevent.event import Event

from etherws.errors import ConnectionClosed, NetworkChanged
from etherws.tunnel.connection import Connection

#: Seconds in which something should come back once the path may have changed, beside four round trips: a ping is small,
#: but may be lost once. Whoever is given up too soon is found again within another second; a path that is gone is not.
ANSWER = 2.0


class Keepalive:
    """Watches one link."""

    def __init__(self, link: Connection, interval: float, timeout: float) -> None:
        """A ping every `interval` seconds, and `timeout` seconds more for something to come back."""
        self._link, self._interval, self._timeout = link, interval, timeout
        self._probe = Event()

    def probe(self) -> None:
        """The path may have changed: ping now, and be content with no less than a byte within a second or two."""
        self._probe.set()

    def run(self) -> NoReturn:
        """Ping for ever. Raises ConnectionClosed once nothing has been heard for `interval` and `timeout` together, and
        NetworkChanged for soon after a probe()."""
        link, patience = self._link, self._interval + self._timeout
        link.path.expect_acks(patience)
        due, probed = monotonic() + self._interval, math.inf
        while True:
            now = monotonic()
            if self._probe.is_set():
                self._probe.clear()
                if link.path.uprooted():
                    raise link.lost(NetworkChanged("the address that it came from is gone"))
                due = probed = now
            if link.heard > probed:
                probed = math.inf
            end = min(link.heard + patience, probed + min(self._timeout, ANSWER + 4 * (link.round_trip or 0)))
            if now >= end:
                # What waits to be read is life too: this process may have been stopped, or short of time.
                if not link.unread():
                    kind = ConnectionClosed if probed == math.inf else NetworkChanged
                    raise link.lost(kind(f"nothing heard for {round(now - link.heard, 1):g} s"))
                link.heard = now
                continue
            if now >= due:
                link.ping()
                link.path.expect_acks(patience, full=not link.sent.is_set())
                due = now + self._interval
            self._probe.wait(min(due, end) - now)
