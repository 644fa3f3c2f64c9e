"""Rules that look at IP: DHCP servers, what makes a client the LAN's router, and headers that hide what they carry.

The kernel reads one VLAN tag, IPv4's options and IPv6's extension headers by itself. What it does not read, but a host
behind the bridge might, is dropped: a filter that looks at one header while the host looks at another is none. What is
left alone is said in docs/policy.rst. Read next: sources.py, for `addresses`.
"""

from __future__ import annotations

from etherws.kernel import sources
from etherws.kernel.nft_expressions import (
    AT_LEAST,
    ETHERTYPE,
    ETHERTYPES,
    ICMP_TYPES,
    ICMPV6_TYPES,
    IP_PROTOCOLS,
    JUMP,
    LINK,
    NETWORK,
    RETURN,
    TRANSPORT,
    UNEQUAL,
    UPPER,
    compare,
    in_set,
    load,
    load_extension,
    mask,
    verdict,
)
from etherws.kernel.nftables import Table
from etherws.kernel.rules import DHCP_SERVER, DISGUISED, ROUTER_ADVERTISEMENT, Rules

_IPV4, _IPV6, _ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
#: 802.1Q, 802.1ad, and what went before it: a second tag, or one that the kernel does not read.
_TAGS = tuple(map(bytes.fromhex, ("8100", "88a8", "9100", "9200", "9300")))
_PROVIDER_TAG = bytes.fromhex("88a8")
#: Headers with a whole frame or packet behind them: Ethernet in GRE; MPLS; PPPoE; MACsec; 802.1ah; tags of Cisco and of
#: 802.1BR; HSR and PRP.
_CARRIERS = tuple(
    number.to_bytes(2, "big")
    for number in (0x6558, 0x8847, 0x8848, 0x8864, 0x88E5, 0x88E7, 0x8909, 0x8926, 0x893F, 0x892F, 0x88FB)
)
#: The kernel's EtherType for a frame that has a length in its place (include/uapi/linux/if_ether.h, ETH_P_802_2).
IS_LLC = ETHERTYPE, compare(b"\x00\x04")

#: LLC's addresses of SNAP and of IP (RFC 1042, RFC 948); the lowest bit marks a group. SNAP's LLC header is unnumbered
#: (03). The organization of 802.1 has whole frames behind SNAP (RFC 2684).
_SNAP, _LLC_IP, _UNNUMBERED, _OUI_8021 = b"\xaa", b"\x06", b"\x03", bytes.fromhex("0080c2")

#: Protocols above IP (IANA, protocol-numbers).
_ICMP, _UDP, _AH, _ICMPV6 = b"\x01", b"\x11", b"\x33", b"\x3a"
#: IPv6's extension headers: what comes behind a fragment header must be none (IANA, ipv6-parameters).
_EXTENSIONS = tuple(bytes([number]) for number in (0, 43, 44, 51, 60, 135, 139, 140))
_FRAGMENT = 44
#: Tunnels with a whole packet or frame right behind IP: IPv4, IPv6, GRE, EtherIP and others.
_TUNNELS = tuple(bytes([number]) for number in (4, 41, 47, 55, 94, 97, 98, 115, 137, 143))

#: UDP ports. A relay talks to servers at the servers' port, and is answered there.
_DHCP_SERVER, _DHCP_CLIENT, _DHCPV6_CLIENT, _DHCPV6_SERVER = (port.to_bytes(2, "big") for port in (67, 68, 546, 547))
#: The first byte of what a server sends to a relay: BOOTREPLY (RFC 2131), RELAY-REPL (RFC 8415).
_BOOTREPLY, _RELAY_REPLY = b"\x02", b"\x0d"
#: Router advertisement and redirect: of ICMPv6 (RFC 4861), and of ICMP (RFC 1256, RFC 792).
_ROUTER_V6, _ROUTER_V4 = (b"\x86", b"\x89"), (b"\x09", b"\x05")

#: Of IPv4: the offset of a fragment; that, and whether more follow.
_OFFSET, _FRAGMENTED = b"\x1f\xff", b"\x3f\xff"
_FLAGS_AND_OFFSET = load(NETWORK, 6, 2)


def inspect(table: Table, chain: str, wanted: Rules, macs: str | None) -> None:
    """Add to `chain` what `wanted` asks of IP, and drop what could hide IP. `macs` is the set of the client's Ethernet
    addresses, if it has one."""
    _drop_types(table, chain, _TAGS if wanted.addresses is None else (*_TAGS, *_CARRIERS))
    _inspect_llc(table, chain, wanted)
    if wanted.addresses is not None:
        sources.add_chains(table, wanted.addresses, macs)
        table.rule(chain, ETHERTYPE, compare(_ARP), verdict(JUMP, sources.ARP))
    for name, kind in (("ipv4", _IPV4), ("ipv6", _IPV6)):
        table.chain(name)
        table.rule(chain, ETHERTYPE, compare(kind), verdict(JUMP, name))
    if wanted.addresses is not None:
        _check_sources(table)
    _drop_hidden_headers(table)
    if DHCP_SERVER in wanted.drop:
        _drop_dhcp_servers(table)
    if ROUTER_ADVERTISEMENT in wanted.drop:
        _drop_routers(table)
    # What the kernel cannot read, a host may: a length or a chain of headers that is wrong.
    for name in ("ipv4", "ipv6"):
        table.rule(name, UPPER, compare(bytes(1), AT_LEAST), verdict(RETURN))
        table.drop(name, DISGUISED)


