"""Who is hung up on when too many wait, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.server.waiting_list import GRACE, Place, WaitingList


class Door:
    """A waiting list, its clock, and who was hung up on."""

    def __init__(self, limit: int = 4) -> None:
        self.now = 100.0
        self.waiting = WaitingList(limit, lambda: self.now)
        self.gone: list[str] = []

    def come(self, name: str, *, silent: bool = True) -> Place:
        """A connection, of the source before the dash in its name."""
        place = self.waiting.enter(name.partition("-")[0], lambda: self.gone.append(name))
        if silent:
            place.listen()
        return place

    def room(self, count: int = 1) -> Any:
        return self.waiting.make_room(count)


@pytest.fixture
def door() -> Door:
    return Door()


def test_nobody_is_hung_up_on_while_there_is_room(door: Door) -> None:
    for name in ("a-1", "a-2", "a-3"):
        door.come(name)
    door.now += 100
    assert door.room() == (1, 0.0)
    assert door.gone == []


def test_the_longest_silent_one_of_the_source_with_the_most_goes(door: Door) -> None:
    for name in ("b-1", "a-1", "a-2", "b-2", "a-3"):
        door.come(name)
        door.now += 1
    door.now += GRACE
    door.waiting.limit = 5
    assert door.room() == (1, 0.0)
    assert door.gone == ["a-1"]
    door.come("c-1")
    # Both have two: the longest silent one of both.
    assert door.room() == (1, 0.0)
    assert door.gone == ["a-1", "b-1"]


def test_a_single_connection_stays_whatever_the_number_of_a_strangers(door: Door) -> None:
    door.come("honest-1")
    for number in range(3):
        door.come(f"stranger-{number}")
    for number in range(3, 20):
        door.now += GRACE
        assert door.room() == (1, 0.0)
        door.come(f"stranger-{number}")
    assert door.gone == [f"stranger-{number}" for number in range(17)]


def test_who_waits_for_us_is_never_hung_up_on(door: Door) -> None:
    for number in range(4):
        door.come(f"a-{number}", silent=False)
    door.now += 100
    assert door.room() == (0, GRACE)
    door.come("b-1")
    door.now += GRACE
    door.waiting.limit = 5
    assert door.room() == (1, 0.0)
    assert door.gone == ["b-1"]


def test_nobody_is_hung_up_on_before_the_grace_is_over(door: Door) -> None:
    for number in range(4):
        door.come(f"a-{number}")
        door.now += GRACE / 8
    assert door.room() == (0, pytest.approx(GRACE / 2))
    door.now += GRACE / 2
    assert door.room(2) == (1, pytest.approx(GRACE / 8))
    assert door.gone == ["a-0"]


def test_a_byte_now_and_then_does_not_make_a_silent_connection_young(door: Door) -> None:
    slow = door.come("a-slow")
    door.now += GRACE
    for number in range(3):
        door.come(f"a-{number}")
    slow.heard()
    door.now += 50
    assert slow.silent_for == GRACE
    slow.listen()
    door.now += GRACE
    assert slow.silent_for == 2 * GRACE
    assert door.room() == (1, 0.0)
    # The others were silent for longer, since it waited for us for a while.
    assert door.gone == ["a-0"]


def test_a_new_step_begins_at_zero(door: Door) -> None:
    place = door.come("a-1")
    door.now += 5
    place.heard()
    place.begin_step()
    assert place.silent_for == 0
    place.listen()
    door.now += 1
    assert place.silent_for == 1


def test_a_place_that_becomes_free_is_told_once(door: Door) -> None:
    told: list[int] = []
    door.waiting.on_room = lambda: told.append(1)
    place = door.come("a-1")
    assert door.waiting.count == 1
    place.leave()
    place.leave()
    assert (door.waiting.count, told) == (0, [1])


def test_room_for_several_is_made_at_once(door: Door) -> None:
    for number in range(4):
        door.come(f"a-{number}")
    door.now += GRACE
    assert door.room(3) == (3, 0.0)
    assert door.gone == ["a-0", "a-1", "a-2"]
    # Without a list that is full: when descriptors are short.
    assert door.waiting.hang_up_on(2) == (1, GRACE)
    assert door.waiting.count == 0
