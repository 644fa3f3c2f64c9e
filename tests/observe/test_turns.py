"""Walks that keep nobody waiting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etherws.observe.turns import PAUSE_MIN, TURN_SECONDS, Pauses, in_turns


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
    assert waits == [0, 2, 4, 6, 8, 10]


def test_two_walks_have_their_turns_one_after_the_other() -> None:
    clock, slept = Clock(), list[float]()
    pauses = Pauses(lambda: clock.now, slept.append)
    clock.now = 50.0
    for _ in range(3):
        pauses.pause()
    assert slept == [PAUSE_MIN, pytest.approx(TURN_SECONDS), pytest.approx(2 * TURN_SECONDS)]
    clock.now = 50.0 + 3 * TURN_SECONDS
    pauses.pause()
    assert slept[-1] == PAUSE_MIN


def test_a_walk_of_this_process_ends() -> None:
    assert list(in_turns(range(3))) == [0, 1, 2]
