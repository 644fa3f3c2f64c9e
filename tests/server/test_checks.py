"""Which checks may run at a time, and how often."""

from __future__ import annotations

import pytest

from etherws.errors import CheckRefused
from etherws.features import CHECK, IDLE
from etherws.server import checks
from etherws.server.checks import CREDIT, IDLE_MAX, IDLE_OWNER_MAX, OWNERS_MAX, PART, SECONDS_MAX, Checks
from etherws.server.owners import Owner


def owner(name: str) -> Owner:
    return Owner(("identity", name))


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_measures_at_a_time_and_the_next_is_told_when() -> None:
    clock = Clock()
    found = Checks(clock)
    check = found.begin(CHECK, owner("a"))
    clock.now += 12.4
    with pytest.raises(CheckRefused, match="another check is running, and one runs at a time") as refused:
        found.begin(CHECK, owner("b"))
    assert refused.value.wait == 18
    clock.now += 100
    with pytest.raises(CheckRefused) as refused:
        found.begin(CHECK, owner("b"))
    assert refused.value.wait == 1
    check.end()
    check.end()
    found.begin(CHECK, owner("b")).end()


def test_nobody_measures_all_the_time() -> None:
    clock = Clock()
    found, began, measured = Checks(clock), clock.now, 0.0
    while clock.now < began + 10_000:
        try:
            check = found.begin(CHECK, owner("a"))
        except CheckRefused as exc:
            assert exc.wait <= PART * SECONDS_MAX
            found.begin(CHECK, owner("b")).end()
            clock.now += exc.wait
            continue
        clock.now += SECONDS_MAX
        measured += SECONDS_MAX
        check.end()
    assert CREDIT / PART <= measured <= (10_000 + CREDIT) / PART + SECONDS_MAX


def test_a_usual_check_can_be_repeated_at_once() -> None:
    clock = Clock()
    found = Checks(clock)
    for _ in range(4):
        check = found.begin(CHECK, owner("a"))
        clock.now += 12
        check.end()


def test_owners_that_are_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OWNERS_MAX", 2)
    assert OWNERS_MAX == 1000
    clock = Clock()
    found = Checks(clock)
    for name in ("a", "b", "c"):
        check = found.begin(CHECK, owner(name))
        clock.now += CREDIT
        check.end()
    found.begin(CHECK, owner("a")).end()
    with pytest.raises(CheckRefused, match="others are next"):
        found.begin(CHECK, owner("c"))


def test_silent_connections_are_limited_for_one_and_for_all() -> None:
    found = Checks()
    measuring = found.begin(CHECK, owner("x"))
    of_one = [found.begin(IDLE, owner("a")) for _ in range(IDLE_OWNER_MAX)]
    with pytest.raises(CheckRefused, match="too many silent connections"):
        found.begin(IDLE, owner("a"))
    of_others = [found.begin(IDLE, owner(str(at))) for at in range(IDLE_MAX - IDLE_OWNER_MAX)]
    with pytest.raises(CheckRefused):
        found.begin(IDLE, owner("b"))
    of_one[0].end()
    of_one[0].end()
    found.begin(IDLE, owner("a"))
    with pytest.raises(CheckRefused):
        found.begin(IDLE, owner("b"))
    for check in of_others:
        check.end()
    found.begin(IDLE, owner("b")).end()
    measuring.end()


def test_the_rate_is_the_owners() -> None:
    one = owner("a")
    assert Checks().begin(CHECK, one).pacer(5) is one.pacer(5)
