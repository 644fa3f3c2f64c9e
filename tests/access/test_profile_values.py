"""A profile as plain values, and back."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from etherws.access.policy import Profile
from etherws.access.profile_values import from_values, to_values
from etherws.errors import SettingsError

EVERYTHING = Profile(
    bridge="br1",
    device="vm%d",
    mtu=1400,
    connections=3,
    macs=frozenset({"02:00:00:00:00:01", "02:00:00:00:00:02"}),
    rate_up=16_000,
    rate_down=1_000_000_000,
    isolated=True,
    drop=frozenset({"bpdu", "dhcp-server"}),
    addresses=frozenset({ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")}),
    group_rate=50,
)


@pytest.mark.parametrize("profile", [Profile(), Profile(macs=2), Profile(connect=False), EVERYTHING])
def test_what_was_written_is_read(profile: Profile) -> None:
    assert from_values(json.loads(json.dumps(to_values(profile)))) == profile


def test_a_usual_profile_takes_no_room() -> None:
    assert to_values(Profile()) == {}


def test_keys_of_other_versions_are_left_out() -> None:
    assert from_values({"colour": "blue", "mtu": None, "group_rate": None, "macs": 7}) == Profile(macs=7)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"macs": None},
        {"macs": "2"},
        {"macs": [1]},
        {"rate_up": "1 Mbit/s"},
        {"rate_up": True},
        {"rate_down": 15_999},
        {"addresses": "any"},
        {"group_rate": "unlimited"},
        {"bridge": "a b"},
        {"connections": 0},
        {"drop": ["x"]},
    ],
)
def test_other_values_are_refused(values: Any) -> None:
    with pytest.raises(SettingsError):
        from_values(values)
