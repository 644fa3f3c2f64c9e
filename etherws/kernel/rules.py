"""What the kernel enforces for one client (Rules), and the names of the reasons for which it drops frames.

Plain data: nothing here talks to the kernel, or knows when rules are put in. docs/policy.rst says what each rule means
and costs. Read next: filter_table.py, which makes rules of nf_tables of them; port_filter.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

#: Seconds that an address stays one of a client's after its last frame, as in a bridge (br_device.c).
AGEING = 300.0

#: The set of a client's addresses. If it learns them, others may change which it has: that gives the client no more.
ADDRESSES = "addresses"

#: A table's name is this and its interface's name. Servers in one network namespace never share an interface.
PREFIX = "etherws-"

#: What a client may be kept from sending; also reasons for drops.
BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT = "bpdu", "dhcp-server", "router-advertisement"

#: More reasons for drops: the Ethernet source; the IP source; what ARP and neighbour discovery say of an address; too
#: many frames to groups; headers that hide what they carry.
ADDRESS, IP_SOURCE, ARP_SENDER, NEIGHBOUR = "source-address", "ip-source", "arp-sender", "neighbour-discovery"
GROUP_RATE, DISGUISED = "group-rate", "disguised"

#: Flags of a VLAN (include/uapi/linux/if_bridge.h): untagged frames are in it; its frames go out without a tag.
PVID, UNTAGGED = 0x2, 0x4


@dataclass(frozen=True)
class Rules:
    """What the kernel enforces for one client. The defaults enforce nothing.

    `macs`: how many source addresses the client may use, 0 for any number; or which ones ("02:00:00:00:00:01").
    `addresses`: the IP addresses that the client may use as its own; None for any.
    `drop`: what is dropped when the client sends it; some of BPDU, DHCP_SERVER and ROUTER_ADVERTISEMENT.
    `group_rate`: how many broadcast and multicast frames it may send per second; None without a limit.
    `rate_down`: the most that goes to the client, in bits per second; None without a limit.
    `isolated`: the bridge passes nothing between this client and other isolated clients.
    `vlan`: the VLAN of its untagged frames; `vlans`: those whose tags may pass. With neither the bridge decides.
    `macs_required`: False if nobody asked for `macs`, so that a kernel which cannot filter may do without it.
    """

    macs: int | frozenset[str] = 0
    drop: frozenset[str] = frozenset()
    rate_down: int | None = None
    isolated: bool = False
    macs_required: bool = True
    addresses: frozenset[IPv4Network | IPv6Network] | None = None
    group_rate: int | None = None
    vlan: int | None = None
    vlans: frozenset[int] = frozenset()

    @property
    def port_vlans(self) -> dict[int, int]:
        """The VLANs of the port as port_vlans.py has them; empty if the bridge decides."""
        own = {self.vlan: PVID | UNTAGGED} if self.vlan is not None else {}
        return {**dict.fromkeys(self.vlans, 0), **own}

    @property
    def learns(self) -> bool:
        """Whether the client's first source addresses become its own."""
        return isinstance(self.macs, int) and self.macs != 0

    @property
    def filters(self) -> bool:
        """Whether some of what the client sends may be dropped, so that the port needs a table."""
        return self.macs != 0 or self.filters_on_request

    @property
    def on_request(self) -> bool:
        """Whether somebody asked for any of them, so that no frame may pass without."""
        macs = self.macs != 0 and self.macs_required
        return macs or self.filters_on_request or self.isolated or self.rate_down is not None

    @property
    def filters_on_request(self) -> bool:
        """Whether somebody asked for one of the filters beside `macs`, which always has a value."""
        limited = self.addresses is not None or self.group_rate is not None
        return bool(self.drop) or limited or bool(self.port_vlans)


#: Rules that need everything of nf_tables which filters here use, but for the limit of `group_rate`: it is a module of
#: its own (CONFIG_NFT_LIMIT), and where it is missing the others are still of use.
EVERYTHING = Rules(
    macs=1,
    drop=frozenset({BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT}),
    addresses=frozenset({IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32")}),
)


def table_name(interface: str) -> str:
    """The name of the table that holds the filters of this interface."""
    return PREFIX + interface
