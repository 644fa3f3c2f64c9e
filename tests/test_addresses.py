"""Addresses: how they are written, which networks they are in, and what limits count them by."""

from __future__ import annotations

import pytest

from etherws.addresses import Networks, authority, bracketed, canonical, is_address, peer, plain, source_key
from etherws.errors import SettingsError


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example", "", "unix:", "*"])
def test_what_is_no_network_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="--trusted-proxy"):
        Networks([word])


def test_networks_are_true_if_they_name_any_proxy() -> None:
    assert not Networks([])
    assert Networks(["unix"])
    assert Networks(["192.0.2.1"])


@pytest.mark.parametrize(
    ("words", "address", "inside"),
    [
        (["10.0.0.0/8"], "10.255.255.255", True),
        (["10.0.0.0/8"], "11.0.0.0", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["192.0.2.1"], "192.0.2.1", True),
        (["2001:db8:1::/48"], "2001:db8:1:ffff::", True),
        (["2001:db8:1::/48"], "2001:db8:2::", False),
        (["10.0.0.0/8", "2001:db8:1::/48"], "2001:db8:1::", True),
        (["10.0.0.0/8"], "nonsense", False),
        (["10.0.0.0/8"], "", False),
        (["unix"], "", True),
        (["unix"], "10.0.0.1", False),
        ([], "10.0.0.1", False),
        ([], "", False),
    ],
)
def test_an_address_is_in_the_networks_or_not(words: list[str], address: str, inside: bool) -> None:
    assert (address in Networks(words)) is inside


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("::1", 5, 0, 0), "::1"),
        ("", ""),
    ],
)
def test_peers_are_written_plainly(address: object, text: str) -> None:
    assert peer(address) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::ffff:1", "::ffff:1"), ("2001:db8::1",) * 2],
)
def test_a_mapped_address_is_written_as_ipv4(address: str, text: str) -> None:
    assert plain(address) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        (bytes([192, 0, 2, 1]), "192.0.2.1"),
        (bytes(15) + b"\x01", "::1"),
    ],
)
def test_an_address_has_one_text_form(address: str | bytes, text: str) -> None:
    assert canonical(address) == text


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="proxy"):
        canonical("proxy.example")


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a local client", "a local client"),
    ],
)
def test_a_source_is_an_ipv4_address_or_a_64(address: str, key: str) -> None:
    assert source_key(address) == key


@pytest.mark.parametrize(
    ("host", "shown"), [("192.0.2.1", "192.0.2.1"), ("example.com", "example.com"), ("2001:db8::1", "[2001:db8::1]")]
)
def test_an_ipv6_address_has_brackets_in_a_url(host: str, shown: str) -> None:
    assert bracketed(host) == shown
    assert authority(host, 443) == f"{shown}:443"


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_is_no_name(text: str) -> None:
    assert is_address(text)
    assert not is_address(text + "x" if "%" not in text else "anna")
    assert not is_address("")
