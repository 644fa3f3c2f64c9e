"""Turns: their length, and who is next among low-priority work. The clock and the event loop are the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.event
import pytest

from etherws.tunnel.scheduling import (
    ALONE_PART,
    BLOCK_MAX,
    BUSY_PART,
    BUSY_SECONDS,
    LOW_PRIORITY_PART,
    SOURCES_MAX,
    TURN_SECONDS,
    LowPriority,
)
from tests.lab.hosts import PATIENCE


class Watcher:
    """Notes whether it runs."""

    def __init__(self, after: float | None = None) -> None:
        self.after = after
        self.call: Callable[[], None] | None = None

    def start(self, call: Callable[[], None]) -> None:
        self.call = call

    def close(self) -> None:
        self.call = None


class Machine:
    """A clock, and an event loop that is idle, or where a timer ends, when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.watchers: list[Watcher] = []
        self.work = LowPriority(lambda: self.now, lambda: self)
        #: The sources in the order of their turns.
        self.turns: list[str] = []

    def idle(self) -> Watcher:
        return self._add(Watcher())

    def timer(self, after: float) -> Watcher:
        return self._add(Watcher(after))

    def _add(self, watcher: Watcher) -> Watcher:
        self.watchers.append(watcher)
        return watcher

    def running(self) -> list[float | None]:
        """What each watcher waits for that runs: seconds, or None for an idle loop."""
        return [watcher.after for watcher in self.watchers if watcher.call]

    def fire(self, *, timer: bool = False) -> None:
        """The loop is idle, or the timer ends. Then whoever can goes on."""
        (watcher,) = [each for each in self.watchers if each.call and (each.after is not None) == timer]
        assert watcher.call
        gevent.get_hub().loop.run_callback(watcher.call)
        gevent.sleep(0)

    def spawn(self, source: str, seconds: float = 1.0, turns: int = 1) -> gevent.Greenlet[..., None]:
        """A greenlet that takes so many turns of so many seconds."""

        def work() -> None:
            for _ in range(turns):
                with self.work.turn(source):
                    self.turns.append(source)
                    self.now += seconds

        greenlet = gevent.spawn(work)
        gevent.sleep(0)
        return greenlet

    def drain(self) -> None:
        """Let the loop be idle until nobody waits."""
        while self.running():
            self.fire()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_turn_is_longer_than_a_system_call_and_shorter_than_a_ping_may_wait() -> None:
    assert 0.0001 < TURN_SECONDS < 0.005


def test_an_idle_loop_gives_the_turn_at_once_and_nothing_runs_when_nobody_waits(machine: Machine) -> None:
    greenlet = machine.spawn("one", turns=3)
    assert machine.turns == []
    for count in range(1, 4):
        machine.fire()
        assert machine.turns == ["one"] * count
    assert greenlet.successful()
    assert machine.running() == []
    assert machine.work.waiting() == 0


def test_a_loop_that_is_never_idle_gives_a_part_of_the_time(machine: Machine) -> None:
    machine.spawn("one", 0.010, turns=3)
    # Nothing ran before.
    assert machine.running() == [0, None]
    machine.fire(timer=True)
    assert machine.running() == [pytest.approx((LOW_PRIORITY_PART - 1) * 0.010), None]
    machine.now += 0.020
    machine.fire(timer=True)
    machine.spawn("other")
    assert machine.running() == [pytest.approx((LOW_PRIORITY_PART - 1) * 0.010), None]
    machine.drain()


def test_who_goes_ahead_comes_before_others_of_its_source(machine: Machine) -> None:
    """In the order of their coming; and not before another source, which has used as little time."""
    took: list[str] = []

    def work(source: str, name: str, *, ahead: bool) -> None:
        with machine.work.turn(source, ahead=ahead):
            took.append(name)
            machine.now += 1

    some = [
        gevent.spawn(work, source, name, ahead=name.startswith("ahead"))
        for source, name in (("one", "a"), ("two", "b"), ("one", "ahead 1"), ("one", "c"), ("one", "ahead 2"))
    ]
    gevent.sleep(0)
    leaves = gevent.spawn(work, "one", "ahead, and gone", ahead=True)
    gevent.sleep(0)
    assert machine.work.waiting() == 6
    leaves.kill()
    machine.drain()
    assert took == ["ahead 1", "b", "ahead 2", "a", "c"]
    assert all(greenlet.successful() for greenlet in some)


def test_who_comes_long_after_the_last_turn_waits_for_no_timer(machine: Machine) -> None:
    machine.spawn("one")
    machine.drain()
    machine.now += 10
    machine.spawn("one")
    assert machine.running() == [0, None]
    machine.drain()


def test_while_others_are_busy_moments_without_an_event_do_not_count(machine: Machine) -> None:
    machine.work.note("other", 0.5 * BUSY_PART * BUSY_SECONDS, heavy=False)
    machine.spawn("one", 0.010, turns=2)
    assert machine.running() == [0, None]
    machine.fire()
    machine.work.note("heavy", 1.0, heavy=True)
    machine.work.note("other", BUSY_SECONDS, heavy=False)
    machine.fire()
    machine.spawn("one", 0.010)
    assert machine.running() == [pytest.approx((LOW_PRIORITY_PART - 1) * 0.010)]
    machine.fire(timer=True)
    machine.now += BUSY_SECONDS
    machine.spawn("one", 0.010)
    assert machine.running() == [0, None]
    machine.drain()


