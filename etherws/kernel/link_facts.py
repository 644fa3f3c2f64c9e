"""All interfaces as the kernel describes them, with what a bridge and its ports are set to; for whoever looks around.

It needs no right, and changes nothing. What etherws itself asks of one interface is in links.py. Used by check/ and
bundle/. Sources: include/uapi/linux/if_link.h, if_bridge.h, if_tun.h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from etherws.kernel import interfaces
from etherws.kernel.links import PROVIDER_TAG

#: include/uapi/linux/if.h
IFF_UP, IFF_LOOPBACK = 1 << 0, 1 << 3

#: States of a port (include/uapi/linux/if_bridge.h).
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")

#: include/uapi/linux/if_tun.h
_TAP = 2

#: BRIDGE_VLAN_INFO_PVID of include/uapi/linux/if_bridge.h.
_PVID = 2

#: Interfaces that are looked at; a hypervisor may have thousands.
LINKS_MAX = 5000


@dataclass(frozen=True)
class BridgeFacts:
    """What a bridge is set to. `forward_delay` and `ageing` are in seconds. `provider`: its tags are of 802.1ad."""

    stp: bool
    forward_delay: float
    ageing: float
    vlan_filtering: bool
    provider: bool = False


@dataclass(frozen=True)
class PortFacts:
    """A bridge's port: its state (one of PORT_STATES), whether it is isolated, and the VLAN of its untagged frames if
    the bridge filters VLANs."""

    state: str
    isolated: bool
    pvid: int | None = None


@dataclass(frozen=True)
class TapFacts:
    """A TAP: whether it stays without a process that has it open; whether it can have several queues; and whether it
    belongs to a user or a group, so that others may not open it."""

    persistent: bool
    multi_queue: bool
    owned: bool


@dataclass(frozen=True)
class LinkFacts:
    """An interface. `kind` is the kernel's word ("bridge", "veth", "tun"), empty for a card; a TAP is "tap". `master`
    is the index of the bridge or bond that it is in."""

    index: int
    name: str
    kind: str = ""
    up: bool = True
    carrier: bool = True
    loopback: bool = False
    mtu: int = 1500
    address: str = ""
    master: int | None = None
    alias: str = ""
    bridge: BridgeFacts | None = None
    port: PortFacts | None = None
    tap: TapFacts | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of etherws's, by the name that these have without --device."""
        return self.kind == "tap" and self.name.startswith("ethws")


def links() -> list[LinkFacts]:
    """Those of this network namespace, by index. Raises DeviceError."""
    with interfaces.netlink("look at the interfaces") as route:
        found = [_facts(link) for link in islice(route.link("dump"), LINKS_MAX)]
        if any(link.bridge and link.bridge.vlan_filtering for link in found):
            pvids = {answer["index"]: _pvid(answer) for answer in islice(route.get_vlans(), LINKS_MAX)}
            found = [
                replace(link, port=replace(link.port, pvid=pvids.get(link.index))) if link.port else link
                for link in found
            ]
    return found


def _facts(link: Any) -> LinkFacts:
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    if kind == "tun" and data is not None and data.get("IFLA_TUN_TYPE") == _TAP:
        kind = "tap"
    of_port = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    is_port = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") == "bridge" and of_port is not None
    return LinkFacts(
        index=link["index"],
        name=link.get("ifname"),
        kind=kind,
        up=bool(link["flags"] & IFF_UP),
        carrier=bool(link.get("carrier")),
        loopback=bool(link["flags"] & IFF_LOOPBACK),
        mtu=link.get("mtu") or 0,
        address=link.get("address") or "",
        master=link.get("master"),
        alias=link.get("ifalias") or "",
        bridge=_bridge(data) if kind == "bridge" and data is not None else None,
        port=_port(of_port) if is_port else None,
        tap=_tap(data) if kind == "tap" else None,
    )


def _pvid(answer: Any) -> int | None:
    vlans = answer.get("IFLA_AF_SPEC").get_attrs("IFLA_BRIDGE_VLAN_INFO")
    return next((vlan["vid"] for vlan in vlans if vlan["flags"] & _PVID), None)


def _tap(data: Any) -> TapFacts:
    owned = any(data.get(name) is not None for name in ("IFLA_TUN_OWNER", "IFLA_TUN_GROUP"))
    return TapFacts(bool(data.get("IFLA_TUN_PERSIST")), bool(data.get("IFLA_TUN_MULTI_QUEUE")), owned)


def _bridge(data: Any) -> BridgeFacts:
    # The kernel counts in hundredths of a second here (USER_HZ).
    return BridgeFacts(
        stp=bool(data.get("IFLA_BR_STP_STATE")),
        forward_delay=(data.get("IFLA_BR_FORWARD_DELAY") or 0) / 100,
        ageing=(data.get("IFLA_BR_AGEING_TIME") or 0) / 100,
        vlan_filtering=bool(data.get("IFLA_BR_VLAN_FILTERING")),
        provider=data.get("IFLA_BR_VLAN_PROTOCOL") == int.from_bytes(PROVIDER_TAG, "big"),
    )


def _port(data: Any) -> PortFacts:
    state = data.get("IFLA_BRPORT_STATE") or 0
    return PortFacts(
        PORT_STATES[state] if state < len(PORT_STATES) else str(state), bool(data.get("IFLA_BRPORT_ISOLATED"))
    )
