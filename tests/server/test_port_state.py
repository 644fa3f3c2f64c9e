"""The state of a port, from and to plain values. Others may have written it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etherws.access.policy import Profile
from etherws.errors import SettingsError
from etherws.server.port_state import CHANGES_MAX, PortState, from_state

FULL = PortState(
    first=True,
    index=7,
    name="ethws0",
    header=(12, 1),
    device="ethws%d",
    bridge="br0",
    mtu=1400,
    member=(5, "br0"),
    in_use=True,
    identity="alice",
    resume="a" * 22,
    address="192.0.2.1",
    profile=Profile(macs=2, isolated=True),
    changes=(1.0, 2.5),
    since=3.5,
    inet=(7, ("10.9.0.1/24", "fd00::1/64")),
)
LITTLE = PortState(first=False, index=1, name="x", header=(10, 0), device="x")


@pytest.mark.parametrize("state", [FULL, LITTLE])
def test_what_was_written_is_read(state: PortState) -> None:
    values = json.loads(json.dumps(state.to_values()))
    assert from_state(values, 100.0) == state
    # What another version adds is ignored.
    assert from_state({**values, "colour": ["blue"]}, 100.0) == state


def test_what_is_not_there_is_as_of_a_port_without_a_client() -> None:
    values = {"version": 1, "role": "server", "index": 3, "header": [12, 1]}
    assert from_state(values, 0.0) == PortState(first=False, index=3, name="", header=(12, 1), device="ethws%d")


def test_times_that_are_to_come_count_as_now() -> None:
    found = from_state({**FULL.to_values(), "changes": [1, 1e9], "since": 200}, 100.0)
    assert (found.changes, found.since) == ((1.0, 100.0), 100.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "of a newer version"),
        ({"version": 0}, "version that is out of range"),
        ({"version": True}, "version that is out of range"),
        ({"version": None}, "version that is out of range"),
        ({"role": "client"}, "not a server's"),
        ({"role": None}, "not a server's"),
        ({"first": 1}, "first that is not true or false"),
        ({"in_use": "yes"}, "in_use that is not true or false"),
        ({"index": 0}, "index that is out of range"),
        ({"index": 2**31}, "index that is out of range"),
        ({"index": 7.0}, "index that is out of range"),
        ({"header": None}, "header that is not valid"),
        ({"header": [12]}, "header that is not valid"),
        ({"header": [12, 256]}, "header that is out of range"),
        ({"name": 7}, "name that is no text"),
        ({"identity": "x" * 20_000}, "identity that is no text, or too long"),
        ({"device": "a b"}, "not a valid interface name"),
        ({"bridge": "much-too-long-a-name"}, "longer than 15 bytes"),
        ({"mtu": 67}, "mtu that is out of range"),
        ({"member": 5}, "bridge that is not valid"),
        ({"member": [5]}, "bridge that is not valid"),
        ({"member": ["br0", 5]}, "bridge that is out of range"),
        ({"member": [5, 5]}, "bridge that is no text"),
        ({"profile": None}, "a profile that is no table"),
        ({"profile": {"mtu": 1}}, "mtu must be a number"),
        ({"inet": 5}, "IP addresses that are not valid"),
        ({"inet": [5, 5]}, "IP addresses that are not valid"),
        ({"inet": [-1, []]}, "inet that is out of range"),
        ({"inet": [5, ["x"]]}, "inet 'x' has no prefix"),
        ({"changes": 5}, "list of times that is not valid"),
        ({"changes": [0.0] * (CHANGES_MAX + 1)}, "list of times that is not valid"),
        ({"changes": ["now"]}, "time that is not valid"),
        ({"since": float("nan")}, "time that is not valid"),
        ({"since": 10**400}, "time that is not valid"),
        ({"since": True}, "time that is not valid"),
    ],
)
def test_other_values_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        from_state({**FULL.to_values(), **changes}, 100.0)


def test_no_state_is_refused() -> None:
    with pytest.raises(SettingsError, match="missing or broken"):
        from_state(None, 100.0)
