"""Whose a limit is, and for how long it is remembered."""

from __future__ import annotations

import gc
import json
import math
from typing import Any

import pytest

from etherws.kernel.rules import AGEING
from etherws.server import owners as owners_module
from etherws.server.owners import DEBT_MAX, Owners
from etherws.tunnel.rate_limit import CREDIT
from etherws.tunnel.shared_rates import Rates
from tests.lab.lan import source


def test_an_identity_is_one_owner_from_wherever_it_comes() -> None:
    owners = Owners()
    alice = owners.of("alice", "192.0.2.1")
    assert owners.of("alice", "198.51.100.1") is alice
    assert owners.of("bob", "192.0.2.1") is not alice
    assert owners.of(None, "192.0.2.1") is not alice
    # An identity that is called as an address.
    assert owners.of("192.0.2.1", "192.0.2.1") is not owners.of(None, "192.0.2.1")


def test_without_an_identity_the_address_is_the_owner() -> None:
    owners = Owners()
    assert owners.of(None, "2001:db8::1") is owners.of(None, "2001:db8::2")
    assert owners.of(None, "192.0.2.1") is not owners.of(None, "192.0.2.2")


def test_the_connections_of_an_owner_share_one_rate_and_its_debt_stays() -> None:
    owners = Owners()
    first = owners.of("alice", "").pacer(8_000_000)
    # A second's worth, and gone.
    first.wait(1_000_000, 100.0)
    again = owners.of("alice", "").pacer(8_000_000)
    assert again.wait(0, 100.0) == pytest.approx(1 - CREDIT)
    # The policy has changed: the debt stays.
    assert owners.of("alice", "").pacer(16_000_000) is first
    assert first.rate == 16_000_000
    assert first.wait(0, 100.0) == pytest.approx(1 - CREDIT)


def test_short_sessions_get_one_credit_together() -> None:
    owners, waited = Owners(), 0.0
    for _ in range(100):
        waited = owners.of("alice", "").pacer(8_000_000).wait(int(1e6 * CREDIT), 100.0)
    assert waited == pytest.approx(99 * CREDIT)


def test_the_owner_that_left_first_is_forgotten_but_none_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "OWNERS_MAX", 2)
    owners = Owners()
    present = owners.of("present", "")
    for name in ("gone", "later", "last"):
        owners.of(name, "").learned.give({source(1): 300.0}, 0.0)
    gc.collect()
    assert owners.of("present", "") is present
    assert [len(owners.of(name, "").learned) for name in ("last", "gone")] == [1, 0]


def test_the_number_of_addresses_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "ADDRESSES_MAX", 5)
    owners = Owners()
    for name in ("first", "second"):
        owner = owners.of(name, "")
        owner.learned.give({source(number): 300.0 for number in range(3)}, 0.0)
        owners.keep(owner)
    del owner
    gc.collect()
    assert len(owners.of("second", "").learned) == 3
    assert len(owners.of("first", "").learned) == 0


def test_a_debt_in_memory_that_processes_share_is_the_owners() -> None:
    owners, rates = Owners(), Rates()
    alice = owners.of("alice", "")
    alice.pacer(8_000_000).wait(1_000_000, 100.0)
    alice.slot = rates.new(alice.paid)
    assert rates.pacer(alice.slot.number, 8_000_000).wait(1_000_000, 100.0) == pytest.approx(2 - CREDIT)
    assert alice.paid == pytest.approx(102 - CREDIT)
    alice.slot = None
    rates.close()


def handed_over(owners: Owners, now: float, room: int = 10_000) -> Owners:
    """The owners of the next process."""
    again = Owners()
    again.restore(json.loads(json.dumps(owners.to_values(now, room))), now)
    return again


def test_another_process_goes_on_with_addresses_and_debts() -> None:
    owners = Owners()
    owners.of("alice", "").learned.give({source(1): 300.0}, 100.0)
    owners.of(None, "192.0.2.1").pacer(8_000_000).wait(1_000_000, 100.0)
    owners.of("idle", "").pacer(8_000_000).wait(1_000, 90.0)
    assert [values[1] for values in owners.to_values(100.0, 10_000)] == ["alice", "192.0.2.1"]
    again = handed_over(owners, 100.0)
    assert again.of("alice", "").learned.take(1, b"", 150.0) == {source(1): 250.0}
    assert again.of(None, "192.0.2.1").pacer(16_000_000).wait(0, 100.0) == pytest.approx(1 - CREDIT)


def test_those_that_were_there_last_are_handed_over_as_far_as_there_is_room() -> None:
    owners = Owners()
    for name in ("first", "second", "third"):
        owners.of(name, "").learned.give({source(1): 300.0}, 100.0)
    assert [values[1] for values in owners.to_values(100.0, 150)] == ["second", "third"]


def test_no_debt_and_no_address_counts_for_longer_than_it_can() -> None:
    again = Owners()
    again.restore([["identity", "alice", 1e9, [["02" * 6, 1e9, 1]]]], 100.0)
    owner = again.of("alice", "")
    assert owner.paid == 100.0 + DEBT_MAX
    assert owner.learned.take(1, b"", 100.0) == {bytes([2] * 6): AGEING}


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e300])
def test_a_debt_that_is_none_takes_no_other_along(junk: float) -> None:
    """Each worker can write to the memory of debts, so one that is broken can."""
    owners = Owners()
    for name in ("first", "second"):
        owners.of(name, "").learned.give({source(1): 300.0}, 100.0)
    owners.of("first", "").paid = junk
    again = handed_over(owners, 100.0)
    assert [len(again.of(name, "").learned) for name in ("first", "second")] == [1, 1]


@pytest.mark.parametrize(
    "values",
    [
        None,
        [None],
        [["identity", "alice", 0.0]],
        [["user", "alice", 0.0, []]],
        [["identity", 5, 0.0, []]],
        [["identity", "alice", "0", []]],
        [["identity", "alice", float("inf"), []]],
        [["identity", "alice", 10**400, []]],
        [["identity", "alice", 0.0, [["02" * 5, 1.0, 1]]]],
        [["identity", "alice", 0.0, [[5, 1.0, 1]]]],
        [["identity", "alice", 0.0, [["02" * 6, 1.0, "1"]]]],
        [["identity", "alice", 0.0, [["02" * 6, None, 1]]]],
    ],
)
def test_what_is_not_an_owner_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"not valid|without|another length"):
        Owners().restore(values, 100.0)
