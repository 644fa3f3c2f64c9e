"""What tells this machine from others: its machine ID and the addresses of its Ethernet cards, or what else differs.

Machines that were cloned share the ID and all files, so a card's address counts, too. A container or a network
namespace has no card; what tells it from its clones is less lasting. Everything is read once, at the start. The clock
does not count: it may be at 1970. Read next: mac.py. Sources: machine-id(5), include/uapi/linux/if_link.h, if_arp.h.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.small_files import read_file

#: Where the machine's ID is; the second one is from before systemd.
MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")
#: Another one at each start of the kernel.
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NETWORK_NAMESPACE = "/proc/self/ns/net"

#: Bytes of such a file that are read.
_SIZE = 128

#: include/uapi/linux/if_arp.h
ARPHRD_ETHER = 1

#: What a container's or a namespace's own interface may be. Others, such as bridges, come and go, or change.
_CONTAINERS = frozenset({"veth", "macvlan", "ipvlan", "netkit"})

#: How many interfaces count: a hypervisor has thousands.
_COUNTED = 64


class Card(NamedTuple):
    """An Ethernet interface. Those that last longest come first when they are sorted."""

    #: Plugged in by USB: it may come and go. False if the kernel is older than Linux 5.14.
    usb: bool
    #: Whether it has no address of its own, as some virtual ones: another one at each start. True before Linux 5.6.
    borrowed: bool
    address: str


def identities(machine_ids: Iterable[str] = MACHINE_ID, boot_id: str = BOOT_ID) -> list[str]:
    """Texts of which each tells this machine from others; at least one, the most lasting first. What was made by one
    of them is of this machine as long as that one is among them."""
    machine = _machine_id(machine_ids)
    cards, virtual = _interfaces()
    if cards:
        return [f"{machine} {card.address}" for card in cards]
    # Clones may have the same names and addresses on two hosts, but not since the same start of the kernel. After
    # another start nobody remembers an address.
    here = f"{machine} {_line(boot_id)} {socket.gethostname()}"
    return [f"{here} {card.address}" for card in virtual] or [f"{here} {os.stat(NETWORK_NAMESPACE).st_ino}"]


def _machine_id(paths: Iterable[str]) -> str:
    """The machine's ID; empty if it has none, or if it gets one only later ("uninitialized")."""
    return next((found for found in map(_line, paths) if re.fullmatch("[0-9a-f]{32}", found)), "")


def _line(path: str | Path) -> str:
    with contextlib.suppress(OSError):
        return read_file(path, _SIZE).decode(errors="replace").strip()
    return ""


def _interfaces() -> tuple[list[Card], list[Card]]:
    """The real ones, and the virtual ones of containers."""
    real: list[Card] = []
    virtual: list[Card] = []
    with contextlib.suppress(DeviceError), interfaces.netlink("look at the interfaces") as route:
        for link in route.link("dump"):
            if link["ifi_type"] != ARPHRD_ETHER or not link.get("address"):
                continue
            kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            if kind is None:
                real.append(_card(link))
            elif kind in _CONTAINERS:
                virtual.append(_card(link))
    return sorted(real)[:_COUNTED], sorted(virtual)[:_COUNTED]


def _card(link: Any) -> Card:
    own = link.get("IFLA_PERM_ADDRESS")
    return Card(link.get("IFLA_PARENT_DEV_BUS_NAME") == "usb", own is None, own or link.get("address"))
