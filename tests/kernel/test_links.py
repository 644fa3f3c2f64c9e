"""One interface, asked and changed by one message of netlink each."""

from __future__ import annotations

import errno
import re

import pytest

from etherws.kernel import links
from tests.lab.hosts import Host


def test_what_the_kernel_says_of_an_interface(host: Host) -> None:
    host.bridge("br0")
    indexes = {name: link["index"] for name, link in host.links().items()}
    with host.namespace.inside():
        assert links.get("lo") == links.get(indexes["lo"]) == (1, "lo", 65536, True, None, "00:00:00:00:00:00", None)
        found = links.get(indexes["br0"])
    assert (found.name, found.mtu, found.up, found.master) == ("br0", 1500, True, None)
    assert re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", str(found.address))


def test_what_is_changed_and_what_is_left(host: Host) -> None:
    host.bridge("br0")
    with host.netlink() as route:
        route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
    indexes = {name: link["index"] for name, link in host.links().items()}
    with host.namespace.inside():
        before = links.get(indexes["a"])
        assert not before.up
        links.change(indexes["a"])
        assert links.get(indexes["a"]) == before
        links.change(indexes["a"], mtu=1400, master=indexes["br0"], address="fe:00:00:00:00:01")
        assert links.get(indexes["a"]) == (indexes["a"], "a", 1400, False, indexes["br0"], "fe:00:00:00:00:01", False)
        # Nothing is said about its state or its MTU, so both stay.
        links.change(indexes["a"], up=True)
        assert links.get(indexes["a"]) == (indexes["a"], "a", 1400, True, indexes["br0"], "fe:00:00:00:00:01", False)
        links.isolate(indexes["a"], True)
        assert links.get("a").isolated
        links.isolate(indexes["a"], False)
        links.change(indexes["a"], up=False, master=0)
        found = links.get("a")
        assert (found.up, found.master, found.isolated) == (False, None, None)


def test_who_may_be_gone_is_found_or_not(host: Host) -> None:
    with host.namespace.inside():
        assert links.find("lo") == links.find(1) == links.get(1)
        assert links.find("none") is links.find(4711) is links.find(0) is None
        with pytest.raises(OSError, match="Numerical result out of range"):
            links.find("a" * 200)


def test_the_kernels_errors_are_raised(host: Host) -> None:
    with host.namespace.inside():
        with pytest.raises(OSError, match="No such device"):
            links.get(4711)
        with pytest.raises(OSError, match="Invalid argument"):
            links.change(1, mtu=-1 & 0xFFFFFFFF)


def test_many_changes_go_in_one_message_and_each_has_its_own_error(host: Host) -> None:
    host.bridge("br0")
    with host.netlink() as route:
        route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
    indexes = {name: link["index"] for name, link in host.links().items()}
    index = indexes["a"]
    with host.namespace.inside():
        assert links.send_all([]) == []
        wrong, right = links.change_request(index, mtu=-1 & 0xFFFFFFFF), links.change_request(index, mtu=1400)
        up = links.change_request(index, up=True, master=indexes["br0"], alias="a note")
        errors = links.send_all([wrong, right, wrong, up])
        assert [error and error.errno for error in errors] == [errno.EINVAL, None, errno.EINVAL, None]
        found = links.get(index)
        assert (found.mtu, found.up, found.master, links.alias(index)) == (1400, True, indexes["br0"], "a note")
        assert [error and error.errno for error in links.send_all([up, wrong])] == [None, errno.EINVAL]
        assert (links.mtu(index), links.name(index), links.name(4711)) == (1400, "a", "")
        assert (links.number("a"), links.number(index), links.number("none"), links.number(4711)) == (
            *(index, index, None, None),
        )


def test_interfaces_are_deleted_together_and_nothing_else(host: Host) -> None:
    with host.netlink() as route:
        for name in "abc":
            route.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}1"})
    indexes = {name: link["index"] for name, link in host.links().items()}
    with host.namespace.inside(), links.request_socket() as sock:
        # One of them is gone already.
        links.delete([indexes["a"], 4711, indexes["c"]], sock)
        assert set(host.links()) == {"lo", "b", "b1"}
        links.delete([4711], sock)
        assert set(host.links()) == {"lo", "b", "b1"}
