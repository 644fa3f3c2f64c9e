"""Who may not join now, on a clock of the test's own."""

from __future__ import annotations

import json

import pytest

from etherws.errors import Refused
from etherws.server import gate as gate_module
from etherws.server.gate import Gate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock_() -> Clock:
    return Clock()


def refused(gate: Gate, identity: str | None, address: str = "192.0.2.1") -> tuple[str, list[tuple[str, str]]] | None:
    try:
        gate.check(identity, address)
    except Refused as exc:
        return exc.status, exc.headers
    return None


def test_an_identity_is_kept_out_wherever_it_comes_from_until_its_time_is_over(clock_: Clock) -> None:
    gate = Gate(clock_)
    gate.shut_out(["alice"], [], 60)
    for address in ("192.0.2.1", "2001:db8::1", ""):
        assert refused(gate, "alice", address) == ("403 Forbidden", [("Retry-After", "60")])
    assert refused(gate, "bob") is None
    assert refused(gate, None) is None
    clock_.now += 59.5
    assert refused(gate, "alice") == ("403 Forbidden", [("Retry-After", "1")])
    assert gate.shut_out_now == 1
    clock_.now += 0.5
    assert refused(gate, "alice") is None
    assert gate.shut_out_now == 0


def test_an_address_is_kept_out_whoever_it_says_it_is_and_with_its_64(clock_: Clock) -> None:
    gate = Gate(clock_)
    gate.shut_out([], ["192.0.2.1", "2001:db8::1"], 60)
    assert refused(gate, None, "192.0.2.1")
    assert refused(gate, "alice", "192.0.2.1")
    assert refused(gate, None, "2001:db8::2:3")
    assert refused(gate, None, "192.0.2.2") is None
    assert refused(gate, None, "2001:db8:0:1::1") is None


def test_a_shorter_time_does_not_let_in_sooner(clock_: Clock) -> None:
    gate = Gate(clock_)
    gate.shut_out(["alice"], [], 60)
    gate.shut_out(["alice"], [], 1)
    clock_.now += 30
    assert refused(gate, "alice")


def test_the_list_is_bounded_and_those_go_whose_time_ends_first(clock_: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "SHUT_OUT_MAX", 3)
    gate = Gate(clock_)
    for number in range(10):
        gate.shut_out([f"client-{number}"], [], 100 - number)
    assert gate.shut_out_now == 3
    assert [refused(gate, f"client-{number}") is None for number in range(4)] == [False, False, False, True]


def test_while_it_drains_nobody_comes_in_and_is_told_when_to_try_again() -> None:
    gate = Gate()
    gate.draining = True
    status, headers = refused(gate, "alice") or ("", [])
    assert (status, headers[0][0]) == ("503 Service Unavailable", "Retry-After")
    with pytest.raises(Refused, match="this server is draining"):
        gate.check(None, "")


def test_the_next_process_keeps_the_same_ones_out(clock_: Clock) -> None:
    gate = Gate(clock_)
    gate.shut_out(["alice", "over"], ["192.0.2.7"], 600)
    gate.shut_out(["bob"], [], 1)
    clock_.now += 100
    # Values for JSON.
    kept = json.loads(json.dumps(gate.to_values()))
    after = Gate(clock_)
    after.restore(kept)
    assert after.shut_out_now == 3
    assert refused(after, "alice") == ("403 Forbidden", [("Retry-After", "500")])
    assert refused(after, None, "192.0.2.7") == ("403 Forbidden", [("Retry-After", "500")])
    assert refused(after, "bob") is None


def test_nobody_is_kept_out_for_ever(clock_: Clock) -> None:
    gate = Gate(clock_)
    gate.restore([["identity", "alice", 1e300], ["identity", "bob", float("nan")]])
    clock_.now += gate_module.SECONDS_MAX + 1
    assert gate.shut_out_now == 0


@pytest.mark.parametrize(
    "values",
    [None, {}, "x", [1], [["identity", "a"]], [["name", "a", 1.0]], [["identity", 1, 1.0]], [["identity", "a", "1"]]],
)
def test_damaged_values_keep_nobody_else_out(clock_: Clock, values: object) -> None:
    gate = Gate(clock_)
    with pytest.raises(ValueError, match="kept out"):
        gate.restore(values)
    with pytest.raises(ValueError, match="kept out"):
        gate.restore([["identity", "a", 1e9]] * (gate_module.SHUT_OUT_MAX + 1))
    assert gate.shut_out_now == 0
