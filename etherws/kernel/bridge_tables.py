"""Which bridge each of our ports is in, and which machines it has learned behind them: for many ports at once.

The kernel is asked once for each bridge, in a thread, and the answer is used for a second by all who want to see it:
for a thousand ports the kernel takes milliseconds. It serves status alone; no frame's way depends on it. Read next:
links.py, netlink.py. Sources: bridge(8), fdb; include/uapi/linux/neighbour.h, Linux net/core/rtnetlink.c,
rtnl_fdb_dump().
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from socket import socket
from typing import NamedTuple

import gevent

from etherws.kernel import links, netlink
from etherws.kernel.shared_look import SharedLook
from etherws.walks import in_turns

#: include/uapi/linux/rtnetlink.h
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30

#: include/uapi/linux/netlink.h: ask for all, and the last message of such an answer.
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_DONE = 1, 0x300, 3

#: include/uapi/linux/neighbour.h: the Ethernet address; an entry that is the kernel's or an administrator's and was not
#: learned; one of the interface itself and not of its bridge.
NDA_LLADDR, NUD_PERMANENT, NTF_SELF = 2, 0x80, 0x02

#: struct ndmsg: family, index, state, flags, type.
_NDMSG, _NUMBER = struct.Struct("=BxxxiHBB"), struct.Struct("=I")

#: Bytes of one recv(): more than the kernel puts into one.
_RECEIVE = 1 << 16

#: Bytes of an answer that are read: some 200,000 entries. Who has more sees not all of them.
ANSWER_MAX = 16 << 20

#: Addresses of one port that are shown.
SHOWN = 64

#: Seconds for which an answer is used, or longer if it took long: tenants can fill a bridge's table, and the kernel
#: walks through it once for each port.
FRESH = 1.0


class Behind(NamedTuple):
    """What is behind a port: the name of its bridge, None if it is in none; addresses, as 02:00:00:00:00:01, SHOWN at
    most; and how many more there are."""

    bridge: str | None
    macs: list[str]
    more: int


class BridgeTables:
    """The tables of all bridges that our ports are in."""

    def __init__(self, ports: Callable[[], Collection[int]]) -> None:
        """`ports` are the indexes of our ports now."""
        self._ports = ports
        self._shared: SharedLook[dict[int, Behind]] = SharedLook(FRESH)
        #: The bridge of each port, as the last answer said.
        self._masters: dict[int, int] = {}

    def look(self) -> Mapping[int, Behind]:
        """What is behind each port, by the index of its interface; nothing is known of one that is gone, or in another
        network namespace. It may be some seconds old. Blocks this greenlet while the kernel is asked."""
        found = self._shared.get(lambda: self._read(self._ports()))
        # Those that are new since: nothing was learned there yet.
        if missing := [port for port in self._ports() if port not in found]:
            names = self._names(self._bridges(missing))
            found |= {port: Behind(names.get(self._masters.get(port, 0)), [], 0) for port in missing}
        return found

    def _read(self, ports: Collection[int]) -> dict[int, Behind]:
        bridges = self._bridges(ports)
        names, learned = self._names(bridges), {port: dict[bytes, None]() for port in ports}
        self._masters = dict.fromkeys(ports, 0)
        for bridge in bridges:
            with contextlib.suppress(OSError):
                # A bond or a VRF has no such table.
                if links.is_bridge(bridge):
                    for port, address in self._entries(bridge):
                        if port in learned:
                            self._masters[port] = bridge
                            if address:
                                # The same address may be there once for each VLAN.
                                learned[port][address] = None
        names |= self._names(self._bridges([port for port, master in self._masters.items() if not master]) - bridges)
        found = {}
        for port, addresses in in_turns(learned.items()):
            shown = [address.hex(":") for address in sorted(addresses)[:SHOWN]]
            found[port] = Behind(names.get(self._masters[port]), shown, max(0, len(addresses) - SHOWN))
        return found

    def _bridges(self, ports: Collection[int]) -> set[int]:
        """The bridges that these ports are in. Only those of which nothing is known are asked for."""
        for port in in_turns(ports):
            if not self._masters.get(port):
                link = None
                with contextlib.suppress(OSError):
                    link = links.find(port)
                self._masters[port] = (link.master or 0) if link else 0
        # Another look may have begun anew meanwhile.
        return {self._masters.get(port, 0) for port in ports} - {0}

    def _names(self, bridges: set[int]) -> dict[int, str]:
        names = {}
        for bridge in bridges:
            with contextlib.suppress(OSError):
                if link := links.find(bridge):
                    names[bridge] = link.name
        return names

    def _entries(self, bridge: int) -> Iterator[tuple[int, bytes]]:
        """The port and the address of each entry of this bridge; no address where the entry was not learned. Raises
        OSError."""
        body = links.IFINFOMSG.pack(links.AF_BRIDGE, 0, 0, 0, 0) + netlink.attribute(
            links.IFLA_MASTER, _NUMBER.pack(bridge)
        )
        for message in in_turns(dump(RTM_GETNEIGH, body)):
            if message.kind != RTM_NEWNEIGH or len(message.body) < _NDMSG.size:
                continue
            _, port, state, flags, _ = _NDMSG.unpack_from(message.body)
            if flags & NTF_SELF:
                continue
            address = b""
            if not state & NUD_PERMANENT:
                address = bytes(dict(netlink.attributes(message.body[_NDMSG.size :])).get(NDA_LLADDR, b""))
            yield port, address


def dump(kind: int, body: bytes, *, short: bool = False) -> Iterator[netlink.Message]:
    """Each message of the kernel's answer to a request for all, of this kind; to be walked over in turns. A `short`
    answer needs no thread. Raises OSError."""
    size = netlink.HEADER.size + len(body)
    request = netlink.HEADER.pack(size, kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body
    # Opened here: the thread may be in another network namespace.
    with links.request_socket() as sock:
        answer = _answer(sock, request) if short else gevent.get_hub().threadpool.apply(_answer, (sock, request))
    # One walk over all parts: each part alone takes less than a turn.
    for part in answer:
        for message in netlink.messages(part):
            netlink.check(message.kind, part)
            yield message


def _answer(sock: socket, request: bytes) -> list[bytes]:
    """All of the kernel's answer, or ANSWER_MAX bytes of it. Runs in a thread, since the kernel takes long for each
    part of it: so it does little in Python, which would keep the event loop waiting."""
    sock.sendto(request, (0, 0))
    answer: list[bytes] = []
    size = 0
    while size < ANSWER_MAX:
        data = sock.recv(_RECEIVE)
        answer.append(data)
        size += len(data)
        last = data[-netlink.HEADER.size - _NUMBER.size :]
        if netlink.HEADER.unpack_from(last)[:2] == (len(last), NLMSG_DONE):
            break
        if netlink.HEADER.unpack_from(data)[1] == netlink.NLMSG_ERROR:
            break
    return answer
