"""The machines behind one port of a bridge: their Ethernet addresses, as the bridge has learned them.

Asks the kernel once, and keeps nothing. loops.py hears of each address as it is learned, to find loops; this is for who
wants to see what is there now. Read next: links.py, the same for an interface itself.
Sources: bridge(8), fdb; include/uapi/linux/neighbour.h, Linux net/core/rtnetlink.c, rtnl_fdb_dump().
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import gevent

from etherws.kernel import links, netlink

#: include/uapi/linux/rtnetlink.h
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30

#: include/uapi/linux/netlink.h: ask for all, and the last message of an answer of several.
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_DONE = 1, 0x300, 3

#: include/uapi/linux/neighbour.h: the Ethernet address; and the state of an entry that is not learned, but the kernel's
#: own or an administrator's.
NDA_LLADDR, NUD_PERMANENT = 2, 0x80

#: struct ifinfomsg, for the request; struct ndmsg, for the answer: family, index, state, flags, type.
_IFINFOMSG, _NDMSG, _NUMBER = struct.Struct("=BxHiII"), struct.Struct("=BxxxiHBB"), struct.Struct("=I")

#: Bytes of one recv(): more than the kernel puts into one.
_RECEIVE = 1 << 16


def addresses_behind(port: int, most: int) -> tuple[list[str], int]:
    """The addresses that the bridge of this port has learned there: `most` at most, sorted, as 02:00:00:00:00:01; and
    how many more there are. Both empty if the port is in no bridge, or gone. `port` is an interface's index.

    Others may go on meanwhile: a LAN can have thousands. Raises OSError.
    """
    link = links.find(port)
    if link is None or link.master is None or not links.is_bridge(link.master):
        return [], 0
    # The same address can be there once for each VLAN.
    found = sorted(set(_learned(port, link.master)))
    return [address.hex(":") for address in found[:most]], max(0, len(found) - most)


def _learned(port: int, bridge: int) -> Iterator[bytes]:
    """The address of each entry of the bridge for this port."""
    # The kernel takes a struct ifinfomsg here, as bridge(8) sends it, and chooses by port and bridge.
    body = _IFINFOMSG.pack(links.AF_BRIDGE, 0, port, 0, 0) + netlink.attribute(links.IFLA_MASTER, _NUMBER.pack(bridge))
    size = netlink.HEADER.size + len(body)
    with links.request_socket() as sock:
        sock.sendto(netlink.HEADER.pack(size, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body, (0, 0))
        while True:
            data = sock.recv(_RECEIVE)
            for message in netlink.messages(data):
                netlink.check(message.kind, data)
                if message.kind == NLMSG_DONE:
                    return
                if message.kind != RTM_NEWNEIGH or len(message.body) < _NDMSG.size:
                    continue
                _, index, state, _, _ = _NDMSG.unpack_from(message.body)
                address = dict(netlink.attributes(message.body[_NDMSG.size :])).get(NDA_LLADDR, b"")
                if index == port and not state & NUD_PERMANENT and len(address) == 6:
                    yield bytes(address)
            gevent.sleep(0)
