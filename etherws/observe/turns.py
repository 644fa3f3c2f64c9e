"""A walk over many sessions that keeps nobody waiting: it pauses each time it has run for a millisecond.

What it pauses is its own greenlet alone. Read next: stream.py, which walks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TypeVar

import gevent

#: Seconds for which a walk may go on before all who are ready get their turn. A frame waits this much longer at most.
TURN_SECONDS = 0.001

#: The shortest pause, in seconds. Any time but 0 has the event loop poll: gevent.sleep(0) would run only greenlets that
#: are due already, and frames that have come would wait.
PAUSE_MIN = 1e-6

T = TypeVar("T")


class Pauses:
    """Pauses of all walks of this process: two walks never have their turns between the same two polls of the loop."""

    def __init__(self, clock: Callable[[], float] = monotonic, sleep: Callable[[float], object] = gevent.sleep) -> None:
        self._clock, self._sleep = clock, sleep
        #: When the next turn is free.
        self._free = 0.0

    def pause(self) -> None:
        """Let the event loop poll, so that all who are ready go on; return when the next turn is this greenlet's."""
        now = self._clock()
        begin = max(now, self._free)
        self._free = begin + TURN_SECONDS
        self._sleep(max(PAUSE_MIN, begin - now))


#: Those of this process.
pauses = Pauses()


def in_turns(
    items: Iterable[T], *, clock: Callable[[], float] = monotonic, wait: Callable[[], None] = pauses.pause
) -> Iterator[T]:
    """Yield each of the items. wait() at first, and between two of them whenever the time since the last wait, what the
    caller did with them included, is TURN_SECONDS or more."""
    wait()
    began = clock()
    for item in items:
        yield item
        if clock() - began >= TURN_SECONDS:
            wait()
            began = clock()
