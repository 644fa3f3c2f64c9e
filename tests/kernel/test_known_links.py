"""Which links a connection goes by, and which are those of containers and virtual machines."""

from __future__ import annotations

import pytest

from etherws.kernel.known_links import KnownLinks, Link

BRIDGE, UPLINK, VLAN, DOCKER, PORT, CONTAINER, TUNNEL, RING, RING_TOO, WIFI = range(1, 11)


def link(name: str, master: int = 0, below: int = 0, *, elsewhere: bool = False, is_bridge: bool = False) -> Link:
    return Link(name, master, below, running=True, elsewhere=elsewhere, is_bridge=is_bridge)


LINKS = KnownLinks(
    {
        BRIDGE: link("br0", is_bridge=True),
        UPLINK: link("eth0", BRIDGE, elsewhere=True),
        VLAN: link("br0.5", below=BRIDGE),
        DOCKER: link("docker0", is_bridge=True),
        PORT: link("veth1", DOCKER, elsewhere=True),
        CONTAINER: link("cali1", elsewhere=True),
        TUNNEL: link("ethws0", BRIDGE),
        RING: link("ring0", below=RING_TOO),
        RING_TOO: link("ring1", below=RING),
        WIFI: link("wlan0"),
    }
)


def test_a_way_has_what_an_interface_stands_on_and_the_ports_of_its_bridge() -> None:
    assert LINKS.way({VLAN}) == {VLAN, BRIDGE, UPLINK, TUNNEL}
    assert LINKS.way({WIFI}) == {WIFI}
    assert LINKS.way({RING}) == {RING, RING_TOO}
    assert LINKS.way({99}) == {99}


def test_what_moves_with_the_clients_interface() -> None:
    assert LINKS.beyond("ethws0") == {TUNNEL}
    assert LINKS.moved_by("ethws0") == {TUNNEL, BRIDGE, VLAN}
    assert LINKS.beyond("gone") == LINKS.moved_by("gone") == set()


@pytest.mark.parametrize("index", [DOCKER, PORT, CONTAINER, 99])
def test_links_of_containers_are_aside(index: int) -> None:
    assert LINKS.is_aside(index, LINKS.way({BRIDGE}))
    # Unless the connection goes by them, as inside of a container.
    assert not LINKS.is_aside(index, {index})


@pytest.mark.parametrize("index", [BRIDGE, UPLINK, WIFI])
def test_other_links_may_be_a_way(index: int) -> None:
    assert not LINKS.is_aside(index, LINKS.way({BRIDGE}))
