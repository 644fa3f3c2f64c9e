"""Rules for `addresses`: the IP addresses that a client may use as its own, in IP, ARP and neighbour discovery.

A prefix is looked up by a mask and a set for each length of a prefix. The unspecified address is a source only while a
host has no other: for DHCP, ARP probes (RFC 5227), duplicate address detection (RFC 4862), and the MLD reports and
router solicitations beside that. Read next: headers.py, which calls this.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network

from etherws.kernel.nft_expressions import (
    AT_LEAST,
    ICMPV6_TYPES,
    IPV4_ADDRESSES,
    IPV6_ADDRESSES,
    JUMP,
    MORE_THAN,
    NETWORK,
    RETURN,
    TRANSPORT,
    UPPER,
    Expression,
    compare,
    in_set,
    load,
    load_extension,
    mask,
    verdict,
)
from etherws.kernel.nftables import Table
from etherws.kernel.rules import ARP_SENDER, IP_SOURCE, NEIGHBOUR

#: Names of chains: each drops a frame, or returns.
ARP, IPV4, IPV6 = "arp", "source4", "source6"
_NEIGHBOUR, _TARGET = "neighbour", "target"

_UDP, _ICMPV6, _FRAGMENT = b"\x11", b"\x3a", 44
_SOURCE_V4, _SOURCE_V6 = load(NETWORK, 12, 4), load(NETWORK, 8, 16)
_NONE_V4, _NONE_V6 = bytes(4), bytes(16)

#: Of ICMPv6 (RFC 4861, RFC 3810, RFC 2710): solicitation and advertisement of neighbours; what else a host may send
#: without an address: MLD reports and "done", router solicitation.
_SOLICITATION, _ADVERTISEMENT = b"\x87", b"\x88"
_WITHOUT_ADDRESS = b"\x83", b"\x84", b"\x85", b"\x87", b"\x8f"
_KIND = load(TRANSPORT, 0, 1)

#: ARP for Ethernet and IPv4 (RFC 826): hardware, protocol and lengths; then the operation, the sender's two addresses
#: and the target's.
_ARP_ETHERNET, _ARP_REQUEST = bytes.fromhex("000108000604"), b"\0\1"

#: Bytes of a solicitation or advertisement with one option of 8 bytes, which is enough for a link-layer address. More
#: could hide a second address.
_ND_BYTES_MAX = 32
#: The beginning of the option: source or target link-layer address, 8 bytes.
_OPTIONS = {_SOLICITATION: b"\1\1", _ADVERTISEMENT: b"\2\1"}


def add_chains(table: Table, addresses: Collection[IPv4Network | IPv6Network], macs: str | None) -> None:
    """Add the chains. `macs` is the set of the client's Ethernet addresses; None if it may have any."""
    lengths: dict[tuple[int, int], list[bytes]] = {}
    for network in sorted(addresses, key=lambda one: (one.version, -one.prefixlen, one.network_address.packed)):
        lengths.setdefault((network.version, network.prefixlen), []).append(network.network_address.packed)
    for (version, length), values in lengths.items():
        kind = IPV4_ADDRESSES if version == 4 else IPV6_ADDRESSES
        table.values(_set_name(version, length), kind, values)
    own = {version: [length for which, length in lengths if which == version] for version in (4, 6)}
    _add_ipv4(table, own[4])
    _add_arp(table, own[4], macs)
    _add_neighbour(table, own[6], macs)
    _add_ipv6(table, own[6])


def _set_name(version: int, length: int) -> str:
    return f"ipv{version}-{length}"


