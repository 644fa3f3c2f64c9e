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


def test_the_bridges_of_those_for_which_one_was_named() -> None:
    members = BridgeMembers()
    one, other = Membership("br0", 5, state=State.IN), Membership("br0", 5, state=State.IN)
    members.note(1, one)
    members.note(2, other)
    members.note(3, Membership(None, 9, state=State.IN))
    assert (members.wished("br0"), members.wished("br1")) == ([5], [])
    one.bridge, one.moved = 6, True
    members.note(1, one)
    assert members.wished("br0") == [5]
    members.note(4, Membership("br0"))
    assert members.wished("br0") == [5, 0]
    assert (members.places("br0"), members.places("br1")) == ([5, "br0"], ["br1"])
    other.bridge = 7
    members.note(2, other)
    assert sorted(members.wished("br0")) == [0, 7]
    for index in (1, 2, 3, 4, 4):
        members.note(index, None)
    assert (members.wished("br0"), members.of_bridge) == ([], {})
