"""The alarms of many sessions, on a clock and an event loop of the test's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from etherws.tunnel.timers import GRAIN, ROUGH, STALE_MAX, Alarm, Timers


class Loop:
    """Time, and the timers that wait for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        #: What a call takes.
        self.cost = 0.0
        self.running: list[Timer] = []
        #: How often the process has woken.
        self.wakes = 0

    def timer(self, seconds: float) -> Timer:
        """As the loop of gevent."""
        return Timer(self, self.now + seconds)

    def until(self, when: float) -> None:
        """Let time pass."""
        while due := [timer for timer in self.running if timer.at <= when]:
            timer = min(due, key=lambda each: each.at)
            self.now = max(self.now, timer.at)
            self.running.remove(timer)
            self.wakes += 1
            assert timer.call
            timer.call()
        self.now = max(self.now, when)


class Timer:
    """As that of gevent."""

    def __init__(self, loop: Loop, at: float) -> None:
        self.loop, self.at = loop, at
        self.call: Callable[[], object] | None = None

    def start(self, call: Callable[[], object]) -> None:
        """Have it called."""
        self.call = call
        self.loop.running.append(self)

    def close(self) -> None:
        """For good."""
        if self in self.loop.running:
            self.loop.running.remove(self)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def timers(loop: Loop) -> Timers:
    return Timers(lambda: loop.now, lambda: loop)


def noted(loop: Loop, timers: Timers, calls: list[Any], name: str) -> Alarm:
    """An alarm that notes its name and the time."""
    return Alarm(lambda: calls.append((name, loop.now)), timers)


def test_each_call_is_made_once_when_it_is_due(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()
    noted(loop, timers, calls, "late").set(3.0)
    noted(loop, timers, calls, "soon").set(1.0)
    noted(loop, timers, calls, "now").set(-1.0)
    assert calls == []
    loop.until(1010.0)
    assert calls == [("now", 1000.0), ("soon", 1001.0), ("late", 1003.0)]
    assert loop.wakes == 3
    assert loop.running == []


def test_only_the_time_that_was_set_last_counts(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()
    alarm = noted(loop, timers, calls, "it")
    alarm.set(1.0)
    alarm.set(2.0)
    loop.until(1001.5)
    assert calls == []
    alarm.set(0.1)
    loop.until(1010.0)
    assert calls == [("it", 1001.6)]


def test_a_cancelled_alarm_is_silent_and_holds_nothing(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()
    alarm = noted(loop, timers, calls, "it")
    alarm.set(1.0)
    alarm.cancel()
    alarm.set(1.0)
    loop.until(1010.0)
    assert calls == []
    assert alarm.call is None
    assert alarm.when == math.inf


def test_a_call_may_set_alarms_again(loop: Loop, timers: Timers) -> None:
    calls = list[float]()

    def again() -> None:
        calls.append(loop.now)
        if len(calls) < 3:
            alarm.set(1.0)

    alarm = Alarm(again, timers)
    alarm.set(1.0)
    loop.until(1010.0)
    assert calls == [1001.0, 1002.0, 1003.0]


def test_a_thousand_pings_are_due_at_few_moments(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()
    for number in range(1000):
        loop.until(1000.0 + number * 0.004)
        noted(loop, timers, calls, str(number)).set(20.0)
    loop.wakes = 0
    loop.until(1100.0)
    assert len(calls) == 1000
    # They came within four seconds.
    assert loop.wakes <= 4 / GRAIN + 1
    for name, when in calls:
        due = 1020.0 + int(name) * 0.004
        assert due <= when + 1e-6 <= due + GRAIN + 1e-3


def test_short_waits_are_exact(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()
    noted(loop, timers, calls, "short").set(ROUGH - 0.01)
    loop.until(1100.0)
    assert calls == [("short", 1000.0 + ROUGH - 0.01)]


def test_calls_are_made_in_turns(loop: Loop, timers: Timers) -> None:
    """Others have theirs between two polls of the event loop."""
    made = list[float]()

    def work() -> None:
        made.append(loop.now)
        loop.now += 0.0002

    alarms = [Alarm(work, timers) for _ in range(100)]
    for alarm in alarms:
        alarm.set(1.0)
    loop.until(1002.0)
    assert len(made) == 100
    # Three fit into one turn.
    assert 30 <= loop.wakes <= 40


def test_others_go_on_if_a_call_fails(loop: Loop, timers: Timers) -> None:
    calls = list[Any]()

    def fail() -> None:
        raise ZeroDivisionError

    failing = Alarm(fail, timers)
    failing.set(1.0)
    noted(loop, timers, calls, "other").set(1.0)
    with pytest.raises(ZeroDivisionError):
        loop.until(1002.0)
    loop.until(1003.0)
    assert [name for name, _ in calls] == ["other"]


def test_times_that_count_no_more_take_no_memory(loop: Loop, timers: Timers) -> None:
    """As when clients come and go."""
    calls = list[Any]()
    kept = noted(loop, timers, calls, "kept")
    kept.set(20.0)
    for _ in range(20 * STALE_MAX):
        gone = noted(loop, timers, calls, "gone")
        gone.set(20.0)
        gone.cancel()
    assert len(timers._heap) <= STALE_MAX + 3
    loop.until(1100.0)
    assert [name for name, _ in calls] == ["kept"]


def test_by_default_an_alarm_is_one_of_the_process() -> None:
    from etherws.tunnel.timers import timers as process

    assert Alarm(lambda: None)._timers is process
