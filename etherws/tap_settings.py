"""What the user can configure of an interface itself: its name, its IP addresses, and the programs that run for it.

Pure: no devices. server and client have these options in common. Read next: settings.py, whose settings have these;
kernel/inet.py, which gives the addresses; hooks/queue.py, which runs the programs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from etherws.errors import SettingsError, printable
from etherws.file_names import absolute
from etherws.monitoring import Monitoring

#: Bytes of an interface's name: IFNAMSIZ of linux/if.h is 16, with the zero byte at the end.
NAME_MAX = 15

#: IP addresses of one interface: more than anybody types.
ADDRESSES_MAX = 32

#: Numbers of VLANs (IEEE 802.1Q, table 9-2): 0 is no VLAN, and 4,095 is reserved.
VLAN_MIN, VLAN_MAX = 1, 4094

#: An interface's name. The kernel allows no byte that its isspace() takes for a blank (net/core/dev.c, dev_valid_name).
_INTERFACE_NAME = re.compile(rb"[^\0\t-\r \xa0/:%]+")

_EXAMPLE = "write ADDRESS/PREFIX, as in 192.0.2.2/24 or 2001:db8::2/64"

#: An IP address with the prefix of its network.
InetAddress = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, kw_only=True)
class TapSettings(Monitoring):
    """`inet` are the IP addresses, each with a prefix, of the interface, or of the bridge that `bridge` names.
    `vlan` is the VLAN in which its bridge has untagged frames of it, and no others; None leaves that to the bridge.

    `up`, `down` and `change` are programs: docs/interface.rst says when they run. They run as etherws does, or as
    `hook_user`: a name, and the numbers of the user and the group. With `hook_net_admin` they have CAP_NET_ADMIN."""

    inet: tuple[str, ...] = ()
    vlan: int | None = None
    up: str | None = None
    down: str | None = None
    change: str | None = None
    hook_user: tuple[str, int, int] | None = None
    hook_net_admin: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        # The way around `frozen` that dataclasses itself takes.
        object.__setattr__(self, "inet", tuple(map(str, _addresses("--inet", self.inet))))
        if self.vlan is not None and not VLAN_MIN <= self.vlan <= VLAN_MAX:
            raise SettingsError(f"--vlan {self.vlan} is not the number of a VLAN; choose {VLAN_MIN} to {VLAN_MAX}")
        for name, given in self.programs().items():
            object.__setattr__(self, name, absolute(f"--{name}", given))

    def programs(self) -> dict[str, str]:
        """The programs that are set, by the names of their options without dashes."""
        return {name: path for name in ("up", "down", "change") if (path := getattr(self, name))}


def check_name(option: str, name: str) -> None:
    """Raise SettingsError unless the kernel accepts `name` as an interface's name. `option` begins the message."""
    # Bytes of the command line that are not UTF-8 come as surrogates, which cannot be encoded.
    raw = name.encode(errors="replace") if name.isprintable() else b""
    if len(raw) > NAME_MAX:
        raise SettingsError(f"{option} {name!r} is longer than {NAME_MAX} bytes; choose a shorter name")
    if not _INTERFACE_NAME.fullmatch(raw) or name in (".", ".."):
        raise SettingsError(f"{option} {name!r} is not a valid interface name; leave out blanks and / : %")


def inet_address(option: str, text: str) -> InetAddress:
    """The address of a text such as ``192.0.2.2/24``, for one interface. Raises SettingsError, which begins with
    `option`."""
    words = f"{option} {printable(text[:64])!r}"
    address, slash, prefix = text.partition("/")
    if not slash:
        raise SettingsError(f"{words} has no prefix; {_EXAMPLE}")
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        raise SettingsError(f"{words} is not an IP address with a prefix; {_EXAMPLE}") from None
    if "%" in address:
        raise SettingsError(f"{words} names an interface; leave out % and what follows")
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > host.max_prefixlen:
        bounds = f"the prefix of an IPv{host.version} address is a number from 1 to {host.max_prefixlen}"
        raise SettingsError(f"{words}: {bounds}; {_EXAMPLE}")
    found = ipaddress.ip_interface((host, int(prefix)))
    network = found.network
    of_four = isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped
    everyone = str(host) == "255.255.255.255"
    if host.is_unspecified or host.is_multicast or host.is_loopback or of_four or everyone or not int(prefix):
        raise SettingsError(f"{words} is not the address of one machine on a LAN; {_EXAMPLE}")
    # RFC 3021: a network of two addresses has neither. IPv6 has no broadcast; its first address is the routers'.
    if network.num_addresses > 2 and host in {network.network_address, *_broadcast(network)}:
        raise SettingsError(f"{words} is the address of the network {network} itself; choose another one in it")
    return found


def _broadcast(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[object]:
    if isinstance(network, ipaddress.IPv4Network):
        yield network.broadcast_address


def _addresses(option: str, texts: Iterable[str]) -> Iterator[InetAddress]:
    seen = set[object]()
    for text in texts:
        found = inet_address(option, text.strip())
        if found.ip in seen:
            raise SettingsError(f"{option} {found.ip} is given twice; leave one of them out")
        seen.add(found.ip)
        if len(seen) > ADDRESSES_MAX:
            raise SettingsError(f"{option} is given more than {ADDRESSES_MAX} times; one interface needs fewer")
        yield found
