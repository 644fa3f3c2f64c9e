"""The check of each value of a policy: what it makes of it, and what it says of one that is wrong."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from etherws.access.policy_values import ADDRESSES_MAX, GROUP_RATE_MAX, KEYS, quoted, unknown
from etherws.errors import SettingsError


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("connect", False, False),
        ("bridge", "br0", "br0"),
        ("device", "tap%d", "tap%d"),
        ("mtu", 1400, 1400),
        ("connections", 2, 2),
        ("macs", 7, 7),
        ("macs", ["02-00-00-00-00-AB"], frozenset({"02:00:00:00:00:ab"})),
        ("rate-up", "unlimited", None),
        ("rate-down", "2.5 Mbit/s", 2_500_000),
        ("isolated", True, True),
        ("drop", ["bpdu"], frozenset({"bpdu"})),
        ("addresses", "any", None),
        ("addresses", ["192.0.2.7"], frozenset({ip_network("192.0.2.7/32")})),
        (
            "addresses",
            ["192.0.2.0/24", "2001:DB8::/64", "fe80::1", "0.0.0.0/0"],
            frozenset(map(ip_network, ("192.0.2.0/24", "2001:db8::/64", "fe80::1/128", "0.0.0.0/0"))),
        ),
        ("vlan", 1, 1),
        ("vlan", 4094, 4094),
        ("vlan", "bridge", None),
        ("vlans", [20, 10, 20], frozenset({10, 20})),
        ("vlans", [], frozenset()),
        ("up", "/etc/etherws/up", "/etc/etherws/up"),
        ("change", "", ""),
        ("group-rate", "unlimited", None),
        ("group-rate", 1, 1),
        ("group-rate", GROUP_RATE_MAX, GROUP_RATE_MAX),
    ],
)
def test_a_value_is_read(key: str, written: Any, value: Any) -> None:
    assert KEYS[key](key, written) == value


@pytest.mark.parametrize(
    ("key", "written", "words"),
    [
        ("connect", 1, "is not true or false"),
        ("bridge", 3, "is not a text"),
        ("device", "a b", "is not a valid interface name"),
        ("mtu", True, "must be a number from 68 to 65521"),
        ("macs", [], "is empty"),
        ("macs", ["x"], "is not a MAC address"),
        ("macs", ["01:00:00:00:00:00"], "is not the address of one machine"),
        ("rate-up", 3, "is not a rate"),
        ("rate-up", "fast", "is not a rate"),
        ("rate-up", "1 kbit/s", "is out of range"),
        ("drop", ["dhcp"], "is it dhcp-server?"),
        ("drop", 3, "is not a list of texts"),
        ("drop", [3], "is not a list of texts"),
        ("addresses", [], "is empty"),
        ("addresses", ["192.0.2.1"] * (ADDRESSES_MAX + 1), "has more than 4096 entries"),
        ("addresses", ["fe80::1%eth0"], "is not an IP address or network"),
        ("addresses", ["192.0.2.256"], "is not an IP address or network"),
        ("addresses", ["2001:db8::1/64"], "has bits behind its prefix; is it 2001:db8::/64?"),
        ("group-rate", 0, "must be a number from 1 to 1000000"),
        ("group-rate", 10.5, "must be a number from 1 to 1000000"),
        ("vlan", 0, 'must be a number from 1 to 4094, or "bridge"'),
        ("vlan", 4095, "must be a number from 1 to 4094"),
        ("vlan", "10", "must be a number from 1 to 4094"),
        ("vlan", True, "must be a number from 1 to 4094"),
        ("vlans", 10, "is not a list; put the numbers of VLANs in brackets"),
        ("vlans", [0], "must be a number from 1 to 4094"),
        ("vlans", [10, 4095], "must be a number from 1 to 4094"),
        ("vlans", ["10-20"], "must be a number from 1 to 4094"),
        ("up", 1, "is not a program; write its whole path in quotes"),
        ("down", "up.sh", "is not a program"),
        ("change", "/a\nb", "is not a program"),
        ("up", "/" * 5000, "is longer than 4095 characters"),
    ],
)
def test_a_mistake_is_told(key: str, written: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        KEYS[key](key, written)
    assert key in str(caught.value)
    assert words in str(caught.value)


def test_an_unknown_word_is_shown_with_its_nearest() -> None:
    assert quoted("a\x1b") == "'a\\x1b'"
    assert unknown("key", "mtux", ["mtu", "macs"]) == "unknown key 'mtux'; is it mtu?"
    assert unknown("key", "zzz", ["mtu", "macs"]) == "unknown key 'zzz'; choose one of mtu, macs"
