"""How busy connections share one process.

gevent switches to another greenlet only where the running one waits. A greenlet that always finds more to do, because
its peer or its TAP never stops, would keep every other connection waiting. So each of them waits for the event loop
after TURN_SECONDS at the latest; the bound is a time, because 256 KiB can be four super-frames or 43,000 pings. Work
that costs much, and that strangers can ask for, goes through `low_priority`. Read next: receiver.py, which uses both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Waiter

#: Seconds for which one greenlet may go on without waiting for the event loop. To wait costs one poll, in which all
#: connections that are ready get their turn; gevent.sleep(0) would run only greenlets that are due already.
TURN_SECONDS = 0.002

#: While the event loop is never idle, low-priority work gets one part of time in so many.
LOW_PRIORITY_PART = 4

#: Sources whose time is remembered at most. Each takes about 200 bytes.
SOURCES_MAX = 4096


class LowPriority:
    """Work that waits until the event loop has nothing else to do.

    While the loop always has something, this work gets a quarter of the time, all sources together. Among sources that
    wait, the one with the least time used is next. Like start-time fair queueing (Goyal, Vin and Cheng, 1996): a source
    that comes anew starts with as much time as the source that runs, so it cannot make up for the time of its absence.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, loop: Callable[[], Any] | None = None) -> None:
        """`clock` gives seconds. `loop` returns the event loop; by default it is the one of this thread's hub."""
        self._clock = clock
        self._loop = loop or (lambda: gevent.get_hub().loop)
        # Who waits, by source, in the order of their coming. No source is here without a greenlet.
        self._waiting: dict[str, deque[Waiter[None]]] = {}
        # Seconds used by each source that used more than `_floor`. Any other has `_floor`.
        self._used: dict[str, float] = {}
        self._floor = 0.0
        # The greenlet that has the turn, its source, and since when.
        self._holder: object = None
        self._source, self._since = "", 0.0
        # From when on the next turn need not wait for the loop to be idle.
        self._due = 0.0
        self._watchers: tuple[Any, ...] = ()

    @contextmanager
    def turn(self, source: str) -> Iterator[None]:
        """Block this greenlet until it is `source`'s turn; the time of the block is then counted to `source`.

        One block runs at a time, so nothing in it may wait for a peer. A block inside another one of the same greenlet
        belongs to it. Whatever ends the block, or the wait for it, lets the next one go on.
        """
        if self._holder is gevent.getcurrent():
            yield
            return
        self.acquire(source)
        try:
            yield
        finally:
            self.release()

    def acquire(self, source: str) -> None:
        """Block this greenlet until it is `source`'s turn. release() must follow, in this greenlet."""
        waiter: Waiter[None] = Waiter()
        self._waiting.setdefault(source, deque()).append(waiter)
        self._used[source] = max(self._used.get(source, 0.0), self._floor)
        if self._holder is None and not self._watchers:
            self._watch()
        try:
            waiter.get()
        except BaseException:
            # Killed, or a timeout.
            self._leave(source, waiter)
            if not self._waiting:
                self._unwatch()
            self._forget()
            raise
        self._holder = gevent.getcurrent()
        self._since = self._clock()

    def release(self) -> None:
        """End the turn, which this greenlet has, and let the next one begin."""
        now = self._clock()
        seconds = now - self._since
        self._used[self._source] = self._used.get(self._source, self._floor) + seconds
        self._due = now + (LOW_PRIORITY_PART - 1) * seconds
        self._holder = None
        if self._waiting:
            self._watch()
        self._forget()

    def waiting(self) -> int:
        """How many greenlets wait for their turn."""
        return sum(map(len, self._waiting.values()))

    def _watch(self) -> None:
        """Let the event loop give the next turn: when it is idle, or when the turn is due."""
        loop = self._loop()
        # libev calls an idle watcher only if no other event is pending. libuv does so after each poll; there the turns
        # of this class alternate with those of others.
        self._watchers = loop.idle(), loop.timer(max(0.0, self._due - self._clock()))
        for watcher in self._watchers:
            watcher.start(self._next)

    def _unwatch(self) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._watchers = ()

    def _next(self) -> None:
        """Give the turn to the source with the least time; called by the event loop."""
        self._unwatch()
        source = min(self._waiting, key=self._used.__getitem__)
        waiter = self._waiting[source][0]
        self._leave(source, waiter)
        self._source, self._floor = source, max(self._floor, self._used[source])
        waiter.switch(None)

    def _leave(self, source: str, waiter: Waiter[None]) -> None:
        waiters = self._waiting[source]
        waiters.remove(waiter)
        if not waiters:
            del self._waiting[source]

    def _forget(self) -> None:
        """Drop what need not be known any more of sources that do not wait."""
        if not self._waiting:
            # Everybody has had what he asked for: all begin anew.
            self._used.clear()
        elif len(self._used) > SOURCES_MAX:
            for least in (self._floor, max(self._used.values())):
                self._used = {
                    source: used for source, used in self._used.items() if used > least or source in self._waiting
                }
                if len(self._used) <= SOURCES_MAX:
                    break


#: The one of this process.
low_priority = LowPriority()
