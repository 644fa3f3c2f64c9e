"""One interface asked or changed by netlink, with one send() and no event loop: what each new port needs.

pyroute2 takes no part: its IPRoute runs an asyncio loop for each call, and that took three quarters of the time in
which a client gets its port. The kernel answers before send() returns, so nothing here waits. What is asked seldom goes
by IPRoute. Users: interfaces.py, bridges.py, qdiscs.py. Every function may raise OSError.

Sources: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etherws.kernel import netlink
from etherws.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST

#: include/uapi/linux/netlink.h
NETLINK_ROUTE = 0

#: include/uapi/linux/rtnetlink.h
RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 17, 18, 19

#: include/uapi/linux/rtnetlink.h: leave the counters out of the answer.
RTEXT_FILTER_SKIP_STATS = 1 << 3

#: include/uapi/linux/if.h
IFF_UP = 1

#: struct ifinfomsg: family, type, index, flags, mask of the flags to change. Attributes (include/uapi/linux/if_link.h).
IFINFOMSG, _NUMBER = struct.Struct("=BxHiII"), struct.Struct("=I")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_EXT_MASK = 1, 3, 4, 10, 12, 18, 29
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_INET6_ADDR_GEN_MODE = 20, 26, 27, 8
IFLA_TUN_OWNER, IFLA_TUN_GROUP, IFLA_TUN_MULTI_QUEUE, IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES = 1, 2, 7, 8, 9
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_BR_STP_STATE, IFLA_BRPORT_ISOLATED = 1, 2, 5, 5, 33
IFLA_BR_VLAN_FILTERING, IFLA_BR_VLAN_PROTOCOL, IFLA_BR_VLAN_DEFAULT_PVID = 7, 8, 39
NLA_F_NESTED = 0x8000
#: The EtherType of a provider's tag: ETH_P_8021AD of include/uapi/linux/if_ether.h.
PROVIDER_TAG = bytes.fromhex("88a8")

#: include/linux/socket.h
AF_BRIDGE, AF_INET6 = 7, 10

#: The group of interfaces that are deleted together: one that nobody else has. Source: net/core/rtnetlink.c,
#: rtnl_group_dellink().
_GROUP = int.from_bytes(os.urandom(4), "big") | 1 << 31

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


def number(which: int | str) -> int | None:
    """The index of the interface of this index or name; None if there is no such interface."""
    try:
        return _answer(which)[0]
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return None


def name(index: int) -> str:
    """The name of the interface of this index; empty if there is none. By a system call that costs a tenth of get()."""
    try:
        return socket.if_indextoname(index)
    except OSError as exc:
        if exc.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        return ""


def is_bridge(index: int) -> bool:
    """Whether the interface of this index is a bridge: what has ports may be a bond, or a VRF."""
    return _kind(index)[0] == "bridge"


def is_vxlan(index: int) -> bool:
    """Whether the interface of this index is a VXLAN: the way to other gateways of a LAN."""
    return _kind(index)[0] == "vxlan"


def has_spanning_tree(index: int) -> bool:
    """Whether the interface of this index is a bridge in which spanning tree is on."""
    kind, data = _kind(index)
    state = dict(netlink.attributes(data)).get(IFLA_BR_STP_STATE)
    return kind == "bridge" and state is not None and any(state)


def bridge_vlans(index: int) -> tuple[bool, int, bool]:
    """Whether the bridge of this index filters VLANs, the VLAN of new ports or 0, and whether a provider's tags."""
    values = dict(netlink.attributes(_kind(index)[1]))
    usual, protocol = (values.get(kind, b"") for kind in (IFLA_BR_VLAN_DEFAULT_PVID, IFLA_BR_VLAN_PROTOCOL))
    return any(values.get(IFLA_BR_VLAN_FILTERING, b"")), int.from_bytes(usual, sys.byteorder), protocol == PROVIDER_TAG


def _kind(which: int | str) -> tuple[str, memoryview]:
    """The type of an interface, such as "bridge", and what its driver says of it."""
    info = dict(netlink.attributes(_ask(which)[2].get(IFLA_LINKINFO, b"")))
    empty = memoryview(b"")
    return netlink.text(info.get(IFLA_INFO_KIND, empty)), info.get(IFLA_INFO_DATA, empty)


def tap_queues(which: int | str) -> tuple[int, bool] | None:
    """How many queues of this multi-queue TAP (or TUN) are open, by index or name, and whether it has an owner or a
    group; None if it is none, or, before Linux 4.17, cannot be told."""
    kind, data = _kind(which)
    values = dict(netlink.attributes(data))
    if kind != "tun" or not any(values.get(IFLA_TUN_MULTI_QUEUE, b"")):
        return None
    # Those that are detached count too.
    counts = [values.get(count, bytes(4)) for count in (IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES)]
    owned = IFLA_TUN_OWNER in values or IFLA_TUN_GROUP in values
    return sum(int.from_bytes(count, sys.byteorder) for count in counts), owned


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


