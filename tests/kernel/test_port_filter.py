"""What a client's policy lets through, on real bridges: frames go in by a port, and come out by another or not."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from etherws.errors import DeviceError
from etherws.kernel import interfaces, nftables, port_filter
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.hosts import OURS, Frames, Host, until

SOURCE = OURS + b"\x00\x00\x00\x01"
EVERYONE = b"\xff" * 6
GUARDS = frozenset({port_filter.BPDU, port_filter.DHCP_SERVER, port_filter.ROUTER_ADVERTISEMENT})

IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
TAG, QINQ = b"\x81\x00\x00\x64", b"\x88\xa8\x00\x65"
PRIORITY = b"\x81\x00\x20\x00"
SNAP = b"\xaa\xaa\x03\x00\x00\x00"


@dataclass(frozen=True)
class Rules:
    """A profile's part that port_filter.py reads."""

    macs: int | frozenset[str] = 0
    drop: frozenset[str] = frozenset()
    rate_down: int | None = None
    isolated: bool = False


def source(number: int) -> bytes:
    return OURS + number.to_bytes(4, "big")


def frame(behind: bytes, *, to: bytes = EVERYONE, sender: bytes = SOURCE) -> bytes:
    return (to + sender + behind).ljust(60, b"\0")


def llc(behind: bytes) -> bytes:
    return len(behind).to_bytes(2, "big") + behind


def ipv4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    size = 20 + len(options)
    head = 0x40 | size // 4, 0, size + len(payload), 1, fragment, 64, protocol, 0, b"\xc0\0\2\1", b"\xff" * 4
    return struct.pack(">BBHHHBBH4s4s", *head) + options + payload


def udp(sender: int, receiver: int) -> bytes:
    return struct.pack(">HHHH", sender, receiver, 8 + 32, 0) + bytes(32)


def ipv6(following: int, payload: bytes) -> bytes:
    return (
        struct.pack(">IHBB16s16s", 6 << 28, len(payload), following, 255, b"\xfe\x80" + bytes(14), b"\xff\2" * 8)
        + payload
    )


def icmpv6(kind: int) -> bytes:
    return bytes([kind, 0, 0, 0]) + bytes(12)


def option(following: int) -> bytes:
    """A hop-by-hop or destination options header without options."""
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def fragment(following: int, offset: int, *, more: bool) -> bytes:
    return struct.pack(">BBHI", following, 0, offset | more, 7)


ADVERTISEMENT = icmpv6(134)
HOP, ROUTING, FRAGMENT, DESTINATION, UDP, ICMPV6 = 0, 43, 44, 60, 17, 58

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
    "RA": (frame(IPV6 + ipv6(ICMPV6, ADVERTISEMENT)), "router-advertisement"),
    "RA, tagged": (frame(TAG + IPV6 + ipv6(ICMPV6, ADVERTISEMENT)), "router-advertisement"),
    "RA, two tags": (frame(TAG + TAG + IPV6 + ipv6(ICMPV6, ADVERTISEMENT)), "disguised"),
    "RA, SNAP": (frame(llc(SNAP + IPV6 + ipv6(ICMPV6, ADVERTISEMENT))), "disguised"),
    "RA, tag and SNAP": (frame(TAG + llc(SNAP + IPV6 + ipv6(ICMPV6, ADVERTISEMENT))), "disguised"),
    "RA, SNAP and tag": (frame(llc(SNAP + TAG + IPV6 + ipv6(ICMPV6, ADVERTISEMENT))), "disguised"),
    "RA, hop-by-hop": (frame(IPV6 + ipv6(HOP, option(ICMPV6) + ADVERTISEMENT)), "router-advertisement"),
    "RA, two extensions": (
        frame(IPV6 + ipv6(HOP, option(DESTINATION) + option(ICMPV6) + ADVERTISEMENT)),
        "router-advertisement",
    ),
    "RA, tagged, with an extension": (
        frame(TAG + IPV6 + ipv6(DESTINATION, option(ICMPV6) + ADVERTISEMENT)),
        "router-advertisement",
    ),
    "RA, in a first fragment": (
        frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 0, more=True) + ADVERTISEMENT)),
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
    "big ping, later fragment": (frame(IPV6 + ipv6(FRAGMENT, fragment(ICMPV6, 16, more=False) + ADVERTISEMENT)), None),
}


