"""What the kernel enforces for one client (Rules), and the nf_tables table that filters what the client sends.

Plain data: nothing here talks to the kernel, or knows when rules are put in. The table's chain sees a frame before the
bridge learns from it. docs/policy.rst says what each rule costs. Read next: port_filter.py, nftables.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from etherws.kernel import nftables
from etherws.kernel.nftables import ACCEPT, JUMP, L4PROTO, LINK, NETWORK, PROTOCOL, RETURN, TRANSPORT, Table

#: Seconds that an address stays one of a client's after its last frame, as in a bridge (br_device.c).
AGEING = 300.0

#: The set of a client's addresses. If it learns them, others may change which it has: that gives the client no more.
ADDRESSES = "addresses"

#: A table's name is this and its interface's name. Servers in one network namespace never share an interface.
PREFIX = "etherws-"

#: What a client may be kept from sending.
BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT = "bpdu", "dhcp-server", "router-advertisement"

#: More reasons for drops.
ADDRESS, DISGUISED = "source-address", "disguised"

#: The addresses of 802.1D and MSTP, of provider bridges (802.1Q, table 8-1), and of Cisco's spanning tree per VLAN.
_BPDUS = tuple(map(bytes.fromhex, ("0180c2000000", "0180c2000008", "01000ccccccd")))

_IPV4, _IPV6, _VLAN, _QINQ = b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"
#: The kernel's EtherType for a frame that has a length in its place (include/uapi/linux/if_ether.h, ETH_P_802_2).
_LLC = b"\x00\x04"
_SNAP = b"\xaa\xaa\x03"
_UDP, _ICMPV6 = b"\x11", b"\x3a"
_FRAGMENT = 44
_ADVERTISEMENT = b"\x86"
_DHCP_CLIENT, _DHCPV6_CLIENT = (68).to_bytes(2, "big"), (546).to_bytes(2, "big")


@dataclass(frozen=True)
class Rules:
    """What the kernel enforces for one client. The defaults enforce nothing.

    `macs`: how many source addresses the client may use, 0 for any number; or which ones ("02:00:00:00:00:01").
    `drop`: what is dropped when the client sends it; some of BPDU, DHCP_SERVER and ROUTER_ADVERTISEMENT.
    `rate_down`: the most that goes to the client, in bits per second; None without a limit.
    `isolated`: the bridge passes nothing between this client and other isolated clients.
    `macs_required`: False if nobody asked for `macs`, so that a kernel which cannot filter may do without it.
    """

    macs: int | frozenset[str] = 0
    drop: frozenset[str] = frozenset()
    rate_down: int | None = None
    isolated: bool = False
    macs_required: bool = True

    @property
    def learns(self) -> bool:
        """Whether the client's first source addresses become its own."""
        return isinstance(self.macs, int) and self.macs != 0

    @property
    def filters(self) -> bool:
        """Whether some of what the client sends may be dropped, so that the port needs a table."""
        return self.macs != 0 or bool(self.drop)


#: Rules that need everything of nf_tables which filters here use.
EVERYTHING = Rules(macs=1, drop=frozenset({BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT}))


def table_name(interface: str) -> str:
    """The name of the table that holds the filters of this interface."""
    return PREFIX + interface


def table_for(interface: str, rules: Rules) -> Table:
    """The table that filters what comes in by the interface. The first rule that drops or accepts a frame decides."""
    table = Table(table_name(interface))
    table.chain("ingress", interface)
    if BPDU in rules.drop:
        for address in _BPDUS:
            table.drop("ingress", BPDU, nftables.load(LINK, 0, 6), nftables.compare(address))
    if rules.drop & {DHCP_SERVER, ROUTER_ADVERTISEMENT}:
        _drop_disguised(table)
        _inspect_ip(table, rules.drop)
    if rules.macs != 0:
        if isinstance(rules.macs, int):
            table.addresses(ADDRESSES, rules.macs, AGEING)
            is_known = nftables.add_to_set(ADDRESSES)
        else:
            listed = [bytes.fromhex(address.replace(":", "")) for address in sorted(rules.macs)]
            table.addresses(ADDRESSES, listed)
            is_known = nftables.in_set(ADDRESSES)
        table.rule("ingress", nftables.load(LINK, 6, 6), is_known, nftables.verdict(ACCEPT))
        table.drop("ingress", ADDRESS)
    return table


def _drop_disguised(table: Table) -> None:
    """Drop IP behind two VLAN tags, or behind LLC and SNAP headers: some hosts look there, rules do not (VU#855201)."""
    protocol = nftables.load_meta(PROTOCOL)
    for kind in (_VLAN, _QINQ):
        table.drop("ingress", DISGUISED, protocol, nftables.compare(kind))
    table.chain("llc")
    table.rule("ingress", protocol, nftables.compare(_LLC), nftables.verdict(JUMP, "llc"))
    for kind in (_IPV4, _IPV6, _VLAN, _QINQ):
        snap = nftables.load(NETWORK, 0, 3), nftables.compare(_SNAP), nftables.load(NETWORK, 6, 2)
        table.drop("llc", DISGUISED, *snap, nftables.compare(kind))


def _inspect_ip(table: Table, drop: frozenset[str]) -> None:
    """Drop DHCP servers' answers or router advertisements, and IPv6 whose headers cannot all be read."""
    protocol, above = nftables.load_meta(PROTOCOL), nftables.load_meta(L4PROTO)
    table.chain("ipv6")
    table.rule("ingress", protocol, nftables.compare(_IPV6), nftables.verdict(JUMP, "ipv6"))
    if DHCP_SERVER in drop:
        # Whatever port it comes from: a DHCP client looks at its own port only.
        udp_to = above, nftables.compare(_UDP), nftables.load(TRANSPORT, 2, 2)
        # Later fragments have data at the place of the port.
        first = nftables.load(NETWORK, 6, 2), nftables.mask(b"\x1f\xff"), nftables.compare(bytes(2))
        table.drop(
            "ingress", DHCP_SERVER, protocol, nftables.compare(_IPV4), *first, *udp_to, nftables.compare(_DHCP_CLIENT)
        )
        table.drop("ipv6", DHCP_SERVER, *udp_to, nftables.compare(_DHCPV6_CLIENT))
    if ROUTER_ADVERTISEMENT in drop:
        kind = above, nftables.compare(_ICMPV6), nftables.load(TRANSPORT, 0, 1)
        table.drop("ipv6", ROUTER_ADVERTISEMENT, *kind, nftables.compare(_ADVERTISEMENT))
    # The header above IPv6 could be read, and passed the rules before this one.
    table.rule(
        "ipv6", nftables.load(TRANSPORT, 0, 4), nftables.compare(bytes(4), nftables.AT_LEAST), nftables.verdict(RETURN)
    )
    # A later fragment has no such header: the first one must have it.
    later = (
        nftables.load_extension(_FRAGMENT, 2, 2),
        nftables.mask(b"\xff\xf8"),
        nftables.compare(bytes(2), nftables.UNEQUAL),
    )
    table.rule("ipv6", above, nftables.compare(bytes(1), nftables.AT_LEAST), *later, nftables.verdict(RETURN))
    # A chain of headers that is broken, or goes on in a later fragment, hides what comes after it (RFC 7113).
    table.drop("ipv6", DISGUISED)
