"""Which checks may run at a time, and how often."""

from __future__ import annotations

import pytest

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


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_measures_at_a_time_and_the_next_is_told_when() -> None:
    clock = Clock()
    found = Checks(Owners(), Gate(), clock)
    check = found.begin(CHECK, "a", "")
    clock.now += 12.4
    with pytest.raises(Refused, match="another check is running, and one runs at a time") as refused:
        found.begin(CHECK, "b", "")
    assert wait(refused.value) == 18
    clock.now += 100
    with pytest.raises(Refused) as refused:
        found.begin(CHECK, "b", "")
    assert wait(refused.value) == 1
    check.end()
    check.end()
    found.begin(CHECK, "b", "").end()


def test_nobody_measures_all_the_time() -> None:
    clock = Clock()
    found, began, measured = Checks(Owners(), Gate(), clock), clock.now, 0.0
    while clock.now < began + 10_000:
        try:
            check = found.begin(CHECK, "a", "")
        except Refused as exc:
            assert wait(exc) <= PART * SECONDS_MAX
            found.begin(CHECK, "b", "").end()
            clock.now += wait(exc)
            continue
        clock.now += SECONDS_MAX
        measured += SECONDS_MAX
        check.end()
    assert CREDIT / PART <= measured <= (10_000 + CREDIT) / PART + SECONDS_MAX


def test_a_usual_check_can_be_repeated_at_once() -> None:
    clock = Clock()
    found = Checks(Owners(), Gate(), clock)
    for _ in range(4):
        check = found.begin(CHECK, "a", "")
        clock.now += 12
        check.end()


def test_owners_that_are_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OWNERS_MAX", 2)
    assert OWNERS_MAX == 1000
    clock = Clock()
    found = Checks(Owners(), Gate(), clock)
    for name in ("a", "b", "c"):
        check = found.begin(CHECK, name, "")
        clock.now += CREDIT
        check.end()
    found.begin(CHECK, "a", "").end()
    with pytest.raises(Refused, match="has measured for a long time"):
        found.begin(CHECK, "c", "")


def test_silent_connections_are_limited_for_one_and_for_all() -> None:
    found = Checks(Owners(), Gate())
    measuring = found.begin(CHECK, "x", "")
    of_one = [found.begin(IDLE, "a", "") for _ in range(IDLE_OWNER_MAX)]
    with pytest.raises(Refused, match="too many silent connections"):
        found.begin(IDLE, "a", "")
    of_others = [found.begin(IDLE, str(at), "") for at in range(IDLE_MAX - IDLE_OWNER_MAX)]
    with pytest.raises(Refused):
        found.begin(IDLE, "b", "")
    of_one[0].end()
    of_one[0].end()
    found.begin(IDLE, "a", "")
    with pytest.raises(Refused):
        found.begin(IDLE, "b", "")
    for check in of_others:
        check.end()
    found.begin(IDLE, "b", "").end()
    measuring.end()


def test_the_rate_is_the_owners() -> None:
    owners = Owners()
    check = Checks(owners, Gate()).begin(CHECK, "a", "192.0.2.1")
    assert check.pacer(5) is owners.of("a", "192.0.2.9").pacer(5)


@pytest.mark.parametrize("kind", [CHECK, IDLE])
def test_who_may_not_join_may_not_check(kind: str) -> None:
    gate = Gate()
    found = Checks(Owners(), gate)
    gate.shut_out(["a"], [], 60)
    with pytest.raises(Refused, match="has ended this client's tunnel") as refused:
        found.begin(kind, "a", "192.0.2.1")
    assert refused.value.status == "403 Forbidden"
    found.begin(kind, "b", "192.0.2.1").end()
    gate.draining = True
    with pytest.raises(Refused, match="draining"):
        found.begin(kind, "b", "192.0.2.1")


def test_a_check_knows_whether_its_client_would_get_a_port() -> None:
    found = Checks(Owners(), Gate(), full=lambda identity, address: (identity, address) == ("a", "192.0.2.1"))
    for identity, full in (("a", True), ("b", False)):
        for kind in (CHECK, IDLE):
            check = found.begin(kind, identity, "192.0.2.1")
            assert check.full is full
            check.end()
