"""Addresses in texts: which are replaced, which stay."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.bundle.address_words import replaced, tells


def shown(text: str) -> str:
    """The text with MAC and IP for what is replaced."""
    return replaced(text, lambda mac: f"MAC<{mac.replace(':', '')}>", lambda ip: f"IP<{ip}>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", "IP<8.8.8.8>"),
        ("from 8.8.8.8:443, 1.1.1.1/24 and 9.9.9.9.", "from IP<8.8.8.8>:443, IP<1.1.1.1>/24 and IP<9.9.9.9>."),
        ("10.0.0.1 192.168.7.9 127.0.0.1 100.64.1.1 192.0.2.1 224.0.0.251 0.0.0.0", None),
        ("300.1.1.1 1.2.3.4.5 6.18.44 1.2.3", None),
        ("2600:1f18::8: [2600:1f18::9]:443", "IP<2600:1f18::8>: [IP<2600:1f18::9>]:443"),
        ("2600:1F18:0:0:0:0:0:8%eth0", "IP<2600:1f18::8>%eth0"),
        ("fe80::1%eth0 fd00::7 ::1 :: ff02::1 2001:db8::1", None),
        ("fe80::b6a0:c1ff:febe:e521", "IP<fe80::b6a0:c1ff:febe:e521>"),
        ("::ffff:8.8.4.4 ::ffff:10.0.0.1", "IP<::ffff:8.8.4.4> ::ffff:10.0.0.1"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "IP<2001:0:4136:e378:8000:63bf:3fff:fdd2>"),
        ("12:34:56 std::string x::b ::", None),
        ("02:00:00:00:00:01", "MAC<020000000001>"),
        ("at 02-AB-00-00-00-01, 02ab.0000.0001", "at MAC<02ab00000001>, MAC<02ab00000001>"),
        ("ff:ff:ff:ff:ff:ff 01:80:c2:00:00:00 33:33:00:00:00:01 00:00:00:00:00:00", None),
        ("33:33:ff:00:00:01", "MAC<3333ff000001>"),
        ("enx02ab00000001 wlx02ab00000001", "enx-MAC<02ab00000001> wlx-MAC<02ab00000001>"),
        ("02:00:00:00:00:01:02 002:00:00:00:00:01", None),
    ],
)
def test_a_text(text: str, expected: str | None) -> None:
    found = shown(text)
    if "ffff:8.8" in text:
        # Python before 3.13 writes these in hexadecimal.
        found = found.replace("::ffff:808:404", "::ffff:8.8.4.4")
    assert found == (text if expected is None else expected)


@given(st.ip_addresses())
def test_every_address_that_tells_is_found(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    found = shown(f"x {address} y")
    assert (found == f"x IP<{address}> y") == tells(address)


@given(st.text("0123456789abcdef:.-%x \n[]"))
def test_no_text_is_an_error(text: str) -> None:
    shown(text)
