"""Rules that look at IP, by what gets through a real bridge, and by what a real host behind it takes."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etherws.kernel import port_vlans, rules
from etherws.kernel.rules import Rules
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.hosts import Host, until
from tests.lab.lan import applied, passes
from tests.lab.packets import (
    AH,
    ARP,
    DESTINATION,
    FRAGMENT,
    HOP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    NOTHING,
    PRIORITY,
    QINQ,
    ROUTING,
    SNAP,
    TAG,
    UDP,
    finished,
    fragment,
    frame,
    icmpv6,
    ipv4,
    ipv6,
    llc,
    option,
    udp,
)

GUARDS = frozenset({rules.BPDU, rules.DHCP_SERVER, rules.ROUTER_ADVERTISEMENT})

RA, OSPF = icmpv6(134), 89
#: Ethernet's header of a frame that is not padded.
IPV6_HEAD = frame(IPV6)[:14]


@pytest.mark.parametrize("more", [{}, {"drop": frozenset({rules.DHCP_SERVER})}], ids=["alone", "inspected"])
@pytest.mark.parametrize("vlan", [20, None])
def test_no_tag_comes_out_behind_that_of_the_vlan(
    vlan: int | None, more: dict[str, Any], lan: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge takes the first tag off at a port without tags, and the next one would count there."""
    monkeypatch.setattr(port_vlans, "put", lambda *_: None)
    monkeypatch.setattr(port_vlans, "reset", lambda *_: None)
    ends, carried = (lan.frames("far-port"), lan.frames("far-other")), ARP
    with applied(lan, Rules(vlan=vlan, vlans=frozenset({5}), **more)) as port:
        for tags in (b"", TAG, PRIORITY):
            assert passes(*ends, frame(tags + carried))
        for tags in (TAG + TAG, QINQ + TAG, TAG + QINQ, PRIORITY + TAG):
            assert not passes(*ends, frame(tags + carried))
        # A bridge takes a tag of 802.1ad for none. Where the port is in no VLAN without a tag, it drops the frame.
        assert passes(*ends, frame(QINQ + carried)) == (vlan is None)
        assert port.drops() == {"disguised": 4 + (vlan is not None)}


def authentication(following: int) -> bytes:
    """An authentication header (RFC 4302)."""
    return bytes([following, 4, 0, 0]) + bytes(20)


