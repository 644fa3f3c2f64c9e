"""The turns of a connection that receives: when its greenlet lets others go on, and whether it waits behind them.

A `Turn` ends by time. Its `Account` counts what the work cost, and what the bytes pay for. Who is next says
fair_turns.py. A source whose bytes cost much for what they carry gets its turns from `low_priority` (scheduling.py),
behind everybody else's. receiver.py and connection.py use both: read them next.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import gevent

from etherws.tunnel.fair_turns import FairTurns, Share, fair_turns
from etherws.tunnel.scheduling import (
    LOW_PRIORITY_TURN_SECONDS,
    TURN_SECONDS,
    TURN_SHARED_SECONDS,
    LowPriority,
    low_priority,
)

if TYPE_CHECKING:
    from gevent._types import _Watcher as Watcher

#: Seconds that each byte may cost that a connection receives, and that it sends. Full frames take 1 to 3 ns a byte,
#: also in TLS; frames of 64 bytes take 30, and empty ones 150 or more. What is sent pays for the acknowledgements that
#: come back, which are small frames.
FREE_PER_BYTE_RECEIVED, FREE_PER_BYTE_SENT = 12e-9, 1e-9

#: What a source may cost beside that, as a part of time, and all sources together. A ping, an SSH session or a
#: telephone call of 100 frames a second takes less.
FREE_PART, FREE_PART_OF_ALL = 0.01, 0.1

#: Seconds that a source may cost beyond all that before it counts as heavy, and that are remembered at most.
DEBT_FREE, DEBT_MAX = 0.001, 0.010

#: Seconds in which every connection that always has more to receive gets a turn, and the least that a turn takes, which
#: a hundred full frames need.
ROUND_SECONDS, TURN_MIN_SECONDS = 0.050, 0.00025

#: Seconds of a connection's work that are charged at once: to charge costs as much as to carry a small frame.
CHARGED_AT_ONCE = 0.0002

#: Turns from this length on, in seconds, are measured in CPU time. To read that clock takes a system call, and a ping's
#: turn is so short that it is hardly ever interrupted.
MEASURED_FROM = 0.0001


class Account(Share):
    """What the connections of one source cost, beyond what their bytes pay for."""

    # Seconds of work that are free for all sources together, and until when they were counted.
    _free, _free_at = DEBT_MAX, 0.0
    # Turns that began, of all sources.
    _all_turns = 0

    def __init__(self, source: str) -> None:
        self.source = source
        # Turns that began, of this source.
        self._turns = 0
        self._debt = self._at = 0.0

    def charge(self, seconds: float, received: int, sent: int, now: float) -> None:
        """Count `seconds` of work at the time `now`, for so many bytes."""
        paid = received * FREE_PER_BYTE_RECEIVED + sent * FREE_PER_BYTE_SENT
        debt = max(0.0, self._debt + seconds - paid)
        Account._free = min(Account._free + (now - Account._free_at) * FREE_PART_OF_ALL, DEBT_MAX)
        free = min((now - self._at) * FREE_PART, debt, Account._free)
        Account._free -= free
        Account._free_at = self._at = now
        self._debt = min(debt - free, DEBT_MAX)

    def begin(self, last: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        """Begin a turn of one of the connections. Return how many seconds it may take, and what to give as `last` when
        that connection begins its next one.

        The connections of a source share the time of one: each gets a part for every turn that the source has had since
        this one's last. And a round of all turns is kept short.
        """
        self._turns += 1
        Account._all_turns += 1
        mine, everybodys = self._turns - last[0], Account._all_turns - last[1]
        seconds = min(TURN_SECONDS / mine, ROUND_SECONDS / everybodys)
        if everybodys > mine:
            seconds = min(seconds, TURN_SHARED_SECONDS)
        return max(seconds, TURN_MIN_SECONDS), (self._turns, Account._all_turns)

    @property
    def heavy(self) -> bool:
        """Whether its work is to wait until nobody else has any."""
        return self._debt > DEBT_FREE


class LastAccount(Account):
    """Of work that waits until nobody else has any, whatever it costs."""

    @property
    def heavy(self) -> bool:
        """Always."""
        return True


_accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()


def account(source: str) -> Account:
    """The account of a source, as long as anybody has it. The empty source has a new one each time."""
    found = _accounts.get(source)
    if found is None:
        found = Account(source)
        if source:
            _accounts[source] = found
        else:
            found.source = f"connection {id(found):x}"
    return found


class Turn:
    """The turns of one greenlet which a peer keeps busy. Only this greenlet calls the methods.

    `received` and `sent` are bytes that were not charged yet. Whoever carries them adds them here.
    """

    def __init__(
        self,
        payer: Account,
        clock: Callable[[], float] = monotonic,
        cpu_clock: Callable[[], float] = thread_time,
        queue: LowPriority = low_priority,
        fair: FairTurns = fair_turns,
    ) -> None:
        """The first turn begins with wait(). `payer` is charged for the CPU time, so that a busy machine makes nobody
        look expensive."""
        self._payer, self._clock, self._cpu_clock, self._queue, self._fair = payer, clock, cpu_clock, queue, fair
        self.received = self.sent = 0
        self._running = self._low = self._heavy = False
        # Seconds of CPU time that were not charged yet, and their bytes.
        self._spent = 0.0
        self._begin = self._until = 0.0
        self._last = payer.begin((0, 0))[1]

    def over(self) -> bool:
        """Whether it is time to let others have theirs."""
        return self._clock() > self._until

    def wait(self, event: Watcher | None = None) -> None:
        """End the turn. Block this greenlet until the event comes, if there is one, and then until its next turn."""
        self.end()
        if event is not None:
            gevent.get_hub().wait(event)
        self._heavy = self._payer.heavy
        if self._heavy and not self._queue.alone(self):
            self._queue.acquire(self._payer.source)
            self._low = True
        else:
            self._fair.wait(self._payer, came=event is not None)
        seconds, self._last = self._payer.begin(self._last)
        if self._low:
            seconds = LOW_PRIORITY_TURN_SECONDS
        self._running, self._begin = True, self._clock()
        self._until = self._begin + seconds

    def sleep(self, seconds: float) -> None:
        """End the turn. Block this greenlet for so long, and then until its next turn."""
        timer = gevent.get_hub().loop.timer(seconds)
        try:
            self.wait(timer)
        finally:
            timer.close()

    def end(self) -> None:
        """End the turn: charge for it, and let others begin. wait() begins the next one."""
        if self._running:
            self._running = False
            spent = self._clock() - self._begin
            if spent > MEASURED_FROM:
                # Other processes may have run meanwhile. The turn cost no more than this thread since the last look.
                cpu = self._cpu_clock()
                spent, self._queue.cpu_seen = min(spent, cpu - self._queue.cpu_seen), cpu
            self._spent += spent
            self._payer.used += spent
            if self._spent > CHARGED_AT_ONCE:
                self._payer.charge(self._spent, self.received, self.sent, self._clock())
                self._queue.note(self, self._spent + self.sent * FREE_PER_BYTE_SENT, heavy=self._heavy)
                self._spent, self.received, self.sent = 0.0, 0, 0
        if self._low:
            self._low = False
            self._queue.release()
