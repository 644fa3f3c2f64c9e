"""What the user may set, checked; where the CLI, the WSGI application and the client meet.

Pure: no devices, no files. The CLI's options and gunicorn's environment (ETHERWS_SERVER_DEVICE, ...) have the same
names and the same checks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etherws.errors import SettingsError
from etherws.forwarded import Trusted

#: linux/if.h, IFNAMSIZ: 16 bytes with the closing zero.
NAME_MAX = 15

#: linux/if_ether.h, ETH_MIN_MTU; drivers/net/tun.c, MAX_MTU less the Ethernet header.
MTU_MIN, MTU_MAX = 68, 65_521

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
    agree on; `congestion` the outer connection's congestion control, or "auto"."""

    device: str = "ethws%d"
    bridge: str | None = None
    mtu: int | None = None
    wire: int = 2
    congestion: str = "auto"

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


@dataclass(frozen=True)
class ServerSettings(DeviceSettings):
    """What the WSGI application needs: the devices, the one path that is a tunnel, and the reverse proxies (networks,
    addresses or "unix") whose word about clients counts; with `proxy_protocol` they speak the PROXY protocol."""

    path: str = "/"
    trusted_proxy: tuple[str, ...] = ()
    proxy_protocol: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or set(self.path) & set("?# "):
            raise SettingsError(f"--path {self.path!r} is no path; begin with / and leave out ? and #")
        if not Trusted(self.trusted_proxy) and self.proxy_protocol:
            raise SettingsError("--proxy-protocol needs --trusted-proxy: whoever speaks it says who the client is")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerSettings:
        """The settings in ETHERWS_SERVER_DEVICE, _BRIDGE, _MTU, _WIRE, _CONGESTION, _PATH, _TRUSTED_PROXY (by blanks)
        and _PROXY_PROTOCOL; raises SettingsError."""
        found: dict[str, Any] = {}
        for key in ("device", "bridge", "mtu", "wire", "congestion", "path", "trusted_proxy", "proxy_protocol"):
            name = f"ETHERWS_SERVER_{key.upper()}"
            value = environ.get(name)
            if not value:
                continue
            if key == "trusted_proxy":
                found[key] = tuple(value.split())
            elif key == "proxy_protocol":
                found[key] = _switch(name, value)
            elif key not in ("mtu", "wire"):
                found[key] = value
            elif re.fullmatch("[0-9]{1,9}", value):
                found[key] = int(value)
            else:
                choice = f"{MTU_MIN} to {MTU_MAX}" if key == "mtu" else "1 or 2"
                raise SettingsError(f"{name} {value!r} is no number; choose {choice}")
        return cls(**found)


def _switch(name: str, value: str) -> bool:
    """The words that click knows too."""
    word = value.strip().lower()
    if word in ("1", "true", "t", "yes", "y", "on"):
        return True
    if word in ("0", "false", "f", "no", "n", "off"):
        return False
    raise SettingsError(f"{name} {value!r} is neither yes nor no; write 1 or 0")


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