#: Frame: why it is dropped under all guards, or None.
VERDICTS = {
    "ARP": (frame(ARP), None),
    "IPv4": (frame(IPV4 + ipv4(UDP, udp(1, 2))), None),
    "IPv6": (frame(IPV6 + ipv6(UDP, udp(1, 2))), None),
    "an experiment": (frame(b"\x88\xb5"), None),
    "tagged ARP": (frame(TAG + ARP), None),
    "BPDU": (frame(llc(b"\x42\x42\x03" + bytes(35)), to=b"\x01\x80\xc2\0\0\0"), "bpdu"),
    "tagged BPDU": (frame(TAG + llc(b"\x42\x42\x03" + bytes(35)), to=b"\x01\x80\xc2\0\0\0"), "bpdu"),
    "provider's BPDU": (frame(llc(b"\x42\x42\x03" + bytes(35)), to=b"\x01\x80\xc2\0\0\x08"), "bpdu"),
    "PVST": (frame(TAG + llc(b"\xaa\xaa\x03\0\0\x0c\x01\x0b"), to=b"\x01\0\x0c\xcc\xcc\xcd"), "bpdu"),
    "CDP": (frame(llc(b"\xaa\xaa\x03\0\0\x0c\x20\0"), to=b"\x01\0\x0c\xcc\xcc\xcc"), None),
    "DHCP request": (frame(IPV4 + ipv4(UDP, udp(68, 67))), None),
    "DHCP reply": (frame(IPV4 + ipv4(UDP, udp(67, 68))), "dhcp-server"),
    "DHCP reply, tagged": (frame(TAG + IPV4 + ipv4(UDP, udp(67, 68))), "dhcp-server"),
    "DHCP reply, 802.1ad": (frame(QINQ + IPV4 + ipv4(UDP, udp(67, 68))), "dhcp-server"),
    "DHCP reply, priority tag": (frame(PRIORITY + IPV4 + ipv4(UDP, udp(67, 68))), "dhcp-server"),
    "DHCP reply, IPv4 options": (frame(IPV4 + ipv4(UDP, udp(67, 68), options=b"\1\1\1\0")), "dhcp-server"),
    "DHCP reply from elsewhere": (frame(IPV4 + ipv4(UDP, udp(6767, 68))), "dhcp-server"),
    "DHCP reply, first fragment": (frame(IPV4 + ipv4(UDP, udp(67, 68), fragment=0x2000)), "dhcp-server"),
    "IPv4, later fragment": (frame(IPV4 + ipv4(UDP, udp(67, 68), fragment=0x0005)), None),
    "TCP from 67 to 68": (frame(IPV4 + ipv4(6, udp(67, 68))), None),
    "DHCP reply, two tags": (frame(QINQ + TAG + IPV4 + ipv4(UDP, udp(67, 68))), "disguised"),
    "DHCP reply, SNAP": (frame(llc(SNAP + IPV4 + ipv4(UDP, udp(67, 68)))), "disguised"),
    "DHCPv6 request": (frame(IPV6 + ipv6(UDP, udp(546, 547))), None),
    "DHCPv6 reply": (frame(IPV6 + ipv6(UDP, udp(547, 546))), "dhcp-server"),
    "DHCPv6 reply, tagged": (frame(TAG + IPV6 + ipv6(UDP, udp(547, 546))), "dhcp-server"),
    "DHCPv6 reply, options": (frame(IPV6 + ipv6(DESTINATION, option(UDP) + udp(547, 546))), "dhcp-server"),
    "router solicitation": (frame(IPV6 + ipv6(ICMPV6, icmpv6(133))), None),
    "neighbour advertisement": (frame(IPV6 + ipv6(ICMPV6, icmpv6(136))), None),
    "MLD report": (frame(IPV6 + ipv6(HOP, option(ICMPV6) + icmpv6(143))), None),
    "RA": (frame(IPV6 + ipv6(ICMPV6, RA)), "router-advertisement"),
    "RA, tagged": (frame(TAG + IPV6 + ipv6(ICMPV6, RA)), "router-advertisement"),
    "RA, two tags": (frame(TAG + TAG + IPV6 + ipv6(ICMPV6, RA)), "disguised"),
    "RA, SNAP": (frame(llc(SNAP + IPV6 + ipv6(ICMPV6, RA))), "disguised"),
    "RA, tag and SNAP": (frame(TAG + llc(SNAP + IPV6 + ipv6(ICMPV6, RA))), "disguised"),
    "RA, SNAP and tag": (frame(llc(SNAP + TAG + IPV6 + ipv6(ICMPV6, RA))), "disguised"),
    "RA, hop-by-hop": (frame(IPV6 + ipv6(HOP, option(ICMPV6) + RA)), "router-advertisement"),
    "RA, two extensions": (
        frame(IPV6 + ipv6(HOP, option(DESTINATION) + option(ICMPV6) + RA)),
        "router-advertisement",
    ),
    "RA, tagged, with an extension": (
        frame(TAG + IPV6 + ipv6(DESTINATION, option(ICMPV6) + RA)),
        "router-advertisement",
    ),
    "RA, in a first fragment": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 0, more=True) + RA)),
        "router-advertisement",
    ),
    "RA, cut off before its header": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(DESTINATION, 0, more=True) + option(ICMPV6))),
        "disguised",
    ),
    "RA, cut off in an extension": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(DESTINATION, 0, more=True) + b"\x3a\x04" + bytes(6))),
        "disguised",
    ),
    "big ping, first fragment": (frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 0, more=True) + icmpv6(128))), None),
    "big ping, later fragment": (frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 16, more=False) + RA)), None),
    # The same trailer, as a filter that reads on sees it.
    "RA, first fragment with a trailer": (
        frame(
            IPV6
            + ipv6(
                FRAGMENT,
                fragment(DESTINATION, 0, more=True) + option(DESTINATION) + option(ICMPV6) + icmpv6(128),
                length=16,
            )
        ),
        "disguised",
    ),
    "RA, its later fragment": (frame(IPV6 + ipv6(FRAGMENT, fragment(UDP, 8, more=False) + option(ICMPV6) + RA)), None),
    "RA, atomic fragment": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 0, more=False) + RA)),
        "router-advertisement",
    ),
    "RA, two fragment headers": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(FRAGMENT, 0, more=False) + fragment(ICMPV6, 0, more=True) + RA)),
        "disguised",
    ),
    "RA, atomic fragment and options": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(DESTINATION, 0, more=False) + option(ICMPV6) + RA)),
        "disguised",
    ),
    "RA, options before the fragment header": (
        frame(IPV6 + ipv6(DESTINATION, option(FRAGMENT) + fragment(ICMPV6, 0, more=True) + RA)),
        "router-advertisement",
    ),
    "RA, first fragment of 8 bytes": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 0, more=True) + RA[:8])),
        "router-advertisement",
    ),
    "big UDP, first fragment": (frame(IPV6 + ipv6(FRAGMENT, fragment(UDP, 0, more=True) + udp(1, 2))), None),
    "RA, routing header": (
        frame(IPV6 + ipv6(ROUTING, bytes([ICMPV6, 0, 4, 0, 0, 0, 0, 0]) + RA)),
        "router-advertisement",
    ),
    "RA, jumbogram": (
        frame(IPV6 + ipv6(HOP, bytes([ICMPV6, 0, 0xC2, 4, 0, 1, 0, 0]) + RA, length=0)),
        "router-advertisement",
    ),
    "RA, authenticated": (frame(IPV6 + ipv6(AH, authentication(ICMPV6) + RA)), "disguised"),
    "RA, options behind authentication": (
        frame(IPV6 + ipv6(AH, authentication(DESTINATION) + option(ICMPV6) + RA)),
        "disguised",
    ),
    "OSPFv3, authenticated": (frame(IPV6 + ipv6(AH, authentication(OSPF) + bytes(16))), None),
    "IPv6, no next header": (frame(IPV6 + ipv6(NOTHING, b"")), None),
    "IPv6, mobility": (frame(IPV6 + ipv6(135, bytes([NOTHING, 0]) + bytes(6))), None),
    "IPv6, a length beyond the frame": (frame(IPV6 + ipv6(ICMPV6, RA, length=900)), "disguised"),
    "IPv6, options beyond the frame": (frame(IPV6 + ipv6(DESTINATION, b"\x3a\xff" + bytes(6))), None),
    "IPv6, extensions beyond the frame": (
        IPV6_HEAD + ipv6(DESTINATION, bytes([DESTINATION, 9]) + bytes(6)),
        "disguised",
    ),
    "redirect": (frame(IPV6 + ipv6(ICMPV6, icmpv6(137))), "router-advertisement"),
    "MLD query": (frame(IPV6 + ipv6(HOP, option(ICMPV6) + icmpv6(130))), None),
    "neighbour solicitation": (frame(IPV6 + ipv6(ICMPV6, icmpv6(135))), None),
    "IPv4 router advertisement": (frame(IPV4 + ipv4(ICMP, bytes([9, 0]) + bytes(14))), "router-advertisement"),
    "IPv4 redirect": (frame(IPV4 + ipv4(ICMP, bytes([5, 1]) + bytes(34))), "router-advertisement"),
    "IPv4 ping": (frame(IPV4 + ipv4(ICMP, bytes([8, 0]) + bytes(14))), None),
    "IPv4 redirect, later fragment": (frame(IPV4 + ipv4(ICMP, bytes([5, 1]) + bytes(34), fragment=1)), None),
    "DHCP reply, first fragment of 8 bytes": (
        frame(IPV4 + ipv4(UDP, udp(67, 68)[:8], fragment=0x2000)),
        "dhcp-server",
    ),
    "DHCP reply, many options": (frame(IPV4 + ipv4(UDP, udp(67, 68), options=bytes([1] * 40))), "dhcp-server"),
    "DHCP reply, a trailer": (frame(IPV4 + ipv4(UDP, udp(67, 68)) + bytes(20)), "dhcp-server"),
    "DHCP reply, a shorter UDP length": (
        frame(IPV4 + ipv4(UDP, b"\0\x43\0\x44\0\x09\0\0" + bytes(32))),
        "dhcp-server",
    ),
    "DHCP reply, a UDP length of zero": (
        frame(IPV4 + ipv4(UDP, b"\0\x43\0\x44\0\0\0\0" + bytes(32))),
        "dhcp-server",
    ),
    "DHCP reply, offset 1": (frame(IPV4 + ipv4(UDP, udp(67, 68)[8:], fragment=0x0001)), None),
    "DHCP reply, reserved bit": (frame(IPV4 + ipv4(UDP, udp(67, 68), fragment=0x8000)), "dhcp-server"),
    "DHCP reply, a length beyond the frame": (frame(IPV4 + ipv4(UDP, udp(67, 68), length=900)), "disguised"),
    "DHCP reply, a length below the header": (frame(IPV4 + ipv4(UDP, udp(67, 68), length=10)), "disguised"),
    "DHCP reply, authenticated": (frame(IPV4 + ipv4(AH, authentication(UDP) + udp(67, 68))), "disguised"),
    "DHCP reply to a relay": (frame(IPV4 + ipv4(UDP, udp(67, 67, b"\2" + bytes(240)))), "dhcp-server"),
    "DHCP reply to a relay, in fragments": (
        frame(IPV4 + ipv4(UDP, udp(67, 67, b"\1" + bytes(240)), fragment=0x2000)),
        "dhcp-server",
    ),
    "DHCP request of a relay": (frame(IPV4 + ipv4(UDP, udp(67, 67, b"\1" + bytes(240)))), None),
    "DHCPv6 reply to a relay": (frame(IPV6 + ipv6(UDP, udp(547, 547, b"\x0d" + bytes(60)))), "dhcp-server"),
    "DHCPv6 reply to a relay, in fragments": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(UDP, 0, more=True) + udp(547, 547))),
        "dhcp-server",
    ),
    "DHCPv6 request of a relay": (frame(IPV6 + ipv6(UDP, udp(547, 547, b"\x0c" + bytes(60)))), None),
    "DHCPv6 reply, first fragment": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(UDP, 0, more=True) + udp(547, 546))),
        "dhcp-server",
    ),
    "DHCPv6 reply, jumbogram": (
        frame(IPV6 + ipv6(HOP, bytes([UDP, 0, 0xC2, 4, 0, 1, 0, 0]) + udp(547, 546), length=0)),
        "dhcp-server",
    ),
    **{
        f"RA, tag {tag.hex()} twice": (frame(tag + b"\0\1" + tag + b"\0\2" + IPV6 + ipv6(ICMPV6, RA)), "disguised")
        for tag in (b"\x81\0", b"\x88\xa8", b"\x91\0", b"\x92\0", b"\x93\0")
    },
    "RA, tag 9100": (frame(b"\x91\0\0\1" + IPV6 + ipv6(ICMPV6, RA)), "disguised"),
    "RA, tag and tag 9100": (frame(TAG + b"\x91\0\0\1" + IPV6 + ipv6(ICMPV6, RA)), "disguised"),
    "RA, VLAN 0 twice": (frame(PRIORITY + PRIORITY + IPV6 + ipv6(ICMPV6, RA)), "disguised"),
    **{
        f"RA, SNAP {name}": (frame(llc(head + IPV6 + ipv6(ICMPV6, RA), length)), "disguised")
        for name, head, length in (
            ("with a length of 0", SNAP, 0),
            ("with a length of 1", SNAP, 1),
            ("with a length of 1501", SNAP, 1501),
            ("with a length of 1535", SNAP, 1535),
            ("of Ethernet's bridge tunnels", b"\xaa\xaa\x03\0\0\xf8", None),
            ("of any organization", b"\xaa\xaa\x03\1\2\3", None),
            ("to a group", b"\xab\xaa\x03\0\0\0", None),
            ("as a response", b"\xaa\xab\x03\0\0\0", None),
            ("with the poll bit", b"\xaa\xaa\x13\0\0\0", None),
            ("numbered", b"\xaa\xaa\0\0\0\0\0", None),
        )
    },
    "RA, a whole frame behind SNAP": (
        frame(llc(b"\xaa\xaa\x03\0\x80\xc2\0\7" + frame(IPV6 + ipv6(ICMPV6, RA)))),
        "disguised",
    ),
    "IPv4 behind LLC": (frame(llc(b"\6\6\3" + ipv4(UDP, udp(67, 68)))), "disguised"),
    "BPDU to another group": (frame(llc(b"\x42\x42\x03" + bytes(35)), to=b"\x01\x80\xc2\0\0\x0b"), "bpdu"),
    "BPDU to one bridge": (frame(llc(b"\x42\x42\x03" + bytes(35)), to=b"\x02\xee\0\0\0\x09"), "bpdu"),
    "PVST to one bridge": (frame(llc(b"\xaa\xaa\x03\0\0\x0c\x01\x0b"), to=b"\x02\xee\0\0\0\x09"), "bpdu"),
    "GVRP": (frame(llc(b"\x42\x42\x03\0\1"), to=b"\x01\x80\xc2\0\0\x21"), "bpdu"),
    "MVRP": (frame(b"\x88\xf5\0", to=b"\x01\x80\xc2\0\0\x21"), None),
    "IS-IS": (frame(llc(b"\xfe\xfe\x03\x83"), to=b"\x01\x80\xc2\0\0\x14"), None),
    "IPX, raw": (frame(llc(b"\xff\xff\0\x22" + bytes(32))), None),
    "PPPoE": (frame(b"\x88\x64\x11\0\0\1" + bytes(40)), None),
    "MPLS": (frame(b"\x88\x47\0\0\1\x40" + ipv6(ICMPV6, RA)), None),
    "IPv6 in IPv4": (frame(IPV4 + ipv4(41, ipv6(ICMPV6, RA))), None),
    "IPv6 in IPv6": (frame(IPV6 + ipv6(41, ipv6(ICMPV6, RA))), None),
}