def mtu(index: int) -> int:
    """The interface's MTU in bytes. It comes early in the answer: get() reads all."""
    _, _, values = _answer(index)
    for kind, value in values:
        if kind == IFLA_MTU:
            return int(_NUMBER.unpack(value)[0])
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


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
    send(change_request(index, up=up, mtu=mtu, master=master, address=address, alias=alias, ipv6_address=ipv6_address))


def change_request(
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
    address: str | None = None,
    alias: str | None = None,
    ipv6_address: bool = True,
) -> bytes:
    """The message by which change() does that, for send_all()."""
    body = IFINFOMSG.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
    if mtu is not None:
        body += netlink.attribute(IFLA_MTU, _NUMBER.pack(mtu))
    if master is not None:
        body += netlink.attribute(IFLA_MASTER, _NUMBER.pack(master))
    if address is not None:
        body += netlink.attribute(IFLA_ADDRESS, bytes.fromhex(address.replace(":", "")))
    if alias is not None:
        body += netlink.attribute(IFLA_IFALIAS, alias.encode() + b"\0")
    if not ipv6_address:
        mode = netlink.attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        body += netlink.attribute(IFLA_AF_SPEC | NLA_F_NESTED, netlink.attribute(AF_INET6 | NLA_F_NESTED, mode))
    return request(RTM_SETLINK, body)


def send_all(requests: Sequence[bytes]) -> list[OSError | None]:
    """Have the kernel do what several messages of change_request() say, in their order and with one send(). It does
    each of them even if one before it fails. Return the error of each, None if it has done that."""
    with request_socket() as sock:
        return _errors(sock, requests) if requests else []


def _errors(sock: socket.socket, requests: Sequence[bytes]) -> list[OSError | None]:
    last, data = len(requests) - 1, bytearray()
    for number, request in enumerate(requests):
        size, kind, flags, _, _ = netlink.HEADER.unpack_from(request)
        # An error is told in any case; that all is done, once.
        flags = flags if number == last else flags & ~NLM_F_ACK
        data += netlink.HEADER.pack(size, kind, flags, number, 0) + request[netlink.HEADER.size :]
    errors: list[OSError | None] = [None] * len(requests)
    sock.sendto(data, (0, 0))
    while True:
        answer = sock.recv(_ANSWER)
        _, kind, _, number, _ = netlink.HEADER.unpack_from(answer)
        try:
            netlink.check(kind, answer)
        except OSError as exc:
            errors[number] = exc
        if number == last:
            return errors


def isolate(index: int, on: bool) -> None:
    """Isolate this port of a bridge, or no more. An old kernel ignores what it does not know."""
    isolated = netlink.attribute(IFLA_BRPORT_ISOLATED, bytes([on]))
    body = IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0) + netlink.attribute(IFLA_PROTINFO | NLA_F_NESTED, isolated)
    send(request(RTM_SETLINK, body))


def delete(indexes: Sequence[int], sock: socket.socket) -> None:
    """Delete the interfaces of these indexes, by a socket of request_socket(): as one group, which takes the kernel
    tens of milliseconds for all together. Those that are gone already are no error."""
    group = netlink.attribute(IFLA_GROUP, _NUMBER.pack(_GROUP))
    requests = [request(RTM_SETLINK, IFINFOMSG.pack(0, 0, index, 0, 0) + group, NLM_F_REQUEST) for index in indexes]
    _errors(sock, [*requests, request(RTM_DELLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + group)])


def request_socket() -> socket.socket:
    """A socket for requests about the network namespace of this thread."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)


def request(kind: int, body: bytes, flags: int = NLM_F_REQUEST | NLM_F_ACK) -> bytes:
    """A message whose body is a whole number of words, as are those of this module and of qdiscs.py."""
    return netlink.HEADER.pack(netlink.HEADER.size + len(body), kind, flags, 0, 0) + body


def send(message: bytes) -> bytes:
    """Send the message; return the answer."""
    with request_socket() as sock:
        sock.sendto(message, (0, 0))
        answer = sock.recv(_ANSWER)
    netlink.check(netlink.HEADER.unpack_from(answer)[1], answer)
    return answer


def _ask(which: int | str) -> tuple[int, int, dict[int, memoryview]]:
    """The index, the flags and the attributes of the interface of this index or name."""
    number, flags, values = _answer(which)
    return number, flags, dict(values)


def _answer(which: int | str) -> tuple[int, int, Iterator[tuple[int, memoryview]]]:
    """As _ask(), with the attributes in the kernel's order: who needs the first ones need not read all."""
    index, name = (which, b"") if isinstance(which, int) else (0, which.encode() + b"\0")
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + netlink.attribute(IFLA_EXT_MASK, _NUMBER.pack(RTEXT_FILTER_SKIP_STATS))
    if name:
        body += netlink.attribute(IFLA_IFNAME, name)
    answer = send(request(RTM_GETLINK, body, NLM_F_REQUEST))
    found = next(netlink.messages(answer)).body
    _, _, number, flags, _ = IFINFOMSG.unpack_from(found)
    return number, flags, netlink.attributes(found[IFINFOMSG.size :])
