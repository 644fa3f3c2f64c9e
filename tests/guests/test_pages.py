"""README.rst and docs/tutorials/, typed as they stand on two bare Debian machines with systemd, which also reboot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.guests.machine import Guest
from tests.guests.pair import TO_LINK, Pair, Times
from tests.lab.pages import commands, invitation
from tests.lab.readme import NAMES, blocks

pytestmark = pytest.mark.guests

#: What etherws init client asks for.
ASKED = "Invitation (it is not shown): "

#: Succeeds once the client has connected since the boot.
CONNECTED = "journalctl --boot --quiet -o cat -u etherws-client@lan | grep 'connected to'"


def waits(guest: Guest, command: str) -> None:
    """Wait on the machine until a command of its shell succeeds."""
    guest.types(f"until {command} >/dev/null; do sleep 0.2; done")


def pings(guest: Guest, address: str, host: str = "") -> None:
    """Wait until a ping passes, from the machine or from this network namespace of it."""
    inside = f"ip netns exec {host} " if host else ""
    waits(guest, f"{inside}ping -c 1 -W 1 {address}")


@contextlib.contextmanager
def ended(pair: Pair) -> Iterator[None]:
    """At the end of the block, have no set-up on either machine."""
    try:
        yield
    finally:
        for guest, role in ((pair.two, "client"), (pair.one, "server")):
            guest.tries(f"systemctl disable --quiet --now etherws-{role}@lan; rm -rf /etc/etherws")
            # It stays if it has other ports.
            guest.tries("ip link delete br0")


@contextlib.contextmanager
def lan(guest: Guest, address: str, port: str = "eth1") -> Iterator[None]:
    """A host with this address on a cable to a port of the machine: a network namespace there, of the name ``host``."""
    guest.types(f"ip netns add host && ip link add {port} type veth peer name eth0 netns host && ip link set {port} up")
    guest.types(f"ip -n host address add {address} dev eth0 && ip -n host link set eth0 up")
    try:
        yield
    finally:
        guest.tries(f"ip link delete {port}; ip netns delete host")


@contextlib.contextmanager
def known(guest: Guest, name: str, address: str) -> Iterator[None]:
    """A name that the machine knows, in place of DNS."""
    guest.types(f"echo '{address} {name}' >>/etc/hosts")
    try:
        yield
    finally:
        guest.tries("sed -i '$d' /etc/hosts")


def joins(guest: Guest, command: str, line: str) -> None:
    """Type ``etherws init client``, and paste the line when it asks."""
    assert "The server lets this client in" in guest.types(command, {ASKED: line})


def test_a_first_link_which_is_there_again_after_a_reboot(packaged: Pair, times: Times) -> None:
    page, pair = "tutorials/first-link.rst", packaged
    with ended(pair):
        with times.of("tutorial: a first link, with these"):
            with times.of(TO_LINK):
                line = invitation(pair.type_in_turn(pair.one, *commands(page, "On the server")))
                (join,) = commands(page, "On the client")
                joins(pair.two, join, line)
                waits(pair.two, CONNECTED)
            *tried, status = commands(page, "Try it")
            pair.type_in_turn(pair.one, *tried[:2])
            pair.type_in_turn(pair.two, *tried[2:])
            for guest in (pair.one, pair.two):
                assert "ethws0" in guest.types(status)
            assert "etherws-invitation:" in pair.type_in_turn(pair.one, *commands(page, "One more client"))
        with times.of("reboot of both, to the shell"):
            pair.both(Guest.reboots)
        with times.of("from there to the link"):
            # A ping alone could pass another way: by what QEMU has for the Internet, as long as there is no ethws0.
            waits(pair.two, CONNECTED)
            pings(pair.two, "10.77.0.1")
        # Encrypted, and with the token: the client knows no other way in.
        assert "wss://192.0.2.1" in pair.two.types(status)
        for guest in (pair.one, pair.two):
            assert guest.types("systemctl --failed --no-legend") == ""


def test_readme(pair: Pair, times: Times) -> None:
    serve, join, attach = (block.commands for block in blocks() if block.heading == "Use")
    with lan(pair.one, "10.0.0.1/24", "vnet0"), lan(pair.two, "10.0.0.2/24", "vnet0"):
        with ended(pair), known(pair.two, NAMES["<Hypervisor1's name>"], "192.0.2.1"):
            with times.of("README, Use"):
                joins(pair.two, join[0], invitation(pair.type_in_turn(pair.one, *serve)))
                pair.both(lambda guest: pair.type_in_turn(guest, *attach))
            pings(pair.one, "10.0.0.2", "host")
        programs, serve, join = (block.commands for block in blocks() if block.heading == "The commands of etherws 0.2")
        pair.both(lambda guest: pair.type_in_turn(guest, *programs))
        try:
            with times.of("README, the commands of etherws 0.2"):
                pair.type_in_turn(pair.one, *serve)
                pair.type_in_turn(pair.two, *join)
            pings(pair.one, "10.0.0.2", "host")
        finally:
            pair.both(lambda guest: guest.tries("etherws stop; ip link delete br0"))


def test_two_hypervisors(pair: Pair, times: Times) -> None:
    page = "tutorials/two-hypervisors.rst"
    with ended(pair), times.of("tutorial: two hypervisors"):
        serve, join = commands(page, "The tunnel")
        joins(pair.two, join, invitation(pair.one.types(serve)))
        pair.type_in_turn(pair.two, *commands(page, "A virtual machine with QEMU"))
        fdb, status = commands(page, "Try it")
        # The firmware of the virtual machine asks for an address, and the far bridge learns who asks.
        waits(pair.one, f"{fdb} | grep 52:54:00:12:34:01")
        assert "ethws0" in pair.two.types(status)
        pair.two.types("kill $(cat /run/vm.pid)")


def test_one_laptop(pair: Pair, times: Times) -> None:
    page = "tutorials/one-laptop.rst"
    with ended(pair), lan(pair.one, "10.77.0.10/24"), known(pair.two, "office.example", "192.0.2.1"):
        dhcp = "--conf-file=/dev/null --port=0 --dhcp-range=10.77.0.50,10.77.0.60,1h --dhcp-option=3,10.77.0.10"
        pair.one.types(f"ip netns exec host dnsmasq {dhcp} --pid-file=/run/dhcp.pid")
        with times.of("tutorial: one laptop"):
            serve, *at_office = commands(page, "At the office")
            line = invitation(pair.one.types(serve))
            pair.type_in_turn(pair.one, *at_office)
            join, *ask = commands(page, "On the laptop")
            joins(pair.two, join, line)
            pair.type_in_turn(pair.two, *ask)
            pair.type_in_turn(pair.two, *commands(page, "Try it"))
        routes = pair.two.types("ip route")
        assert "10.77.0.0/24 dev ethws0" in routes
        assert "default via 10.0.2.2" in routes
        pair.two.types("dhclient -x ethws0")
        pair.one.types("kill $(cat /run/dhcp.pid)")


def test_a_branch_behind_a_proxy(pair: Pair, times: Times) -> None:
    page = "tutorials/branch-behind-a-proxy.rst"
    settings = r"http_port 3128\nhttp_access allow all\ncache_log /dev/null\naccess_log none\ncache_mem 1 MB\n"
    with (
        ended(pair),
        lan(pair.one, "10.77.0.10/24"),
        lan(pair.two, "10.77.0.20/24"),
        known(pair.one, "hq.example", "198.51.100.1"),
        known(pair.two, "proxy.example", "192.0.2.1"),
    ):
        # The proxy is between the two: the branch knows no way to 198.51.100.1, nor any other way out.
        pair.one.types("ip address add 198.51.100.1/32 dev lo")
        pair.one.types(
            f"printf '{settings}' >/etc/squid/squid.conf && squid && until ss -ltn | grep -q :3128; do :; done"
        )
        pair.two.types("ip link set out0 down")
        with times.of("tutorial: a branch behind a proxy"):
            serve, *at_office = commands(page, "At the head office")
            line = invitation(pair.one.types(serve))
            pair.type_in_turn(pair.one, *at_office)
            export, look, join, *rest = commands(page, "At the branch")
            pair.two.types(export)
            assert "through" in pair.two.tries(look)[0]
            joins(pair.two, join, line)
            pair.type_in_turn(pair.two, *rest)
            pings(pair.two, "10.77.0.10", "host")
            pings(pair.one, "10.77.0.20", "host")
            (status,) = commands(page, "Try it")
            assert "proxy.example" in pair.two.types(status)
        pair.two.types("unset https_proxy; ip link set out0 up")
        pair.one.types("squid -k shutdown; ip address delete 198.51.100.1/32 dev lo")
