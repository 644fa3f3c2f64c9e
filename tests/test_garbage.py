"""When Python looks for garbage: what settle() sets, and what becomes of it when much has come."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from etherws.garbage import GROWTH, MIDDLE, NEVER, STARTING, YOUNG, Policy


class Blocks:
    """How many blocks of memory there are, and a policy by that."""

    def __init__(self) -> None:
        self.count = 1000
        self.policy = Policy(lambda: self.count)

    def look(self, generation: int) -> None:
        """Python looks at the objects up to this generation."""
        for phase in ("start", "stop"):
            self.policy._looked(phase, {"generation": generation})


@pytest.fixture
def blocks() -> Iterator[Blocks]:
    """Python's own policy is back after the test."""
    before, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield Blocks()
    gc.callbacks[:] = callbacks
    gc.set_threshold(*before)
    gc.unfreeze()


class Cycle:
    """An object that holds itself, and counts how many have gone."""

    gone = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Cycle.gone += 1


def test_what_a_start_makes_is_hardly_looked_at(blocks: Blocks) -> None:
    blocks.policy.begin()
    assert gc.get_threshold()[0] == STARTING > 10 * YOUNG
    blocks.policy.settle()
    assert gc.get_threshold() == (YOUNG, MIDDLE, NEVER)


def test_what_is_there_at_the_start_is_not_looked_at_again(blocks: Blocks) -> None:
    Cycle.gone = 0
    Cycle()
    blocks.policy.settle()
    assert Cycle.gone == 1
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == (YOUNG, MIDDLE, NEVER)
    blocks.policy.settle()
    assert gc.callbacks.count(blocks.policy._looked) == 1


def test_young_objects_are_spared_once_the_start_is_over(blocks: Blocks) -> None:
    before = gc.get_freeze_count()
    blocks.policy.spare_young()
    assert gc.get_freeze_count() == before
    blocks.policy.settle()
    Cycle.gone = 0
    Cycle()
    blocks.policy.spare_young()
    gc.collect()
    assert Cycle.gone == 0


def test_all_objects_are_looked_at_only_when_very_many_have_come(blocks: Blocks) -> None:
    blocks.policy.settle()
    Cycle.gone = 0
    Cycle()
    blocks.policy.spare_young()
    blocks.count += GROWTH
    blocks.look(1)
    blocks.policy.search_if_due()
    assert Cycle.gone == 0
    blocks.count += 1
    blocks.look(0)
    blocks.policy.search_if_due()
    assert Cycle.gone == 0
    blocks.look(1)
    blocks.policy.search_if_due()
    assert Cycle.gone == 1
    # What is left then is what is needed: so many again until the next time.
    Cycle()
    blocks.policy.spare_young()
    blocks.count += GROWTH
    blocks.look(1)
    blocks.policy.search_if_due()
    assert Cycle.gone == 1
