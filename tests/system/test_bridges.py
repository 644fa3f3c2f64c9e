"""Bridges that change under a running tunnel, on both sides of it."""

from __future__ import annotations

from tests.lab.frames import BROADCAST, PEER, frame
from tests.lab.hosts import Host


def is_in(host: Host, name: str, bridge: str) -> bool:
    """Whether the interface is in the bridge, and up."""
    found = host.links()
    return bridge in found and found[name].get("master") == found[bridge]["index"] and bool(found[name]["flags"] & 1)


def test_a_tunnel_outlives_a_restart_of_the_network_on_both_sides(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    serving = server.etherws("server", "--foreground", "--bridge", "br7")
    serving.says("listening")
    running = client.etherws("client", "--foreground", "ws://192.0.2.1/")
    running.says("connected")
    # By hand.
    client.bridge("br0", "ethws0")
    for host, bridge, process in ((server, "br7", serving), (client, "br0", running)):
        index = host.links()["ethws0"]["index"]
        host.delete_link(bridge)
        process.says(f"{bridge} was deleted; what etherws had in it joins again as soon as it is there again")
        host.bridge(bridge)
        process.says(f"ethws0 joined {bridge} again")
        assert is_in(host, "ethws0", bridge)
        assert host.links()["ethws0"]["index"] == index
    ends = server.frames("br7"), client.frames("br0")
    ends[0].send(frame(100, to=BROADCAST))
    assert ends[1].receive() == frame(100, to=BROADCAST)
    ends[1].send(frame(1514, to=BROADCAST, source=PEER))
    assert ends[0].receive() == frame(1514, to=BROADCAST, source=PEER)
    assert "lost" not in running.output
    # Out by hand, and no argument about it.
    client.command("ip link set ethws0 nomaster")
    running.says("it stays out; to put it back: ip link set ethws0 up master br0")


def test_the_lans_gateway_stays_over_a_restart_of_the_server(host: Host) -> None:
    """Also a bridge that the client has made; the code is the same."""
    for role in (["server", "--port", "0"], ["client", "ws://127.0.0.1:9/"]):
        running = host.etherws(role[0], "--foreground", "--bridge", "br7", *role[1:])
        running.says("is up")
        if role[0] == "server":
            host.add_address("br7", "10.0.0.1/24")
        before = host.links()["br7"]["index"]
        running.stop()
        if role[0] == "server":
            assert "br7 stays: it has the address 10.0.0.1/24. When nobody needs it any more: ip link del br7" in (
                running.output
            )
        assert host.links()["br7"]["index"] == before
        # It is somebody's bridge now.
        assert "ethws0" not in host.links()
