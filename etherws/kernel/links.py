"""One interface asked or changed by netlink, with one message and no event loop: what each new port needs.

pyroute2 builds the messages that change something, but does not send them. Its IPRoute runs an asyncio loop for each
call, and that took three quarters of the time in which a client gets its port. The kernel answers before send()
returns, so nothing here waits. What is asked seldom goes by IPRoute. Users: interfaces.py, bridges.py. Every function
may raise OSError.

Sources: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from etherws.kernel import netlink

#: include/uapi/linux/netlink.h
NETLINK_ROUTE = 0

#: include/uapi/linux/rtnetlink.h: leave the counters out of the answer.
RTEXT_FILTER_SKIP_STATS = 1 << 3

#: include/uapi/linux/if.h
IFF_UP = 1

#: struct ifinfomsg: family, type, index, flags, mask of the flags to change. Attributes (include/uapi/linux/if_link.h).
_IFINFOMSG, _NUMBER = struct.Struct("=BxHiII"), struct.Struct("=I")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_EXT_MASK = 1, 3, 4, 10, 12, 18, 29
IFLA_IFALIAS = 20
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_BR_STP_STATE, IFLA_BRPORT_ISOLATED = 1, 2, 5, 5, 33
NLA_F_NESTED = 0x8000

#: include/linux/socket.h
AF_BRIDGE = 7

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
    #: Whether it is an isolated port of a bridge. None if it is in no bridge, or if the kernel knows no isolation.
    isolated: bool | None


def get(which: int | str) -> Link:
    """The interface of this index or name."""
    number, flags, values = _ask(which)
    master, address = values.get(IFLA_MASTER), values.get(IFLA_ADDRESS)
    port = dict(netlink.attributes(values.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_SLAVE_DATA, b"")
    isolated = dict(netlink.attributes(port)).get(IFLA_BRPORT_ISOLATED)
    return Link(
        number,
        netlink.text(values[IFLA_IFNAME]),
        _NUMBER.unpack(values[IFLA_MTU])[0],
        bool(flags & IFF_UP),
        _NUMBER.unpack(master)[0] if master else None,
        bytes(address).hex(":") if address else None,
        None if isolated is None else bool(isolated[0]),
    )


def is_bridge(index: int) -> bool:
    """Whether the interface of this index is a bridge: what has ports may be a bond, or a VRF."""
    return _kind(index)[0] == "bridge"


def has_spanning_tree(index: int) -> bool:
    """Whether the interface of this index is a bridge in which spanning tree is on."""
    kind, data = _kind(index)
    state = dict(netlink.attributes(data)).get(IFLA_BR_STP_STATE)
    return kind == "bridge" and state is not None and any(state)


def _kind(index: int) -> tuple[str, memoryview]:
    """The type of an interface, such as "bridge", and what its driver says of it."""
    info = dict(netlink.attributes(_ask(index)[2].get(IFLA_LINKINFO, b"")))
    empty = memoryview(b"")
    return netlink.text(info.get(IFLA_INFO_KIND, empty)), info.get(IFLA_INFO_DATA, empty)


def alias(which: int | str) -> str:
    """The note that somebody has left at the interface, as ``ip link`` shows it; empty if there is none."""
    return netlink.text(_ask(which)[2].get(IFLA_IFALIAS, memoryview(b"")))


def find(which: int | str) -> Link | None:
    """As get(); None if there is no such interface: also for the index 0, which none has."""
    if which == 0:
        return None
    try:
        return get(which)
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return None


def change(
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
    address: str | None = None,
    alias: str | None = None,
    ipv6_address: bool = True,
) -> None:
    """Change the interface of this index: bring it up or down, set its MTU in bytes, its bridge (0: none), its address,
    its alias(); None leaves each as it is. Without `ipv6_address` IPv6 gives it no address by itself, not even a
    link-local one."""
    request = ifinfmsg()
    request["index"] = index
    if up is not None:
        request["flags"], request["change"] = IFF_UP if up else 0, IFF_UP
    values: dict[str, Any] = {"IFLA_MTU": mtu, "IFLA_MASTER": master, "IFLA_ADDRESS": address, "IFLA_IFALIAS": alias}
    if not ipv6_address:
        inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
        values["IFLA_AF_SPEC"] = {"attrs": [("AF_INET6", inet6)]}
    request["attrs"] = [(name, value) for name, value in values.items() if value is not None]
    request["header"]["type"] = RTM_SETLINK
    request["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
    request.encode()
    _send(bytes(request.data))


def isolate(index: int, on: bool) -> None:
    """Isolate this port of a bridge, or no more. An old kernel ignores what it does not know."""
    isolated = netlink.attribute(IFLA_BRPORT_ISOLATED, bytes([on]))
    body = _IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0) + netlink.attribute(IFLA_PROTINFO | NLA_F_NESTED, isolated)
    size = netlink.HEADER.size + len(body)
    _send(netlink.HEADER.pack(size, RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0) + body)


def delete(index: int, sock: socket.socket) -> None:
    """Delete the interface of this index, by a socket of request_socket(). It takes the kernel tens of milliseconds."""
    body = _IFINFOMSG.pack(0, 0, index, 0, 0)
    size = netlink.HEADER.size + len(body)
    _exchange(sock, netlink.HEADER.pack(size, RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0) + body)


def request_socket() -> socket.socket:
    """A socket for requests about the network namespace of this thread."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)


def _ask(which: int | str) -> tuple[int, int, dict[int, memoryview]]:
    """The index, the flags and the attributes of the interface of this index or name."""
    index, name = (which, b"") if isinstance(which, int) else (0, which.encode() + b"\0")
    body = _IFINFOMSG.pack(0, 0, index, 0, 0) + netlink.attribute(IFLA_EXT_MASK, _NUMBER.pack(RTEXT_FILTER_SKIP_STATS))
    if name:
        body += netlink.attribute(IFLA_IFNAME, name)
    size = netlink.HEADER.size + len(body)
    answer = _send(netlink.HEADER.pack(size, RTM_GETLINK, NLM_F_REQUEST, 0, 0) + body)
    found = next(netlink.messages(answer)).body
    _, _, number, flags, _ = _IFINFOMSG.unpack_from(found)
    return number, flags, dict(netlink.attributes(found[_IFINFOMSG.size :]))


def _send(message: bytes) -> bytes:
    """Send the message; return the answer."""
    with request_socket() as sock:
        return _exchange(sock, message)


def _exchange(sock: socket.socket, message: bytes) -> bytes:
    sock.sendto(message, (0, 0))
    answer = sock.recv(_ANSWER)
    netlink.check(netlink.HEADER.unpack_from(answer)[1], answer)
    return answer
