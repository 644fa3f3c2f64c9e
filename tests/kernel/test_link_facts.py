"""Interfaces as the kernel describes them."""

from __future__ import annotations

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from etherws.kernel.link_facts import BridgeFacts, PortFacts, TapFacts, _bridge, links
from tests.lab.hosts import Host


def test_interfaces_of_each_kind(host: Host) -> None:
    host.command("ip link add br0 type bridge stp_state 1 forward_delay 400")
    host.command("ip link set br0 alias made-here")
    host.command("ip tuntap add ethws0 mode tap")
    host.command("ip tuntap add ethws1 mode tun")
    host.command("ip tuntap add ethws2 mode tap multi_queue user root")
    host.command("ip link add v type veth peer name w")
    host.command("ip link set v mtu 1400 master br0")
    host.command("bridge link set dev v isolated on")
    with host.namespace.inside():
        found = {link.name: link for link in links()}
    assert found["br0"].bridge == BridgeFacts(stp=True, forward_delay=4.0, ageing=300.0, vlan_filtering=False)
    assert (found["br0"].alias, found["br0"].up) == ("made-here", False)
    assert found["v"].port == PortFacts("disabled", isolated=True)
    assert (found["v"].mtu, found["v"].master, found["v"].kind) == (1400, found["br0"].index, "veth")
    assert (found["ethws0"].kind, found["ethws0"].is_ours) == ("tap", True)
    assert [found[name].tap for name in ("ethws0", "ethws1", "ethws2", "lo")] == [
        TapFacts(persistent=True, multi_queue=False, owned=False),
        None,
        TapFacts(persistent=True, multi_queue=True, owned=True),
        None,
    ]
    assert (found["ethws1"].kind, found["ethws1"].is_ours) == ("tun", False)
    assert found["lo"].loopback


def test_a_bridge_of_802_1ad() -> None:
    """This kernel may have none."""
    data = ifinfmsg.ifinfo.bridge_data()
    data["attrs"] = [("IFLA_BR_VLAN_FILTERING", 1), ("IFLA_BR_VLAN_PROTOCOL", 0x88A8)]
    data.encode()
    read = ifinfmsg.ifinfo.bridge_data(data.data)
    read.decode()
    found = _bridge(read)
    assert (found.vlan_filtering, found.provider) == (True, True)
