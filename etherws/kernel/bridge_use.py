"""Who uses a bridge, so that one which etherws made is removed only if nobody would miss it.

An address that somebody has set, a route, an interface in the bridge or on top of it: to remove the bridge would take
them away, too. What the kernel adds by itself to each interface that is up does not count. Read next: bridges.py, which
makes and removes bridges. Sources: rtnetlink(7), include/uapi/linux/if_addr.h, if_link.h, rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Any

from etherws.kernel import interfaces
from etherws.kernel.pyroute2_parts import IPRoute, NetlinkError

#: include/uapi/linux/if_addr.h: who made an address (since Linux 5.18): the kernel, of a router advertisement or as the
#: link-local one.
IFAPROT_KERNEL_RA, IFAPROT_KERNEL_LL = 2, 3

#: include/uapi/linux/rtnetlink.h: who made a route: the kernel, for an address or a router advertisement.
RTPROT_KERNEL, RTPROT_RA = 2, 9

#: include/uapi/linux/neighbour.h
NTF_SELF = 2

#: How many users the log names.
NAMED = 3


def remove_unless_used(bridge: int) -> str:
    """Remove the bridge of this index, unless somebody uses it. Return who does, for the log; empty if it is gone.

    Raises DeviceError.
    """
    with interfaces.netlink(f"remove the bridge of index {bridge}") as route:
        try:
            users = _users(route, bridge)
            if not users:
                route.link("del", index=bridge)
        except NetlinkError as exc:
            # The next worker of gunicorn removes it at the same moment.
            if exc.code != errno.ENODEV:
                raise
            return ""
    return ", ".join(users[:NAMED]) + (f", and {len(users) - NAMED} more" if len(users) > NAMED else "")


def _users(route: IPRoute, bridge: int) -> list[str]:
    """Who uses the bridge of this index. Raises NetlinkError, with ENODEV if it is gone."""
    links = list(route.link("dump"))
    found = next((link for link in links if link["index"] == bridge), None)
    if found is None:
        raise NetlinkError(errno.ENODEV)
    users = [*_links_that_use(found, links), *_addresses(route, found), *_routes(bridge)]
    if not users and _has_foreign_addresses(route, found):
        users = ["an interface of another network namespace is on top of it"]
    return users


def _links_that_use(bridge: Any, links: Iterable[Any]) -> Iterator[str]:
    """Those in the bridge, those on top of it, and the VRF that it is in."""
    index = bridge["index"]
    for link in links:
        name = link.get("ifname")
        if link["index"] == bridge.get("master"):
            yield f"it is in {name}"
        elif link.get("master") == index:
            yield f"{name} is in it"
        # A number that is of another network namespace is no interface of this one.
        elif (link.get("link") == index and link.get("IFLA_LINK_NETNSID") is None) or _lower_of_vxlan(link) == index:
            yield f"{name} is on top of it"


def _lower_of_vxlan(link: Any) -> int | None:
    if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "vxlan":
        return None
    found = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VXLAN_LINK")
    return None if found is None else int(found)


def _addresses(route: IPRoute, bridge: Any) -> Iterator[str]:
    """The addresses that the kernel has not made."""
    for one in route.addr("dump", index=bridge["index"]):
        address, maker = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"), one.get_attr("IFA_PROTO")
        made_by_kernel = maker in (IFAPROT_KERNEL_RA, IFAPROT_KERNEL_LL)
        # Before Linux 5.18 nothing says who made it. The link-local address that the kernel makes tells by itself.
        if maker is None and one["family"] == socket.AF_INET6:
            made_by_kernel = IPv6Address(address) == _link_local(bridge.get("address"))
        if not made_by_kernel:
            yield f"it has the address {address}/{one['prefixlen']}"


def _link_local(ethernet: str) -> IPv6Address:
    """The link-local address of an Ethernet address (RFC 4291, appendix A)."""
    raw = bytes.fromhex(ethernet.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:])


def _routes(bridge: int) -> Iterator[str]:
    """The routes by the bridge that somebody has set. The kernel chooses them: a router may have a million."""
    with IPRoute(strict_check=True) as route:
        for family in (socket.AF_INET, socket.AF_INET6):
            for one in route.route("dump", oif=bridge, family=family):
                # Before Linux 4.20 the kernel does not choose.
                if one["proto"] not in (RTPROT_KERNEL, RTPROT_RA) and one.get_attr("RTA_OIF") in (bridge, None):
                    to = f"{one.get_attr('RTA_DST')}/{one['dst_len']}" if one["dst_len"] else "default"
                    yield f"the route {to} goes by it"


def _has_foreign_addresses(route: IPRoute, bridge: Any) -> bool:
    """Whether the bridge was told to take frames to further addresses, as for a container's macvlan: an interface on
    top of it that is in another network namespace, where it cannot be seen."""
    return any(
        entry["ifindex"] == bridge["index"]
        and entry["flags"] & NTF_SELF
        # Groups have the lowest bit of the first byte set.
        and not int(entry.get_attr("NDA_LLADDR", "ff")[:2], 16) & 1
        and entry.get_attr("NDA_LLADDR") != bridge.get("address")
        for entry in route.fdb("dump", ifindex=bridge["index"])
    )
