"""How our ports and their bridges are now: up or down, and whether spanning tree lets frames through, for many at once.

The kernel is asked once for all ports of all bridges, in a thread. It serves status alone; no frame's way depends on
it. Read next: bridge_tables.py, what is behind a port; server/lan_warnings.py, which says what is wrong. Sources:
include/uapi/linux/if_bridge.h, if_link.h; Linux net/bridge/br_netlink.c, br_fill_ifinfo().
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple

from etherws.kernel import bridge_tables, links, netlink
from etherws.kernel.link_facts import PORT_STATES
from etherws.kernel.shared_look import in_turns

#: include/uapi/linux/rtnetlink.h
RTM_NEWLINK, RTM_GETLINK = 16, 18

#: include/uapi/linux/if_link.h: the state of a port.
IFLA_BRPORT_STATE = 1

#: struct ifinfomsg: family, type, index, flags, mask.
_IFINFOMSG, _NUMBER = struct.Struct("=BxHiII"), struct.Struct("=I")


class PortNow(NamedTuple):
    """A port of a bridge: whether it is up, its state (one of link_facts.PORT_STATES), its MTU in bytes, and the index
    of the bridge."""

    up: bool
    state: str
    mtu: int
    bridge: int


def ports_now(wanted: Collection[int]) -> dict[int, PortNow]:
    """Those of these indexes that are in a bridge. Raises OSError. Blocks this greenlet while the kernel is asked."""
    found = {}
    for message in in_turns(bridge_tables.dump(RTM_GETLINK, _IFINFOMSG.pack(links.AF_BRIDGE, 0, 0, 0, 0))):
        if message.kind != RTM_NEWLINK or len(message.body) < _IFINFOMSG.size:
            continue
        _, _, index, flags, _ = _IFINFOMSG.unpack_from(message.body)
        if index not in wanted:
            continue
        values = dict(netlink.attributes(message.body[_IFINFOMSG.size :]))
        state = dict(netlink.attributes(values.get(links.IFLA_PROTINFO, b""))).get(IFLA_BRPORT_STATE)
        # A card that switches by itself tells of itself, too, without these.
        if state and links.IFLA_MASTER in values and links.IFLA_MTU in values:
            (mtu,), (bridge,) = (_NUMBER.unpack(values[name]) for name in (links.IFLA_MTU, links.IFLA_MASTER))
            name = PORT_STATES[state[0]] if state[0] < len(PORT_STATES) else str(state[0])
            found[index] = PortNow(bool(flags & links.IFF_UP), name, mtu, bridge)
    return found


def bridges_down(ports: Mapping[int, PortNow]) -> dict[int, str]:
    """The bridges of these ports that are down: the name of each, by its index."""
    down = {}
    for bridge in {port.bridge for port in ports.values()}:
        with contextlib.suppress(OSError):
            if (link := links.find(bridge)) and not link.up:
                down[bridge] = link.name
    return down
