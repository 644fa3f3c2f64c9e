"""The log's limit: what passes, what is counted, and when the count is said. On a clock of the tests' own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial

import gevent
import pytest

from etherws import log_limit
from etherws.log_limit import BURST, INTERVAL, KINDS_MAX, LogLimit

log = logging.getLogger("etherws.test")


class Clock:
    """A clock that only the test moves, with timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append((self.now + seconds, call))

    def advance(self, seconds: float) -> None:
        """Let the time pass; the timers that are due are called."""
        self.now += seconds
        due = [call for time, call in self._timers if time <= self.now]
        self._timers = [(time, call) for time, call in self._timers if time > self.now]
        for call in due:
            call()

    @property
    def timers(self) -> int:
        return len(self._timers)


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    """A clock; the records of every level above DEBUG are kept."""
    caplog.set_level(logging.INFO)
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> LogLimit:
    """A limit by that clock."""
    return LogLimit(log, clock=clock, later=clock.later)


def flood(limit: LogLimit, count: int, kind: str = "origin") -> None:
    for number in range(count):
        limit.log(logging.WARNING, kind, "foreign origin %d", number)


def test_the_first_few_pass_and_the_others_are_counted(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flood(limit, 2000)
    assert caplog.messages == [f"foreign origin {number}" for number in range(BURST)]
    assert clock.timers == 1
    clock.advance(INTERVAL / 2)
    assert len(caplog.messages) == BURST
    clock.advance(INTERVAL / 2)
    assert caplog.messages[BURST:] == [f"foreign origin 1999 (the last of {2000 - BURST} like it that were left out)"]
    assert caplog.records[-1].levelno == logging.WARNING
    assert clock.timers == 0


def test_the_count_comes_with_the_next_record_that_passes(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flood(limit, BURST)
    clock.advance(INTERVAL / 2)
    flood(limit, 3)
    clock.advance(INTERVAL / 2)
    limit.log(logging.ERROR, "origin", "100 % strange")
    assert caplog.messages[BURST:] == ["100 % strange (3 more like it were left out)"]
    assert caplog.records[-1].levelno == logging.ERROR
    # Said already.
    clock.advance(INTERVAL)
    assert len(caplog.messages) == BURST + 1


def test_a_flood_without_end_has_two_lines_in_each_interval(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        flood(limit, 10)
        clock.advance(INTERVAL / 10)
    assert len(caplog.messages) <= BURST + 2 * 100


def test_every_record_is_said_or_counted(limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for size in range(1, 60):
        flood(limit, size)
        clock.advance(INTERVAL * (size % 5) / 3)
    clock.advance(INTERVAL)
    passed = sum("the last of" not in text for text in caplog.messages)
    counted = sum(int(found) for text in caplog.messages for found in re.findall(r"(\d+) (?:more )?like it", text))
    assert passed + counted == sum(range(1, 60))


def test_after_a_pause_the_first_few_pass_again(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flood(limit, BURST)
    clock.advance(BURST * INTERVAL)
    caplog.clear()
    flood(limit, BURST)
    assert len(caplog.messages) == BURST


def test_each_kind_counts_alone(limit: LogLimit, caplog: pytest.LogCaptureFixture) -> None:
    flood(limit, 100, "one")
    caplog.clear()
    limit.log(logging.INFO, "other", "100 % strange")
    assert caplog.messages == ["100 % strange"]


def test_what_the_log_does_not_want_is_not_counted(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        limit.log(logging.DEBUG, "origin", "foreign origin")
    assert clock.timers == 0
    flood(limit, BURST)
    assert len(caplog.messages) == BURST


def test_an_unexpected_error_has_its_place_for_its_kind(limit: LogLimit, caplog: pytest.LogCaptureFixture) -> None:
    def fail(number: int) -> None:
        if number % 2:
            raise KeyError(number)
        raise LookupError(number)

    for number in range(100):
        try:
            fail(number)
        except LookupError as exc:
            limit.unexpected(exc)
    limit.unexpected(OSError("never raised"))
    assert len(caplog.messages) == 2 * BURST + 1
    assert caplog.messages[0].startswith("unexpected error; please report it\nTraceback (most recent call last)")
    assert caplog.messages[1].endswith("KeyError: 1")
    assert caplog.messages[-1] == "unexpected error; please report it\nOSError: never raised"


def test_kinds_without_end_share_one_count(limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10_000):
        flood(limit, 1, f"kind {number}")
    assert len(caplog.messages) == KINDS_MAX + BURST
    clock.advance(INTERVAL)
    assert caplog.messages[-1].endswith(f"(the last of {10_000 - KINDS_MAX - BURST} like it that were left out)")
    # The kinds that have been quiet are forgotten.
    clock.advance(BURST * INTERVAL)
    caplog.clear()
    flood(limit, BURST, "a new kind")
    flood(limit, 1, "and another")
    assert len(caplog.messages) == BURST + 1


def test_a_kind_that_has_something_to_say_is_not_forgotten(
    limit: LogLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flood(limit, BURST + 7, "first")
    clock.now += 1000 * INTERVAL
    for number in range(KINDS_MAX):
        flood(limit, 1, f"kind {number}")
    caplog.clear()
    clock.advance(0)
    assert caplog.messages == ["foreign origin 11 (the last of 7 like it that were left out)"]


def test_gevent_says_the_count_by_itself(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limit, "INTERVAL", 0.01)
    limit = LogLimit(log, clock=lambda: 0.0)
    flood(limit, BURST + 2)
    with gevent.Timeout(10):
        while len(caplog.messages) == BURST:
            gevent.sleep(0.001)
    assert caplog.messages[-1] == "foreign origin 6 (the last of 2 like it that were left out)"


def test_errors_that_end_a_greenlet_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gevent.get_hub(), "print_exception", None)
    # The count would come in the middle of another test.
    monkeypatch.setattr(log_limit, "LogLimit", partial(LogLimit, later=lambda *_: None))
    log_limit.log_unexpected_errors()

    def fails() -> None:
        raise LookupError("of a greenlet")

    for _ in range(20):
        gevent.spawn(fails).join()
    assert len(caplog.messages) == 5
    assert caplog.messages[0].startswith("unexpected error; please report it\nTraceback")
    assert caplog.messages[0].endswith("LookupError: of a greenlet")
