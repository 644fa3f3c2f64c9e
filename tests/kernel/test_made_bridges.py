"""Bridges that etherws makes, and their own addresses."""

from __future__ import annotations

from etherws.kernel.made_bridges import REMAKE_DELAY, MadeBridges
from tests.lab.hosts import Host

ADDRESS = "02:ee:00:00:00:05"


def test_a_bridge_has_its_address_when_it_is_made_and_made_again(host: Host) -> None:
    with host.namespace.inside():
        made = MadeBridges(lambda name: ADDRESS)
        assert made.make("br0", autoconfigure=True)
        assert host.links()["br0"].get("address") == ADDRESS
        host.delete_link("br0")
        made.make_again("br0", REMAKE_DELAY)
        assert host.links()["br0"].get("address") == ADDRESS
        made.remove()


def test_a_bridge_of_somebody_else_is_left_alone(host: Host) -> None:
    host.bridge("br0")
    before = host.links()["br0"].get("address")
    with host.namespace.inside():
        assert not MadeBridges(lambda name: ADDRESS).make("br0", autoconfigure=True)
    assert host.links()["br0"].get("address") == before
