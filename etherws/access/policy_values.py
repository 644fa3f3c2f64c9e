"""The keys of a policy's tables, and the check of each value: what may be written, and what it means.

Pure. policy.py reads the file, and says on which line a mistake is. docs/policy.rst is the reference of the keys. Read
next: settings.py, which checks names and MTUs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from etherws.errors import SettingsError, printable
from etherws.settings import GUARDS, MTU_MAX, MTU_MIN
from etherws.tap_settings import VLAN_MAX, VLAN_MIN, check_name

#: net/bridge/br_private.h, BR_MAX_PORTS: a bridge has no more ports than this.
CONNECTIONS_MAX = 1024

#: Source addresses of one client: far more than one hypervisor has virtual machines.
MACS_MAX = 65_536

#: Entries of `addresses`: several for each virtual machine of one hypervisor.
ADDRESSES_MAX = 4_096

#: Broadcast and multicast frames per second: as many as a tunnel carries.
GROUP_RATE_MAX = 1_000_000

#: Characters of a program's path: PATH_MAX of include/uapi/linux/limits.h, with the zero byte at the end.
PATH_MAX = 4095

#: Bits per second. At the lowest rate a full frame takes 0.8 s, less than TCP's first time-out of 1 s (RFC 6298,
#: section 2).
RATE_MIN, RATE_MAX = 16_000, 1_000_000_000_000

_UNITS = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}

Network = IPv4Network | IPv6Network


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} is not true or false; write one of them without quotes")
    return value


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{key} is not a text; put the name in quotes")
    name = value.replace("%d", "0", 1) if key == "device" else value
    # Shortened for the message; the limit of a name is far below.
    check_name(key, name[:64])
    return value


def _number(low: int, high: int, more: str = "") -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        # Not isinstance(): a bool is an int. The value is not shown: it may have more digits than Python prints.
        if type(value) is not int or not low <= value <= high:
            raise SettingsError(f"{key} must be a number from {low} to {high}{more}; write it without quotes")
        return value

    return check


def _macs(key: str, value: Any) -> int | frozenset[str]:
    if not isinstance(value, list):
        return _number(1, MACS_MAX)(key, value)
    if not value:
        raise SettingsError(f"{key} is empty; name an address, or refuse the client with connect = false")
    return frozenset(_mac(key, item) for item in _texts(key, value))


def _mac(key: str, text: str) -> str:
    address = text.lower().replace("-", ":")
    if not re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", address):
        raise SettingsError(f'{quoted(text)} in {key} is not a MAC address; write it as "02:00:00:00:00:01"')
    # IEEE 802.3, section 3.2.3: the lowest bit of the first byte marks a group address, which no frame is sent from.
    if int(address[:2], 16) & 1 or address == "00:00:00:00:00:00":
        raise SettingsError(f"{address} in {key} is not the address of one machine; name one with an even first byte")
    return address


def _rate(key: str, value: Any) -> int | None:
    if value == "unlimited":
        return None
    found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,9})?) ?([kMG])bit/s", value) if isinstance(value, str) else None
    if not found:
        raise SettingsError(
            f'{key} is not a rate; write a number and kbit/s, Mbit/s or Gbit/s, as in "100 Mbit/s", or "unlimited"'
        )
    rate = int(Decimal(found[1]) * _UNITS[found[2]])
    if not RATE_MIN <= rate <= RATE_MAX:
        raise SettingsError(f"{key} {value!r} is out of range; choose 16 kbit/s to 1000 Gbit/s")
    return rate


def _drop(key: str, value: Any) -> frozenset[str]:
    for item in _texts(key, value):
        if item not in GUARDS:
            raise SettingsError(unknown(f"entry of {key}", item, sorted(GUARDS)))
    return frozenset(value)


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{key} is not a list of texts; put each in quotes, and all in brackets")
    return value


def _addresses(key: str, value: Any) -> frozenset[Network] | None:
    if value == "any":
        return None
    listed = _texts(key, value)
    if not listed:
        raise SettingsError(f'{key} is empty; name an address, or write "any"')
    if len(listed) > ADDRESSES_MAX:
        raise SettingsError(f"{key} has more than {ADDRESSES_MAX} entries; name networks instead of addresses")
    return frozenset(_network(key, item) for item in listed)


def _network(key: str, text: str) -> Network:
    try:
        # An address of one host is a network of one address. A zone ("%eth0") is this machine's own name for a link.
        network = ip_network("" if "%" in text else text, strict=False)
    except ValueError:
        example = '"192.0.2.7", "192.0.2.0/24" or "2001:db8::/64"'
        raise SettingsError(f"{quoted(text)} in {key} is not an IP address or network; write {example}") from None
    if network.network_address != ip_address(text.partition("/")[0]):
        raise SettingsError(f"{quoted(text)} in {key} has bits behind its prefix; is it {network}?")
    return network


def _group_rate(key: str, value: Any) -> int | None:
    return None if value == "unlimited" else _number(1, GROUP_RATE_MAX, ', or "unlimited"')(key, value)


def _vlan(key: str, value: Any) -> int | None:
    return None if value == "bridge" else _number(VLAN_MIN, VLAN_MAX, ', or "bridge"')(key, value)


def _vlans(key: str, value: Any) -> frozenset[int]:
    if not isinstance(value, list):
        raise SettingsError(f"{key} is not a list; put the numbers of VLANs in brackets")
    return frozenset(_number(VLAN_MIN, VLAN_MAX)(key, item) for item in value)


def _program(key: str, value: Any) -> str:
    if not isinstance(value, str) or (value and not (value.startswith("/") and value.isprintable())):
        raise SettingsError(f'{key} is not a program; write its whole path in quotes, or "" for none')
    if len(value) > PATH_MAX:
        raise SettingsError(f"{key} is longer than {PATH_MAX} characters; choose a shorter path")
    return value


#: Every key of a table, and the function that checks its value: it gets the key and the value, and returns the value of
#: the Profile's field. It raises SettingsError.
KEYS: dict[str, Callable[[str, Any], Any]] = {
    "connect": _flag,
    "bridge": _name,
    "device": _name,
    "mtu": _number(MTU_MIN, MTU_MAX),
    "connections": _number(1, CONNECTIONS_MAX),
    "macs": _macs,
    "rate-up": _rate,
    "rate-down": _rate,
    "isolated": _flag,
    "drop": _drop,
    "addresses": _addresses,
    "group-rate": _group_rate,
    "vlan": _vlan,
    "vlans": _vlans,
    "up": _program,
    "down": _program,
    "change": _program,
}


def quoted(text: str) -> str:
    """The text in quotes, without control characters."""
    return printable(repr(text))


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The message for a `kind` of word that is none of the `known` ones."""
    near = difflib.get_close_matches(word[:64].lower(), known, 1, 0.5)
    return f"unknown {kind} {quoted(word)}; " + (f"is it {near[0]}?" if near else f"choose one of {', '.join(known)}")
