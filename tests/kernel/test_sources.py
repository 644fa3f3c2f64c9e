"""Rules for the IP addresses that a client may use, by what gets through a real bridge, and by a real host's words."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from socket import AF_INET6, inet_aton, inet_pton

import pytest

from etherws.kernel.rules import Rules
from tests.lab.frames import PEER, SOURCE
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.lan import applied, passes
from tests.lab.packets import (
    DESTINATION,
    FRAGMENT,
    HOP,
    ICMPV6,
    IPV4,
    IPV6,
    SNAP,
    TAG,
    UDP,
    arp,
    fragment,
    frame,
    icmpv6,
    ipv4,
    ipv6,
    llc,
    option,
    udp,
)

SOLICITATION, ADVERTISEMENT = 135, 136
OWN = frozenset(map(ip_network, ("192.0.2.7/32", "198.51.100.0/24", "2001:db8:7::/64", "fe80::7/128")))
RULES = Rules(macs=2, addresses=OWN)

#: Reasons for drops.
IP, ARPED, NEIGHBOUR, HIDDEN = "ip-source", "arp-sender", "neighbour-discovery", "disguised"


def v4(source: str, payload: bytes = udp(1, 2), fragment: int = 0, length: int | None = None) -> bytes:
    """A frame of IPv4 from this address."""
    return frame(IPV4 + ipv4(UDP, payload, source=inet_aton(source), fragment=fragment, length=length))


def v6(source: str, following: int = UDP, payload: bytes = udp(1, 2), length: int | None = None) -> bytes:
    """A frame of IPv6 from this address."""
    return frame(IPV6 + ipv6(following, payload, source=inet_pton(AF_INET6, source), length=length))


def neighbour(kind: int, target: str, options: bytes = b"") -> bytes:
    """A solicitation or advertisement of a neighbour."""
    return icmpv6(kind, bytes(4) + inet_pton(AF_INET6, target) + options)


def link_layer(kind: int, address: bytes = SOURCE) -> bytes:
    """An option with a link-layer address: 1 is the source's, 2 the target's."""
    return bytes([kind, 1]) + address


FRAGMENTED = fragment(ICMPV6, 0, more=True) + neighbour(ADVERTISEMENT, "2001:db8:7::1")

#: Frame: why it is dropped, or None.
VERDICTS = {
    "own address": (v4("192.0.2.7"), None),
    "own network": (v4("198.51.100.200"), None),
    "own network, tagged": (frame(TAG + IPV4 + ipv4(UDP, udp(1, 2), source=inet_aton("198.51.100.1"))), None),
    "other address": (v4("192.0.2.8"), IP),
    "other address, tagged": (frame(TAG + IPV4 + ipv4(UDP, udp(1, 2), source=inet_aton("192.0.2.8"))), IP),
    "other address, later fragment": (v4("192.0.2.8", fragment=5), IP),
    "own address, later fragment": (v4("192.0.2.7", fragment=5), None),
    "no address": (v4("0.0.0.0"), IP),
    "no address, DHCP": (v4("0.0.0.0", udp(68, 67)), None),
    "no address, DHCP in fragments": (v4("0.0.0.0", udp(68, 67), fragment=0x2000), IP),
    "no address, DHCP's answer": (v4("0.0.0.0", udp(67, 68)), IP),
    "broadcast": (v4("255.255.255.255"), IP),
    "IPv4 in IPv4": (frame(IPV4 + ipv4(4, ipv4(UDP, udp(1, 2)), source=inet_aton("192.0.2.7"))), HIDDEN),
    "GRE": (frame(IPV4 + ipv4(47, bytes(4) + ipv4(UDP, udp(1, 2)), source=inet_aton("192.0.2.7"))), HIDDEN),
    "IPv6 in IPv4": (frame(IPV4 + ipv4(41, ipv6(UDP, udp(1, 2)), source=inet_aton("192.0.2.7"))), HIDDEN),
    "IPv4 in IPv6": (v6("2001:db8:7::1", 4, ipv4(UDP, udp(1, 2))), HIDDEN),
    "VXLAN": (v4("192.0.2.7", udp(1, 4789)), None),
    "IPv4, two tags": (frame(TAG + TAG + IPV4 + ipv4(UDP, udp(1, 2))), HIDDEN),
    "IPv4, SNAP": (frame(llc(SNAP + IPV4 + ipv4(UDP, udp(1, 2)))), HIDDEN),
    "ARP, SNAP": (frame(llc(SNAP + arp("192.0.2.8", "192.0.2.1"))), HIDDEN),
    "MPLS": (frame(b"\x88\x47\0\0\1\x40" + ipv4(UDP, udp(1, 2))), HIDDEN),
    "PPPoE": (frame(b"\x88\x64\x11\0\0\1\0\x16\0\x21" + ipv4(UDP, udp(1, 2))), HIDDEN),
    "wrong length": (v4("192.0.2.7", length=900), HIDDEN),
    "STP": (frame(llc(b"\x42\x42\x03" + bytes(35)), to=b"\x02\xee\0\0\0\x09"), None),
    "an experiment": (frame(b"\x88\xb5"), None),
    # ARP.
    "ARP": (frame(arp("192.0.2.7", "192.0.2.1")), None),
    "ARP, tagged": (frame(TAG + arp("192.0.2.7", "192.0.2.1")), None),
    "ARP of another": (frame(arp("192.0.2.1", "192.0.2.7")), ARPED),
    "ARP of another, tagged": (frame(TAG + arp("192.0.2.1", "192.0.2.7")), ARPED),
    "ARP, reply": (frame(arp("198.51.100.3", "192.0.2.1", operation=2)), None),
    "ARP, reply of another": (frame(arp("192.0.2.1", "192.0.2.7", operation=2)), ARPED),
    "ARP, announcement of another": (frame(arp("192.0.2.1", "192.0.2.1")), ARPED),
    "ARP, probe": (frame(arp("0.0.0.0", "192.0.2.7")), None),
    "ARP, probe for another": (frame(arp("0.0.0.0", "192.0.2.1")), ARPED),
    "ARP, probe as a reply": (frame(arp("0.0.0.0", "192.0.2.7", operation=2)), ARPED),
    "ARP, other hardware address": (frame(arp("192.0.2.7", "192.0.2.1", hardware=PEER)), ARPED),
    "ARP, hardware of 802": (frame(arp("192.0.2.1", "192.0.2.7", kind=b"\0\6\x08\0\6\4")), ARPED),
    "ARP, other lengths": (frame(arp("192.0.2.7", "192.0.2.1", kind=b"\0\1\x08\0\x08\4")), ARPED),
    "ARP, cut short": ((b"\xff" * 6 + SOURCE + arp("192.0.2.7", "192.0.2.1"))[:30], ARPED),
    "RARP": (frame(b"\x80\x35" + arp("0.0.0.0", "0.0.0.0", operation=3)[2:]), None),
    # IPv6.
    "own IPv6": (v6("2001:db8:7::1"), None),
    "own link-local": (v6("fe80::7"), None),
    "other link-local": (v6("fe80::8"), IP),
    "other IPv6": (v6("2001:db8:8::1"), IP),
    "other IPv6, options": (v6("2001:db8:8::1", DESTINATION, option(UDP) + udp(1, 2)), IP),
    "other IPv6, fragment": (v6("2001:db8:8::1", FRAGMENT, fragment(UDP, 8, more=False) + udp(1, 2)), IP),
    "own IPv6, fragment": (v6("2001:db8:7::1", FRAGMENT, fragment(UDP, 8, more=False) + udp(1, 2)), None),
    "no IPv6": (v6("::"), IP),
    "no IPv6, ping": (v6("::", ICMPV6, icmpv6(128)), IP),
    "no IPv6, router solicitation": (v6("::", ICMPV6, icmpv6(133, bytes(4))), None),
    "no IPv6, MLD report": (v6("::", HOP, option(ICMPV6) + icmpv6(143)), None),
    "no IPv6, later fragment": (v6("::", FRAGMENT, fragment(ICMPV6, 8, more=False) + icmpv6(135)), IP),
    # Neighbour discovery.
    "DAD": (v6("::", ICMPV6, neighbour(SOLICITATION, "2001:db8:7::1")), None),
    "DAD, nonce": (v6("::", ICMPV6, neighbour(SOLICITATION, "fe80::7", b"\x0e\1" + bytes(6))), None),
    "DAD for another": (v6("::", ICMPV6, neighbour(SOLICITATION, "2001:db8:8::1")), NEIGHBOUR),
    "NS": (v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "2001:db8:8::1", link_layer(1))), None),
    "NS without option": (v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "2001:db8:8::1")), None),
    "NS of another": (v6("fe80::8", ICMPV6, neighbour(SOLICITATION, "2001:db8:8::1", link_layer(1))), IP),
    "NS, other hardware": (v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "fe80::1", link_layer(1, PEER))), NEIGHBOUR),
    "NS, hardware behind another option": (
        v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "fe80::1", b"\x0e\1" + bytes(6) + link_layer(1, PEER))),
        NEIGHBOUR,
    ),
    "NS, another option": (
        v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "fe80::1", b"\x0e\1" + bytes(6))),
        NEIGHBOUR,
    ),
    "NA": (v6("fe80::7", ICMPV6, neighbour(ADVERTISEMENT, "2001:db8:7::1", link_layer(2))), None),
    "NA without option": (v6("fe80::7", ICMPV6, neighbour(ADVERTISEMENT, "2001:db8:7::1")), None),
    "NA for another": (v6("fe80::7", ICMPV6, neighbour(ADVERTISEMENT, "2001:db8:8::1", link_layer(2))), NEIGHBOUR),
    "NA, other hardware": (
        v6("fe80::7", ICMPV6, neighbour(ADVERTISEMENT, "2001:db8:7::1", link_layer(2, PEER))),
        NEIGHBOUR,
    ),
    "NA of another": (v6("fe80::8", ICMPV6, neighbour(ADVERTISEMENT, "fe80::7", link_layer(2))), IP),
    "NA for another, options": (
        v6("fe80::7", DESTINATION, option(ICMPV6) + neighbour(ADVERTISEMENT, "2001:db8:8::1", link_layer(2))),
        NEIGHBOUR,
    ),
    "NA in fragments": (v6("fe80::7", FRAGMENT, FRAGMENTED, length=24), NEIGHBOUR),
    "NA, cut short": (v6("fe80::7", ICMPV6, icmpv6(ADVERTISEMENT, b"")), NEIGHBOUR),
}


def test_only_own_addresses_pass(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    counted: dict[str, int] = {}
    with applied(lan, RULES) as port:
        for name, (sent, reason) in VERDICTS.items():
            assert passes(*ends, sent) == (reason is None), name
            if reason:
                counted[reason] = counted.get(reason, 0) + 1
            assert port.drops() == counted, name
    for name, (sent, _) in VERDICTS.items():
        assert passes(*ends, sent), name


def test_the_first_frame_of_an_address_may_be_arp(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, RULES) as port:
        for sender, hardware, reason in (
            (SOURCE, SOURCE, None),
            (PEER, SOURCE, None),
            (PEER, PEER, None),
            (PEER, PEER[:5] + b"\3", "arp-sender"),
            (PEER[:5] + b"\3", PEER[:5] + b"\3", "source-address"),
        ):
            sent = frame(arp("192.0.2.7", "192.0.2.1", hardware=hardware), sender=sender)
            before = port.drops()
            assert passes(*ends, sent) == (reason is None)
            assert sum(port.drops().values()) - sum(before.values()) == (reason is not None)
            assert not reason or port.drops()[reason] == 1


def test_listed_ethernet_addresses_are_those_of_arp(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(macs=frozenset({SOURCE.hex(":")}), addresses=OWN)):
        assert passes(*ends, frame(arp("192.0.2.7", "192.0.2.1")))
        assert not passes(*ends, frame(arp("192.0.2.7", "192.0.2.1", hardware=PEER)))


def test_without_a_limit_to_ethernet_addresses_only_ip_addresses_count(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(addresses=OWN)):
        assert passes(*ends, frame(arp("192.0.2.7", "192.0.2.1", hardware=PEER)))
        assert passes(*ends, v6("fe80::7", ICMPV6, neighbour(SOLICITATION, "fe80::1", link_layer(1, PEER))))
        assert not passes(*ends, frame(arp("192.0.2.8", "192.0.2.1")))


@pytest.mark.parametrize(
    ("listed", "passing"),
    [
        ({"192.0.2.0/24"}, {"192.0.2.8"}),
        ({"2001:db8::/32"}, {"2001:db8:8::1"}),
        ({"0.0.0.0/0"}, {"192.0.2.8"}),
        ({"::/0"}, {"2001:db8:8::1", "fe80::9"}),
        ({"fe80::/10", "192.0.2.8/31", "192.0.2.0/25"}, {"192.0.2.8", "fe80::9"}),
    ],
    # A set has another order in each process.
    ids=lambda addresses: " ".join(sorted(addresses)),
)
def test_prefixes_of_each_length(lan: Host, listed: set[str], passing: set[str]) -> None:
    networks: frozenset[IPv4Network | IPv6Network] = frozenset(map(ip_network, listed))
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(addresses=networks)):
        for address in ("192.0.2.8", "2001:db8:8::1", "fe80::9"):
            sent = v6(address) if ":" in address else v4(address)
            assert passes(*ends, sent) == (address in passing), address


def test_thousands_of_addresses_are_put_in(lan: Host) -> None:
    networks: frozenset[IPv4Network | IPv6Network] = frozenset(IPv4Network((0x0A000000 + at, 32)) for at in range(4096))
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(addresses=networks)):
        for address, passing in (("10.0.0.0", True), ("10.0.15.255", True), ("10.0.16.0", False)):
            assert passes(*ends, v4(address)) == passing


def test_a_host_with_its_own_addresses_notices_nothing(lan: Host) -> None:
    """A real host at the port: it finds its address, asks for others', is found, and talks IPv4 and IPv6."""
    with contextlib.closing(Host()) as guest:
        lan.namespace.cable("fourth", guest.namespace, "eth0")
        lan.set_link("fourth", state="up", master=int(lan.links()["br0"]["index"]))
        listed = frozenset(map(ip_network, ("10.9.0.2", "fd09::2", "fe80::/64")))
        with applied(lan, Rules(macs=1, addresses=listed), "fourth") as port:
            for address in ("10.9.0.2/24", "fd09::2/64"):
                guest.add_address("eth0", address)
            with lan.namespace.inside():
                Path("/proc/sys/net/ipv6/conf/br0/accept_dad").write_text("0")
            for address in ("10.9.0.1/24", "fd09::1/64"):
                lan.add_address("br0", address)
            for family, near, far in ((socket.AF_INET, "10.9.0.1", "10.9.0.2"), (AF_INET6, "fd09::1", "fd09::2")):
                server, client = lan.socket(family, socket.SOCK_STREAM), guest.socket(family, socket.SOCK_STREAM)
                bind_when_ready(server, near, 5000)
                server.listen()
                bind_when_ready(client, far, 0)
                client.settimeout(PATIENCE)
                client.connect((near, 5000))
            assert port.drops().keys() <= {"ip-source"}, port.drops()
            # Another address of its network is of no use to it.
            guest.add_address("eth0", "10.9.0.3/24")
            thief = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
            thief.bind(("10.9.0.3", 0))
            thief.sendto(b"x", ("10.9.0.1", 9))
            until(lambda: {"ip-source", "arp-sender"} & port.drops().keys(), "the frames of another address to be lost")


def bind_when_ready(sock: socket.socket, address: str, port: int) -> None:
    """Bind it, once the address was found to be nobody else's."""

    def bound() -> bool:
        with contextlib.suppress(OSError):
            sock.bind((address, port))
            return True
        return False

    until(bound, f"{address} to be ready")