def _return_if_own(table: Table, chain: str, version: int, lengths: list[int], *before: Expression) -> None:
    """`before` ends with the load of an address: return from the chain if that is one of the client's."""
    bits = 32 if version == 4 else 128
    for length in lengths:
        ones = (((1 << length) - 1) << (bits - length)).to_bytes(bits // 8, "big")
        table.rule(chain, *before, mask(ones), in_set(_set_name(version, length)), verdict(RETURN))


def _add_ipv4(table: Table, lengths: list[int]) -> None:
    table.chain(IPV4)
    _return_if_own(table, IPV4, 4, lengths, _SOURCE_V4)
    unfragmented = load(NETWORK, 6, 2), mask(b"\x3f\xff"), compare(bytes(2))
    from_client_to_server = load(TRANSPORT, 0, 4), compare(bytes.fromhex("00440043"))
    table.rule(
        IPV4,
        *(_SOURCE_V4, compare(_NONE_V4), *unfragmented, UPPER, compare(_UDP), *from_client_to_server),
        verdict(RETURN),
    )
    table.drop(IPV4, IP_SOURCE)


def _add_arp(table: Table, lengths: list[int], macs: str | None) -> None:
    table.chain(ARP)
    if macs is not None:
        # The kernel cannot compare it with the frame's own source, but with all that the client uses.
        table.chain("hardware")
        table.rule("hardware", load(NETWORK, 8, 6), in_set(macs), verdict(RETURN))
        table.drop("hardware", ARP_SENDER)
        table.rule(ARP, verdict(JUMP, "hardware"))
    usual = load(NETWORK, 0, 6), compare(_ARP_ETHERNET)
    _return_if_own(table, ARP, 4, lengths, *usual, load(NETWORK, 14, 4))
    # A probe for an address of others would keep them from using it.
    probe = load(NETWORK, 6, 2), compare(_ARP_REQUEST), load(NETWORK, 14, 4), compare(_NONE_V4)
    _return_if_own(table, ARP, 4, lengths, *usual, *probe, load(NETWORK, 24, 4))
    table.drop(ARP, ARP_SENDER)


def _add_ipv6(table: Table, lengths: list[int]) -> None:
    table.chain(IPV6)
    for kind in (_SOLICITATION, _ADVERTISEMENT):
        table.rule(IPV6, UPPER, compare(_ICMPV6), _KIND, compare(kind), verdict(JUMP, _NEIGHBOUR))
    _return_if_own(table, IPV6, 6, lengths, _SOURCE_V6)
    table.values("without-address", ICMPV6_TYPES, _WITHOUT_ADDRESS)
    table.rule(
        IPV6,
        *(_SOURCE_V6, compare(_NONE_V6), UPPER, compare(_ICMPV6), _KIND, in_set("without-address")),
        verdict(RETURN),
    )
    table.drop(IPV6, IP_SOURCE)


def _add_neighbour(table: Table, lengths: list[int], macs: str | None) -> None:
    """What the client says of an address: that it has it, or wants it. What it asks of others' addresses is free."""
    table.chain(_TARGET)
    _return_if_own(table, _TARGET, 6, lengths, load(TRANSPORT, 8, 16))
    table.drop(_TARGET, NEIGHBOUR)
    table.chain(_NEIGHBOUR)
    # A later fragment would bring the target and the option; hosts ignore such fragments (RFC 6980).
    table.drop(_NEIGHBOUR, NEIGHBOUR, load_extension(_FRAGMENT, 0, 1), compare(bytes(1), AT_LEAST))
    table.drop(_NEIGHBOUR, NEIGHBOUR, load(NETWORK, 4, 2), compare(_ND_BYTES_MAX.to_bytes(2, "big"), MORE_THAN))
    table.rule(_NEIGHBOUR, _KIND, compare(_ADVERTISEMENT), verdict(JUMP, _TARGET))
    table.rule(_NEIGHBOUR, _SOURCE_V6, compare(_NONE_V6), verdict(JUMP, _TARGET))
    # Without an address, hosts ignore its option.
    table.rule(_NEIGHBOUR, _KIND, compare(_SOLICITATION), _SOURCE_V6, compare(_NONE_V6), verdict(RETURN))
    if macs is not None:
        for kind, option in _OPTIONS.items():
            is_option = _KIND, compare(kind), load(TRANSPORT, 24, 2), compare(option)
            table.rule(_NEIGHBOUR, *is_option, load(TRANSPORT, 26, 6), in_set(macs), verdict(RETURN))
        table.drop(_NEIGHBOUR, NEIGHBOUR, load(TRANSPORT, 24, 1), compare(bytes(1), AT_LEAST))
