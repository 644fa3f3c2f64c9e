"""When the sessions of this process are looked at: each few seconds for their history, and when somebody asks.

One greenlet for all of them, which runs only while there are any. It, and who asks, lets others have their turns
meanwhile. Read next: session_status.py, which has what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol

import gevent

from etherws.counters import Totals
from etherws.tunnel.history import STEP
from etherws.walks import in_turns


class Sampled(Protocol):
    """A session, as it is seen from here: session_status.py."""

    @property
    def totals(self) -> Totals:
        """What it is counted in."""

    def settle(self) -> None:
        """Count in `totals` what has come since the last time."""

    def sample(self) -> None:
        """Add a row to the history, and settle()."""


class Sampler:
    """Looks at each session that has begun and not ended."""

    def __init__(self, interval: float = STEP, clock: Callable[[], float] = monotonic) -> None:
        """Sample each `interval` seconds."""
        self._interval, self._clock = interval, clock
        self._sessions: dict[Sampled, None] = {}
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def begin(self, session: Sampled) -> None:
        """A session has begun."""
        session.totals.joins += 1
        self._sessions[session] = None
        if not self._greenlet:
            self._greenlet = gevent.spawn(self._run)

    def end(self, session: Sampled) -> None:
        """It has ended: count what is left. Nothing is asked of it any more."""
        session.settle()
        session.totals.leaves += 1
        del self._sessions[session]
        if not self._sessions and self._greenlet:
            self._greenlet.kill(block=False)
            self._greenlet = None

    def count_live(self, totals: Totals) -> Totals:
        """Bring `totals` up to date: count what the sessions that run have carried, too. Return it. What was counted
        is never counted again, so several may ask at once."""
        for session in self._each():
            if session.totals is totals:
                session.settle()
        return totals

    def _run(self) -> None:
        while True:
            gevent.sleep(self._interval)
            for session in self._each():
                session.sample()

    def _each(self) -> Iterator[Sampled]:
        """Each session, in turns. Those that end meanwhile are left out, once they have."""
        # Not in turns of low priority: whoever asks may be in one already, and then it would be one long turn.
        for session in in_turns(list(self._sessions), clock=self._clock):
            if session in self._sessions:
                yield session


#: The one of this process.
sampler = Sampler()
