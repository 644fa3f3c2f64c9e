"""One interface asked or changed by netlink, with one message and no event loop: what each new port needs.

pyroute2 builds and reads the messages, but does not send them. Its IPRoute runs an asyncio loop for each call, and that
took three quarters of the time in which a client gets its port. The kernel answers before send() returns, so nothing
here waits. What is asked seldom goes by IPRoute. Users: interfaces.py. Every function may raise OSError.

Sources: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from etherws.kernel import netlink

#: include/uapi/linux/netlink.h
NETLINK_ROUTE = 0

#: include/uapi/linux/rtnetlink.h: leave the counters out of the answer.
RTEXT_FILTER_SKIP_STATS = 1 << 3

#: include/uapi/linux/if.h
IFF_UP = 1

#: include/uapi/linux/if_link.h
IN6_ADDR_GEN_MODE_NONE = 1

#: Bytes of one recv(): more than the kernel puts into one answer.
_ANSWER = 1 << 16


class Link(NamedTuple):
    """What the kernel says about an interface. `number` is its index."""

    number: int
    name: str
    mtu: int
    up: bool
    #: The index of the bridge or bond that it is in, if any.
    master: int | None
    #: Its Ethernet address, as 02:00:00:00:00:01. None if it has none.
    address: str | None


def get(which: int | str) -> Link:
    """The interface of this index or name."""
    request = ifinfmsg()
    request["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
    if isinstance(which, int):
        request["index"] = which
    else:
        request["attrs"].append(("IFLA_IFNAME", which))
    found = ifinfmsg(_ask(request, RTM_GETLINK, 0))
    found.decode()
    up = bool(found["flags"] & IFF_UP)
    return Link(found["index"], found.get("ifname"), found.get("mtu"), up, found.get("master"), found.get("address"))


def has_spanning_tree(index: int) -> bool:
    """Whether the interface of this index is a bridge in which spanning tree is on."""
    request = ifinfmsg()
    request["index"] = index
    request["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
    found = ifinfmsg(_ask(request, RTM_GETLINK, 0))
    found.decode()
    return bool(found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_STP_STATE"))


def change(
    index: int,
    *,
    up: bool = False,
    mtu: int | None = None,
    master: int | None = None,
    address: str | None = None,
    ipv6_address: bool = True,
) -> None:
    """Change the interface of this index: bring it up, set its MTU in bytes, its bridge, its address; None leaves each
    as it is. Without `ipv6_address` IPv6 gives it no address by itself, not even a link-local one."""
    request = ifinfmsg()
    request["index"] = index
    if up:
        request["flags"] = request["change"] = IFF_UP
    values: dict[str, Any] = {"IFLA_MTU": mtu, "IFLA_MASTER": master, "IFLA_ADDRESS": address}
    if not ipv6_address:
        inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
        values["IFLA_AF_SPEC"] = {"attrs": [("AF_INET6", inet6)]}
    request["attrs"] = [(name, value) for name, value in values.items() if value is not None]
    _ask(request, RTM_SETLINK, NLM_F_ACK)


def _ask(message: Any, kind: int, flags: int) -> bytes:
    """Send the message; return the answer."""
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.sendto(bytes(message.data), (0, 0))
        answer = sock.recv(_ANSWER)
    netlink.check(netlink.HEADER.unpack_from(answer)[1], answer)
    return answer
