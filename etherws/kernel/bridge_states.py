"""How our ports and their bridges are now: up or down, and whether spanning tree lets frames through, for many at once.

The kernel is asked once for all ports of all bridges, in a thread. It serves status alone; no frame's way depends on
it. Read next: bridge_tables.py, what is behind a port; server/lan_warnings.py and client/observed.py, who ask. Sources:
include/uapi/linux/if_bridge.h, if_link.h; Linux net/bridge/br_netlink.c, br_fill_ifinfo().
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from etherws.kernel import bridge_tables, links, netlink
from etherws.kernel.link_facts import PORT_STATES
from etherws.walks import in_turns

#: include/uapi/linux/rtnetlink.h
RTM_NEWLINK, RTM_GETLINK = 16, 18

#: include/uapi/linux/if_link.h: the state of a port.
IFLA_BRPORT_STATE = 1

_NUMBER = struct.Struct("=I")

#: Why a port that is up lets nothing pass, by its state. The times are those of a bridge's forward delay, 15 s.
_CLOSED = {
    "blocking": "spanning tree keeps it closed, since there is a second way",
    "listening": "spanning tree opens it some 30 s after its start",
    "learning": "spanning tree opens it within some 15 s",
}


class PortNow(NamedTuple):
    """A port of a bridge: its name, whether it is up, its state (one of link_facts.PORT_STATES), its MTU in bytes, and
    the index of the bridge."""

    name: str
    up: bool
    state: str
    mtu: int
    bridge: int


def ports_now(wanted: Collection[int]) -> dict[int, PortNow]:
    """Those of these indexes that are in a bridge. Raises OSError. Blocks this greenlet while the kernel is asked."""
    found = {}
    for message in in_turns(bridge_tables.dump(RTM_GETLINK, links.IFINFOMSG.pack(links.AF_BRIDGE, 0, 0, 0, 0))):
        if message.kind != RTM_NEWLINK or len(message.body) < links.IFINFOMSG.size:
            continue
        _, _, index, flags, _ = links.IFINFOMSG.unpack_from(message.body)
        if index not in wanted:
            continue
        values = dict(netlink.attributes(message.body[links.IFINFOMSG.size :]))
        state = dict(netlink.attributes(values.get(links.IFLA_PROTINFO, b""))).get(IFLA_BRPORT_STATE)
        # A card that switches by itself tells of itself, too, without these.
        if state and {links.IFLA_MASTER, links.IFLA_MTU, links.IFLA_IFNAME} <= values.keys():
            (mtu,), (bridge,) = (_NUMBER.unpack(values[name]) for name in (links.IFLA_MTU, links.IFLA_MASTER))
            name = netlink.text(values[links.IFLA_IFNAME])
            known = PORT_STATES[state[0]] if state[0] < len(PORT_STATES) else str(state[0])
            found[index] = PortNow(name, bool(flags & links.IFF_UP), known, mtu, bridge)
    return found


def troubles(ports: Mapping[int, PortNow], used: Mapping[int, str]) -> Iterator[str]:
    """A sentence for each bridge of these ports that is down, and for each port that lets nothing pass though its
    bridge is up. Of ports, only those `used` are looked at: each with its client, "" for none."""
    down = set()
    for bridge in sorted({port.bridge for port in ports.values()}):
        with contextlib.suppress(OSError):
            if (link := links.find(bridge)) and not link.up:
                down.add(bridge)
                yield f"{link.name} is down, so nothing passes between its ports: ip link set {link.name} up"
    for index, port in in_turns(ports.items()):
        if index not in used or port.bridge in down:
            continue
        described = f"{port.name} ({used[index]})" if used[index] else port.name
        if not port.up:
            yield f"{described} is down: ip link set {port.name} up"
        elif why := _CLOSED.get(port.state):
            yield f"{described} is {port.state}, so nothing passes there: {why} (bridge link show)"
