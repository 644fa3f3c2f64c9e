"""Which interfaces belong in each bridge."""

from __future__ import annotations

from etherws.kernel.belonging import Belonging
from etherws.kernel.membership import Membership, State


def test_an_interface_belongs_in_one_bridge_at_a_time() -> None:
    belonging = Belonging()
    one, other = Membership("br0", 5, state=State.IN), Membership("br0", 5, state=State.IN)
    assert belonging.note(1, one) == []
    assert belonging.note(2, other) == []
    assert (belonging.of_bridge, belonging.away) == ({5: {1, 2}}, set())
    one.bridge = 6
    assert belonging.note(1, one) == []
    other.bridge = 6
    assert belonging.note(2, other) == [5]
    assert belonging.of_bridge == {6: {1, 2}}


def test_who_waits_for_its_bridge_is_known_until_it_is_gone() -> None:
    belonging = Belonging()
    away = Membership("br0", 5, state=State.AWAY)
    belonging.note(1, away)
    belonging.note(2, Membership(None))
    assert (belonging.of_bridge, belonging.away) == ({5: {1}}, {1})
    assert belonging.note(1, None) == [5]
    assert (belonging.of_bridge, belonging.away) == ({}, set())
