"""Settings of an interface: which addresses are accepted, and what is said of others."""

from __future__ import annotations

import pytest

from etherws.errors import SettingsError
from etherws.settings import ClientSettings, ServerSettings
from etherws.tap_settings import ADDRESSES_MAX, inet_address


def test_addresses_are_kept_in_one_form() -> None:
    given = (" 192.0.2.2/24", "2001:DB8:0::2/64", "fe80::1/64", "10.0.0.0/31", "10.1.1.1/32", "fd00::/128")
    kept = ("192.0.2.2/24", "2001:db8::2/64", "fe80::1/64", "10.0.0.0/31", "10.1.1.1/32", "fd00::/128")
    assert ClientSettings(inet=given).inet == kept
    assert ServerSettings.from_environ({"ETHERWS_SERVER_INET": "192.0.2.2/24 fd00::1/64"}).inet == (
        "192.0.2.2/24",
        "fd00::1/64",
    )


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("192.0.2.2",), "--inet '192.0.2.2' has no prefix; write ADDRESS/PREFIX, as in 192.0.2.2/24 or"),
        (("192.0.2.2/24", "192.0.2.2/24"), "--inet 192.0.2.2 is given twice; leave one of them out"),
        (("192.0.2.2/24", "192.0.2.2/16"), "is given twice"),
        (("fd00::1/64", "fd00:0::1/64"), "--inet fd00::1 is given twice"),
        (("192.0.2.2/64",), "the prefix of an IPv4 address is a number from 1 to 32"),
        (("fd00::1/129",), "the prefix of an IPv6 address is a number from 1 to 128"),
        (("fd00::1/255.255.255.0",), "the prefix of an IPv6 address is a number"),
        (("192.0.2.2/255.255.255.0",), "the prefix of an IPv4 address is a number"),
        (("192.0.2.2/",), "the prefix of an IPv4 address"),
        (("192.0.2.2/0",), "is not the address of one machine on a LAN"),
        (("0.0.0.0/8",), "is not the address of one machine on a LAN"),
        (("255.255.255.255/32",), "is not the address of one machine on a LAN"),
        (("::ffff:10.0.0.1/120",), "is not the address of one machine on a LAN"),
        (("224.0.0.1/24",), "is not the address of one machine on a LAN"),
        (("127.0.0.1/8",), "is not the address of one machine on a LAN"),
        (("::1/128",), "is not the address of one machine on a LAN"),
        (("ff02::1/64",), "is not the address of one machine on a LAN"),
        (("192.0.2.0/24",), "is the address of the network 192.0.2.0/24 itself; choose another one in it"),
        (("192.0.2.255/24",), "is the address of the network 192.0.2.0/24 itself"),
        (("fd00::/64",), "is the address of the network fd00::/64 itself"),
        (("fe80::1%eth0/64",), "names an interface; leave out % and what follows"),
        (("lan/24",), "'lan/24' is not an IP address with a prefix"),
        (("/24",), "is not an IP address with a prefix"),
        (("\x1b[31m" * 99,), r"--inet '.{,200}' has no prefix"),
    ],
)
def test_bad_addresses_are_refused_with_the_mend(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        ClientSettings(inet=texts)
    assert str(caught.value).isprintable()


def test_there_are_no_more_than_anybody_types() -> None:
    with pytest.raises(SettingsError, match="more than 32 times"):
        ClientSettings(inet=tuple(f"10.0.0.{number}/24" for number in range(1, ADDRESSES_MAX + 2)))


@pytest.mark.parametrize("vlan", [0, -1, 4095, 10**9])
def test_only_numbers_of_vlans_are_accepted(vlan: int) -> None:
    assert ServerSettings.from_environ({"ETHERWS_SERVER_VLAN": "4094"}).vlan == 4094
    with pytest.raises(SettingsError, match=f"--vlan {vlan} is not the number of a VLAN; choose 1 to 4094"):
        ClientSettings(vlan=vlan)


def test_the_option_is_named_by_who_asks() -> None:
    with pytest.raises(SettingsError, match=r"^inet 'x' has no prefix"):
        inet_address("inet", "x")
