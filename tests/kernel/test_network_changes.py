"""What counts as a change of the machine's network, told from netlink messages made by hand."""

from __future__ import annotations

import socket
import struct

import pytest

from etherws.kernel import netlink
from etherws.kernel.network_changes import (
    DUMP_SEQUENCE,
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_OPTIMISTIC,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_RUNNING,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    NLM_F_REPLACE,
    NLMSG_DONE,
    NLMSG_ERROR,
    ROUTES_MAX,
    RT_SCOPE_LINK,
    RTA_DST,
    RTA_OIF,
    RTA_PRIORITY,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Changes,
)

OWN = "ethws0"
BRIDGE, ETHWS0, ETH0 = 1, 2, 3


def message(kind: int, body: bytes, sequence: int = 0, flags: int = 0) -> bytes:
    """A netlink message, padded to 4 bytes."""
    whole = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
    return whole + bytes(-len(whole) % 4)


def link(
    index: int,
    name: str,
    *,
    up: bool,
    master: int = 0,
    below: int = 0,
    elsewhere: bool = False,
    bridge: bool = False,
    kind: int = RTM_NEWLINK,
    sequence: int = 0,
    family: int = socket.AF_UNSPEC,
) -> bytes:
    """A message about a link."""
    text = name.encode() + b"\0"
    # IFLA_MTU, and its name.
    attributes = struct.pack("=HHI", 8, 4, 1500)
    attributes += struct.pack("=HH", 4 + len(text), IFLA_IFNAME) + text + bytes(-len(text) % 4)
    if master:
        attributes += struct.pack("=HHI", 8, IFLA_MASTER, master)
    if below:
        attributes += struct.pack("=HHI", 8, IFLA_LINK, below)
    if elsewhere:
        attributes += struct.pack("=HHI", 8, IFLA_LINK_NETNSID, 0)
    if bridge:
        attributes += netlink.attribute(IFLA_LINKINFO, netlink.attribute(IFLA_INFO_KIND, b"bridge\0"))
    body = struct.pack("=BxHiII", family, 0, index, IFF_RUNNING if up else 0, 0)
    return message(kind, body + attributes, sequence)


