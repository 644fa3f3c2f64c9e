"""What the user may set, checked; where the CLI, the WSGI application and the client meet.

Pure: no devices, no files. The CLI's options and gunicorn's environment (ETHERWS_SERVER_DEVICE, ...) have the same
names and the same checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from etherws.addresses import Networks
from etherws.errors import SettingsError

#: linux/if.h, IFNAMSIZ: 16 bytes with the closing zero.
NAME_MAX = 15

#: linux/if_ether.h, ETH_MIN_MTU; drivers/net/tun.c, MAX_MTU less the Ethernet header.
MTU_MIN, MTU_MAX = 68, 65_521

#: Seconds to wait for a peer: below that pings would be a load, and more than a day is no answer.
SHORTEST, LONGEST = 0.1, 86_400.0

#: What the kernel's isspace() takes for a blank, byte by byte, is no part of a name (net/core/dev.c, dev_valid_name).
_NAME = re.compile(rb"[^\0\t-\r \xa0/:%]+")

#: A token of HTTP, as a pattern: the name of a header, for example (RFC 9110, section 5.6.2).
HTTP_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

#: Headers that --header may not set: they would change the meaning of the upgrade request.
_OWN_HEADERS = {"upgrade", "connection", "content-length", "transfer-encoding"}


def check_name(option: str, name: str) -> None:
    """Raise SettingsError unless the kernel takes `name` for an interface."""
    # What is no UTF-8 on the command line comes as surrogates, which have no bytes.
    raw = name.encode(errors="replace") if name.isprintable() else b""
    if len(raw) > NAME_MAX:
        raise SettingsError(f"{option} {name!r} is longer than {NAME_MAX} bytes; choose a shorter name")
    if not _NAME.fullmatch(raw) or name in (".", ".."):
        raise SettingsError(f"{option} {name!r} is no interface name; leave out blanks and / : %")


def parse_header(text: str) -> tuple[str, str]:
    """The name and the value in a line ``Name: value`` for the upgrade request. Raises SettingsError, which does not
    show the value: it may be a secret."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(HTTP_TOKEN, name):
        raise SettingsError("--header is no header; write 'Name: value'")
    if not value.replace("\t", " ").isprintable():
        raise SettingsError(f"--header {name}: there is an unprintable character in its value")
    if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
        raise SettingsError(f"--header {name} belongs to the handshake; leave it out")
    return name, value.strip(" \t")


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
    """What the WSGI application needs: the devices, the one path that is a tunnel, and who may come: the files of
    passwords, tokens (access/credential_files.py) and rules (access/policy.py), and the origins of web pages from
    elsewhere. The port of a lost client is kept for `resume_timeout` seconds. The word of the reverse proxies in
    `trusted_proxy` (networks, addresses or "unix") about their clients counts; with `proxy_protocol` they speak the
    PROXY protocol."""

    path: str = "/"
    htpasswd: str | None = None
    token_file: str | None = None
    policy: str | None = None
    allow_origin: tuple[str, ...] = ()
    resume_timeout: float = 30.0
    trusted_proxy: tuple[str, ...] = ()
    proxy_protocol: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or set(self.path) & set("?# "):
            raise SettingsError(f"--path {self.path!r} is no path; begin with / and leave out ? and #")
        for origin in self.allow_origin:
            if origin not in ("*", "null") and not re.fullmatch(
                r"[a-z][a-z0-9+.-]*://[^/\s]+/?", origin, re.IGNORECASE
            ):
                raise SettingsError(f"--allow-origin {origin!r} is no origin; write https://HOST, or * for all")
        if self.resume_timeout < 0:
            raise SettingsError(f"--resume-timeout {self.resume_timeout:g} s must not be below zero")
        if not Networks(self.trusted_proxy) and self.proxy_protocol:
            raise SettingsError("--proxy-protocol needs --trusted-proxy: whoever speaks it says who the client is")

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


def _switch(name: str, value: str) -> bool:
    """The words that click knows too."""
    word = value.strip().lower()
    if word in ("1", "true", "t", "yes", "y", "on"):
        return True
    if word in ("0", "false", "f", "no", "n", "off"):
        return False
    raise SettingsError(f"{name} {value!r} is neither yes nor no; write 1 or 0")


def _words(_: str, value: str) -> tuple[str, ...]:
    return tuple(value.split())


#: How a field is read from the environment, unless as it stands; as click does it for the options.
_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "mtu": _integer,
    "wire": _integer,
    "allow_origin": _words,
    "resume_timeout": _duration,
    "trusted_proxy": _words,
    "proxy_protocol": _switch,
    "ping_interval": _duration,
    "ping_timeout": _duration,
    "carrier_timeout": _duration,
}


@dataclass(frozen=True)
class Trust:
    """Whom the client takes for the server, and what it shows in turn: `cacert`, a PEM file or a directory of them to
    trust instead of the system's store; `pins`, of which the server's key must have one (access/certificates.py);
    `sni`, the name to ask for and to verify instead of the URI's; `certfile` and `keyfile`, the client's own, PEM."""

    cacert: str | None = None
    insecure: bool = False
    pins: frozenset[str] = frozenset()
    sni: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __post_init__(self) -> None:
        if self.keyfile and not self.certfile:
            raise SettingsError("--keyfile needs --certfile as well")
        if self.insecure and self.cacert:
            raise SettingsError("--insecure verifies nothing, so --cacert is of no use; leave one of them out")

    @property
    def files(self) -> tuple[str | None, ...]:
        """What it is read from."""
        return self.cacert, self.certfile, self.keyfile


@dataclass(frozen=True)
class Retry:
    """How the client waits between attempts, in seconds: from `first`, doubled each time, up to `most`; `timeout`
    is for one attempt, name to 101. `refused` is whether to go on after the server refused our credentials."""

    first: float = 0.5
    most: float = 30.0
    timeout: float = 10.0
    refused: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most:
            raise SettingsError(
                f"--retry-interval {self.first:g} s must be above zero and no longer than"
                f" --max-retry-interval {self.most:g} s"
            )
        if not self.timeout > 0:
            raise SettingsError(f"--connect-timeout {self.timeout:g} s must be above zero")
