"""Who uses a bridge: what would go with it if it was removed."""

from __future__ import annotations

import contextlib
import socket

import pytest
from pyroute2 import IPRoute

from etherws.kernel import bridge_use, interfaces
from etherws.kernel.netns import Namespace
from tests.lab.hosts import Host

#: What somebody does with br0, and what the log says of that.
USES = {
    "an address": ("ip addr add 10.0.0.1/24 dev br0", "it has the address 10.0.0.1/24"),
    "an IPv6 address": ("ip addr add 2001:db8::1/64 dev br0", "it has the address 2001:db8::1/64"),
    "a router's own link-local address": ("ip addr add fe80::1/64 dev br0", "it has the address fe80::1/64"),
    "a route": ("ip -6 route add 2001:db8:9::/48 dev br0", "the route 2001:db8:9::/48 goes by it"),
    "a default route": ("ip -6 route add default dev br0", "the route default goes by it"),
    "a port": ("ip link set vnet0 master br0", "vnet0 is in it"),
    "a macvlan": ("ip link add link br0 name mac0 type macvlan", "mac0 is on top of it"),
    "a VLAN": ("ip link add link br0 name br0.5 type vlan id 5", "br0.5 is on top of it"),
    "a VXLAN": ("ip link add vx0 type vxlan id 5 dev br0 dstport 4789", "vx0 is on top of it"),
    "a VRF": ("ip link add vrf0 type vrf table 10", "it is in vrf0"),
}


def made(host: Host, *, autoconfigure: bool = True) -> int:
    """A bridge br0 of ours, up as with a port in it, and an interface vnet0."""
    with host.netlink() as route:
        route.link("add", ifname="vnet0", kind="veth", peer={"ifname": "far"})
    index = interfaces.make_bridge("br0", autoconfigure=autoconfigure)
    assert index is not None
    return index


#: Uses for which kernels often lack the type of interface.
RARE = {"a macvlan", "a VLAN", "a VXLAN", "a VRF"}


@pytest.mark.parametrize("use", [pytest.param(use, marks=[pytest.mark.vm_too] if use in RARE else []) for use in USES])
def test_a_bridge_that_somebody_uses_stays(host: Host, use: str) -> None:
    command, words = USES[use]
    with host.namespace.inside():
        bridge = made(host)
        if use in RARE:
            process = host.run(*command.split())
            if process.ends() != 0:
                pytest.skip(f"this kernel has none: {process.output}")
        else:
            host.command(command)
        if use == "a VRF":
            host.set_link("br0", master=host.links()["vrf0"]["index"])
        assert words in bridge_use.remove_unless_used(bridge)
    assert "br0" in host.links()


def test_what_the_kernel_adds_by_itself_is_no_use(host: Host) -> None:
    with host.namespace.inside():
        bridge = made(host)
        host.command("ip link set vnet0 up")
        host.command("ip link set far up")
        # With IPv6: an address and routes of its own, and groups.
        host.command("ip link set vnet0 master br0")
        host.command("ip link set vnet0 nomaster")
        with host.netlink() as route:
            assert list(route.addr("dump", index=bridge, family=socket.AF_INET6))
        assert bridge_use.remove_unless_used(bridge) == ""
        assert bridge_use.remove_unless_used(bridge) == ""
    assert "br0" not in host.links()


@pytest.mark.vm_too
def test_an_interface_on_top_that_is_in_a_container_counts(host: Host) -> None:
    with host.namespace.inside(), contextlib.closing(Namespace()) as container:
        bridge = made(host)
        if host.run(*["ip", "link", "add", "link", "br0", "name", "mac0", "type", "macvlan"]).ends() != 0:
            pytest.skip("this kernel has no macvlan")
        with host.netlink() as route:
            route.link("set", index=route.link_lookup(ifname="mac0")[0], net_ns_fd=container.fileno())
        with container.netlink() as route:
            route.link("set", index=route.link_lookup(ifname="mac0")[0], state="up")
        assert "another network namespace is on top of it" in bridge_use.remove_unless_used(bridge)


def test_the_log_names_some(host: Host) -> None:
    with host.namespace.inside():
        bridge = made(host)
        for number in range(5):
            host.command(f"ip addr add 10.0.{number}.1/24 dev br0")
        users = bridge_use.remove_unless_used(bridge)
    assert users.endswith("10.0.2.1/24, and 2 more")


def test_a_bridge_that_another_process_removes_at_the_same_moment_is_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host.namespace.inside():
        index = made(host)
        look = bridge_use._users

        def looked(route: IPRoute, bridge: int) -> list[str]:
            users = look(route, bridge)
            host.delete_link("br0")
            return users

        monkeypatch.setattr(bridge_use, "_users", looked)
        assert bridge_use.remove_unless_used(index) == ""
