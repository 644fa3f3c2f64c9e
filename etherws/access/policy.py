"""What each client may do on the LAN: read and check the policy file.

Pure: says what applies to whom; kernel/port_filter.py enforces it. A policy is TOML: a table [default] for everyone,
and tables [client."NAME"] that change it for one identity. A mistake is reported with its line. The file's reference is
docs/policy.rst. Read next: toml_lines.py, which finds the lines; settings.py, which checks names and MTUs.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from etherws.access import toml_lines
from etherws.errors import PolicyError, SettingsError, TomlError, printable
from etherws.settings import MTU_MAX, MTU_MIN, check_name

#: Bytes of a policy file: room for thousands of clients.
SIZE_MAX = 1 << 20

#: net/bridge/br_private.h, BR_MAX_PORTS: a bridge has no more ports than this.
CONNECTIONS_MAX = 1024

#: Source addresses of one client: far more than one hypervisor has virtual machines.
MACS_MAX = 65_536

#: Bits per second. At the lowest rate a full frame takes 0.8 s, less than TCP's first time-out of 1 s (RFC 6298,
#: section 2).
RATE_MIN, RATE_MAX = 16_000, 1_000_000_000_000

_UNITS = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}

#: Kinds of frames from a client that can be dropped.
GUARDS = frozenset({"bpdu", "dhcp-server", "router-advertisement"})


@dataclass(frozen=True)
class Profile:
    """What applies to one client.

    `connect` is False for a client that is refused. `bridge`, `device` and `mtu` are as in DeviceSettings; with None
    the server's options apply. `connections` may be open at once. `macs` is the number of source addresses that may be
    in use, or the set of them ("02:00:00:00:00:01"). `rate_up`, from the client to the LAN, and `rate_down` are in bits
    per second; None is no limit. `isolated` clients cannot reach each other. `drop` has names from GUARDS.
    """

    connect: bool = True
    bridge: str | None = None
    device: str | None = None
    mtu: int | None = None
    connections: int = 1
    macs: int | frozenset[str] = 256
    rate_up: int | None = None
    rate_down: int | None = None
    isolated: bool = False
    drop: frozenset[str] = frozenset()

    def summary(self) -> str:
        """One line for the user."""
        if not self.connect:
            return "refused"
        places = {"bridge": self.bridge, "device": self.device, "MTU": self.mtu}
        words = [f"{key} {value}" for key, value in places.items() if value is not None]
        words.append(f"{self.connections} connection{'s' * (self.connections > 1)} at once")
        limit, count = ("at most", self.macs) if isinstance(self.macs, int) else ("only the named", len(self.macs))
        words.append(f"{limit} {count} MAC address{'es' * (count > 1)}")
        rates = {"up": self.rate_up, "down": self.rate_down}
        words += [f"{key} {rate / _UNITS['M']:g} Mbit/s" for key, rate in rates.items() if rate is not None]
        if self.isolated:
            words.append("isolated")
        if self.drop:
            words.append(f"drops {' '.join(sorted(self.drop))}")
        return ", ".join(words)


@dataclass(frozen=True)
class Policy:
    """Which profile applies to whom: `clients` by identity, `default` to everyone else."""

    default: Profile
    clients: Mapping[str, Profile]

    def profile(self, identity: str | None) -> Profile:
        """The profile of this identity; None is a client without one (no user, no certificate)."""
        return self.default if identity is None else self.clients.get(identity, self.default)


#: The policy that applies without a policy file.
DEFAULT = Policy(Profile(), {})


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in the file at `path`. Raises PolicyError."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(SIZE_MAX + 1)
    except OSError as exc:
        raise PolicyError(f"cannot read policy {name}: {exc.strerror}; name a file that can be read") from exc
    if len(raw) > SIZE_MAX:
        raise PolicyError(f"policy {name} is larger than {SIZE_MAX} bytes; is it the right file?")
    try:
        # "-sig": some editors write a byte order mark at the beginning.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise PolicyError(f"{name}:{line}: not UTF-8; save the file in that encoding") from exc
    return parse(text, name)


def parse(text: str, name: str) -> Policy:
    """The policy in `text`. Raises PolicyError, which begins with the file's `name` and the line."""
    try:
        return _policy(toml_lines.loads(text))
    except TomlError as exc:
        raise PolicyError(f"{name}:{exc.line}: {exc}") from None
    except _Mistake as exc:
        raise PolicyError(f"{name}:{toml_lines.line_of(text, exc.path)}: {exc}") from None


class _Mistake(Exception):
    """A wrong key or value; `path` are the keys that lead to it."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def _policy(document: dict[str, Any]) -> Policy:
    for key in document:
        if key in _KEYS:
            raise _Mistake((key,), f'{key} is outside of the tables; put it below [default] or [client."NAME"]')
        if key not in ("default", "client"):
            raise _Mistake((key,), _unknown("table", key, ("default", "client")))
    default = _profile(("default",), document.get("default", {}), Profile())
    clients = document.get("client", {})
    if not isinstance(clients, dict):
        raise _Mistake(("client",), 'client is not a table; write [client."NAME"] above a client\'s keys')
    if "" in clients:
        raise _Mistake(("client", ""), 'a client without a name; write [client."NAME"]')
    return Policy(default, {name: _profile(("client", name), table, default) for name, table in clients.items()})


def _profile(path: tuple[str, ...], table: Any, base: Profile) -> Profile:
    """`base` with the values of a table in place of its own."""
    if not isinstance(table, dict):
        raise _Mistake(
            path, f'{_quoted(path[-1])} is not a table; write [default] or [client."NAME"] above a client\'s keys'
        )
    found: dict[str, Any] = {}
    for key, value in table.items():
        try:
            if key in _KEYS:
                found[key.replace("-", "_")] = _KEYS[key](key, value)
            elif isinstance(value, dict):
                raise SettingsError(f"unknown table {_quoted(key)}; put a name with dots in quotes")
            else:
                raise SettingsError(_unknown("key", key, _KEYS))
        except SettingsError as exc:
            raise _Mistake((*path, key), str(exc)) from None
    return replace(base, **found)


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


def _number(low: int, high: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        # Not isinstance(): a bool is an int. The value is not shown: it may have more digits than Python prints.
        if type(value) is not int or not low <= value <= high:
            raise SettingsError(f"{key} must be a number from {low} to {high}; write it without quotes")
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
        raise SettingsError(f'{_quoted(text)} in {key} is not a MAC address; write it as "02:00:00:00:00:01"')
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
            raise SettingsError(_unknown(f"entry of {key}", item, sorted(GUARDS)))
    return frozenset(value)


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{key} is not a list of texts; put each in quotes, and all in brackets")
    return value


#: Every key of a table, and the function that checks its value: it gets the key and the value, and returns the value of
#: the Profile's field. It raises SettingsError.
_KEYS: dict[str, Callable[[str, Any], Any]] = {
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
}


def _quoted(text: str) -> str:
    return printable(repr(text))


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:64], known, 1, 0.5)
    return f"unknown {kind} {_quoted(word)}; " + (f"is it {near[0]}?" if near else f"choose one of {', '.join(known)}")
