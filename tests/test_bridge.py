"""A bridge that is full: Linux gives it 1,023 ports."""

from __future__ import annotations

from tests.lab import Host
from tests.test_server import Peer, request

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
