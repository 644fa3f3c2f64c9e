"""Which failures get a line: the first reason, and each new one, however often and in whatever words they come."""

from __future__ import annotations

import pytest

from etherws.client.failures import FORGOTTEN, REASONS_MAX, Failures, lasting
from etherws.errors import ConnectError


class Clock:
    """Seconds that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def test_a_reason_gets_one_line_and_a_new_one_counts_the_last() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert failures.line("A", ConnectError("refused")) == "cannot connect to A: refused"
    for _ in range(6):
        clock.now += 10
        assert failures.line("A", ConnectError("refused")) == ""
    clock.now += 10
    expected = "cannot connect to A: no answer (what was said before: 7 times in 1 min 10 s)"
    assert failures.line("A", ConnectError("no answer")) == expected
    # Two addresses that fail in turn are two reasons, and no line each time.
    assert failures.line("A", ConnectError("refused")) == ""
    assert failures.line("A", ConnectError("no answer")) == ""
    # Another server has its own.
    assert failures.line("B", ConnectError("refused")) == "cannot connect to B: refused"
    failures.begin()
    assert failures.line("A", ConnectError("refused")) == "cannot connect to A: refused"


def test_numbers_and_the_servers_words_make_no_new_reason() -> None:
    failures = Failures(Clock())
    assert failures.line("A", ConnectError("by port 1: x", kind="by port 1"))
    assert not failures.line("A", ConnectError("by port 27: y", kind="by port 27"))


def test_a_reason_that_comes_again_after_long_is_said_again() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert failures.line("A", ConnectError("refused"))
    assert failures.line("A", ConnectError("no answer")).endswith("(what was said before: 1 time in 0 s)")
    clock.now += FORGOTTEN
    assert not failures.line("A", ConnectError("refused"))
    clock.now += FORGOTTEN + 1
    assert failures.line("A", ConnectError("refused")) == (
        "cannot connect to A: refused (what was said before: 2 times in 10 min 1 s)"
    )


def test_a_bounded_number_of_reasons_is_remembered() -> None:
    failures = Failures(Clock())
    for number in range(10 * REASONS_MAX):
        failures.line("A", ConnectError("x" * number))
    assert len(failures._servers["A"]._seen) == REASONS_MAX


def test_the_end_says_how_many_attempts_it_took() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert failures.connected() == ""
    for _ in range(11):
        failures.failed()
    clock.now += 200
    assert failures.connected() == " after 12 attempts, 3 min 20 s"
    failures.begin()
    assert failures.connected() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7512, "2 h 5 min")]
)
def test_a_time_is_said_in_two_units(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