def test_guards_drop_what_they_name_and_nothing_else(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    counted: dict[str, int] = {}
    with applied(lan, Rules(drop=GUARDS)) as port:
        for name, (sent, reason) in VERDICTS.items():
            assert passes(*ends, sent) == (reason is None), name
            if reason:
                counted[reason] = counted.get(reason, 0) + 1
            assert port.drops() == counted, name
    for name, (sent, _) in VERDICTS.items():
        # The bridge itself keeps the first 16 reserved addresses to itself while spanning tree is off or on.
        assert passes(*ends, sent) or sent[:5] == b"\x01\x80\xc2\0\0", name


@pytest.mark.parametrize(
    "drop",
    [{rules.DHCP_SERVER}, {rules.ROUTER_ADVERTISEMENT}, {rules.BPDU}],
    ids=lambda drop: next(iter(drop)),
)
def test_a_guard_alone_drops_only_its_own(lan: Host, drop: set[str]) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(drop=frozenset(drop))) as port:
        for name, (sent, reason) in VERDICTS.items():
            if reason in GUARDS and reason != rules.BPDU:
                assert passes(*ends, sent) == (reason not in drop), name
        assert port.drops().keys() == drop - {rules.BPDU}


@pytest.mark.parametrize("linear", [0, 58])
def test_headers_of_frames_in_pages_are_read(host: Host, linear: int) -> None:
    """The virtio header says how much of a long frame is in one piece (hdr_len); the rest is in pages. In a piece that
    ends before IPv6's header the kernel reads nonsense: tunnel/offloads.py lets no such length through."""
    long = bytes(5000)
    hidden = {
        "dhcp-server": [IPV4 + ipv4(UDP, udp(67, 68, long)), TAG + IPV6 + ipv6(UDP, udp(547, 546, long))],
        "router-advertisement": [IPV6 + ipv6(HOP, option(ICMPV6) + RA + long)],
        "disguised": [TAG + TAG + IPV6 + ipv6(ICMPV6, RA + long), llc(SNAP + IPV6 + ipv6(ICMPV6, RA + long), 1500)],
        "bpdu": [llc(b"\x42\x42\x03" + long, 1500)],
    }
    with host.namespace.inside():
        tap = Tap("port")
        with applied(host, Rules(drop=GUARDS)) as port:
            # struct virtio_net_hdr, of include/uapi/linux/virtio_net.h; hdr_len is its third field.
            header = struct.pack("<BBHHHH", 0, 0, linear, 0, 0, 0)
            for behind in [one for some in hidden.values() for one in some]:
                tap.write_batch([header + frame(behind)])
            assert not tap.drops
            assert port.drops() == {reason: len(some) for reason, some in hidden.items()}
        tap.close()


