"""How long things take on one connection: its round trips, and how long packets wait in its backlog.

Pure. connection.py notes the pongs and backlog.py the waits; a round trip during which packets waited is that of a
loaded path. session_status.py shows both, and the histograms of the process have each. Read next: session_status.py.
"""

from __future__ import annotations

from etherws.counters import Totals


class Delays:
    """Of one connection. All times are by monotonic(), and in seconds; None stands for "not measured yet".

    It has no reference to the connection, which has one to it.
    """

    __slots__ = ("_most", "last_wait", "loaded_round_trip", "round_trip", "totals", "waited_at")

    def __init__(self, totals: Totals | None = None) -> None:
        #: Which histograms to add to.
        self.totals = totals or Totals()
        #: From the last ping that was answered to its pong, and the same for the last one during which packets waited
        #: here. What waits at the peer is not seen.
        self.round_trip: float | None = None
        self.loaded_round_trip: float | None = None
        #: How long the packet had waited that was sent last from the backlog, and when that was.
        self.last_wait, self.waited_at = 0.0, 0.0
        self._most = 0.0

    def answered(self, pinged: float, now: float) -> float:
        """A pong has come at `now` for the ping that was sent at `pinged`. Return the round trip."""
        self.round_trip = now - pinged
        self.totals.round_trip.add(self.round_trip)
        if self.waited_at >= pinged:
            self.loaded_round_trip = self.round_trip
            self.totals.loaded_round_trip.add(self.round_trip)
        return self.round_trip

    def waited(self, seconds: float, now: float) -> None:
        """A packet is sent at `now` that has waited so long. One call for each turn of the backlog."""
        self.last_wait, self.waited_at = seconds, now
        if seconds > self._most:
            self._most = seconds
        self.totals.queue_delay.add(seconds)

    def longest_wait(self) -> float:
        """The longest wait since the last call; 0 if nothing has waited."""
        most, self._most = self._most, 0.0
        return most
