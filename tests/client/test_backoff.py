"""How long the client waits: doubled each time up to the limit, with jitter."""

from __future__ import annotations

import pytest

from etherws.client.backoff import JITTER_MIN, LOST_ATTEMPTS, LOST_WAIT, RESTART_WAIT, Backoff
from etherws.close_codes import CloseCode
from etherws.settings import Retry

RETRY = Retry(first_wait=1.0, longest_wait=5.0)


def test_the_wait_doubles_up_to_the_longest() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_after_a_reset_the_wait_is_the_shortest_again() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    assert [backoff.next(), backoff.next()] == [1.0, 2.0]
    backoff.reset()
    assert [backoff.next(), backoff.next()] == [1.0, 2.0]


def test_extra_seconds_are_added_without_jitter_and_only_once() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 0.5)
    assert [backoff.next(30.0), backoff.next()] == [30.5, 1.0]


def test_the_jitter_is_between_half_the_wait_and_the_whole() -> None:
    waits = [Backoff(RETRY).next() for _ in range(1000)]
    assert all(JITTER_MIN <= wait <= 1.0 for wait in waits)
    assert min(waits) < 0.6
    assert max(waits) > 0.9


def test_after_a_restart_of_the_server_the_first_wait_is_short() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    backoff.next()
    backoff.session_ended(CloseCode.SERVICE_RESTART, 3.0)
    assert [backoff.next(), backoff.next(), backoff.next()] == [RESTART_WAIT, 1.0, 2.0]


def test_a_server_that_restarts_without_end_is_not_hammered() -> None:
    backoff, waits = Backoff(RETRY, jitter=lambda: 1.0), []
    for _ in range(5):
        backoff.session_ended(CloseCode.SERVICE_RESTART, 1.0)
        waits.append(backoff.next())
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_after_a_stable_session_that_ended_without_a_close_the_first_wait_is_short() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    backoff.next()
    backoff.session_ended(None, 11.0)
    assert [backoff.next(), backoff.next()] == [LOST_WAIT, LOST_WAIT]
    for code, lasted, wait in (
        (None, 9.0, 1.0),
        (CloseCode.GOING_AWAY, 9.0, 2.0),
        (CloseCode.POLICY_VIOLATION, 11.0, 1.0),
        (CloseCode.POLICY_VIOLATION, 9.0, 2.0),
    ):
        backoff.session_ended(code, lasted)
        assert backoff.next() == wait


def test_a_short_wait_is_never_longer_than_the_usual_one() -> None:
    backoff = Backoff(Retry(first_wait=0.01, longest_wait=5.0), jitter=lambda: 1.0)
    backoff.session_ended(CloseCode.SERVICE_RESTART, 3.0)
    assert backoff.next(2.0) == 2.01


@pytest.mark.parametrize(
    ("code", "first"), [(None, []), (CloseCode.GOING_AWAY, []), (CloseCode.SERVICE_RESTART, [RESTART_WAIT])]
)
def test_a_server_that_is_started_again_is_found_soon_after_that(code: int | None, first: list[float]) -> None:
    # It takes a second until it listens. Waits that double would go on for another second or two.
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    backoff.session_ended(code, 11.0)
    waits = [backoff.next() for _ in range(len(first) + LOST_ATTEMPTS + 2)]
    assert waits == [*first, *[LOST_WAIT] * LOST_ATTEMPTS, 1.0, 2.0]


def test_short_waits_that_were_not_needed_do_not_count_for_the_next_session() -> None:
    backoff = Backoff(RETRY, jitter=lambda: 1.0)
    backoff.session_ended(None, 11.0)
    backoff.next()
    backoff.session_ended(None, 1.0)
    assert [backoff.next(), backoff.next()] == [1.0, 2.0]