# What a host behind the bridge takes.


@pytest.fixture
def attack(host: Host) -> Iterator[tuple[Host, Callable[[bytes], None]]]:
    """A host behind a bridge; a function that writes an IPv6 packet into a TAP of the bridge."""
    with contextlib.closing(Host()) as victim, host.namespace.inside():
        host.namespace.cable("cable", victim.namespace, "eth0")
        host.set_link("cable", state="up")
        victim.namespace.configure("eth0")
        with victim.namespace.inside():
            for name, value in (("suppress_frag_ndisc", "0"), ("accept_dad", "0"), ("accept_ra", "1")):
                Path(f"/proc/sys/net/ipv6/conf/eth0/{name}").write_text(value)
        tap = Tap("port")
        host.bridge("br0", "cable", tap.name)
        until(lambda: victim.links()["eth0"].get("operstate") == "UP" and addresses(victim, "fe80:"), "an address")

        def send(packet: bytes) -> None:
            tap.write_batch([bytes(VNET_BYTES) + frame(IPV6 + packet, to=b"\x33\x33\0\0\0\1")])

        yield victim, send
        tap.close()


def addresses(host: Host, beginning: str) -> list[str]:
    """The IPv6 addresses of a host that begin so."""
    with host.netlink() as route:
        found = [str(entry.get_attr("IFA_ADDRESS")) for entry in route.get_addr(family=socket.AF_INET6)]
    return [address for address in found if address.startswith(beginning)]


