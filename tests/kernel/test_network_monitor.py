"""What counts as a change of the machine's network, told from netlink messages made by hand."""

from __future__ import annotations

import socket
import struct

import pytest

from etherws.kernel.network_monitor import (
    DUMP_SEQUENCE,
    IFF_RUNNING,
    IFLA_IFNAME,
    IFLA_MASTER,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Changes,
)

OWN = "ethws0"
BRIDGE, ETHWS0, ETH0 = 1, 2, 3


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    """A netlink message, padded to 4 bytes."""
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body
    return whole + bytes(-len(whole) % 4)


def link(
    index: int,
    name: str,
    *,
    up: bool,
    master: int = 0,
    kind: int = RTM_NEWLINK,
    sequence: int = 0,
    family: int = socket.AF_UNSPEC,
) -> bytes:
    """A message about a link."""
    text = name.encode() + b"\0"
    attributes = struct.pack("=HH", 4 + len(text), IFLA_IFNAME) + text + bytes(-len(text) % 4)
    if master:
        attributes += struct.pack("=HHI", 8, IFLA_MASTER, master)
    body = struct.pack("=BxHiII", family, 0, index, IFF_RUNNING if up else 0, 0)
    return message(kind, body + attributes, sequence)


def address(index: int, kind: int = RTM_NEWADDR) -> bytes:
    """A message about an address of a link."""
    return message(kind, struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, index))


@pytest.fixture
def changes() -> Changes:
    """As after the answer to the request for all links: eth0 is up, and ethws0 is up and in the bridge br0."""
    made = Changes()
    answer = (
        link(BRIDGE, "br0", up=True, sequence=DUMP_SEQUENCE)
        + link(ETHWS0, OWN, up=True, master=BRIDGE, sequence=DUMP_SEQUENCE)
        + link(ETH0, "eth0", up=True, sequence=DUMP_SEQUENCE)
    )
    assert not made.read(answer, OWN)
    return made


def test_a_link_that_comes_up_is_a_change(changes: Changes) -> None:
    assert not changes.read(link(ETH0, "eth0", up=False), OWN)
    assert changes.read(link(ETH0, "eth0", up=True), OWN)
    # The kernel reports it again for each small thing.
    assert not changes.read(link(ETH0, "eth0", up=True), OWN)
    assert changes.read(link(4, "wlan0", up=True), OWN)


def test_a_link_that_was_deleted_is_new_when_it_comes_again(changes: Changes) -> None:
    assert not changes.read(link(ETH0, "eth0", up=True, kind=RTM_DELLINK), OWN)
    assert changes.read(link(ETH0, "eth0", up=True), OWN)


@pytest.mark.parametrize("kind", [RTM_NEWADDR, RTM_DELADDR])
def test_an_address_that_comes_or_goes_is_a_change(changes: Changes, kind: int) -> None:
    assert changes.read(address(ETH0, kind), OWN)


def test_the_clients_own_interface_and_its_bridge_do_not_count(changes: Changes) -> None:
    for index, name, master in ((ETHWS0, OWN, BRIDGE), (BRIDGE, "br0", 0)):
        assert not changes.read(link(index, name, up=False, master=master), OWN)
        assert not changes.read(link(index, name, up=True, master=master), OWN)
        assert not changes.read(address(index), OWN)
    # For another client they do.
    assert changes.read(address(ETHWS0), "ethws9")


def test_what_a_bridge_reports_of_its_ports_does_not_count(changes: Changes) -> None:
    assert not changes.read(link(4, "vnet0", up=True, family=socket.AF_BRIDGE), OWN)


def test_other_messages_and_malformed_ones_are_ignored(changes: Changes) -> None:
    assert not changes.read(message(3, b""), OWN)
    assert not changes.read(b"\0" * 16 + address(ETH0), OWN)
    malformed = struct.pack("=BxHiII", 0, 0, 4, 0, 0) + struct.pack("=HH", 3, IFLA_IFNAME)
    assert not changes.read(message(RTM_NEWLINK, malformed), OWN)
    # A message of odd length is followed by padding.
    assert changes.read(message(3, b"odd") + address(ETH0), OWN)


def test_messages_that_are_too_short_are_no_changes(changes: Changes) -> None:
    short = message(RTM_NEWLINK, bytes(15)) + message(RTM_NEWADDR, bytes(7))
    odd = struct.pack("=BxHiII", 0, 0, 9, 0, 0) + struct.pack("=HHxxxx", 7, IFLA_MASTER)
    assert not changes.read(short + message(RTM_NEWLINK, odd), OWN)
