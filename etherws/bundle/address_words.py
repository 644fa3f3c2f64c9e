"""Addresses in a text, and which of them tell strangers something: public IP addresses, and Ethernet addresses.

Pure. Private addresses say nothing outside of their network. Read next: redaction.py, which replaces the others.
Sources: RFC 1918, RFC 4291 (appendix A: interface IDs made of Ethernet addresses), RFC 6890.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

#: The forms of an Ethernet address: with colons or dashes, as of Cisco, and in names that systemd gives (enx...).
_MAC = re.compile(
    r"(?<![0-9A-Fa-f:.-])(?:[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}"
    r"|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})(?![0-9A-Fa-f]|[:-][0-9A-Fa-f])"
)
_NAME_WITH_MAC = re.compile(r"\b(enx|wlx|wwx)([0-9a-f]{12})\b")

_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")

#: What may be an IPv6 address; two colons at least. The rest is for the ipaddress module.
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)"
    r"(?:[0-9A-Fa-f:]{2,39}:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f:]{2,39})"
)

#: In one pass: an address that has replaced another one is not looked at again.
_IP = re.compile(f"{_IPV6.pattern}|{_IPV4.pattern}")


def replaced(text: str, ethernet: Callable[[str], str], ip: Callable[[str], str]) -> str:
    """The text with each address that tells something replaced: by `ethernet` of it, as 02:00:00:00:00:01, or by `ip`
    of it, in its usual form."""

    def mac(match: re.Match[str]) -> str:
        digits = re.sub("[^0-9a-f]", "", match[0].lower())
        return match[0] if _is_of_a_group(digits) else ethernet(_colons(digits))

    def address(match: re.Match[str]) -> str:
        found = match[0]
        # A colon may follow the address, as in 2001:db8::1: and be no part of it.
        rest = ":" if found.endswith(":") and not found.endswith("::") else ""
        try:
            parsed = ipaddress.ip_address(found.removesuffix(rest) if rest else found)
        except ValueError:
            return found
        return ip(str(parsed)) + rest if tells(parsed) else found

    text = _NAME_WITH_MAC.sub(lambda match: f"{match[1]}-{ethernet(_colons(match[2]))}", text)
    return _IP.sub(address, _MAC.sub(mac, text))


def tells(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address tells who or where somebody is: it is public, or has an Ethernet address or a public one in
    it."""
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return tells(address.ipv4_mapped)
        if address.teredo is not None or address.packed[11:13] == b"\xff\xfe":
            return True
    return address.is_global


def _colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _is_of_a_group(digits: str) -> bool:
    """Whether this is no machine's address: none, or that of a group; but solicited nodes' have three bytes of one."""
    return digits == "0" * 12 or (bool(int(digits[1], 16) & 1) and not digits.startswith("3333ff"))
