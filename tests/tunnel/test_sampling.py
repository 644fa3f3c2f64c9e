"""The greenlet that looks at all sessions, with sessions that only count how often they are looked at."""

from __future__ import annotations

import itertools
from functools import partial

import gevent
import pytest

from etherws.counters import Totals
from etherws.tunnel import sampling
from etherws.tunnel.sampling import Sampler
from etherws.walks import TURN_SECONDS, in_turns
from tests.lab.hosts import PATIENCE

#: Seconds between two samples in a test that waits for some.
SHORT = 0.001


class Counted:
    """A session that has carried one frame each time when it is asked. It tells the clock what it costs to look."""

    def __init__(self, totals: Totals) -> None:
        self.totals, self.settled, self.sampled = totals, 0, 0

    def settle(self) -> None:
        """See SessionStatus."""
        self.settled += 1
        self.totals.sent.frames += 1

    def sample(self) -> None:
        """See SessionStatus."""
        self.sampled += 1
        self.settle()


def wait_until_sampled(*sessions: Counted) -> None:
    """Return when each was sampled twice."""
    with gevent.Timeout(PATIENCE):
        while min(session.sampled for session in sessions) < 2:
            gevent.sleep(SHORT)


def test_sessions_are_sampled_while_there_are_any_and_the_greenlet_ends_with_the_last() -> None:
    totals, sampler = Totals(), Sampler(SHORT)
    one, other = Counted(totals), Counted(totals)
    assert sampler._greenlet is None
    sampler.begin(one)
    sampler.begin(other)
    greenlet = sampler._greenlet
    wait_until_sampled(one, other)
    sampler.end(one)
    assert sampler._greenlet is greenlet
    before = one.sampled
    other.sampled = 0
    wait_until_sampled(other)
    assert one.sampled == before
    sampler.end(other)
    assert sampler._greenlet is None
    assert greenlet is not None
    greenlet.join()
    # The next session has a new one.
    sampler.begin(one)
    one.sampled = 0
    wait_until_sampled(one)
    sampler.end(one)
    assert (totals.joins, totals.leaves) == (3, 3)


def test_totals_have_what_runs_and_what_has_ended_and_nothing_twice() -> None:
    totals, others, sampler = Totals(), Totals(), Sampler()
    one, two, foreign = Counted(totals), Counted(totals), Counted(others)
    for each in (one, two, foreign):
        sampler.begin(each)
    assert sampler.count_live(totals) is totals
    assert totals.sent.frames == 2
    sampler.end(one)
    assert totals.sent.frames == 3
    assert sampler.count_live(totals).sent.frames == 4
    assert (totals.joins, totals.leaves, others.joins) == (2, 1, 1)
    assert foreign.settled == 0
    for each in (two, foreign):
        sampler.end(each)
    assert sampler.count_live(totals).sent.frames == 5


def test_a_thousand_sessions_are_looked_at_in_short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = 0.0, []
    totals = Totals()
    sampler = Sampler(clock=lambda: now)
    sampler._greenlet = gevent.Greenlet()
    monkeypatch.setattr(sampler, "_run", lambda: None)

    class Slow(Counted):
        def settle(self) -> None:
            nonlocal now
            super().settle()
            now += 0.0001

    def pause() -> None:
        turns.append(now)
        if len(turns) == 2:
            # It leaves while others are looked at.
            sampler.end(last)

    sessions = [Slow(totals) for _ in range(1000)]
    last = sessions[-1]
    for session in sessions:
        sampler.begin(session)
    monkeypatch.setattr(sampling, "in_turns", partial(in_turns, wait=pause))
    sampler.count_live(totals)
    assert max(after - before for before, after in itertools.pairwise(turns)) < TURN_SECONDS + 0.0001 + 1e-9
    assert totals.sent.frames == 1000
    assert last.settled == 1
    for session in sessions[:-1]:
        sampler.end(session)
