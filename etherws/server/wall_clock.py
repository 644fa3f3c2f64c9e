"""Moments of monotonic() as seconds since 1970, which users and other programs can read.

Pure. The two clocks are read one after the other, so their difference is not quite the same each time. What is shown
must not change from look to look: so the difference that was found first is used until somebody sets the clock.
User: observed.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds by which the difference between the clocks may change before the clock counts as set: more than a process
#: waits between two readings. An NTP client that moves the clock slowly moves it by 0.5 ms a second at most.
SET_BY = 1.0


class WallClock:
    """Knows by how much the clock on the wall is ahead of monotonic()."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, epoch: Callable[[], float] = time.time) -> None:
        self._monotonic, self._epoch = monotonic, epoch
        self._ahead = epoch() - monotonic()

    def at(self, moment: float) -> float:
        """`moment`, which is one of monotonic(), in seconds since 1970. The same each time, unless the clock was set
        meanwhile."""
        ahead = self._epoch() - self._monotonic()
        if abs(ahead - self._ahead) > SET_BY:
            self._ahead = ahead
        return self._ahead + moment
