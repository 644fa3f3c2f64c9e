"""Walks that keep nobody waiting."""

from __future__ import annotations

from collections.abc import Iterator

from etherws.observe.turns import TURN_SECONDS, in_turns, pause


class Clock:
    """A clock that somebody else moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def walk(self) -> Iterator[int]:
        """Ten numbers, each of which takes a quarter of a turn."""
        for number in range(10):
            self.now += TURN_SECONDS / 4
            yield number


def test_a_walk_waits_once_its_turn_is_over() -> None:
    clock, waits, seen = Clock(), list[int](), list[int]()
    for number in in_turns(clock.walk(), clock=lambda: clock.now, wait=lambda: waits.append(len(seen))):
        seen.append(number)
        # What the caller does counts, too.
        clock.now += TURN_SECONDS / 4
    assert seen == list(range(10))
    assert waits == [2, 4, 6, 8, 10]


def test_a_pause_ends() -> None:
    pause()
