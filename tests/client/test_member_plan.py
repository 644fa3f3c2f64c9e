"""When members of a link are connected, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from etherws import features
from etherws.client.member_plan import (
    REFUSED_WAIT,
    REFUSED_WAIT_MAX,
    REPLACE_FROM,
    REPLACE_UNTIL,
    MemberPlan,
    founding,
    why_fewer,
)
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, NoSuchLink, NotAdmitted
from etherws.settings import CONNECTIONS_MAX, ClientSettings, Retry

RETRY = Retry(1.0, 8.0)


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Planned:
    """A plan, its clock, and what has happened."""

    def __init__(self, count: int, max_age: float = 0.0, parts: list[float] | None = None) -> None:
        """`parts` are what chance gives, from 0 to 1, one after the other."""
        self.clock, self._parts = Clock(), parts or []
        self.plan = MemberPlan(count, max_age, RETRY, clock=self.clock, chance=self._chance)

    def _chance(self, least: float, most: float) -> float:
        return least + (self._parts.pop(0) if self._parts else 0.0) * (most - least)

    def turn(self) -> int:
        """Wait for the next turn; whose it is."""
        number, seconds = self.plan.next()
        assert seconds < math.inf
        self.clock.now += seconds
        return number

    def complete(self) -> None:
        """Have all that are due now join."""
        while self.plan.next()[1] == 0:
            self.plan.joined(self.plan.next()[0])


def test_members_join_one_after_the_other_and_then_nothing_is_to_be_done() -> None:
    planned = Planned(4)
    assert planned.plan.count == 4
    for number in (1, 2, 3):
        assert planned.plan.next() == (number, 0.0)
        planned.plan.joined(number)
    assert planned.plan.next()[1] == math.inf
    # A link of one has nothing to do from the start.
    assert Planned(1).plan.next() == (0, math.inf)


def test_each_is_replaced_in_the_last_quarter_of_its_greatest_age_again_and_again() -> None:
    planned = Planned(3, 100.0, [1.0, 0.5, 0.0, *[0.0] * 9])
    began = planned.clock.now
    planned.complete()
    assert planned.clock.now == began
    at = []
    for _ in range(4):
        number = planned.turn()
        at.append((number, round(planned.clock.now - began, 6)))
        planned.plan.joined(number)
    assert at == [(2, 100 * REPLACE_FROM), (1, 85.0), (0, 100 * REPLACE_UNTIL), (2, 150.0)]
    assert REPLACE_FROM >= 0.75
    assert REPLACE_UNTIL < 1


def test_one_that_cannot_be_replaced_is_tried_again_and_is_still_there() -> None:
    planned = Planned(1, 100.0)
    planned.turn()
    planned.plan.failed(ConnectError("no answer"))
    number, seconds = planned.plan.next()
    assert number == 0
    assert 0.5 <= seconds <= 1.0


def test_a_member_that_is_lost_comes_back_by_itself() -> None:
    planned = Planned(3)
    planned.complete()
    planned.plan.lost(2, None, 60.0)
    number, seconds = planned.plan.next()
    # A connection that was stable and ends without a word is soon tried again.
    assert number == 2
    assert 0 < seconds <= 0.3
    planned.plan.joined(2)
    assert planned.plan.next()[1] == math.inf
    planned.plan.lost(1, None, 60.0, at_once=True)
    assert planned.plan.next() == (1, 0.0)


def test_one_that_ends_right_after_it_has_joined_waits_longer_each_time() -> None:
    planned = Planned(2)
    waits = []
    for _ in range(6):
        planned.plan.joined(planned.turn())
        planned.plan.lost(1, CloseCode.INTERNAL_ERROR, 0.1)
        waits.append(planned.plan.next()[1])
    for wait, longest in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest / 2 <= wait <= longest


def test_one_that_the_server_has_ended_by_its_rules_does_not_come_back_at_once() -> None:
    planned = Planned(2)
    planned.complete()
    planned.plan.lost(1, CloseCode.POLICY_VIOLATION, 60.0)
    assert planned.plan.next()[1] >= REFUSED_WAIT


def test_while_attempts_fail_there_is_one_for_all_members() -> None:
    planned = Planned(16)
    attempts, began = 0, planned.clock.now
    while planned.clock.now - began < 80:
        planned.turn()
        planned.plan.failed(ConnectError("Connection refused"))
        attempts += 1
    # Waits of 1, 2, 4 and then 8 s at most, of which a half at least.
    assert 10 <= attempts <= 26
    # The first that comes through opens the way to the others.
    planned.plan.joined(planned.turn())
    began = planned.clock.now
    planned.complete()
    assert planned.clock.now == began
    assert planned.plan.next()[1] == math.inf


@pytest.mark.parametrize(
    "error", [NoSuchLink("409"), NotAdmitted("401"), ConnectError("503")], ids=["no such link", "not admitted", "busy"]
)
def test_a_refusal_is_followed_by_long_waits_that_grow(error: ConnectError) -> None:
    if type(error) is ConnectError:
        error.wait = 5.0
    planned = Planned(4)
    waits = []
    for _ in range(8):
        planned.turn()
        planned.plan.failed(error)
        waits.append(planned.plan.next()[1])
    assert min(waits) >= REFUSED_WAIT
    assert REFUSED_WAIT + REFUSED_WAIT_MAX / 2 <= waits[-1] <= REFUSED_WAIT + REFUSED_WAIT_MAX
    # The server can ask for more.
    error.wait = 300.0
    planned.turn()
    planned.plan.failed(error)
    assert planned.plan.next()[1] >= 300


def test_a_change_of_the_network_ends_the_wait_but_not_after_a_refusal() -> None:
    planned = Planned(3)
    planned.plan.joined(1)
    planned.plan.failed(ConnectError("no answer"))
    assert planned.plan.next()[1] > 0
    planned.plan.hurry(by_user=False)
    assert planned.plan.next() == (2, 0.0)
    planned.plan.failed(NoSuchLink("409"))
    planned.plan.hurry(by_user=False)
    assert planned.plan.next()[1] >= REFUSED_WAIT
    planned.plan.hurry(by_user=True)
    assert planned.plan.next() == (2, 0.0)
    # What is there is left alone.
    planned.plan.joined(2)
    planned.plan.hurry(by_user=True)
    assert planned.plan.next()[1] == math.inf


def test_what_the_first_connection_offers() -> None:
    assert founding(ClientSettings(), True) is None
    assert founding(ClientSettings(connections=4), False) is None
    first, second = (founding(ClientSettings(connections=4), True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[:2] == (0, 4)
    assert first.new
    assert first.id != second.id
    offered = {features.VERSION_2: "", features.LINK: features.link_value(first)}
    assert features.link_of(offered) == first
    # One queue is enough to replace the one connection.
    aged = founding(ClientSettings(connections=4, max_age=60.0), False)
    assert aged is not None
    assert aged.of == 1


@pytest.mark.parametrize(
    ("settings", "several", "given", "words"),
    [
        (ClientSettings(), True, 0, ""),
        (ClientSettings(connections=4), True, 4, ""),
        (ClientSettings(max_age=60.0), False, 1, ""),
        (
            ClientSettings(connections=4),
            False,
            0,
            "lan0 can have one queue only, so the link has one connection and not 4; delete it, and make it anew by:"
            " ip tuntap add dev lan0 mode tap multi_queue user root",
        ),
        (ClientSettings(connections=4), True, 3, "ws://a: the server gives the link 3 of 4 connections"),
        (
            ClientSettings(connections=4),
            True,
            1,
            "ws://a: the server gives the link 1 of 4 connections; its interface may be a persistent one that was made"
            " without multi_queue",
        ),
        (
            ClientSettings(connections=4, wire=1),
            True,
            0,
            "ws://a: the link has one connection and not 4: version 1 of the wire, which --wire 1 asks for, has no"
            " links",
        ),
        (
            ClientSettings(max_age=60.0),
            False,
            0,
            "ws://a: --max-age is not used: the server is older, or speaks version 1 of the wire (--wire 1), or a proxy"
            " on the way removes the header Etherws-Features",
        ),
    ],
)
def test_why_a_link_is_not_as_it_was_asked_for(settings: ClientSettings, several: bool, given: int, words: str) -> None:
    assert why_fewer(settings, "lan0", several, "ws://a", given) == words


def test_the_settings_and_the_wire_have_the_same_bound() -> None:
    assert CONNECTIONS_MAX == features.LINK_MEMBERS_MAX