def test_who_is_alone_is_known_until_somebody_else_comes(machine: Machine) -> None:
    work = machine.work
    work.note("one", 1.0, heavy=True)
    assert work.alone("one")
    assert not work.alone("other")
    work.note("other", 0.5 * ALONE_PART * BUSY_SECONDS, heavy=True)
    assert work.alone("one")
    work.note("other", ALONE_PART * BUSY_SECONDS, heavy=True)
    assert not work.alone("one")
    machine.now += 1.5 * BUSY_SECONDS
    assert work.alone("one")
    machine.spawn("low")
    assert not work.alone("one")
    machine.drain()
    work.note("other", 0.01, heavy=True)
    assert work.alone("other")


def test_the_source_with_the_least_time_is_next_however_many_greenlets_it_has(machine: Machine) -> None:
    for _ in range(5):
        machine.spawn("many", 1.0)
    machine.spawn("few", 1.0)
    machine.spawn("cheap", 0.25, turns=4)
    machine.drain()
    assert machine.turns[:3] == ["many", "few", "cheap"]
    assert machine.turns[3:6] == ["cheap"] * 3
    assert machine.turns[6:] == ["many"] * 4


def test_a_new_source_does_not_make_up_for_the_time_before_it_came(machine: Machine) -> None:
    for _ in range(10):
        machine.spawn("old", 1.0)
    for _ in range(6):
        machine.fire()
    machine.spawn("new", 1.0, turns=3)
    machine.drain()
    # At once, and then by turns.
    assert machine.turns[6:] == ["new", "old", "new", "old", "new", "old", "old"]


def test_an_exception_in_a_block_lets_the_next_one_go_on(machine: Machine) -> None:
    def work() -> None:
        with machine.work.turn("one"):
            raise ValueError

    failing = gevent.spawn(work)
    gevent.sleep(0)
    machine.spawn("other")
    machine.drain()
    assert isinstance(failing.exception, ValueError)
    assert machine.turns == ["other"]


def test_a_killed_greenlet_leaves_the_queue_and_a_timeout_does_so_too(machine: Machine) -> None:
    def work() -> None:
        with gevent.Timeout(0), machine.work.turn("late"):
            raise AssertionError

    killed = machine.spawn("killed")
    other = machine.spawn("other")
    killed.kill()
    assert machine.work.waiting() == 1
    machine.fire()
    assert other.successful()
    late = gevent.spawn(work)
    late.join(PATIENCE)
    assert isinstance(late.exception, gevent.Timeout)
    assert machine.work.waiting() == 0
    assert machine.running() == []
    assert machine.turns == ["other"]


@pytest.mark.parametrize("end", ["itself", "killed"])
def test_one_block_runs_at_a_time_though_it_waits(machine: Machine, end: str) -> None:
    go_on = gevent.event.Event()

    def work() -> None:
        with machine.work.turn("slow"):
            go_on.wait()

    slow = gevent.spawn(work)
    gevent.sleep(0)
    machine.fire()
    machine.spawn("other")
    waits = machine.spawn("gone")
    waits.kill()
    assert machine.running() == [pytest.approx(BLOCK_MAX)]
    if end == "itself":
        go_on.set()
        slow.join(PATIENCE)
    else:
        slow.kill()
    machine.drain()
    assert machine.turns == ["other"]


def test_a_block_that_waits_too_long_is_passed_over(machine: Machine) -> None:
    go_on = gevent.event.Event()

    def work() -> None:
        with machine.work.turn("slow"):
            go_on.wait()

    machine.spawn("other")
    slow = gevent.spawn(work)
    gevent.sleep(0)
    machine.spawn("another", turns=2)
    machine.fire()
    machine.fire()
    assert machine.turns == ["other"]
    assert machine.running() == [pytest.approx(BLOCK_MAX)]
    machine.fire(timer=True)
    machine.fire()
    go_on.set()
    slow.join(PATIENCE)
    assert slow.successful()
    machine.drain()
    assert machine.turns == ["other", "another", "another"]
    assert machine.work.waiting() == 0


def test_a_block_in_a_block_belongs_to_it(machine: Machine) -> None:
    @contextmanager
    def nested() -> Iterator[None]:
        with machine.work.turn("one"), machine.work.turn("two"):
            yield

    def work() -> None:
        with nested():
            machine.turns.append("both")

    gevent.spawn(work)
    gevent.sleep(0)
    machine.fire()
    assert machine.turns == ["both"]
    assert machine.running() == []


def test_as_many_sources_are_remembered_as_allowed(machine: Machine) -> None:
    machine.spawn("steady", 0.001, turns=SOURCES_MAX + 20)
    for number in range(SOURCES_MAX + 10):
        machine.spawn(str(number), 1.0)
        machine.fire()
        machine.fire()
        assert len(machine.work._used) <= SOURCES_MAX + 1
    machine.drain()
    assert machine.work._used == {}


def test_the_real_loop_gives_turns() -> None:
    work = LowPriority()
    turns: list[Any] = []

    def take(source: str) -> None:
        for _ in range(3):
            with work.turn(source):
                turns.append(source)

    with gevent.Timeout(PATIENCE):
        gevent.joinall([gevent.spawn(take, source) for source in "ab"], raise_error=True)
    assert sorted(turns) == ["a"] * 3 + ["b"] * 3
