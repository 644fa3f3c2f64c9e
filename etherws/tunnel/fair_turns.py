"""Who is next among those who carry frames, so that one who sends little never waits behind many who send much.

Each source uses time. One that has used no more than its part goes on as soon as its event comes. The others wait in a
queue, where the one that has used least is next, and between two turns the event loop polls. So a light source waits
for one turn, and not for those of all busy ones. turns.py says how long a turn is, and what it has used; scheduling.py
has the work that waits behind all this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.hub import Waiter

from etherws.tunnel.scheduling import TURN_SECONDS, TURN_SHARED_SECONDS

if TYPE_CHECKING:
    from gevent._types import _Watcher as Watcher

#: Seconds after a poll until which turns begin without another one: while others wait, and while nobody does. A poll
#: costs 10 to 20 µs, and a light session's turn 50 to 100.
POLL_SECONDS, POLL_IDLE_SECONDS = 0.00025, TURN_SECONDS

#: Seconds by which a source that used less than its part may be behind others, and one that used more may be ahead.
#: It may have used more while nobody else had anything to do. A turn full of small frames counts 4 ms, see below.
CREDIT_MAX, AHEAD_MAX = 0.0005, 0.005

#: Seconds that a source's other connections may use while one of them waits, before it is this one's turn all the same.
OTHERS_MAX = 0.02

#: A byte from a TAP may cost FREE_PER_BYTE seconds, as in turns.py. Small frames cost more. That is free as long as
#: they take no more than FREE_PART of the time, for all TAPs together, and FREE_MAX seconds at once. Beyond that their
#: time counts SMALL_FRAMES_COUNT times: a flood of broadcasts comes out of each TAP, and would take all the time of
#: those who send.
FREE_PER_BYTE, FREE_PART, FREE_MAX, SMALL_FRAMES_COUNT = 12e-9, 0.1, 0.005, 8

#: Somebody who waits: what to call when it is its turn. It is empty once that was called, or is not to be.
Entry = list[Callable[[], object]]


class Share:
    """A source's part of this process's time. `used`: seconds, on the clock of FairTurns, which runs with the busy
    sources."""

    used = 0.0


class FairTurns:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996), where what is shared is time."""

    def __init__(self, clock: Callable[[], float] = monotonic, loop: Callable[[], Any] | None = None) -> None:
        """`clock` gives seconds. `loop` returns the event loop; by default it is the one of this thread's hub."""
        self._clock = clock
        self._loop = loop or (lambda: gevent.get_hub().loop)
        # The most that a source had used when its turn began. A new source begins there.
        self._least = 0.0
        # Who waits: what its source has used; a number that keeps the order; the most that this may count; the source;
        # and what to call, empty if it has left.
        self._waiting: list[tuple[float, int, float, Share, Entry]] = []
        self._numbers = count()
        self._timer: Any = None
        # The last poll, and when it was.
        self._poll, self._polled = -1, 0.0
        # Seconds that are free for small frames, and when they were counted.
        self._free, self._free_at = FREE_MAX, 0.0

    def wait(self, share: Share, *, came: bool) -> None:
        """Block this greenlet until it is its turn; then it adds to `share.used` what it takes. `came`: its event has
        come just now. If not, the event loop polls before."""
        if came and self.goes_on(share):
            return
        used = share.used = self._counted(share)
        waiter: Waiter[None] = Waiter()
        entry = self._add(share, used, partial(waiter.switch, None))
        try:
            waiter.get()
        finally:
            # It may have been killed.
            entry.clear()

    def call(self, share: Share, work: Callable[[], object]) -> Entry:
        """As wait(), for what the event loop has called because of an event: have `work` called when it is its turn. To
        clear the entry takes it back."""
        if not self.goes_on(share):
            return self._add(share, share.used, work)
        work()
        return []

    def weighed(self, seconds: float, size: int) -> float:
        """What a turn of so many seconds counts that carried so many bytes from a TAP."""
        if seconds <= size * FREE_PER_BYTE:
            return seconds
        now = self._clock()
        self._free = min(self._free + (now - self._free_at) * FREE_PART, FREE_MAX)
        self._free_at = now
        if seconds > self._free:
            return seconds * SMALL_FRAMES_COUNT
        self._free -= seconds
        return seconds

    def waiting(self) -> int:
        """How many greenlets wait for their turn."""
        return sum(bool(entry) for *_, entry in self._waiting)

    @property
    def shared(self) -> bool:
        """Whether others wait, so that a turn is to be short."""
        return bool(self._waiting)

    def _counted(self, share: Share) -> float:
        return min(max(share.used, self._least - CREDIT_MAX), self._least + AHEAD_MAX)

    def goes_on(self, share: Share) -> bool:
        """Whether a source, whose event has come just now, need not wait."""
        # This is done for each batch: without min() and max() it takes half the time.
        used, least = share.used, self._least
        if used < least - CREDIT_MAX or used > least + AHEAD_MAX:
            used = share.used = self._counted(share)
        poll = self._loop().iteration
        if poll != self._poll:
            self._poll, self._polled = poll, self._clock()
        elif self._clock() - self._polled >= (POLL_SECONDS if self._waiting else POLL_IDLE_SECONDS):
            return False
        if self._waiting and used > self._least:
            return False
        if used > self._least:
            self._least = used
        return True

    def _add(self, share: Share, used: float, work: Callable[[], object]) -> Entry:
        entry = [work]
        heappush(self._waiting, (used, next(self._numbers), used + OTHERS_MAX, share, entry))
        self._watch()
        return entry

    def _watch(self) -> None:
        if self._timer is None:
            # Behind all other events of the same poll: they are of those who used less.
            self._timer = self._loop().timer(0.0, 0.0, True, -1)
            self._timer.start(self._next)

    def _next(self) -> None:
        """Give the turn to who has used least; called by the event loop."""
        self._timer.close()
        self._timer = None
        until = self._clock() + POLL_SECONDS
        while self._waiting:
            used, number, limit, share, entry = heappop(self._waiting)
            if not entry:
                continue
            # The source may have used more meanwhile, by another connection.
            if used < (counted := min(share.used, limit)):
                heappush(self._waiting, (counted, number, limit, share, entry))
                continue
            self._least = max(self._least, used)
            entry.pop()()
            if self._clock() >= until:
                break
        if self._waiting:
            self._watch()


