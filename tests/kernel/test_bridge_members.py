"""Which interfaces belong in each bridge."""

from __future__ import annotations

from etherws.kernel.bridge_members import BridgeMembers
from etherws.kernel.membership import Membership, State


def test_an_interface_belongs_in_one_bridge_at_a_time() -> None:
    members = BridgeMembers()
    one, other = Membership("br0", 5, state=State.IN), Membership("br0", 5, state=State.IN)
    assert members.note(1, one) == []
    assert members.note(2, other) == []
    assert (members.of_bridge, members.away) == ({5: {1, 2}}, set())
    one.bridge = 6
    assert members.note(1, one) == []
    other.bridge = 6
    assert members.note(2, other) == [5]
    assert members.of_bridge == {6: {1, 2}}


def test_who_waits_for_its_bridge_is_known_until_it_is_gone() -> None:
    members = BridgeMembers()
    away = Membership("br0", 5, state=State.AWAY)
    members.note(1, away)
    members.note(2, Membership(None))
    assert (members.of_bridge, members.away) == ({5: {1}}, {1})
    assert members.note(1, None) == [5]
    assert (members.of_bridge, members.away) == ({}, set())
