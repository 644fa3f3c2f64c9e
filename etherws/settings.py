"""What the user can configure, with its checks. The command line, the WSGI application and the client all use it.

Pure: no devices, no files. The command line's options and gunicorn's environment (ETHERWS_SERVER_DEVICE, ...) have the
same names and the same checks. Read next: cli/options.py, where the options are; config/server_settings.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from etherws import values
from etherws.addresses import Networks
from etherws.errors import SettingsError
from etherws.file_names import absolute
from etherws.tap_settings import TapSettings, check_name

#: Bytes: ETH_MIN_MTU of linux/if_ether.h; MAX_MTU of drivers/net/tun.c without the Ethernet header.
MTU_MIN, MTU_MAX = 68, 65_521

#: Seconds that one can wait for a peer. More frequent pings would be a load; after a day an answer is of no use.
WAIT_MIN, WAIT_MAX = 0.1, 86_400.0

#: Connections of one link. Beyond that a link gains nothing: each needs a queue, and a login at the server.
CONNECTIONS_MAX = 16

#: Seconds: the shortest age at which connections are replaced. An attempt to connect may take so long.
MAX_AGE_MIN = 10.0

#: Kinds of frames that can be dropped: by a policy, and by the client's --drop. docs/policy.rst says what they are.
GUARDS = frozenset({"bpdu", "dhcp-server", "router-advertisement"})

#: The pattern of a token, such as a header's name (RFC 9110, section 5.6.2).
HTTP_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

#: Headers that the user cannot set, beside Sec-WebSocket-* and Etherws-*: they would make another request of the
#: upgrade request.
_RESERVED_HEADERS = {"upgrade", "connection", "content-length", "transfer-encoding"}


def parse_header(text: str) -> tuple[str, str]:
    """The name and the value of a header for the upgrade request, from a line ``Name: value``.

    Raises SettingsError, which does not show the value: it may be a secret.
    """
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(HTTP_TOKEN, name):
        raise SettingsError("--header is malformed; write 'Name: value'")
    if not value.replace("\t", " ").isprintable():
        raise SettingsError(f"--header {name}: its value has an unprintable character")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(("sec-websocket-", "etherws-")):
        raise SettingsError(f"--header {name} is a part of the WebSocket handshake; leave it out")
    return name, value.strip(" \t")


@dataclass(frozen=True)
class DeviceSettings(TapSettings):
    """What server and client share: the TAP (TapSettings has more of it), the connection, and what is shown of
    them (Monitoring).

    `device` is the TAP's name, or a pattern in which %d stands for the first free number. `bridge` is the bridge that
    the TAP joins; it is made if it does not exist. `mtu` is in bytes; None leaves the kernel's 1,500. With `accept_ra`,
    IPv6 configures the TAP and the bridge that are made here as it does any interface. `wire` is the newest version of
    the wire format to agree on, `padding` is whether to agree on padding (tunnel/padding.py). `congestion` is TCP's
    congestion control to the other side, or "auto".

    `mac` is the Ethernet address of the first interface and of the bridge that is made for it; without it they get one
    that stays (kernel/mac.py). It is kept in the folder `state_dir`: None is the usual one, "" none. `link` is no
    option: it tells this link from others of this machine, and is where the server listens, or which server the client
    connects to.

    In seconds: `ping_interval` between two pings, 0 for no pings. `ping_timeout`: how much longer the peer may be
    silent. `carrier_timeout`: how long the interface keeps its carrier without a connection, 0 for ever.
    """

    #: "client" or "server".
    role: ClassVar[str] = ""

    device: str = "ethws%d"
    bridge: str | None = None
    mtu: int | None = None
    accept_ra: bool = False
    mac: str | None = None
    state_dir: str | None = None
    link: str = ""
    wire: int = 2
    congestion: str = "auto"
    padding: bool = True
    ping_interval: float = 20.0
    ping_timeout: float = 10.0
    carrier_timeout: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("--device", self.device.replace("%d", "0", 1))
        if self.bridge is not None:
            check_name("--bridge", self.bridge)
        if self.mtu is not None and not MTU_MIN <= self.mtu <= MTU_MAX:
            raise SettingsError(f"--mtu {self.mtu} is out of range; choose {MTU_MIN} to {MTU_MAX}")
        # The way around `frozen` that dataclasses itself takes.
        if self.mac is not None:
            try:
                object.__setattr__(self, "mac", values.ethernet(self.mac))
            except ValueError as exc:
                raise SettingsError(f"--mac {self.mac!r} {exc}") from None
        if self.state_dir is not None:
            object.__setattr__(self, "state_dir", absolute("--state-dir", self.state_dir))
        if self.wire not in (1, 2):
            raise SettingsError(f"--wire {self.wire} is not a version of the wire format; choose 1 or 2")
        if not re.fullmatch("[a-z0-9_]{1,15}", self.congestion):
            raise SettingsError(f"--congestion {self.congestion!r} is not the name of a congestion control; write auto")
        for option, value, zero in (
            ("--ping-interval", self.ping_interval, ", or 0 for no pings"),
            ("--ping-timeout", self.ping_timeout, ""),
            ("--carrier-timeout", self.carrier_timeout, ", or 0 for ever"),
        ):
            if not (WAIT_MIN <= value <= WAIT_MAX or (zero and value == 0)):
                bounds = f"choose {WAIT_MIN:g} to {WAIT_MAX:g} s{zero}"
                raise SettingsError(f"{option} {value:g} s is out of range; {bounds}")


@dataclass(frozen=True)
class ClientSettings(DeviceSettings):
    """What the client needs in addition.

    `drop`: what this LAN does not accept from the far one. Each entry is one of GUARDS, or several with commas between.
    `allow_second_link`: start even if another client links the same bridge to the same server. `connections`: how many
    WebSockets the link has. Each is replaced before it is `max_age` seconds old, 0 for never.
    """

    role = "client"

    drop: tuple[str, ...] = ()
    allow_second_link: bool = False
    connections: int = 1
    max_age: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.connections <= CONNECTIONS_MAX:
            raise SettingsError(f"--connections {self.connections} is out of range; choose 1 to {CONNECTIONS_MAX}")
        if self.max_age and not MAX_AGE_MIN <= self.max_age <= WAIT_MAX:
            bounds = f"choose {MAX_AGE_MIN:g} to {WAIT_MAX:g} s, or 0 to replace none"
            raise SettingsError(f"--max-age {self.max_age:g} s is out of range; {bounds}")
        for name in self.guards - GUARDS:
            raise SettingsError(f"--drop {name!r} is not known; choose from {', '.join(sorted(GUARDS))}")

    @property
    def guards(self) -> frozenset[str]:
        """The entries of `drop`, one by one."""
        return frozenset(name.strip() for entry in self.drop for name in entry.split(",") if name.strip())


@dataclass(frozen=True)
class ServerSettings(DeviceSettings):
    """What the WSGI application needs in addition.

    `path` is the only path that is a tunnel. `htpasswd` and `token_file` are files of passwords and tokens
    (access/credential_files.py), `policy` is a file of rules (access/policy.py). `allow_origin` lists other origins
    whose web pages may connect. The port of a lost client is kept for `resume_timeout` seconds. `trusted_proxy` lists
    the reverse proxies (networks, addresses, or "unix") that may say who their client is; with `proxy_protocol` they
    say it in the PROXY protocol. `check` is whether clients may measure the path (server/responder.py). Names of files
    become absolute.
    """

    role = "server"

    path: str = "/"
    htpasswd: str | None = None
    token_file: str | None = None
    policy: str | None = None
    allow_origin: tuple[str, ...] = ()
    resume_timeout: float = 30.0
    trusted_proxy: tuple[str, ...] = ()
    proxy_protocol: bool = False
    check: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("htpasswd", "token_file", "policy"):
            if given := getattr(self, name):
                object.__setattr__(self, name, absolute(f"--{name.replace('_', '-')}", given))
        if not self.path.startswith("/") or set(self.path) & set("?# "):
            raise SettingsError(f"--path {self.path!r} is not a path; begin with / and leave out ? # and blanks")
        for origin in self.allow_origin:
            if origin not in ("*", "null") and not re.fullmatch(
                r"[a-z][a-z0-9+.-]*://[^/\s]+/?", origin, re.IGNORECASE
            ):
                raise SettingsError(f"--allow-origin {origin!r} is not an origin; write https://HOST, or * for all")
        if self.resume_timeout < 0:
            raise SettingsError(f"--resume-timeout {self.resume_timeout:g} s must not be below zero")
        if not Networks(self.trusted_proxy) and self.proxy_protocol:
            raise SettingsError(
                "--proxy-protocol needs --trusted-proxy: name the proxies that may say who the client is"
            )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], given: Mapping[str, Any] | None = None) -> ServerSettings:
        """The settings in the environment: ETHERWS_SERVER_DEVICE, _BRIDGE and so on, one for each field; an empty
        variable counts as unset, and then `given` may have a value. Raises SettingsError."""
        found = dict(given or {})
        for each in fields(cls):
            if each.name in _NO_OPTIONS:
                continue
            name = f"ETHERWS_SERVER_{each.name.upper()}"
            if value := environ.get(name):
                parse = PARSERS.get(each.name)
                found[each.name] = parse(name, value) if parse else value
        return cls(**found)


#: Fields that no user sets, or only on a command line.
_NO_OPTIONS = {"link", "hook_user"}

#: How to read a field from the environment if it is not a text; the same as click does for the options.
PARSERS: dict[str, Callable[[str, str], Any]] = {
    "mtu": values.integer,
    "accept_ra": values.switch,
    "inet": values.words,
    "vlan": values.integer,
    "hook_net_admin": values.switch,
    "wire": values.integer,
    "padding": values.switch,
    "allow_origin": values.words,
    "resume_timeout": values.seconds,
    "trusted_proxy": values.words,
    "proxy_protocol": values.switch,
    "check": values.switch,
    "monitor_clients": values.switch,
    "ping_interval": values.seconds,
    "ping_timeout": values.seconds,
    "carrier_timeout": values.seconds,
}


@dataclass(frozen=True)
class Trust:
    """How the client verifies the server, and what it shows the server.

    `cacert` is a PEM file, or a directory of PEM files, to trust instead of the system's store. With `insecure` the
    certificate is not verified. If there are `pins` (access/certificates.py), the server's key must have one of them.
    `sni` is the name to ask for and to verify instead of the URI's. `certfile` and `keyfile` are the client's own
    certificate and key, PEM; without `keyfile` the key is in `certfile`.
    """

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
            raise SettingsError("--insecure verifies nothing, so --cacert has no effect; leave one of them out")

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that it names, None for one that is not given."""
        return self.cacert, self.certfile, self.keyfile


@dataclass(frozen=True)
class Retry:
    """How often the client tries to connect; times are in seconds.

    The wait before the next attempt is `first_wait`, and doubles each time up to `longest_wait`. One attempt may take
    `attempt_timeout`, from the look-up of the name to the 101. `after_refusal` is whether to go on after the server
    refused the client's credentials.
    """

    first_wait: float = 0.5
    longest_wait: float = 30.0
    attempt_timeout: float = 10.0
    after_refusal: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.first_wait <= self.longest_wait:
            raise SettingsError(
                f"--retry-interval {self.first_wait:g} s must be above zero and no longer than"
                f" --max-retry-interval {self.longest_wait:g} s"
            )
        if not self.attempt_timeout > 0:
            raise SettingsError(f"--connect-timeout {self.attempt_timeout:g} s must be above zero")
