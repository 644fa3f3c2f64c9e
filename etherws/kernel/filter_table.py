"""The nf_tables table that filters what one client sends, made of its Rules: its chains, and the order of their rules.

The chain "ingress" sees a frame before the bridge learns from it. The first rule that drops a frame decides. Nothing
here talks to the kernel. Read next: headers.py, which looks at IP; sources.py, for `addresses`; nftables.py.
"""

from __future__ import annotations

from etherws.kernel import headers, rules
from etherws.kernel.headers import IS_LLC
from etherws.kernel.nft_expressions import (
    ETHERNET_ADDRESSES,
    JUMP,
    LINK,
    NETWORK,
    RETURN,
    add_to_set,
    compare,
    faster_than,
    in_set,
    load,
    mask,
    verdict,
)
from etherws.kernel.nftables import Table
from etherws.kernel.rules import (
    ADDRESS,
    ADDRESSES,
    BPDU,
    DHCP_SERVER,
    GROUP_RATE,
    ROUTER_ADVERTISEMENT,
    Rules,
    table_name,
)

#: The addresses of 802.1D and MSTP, of provider bridges (802.1Q, table 8-1), and of Cisco's spanning tree per VLAN.
_BPDU_ADDRESSES = tuple(map(bytes.fromhex, ("0180c2000000", "0180c2000008", "01000ccccccd")))
#: What comes behind the length of a BPDU: LLC's address of 802.1D; LLC and SNAP of Cisco's spanning tree per VLAN.
_BPDU_LLC, _BPDU_SNAP = b"\x42", bytes.fromhex("aaaa0300000c010b")

#: Seconds' worth of broadcast and multicast that may come at once, and the least number of frames: a host that starts
#: sends some five at once (DHCP, ARP, MLD, neighbour and router solicitation).
GROUP_BURST, GROUP_BURST_MIN = 0.1, 5


def table_for(interface: str, wanted: Rules) -> Table:
    """The table that filters what comes in by the interface."""
    table = Table(table_name(interface))
    table.chain("ingress", interface)
    if wanted.macs != 0:
        _check_ethernet_source(table, wanted.macs)
    if BPDU in wanted.drop:
        _drop_bpdus(table)
    inspected = bool(wanted.drop & {DHCP_SERVER, ROUTER_ADVERTISEMENT}) or wanted.addresses is not None
    if inspected:
        headers.inspect(table, "ingress", wanted, ADDRESSES if wanted.macs != 0 else None)
    if wanted.port_vlans:
        headers.keep_in_vlan(table, "ingress", wanted, inspected=inspected)
    if wanted.group_rate is not None:
        _limit_groups(table, wanted.group_rate)
    return table


def _check_ethernet_source(table: Table, macs: int | frozenset[str]) -> None:
    """Drop frames from other addresses than the client's. Comes first: ARP is compared with the addresses seen here."""
    if isinstance(macs, int):
        table.addresses(ADDRESSES, macs, rules.AGEING)
        known = add_to_set(ADDRESSES)
    else:
        table.addresses(ADDRESSES, [bytes.fromhex(address.replace(":", "")) for address in sorted(macs)])
        known = in_set(ADDRESSES)
    table.chain("source")
    table.rule("source", load(LINK, 6, 6), known, verdict(RETURN))
    table.drop("source", ADDRESS)
    table.rule("ingress", verdict(JUMP, "source"))


def _drop_bpdus(table: Table) -> None:
    """Drop spanning tree: by its addresses, and by its headers, since a bridge may have another group address."""
    table.values("bpdu-addresses", ETHERNET_ADDRESSES, _BPDU_ADDRESSES)
    table.drop("ingress", BPDU, load(LINK, 0, 6), in_set("bpdu-addresses"))
    # A chain of its own: nft ends with an error when it shows a rule that looks at LLC after its EtherType.
    table.chain("bpdu")
    table.rule("ingress", *IS_LLC, verdict(JUMP, "bpdu"))
    # The lowest bit marks a group of LLC's addresses.
    table.drop("bpdu", BPDU, load(NETWORK, 0, 1), mask(b"\xfe"), compare(_BPDU_LLC))
    table.drop("bpdu", BPDU, load(NETWORK, 0, len(_BPDU_SNAP)), compare(_BPDU_SNAP))


def _limit_groups(table: Table, rate: int) -> None:
    """Drop broadcast and multicast frames above `rate` per second. Comes last: only what passes is counted."""
    table.chain("group")
    table.rule("ingress", load(LINK, 0, 1), mask(b"\1"), compare(b"\1"), verdict(JUMP, "group"))
    table.drop("group", GROUP_RATE, faster_than(rate, max(GROUP_BURST_MIN, int(rate * GROUP_BURST))))
