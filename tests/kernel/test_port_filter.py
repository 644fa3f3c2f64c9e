"""What a client's policy lets through, on real bridges: frames go in by a port, and come out by another or not."""

from __future__ import annotations

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
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.lan import applied, in_use, index_of, learned, passes, source, tables
from tests.lab.packets import ARP, ICMPV6, IPV6, TAG, frame, icmpv6, ipv6

GUARDS = frozenset({rules.BPDU, rules.DHCP_SERVER, rules.ROUTER_ADVERTISEMENT})
RA = frame(IPV6 + ipv6(ICMPV6, icmpv6(134)))


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
    with lan.namespace.inside():
        assert interfaces.is_isolated(index_of(lan, "port"))


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
        assert passes(*ends, RA)
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
    with host.namespace.inside():
        return shaped or interfaces.is_isolated(index)


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


def test_an_interface_that_is_moved_away_meanwhile_gets_no_rules_for_that_reason(lan: Host) -> None:
    class Moved:
        """A TAP that is moved to another network namespace after its name was asked for."""

        name = "port"

        def __init__(self, index: int) -> None:
            self.places = [index]

        def locate(self) -> int | None:
            return self.places.pop() if self.places else None

    with lan.namespace.inside():
        port = PortFilter(index := index_of(lan, "port"), device := Moved(index))
        port.need(Rules(macs=1, macs_required=True))
        device.places = [index]
        with pytest.raises(DeviceError, match="port is in another network namespace, where the rules"):
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
