"""Keeps TCP on a long path from filling the bottleneck's buffer: a limit for BBR's pacing, by what the round trip says.

BBR takes the highest rate of late for that of the path. Several connections of one link overestimate it together, and
a connection whose flows are the limit keeps an old estimate. Then the inner flows fill the buffer of the bottleneck,
where a ping waits with them. With the limit they wait here instead, by flow (fq_codel.py). A policer, or a buffer of a
few milliseconds, shows no queue but loses what is too much, so what was sent again counts like a queue.

Pure: congestion.py asks the kernel, and sets the limit. docs/performance.rst has figures.
"""

from __future__ import annotations

from typing import NamedTuple

#: Bytes per second for no limit, as SO_MAX_PACING_RATE has it.
UNLIMITED = 2**64 - 1

#: Seconds that bytes may wait in the path. With less the round trip's own noise would cost rate: 75 instead of 85 to 91
#: Mbit/s of 100 with 8 ms.
QUEUE = 0.015

#: The same as a part of the shortest round trip. Long paths vary more.
QUEUE_PART = 8

#: Seconds in which the limit would drain a queue, or fill one, if the path answered at once. Two looks are 0.1 s apart:
#: with less the limit would go on before the round trip tells what it has done.
DRAIN = 0.15

#: A limit begins at this many times the rate of late: a flow inside that grows must not be cut at once.
ROOM = 1.1

#: A queue that is still there after so many seconds is others' traffic. These connections do not give way to it any
#: more for REST seconds, and give way by a part of 1 - LEAST before.
PATIENCE, REST, LEAST = 2.0, 10.0, 0.8

#: The part of the segments sent again from which on the path loses what is too much for it, and the part of the rate
#: that is sent then. A policer lost half at BBR's start-up rate. Random losses of 10 % must not limit: with 0.05 a flow
#: there had 2 to 4 Mbit/s of 100, with 0.15 it had 10 to 41, and a policer's loss was still prevented.
LOST, CUT = 0.15, 0.9

#: Segments for each round trip that are never too many: as many as TCP begins with (RFC 6928). Fewer between two looks
#: tell nothing: the average round trip is still that of what was sent before.
FIRST_WINDOW = 10

#: Looks without a queue, after which each of them doubles the step by which the limit grows, and the most that the step
#: is multiplied by. A path that has become faster is used after half a second. With an earlier begin eight connections
#: fill the buffer again and again: pings of 93 instead of 57 ms.
CALM, STEPS = 3, 32

#: Seconds after which what is known of the rate is too old.
STALE = 1.0


class Facts(NamedTuple):
    """What the kernel tells: the segments that have arrived, those that were sent again, the round trip on average
    lately and the shortest one so far in seconds, the bytes of a segment."""

    delivered: int
    again: int
    round_trip: float
    shortest: float
    segment: int


class PathQueue:
    """The queue of one connection's path. `rate` is what is delivered, in bytes per second; zero if unknown."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._limit: float = UNLIMITED
        self._seen, self._last = 0.0, Facts(0, 0, 0, 0, 0)
        # The wait and the part that was lost at the last look; looks without a queue since then.
        self._wait = self._lost = 0.0
        self._calm = 0
        # Since when there has been a queue, and at least the limit meanwhile; until when it is others'.
        self._since: float | None = None
        self._least = self._rest_until = 0.0

    def limit(self, now: float, facts: Facts) -> int:
        """The most bytes per second that should be sent, by what the kernel tells at `now`, in seconds: to be called
        about ten times a second while anything is sent."""
        seconds, self._seen = now - self._seen, now
        last, self._last = self._last, facts
        arrived, again = facts.delivered - last.delivered, facts.again - last.again
        # Bytes that come in a burst wait, too, and bursts are lost. A queue stays, and so does a policer.
        wait, self._wait = self._wait, facts.round_trip - facts.shortest
        lost, self._lost = self._lost, again / max(again + arrived, 1)
        if not 0 < seconds <= STALE or arrived < 0:
            self.rate, self._limit, self._since, self._calm = 0.0, UNLIMITED, None, 0
            return UNLIMITED
        wait, lost = min(wait, self._wait), min(lost, self._lost)
        if arrived < FIRST_WINDOW:
            wait = lost = 0.0
        change = 1 + (max(QUEUE, facts.shortest / QUEUE_PART) - wait) / DRAIN
        if lost > LOST:
            change = min(change, CUT)
        found = arrived * facts.segment / seconds
        if change < 1 and found < self.rate / 2:
            # The path has become slower. What arrived before is no measure any more.
            self.rate, self._since = found, None
        self.rate = (self.rate + found) / 2 if self.rate else found
        if change >= 1:
            self._since = None
            self._grow(change - 1)
        elif now >= self._rest_until:
            self._calm = 0
            self._give_way(now, change, FIRST_WINDOW * facts.segment / facts.shortest)
        return int(self._limit)

    def _grow(self, step: float) -> None:
        self._calm += 1
        step *= min(2 ** max(0, self._calm - CALM), STEPS)
        self._limit = min(max(self._limit, self.rate) * (1 + step), UNLIMITED)

    def _give_way(self, now: float, change: float, least: float) -> None:
        if self._since is None:
            self._since, self._least = now, max(LEAST * self.rate, least)
        if now - self._since > PATIENCE:
            self._rest_until, self._since, self._limit = now + REST, None, UNLIMITED
        else:
            self._limit = max(min(self._limit, ROOM * self.rate) * change, self._least)
