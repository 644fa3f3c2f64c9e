"""How busy connections share one process.

gevent switches to another greenlet only where the running one waits. A greenlet that always finds more to do, because
its peer or its TAP never stops, would keep every other connection waiting. So each of them waits for the event loop
after TURN_SECONDS at the latest; the bound is a time, because 256 KiB can be four super-frames or 43,000 pings. Work
that costs much, and that strangers can ask for, goes through `low_priority`. turns.py does both for a connection: read
it next.
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

#: The same while others have turns, too: a light session's frame waits for one turn (fair_turns.py).
TURN_SHARED_SECONDS = 0.0005

#: The same for a turn of low priority. Somebody else's frame may come during each of them.
LOW_PRIORITY_TURN_SECONDS = 0.0005

#: While others are busy, low-priority work gets one part of time in so many. What it makes the kernel and other
#: processes do comes on top.
LOW_PRIORITY_PART = 6

#: Others are busy if they take more than this part of time, over about so many seconds. Bulk takes more; a session that
#: is worked at takes less, and can do with the moments between two turns. So can the frames with which clients announce
#: themselves in a storm: with 0.03, 1,000 clients from 40 addresses took 11 s to come in, and with this 4 s.
BUSY_PART, BUSY_SECONDS = 0.15, 0.1

#: Somebody is alone if all others take no more than this part of time, over BUSY_SECONDS.
ALONE_PART = 0.03

#: Seconds in which others wait for a block at most, if the block itself waits for something.
BLOCK_MAX = 0.02

#: Seconds by which a source that used less than its part may be ahead of others.
CREDIT_MAX = 0.01

#: Sources whose time is remembered at most. Each takes about 200 bytes.
SOURCES_MAX = 4096


class _Line:
    """Who waits of one source: those that go ahead, and the others; each in the order of their coming."""

    def __init__(self) -> None:
        self.queues: tuple[deque[Waiter[None]], deque[Waiter[None]]] = (deque(), deque())

    def __len__(self) -> int:
        return sum(map(len, self.queues))

    def first(self) -> Waiter[None]:
        """Who is next."""
        return next(queue[0] for queue in self.queues if queue)

    def remove(self, waiter: Waiter[None]) -> None:
        """It waits no longer."""
        self.queues[waiter not in self.queues[0]].remove(waiter)


class LowPriority:
    """Work that waits until the event loop has nothing else to do.

    While others are busy, this work gets a sixth of the time at most, all sources together. While the event loop is
    never idle, it gets that, too. Among sources that wait, the one with the least time used is next. As in start-time
    fair queueing (Goyal, Vin and Cheng, 1996), a source that comes anew starts with as much time as the source that
    runs, so it cannot make up for the time of its absence.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, loop: Callable[[], Any] | None = None) -> None:
        """`clock` gives seconds. `loop` returns the event loop; by default it is the one of this thread's hub."""
        self._clock = clock
        self._loop = loop or (lambda: gevent.get_hub().loop)
        # Who waits, by source, in the order of their coming. No source is here without a greenlet.
        self._waiting: dict[str, _Line] = {}
        # Seconds used by each source that used more than `_floor`. Any other has `_floor`.
        self._used: dict[str, float] = {}
        self._floor = 0.0
        # The greenlet that has the turn, its source, and since when.
        self._holder: object = None
        self._source, self._since = "", 0.0
        # From when on the next turn need not wait for the loop to be idle.
        self._due = 0.0
        # Seconds that others have used of late, and when that was so.
        self._others, self._others_at = 0.0, 0.0
        # Who had turns before anybody else had any, when that was last, and what all but this one used of late.
        self._alone: object = None
        self._alone_at = self._beside = self._beside_at = 0.0
        self._watchers: tuple[Any, ...] = ()
        #: Seconds of CPU time that this thread had used when somebody last looked; for turns.py.
        self.cpu_seen = 0.0

    @contextmanager
    def turn(self, source: str, *, ahead: bool = False) -> Iterator[None]:
        """Block this greenlet until it is `source`'s turn; the time of the block is then counted to `source`. With
        `ahead` it comes before others of this source that have not said so.

        One block runs at a time, so nothing in it should wait; if it does, the next one begins after BLOCK_MAX. A block
        inside another one of the same greenlet belongs to it. Whatever ends the block, or the wait for it, lets the
        next one go on.
        """
        if self._holder is gevent.getcurrent():
            yield
            return
        self.acquire(source, ahead=ahead)
        try:
            yield
        finally:
            self.release()

    def acquire(self, source: str, *, ahead: bool = False) -> None:
        """Block this greenlet until it is `source`'s turn; for `ahead` see turn(). release() must follow, in this
        greenlet."""
        waiter: Waiter[None] = Waiter()
        self._waiting.setdefault(source, _Line()).queues[not ahead].append(waiter)
        # Who used little of late comes before others, but not by more than CREDIT_MAX.
        self._used[source] = max(self._used.get(source, self._floor), self._floor - CREDIT_MAX)
        if not self._watchers:
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
        if self._holder is not gevent.getcurrent():
            # It waited too long, and others went on.
            return
        now = self._clock()
        self._due = now + (LOW_PRIORITY_PART - 1) * (now - self._since)
        self._count(now - self._since)
        self._unwatch()
        if self._waiting:
            self._watch()
        self._forget()

    def note(self, who: object, seconds: float, *, heavy: bool) -> None:
        """Note the time of somebody's turns. Those that are not `heavy` keep low-priority work waiting."""
        now = self._clock()
        if not heavy:
            self._others, self._others_at = _of_late(self._others, now - self._others_at) + seconds, now
        if who is not self._alone and now - self._alone_at > BUSY_SECONDS:
            self._alone = who
        if who is self._alone:
            self._alone_at = now
        else:
            self._beside, self._beside_at = _of_late(self._beside, now - self._beside_at) + seconds, now

    def alone(self, who: object) -> bool:
        """Whether nobody else has had much to do of late, so that this one need not wait."""
        if who is not self._alone or self._waiting or self._holder is not None:
            return False
        return _of_late(self._beside, self._clock() - self._beside_at) <= ALONE_PART * BUSY_SECONDS

    def waiting(self) -> int:
        """How many greenlets wait for their turn."""
        return sum(map(len, self._waiting.values()))

    def _watch(self) -> None:
        """Let the event loop give the next turn: when it is idle, or when the turn is due; when a block that waits has
        waited too long."""
        loop = self._loop()
        if self._holder is not None:
            self._watchers = (loop.timer(max(0.0, self._since + BLOCK_MAX - self._clock())),)
            self._watchers[0].start(self._next)
            return
        # libev calls an idle watcher only if no other event is pending. libuv does so after each poll; there the turns
        # of this class alternate with those of others.
        timer = loop.timer(max(0.0, self._due - self._clock()))
        busy = _of_late(self._others, self._clock() - self._others_at) > BUSY_PART * BUSY_SECONDS
        self._watchers = (timer,) if busy else (timer, loop.idle())
        for watcher in self._watchers:
            watcher.start(self._next)

    def _unwatch(self) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._watchers = ()

    def _next(self) -> None:
        """Give the turn to the source with the least time; called by the event loop."""
        self._unwatch()
        if self._holder is not None:
            self._count(BLOCK_MAX)
        source = min(self._waiting, key=self._used.__getitem__)
        waiter = self._waiting[source].first()
        self._leave(source, waiter)
        self._source, self._floor = source, max(self._floor, self._used[source])
        waiter.switch(None)
        # The greenlet waits for something, perhaps inside its block.
        if self._holder is not None and self._waiting and not self._watchers:
            self._watch()

    def _count(self, seconds: float) -> None:
        """Count the time of a block, which has ended."""
        self._used[self._source] = self._used.get(self._source, self._floor) + seconds
        self._holder = None

    def _leave(self, source: str, waiter: Waiter[None]) -> None:
        line = self._waiting[source]
        line.remove(waiter)
        if not len(line):
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


def _of_late(seconds: float, age: float) -> float:
    """What counts of `seconds` that were used so long ago."""
    return seconds * (1 - age / BUSY_SECONDS) if age < BUSY_SECONDS else 0.0


#: The one of this process.
low_priority = LowPriority()


def pause() -> None:
    """Block this greenlet until the event loop has polled once, so that all who are ready go on."""
    timer = gevent.get_hub().loop.timer(0)
    try:
        gevent.get_hub().wait(timer)
    finally:
        timer.close()
