"""What a client's policy lets through, on real bridges: frames go in by a port, and come out by another or not."""

from __future__ import annotations

import struct
from typing import Any

import gevent
import pytest

from etherws.errors import DeviceError
from etherws.kernel import interfaces, nftables, rules
from etherws.kernel.filter_state import FilterState
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import Rules
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.hosts import OURS, PATIENCE, Host, until
from tests.lab.lan import applied, in_use, index_of, learned, make_lan, passes, source, tables

SOURCE = OURS + b"\x00\x00\x00\x01"
EVERYONE = b"\xff" * 6
GUARDS = frozenset({rules.BPDU, rules.DHCP_SERVER, rules.ROUTER_ADVERTISEMENT})

IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
TAG, QINQ = b"\x81\x00\x00\x64", b"\x88\xa8\x00\x65"
PRIORITY = b"\x81\x00\x20\x00"
SNAP = b"\xaa\xaa\x03\x00\x00\x00"


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
    """A bridge of three ports; see make_lan()."""
    return make_lan(host)


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


def test_only_so_many_source_addresses_pass_and_are_learned(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(macs=3)) as port:
        for number in (1, 2, 3, 4, 5, 2, 1, 6):
            for kind in (ARP, TAG + ARP):
                assert passes(*ends, frame(kind, sender=source(number))) == (number <= 3), number
        assert port.drops() == {"source-address": 6}
        assert learned(lan, "port") == {f"02:ee:00:00:00:0{number}" for number in (1, 2, 3)}
        # The way to the client has no such limit.
        assert passes(*ends[::-1], frame(ARP, sender=source(9)), frame(ARP + b"last", sender=source(10)))
    assert passes(*ends, frame(ARP, sender=source(4)))


def test_addresses_age(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "AGEING", 0.2)
    sender, receiver = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(macs=1)) as port:
        sender.send(frame(ARP))
        assert receiver.receive() == frame(ARP)
        sender.send(frame(ARP, sender=source(2)))
        until(port.drops, "the second address to be refused")

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
    with lan.namespace.inside():
        port = in_use(lan, Rules(macs=1, drop=GUARDS, rate_down=10**7, isolated=True))
        assert passes(*ends, frame(ARP))
        assert not passes(*ends, frame(ARP, sender=source(2)))
        port.need(Rules(macs=frozenset({"02:ee:00:00:00:01", "02:ee:00:00:00:02"})))
        assert port.drops() == {}
        assert passes(*ends, frame(ARP, sender=source(2)))
        assert passes(*ends, VERDICTS["RA"][0])
        port.arm()
        assert port.drops() == {}
        port.need(Rules())
        assert passes(*ends, frame(ARP, sender=source(3)))
        assert not nftables.table_handles()


def test_rules_hold_for_a_tap_in_no_bridge(host: Host) -> None:
    with host.namespace.inside():
        tap = Tap("ethws%d")
        frames = host.frames(tap.name)
        with applied(host, Rules(macs=1), tap.name) as port:
            for number in (1, 2, 1):
                tap.write_batch([bytes(VNET_BYTES) + frame(ARP, sender=source(number))])
            assert port.drops() == {"source-address": 1}
        with pytest.raises(DeviceError, match="--bridge"):
            port.need(Rules(macs=1, rate_down=10**6, isolated=True))
        # All or nothing.
        assert port.state is FilterState.ABSENT
        assert not nftables.table_handles()
        assert all(qdisc["handle"] != interfaces.SHAPER for qdisc in _qdiscs(host, tap.index))
        frames.close()
        tap.close()


def test_a_port_that_went_before_its_rules_is_no_error(lan: Host) -> None:
    with lan.namespace.inside():
        port = in_use(lan, Rules(macs=1, drop=GUARDS, rate_down=10**7, isolated=True))
        lan.delete_link("port")
        port.clear()
        assert not nftables.table_handles()
        assert port.drops() == {}
        # A kernel takes rules for interfaces that do not exist yet.
        port.need(Rules(macs=1))
        with pytest.raises(DeviceError, match="it is gone"):
            port.arm()
        assert not nftables.table_handles()


def test_a_namesake_that_came_since_keeps_its_rules(lan: Host) -> None:
    with lan.namespace.inside():
        before = in_use(lan, Rules(macs=1))
        lan.delete_link("port")
        with lan.netlink() as route:
            route.link("add", ifname="port", kind="tuntap", mode="tap")
        in_use(lan, Rules(macs=1))
        before.clear()
        assert list(nftables.table_handles()) == ["etherws-port"]


# When rules are put in, kept and replaced.


def test_filters_wait_for_the_first_frame(lan: Host) -> None:
    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        port.need(Rules(macs=1, drop=GUARDS))
        assert (port.state, port.applied) == (FilterState.ABSENT, None)
        assert not tables(lan)
        port.arm()
        assert (port.state, port.applied) == (FilterState.USED, ("port", Rules(macs=1, drop=GUARDS)))
        assert tables(lan).keys() == {"etherws-port"}