#: The one of this process.
fair_turns = FairTurns()


class EventTurn:
    """The turns of one greenlet that waits for one event again and again, such as a TAP's packets. Nobody else pays for
    them: a flood for one client is no work of that client."""

    def __init__(self, clock: Callable[[], float] = monotonic, fair: FairTurns = fair_turns) -> None:
        """The first turn begins with wait()."""
        self._clock, self._fair = clock, fair
        #: Whose part of time it is. The queues of one client's TAP have it together.
        self.share = Share()
        self._begin = self._until = 0.0
        #: Bytes that came in this turn. Whoever carries them adds them here.
        self.carried = 0
        #: Whether the greenlet in wait() waits for its turn with nothing in hand: its event has come.
        self.waiting = False
        # Whether the greenlet waits for its event.
        self._idle = False

    def over(self) -> bool:
        """Whether it is time to let others have theirs."""
        return self._clock() > self._until

    def wait(self, event: Watcher, in_loop: Callable[[], bool] | None = None) -> bool:
        """End the turn. Block this greenlet until the event comes, and then until its next turn.

        With `in_loop`, the event loop calls that each time when the event comes and this one need not wait for others:
        a turn without a greenlet. It says whether nothing is left to do; then the greenlet sleeps on. What it raises is
        raised here. Return whether it has left something.
        """
        self.end()
        self._idle = True
        waiter: Waiter[bool] = Waiter()
        try:
            event.start(self._came, in_loop, waiter)
            left = waiter.get()
        finally:
            event.stop()
            self._idle = False
        # What is left is packets that are out of the TAP already.
        self.waiting = not left
        try:
            self.begin()
        finally:
            self.waiting = False
        return left

    def _came(self, in_loop: Callable[[], bool] | None, waiter: Waiter[bool]) -> None:
        """The event has come; called by the event loop."""
        left = False
        if in_loop and self._fair.goes_on(self.share):
            self._start()
            try:
                left = not in_loop()
            except Exception as exc:
                waiter.throw(exc)
                return
            self.end()
            if not left:
                return
        waiter.switch(left)

    def quiet(self, seconds: float) -> bool:
        """Whether the greenlet waits for its event, and had its last turn so many seconds ago."""
        return self._idle and self._clock() - self._begin >= seconds

    def end(self) -> None:
        """End the turn, before this greenlet waits for something."""
        # It may have waited already, for its socket, which is no work.
        now, until = self._clock(), self._until
        spent = (now if now < until else until) - self._begin
        if spent > 0:
            light = spent <= self.carried * FREE_PER_BYTE
            self.share.used += spent if light else self._fair.weighed(spent, self.carried)
        self._until, self.carried = 0.0, 0

    def begin(self) -> None:
        """Block this greenlet, whose event has come, until its next turn."""
        self._fair.wait(self.share, came=True)
        self._start()

    def _start(self) -> None:
        self._begin = self._clock()
        self._until = self._begin + (TURN_SHARED_SECONDS if self._fair.shared else TURN_SECONDS)
