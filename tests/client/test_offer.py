"""What a client offers a server, and when it offers less."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.client.offer import OFFER_AGAIN, Offer
from etherws.client.upgrade import Agreement
from etherws.features import Membership
from etherws.settings import ClientSettings
from etherws.tunnel.padding import CLIENT
from etherws.tunnel.wire import Version1, Version2

ALL = {"v2": "", "mtu": "=1500", "padding": ""}
PADDED = Agreement(Version2(padding=True), features={"v2": "", "padding": ""})


class Clock:
    """Seconds that the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def offer(clock: Clock | None = None, also: dict[str, str] | None = None, uso: bool = False, **settings: Any) -> Offer:
    """That of a client with these settings, whose kernel takes UDP super-frames with `uso`."""
    return Offer(ClientSettings(**settings), also or {}, clock or Clock(), takes_uso=lambda: uso)


def test_all_is_offered_in_one_order() -> None:
    founder = Membership(0, 4, "a" * 22, new=True)
    found = offer().features(1500, founder)
    assert found == {**ALL, "link": f"=0;of=4;id={'a' * 22};new"}
    assert list(found) == ["v2", "mtu", "padding", "link"]
    assert offer().features(None) == {"v2": "", "padding": ""}


@pytest.mark.parametrize(
    ("settings", "also", "offered"),
    [
        ({"padding": False}, {}, {"v2": "", "mtu": "=1500"}),
        ({}, {"check": ""}, {"v2": "", "mtu": "=1500", "check": ""}),
        ({"wire": 1}, {"check": "=idle"}, {"check": "=idle"}),
        ({"wire": 1}, {}, None),
    ],
)
def test_padding_is_not_offered_where_it_is_off_or_of_no_use(
    settings: dict[str, Any], also: dict[str, str], offered: dict[str, str] | None
) -> None:
    assert offer(also=also, **settings).features(1500) == offered


def test_after_a_doubt_nothing_is_offered_for_a_minute() -> None:
    clock = Clock()
    asked = offer(clock)
    asked.agreed(Agreement(Version1(), doubt="a doubt"))
    clock.now += OFFER_AGAIN - 1
    assert asked.features(1500) is None
    clock.now += 1
    assert asked.features(1500) == ALL


def test_padding_that_was_agreed_on_is_not_offered_again_at_once() -> None:
    clock = Clock()
    asked = offer(clock)
    member = Membership(1, 4, "a" * 22)
    # It was offered, and not taken: nothing was sent.
    asked.agreed(Agreement(Version2(), features={"v2": ""}))
    assert asked.features(1500) == ALL
    asked.agreed(PADDED)
    assert "padding" not in (asked.features(1500) or {})
    assert "padding" in (asked.features(1500, member) or {})
    asked.agreed(PADDED, member)
    assert "padding" not in (asked.features(1500, member) or {})
    clock.now += CLIENT.seconds
    assert asked.features(1500) == ALL


def test_who_follows_a_process_that_was_connected_offers_no_padding_for_a_while() -> None:
    clock = Clock()
    asked = offer(clock)
    asked.continues()
    for membership in (None, Membership(0, 4, "a" * 22, new=True), Membership(3, 4, "a" * 22)):
        assert "padding" not in (asked.features(1500, membership) or {})
    clock.now += CLIENT.seconds
    assert asked.features(1500) == ALL


def test_udp_super_frames_are_offered_where_the_kernel_takes_them() -> None:
    found = offer(uso=True)
    assert list(found.features(1500) or {}) == ["v2", "mtu", "uso", "padding"]
    # Without an interface, for a check, and with version 1.
    assert found.features(None) == {"v2": "", "padding": ""}
    assert offer(uso=True, also={"check": ""}).features(1500) == {"v2": "", "mtu": "=1500", "check": ""}
    assert offer(uso=True, wire=1).features(1500) is None


def test_a_further_member_is_offered_what_the_first_one_has_got() -> None:
    found, first, further = offer(uso=True), Membership(0, 4, "a" * 22, new=True), Membership(2, 4, "a" * 22)
    given = Membership(2, 4)
    for uso in (True, False):
        agreed, other = (Agreement(Version2(uso=each)) for each in (uso, not uso))
        assert "uso" in (found.features(1500, first) or {})
        found.agreed(agreed, first)
        assert ("uso" in (found.features(1500, further) or {})) is uso
        assert found.joins(agreed, further, given)
        assert not found.joins(other, further, given)
        assert not found.joins(agreed, further, Membership(1, 4))
        # What a further one gets changes nothing for those after it.
        found.agreed(other, further)
        assert found.joins(agreed, further, given)