def advertisement(network: bytes) -> bytes:
    """A router advertisement of this network, 8 bytes (RFC 4861, sections 4.2 and 4.6.2)."""
    prefix = bytes([3, 4, 64, 0xC0]) + struct.pack(">III", 9999, 9999, 0) + network + bytes(8)
    return icmpv6(134, struct.pack(">BBHII", 64, 0, 1800, 0, 0) + prefix)


def in_two(following: int, message: bytes, shown: bytes) -> tuple[bytes, bytes]:
    """A packet in two fragments: the first has the message's headers in its trailer, but with `shown` behind them."""
    end = option(following)
    first = fragment(DESTINATION, 0, more=True) + option(DESTINATION)
    # Its own next header is of no use, since a host takes that of the first. But a filter sees no extension header.
    later = fragment(UDP, len(option(0)), more=False) + end + finished(following, message)
    return ipv6(FRAGMENT, first + end + shown, length=len(first)), ipv6(FRAGMENT, later)


def test_a_trailer_cannot_show_other_headers_than_the_host_takes(
    attack: tuple[Host, Callable[[bytes], None]], host: Host
) -> None:
    victim, send = attack
    client = victim.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client.bind(("::", 546))
    client.settimeout(20)

    def try_it(network: bytes, answer: bytes) -> None:
        for packet in (
            *in_two(ICMPV6, advertisement(network), icmpv6(128)),
            *in_two(UDP, udp(547, 546, answer), udp(1, 2)),
        ):
            send(packet)

    # A host takes both, so that this is an attack.
    try_it(bytes.fromhex("20010db8000000aa"), b"an answer")
    assert client.recv(100) == b"an answer"
    until(lambda: addresses(victim, "2001:db8:0:aa:"), "the address of the first network")
    with applied(host, Rules(drop=GUARDS)) as port:
        try_it(bytes.fromhex("20010db8000000bb"), b"another")
        assert port.drops() == {"disguised": 2}
        # What comes after it does arrive.
        send(ipv6(UDP, finished(UDP, udp(1000, 1000))))
    try_it(bytes.fromhex("20010db8000000cc"), b"the third")
    assert client.recv(100) == b"the third"
    until(lambda: addresses(victim, "2001:db8:0:cc:"), "the address of the third network")
    assert not addresses(victim, "2001:db8:0:bb:")