def keep_in_vlan(table: Table, chain: str, wanted: Rules, *, inspected: bool) -> None:
    """Drop what would come out in another VLAN than the bridge has let it in. `wanted` has VLANs for the port, and
    `inspected` is whether inspect() drops second tags already.

    The bridge removes the tag of a frame at a port that is not tagged. A second tag behind it would be the first one
    there, and be the frame's VLAN for whoever is behind that port. A tag of 802.1ad is none for a bridge of 802.1Q,
    which lets the frame in as one without.
    """
    if not inspected:
        _drop_types(table, chain, _TAGS)
    if wanted.vlan is not None:
        table.drop(chain, DISGUISED, load(LINK, 12, 2), compare(_PROVIDER_TAG))


def _drop_types(table: Table, chain: str, types: tuple[bytes, ...]) -> None:
    """Drop frames with one of these EtherTypes, behind one tag if there is one."""
    table.values("tags", ETHERTYPES, types)
    table.drop(chain, DISGUISED, ETHERTYPE, in_set("tags"))


def _inspect_llc(table: Table, chain: str, wanted: Rules) -> None:
    """Drop IP behind LLC, or LLC and SNAP: some hosts look there (VU#855201)."""
    carried = (_IPV4, _IPV6, *_TAGS) if wanted.addresses is None else (_IPV4, _IPV6, _ARP, *_TAGS, *_CARRIERS)
    table.values("snap", ETHERTYPES, carried)
    table.chain("llc")
    table.rule(chain, *IS_LLC, verdict(JUMP, "llc"))
    destination = load(NETWORK, 0, 1), mask(b"\xfe")
    table.drop("llc", DISGUISED, *destination, compare(_LLC_IP))
    table.rule("llc", *destination, compare(_SNAP, UNEQUAL), verdict(RETURN))
    # SNAP. Its header is longer with another kind of LLC, and then the EtherType is elsewhere.
    table.drop("llc", DISGUISED, load(NETWORK, 2, 1), compare(_UNNUMBERED, UNEQUAL))
    table.drop("llc", DISGUISED, load(NETWORK, 3, 3), compare(_OUI_8021))
    # Whatever the organization: hosts do not agree on those that have EtherTypes.
    table.drop("llc", DISGUISED, load(NETWORK, 6, 2), in_set("snap"))


def _check_sources(table: Table) -> None:
    """Look at the client's IP addresses, and drop packets in packets, whose addresses are not looked at."""
    table.values("tunnels", IP_PROTOCOLS, _TUNNELS)
    for name, chain in (("ipv4", sources.IPV4), ("ipv6", sources.IPV6)):
        table.rule(name, verdict(JUMP, chain))
        table.drop(name, DISGUISED, UPPER, in_set("tunnels"))


def _drop_hidden_headers(table: Table) -> None:
    """Return for IPv4's later fragments, and drop chains of headers that the kernel reads otherwise than hosts do."""
    # A later fragment has data at the place of the ports. The first one has at least 8 bytes: all of UDP's header.
    table.rule("ipv4", _FLAGS_AND_OFFSET, mask(_OFFSET), compare(bytes(2), UNEQUAL), verdict(RETURN))
    table.values("extensions", IP_PROTOCOLS, _EXTENSIONS)
    # The kernel reads on behind the end of a packet, into what a host cuts off as padding. In a first fragment that is
    # where the next fragment goes on, with other headers. So nothing but the upper header may follow the fragment
    # header, in 8 bytes at least (RFC 8200, section 4.5); RFC 7112 allows more, but hardly anybody sends it.
    table.drop("ipv6", DISGUISED, load_extension(_FRAGMENT, 0, 1), in_set("extensions"))
    # The kernel stops at an authentication header. Behind it may be what other rules look for.
    table.values("authenticated", IP_PROTOCOLS, (_ICMP, _UDP, _ICMPV6, *_EXTENSIONS))
    for name in ("ipv4", "ipv6"):
        table.drop(name, DISGUISED, UPPER, compare(_AH), load(TRANSPORT, 0, 1), in_set("authenticated"))


def _drop_dhcp_servers(table: Table) -> None:
    """Drop what DHCP servers send to clients, from whatever port, and to relays."""
    is_udp = UPPER, compare(_UDP)
    port, message = load(TRANSPORT, 2, 2), load(TRANSPORT, 8, 1)
    for chain, client, server, reply, fragmented in (
        (
            "ipv4",
            _DHCP_CLIENT,
            _DHCP_SERVER,
            _BOOTREPLY,
            (_FLAGS_AND_OFFSET, mask(_FRAGMENTED), compare(bytes(2), UNEQUAL)),
        ),
        ("ipv6", _DHCPV6_CLIENT, _DHCPV6_SERVER, _RELAY_REPLY, (load_extension(_FRAGMENT, 0, 1), compare(_UDP))),
    ):
        table.drop(chain, DHCP_SERVER, *is_udp, port, compare(client))
        table.drop(chain, DHCP_SERVER, *is_udp, port, compare(server), message, compare(reply))
        # The message may be in a later fragment. Requests fit into one packet.
        table.drop(chain, DHCP_SERVER, *is_udp, port, compare(server), *fragmented)


def _drop_routers(table: Table) -> None:
    """Drop what makes hosts send to the client instead of to their router: advertisements and redirects."""
    for chain, protocol, names, kinds in (
        ("ipv4", _ICMP, ICMP_TYPES, _ROUTER_V4),
        ("ipv6", _ICMPV6, ICMPV6_TYPES, _ROUTER_V6),
    ):
        of_router = f"router-{chain}"
        table.values(of_router, names, kinds)
        table.drop(chain, ROUTER_ADVERTISEMENT, UPPER, compare(protocol), load(TRANSPORT, 0, 1), in_set(of_router))
