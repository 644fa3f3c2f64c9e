"""Which login is checked next, and how many there may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from etherws.errors import ClientGone, Refused
from etherws.server import login_queue
from etherws.server.login_queue import (
    FAILURE_INTERVAL,
    FREE_FAILURES,
    MAX_SOURCES,
    MAX_WAITING_LOGINS,
    LoginLimiter,
    LoginQueue,
)


def test_a_limiter_counts_by_address_and_forgets() -> None:
    limiter = LoginLimiter()
    for at in range(FREE_FAILURES):
        assert limiter.wait("192.0.2.1", at / 10) == 0
        limiter.failed("192.0.2.1", at / 10)
    assert 0 < limiter.wait("192.0.2.1", 1.0) <= FAILURE_INTERVAL
    assert limiter.wait("192.0.2.2", 1.0) == 0
    assert limiter.wait("192.0.2.1", 1.0 + FAILURE_INTERVAL) == 0
    limiter.failed("192.0.2.1", 1.0 + FAILURE_INTERVAL)
    assert limiter.wait("192.0.2.1", 1.0 + FAILURE_INTERVAL) > 0
    assert limiter.wait("192.0.2.1", 1.0 + 7 * FAILURE_INTERVAL) == 0
    # Who has a /64 has as many addresses as he likes.
    for last in range(FREE_FAILURES):
        limiter.failed(f"2001:db8::{last}", 0.0)
    assert limiter.wait("2001:db8::ffff", 0.0) > 0
    assert limiter.wait("2001:db8:0:1::1", 0.0) == 0
    for number in range(MAX_SOURCES + 1):
        limiter.failed(f"peer {number}", 0.0)
    assert limiter.wait("2001:db8::ffff", 0.0) == 0


class Hall:
    """A queue, and logins in it: each is a greenlet that notes its source when it has its turn."""

    def __init__(self) -> None:
        self.queue = LoginQueue()
        self.order: list[str] = []
        self.refused: list[str] = []
        self._first = gevent.event.Event()

    def come(self, *sources: str) -> list[gevent.Greenlet[..., None]]:
        """A login from each of these sources, in this order."""
        greenlets = [gevent.spawn(self._login, source) for source in sources]
        gevent.idle()
        return greenlets

    def failed(self, source: str) -> None:
        """A wrong password from there, before."""
        with self.queue.turn(source):
            pass

    def open(self) -> list[str]:
        """The first one is done, and then all the others; their order."""
        self._first.set()
        gevent.idle()
        gevent.idle()
        return self.order

    def _login(self, source: str) -> None:
        try:
            with self.queue.turn(source):
                self._first.wait()
                self.order.append(source)
        except Refused:
            self.refused.append(source)


def test_one_login_has_the_turn_and_the_others_come_after_it() -> None:
    hall = Hall()
    hall.come("a", "b", "c")
    assert hall.queue.waiting() == 2
    # The last one to come has waited least: its client is still there.
    assert hall.open() == ["a", "c", "b"]
    assert hall.queue.waiting() == 0
    # The queue is as at the beginning.
    hall.come("d")
    assert hall.order[-1] == "d"


def test_a_source_with_few_logins_goes_before_one_with_many() -> None:
    hall = Hall()
    hall.come("first", "many", "many", "many", "few")
    assert hall.open() == ["first", "few", "many", "many", "many"]


def test_a_source_that_has_failed_goes_behind_one_that_has_not_and_a_known_one_before_both() -> None:
    hall = Hall()
    hall.failed("failed")
    hall.queue.succeeded("known")
    hall.come("first", "failed", "new", "known")
    assert hall.open() == ["first", "known", "new", "failed"]


def test_a_known_source_that_fails_again_and_again_is_as_any_other() -> None:
    hall = Hall()
    hall.queue.succeeded("known")
    for _ in range(FREE_FAILURES):
        hall.failed("known")
    hall.come("first", "known", "new")
    assert hall.open() == ["first", "new", "known"]


def test_a_source_whose_attempt_led_to_nothing_goes_behind_one_that_is_new() -> None:
    hall = Hall()
    _, gone = hall.come("first", "gone")
    gone.kill(ClientGone())
    hall.come("new", "gone")
    assert hall.open() == ["first", "new", "gone"]
    # After a success all is forgotten.
    hall = Hall()
    for _ in range(FREE_FAILURES):
        hall.failed("known")
    with hall.queue.turn("known"):
        hall.queue.succeeded("known")
    hall.come("first", "known", "new")
    assert hall.open() == ["first", "known", "new"]


def test_only_so_many_known_sources_are_remembered() -> None:
    hall = Hall()
    for number in range(MAX_SOURCES + 1):
        hall.queue.succeeded(f"peer {number}")
    hall.come("first", "peer 0", f"peer {MAX_SOURCES}")
    assert hall.open() == ["first", f"peer {MAX_SOURCES}", "peer 0"]


def test_a_full_queue_refuses_the_one_that_would_be_last() -> None:
    hall = Hall()
    hall.failed("failed")
    hall.come("first", "failed", *(f"peer {number}" for number in range(MAX_WAITING_LOGINS - 1)))
    assert hall.refused == []
    hall.come("new")
    assert hall.refused == ["failed"]
    hall.come("newer")
    assert hall.refused == ["failed", "peer 0"]
    hall.come("newer")
    # This source had two.
    assert hall.refused == ["failed", "peer 0", "newer"]
    assert hall.open()[:3] == ["first", "new", f"peer {MAX_WAITING_LOGINS - 2}"]
    assert hall.order[-2:] == ["peer 1", "newer"]


def test_a_login_that_waits_too_long_is_refused_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_queue, "LOGIN_TIMEOUT", 0)
    hall = Hall()
    hall.come("first", "late")
    gevent.idle()
    assert hall.refused == ["late"]
    assert hall.queue.waiting() == 0
    assert hall.open() == ["first"]


def test_a_client_that_hangs_up_leaves_the_queue_at_once() -> None:
    class Leaves:
        @contextmanager
        def required(self) -> Iterator[None]:
            yield
            raise AssertionError

    hall = Hall()
    (_, waits) = hall.come("first", "gone")
    assert hall.queue.waiting() == 1
    waits.kill(ClientGone())
    assert hall.queue.waiting() == 0
    assert hall.refused == ["gone"]
    assert hall.open() == ["first"]


def test_a_turn_that_comes_as_the_client_hangs_up_goes_to_the_next_one() -> None:
    hall = Hall()
    _, gone, _ = hall.come("first", "gone", "next")
    # In one turn of the event loop: "gone" has its turn, and does not know it yet.
    hall._first.set()
    gone.kill(ClientGone(), block=False)
    gevent.idle()
    gevent.idle()
    assert hall.order[-1] == "next"
    assert hall.queue.waiting() == 0
