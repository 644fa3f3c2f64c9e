"""What each client may do on the LAN: read and check the policy file.

Pure: says what applies to whom; kernel/port_filter.py enforces it. A policy is TOML: a table [default] for everyone,
and tables [client."NAME"] that change it for one identity. A mistake is reported with its line. The file's reference is
docs/policy.rst. Read next: policy_values.py, which checks the values; toml_lines.py, which finds the lines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from etherws.access import toml_lines
from etherws.access.policy_values import KEYS, Network, quoted, unknown
from etherws.errors import PolicyError, SettingsError, TomlError, printable
from etherws.small_files import changeable_by_all, read_file

#: Bytes of a policy file: room for thousands of clients.
SIZE_MAX = 1 << 20


@dataclass(frozen=True)
class Profile:
    """What applies to one client.

    `connect` is False for a client that is refused. `bridge`, `device` and `mtu` are as in DeviceSettings; with None
    the server's options apply. `connections` may be open at once. `macs` is the number of source addresses that may be
    in use, or the set of them ("02:00:00:00:00:01"). `rate_up`, from the client to the LAN, and `rate_down` are in bits
    per second; None is no limit. `isolated` clients cannot reach each other. `drop` has names from GUARDS. `addresses`
    are the IP addresses and networks that may be sources; None is any. `group_rate` broadcast and multicast frames may
    come per second, over all connections together; None is no limit. `up`, `down` and `change` are programs that run
    in place of the server's; "" is none. `vlan` is the VLAN of its untagged frames, `vlans` are those whose tags may
    pass; with neither the bridge decides.
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
    addresses: frozenset[Network] | None = None
    group_rate: int | None = None
    up: str | None = None
    down: str | None = None
    change: str | None = None
    vlan: int | None = None
    vlans: frozenset[int] = frozenset()

    def summary(self) -> str:
        """One line for the user."""
        if not self.connect:
            return "refused"
        places = {"bridge": self.bridge, "device": self.device, "MTU": self.mtu}
        words = [f"{key} {value}" for key, value in places.items() if value is not None]
        words.append(f"{self.connections} connection{'s' * (self.connections > 1)} at once")
        limit, count = ("at most", self.macs) if isinstance(self.macs, int) else ("only the named", len(self.macs))
        words.append(f"{limit} {count} MAC address{'es' * (count > 1)}")
        if self.addresses is not None:
            words.append(f"only the named {len(self.addresses)} IP address{'es' * (len(self.addresses) > 1)}")
        rates = {"up": self.rate_up, "down": self.rate_down}
        words += [f"{key} {rate / 1e6:g} Mbit/s" for key, rate in rates.items() if rate is not None]
        if self.group_rate is not None:
            words.append(f"at most {self.group_rate} broadcasts and multicasts per second")
        if self.vlan is not None:
            words.append(f"VLAN {self.vlan}")
        if self.vlans:
            words.append(f"tags of {len(self.vlans)} VLAN{'s' * (len(self.vlans) > 1)}")
        if self.isolated:
            words.append("isolated")
        words += [f"{key} {printable(path)}" for key in ("up", "down", "change") if (path := getattr(self, key))]
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


def load(path: str | os.PathLike[str], usual: Profile | None = None) -> Policy:
    """The policy in the file at `path`; `usual` has the values that it leaves out. Raises PolicyError."""
    name = os.fspath(path)
    try:
        raw = read_file(name, SIZE_MAX + 1)
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
    if not text.strip():
        # As a file is for a moment that is written anew, and after a full disk: nobody would have a rule.
        raise PolicyError(f"policy {name} is empty; was it written to its end? A comment makes it a policy of nothing")
    found = parse(text, name, usual)
    # Who can write one into the file has etherws run it.
    if any(each.up or each.down or each.change for each in (found.default, *found.clients.values())) and (
        open_ := changeable_by_all(name)
    ):
        raise PolicyError(f"{name} names programs, and can be changed by every user of this machine; chmod o-w {open_}")
    return found


def parse(text: str, name: str, usual: Profile | None = None) -> Policy:
    """The policy in `text`, as load(). Raises PolicyError, which begins with the file's `name` and the line."""
    try:
        return _policy(toml_lines.loads(text), usual or Profile())
    except TomlError as exc:
        raise PolicyError(f"{name}:{exc.line}: {exc}") from None
    except _Mistake as exc:
        raise PolicyError(f"{name}:{toml_lines.line_of(text, exc.path)}: {exc}") from None


class _Mistake(Exception):
    """A wrong key or value; `path` are the keys that lead to it."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def _policy(document: dict[str, Any], usual: Profile) -> Policy:
    for key in document:
        if key in KEYS:
            raise _Mistake((key,), f'{key} is outside of the tables; put it below [default] or [client."NAME"]')
        if key not in ("default", "client"):
            raise _Mistake((key,), unknown("table", key, ("default", "client")))
    default = _profile(("default",), document.get("default", {}), usual)
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
            path, f'{quoted(path[-1])} is not a table; write [default] or [client."NAME"] above a client\'s keys'
        )
    found: dict[str, Any] = {}
    for key, value in table.items():
        try:
            if key in KEYS:
                found[key.replace("-", "_")] = KEYS[key](key, value)
            elif isinstance(value, dict):
                raise SettingsError(f"unknown table {quoted(key)}; put a name with dots in quotes")
            else:
                raise SettingsError(unknown("key", key, KEYS))
        except SettingsError as exc:
            raise _Mistake((*path, key), str(exc)) from None
    return replace(base, **found)
