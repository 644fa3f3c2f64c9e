"""A connection before it is a tunnel: its time for each step, its turns, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from etherws.errors import ClientGone
from etherws.server import visitor as visitor_module
from etherws.server.visitor import Visitor
from etherws.server.waiting_list import WaitingList
from etherws.tunnel.scheduling import low_priority
from tests.lab.hosts import PATIENCE
from tests.lab.sockets import gevent_pair
from tests.lab.turns import anothers_turn


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


class Clock:
    """A waiting list with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting = WaitingList(clock=lambda: self.now)


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    ours, its = gevent_pair()
    with ours, its:
        yield ours, its


def test_time_in_which_it_waits_for_us_does_not_count(ends: Any) -> None:
    clock = Clock()
    visitor = Visitor(ends[0], "a", clock.waiting)
    with visitor.listening():
        clock.now += visitor_module.STEP_TIMEOUT - 1
    clock.now += 1000
    with visitor.listening():
        assert visitor._place.silent_for == visitor_module.STEP_TIMEOUT - 1
    visitor.begin_step()
    with visitor.listening():
        assert visitor._place.silent_for == 0


def test_a_byte_now_and_then_gives_no_more_time(ends: Any) -> None:
    clock = Clock()
    visitor = Visitor(ends[0], "a", clock.waiting)
    for _ in range(2):
        with visitor.listening():
            clock.now += visitor_module.STEP_TIMEOUT / 2
    with pytest.raises(TimeoutError, match="not done within 10 s"), visitor.listening():
        ends[0].recv(1)


def test_a_connection_that_is_hung_up_on_ends_for_both(ends: Any) -> None:
    clock = Clock()
    visitor = Visitor(ends[0], "a", clock.waiting)
    with visitor.listening():
        clock.now += 5
        clock.waiting.limit = 1
        assert clock.waiting.make_room(1) == (1, 0.0)
        assert ends[0].recv(1) == b""
    assert ends[1].recv(1) == b""
    visitor.leave()


def test_its_work_is_a_turn_of_its_source(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(ends[0], "a")
    visitor.source = "b"
    with visitor.working():
        assert low_priority._source == "b"
        assert low_priority._holder is gevent.getcurrent()
    assert low_priority._holder is None


def test_no_work_is_done_for_a_client_that_hung_up_while_it_waited_for_its_turn(ends: Any) -> None:
    visitor = Visitor(ends[0], "a")

    def work() -> None:
        with visitor.working():
            raise AssertionError

    with anothers_turn():
        waiting = gevent.spawn(work)
        gevent.sleep(0)
        assert low_priority.waiting() == 1
        ends[1].close()
        waiting.join()
        assert low_priority.waiting() == 0
    assert isinstance(waiting.exception, ClientGone)


def test_a_client_that_hangs_up_while_work_is_done_is_left_to_what_comes_next(ends: Any) -> None:
    with Visitor(ends[0], "a").working():
        ends[1].close()
        gevent.sleep(0.001)