@pytest.fixture
def lan(host: Host) -> Host:
    """A bridge br0 of three ports, each the near end of a cable: port, other, third. The far ends are far-port, ..."""
    with host.netlink() as route:
        for name in ("port", "other", "third"):
            route.link("add", ifname=name, kind="veth", peer=f"far-{name}")
    # Theirs would be among the addresses that are learned.
    for name in ("port", "other", "third"):
        for end in (name, f"far-{name}"):
            host.command(f"ip link set {end} addrgenmode none")
            host.set_link(end, state="up")
    host.bridge("br0", "port", "other", "third")
    # Where bridges filter as routers do, they drop packets with wrong checksums, and hold fragments back.
    with host.namespace.inside():
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            path.write_text("0")
    return host


def index_of(host: Host, name: str) -> int:
    return int(host.links()[name]["index"])


@contextlib.contextmanager
def applied(host: Host, rules: Rules, name: str = "port") -> Iterator[None]:
    with host.namespace.inside():
        port_filter.apply(name, index_of(host, name), rules)
        try:
            yield
        finally:
            port_filter.clear(name, index_of(host, name))


def passes(sender: Frames, receiver: Frames, sent: bytes, last: bytes = frame(b"\x88\xb5last")) -> bool:
    """Whether a frame gets through; what is sent after it does."""
    sender.send(sent)
    sender.send(last)
    got = [receiver.receive()]
    while got[-1] != last:
        got.append(receiver.receive())
    return sent in got


def learned(host: Host, name: str) -> set[str]:
    """The addresses that the bridge has learned at a port."""
    with host.netlink() as route:
        index = index_of(host, name)
        return {
            str(entry.get_attr("NDA_LLADDR"))
            for entry in route.fdb("dump")
            if entry["ifindex"] == index and entry.get_attr("NDA_LLADDR", "").startswith("02:ee")
        }


def test_guards_drop_what_they_name_and_nothing_else(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    counted: dict[str, int] = {}
    with applied(lan, Rules(drop=GUARDS)):
        for name, (sent, reason) in VERDICTS.items():
            assert passes(*ends, sent) == (reason is None), name
            if reason:
                counted[reason] = counted.get(reason, 0) + 1
            assert port_filter.drops("port") == counted, name
    for name, (sent, _) in VERDICTS.items():
        # The bridge itself keeps the first 16 reserved addresses to itself while spanning tree is off or on.
        assert passes(*ends, sent) or sent[:5] == b"\x01\x80\xc2\0\0", name


@pytest.mark.parametrize(
    "drop",
    [{port_filter.DHCP_SERVER}, {port_filter.ROUTER_ADVERTISEMENT}, {port_filter.BPDU}],
    ids=lambda drop: next(iter(drop)),
)
def test_a_guard_alone_drops_only_its_own(lan: Host, drop: set[str]) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(drop=frozenset(drop))):
        for name, (sent, reason) in VERDICTS.items():
            if reason in GUARDS and reason != port_filter.BPDU:
                assert passes(*ends, sent) == (reason not in drop), name
        assert port_filter.drops("port").keys() == drop - {port_filter.BPDU}


def test_only_so_many_source_addresses_pass_and_are_learned(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(macs=3)):
        for number in (1, 2, 3, 4, 5, 2, 1, 6):
            for kind in (ARP, TAG + ARP):
                assert passes(*ends, frame(kind, sender=source(number))) == (number <= 3), number
        assert port_filter.drops("port") == {"source-address": 6}
        assert learned(lan, "port") == {f"02:ee:00:00:00:0{number}" for number in (1, 2, 3)}
        # The way to the client has no such limit.
        assert passes(*ends[::-1], frame(ARP, sender=source(9)), frame(ARP + b"last", sender=source(10)))
    assert passes(*ends, frame(ARP, sender=source(4)))


