"""Which machines a bridge has learned behind a port."""

from __future__ import annotations

import pytest

from etherws.kernel import behind_port
from etherws.kernel.behind_port import addresses_behind
from tests.lab.hosts import Host


def test_what_a_bridge_has_learned_behind_a_port(host: Host) -> None:
    with host.netlink() as route:
        for name, peer in (("a", "b"), ("c", "d")):
            route.link("add", ifname=name, kind="veth", peer={"ifname": peer})
    host.bridge("br0", "a", "c")
    index = {name: link["index"] for name, link in host.links().items()}
    with host.netlink() as route:
        # More than one recv() takes: each entry has some 70 bytes.
        for number in range(1200):
            address = f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"
            route.fdb("append", ifindex=index["a"], lladdr=address, state=0x40, flags=0x04)
        route.fdb("append", ifindex=index["c"], lladdr="02:00:00:00:ff:01", state=0x40, flags=0x04)
        # An administrator's: no machine is there.
        route.fdb("append", ifindex=index["c"], lladdr="02:00:00:00:ff:02", state=0x80, flags=0x04)
    with host.namespace.inside():
        found, more = addresses_behind(index["a"], 3)
        assert (found, more) == (["02:00:00:00:00:00", "02:00:00:00:00:01", "02:00:00:00:00:02"], 1197)
        assert addresses_behind(index["c"], 64) == (["02:00:00:00:ff:01"], 0)
        for none in (index["b"], index["br0"], index["lo"], 4711):
            assert addresses_behind(none, 64) == ([], 0)


def test_an_error_of_the_kernel_is_raised(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.netlink() as route:
        route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
    host.bridge("br0", "a")
    index = host.links()["a"]["index"]
    monkeypatch.setattr(behind_port, "RTM_GETNEIGH", 999)
    with host.namespace.inside(), pytest.raises(OSError, match="not supported"):
        addresses_behind(index, 64)
