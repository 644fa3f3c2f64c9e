"""Which name a new interface is given: the lowest that nobody has, without a look at all that are in use."""

from __future__ import annotations

from itertools import islice

import pytest

from etherws.tunnel import device_names
from etherws.tunnel.device_names import DeviceNames


def add(names: DeviceNames, pattern: str = "ethws%d") -> str:
    """Have the first candidate in use."""
    name = next(names.candidates(pattern))
    names.add(name, pattern)
    return name


def test_the_lowest_free_number_is_next() -> None:
    names = DeviceNames()
    assert [add(names) for _ in range(4)] == ["ethws0", "ethws1", "ethws2", "ethws3"]
    assert "ethws2" in names
    for name in ("ethws2", "ethws0", "stranger"):
        names.discard(name)
    assert "ethws2" not in names
    assert [add(names) for _ in range(3)] == ["ethws0", "ethws2", "ethws4"]


def test_a_name_that_was_not_taken_is_offered_again() -> None:
    names = DeviceNames()
    assert [next(names.candidates("ethws%d")) for _ in range(2)] == ["ethws0", "ethws0"]


def test_names_that_others_have_are_tried_once_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names, "PATTERN_MAX", 4)
    names = DeviceNames()
    assert list(names.candidates("a%d")) == ["a0", "a1", "a2", "a3"]
    assert list(names.candidates("a%d")) == ["a0", "a1", "a2", "a3"]
    assert add(names, "a%d") == "a0"
    assert list(names.candidates("a%d")) == ["a1", "a2", "a3"]
    # The first round ends where all are in use, the second where it began.
    for number in range(1, 4):
        names.add(f"a{number}", "a%d")
    assert list(names.candidates("a%d")) == []
    names.discard("a1")
    assert list(names.candidates("a%d")) == ["a1"]


def test_the_round_begins_again_where_others_may_have_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names, "PATTERN_MAX", 4)
    names = DeviceNames()
    for _ in range(3):
        add(names, "a%d")
    names.discard("a0")
    assert list(names.candidates("a%d")) == ["a0", "a3", "a0"]


def test_a_released_name_that_somebody_else_took_is_passed_over() -> None:
    names = DeviceNames()
    for _ in range(3):
        add(names)
    names.discard("ethws1")
    assert list(islice(names.candidates("ethws%d"), 2)) == ["ethws1", "ethws3"]
    names.discard("ethws0")
    # Meanwhile it is one of ours that was made otherwise.
    names.add("ethws0", "ethws0")
    assert add(names) == "ethws3"


def test_a_pattern_without_a_number_is_a_name() -> None:
    names = DeviceNames()
    assert add(names, "vm") == "vm"
    assert list(names.candidates("vm")) == ["vm"]
    names.discard("vm")
    # A name that does not fit its pattern: somebody has renamed it.
    names.add("other", "ethws%d")
    names.discard("other")
    assert "other" not in names
    assert add(names) == "ethws0"


def test_the_thousandth_name_costs_as_much_as_the_first() -> None:
    """Counted by looks at the names in use."""

    class Counted(dict[str, tuple[str, int] | None]):
        looks = 0

        def __contains__(self, name: object) -> bool:
            self.looks += 1
            return super().__contains__(name)

    names = DeviceNames()
    used = Counted()
    names._used = used
    for _ in range(1000):
        add(names)
    assert used.looks <= 2000
    for number in range(1000):
        names.discard(f"ethws{number}")
    used.looks = 0
    for _ in range(1000):
        add(names)
    assert used.looks <= 2000
