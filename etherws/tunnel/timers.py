"""When something is to be done for a session though nothing has come: one timer of the event loop for all sessions.

A session sets an Alarm. The event loop makes the calls that are due, in turns. A call must not block, since no greenlet
makes it. Long waits are rounded up, so that the pings of a thousand sessions are due at few moments: then the process
wakes four times a second at most. Users: keepalive.py, direction.py.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

import gevent

#: Waits from ROUGH seconds on end at a multiple of GRAIN seconds of the clock.
ROUGH, GRAIN = 4.0, 0.25

#: Seconds for which calls are made before others have their turn. A ping takes 0.02 ms.
TURN_SECONDS = 0.0005

#: Times that count no more, beside as many as those that do, before they are removed.
STALE_MAX = 256


class Alarm:
    """One call, and when it is made: `when`, by the clock of the timers; infinite if it is not to be made."""

    __slots__ = ("_timers", "call", "when")

    def __init__(self, call: Callable[[], object], among: Timers | None = None) -> None:
        """The call is made once for each set(). It is one of the process's `timers`, if it is not `among` others."""
        self.call: Callable[[], object] | None = call
        self._timers, self.when = among or timers, math.inf

    def set(self, seconds: float) -> None:
        """Have the call made in so many seconds, and not when it was to be made before."""
        if self.call:
            self._timers.set(self, seconds)

    def cancel(self) -> None:
        """Have the call made no more, and forget it."""
        self.when, self.call = math.inf, None


class Timers:
    """The alarms of one event loop."""

    def __init__(self, clock: Callable[[], float] = monotonic, loop: Callable[[], Any] | None = None) -> None:
        """`clock` gives seconds. `loop` returns the event loop; by default it is the one of this thread's hub."""
        self._clock, self._loop = clock, loop or (lambda: gevent.get_hub().loop)
        # An alarm that was set anew has an entry more, which counts no longer.
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers, self._stale_at = count(), STALE_MAX
        self._timer: Any = None
        self._wakes_at = math.inf

    def set(self, alarm: Alarm, seconds: float) -> None:
        """See Alarm.set()."""
        when = self._clock() + max(0.0, seconds)
        if seconds >= ROUGH:
            when = math.ceil(when / GRAIN) * GRAIN
        alarm.when = when
        heapq.heappush(self._heap, (when, next(self._numbers), alarm))
        if len(self._heap) > self._stale_at:
            self._heap = [entry for entry in self._heap if entry[2].when == entry[0]]
            heapq.heapify(self._heap)
            self._stale_at = 2 * len(self._heap) + STALE_MAX
        if when < self._wakes_at:
            self._wait()

    def _wait(self) -> None:
        """Have the event loop call _ring() when the next one is due."""
        if self._timer is not None:
            self._timer.close()
            self._timer, self._wakes_at = None, math.inf
        if self._heap:
            self._wakes_at = self._heap[0][0]
            self._timer = self._loop().timer(max(0.0, self._wakes_at - self._clock()))
            self._timer.start(self._ring)

    def _ring(self) -> None:
        """Make the calls that are due, or as many as one turn has time for."""
        # Nothing that is set meanwhile needs the timer.
        self._wakes_at = -math.inf
        until = self._clock() + TURN_SECONDS
        try:
            while self._heap and self._heap[0][0] <= self._clock() <= until:
                when, _, alarm = heapq.heappop(self._heap)
                if alarm.when == when and alarm.call:
                    alarm.when = math.inf
                    alarm.call()
        finally:
            # Also if a call fails: the event loop reports that, and the others go on.
            self._wait()


#: Those of this process.
timers = Timers()
