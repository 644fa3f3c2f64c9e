"""What changes of the machine's network, read from rtnetlink's messages: its links, addresses and default routes.

Only what differs from before counts: an address that is new, usable from now on, or gone; a link that has come up; a
default route that is another. The kernel reports much more, such as each lifetime that a router or DHCP refreshes.
Pure. Read next: network_monitor.py, which has the socket; known_links.py.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, if.h.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from etherws.kernel import netlink
from etherws.kernel.known_links import KnownLinks, Link

#: include/uapi/linux/netlink.h, rtnetlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_REPLACE, NLM_F_DUMP = 0x1, 0x100, 0x300
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 16, 17, 18, 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE = 24, 25

#: include/linux/socket.h, include/uapi/linux/if.h
AF_UNSPEC, IFF_RUNNING = 0, 0x40

#: include/uapi/linux/if_link.h: its name, the link that it stands on (as a VLAN does), the bridge or bond it is in.
IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_LINK_NETNSID = 3, 5, 10, 18, 37
IFLA_INFO_KIND = 1

#: include/uapi/linux/if_addr.h. An address is not usable while the kernel looks for a duplicate, unless it is
#: optimistic, nor after it found one.
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x04, 0x08, 0x40

#: include/uapi/linux/rtnetlink.h: an address that means something on its link only, such as fe80::1 or 169.254.0.1.
RT_SCOPE_LINK = 253

#: include/uapi/linux/rtnetlink.h. By these a route is told from others: destination, priority, table; and these are
#: what it says: interface, gateway, source, several of these (RTA_MULTIPATH, RTA_NH_ID). The others are its lifetime
#: and counters.
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_TABLE = 1, 4, 6, 15
_ROUTE_KEY = (RTA_DST, RTA_PRIORITY, RTA_TABLE)
_ROUTE_SAYS = (RTA_OIF, 5, 7, 9, 18, 30)

#: The longest prefix of a default route, in bits. Some VPNs make two routes for half of all addresses each.
DEFAULT_BITS = 1

#: The most default routes that are remembered. A machine has a few; a flood of router advertisements can make more.
ROUTES_MAX = 256

#: In place of a link's index: a change that concerns all.
_EVERYWHERE = 0

#: struct ifinfomsg, ifaddrmsg and rtmsg.
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")

#: The sequence number of our requests for all links and all addresses. The answers have the same number; the report of
#: a change has the number of the request that made the change, or 0. Any number that others are unlikely to use.
DUMP_SEQUENCE = 0x65746877


#: Of an address: the index of its link, the family, the bits of the prefix, the address itself.
_Address = tuple[int, int, int, bytes]


class Changes:
    """Remembers links, addresses and default routes, and finds in the messages what differs. Does no I/O."""

    def __init__(self) -> None:
        self._links = KnownLinks()
        #: Whether each address is usable.
        self._addresses: dict[_Address, bool] = {}
        #: Of each default route the key, and what it says.
        self._routes: set[tuple[bytes, bytes]] = set()
        #: What was named since the first of our requests that are not answered yet: the rest is gone.
        self._named: set[int | _Address] = set()
        #: The kind of the request to send next, and of the one that is being answered; 0 for none.
        self._to_ask, self._asked = RTM_GETLINK, 0
        #: Whether messages were lost since the request that is being answered.
        self._again = False
        #: Whether all links and addresses are known. Before, an answer only says what was there already.
        self._complete = False
        #: The links of the changes that were found since the last call of take_near().
        self._places: set[int] = set()
        #: How often messages were lost.
        self.losses = 0

    @property
    def asking(self) -> bool:
        """Whether a request is to be sent, or its answer has not ended."""
        return bool(self._asked or self._to_ask)

    def request(self) -> bytes:
        """What to send to the kernel now; empty if there is nothing to ask for. The kernel answers one request at a
        time."""
        kind, self._to_ask = self._to_ask, 0
        if not kind:
            return b""
        self._asked = kind
        body = bytes(_LINK.size if kind == RTM_GETLINK else _ADDRESS.size)
        size = netlink.HEADER.size + len(body)
        return netlink.HEADER.pack(size, kind, NLM_F_REQUEST | NLM_F_DUMP, DUMP_SEQUENCE, 0) + body

    def lost(self) -> None:
        """The kernel has dropped messages: ask for everything again, and compare. Routes are not asked for, since some
        machines have a million of them."""
        self.losses += 1
        self._routes.clear()
        if self.asking:
            self._again = True
        else:
            self._to_ask = RTM_GETLINK

    def read(self, data: bytes, own: str) -> str:
        """Read messages; return the first change that counts for the client whose interface is `own`, as text for the
        log; empty if there is none.

        The client makes some changes itself: its interface, what stands on that, and whether a bridge of that runs.
        """
        found = ""
        for kind, sequence, _, body, flags in netlink.messages(data):
            answer = sequence == DUMP_SEQUENCE
            # A body that is too short for its header is ignored.
            if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= _LINK.size:
                change = self._link(kind, body, own, answer)
            elif kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= _ADDRESS.size:
                change = self._address(kind, body, own, answer)
            elif kind in (RTM_NEWROUTE, RTM_DELROUTE) and len(body) >= _ROUTE.size:
                change = self._route(kind, body, own, bool(flags & NLM_F_REPLACE))
            elif kind in (NLMSG_DONE, NLMSG_ERROR) and answer:
                change = self._answered(own, complete=kind == NLMSG_DONE)
            else:
                continue
            found = found or change
        return found

    def take_near(self, *local: str) -> bool:
        """Whether one of the changes that were found since the last call may concern the way of a connection that has
        one of the addresses `local` on this machine. Not if they are all about links of containers and virtual
        machines."""
        places, self._places = self._places, set()
        wanted = {_packed(each) for each in local}
        found = {address: address[3] for address, usable in self._addresses.items() if usable and address[3] in wanted}
        if not found or wanted - {*found.values()}:
            return True
        homes = {address[0] for address in found}
        way = self._links.way(homes)
        return any(place == _EVERYWHERE or not self._links.is_aside(place, way) for place in places)

    def _link(self, kind: int, body: memoryview, own: str, answer: bool) -> str:
        """A link has come, has changed, or is gone."""
        family, _, index, flags, _ = _LINK.unpack_from(body)
        # A bridge, among others, reports its ports a second time, in an address family of its own.
        if family != AF_UNSPEC:
            return ""
        before = self._links.pop(index, None)
        if kind == RTM_DELLINK:
            return ""
        name, master, below, elsewhere, of_kind = "", 0, 0, False, b""
        for key, value in netlink.attributes(body[_LINK.size :]):
            if key == IFLA_IFNAME:
                name = netlink.text(value)
            elif key == IFLA_MASTER:
                master = _number(value)
            elif key == IFLA_LINK:
                below = _number(value)
            elif key == IFLA_LINK_NETNSID:
                elsewhere = True
            elif key == IFLA_LINKINFO:
                of_kind = bytes(dict(netlink.attributes(value)).get(IFLA_INFO_KIND, b""))
        self._links[index] = link = Link(
            name, master, 0 if elsewhere else below, bool(flags & IFF_RUNNING), elsewhere, of_kind == b"bridge\0"
        )
        self._name(index)
        came_up = link.running and not (before and before.running)
        if not came_up or (answer and not self._complete) or index in self._links.moved_by(own):
            return ""
        self._places.add(index)
        return f"{name} has come up"

    def _address(self, kind: int, body: memoryview, own: str, answer: bool) -> str:
        """An address has come, has changed, or is gone."""
        family, bits, flags, scope, index = _ADDRESS.unpack_from(body)
        found = dict(netlink.attributes(body[_ADDRESS.size :]))
        # The other end of a point-to-point link has the first name; the whole of the flags is an attribute.
        value = bytes(found.get(IFA_LOCAL) or found.get(IFA_ADDRESS) or b"")
        flags |= _number(found.get(IFA_FLAGS, memoryview(b"")))
        waits = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
        usable = not waits and not flags & IFA_F_DADFAILED
        # No way to a server: each interface makes one by itself when it comes up, also our bridge and all containers'.
        if scope == RT_SCOPE_LINK:
            return ""
        address = index, family, bits, value
        if kind == RTM_DELADDR:
            before, usable = self._addresses.pop(address, True), False
        else:
            before = self._addresses.get(address, False)
            self._addresses[address] = usable
            self._name(address)
        if usable == before or (answer and not self._complete) or index in self._links.beyond(own):
            return ""
        return self._said(address, usable)

    def _said(self, address: _Address, usable: bool) -> str:
        index, _, bits, value = address
        self._places.add(index)
        text = f"{ip_address(value)}/{bits}" if len(value) in (4, 16) else "an address"
        link = self._links.get(index)
        return f"{text} of {link.name if link else f'interface {index}'} is {'there' if usable else 'gone'}"

    def _route(self, kind: int, body: memoryview, own: str, replaces: bool) -> str:
        """A route has come, has changed, or is gone."""
        family, bits, _, tos, table, _, _, _, _ = _ROUTE.unpack_from(body)
        if bits > DEFAULT_BITS:
            return ""
        found = dict(netlink.attributes(body[_ROUTE.size :]))
        key, says = (
            b"".join(netlink.attribute(one, bytes(found[one])) for one in chosen if one in found)
            for chosen in (_ROUTE_KEY, _ROUTE_SAYS)
        )
        key += bytes((family, bits, tos, table))
        route = key, says
        if kind == RTM_DELROUTE:
            self._routes.discard(route)
            change = "a default route is gone"
        elif route in self._routes:
            return ""
        else:
            if replaces:
                self._routes = {one for one in self._routes if one[0] != key}
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            self._routes.add(route)
            change = "there is another default route"
        index = _number(found.get(RTA_OIF, memoryview(b"")))
        link = self._links.get(index)
        if index in self._links.beyond(own):
            return ""
        self._places.add(_EVERYWHERE)
        return change + (f", by {link.name}" if link else "")

    def _answered(self, own: str, *, complete: bool) -> str:
        """The answer to a request has ended; it is not complete if the request failed. Return the first change."""
        asked, self._asked = self._asked, 0
        if self._again:
            self._again = False
            self._to_ask = RTM_GETLINK
            self._named.clear()
            return ""
        if asked == RTM_GETLINK:
            if complete:
                self._links = KnownLinks((index, link) for index, link in self._links.items() if index in self._named)
            self._to_ask = RTM_GETADDR
            return ""
        gone = [address for address in self._addresses if address not in self._named] if complete else []
        usable = [address for address in gone if self._addresses.pop(address)]
        found = [self._said(one, False) for one in usable if self._complete and one[0] not in self._links.beyond(own)]
        self._named.clear()
        self._complete = self._complete or complete
        return found[0] if found else ""

    def _name(self, what: int | _Address) -> None:
        """Remember, while answers to our requests come, what is there."""
        if self.asking:
            self._named.add(what)


def _packed(address: str) -> bytes:
    """The bytes of an IP address; b"" for one of a loopback interface, behind which may be a proxy, and for any other
    text."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return b""
    return b"" if parsed.is_loopback else parsed.packed


def _number(value: memoryview) -> int:
    """A number of 4 bytes; 0 if the attribute is of another size."""
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else 0
