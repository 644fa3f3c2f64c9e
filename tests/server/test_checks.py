"""Which checks may run at a time, and how often."""

from __future__ import annotations

import pytest

from etherws.access.policy import Profile
from etherws.errors import Refused
from etherws.features import CHECK, IDLE
from etherws.server import checks
from etherws.server.checks import CREDIT, IDLE_MAX, IDLE_OWNER_MAX, OWNERS_MAX, PART, SECONDS_MAX, Checks
from etherws.server.gate import Gate
from etherws.server.owners import Owners


def wait(refusal: Refused) -> int:
    """After how many seconds to try again."""
    assert refusal.status == "503 Service Unavailable"
    return int(dict(refusal.headers)["Retry-After"])


USUAL = Profile()


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_measures_at_a_time_and_the_next_is_told_when() -> None:
    clock = Clock()
    found = Checks(Owners(), Gate(), clock=clock)
    check = found.begin(CHECK, "a", "", USUAL)
    clock.now += 12.4
    with pytest.raises(Refused, match="another check is running, and one runs at a time") as refused:
        found.begin(CHECK, "b", "", USUAL)
    assert wait(refused.value) == 18
    clock.now += 100
    with pytest.raises(Refused) as refused:
        found.begin(CHECK, "b", "", USUAL)
    assert wait(refused.value) == 1
    check.end()
    check.end()
    found.begin(CHECK, "b", "", USUAL).end()


def test_nobody_measures_all_the_time() -> None:
    clock = Clock()
    found, began, measured = Checks(Owners(), Gate(), clock=clock), clock.now, 0.0
    while clock.now < began + 10_000:
        try:
            check = found.begin(CHECK, "a", "", USUAL)
        except Refused as exc:
            assert wait(exc) <= PART * SECONDS_MAX
            found.begin(CHECK, "b", "", USUAL).end()
            clock.now += wait(exc)
            continue
        clock.now += SECONDS_MAX
        measured += SECONDS_MAX
        check.end()
    assert CREDIT / PART <= measured <= (10_000 + CREDIT) / PART + SECONDS_MAX


def test_a_usual_check_can_be_repeated_at_once() -> None:
    clock = Clock()
    found = Checks(Owners(), Gate(), clock=clock)
    for _ in range(4):
        check = found.begin(CHECK, "a", "", USUAL)
        clock.now += 12
        check.end()


def test_owners_that_are_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OWNERS_MAX", 2)
    assert OWNERS_MAX == 1000
    clock = Clock()
    found = Checks(Owners(), Gate(), clock=clock)
    for name in ("a", "b", "c"):
        check = found.begin(CHECK, name, "", USUAL)
        clock.now += CREDIT
        check.end()
    found.begin(CHECK, "a", "", USUAL).end()
    with pytest.raises(Refused, match="has measured for a long time"):
        found.begin(CHECK, "c", "", USUAL)


def test_silent_connections_are_limited_for_one_and_for_all() -> None:
    found = Checks(Owners(), Gate())
    measuring = found.begin(CHECK, "x", "", USUAL)
    of_one = [found.begin(IDLE, "a", "", USUAL) for _ in range(IDLE_OWNER_MAX)]
    with pytest.raises(Refused, match="too many silent connections"):
        found.begin(IDLE, "a", "", USUAL)
    of_others = [found.begin(IDLE, str(at), "", USUAL) for at in range(IDLE_MAX - IDLE_OWNER_MAX)]
    with pytest.raises(Refused):
        found.begin(IDLE, "b", "", USUAL)
    of_one[0].end()
    of_one[0].end()
    found.begin(IDLE, "a", "", USUAL)
    with pytest.raises(Refused):
        found.begin(IDLE, "b", "", USUAL)
    for check in of_others:
        check.end()
    found.begin(IDLE, "b", "", USUAL).end()
    measuring.end()


def test_the_rate_is_the_owners() -> None:
    owners = Owners()
    check = Checks(owners, Gate()).begin(CHECK, "a", "192.0.2.1", USUAL)
    assert check.pacer(5) is owners.of("a", "192.0.2.9").pacer(5)


@pytest.mark.parametrize("kind", [CHECK, IDLE])
def test_who_may_not_join_may_not_check(kind: str) -> None:
    gate = Gate()
    found = Checks(Owners(), gate)
    gate.shut_out(["a"], [], 60)
    with pytest.raises(Refused, match="has ended this client's tunnel") as refused:
        found.begin(kind, "a", "192.0.2.1", USUAL)
    assert refused.value.status == "403 Forbidden"
    found.begin(kind, "b", "192.0.2.1", USUAL).end()
    gate.draining = True
    with pytest.raises(Refused, match="draining"):
        found.begin(kind, "b", "192.0.2.1", USUAL)


def test_who_would_get_no_port_is_told_so() -> None:
    found = Checks(Owners(), Gate(), lambda identity, profile: identity == "a" and profile is USUAL)
    with pytest.raises(Refused, match="no port is free for one more client") as refused:
        found.begin(CHECK, "a", "192.0.2.1", USUAL)
    assert wait(refused.value) == 10
    found.begin(CHECK, "b", "192.0.2.1", USUAL).end()
