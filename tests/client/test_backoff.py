"""How long the client waits: doubled each time up to the limit, with jitter."""

from __future__ import annotations

from etherws.client.backoff import JITTER_MIN, Backoff
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
