"""IP addresses of an interface, on a real one: given once, taken back, and never those of others."""

from __future__ import annotations

import pytest

from etherws.errors import DeviceError
from etherws.kernel.inet import InetAddresses
from tests.lab.hosts import Host
from tests.lab.lan import addresses, index_of

WANTED = ("10.9.0.1/24", "fd00:9::1/64", "10.9.1.1/32", "fe80::9/64")


def test_addresses_are_given_once_and_taken_back(lan: Host) -> None:
    with lan.namespace.inside():
        inet = InetAddresses(WANTED)
        inet.put(index := index_of(lan, "br0"))
        inet.put(index)
    assert {*WANTED} <= addresses(lan, "br0")
    assert inet.given[0] == index
    assert {*inet.given[1]} == {*WANTED}
    with lan.namespace.inside():
        inet.take_back()
        inet.take_back()
    assert not {*WANTED} & addresses(lan, "br0")


def test_an_address_that_was_there_stays(lan: Host) -> None:
    lan.command("ip addr add 10.9.0.1/24 dev br0")
    with lan.namespace.inside():
        inet = InetAddresses(WANTED[:2])
        inet.put(index_of(lan, "br0"))
        assert inet.given[1] == WANTED[1:2]
        inet.take_back()
    assert {*WANTED[:2]} & addresses(lan, "br0") == {WANTED[0]}


def test_what_somebody_has_taken_is_given_again(lan: Host) -> None:
    with lan.namespace.inside():
        inet = InetAddresses(WANTED[:2])
        inet.put(index := index_of(lan, "br0"))
        lan.command("ip addr flush dev br0")
        inet.put_again(index)
        assert {*inet.given[1]} == {*WANTED[:2]}
    assert {*WANTED[:2]} <= addresses(lan, "br0")


def test_the_next_process_takes_what_is_not_wanted_any_more(lan: Host) -> None:
    with lan.namespace.inside():
        first = InetAddresses(WANTED[:2])
        first.put(index := index_of(lan, "br0"))
        second = InetAddresses(WANTED[1:3], first.given)
        second.put(index)
        assert {*second.given[1]} == {*WANTED[1:3]}
        assert {*WANTED} & addresses(lan, "br0") == {*WANTED[1:3]}
        # Elsewhere now; and a state with what is no address harms nobody.
        third = InetAddresses(WANTED[:1], (index, (*second.given[1], "x")))
        third.put(index_of(lan, "far-port"))
    assert not {*WANTED} & addresses(lan, "br0")
    assert {*WANTED} & addresses(lan, "far-port") == {*WANTED[:1]}


def test_another_interface_in_the_same_network_is_named(lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    lan.command("ip addr add 10.9.0.7/24 dev far-port")
    lan.command("ip addr add fd00:9::1/64 dev far-port")
    lan.command("ip addr add 10.9.1.7/8 dev far-port")
    lan.command("ip addr add fe80::5/64 dev far-port")
    with lan.namespace.inside():
        inet = InetAddresses(WANTED)
        inet.put(index := index_of(lan, "br0"))
        inet.put(index)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "10.9.0.1/24 of br0 and 10.9.0.7/24 of far-port are in the same network",
        "fd00",
    ]
    assert "fd00:9::1/64 of br0 and fd00:9::1/64 of far-port are in the same network" in caplog.text


def test_an_interface_that_cannot_have_it_is_named_with_the_mend(lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    lan.command("ip link set far-port mtu 1000")
    with lan.namespace.inside():
        inet = InetAddresses(WANTED[:2])
        with pytest.raises(DeviceError, match=r"cannot give far-port the address fd00:9::1/64: .*; .*1,280 bytes"):
            inet.put(index_of(lan, "far-port"))
        assert inet.given[1] == WANTED[:1]
        inet.take_back()
        inet.put_again(999)
    assert "cannot give the interface the address 10.9.0.1/24: No such device; it is gone" in caplog.text