@pytest.mark.parametrize(
    "wanted", [Rules(macs=1, rate_down=10**7), Rules(macs=1, isolated=True)], ids=["rate", "alone"]
)
def test_rules_for_what_goes_to_the_client_do_not_wait(lan: Host, wanted: Rules) -> None:
    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        port.need(wanted)
        assert (port.state, port.applied) == (FilterState.UNUSED, ("port", wanted))
        before = tables(lan)
        port.ensure()
        port.arm()
        port.arm()
        assert tables(lan) == before
        # The next client may get what it needs, but neither the rate nor the isolation of this one.
        port.need(Rules(macs=1))
        assert (port.state, port.applied) == (FilterState.UNUSED, ("port", Rules(macs=1)))
        assert not held_back(lan)


def held_back(host: Host) -> bool:
    """Whether the port is isolated or shaped."""
    index = index_of(host, "port")
    with host.netlink() as route:
        shaped = any(qdisc["handle"] == interfaces.SHAPER for qdisc in route.get_qdiscs(index=index))
        return shaped or bool(interfaces._isolation(route, index))


def test_rules_that_no_frame_has_passed_are_good_for_the_next_client(lan: Host) -> None:
    wanted = Rules(macs=1, rate_down=10**7)
    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        port.need(wanted)
        before = tables(lan)
        port.need(wanted)
        port.arm()
        assert tables(lan) == before


def test_what_rules_have_learnt_is_for_the_same_client_only(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with lan.namespace.inside():
        port = in_use(lan, Rules(macs=1))
        before = tables(lan)
        assert passes(*ends, frame(ARP))
        port.need(Rules(macs=1), returning=True)
        port.arm()
        assert tables(lan) == before
        assert not passes(*ends, frame(ARP, sender=source(2)))
        assert port.drops() == {"source-address": 1}
        # Another client: replaced with its first frame, not before.
        port.need(Rules(macs=1))
        assert (port.state, port.drops()) == (FilterState.OUTDATED, {})
        assert tables(lan) == before
        port.arm()
        assert tables(lan) != before
        assert passes(*ends, frame(ARP, sender=source(2)), frame(ARP + b"last", sender=source(2)))
        assert port.drops() == {}


def test_a_returning_client_that_needs_other_rules_gets_them_at_once(lan: Host) -> None:
    with lan.namespace.inside():
        port = in_use(lan, Rules(macs=1))
        port.need(Rules(macs=2), returning=True)
        assert (port.state, port.applied) == (FilterState.UNUSED, ("port", Rules(macs=2)))


def test_rules_follow_a_new_name(lan: Host) -> None:
    with lan.namespace.inside():
        port = in_use(lan, Rules(macs=1))
        lan.set_link("port", state="down")
        lan.set_link("port", ifname="renamed")
        lan.set_link("renamed", state="up")
        port.need(Rules(macs=1), returning=True)
        port.arm()
        assert port.applied == ("renamed", Rules(macs=1))
        assert tables(lan).keys() == {"etherws-renamed"}


def test_rules_that_could_not_be_put_in_leave_none_in_force(lan: Host) -> None:
    lan.set_link("port", master=0)
    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        port.need(Rules(macs=1, rate_down=10**7))
        with pytest.raises(DeviceError, match="--bridge"):
            port.need(Rules(macs=1, isolated=True))
        assert (port.state, port.applied, tables(lan)) == (FilterState.ABSENT, None, {})
        # The next client that needs the former rules gets them.
        port.need(Rules(macs=1, rate_down=10**7))
        assert port.state is FilterState.UNUSED
        assert tables(lan)


def test_what_failed_first_is_the_error(
    lan: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(index: int, rate: int | None) -> None:
        raise DeviceError("cannot undo it" if rate is None else "cannot shape")

    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        with monkeypatch.context() as broken:
            broken.setattr(interfaces, "set_rate", refuse)
            with pytest.raises(DeviceError, match="cannot shape"):
                port.need(Rules(macs=1, rate_down=10**7))
        assert "cannot undo it" in caplog.text
        assert port.state is FilterState.ABSENT


def test_an_interface_that_is_renamed_meanwhile_gets_no_rules(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with lan.namespace.inside():
        port = PortFilter(index_of(lan, "port"))
        port.need(Rules(macs=1))
        names = iter(["port", "renamed"])
        with monkeypatch.context() as renaming:
            renaming.setattr(interfaces, "name_of", lambda index: next(names))
            with pytest.raises(DeviceError, match="port: it has another name now"):
                port.arm()
        assert not tables(lan)


def test_a_change_that_has_begun_ends_before_the_next(lan: Host) -> None:
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        port = PortFilter(index_of(lan, "port"))
        port.need(Rules(macs=1))
        session = gevent.spawn(port.arm)
        while not port._one_at_a_time.locked():
            gevent.sleep(0)
        # The session is ended while the kernel is asked.
        session.kill()
        assert port.state is FilterState.ABSENT
        port.need(Rules(macs=2))
        assert (port.state, port.applied) == (FilterState.UNUSED, ("port", Rules(macs=2)))
        assert tables(lan).keys() == {"etherws-port"}


def _qdiscs(host: Host, index: int) -> list[Any]:
    with host.netlink() as route:
        return list(route.get_qdiscs(index=index))
