"""Fixtures of the tests of the kernel's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.hosts import Host


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