def test_addresses_age(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_filter, "AGEING", 0.2)
    sender, receiver = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(macs=1)):
        sender.send(frame(ARP))
        assert receiver.receive() == frame(ARP)
        sender.send(frame(ARP, sender=source(2)))
        until(lambda: port_filter.drops("port"), "the second address to be refused")

        def accepted() -> bool:
            sender.send(frame(ARP, sender=source(2)))
            return "02:ee:00:00:00:02" in learned(lan, "port")

        until(accepted, "the first address to age")


def test_only_listed_addresses_pass(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    many = {f"02:ee:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(1, 2500)}
    for listed in (frozenset({"02:EE:00:00:00:01", "02:ee:00:00:00:03"}), frozenset(many)):
        with applied(lan, Rules(macs=listed)):
            for number in (1, 2, 3, 2499, 2500):
                expected = f"02:ee:00:00:{number >> 8:02x}:{number & 255:02x}" in {mac.lower() for mac in listed}
                assert passes(*ends, frame(ARP, sender=source(number))) == expected, number


def test_isolated_ports_hear_the_others_but_not_each_other(lan: Host) -> None:
    port, other, third = (lan.frames(f"far-{name}") for name in ("port", "other", "third"))
    unheard = frame(ARP + b"from port")
    with applied(lan, Rules(isolated=True)), applied(lan, Rules(isolated=True), "other"):
        assert passes(port, third, unheard)
        third.send(frame(ARP + b"from third"))
        assert other.receive() == frame(ARP + b"from third")
    assert passes(port, other, frame(ARP + b"later"))


def test_isolation_that_the_owner_of_a_port_chose_stays(lan: Host) -> None:
    lan.command("bridge link set dev port isolated on")
    with applied(lan, Rules(macs=1)):
        pass
    with lan.netlink() as route:
        assert interfaces._isolation(route, index_of(lan, "port"))


def test_a_rate_shapes_what_leaves_and_is_undone(lan: Host) -> None:
    def shaper() -> list[tuple[str, int]]:
        with lan.netlink() as route:
            return [
                (str(qdisc.get_attr("TCA_KIND")), int(qdisc.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"]))
                for qdisc in route.get_qdiscs(index=index_of(lan, "port"))
                if qdisc["handle"] == interfaces.SHAPER
            ]

    for rate in (20_000_000, 1_000_000_000):
        with applied(lan, Rules(rate_down=rate)):
            assert shaper() == [("tbf", rate // 8)]
            # Frames as long as the MTU allows still pass.
            assert passes(lan.frames("far-other"), lan.frames("far-port"), frame(bytes([0x88, 0xB5]) + bytes(1500)))
    assert shaper() == []


def test_a_qdisc_of_the_owner_stays_while_no_rate_is_asked_for(lan: Host) -> None:
    lan.command("tc qdisc add dev port root handle 5: tbf rate 1mbit burst 4000 limit 9000")
    with applied(lan, Rules(macs=1)):
        pass
    with lan.netlink() as route:
        assert [qdisc["handle"] for qdisc in route.get_qdiscs(index=index_of(lan, "port"))] == [0x50000]


def test_the_next_client_has_its_own_rules_only(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    index = index_of(lan, "port")
    with lan.namespace.inside():
        port_filter.apply("port", index, Rules(macs=1, drop=GUARDS, rate_down=10**7, isolated=True))
        assert passes(*ends, frame(ARP))
        assert not passes(*ends, frame(ARP, sender=source(2)))
        port_filter.apply("port", index, Rules(macs=frozenset({"02:ee:00:00:00:01", "02:ee:00:00:00:02"})))
        assert port_filter.drops("port") == {}
        assert passes(*ends, frame(ARP, sender=source(2)))
        assert passes(*ends, VERDICTS["RA"][0])
        port_filter.apply("port", index, Rules())
        assert passes(*ends, frame(ARP, sender=source(3)))
        assert not nftables.tables()


def test_rules_hold_for_a_tap_in_no_bridge(host: Host) -> None:
    with host.namespace.inside():
        tap = Tap("ethws%d")
        frames = host.frames(tap.name)
        with applied(host, Rules(macs=1), tap.name):
            for number in (1, 2, 1):
                tap.write_batch([bytes(VNET_BYTES) + frame(ARP, sender=source(number))])
            assert port_filter.drops(tap.name) == {"source-address": 1}
        with pytest.raises(DeviceError, match="--bridge"):
            port_filter.apply(tap.name, tap.index, Rules(macs=1, rate_down=10**6, isolated=True))
        # All or nothing.
        assert not nftables.tables()
        assert all(qdisc["handle"] != interfaces.SHAPER for qdisc in _qdiscs(host, tap.index))
        frames.close()
        tap.close()


def test_what_a_killed_server_left_is_swept_and_nothing_else(lan: Host) -> None:
    lan.command("nft add table netdev mine")
    lan.command("nft add table netdev etherws")
    with lan.netlink() as route:
        route.link("add", ifname="ethws7", kind="tuntap", mode="tap")
    with lan.namespace.inside():
        for name in ("ethws7", "port"):
            port_filter.apply(name, index_of(lan, name), Rules(macs=1))
        lan.delete_link("ethws7")
        port_filter.sweep()
        assert sorted(nftables.tables()) == ["etherws", "etherws-port", "mine"]


def test_a_port_that_went_before_its_rules_is_no_error(lan: Host) -> None:
    index = index_of(lan, "port")
    with lan.namespace.inside():
        port_filter.apply("port", index, Rules(macs=1, drop=GUARDS, rate_down=10**7, isolated=True))
        lan.delete_link("port")
        port_filter.clear("port", index)
        assert not nftables.tables()
        assert port_filter.drops("port") == {}
        # A kernel takes rules for interfaces that are still to come.
        with pytest.raises(DeviceError, match="port is gone"):
            port_filter.apply("port", index, Rules(macs=1))
        assert not nftables.tables()


def test_a_namesake_that_came_since_keeps_its_rules(lan: Host) -> None:
    before = index_of(lan, "port")
    with lan.namespace.inside():
        lan.delete_link("port")
        with lan.netlink() as route:
            route.link("add", ifname="port", kind="tuntap", mode="tap")
        port_filter.apply("port", index_of(lan, "port"), Rules(macs=1))
        port_filter.clear("port", before)
        assert list(nftables.tables()) == ["etherws-port"]


def test_the_kernel_is_asked_before_it_is_needed(host: Host) -> None:
    with host.namespace.inside():
        port_filter.check()
        assert not nftables.tables()


def test_without_the_right_to_filter_the_mend_is_told(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give its rights up")
    code = (
        "from types import SimpleNamespace as Rules\n"
        "from etherws import errors\nfrom etherws.kernel import port_filter\n"
        "nothing = dict(macs=0, drop=frozenset(), rate_down=None, isolated=False)\n"
        "port_filter.apply('lo', 1, Rules(**nothing)), port_filter.clear('lo', 1), port_filter.sweep()\n"
        "for more in {'macs': 1}, {'drop': {port_filter.BPDU}}, {'rate_down': 10**6}, {'isolated': True}:\n"
        "    try: port_filter.apply('lo', 1, Rules(**{**nothing, **more}))\n"
        "    except errors.DeviceError as exc: print(exc)\n"
        "try: port_filter.check()\n"
        "except errors.DeviceError as exc: print(exc, port_filter.drops('lo'), 'done')"
    )
    process = host.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", sys.executable, "-c", code)
    lines = process.says("{} done").splitlines()
    assert len(lines) == 5, lines
    assert all("CAP_NET_ADMIN" in line or "--bridge" in line for line in lines), lines


def _qdiscs(host: Host, index: int) -> list[Any]:
    with host.netlink() as route:
        return list(route.get_qdiscs(index=index))