def address(
    index: int,
    kind: int = RTM_NEWADDR,
    text: str = "192.0.2.2",
    *,
    flags: int = 0,
    lifetime: int = 0,
    scope: int = 0,
    sequence: int = 0,
) -> bytes:
    """A message about an address of a link."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    value = socket.inet_pton(family, text)
    head = struct.pack("=BBBBI", family, 24, flags & 0xFF, scope, index)
    attributes = netlink.attribute(IFA_ADDRESS, value) + netlink.attribute(IFA_FLAGS, struct.pack("=I", flags))
    if family == socket.AF_INET:
        attributes += netlink.attribute(IFA_LOCAL, value)
    # struct ifa_cacheinfo
    attributes += netlink.attribute(6, struct.pack("=IIII", lifetime, lifetime, 0, lifetime))
    return message(kind, head + attributes, sequence)


def route(
    gateway: str, kind: int = RTM_NEWROUTE, *, bits: int = 0, index: int = ETH0, metric: int = 0, flags: int = 0
) -> bytes:
    """A message about a default route."""
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, 254, 16, 0, 1, 0)
    attributes = netlink.attribute(5, socket.inet_aton(gateway)) + netlink.attribute(RTA_OIF, struct.pack("=I", index))
    if bits:
        attributes += netlink.attribute(RTA_DST, socket.inet_aton("128.0.0.0"))
    if metric:
        attributes += netlink.attribute(RTA_PRIORITY, struct.pack("=I", metric))
    # RTA_CACHEINFO
    return message(kind, head + attributes + netlink.attribute(12, bytes(32)), flags=flags)


LINKS = (
    link(BRIDGE, "br0", up=True, sequence=DUMP_SEQUENCE)
    + link(ETHWS0, OWN, up=True, master=BRIDGE, sequence=DUMP_SEQUENCE)
    + link(ETH0, "eth0", up=True, sequence=DUMP_SEQUENCE)
)
ADDRESSES = address(ETH0, sequence=DUMP_SEQUENCE) + address(BRIDGE, text="10.0.0.1", sequence=DUMP_SEQUENCE)


def done(kind: int = NLMSG_DONE) -> bytes:
    """The end of an answer."""
    return message(kind, bytes(4), DUMP_SEQUENCE)


def asked(changes: Changes) -> int:
    """The kind of the request that is to be sent now; 0 for none."""
    request = changes.request()
    return next(netlink.messages(request)).kind if request else 0


@pytest.fixture
def changes() -> Changes:
    """As after the answers at the start: eth0 is up, ethws0 is in the bridge br0; eth0 and br0 have addresses."""
    made = Changes()
    assert asked(made) == RTM_GETLINK
    assert not made.read(LINKS, OWN)
    assert asked(made) == 0
    assert not made.read(done(), OWN)
    assert asked(made) == RTM_GETADDR
    assert not made.read(ADDRESSES + done(), OWN)
    assert asked(made) == 0
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


def test_an_address_that_comes_or_goes_is_a_change(changes: Changes) -> None:
    assert changes.read(address(ETH0, text="192.0.2.3"), OWN) == "192.0.2.3/24 of eth0 is there"
    assert changes.read(address(ETH0, RTM_DELADDR, "192.0.2.3"), OWN) == "192.0.2.3/24 of eth0 is gone"
    assert changes.read(address(9, text="2001:db8::1"), OWN) == "2001:db8::1/24 of interface 9 is there"
    # Before anything is known.
    assert Changes().read(address(ETH0, RTM_DELADDR), OWN)
    assert Changes().read(address(ETH0), OWN)


def test_an_address_that_is_refreshed_is_no_change(changes: Changes) -> None:
    for lifetime in (60, 1800):
        assert not changes.read(address(ETH0, lifetime=lifetime), OWN)
        # Deprecated (0x20): connections that have it go on.
        assert not changes.read(address(ETH0, lifetime=lifetime, flags=0x20), OWN)


def test_an_address_counts_from_when_it_can_be_used(changes: Changes) -> None:
    text = "2001:db8::1"
    assert not changes.read(address(ETH0, text=text, flags=IFA_F_TENTATIVE), OWN)
    assert changes.read(address(ETH0, text=text), OWN)
    assert not changes.read(address(ETH0, text=text), OWN)
    # A duplicate was found.
    for flags in (IFA_F_TENTATIVE, IFA_F_TENTATIVE | IFA_F_DADFAILED):
        assert not changes.read(address(ETH0, text="2001:db8::2", flags=flags), OWN)
    assert not changes.read(address(ETH0, RTM_DELADDR, "2001:db8::2"), OWN)
    assert changes.read(address(ETH0, text="2001:db8::3", flags=IFA_F_TENTATIVE | IFA_F_OPTIMISTIC), OWN)


def test_another_default_route_is_a_change(changes: Changes) -> None:
    assert changes.read(route("192.0.2.1"), OWN) == "there is another default route, by eth0"
    # A router advertisement or a DHCP client sets it again.
    assert not changes.read(route("192.0.2.1", flags=NLM_F_REPLACE), OWN)
    # A new gateway with the same address, and the first one again.
    assert changes.read(route("192.0.2.9", flags=NLM_F_REPLACE), OWN)
    assert changes.read(route("192.0.2.1", flags=NLM_F_REPLACE), OWN)
    # One beside it, of other priority or of the same.
    assert changes.read(route("192.0.2.9", metric=100), OWN)
    assert changes.read(route("192.0.2.8"), OWN)
    assert not changes.read(route("192.0.2.1") + route("192.0.2.9", metric=100) + route("192.0.2.8"), OWN)
    assert changes.read(route("192.0.2.9", RTM_DELROUTE, metric=100, index=9), OWN) == "a default route is gone"
    # A VPN's route for half of all addresses.
    assert changes.read(route("198.51.100.1", bits=1), OWN)
    # A route to somewhere.
    assert not changes.read(route("192.0.2.1", bits=2), OWN)


def test_a_default_route_through_the_tunnel_is_no_change(changes: Changes) -> None:
    for kind in (RTM_NEWROUTE, RTM_DELROUTE):
        assert not changes.read(route("10.0.0.254", kind, index=ETHWS0), OWN)
        # By the bridge there may be another way.
        assert changes.read(route("10.0.0.254", kind, index=BRIDGE), OWN)


def test_so_many_default_routes_are_remembered(changes: Changes) -> None:
    for metric in range(1, ROUTES_MAX + 2):
        assert changes.read(route("192.0.2.1", metric=metric), OWN)
    assert not changes.read(route("192.0.2.1", metric=ROUTES_MAX + 1), OWN)
    assert changes.read(route("192.0.2.1", metric=1), OWN)


def test_what_the_client_does_to_its_own_interface_and_its_bridge_does_not_count(changes: Changes) -> None:
    for index, name, master in ((ETHWS0, OWN, BRIDGE), (BRIDGE, "br0", 0)):
        assert not changes.read(link(index, name, up=False, master=master), OWN)
        assert not changes.read(link(index, name, up=True, master=master), OWN)
    for kind in (RTM_NEWADDR, RTM_DELADDR):
        assert not changes.read(address(ETHWS0, kind, "10.0.0.3"), OWN)
        # Each interface makes one when it begins to run.
        for index in (BRIDGE, ETH0):
            assert not changes.read(address(index, kind, "fe80::1", scope=RT_SCOPE_LINK), OWN)
    # For another client they do.
    assert changes.read(address(ETHWS0), "ethws9")


def test_what_stands_on_its_own_interface_and_its_bridge_comes_up_with_them(changes: Changes) -> None:
    # A VLAN on each, a bridge of that, and one end of a veth pair in it, whose ends stand on each other.
    above = (
        link(10, "ethws0.5", up=False, below=ETHWS0) + link(11, "br0.5", up=False, below=BRIDGE, master=12)
        + link(12, "br5", up=False) + link(13, "veth0", up=False, below=14, master=12)
        + link(14, "veth1", up=False, below=13)
    )  # fmt: skip
    assert not changes.read(above, OWN)
    for index, name, below, master in ((10, "ethws0.5", ETHWS0, 0), (11, "br0.5", BRIDGE, 12), (12, "br5", 0, 0)):
        assert not changes.read(link(index, name, up=True, below=below, master=master), OWN)
    assert not changes.read(address(10), OWN)
    assert changes.read(address(11), OWN)
    # What it stands on is in another network namespace, where indexes are others.
    assert changes.read(link(15, "macvlan0", up=True, below=BRIDGE, elsewhere=True), OWN)


def test_a_change_by_an_uplink_in_the_same_bridge_counts(changes: Changes) -> None:
    """The machine has its address on the bridge of eth0 and ethws0, as with Proxmox or libvirt."""
    assert not changes.read(link(ETH0, "eth0", up=False, master=BRIDGE), OWN)
    assert changes.read(link(ETH0, "eth0", up=True, master=BRIDGE), OWN) == "eth0 has come up"
    assert changes.read(address(BRIDGE, RTM_DELADDR, "10.0.0.1"), OWN) == "10.0.0.1/24 of br0 is gone"
    assert changes.read(address(BRIDGE, text="10.0.0.2"), OWN) == "10.0.0.2/24 of br0 is there"
    assert changes.read(route("10.0.0.254", index=BRIDGE), OWN) == "there is another default route, by br0"


def test_after_lost_messages_only_what_differs_counts(changes: Changes) -> None:
    def again(links: bytes, addresses: bytes) -> list[str]:
        changes.lost()
        assert asked(changes) == RTM_GETLINK
        found = [changes.read(links + done(), OWN)]
        assert asked(changes) == RTM_GETADDR
        found.append(changes.read(addresses + done(), OWN))
        assert asked(changes) == 0
        return found

    assert again(LINKS, ADDRESSES) == ["", ""]
    wlan0 = link(4, "wlan0", up=True, sequence=DUMP_SEQUENCE)
    assert again(LINKS + wlan0, ADDRESSES) == ["wlan0 has come up", ""]
    assert again(LINKS, ADDRESSES) == ["", ""]
    assert again(LINKS + wlan0, ADDRESSES) == ["wlan0 has come up", ""]
    more = address(4, text="192.0.2.7", sequence=DUMP_SEQUENCE)
    assert again(LINKS + wlan0, ADDRESSES + more) == ["", "192.0.2.7/24 of wlan0 is there"]
    assert again(LINKS + wlan0, ADDRESSES) == ["", "192.0.2.7/24 of wlan0 is gone"]
    # The route is not known any more: once more it is news.
    assert changes.read(route("192.0.2.1"), OWN)
    assert again(LINKS, ADDRESSES) == ["", ""]
    assert changes.read(route("192.0.2.1"), OWN)
    assert changes.losses == 7


def test_what_is_told_while_an_answer_comes_is_not_forgotten(changes: Changes) -> None:
    changes.lost()
    # Twice before the request was sent.
    changes.lost()
    assert asked(changes) == RTM_GETLINK
    assert changes.read(link(4, "wlan0", up=True), OWN)
    assert not changes.read(LINKS + done(), OWN)
    # The second time is still to come: everything is asked for again.
    assert asked(changes) == RTM_GETLINK
    assert not changes.read(LINKS + link(4, "wlan0", up=True, sequence=DUMP_SEQUENCE) + done(), OWN)
    assert asked(changes) == RTM_GETADDR
    assert changes.read(address(4), OWN)
    # Once more while an answer comes.
    changes.lost()
    assert not changes.read(ADDRESSES + done(), OWN)
    assert asked(changes) == RTM_GETLINK
    assert not changes.read(LINKS + link(4, "wlan0", up=True, sequence=DUMP_SEQUENCE) + done(), OWN)
    assert asked(changes) == RTM_GETADDR
    assert not changes.read(ADDRESSES + address(4, sequence=DUMP_SEQUENCE) + done(), OWN)
    assert not changes.read(address(4), OWN)


def test_an_answer_that_fails_says_nothing_of_what_is_gone(changes: Changes) -> None:
    changes.lost()
    assert asked(changes) == RTM_GETLINK
    assert not changes.read(done(NLMSG_ERROR), OWN)
    assert asked(changes) == RTM_GETADDR
    assert not changes.read(done(NLMSG_ERROR), OWN)
    assert not changes.read(address(ETH0), OWN)
    assert not changes.read(link(ETH0, "eth0", up=True), OWN)


def test_what_a_bridge_reports_of_its_ports_does_not_count(changes: Changes) -> None:
    assert not changes.read(link(4, "vnet0", up=True, family=socket.AF_BRIDGE), OWN)


def test_other_messages_and_malformed_ones_are_ignored(changes: Changes) -> None:
    assert not changes.read(message(3, b""), OWN)
    assert not changes.read(b"\0" * 16 + address(9), OWN)
    malformed = struct.pack("=BxHiII", 0, 0, 4, 0, 0) + struct.pack("=HH", 3, IFLA_IFNAME)
    assert not changes.read(message(RTM_NEWLINK, malformed), OWN)
    # A message of odd length is followed by padding.
    assert changes.read(message(3, b"odd") + address(9), OWN)


def test_messages_that_are_too_short_are_no_changes(changes: Changes) -> None:
    short = message(RTM_NEWLINK, bytes(15)) + message(RTM_NEWADDR, bytes(7)) + message(RTM_NEWROUTE, bytes(11))
    odd = struct.pack("=BxHiII", 0, 0, 9, 0, 0) + struct.pack("=HHxxxx", 7, IFLA_MASTER)
    assert not changes.read(short + message(RTM_NEWLINK, odd), OWN)
    # An address that is none.
    assert changes.read(message(RTM_NEWADDR, struct.pack("=BBBBI", 2, 24, 0, 0, ETH0)), OWN) == (
        "an address of eth0 is there"
    )


def test_what_concerns_containers_is_far_from_a_connection(changes: Changes) -> None:
    here = "192.0.2.2"
    docker, container = 7, 8
    changes.read(
        link(docker, "docker0", up=False, bridge=True) + link(container, "veth1", up=False, master=docker), OWN
    )
    far = [
        link(container, "veth1", up=True, master=docker),
        address(docker, text="172.17.0.1"),
        address(docker, text="172.17.0.2") + link(docker, "docker0", up=True, bridge=True),
    ]
    for data in far:
        assert changes.read(data, OWN)
        assert not changes.take_near(here)
    # One of several connections is enough: one that goes by the bridge, or of which nothing is known.
    for several, is_near in (((here, here), False), ((here, "172.17.0.2"), True), ((here, ""), True), ((), True)):
        assert changes.read(link(container, "veth1", up=False, master=docker) + far[0], OWN)
        assert changes.take_near(*several) == is_near
    near = [
        far[0] + address(ETH0, text="192.0.2.3"),
        route("192.0.2.9"),
        route("192.0.2.9", RTM_DELROUTE),
        link(ETH0, "eth0", up=False) + link(ETH0, "eth0", up=True),
        address(ETH0, RTM_DELADDR),
    ]
    for data in near:
        changes.read(link(container, "veth1", up=False, master=docker), OWN)
        assert changes.read(data, OWN)
        assert changes.take_near(here)
    # Nothing is known of the way without an address of this machine: after it is gone, or to a proxy here.
    for local in (here, "127.0.0.1", "::1", "", "198.51.100.1"):
        assert changes.read(link(container, "veth1", up=False, master=docker) + far[0], OWN)
        assert changes.take_near(local)
