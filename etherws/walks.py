"""Walks over many things that keep nobody waiting: each pauses whenever it has run for a moment.

A walk is whatever looks at all ports, sessions, notifications or rows. Between two polls of the event loop only one
walk has a turn, however many there are: so frames that come wait for one turn at most. What pauses is the walk's own
greenlet alone. Sessions have turns of their own: read tunnel/scheduling.py for these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import gevent
from gevent.hub import Waiter

from etherws import garbage

#: Seconds for which a walk may go on before all who are ready get their turn. A frame waits this much longer at most,
#: and for the one thing that the walk was at.
TURN_SECONDS = 0.001

#: Seconds until the next turn at least. Any time but 0 has the event loop poll: gevent.sleep(0) would run only
#: greenlets that are due already, and frames that have come would wait.
PAUSE_MIN = 1e-6

T = TypeVar("T")


class Pauses:
    """Who waits for a turn of one event loop, the one that has waited for longest first."""

    def __init__(self) -> None:
        self._waiting: deque[Waiter[None]] = deque()
        self._timer: Any = None

    def pause(self) -> None:
        """Let the event loop poll, so that all who are ready go on; return when the next turn is this greenlet's."""
        waiter: Waiter[None] = Waiter()
        self._waiting.append(waiter)
        self._arm()
        try:
            waiter.get()
        finally:
            # Also if this greenlet is killed meanwhile.
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = gevent.get_hub().loop.timer(PAUSE_MIN)
            self._timer.start(self._next)

    def _next(self) -> None:
        """Give one turn; called by the event loop. The next one follows after a poll."""
        self._timer.close()
        self._timer = None
        if self._waiting:
            self._waiting.popleft().switch(None)
        self._arm()


#: Those of each event loop: a thread may have its own, and after a fork there is a new one.
_pauses: WeakKeyDictionary[Any, Pauses] = WeakKeyDictionary()


def pause() -> None:
    """As Pauses.pause(), for all walks of this thread."""
    hub = gevent.get_hub()
    if hub not in _pauses:
        _pauses[hub] = Pauses()
    _pauses[hub].pause()


def in_turns(
    items: Iterable[T], *, clock: Callable[[], float] = monotonic, wait: Callable[[], None] = pause
) -> Iterator[T]:
    """Yield each of the items. wait() at first, and between two of them whenever the time since the last wait, what the
    caller did with them included, is TURN_SECONDS or more; at the end if half of that is over, for what follows."""
    wait()
    began = clock()
    for item in items:
        yield item
        if clock() - began >= TURN_SECONDS:
            # A walk makes many objects, and drops as many of the last one.
            garbage.spare_young()
            wait()
            began = clock()
    if clock() - began >= TURN_SECONDS / 2:
        wait()
    garbage.search_if_due()
