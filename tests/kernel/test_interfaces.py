"""The server's bridge: full, and as ports come and go. Linux gives it 1,023."""

from __future__ import annotations

import contextlib

import pytest
from pyroute2 import IPRoute

from etherws.errors import DeviceError
from etherws.kernel import bridge_use, interfaces
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host
from tests.lab.peer import Peer, request

#: Linux, net/bridge/br_private.h, BR_MAX_PORTS, less the number 0.
PORTS_MAX = 1023


def test_a_client_too_many_for_the_bridge_gets_503_and_the_log_says_why(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--bridge", "br0")
    server.says("listening")
    with host.netlink() as route:
        bridge = route.link_lookup(ifname="br0")[0]
        for number in range((PORTS_MAX - 1) // 2 + 1):
            # Both ends of a pair are ports.
            route.link("add", ifname=f"a{number}", kind="veth", peer={"ifname": f"b{number}"})
        ports = [
            link["index"] for link in route.link("dump") if link.get("ifname")[0] in "ab" and link["index"] != bridge
        ]
        for port in ports[: PORTS_MAX - 1]:
            route.link("set", index=port, master=bridge)
    Peer(host).upgraded()
    peer = Peer(host)
    peer.say(request())
    assert peer.head().startswith(b"HTTP/1.1 503 Service Unavailable")
    assert "a Linux bridge has 1,023 ports at most" in server.says("was refused: cannot put ethws1 into br0")
    assert "ethws1" not in host.links()


@pytest.mark.parametrize("options", [[], ["--bridge", "br0"]], ids=["its owner's", "ours"])
def test_the_bridge_keeps_its_address_as_clients_come_and_go(host: Host, options: list[str]) -> None:
    server = host.etherws("server", "--foreground", *options)
    server.says("listening")
    if not options:
        # Hardly any that the kernel makes up is above it.
        host.set_link("ethws0", address="fa:00:00:00:00:01")
        host.bridge("br0", "ethws0")
    peers = [Peer(host).upgraded()]
    address = host.links()["br0"].get("address")
    for at in range(1, 10):
        peers.append(Peer(host).upgraded())
        server.says(f"joined on ethws{at}")
        assert host.links()["br0"].get("address") == address
    for at, peer in enumerate(peers):
        peer.close()
        server.says(f"left ethws{at}")
        assert host.links()["br0"].get("address") == address


def test_a_bridge_that_somebody_made_in_place_of_ours_stays(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--bridge", "br0")
    server.says("listening")
    host.delete_link("br0")
    host.bridge("br0")
    server.stop()
    assert "br0" in host.links()


def test_our_bridge_goes_whatever_its_name_is_now(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--bridge", "br0")
    server.says("listening")
    host.set_link("br0", ifname="br9")
    server.stop()
    assert set(host.links()) == {"lo"}


def test_what_routers_advertise_is_believed_or_not(host: Host) -> None:
    with host.namespace.inside():
        made = interfaces.make_bridge("br0", autoconfigure=False)
        assert made == interfaces.index_of("br0")
        assert not interfaces.accepts_router_advertisements("br0")
        interfaces.make_bridge("br1")
        assert interfaces.accepts_router_advertisements("br1")
        assert not interfaces.accepts_router_advertisements("none")
        assert interfaces.make_bridge("br0") is None
        assert bridge_use.remove_unless_used(made) == ""
        assert bridge_use.remove_unless_used(made) == ""
        with pytest.raises(DeviceError, match="cannot find interface br0"):
            interfaces.index_of("br0")


def test_a_bridge_that_another_process_makes_at_the_same_moment_is_used(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.bridge("br0")
    # It was not there yet when this process looked.
    monkeypatch.setattr(IPRoute, "link_lookup", lambda *_, **__: [], raising=False)
    with host.namespace.inside():
        assert interfaces.make_bridge("br0") is None


def test_an_interface_that_is_no_bridge_is_called_that(host: Host) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("mine")) as tap, pytest.raises(DeviceError) as caught:
        interfaces.join(tap.index, "lo")
    words = "cannot put mine into lo: Operation not supported; it is no bridge; name one by --bridge, or a new name"
    assert words in str(caught.value)
