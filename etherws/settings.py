"""What the user may set, checked; where the CLI, the WSGI application and the client meet.

Pure: no devices, no files. The CLI's options and gunicorn's environment (ETHERWS_SERVER_DEVICE, ...) have the same
names and the same checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from etherws.errors import SettingsError

#: linux/if.h, IFNAMSIZ: 16 bytes with the closing zero.
NAME_MAX = 15

#: linux/if_ether.h, ETH_MIN_MTU; drivers/net/tun.c, MAX_MTU less the Ethernet header.
MTU_MIN, MTU_MAX = 68, 65_521

#: Seconds to wait for a peer: below that pings would be a load, and more than a day is no answer.
SHORTEST, LONGEST = 0.1, 86_400.0

#: What the kernel's isspace() takes for a blank, byte by byte, is no part of a name (net/core/dev.c, dev_valid_name).
_NAME = re.compile(rb"[^\0\t-\r \xa0/:%]+")


def check_name(option: str, name: str) -> None:
    """Raise SettingsError unless the kernel takes `name` for an interface."""
    # What is no UTF-8 on the command line comes as surrogates, which have no bytes.
    raw = name.encode(errors="replace") if name.isprintable() else b""
    if len(raw) > NAME_MAX:
        raise SettingsError(f"{option} {name!r} is longer than {NAME_MAX} bytes; choose a shorter name")
    if not _NAME.fullmatch(raw) or name in (".", ".."):
        raise SettingsError(f"{option} {name!r} is no interface name; leave out blanks and / : %")


@dataclass(frozen=True)
class DeviceSettings:
    """The TAP: `device` is a name, or a pattern with one %d for the first free number; `bridge` the bridge that it
    joins, made if need be; `mtu` in bytes, None to leave the kernel's 1,500; `wire` the newest version of the wire to
    agree on; `congestion` the outer connection's congestion control, or "auto".

    In seconds: `ping_interval` between two pings, 0 for none; `ping_timeout`, how much longer nothing may be heard;
    `carrier_timeout`, how long the interface keeps its carrier without a link, 0 for ever."""

    device: str = "ethws%d"
    bridge: str | None = None
    mtu: int | None = None
    wire: int = 2
    congestion: str = "auto"
    ping_interval: float = 20.0
    ping_timeout: float = 10.0
    carrier_timeout: float = 30.0

    def __post_init__(self) -> None:
        check_name("--device", self.device.replace("%d", "0", 1))
        if self.bridge is not None:
            check_name("--bridge", self.bridge)
        if self.mtu is not None and not MTU_MIN <= self.mtu <= MTU_MAX:
            raise SettingsError(f"--mtu {self.mtu} is out of range; choose {MTU_MIN} to {MTU_MAX}")
        if self.wire not in (1, 2):
            raise SettingsError(f"--wire {self.wire} is no version of the wire; choose 1 or 2")
        if not re.fullmatch("[a-z0-9_]{1,15}", self.congestion):
            raise SettingsError(f"--congestion {self.congestion!r} is no name of a congestion control; say auto")
        for option, value, zero in (
            ("--ping-interval", self.ping_interval, ", or 0 for no pings"),
            ("--ping-timeout", self.ping_timeout, ""),
            ("--carrier-timeout", self.carrier_timeout, ", or 0 for ever"),
        ):
            if not (SHORTEST <= value <= LONGEST or (zero and value == 0)):
                raise SettingsError(f"{option} {value:g} s is out of range; choose {SHORTEST:g} to {LONGEST:g} s{zero}")


@dataclass(frozen=True)
class ServerSettings(DeviceSettings):
    """What the WSGI application needs: the devices, and the one path that is a tunnel."""

    path: str = "/"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or set(self.path) & set("?# "):
            raise SettingsError(f"--path {self.path!r} is no path; begin with / and leave out ? and #")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerSettings:
        """The settings in ETHERWS_SERVER_DEVICE, _BRIDGE and so on, named as the fields; raises SettingsError."""
        found: dict[str, Any] = {}
        for each in fields(cls):
            name = f"ETHERWS_SERVER_{each.name.upper()}"
            if value := environ.get(name):
                parse = _PARSERS.get(each.name)
                found[each.name] = parse(name, value) if parse else value
        return cls(**found)


def duration(text: str) -> float:
    """Seconds, bare or with a unit: 20, 20s, 500ms, 5m, 1h. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)", text)
    if not found:
        raise ValueError(f"{text!r} is no duration; write 20s, 500ms, 5m or bare seconds")
    return float(found[1]) * _UNITS[found[2]]


_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _integer(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value):
        raise SettingsError(f"{name} {value!r} is no number; write digits alone")
    return int(value)


def _duration(name: str, value: str) -> float:
    try:
        return duration(value)
    except ValueError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


#: How a field is read from the environment, unless as it stands; as click does it for the options.
_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "mtu": _integer,
    "wire": _integer,
    "ping_interval": _duration,
    "ping_timeout": _duration,
    "carrier_timeout": _duration,
}


@dataclass(frozen=True)
class Retry:
    """How the client waits between attempts, in seconds: from `first`, doubled each time, up to `most`; `timeout`
    is for one attempt, name to 101."""

    first: float = 0.5
    most: float = 30.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most:
            raise SettingsError(
                f"--retry-interval {self.first:g} s must be above zero and no longer than"
                f" --max-retry-interval {self.most:g} s"
            )
        if not self.timeout > 0:
            raise SettingsError(f"--connect-timeout {self.timeout:g} s must be above zero")
