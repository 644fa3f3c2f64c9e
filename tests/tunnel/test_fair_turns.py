"""Who is next among those who carry frames. The clock and the event loop are the test's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from etherws.tunnel.fair_turns import (
    FREE_MAX,
    OTHERS_MAX,
    POLL_IDLE_SECONDS,
    SMALL_FRAMES_COUNT,
    EventTurn,
    FairTurns,
    Share,
)
from etherws.tunnel.scheduling import TURN_SECONDS, TURN_SHARED_SECONDS
from tests.lab.hosts import PATIENCE
from tests.lab.streams import FakeStream


class Machine:
    """A clock, and an event loop that polls when the test says so."""

    def __init__(self) -> None:
        self.now, self.iteration = 100.0, 0
        self.fair = FairTurns(lambda: self.now, lambda: self)
        self._call: Callable[[], None] | None = None
        #: Who had a turn, in this order, and the seconds of each.
        self.turns: list[str] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timer(self, *_: object) -> Any:
        return self

    def start(self, call: Callable[[], None]) -> None:
        assert self._call is None
        self._call = call

    def close(self) -> None:
        self._call = None

    def poll(self) -> None:
        """Let the event loop poll once. Who waits for that goes on."""
        self.iteration += 1
        if self._call:
            gevent.get_hub().loop.run_callback(self._call)
        gevent.sleep(0)

    def take(self, name: str, share: Share, seconds: float) -> None:
        """Have a turn."""
        self.turns.append(name)
        self.seconds[name] += seconds
        self.now += seconds
        share.used += seconds

    def busy(self, name: str, seconds: float, share: Share | None = None) -> gevent.Greenlet[..., None]:
        """A greenlet that always has more to do."""
        mine = share or Share()

        def work() -> None:
            while True:
                self.fair.wait(mine, came=False)
                self.take(name, mine, seconds)

        greenlet = gevent.spawn(work)
        gevent.sleep(0)
        return greenlet

    def event(self, name: str, share: Share, seconds: float) -> gevent.Greenlet[..., None]:
        """A greenlet whose event has come: it has one turn."""

        def work() -> None:
            self.fair.wait(share, came=True)
            self.take(name, share, seconds)

        greenlet = gevent.spawn(work)
        gevent.sleep(0)
        return greenlet


@pytest.fixture
def machine() -> Any:
    found = Machine()
    with gevent.Timeout(PATIENCE):
        yield found


def test_the_busy_have_the_same_time_whatever_their_turns_take(machine: Machine) -> None:
    busy = [machine.busy(f"{number}", 0.0003 + 0.0001 * (number % 3)) for number in range(10)]
    for _ in range(1000):
        machine.poll()
    gevent.killall(busy)
    assert len(machine.seconds) == 10
    assert max(machine.seconds.values()) - min(machine.seconds.values()) <= 2 * 0.0005


def test_a_light_one_waits_for_one_turn_of_many_busy_ones(machine: Machine) -> None:
    busy = [machine.busy(f"{number}", 0.0005) for number in range(50)]
    light, behind = Share(), []
    for _ in range(100):
        machine.poll()
    for _ in range(100):
        machine.poll()
        had = len(machine.turns)
        # Its event comes right behind a busy one's turn, and no turn begins in this poll.
        machine.fair._polled = 0.0
        machine.event("light", light, 0.0001)
        while "light" not in machine.turns[had:]:
            machine.poll()
        behind.append(machine.turns[had:].index("light"))
        for _ in range(9):
            machine.poll()
    gevent.killall(busy)
    assert max(behind) <= 1


def test_who_is_alone_does_not_wait_for_a_poll(machine: Machine) -> None:
    share = Share()
    for _ in range(3):
        machine.iteration += 1
        machine.event("alone", share, 0.002)
    assert machine.turns == ["alone"] * 3
    assert not machine.fair.shared


def test_many_turns_at_once_have_a_poll_between_them(machine: Machine) -> None:
    events = [machine.event(f"{number}", Share(), 0.0005) for number in range(10)]
    # Until POLL_IDLE_SECONDS are over.
    assert len(machine.turns) == 4
    assert machine.fair.waiting() == 6
    polls = 0
    while machine.fair.waiting():
        machine.poll()
        polls += 1
    # One each time, since it takes longer than POLL_SECONDS.
    assert polls == 6
    gevent.joinall(events)
    assert machine.turns == [f"{number}" for number in range(10)]


def test_the_connections_of_one_source_have_the_time_of_one(machine: Machine) -> None:
    share = Share()
    busy = [machine.busy("many", 0.0005, share) for _ in range(10)] + [machine.busy("one", 0.0005) for _ in range(2)]
    for _ in range(600):
        machine.poll()
    gevent.killall(busy)
    assert machine.seconds["one"] / 2 == pytest.approx(machine.seconds["many"], rel=0.1)


def test_who_was_far_ahead_is_not_kept_out(machine: Machine) -> None:
    # By work that others did not compete for, it has used much.
    ahead = Share()
    machine.event("ahead", ahead, 60.0)
    busy = [machine.busy("other", 0.0005)]
    for _ in range(5):
        machine.poll()
    busy.append(machine.busy("ahead", 0.0005, ahead))
    # It is charged meanwhile, too, for something else.
    for _ in range(2 * round(OTHERS_MAX / 0.0005)):
        ahead.used += 1.0
        machine.poll()
    gevent.killall(busy)
    assert machine.turns.count("ahead") >= 2


def test_who_was_away_does_not_make_up_for_it(machine: Machine) -> None:
    first = machine.busy("first", 0.0005)
    for _ in range(100):
        machine.poll()
    second = machine.busy("second", 0.0005)
    had = len(machine.turns)
    for _ in range(20):
        machine.poll()
    gevent.killall([first, second])
    assert machine.turns[had:].count("second") == pytest.approx(10, abs=1)


def test_who_is_killed_leaves_the_queue(machine: Machine) -> None:
    one, other = machine.busy("one", 0.0005), machine.busy("other", 0.0005)
    one.kill()
    assert machine.fair.waiting() == 1
    machine.poll()
    assert machine.turns == ["other"]
    other.kill()
    assert machine.fair.waiting() == 0
    machine.poll()
    assert machine.turns == ["other"]


def test_what_the_event_loop_calls_waits_as_well(machine: Machine) -> None:
    called: list[str] = []
    share = Share()
    assert machine.fair.call(share, lambda: called.append("at once")) == []
    machine.now += 2 * POLL_IDLE_SECONDS
    machine.fair.call(share, lambda: called.append("later"))
    taken_back = machine.fair.call(share, lambda: called.append("never"))
    taken_back.clear()
    assert called == ["at once"]
    machine.poll()
    assert called == ["at once", "later"]
    assert machine.fair.waiting() == 0


def test_the_event_loop_carries_what_comes_alone_and_the_greenlet_sleeps_on(machine: Machine) -> None:
    turn, stream, called = EventTurn(lambda: machine.now, machine.fair), FakeStream(), list[int]()

    def first() -> bool:
        called.append(stream.recv_into(bytearray(1)))
        machine.now += 0.001
        return len(called) < 3

    waiting = gevent.spawn(turn.wait, stream.readable(), first)
    with gevent.Timeout(PATIENCE):
        for count in (1, 2):
            stream.feed(b"x")
            while len(called) < count:
                machine.poll()
            assert not waiting.ready()
            # Each was a turn, which it has paid.
            assert turn.share.used == pytest.approx(0.001 * count)
            assert turn.quiet(0.001)
            assert not turn.quiet(0.002)
        stream.feed(b"x")
        while not waiting.ready():
            machine.poll()
    # Something is left to do: that is the greenlet's.
    assert waiting.get() is True
    assert not turn.over()


def test_the_event_loop_carries_nothing_while_others_are_first(machine: Machine) -> None:
    turn, stream, called = EventTurn(lambda: machine.now, machine.fair), FakeStream(), list[str]()
    other = machine.busy("other", 0.0005)
    machine.poll()
    turn.share.used = machine.fair._least + 0.001

    def first() -> bool:
        called.append("first")
        return False

    waiting = gevent.spawn(turn.wait, stream.readable(), first)
    stream.feed(b"x")
    with gevent.Timeout(PATIENCE):
        while not waiting.ready():
            machine.poll()
    assert waiting.get() is False
    assert not called
    other.kill()


def test_who_has_packets_in_hand_does_not_count_as_waiting(machine: Machine) -> None:
    turn, stream = EventTurn(lambda: machine.now, machine.fair), FakeStream()
    other = machine.busy("other", 0.0005)

    def first() -> bool:
        # It has read more than it could send, in a long turn.
        machine.now += 0.01
        return False

    waiting = gevent.spawn(turn.wait, stream.readable(), first)
    gevent.idle()
    stream.feed(b"x")
    with gevent.Timeout(PATIENCE):
        while not turn.share.used:
            machine.poll()
        # Whoever takes the packets away from it now (Backlog.retire) must not kill it: they would be lost.
        assert not waiting.ready()
        assert not turn.waiting
        while not waiting.ready():
            machine.poll()
    assert waiting.get() is True
    other.kill()


def test_what_fails_in_the_event_loop_is_raised_in_the_greenlet(machine: Machine) -> None:
    turn, stream = EventTurn(lambda: machine.now, machine.fair), FakeStream(b"x")

    def first() -> bool:
        raise ZeroDivisionError

    with gevent.Timeout(PATIENCE), pytest.raises(ZeroDivisionError):
        turn.wait(stream.readable(), first)
    assert not turn.quiet(0.0)


def test_a_turn_for_events_ends_by_time_and_is_short_if_others_wait(machine: Machine) -> None:
    turn, stream = EventTurn(lambda: machine.now, machine.fair), FakeStream()
    assert turn.over()
    stream.feed(b"x")
    turn.wait(stream.readable())
    machine.now += TURN_SECONDS * 0.9
    assert not turn.over()
    machine.now += TURN_SECONDS
    assert turn.over()
    turn.end()
    # What is beyond the turn was a wait for something.
    assert turn.share.used == pytest.approx(TURN_SECONDS)
    turn.end()
    assert turn.share.used == pytest.approx(TURN_SECONDS)

    other = machine.busy("other", 0.0005)
    machine.fair._polled = 0.0
    waiting = gevent.spawn(turn.wait, stream.readable())
    while not turn.waiting:
        gevent.sleep(0)
    while turn.waiting:
        machine.poll()
    waiting.get()
    machine.now += TURN_SHARED_SECONDS * 1.1
    assert turn.over()
    other.kill()


def test_small_frames_of_many_taps_count_more_when_they_take_much_time(machine: Machine) -> None:
    taps = [EventTurn(lambda: machine.now, machine.fair) for _ in range(50)]

    def carry(tap: EventTurn, seconds: float, size: int) -> float:
        tap._begin, tap._until = machine.now, machine.now + 1.0
        machine.now += seconds
        tap.carried, before = size, tap.share.used
        tap.end()
        return tap.share.used - before

    # Full frames are paid for by their bytes.
    assert all(carry(tap, 0.0005, 100_000) == pytest.approx(0.0005) for tap in taps)
    # Pings: 2 % of the time.
    for _ in range(100):
        machine.now += 0.005
        assert carry(taps[0], 0.0001, 98) == pytest.approx(0.0001)
    # A broadcast that each of them brings, without end.
    counted = [carry(tap, 0.0001, 60) for _ in range(20) for tap in taps]
    assert sum(seconds < 0.00011 for seconds in counted) <= FREE_MAX / 0.0001 + 0.1 * len(counted) + 2
    assert counted[-1] + counted[-2] > SMALL_FRAMES_COUNT * 0.0001


def test_the_loop_of_this_thread_is_the_default() -> None:
    fair, done = FairTurns(), []

    def work(number: int) -> None:
        fair.wait(Share(), came=False)
        done.append(number)

    gevent.joinall([gevent.spawn(work, number) for number in range(3)], timeout=PATIENCE)
    assert done == [0, 1, 2]
