"""Bridges as the doctor sees them: what passes no frame, and what only passes some."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.host.bridges import BRIDGES_MAX, bridges
from etherws.kernel.link_facts import BridgeFacts, LinkFacts, PortFacts
from tests.lab.hosts import Host

PLAIN = BridgeFacts(stp=False, forward_delay=15, ageing=300, vlan_filtering=False)
FORWARDING = PortFacts("forwarding", isolated=False)
BRIDGE = LinkFacts(1, "br0", "bridge", bridge=PLAIN)
OURS = LinkFacts(2, "ethws0", "tap", master=1, port=FORWARDING)
CARD = LinkFacts(3, "eth0", master=1, port=FORWARDING)


def bad(*links: LinkFacts) -> list[Finding]:
    """The findings that are worse than a note."""
    return [each for each in bridges(links) if each.verdict in (Verdict.WARNING, Verdict.FAILED)]


def the_one(*links: LinkFacts) -> Finding:
    """The one finding that is worse than a note."""
    found = bad(*links)
    assert len(found) == 1, found
    return found[0]


def test_a_bridge_that_is_all_right() -> None:
    (found,) = bridges([BRIDGE, OURS, CARD])
    assert (found.topic, found.verdict) == ("bridge br0", Verdict.OK)
    assert found.found == "up, MTU 1500, STP off, VLAN filtering off, ports: ethws0, eth0"
    assert found.data["ports"] == ["ethws0", "eth0"]


def test_no_bridge() -> None:
    (found,) = bridges([CARD])
    assert (found.found, found.verdict) == ("there is none", Verdict.NOTE)


def test_a_bridge_of_others_is_described_alone() -> None:
    (found,) = bridges([replace(BRIDGE, up=False), replace(CARD, up=False)])
    assert found.verdict is Verdict.NOTE
    assert "down" in found.found


def test_a_bridge_that_is_down() -> None:
    found = the_one(replace(BRIDGE, up=False), OURS, CARD)
    assert (found.verdict, found.hint) == (Verdict.FAILED, "ip link set br0 up")


def test_a_bridge_without_a_lan_names_the_other_one() -> None:
    other = LinkFacts(4, "br1", "bridge", bridge=PLAIN)
    found = the_one(BRIDGE, OURS, other, replace(CARD, master=4))
    assert "no LAN behind it" in found.found
    assert "br1 has other interfaces: is that the LAN?" in found.hint


@pytest.mark.parametrize(
    ("change", "verdict", "words", "hint"),
    [
        ({"up": False}, Verdict.FAILED, "eth0 is down", "ip link set eth0 up"),
        ({"carrier": False}, Verdict.WARNING, "eth0 has no carrier", "cable"),
        ({"mtu": 1400}, Verdict.WARNING, "MTUs of its ports differ (ethws0 1500, eth0 1400)", "ethws0 mtu 1400"),
        ({"port": PortFacts("blocking", False)}, Verdict.WARNING, "eth0 is blocking", "second way"),
        ({"port": PortFacts("listening", False)}, Verdict.WARNING, "eth0 is listening", "wait 30 s"),
        ({"port": PortFacts("disabled", False)}, Verdict.FAILED, "eth0 is disabled", "state 3"),
    ],
)
def test_a_port_that_does_not_pass_frames(change: dict[str, object], verdict: Verdict, words: str, hint: str) -> None:
    found = the_one(BRIDGE, OURS, replace(CARD, **change))  # type: ignore[arg-type]
    assert found.verdict is verdict
    assert words in found.found
    assert hint in found.hint


def test_all_ports_are_isolated() -> None:
    isolated = PortFacts("forwarding", isolated=True)
    assert not bad(BRIDGE, replace(OURS, port=isolated), CARD)
    found = the_one(BRIDGE, replace(OURS, port=isolated), replace(CARD, port=isolated))
    assert "all its ports are isolated" in found.found
    assert found.hint == "bridge link set dev eth0 isolated off"


def test_spanning_tree_delays() -> None:
    found = list(bridges([replace(BRIDGE, bridge=replace(PLAIN, stp=True)), OURS, CARD]))
    assert [each.verdict for each in found] == [Verdict.OK, Verdict.NOTE]
    assert "waits 30 s" in found[1].found


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "words"),
    [
        (1, 10, Verdict.FAILED, "are in VLAN 1, those of the other ports in 10"),
        (None, 1, Verdict.FAILED, "are in VLAN none"),
        (10, 10, Verdict.NOTE, "are in VLAN 10"),
    ],
)
def test_vlans(ours: int | None, theirs: int, verdict: Verdict, words: str) -> None:
    bridge = replace(BRIDGE, bridge=replace(PLAIN, vlan_filtering=True))
    ports = [replace(OURS, port=replace(FORWARDING, pvid=ours)), replace(CARD, port=replace(FORWARDING, pvid=theirs))]
    found = list(bridges([bridge, *ports]))[-1]
    assert found.verdict is verdict
    assert words in found.found


def test_very_many_bridges() -> None:
    many = [LinkFacts(number, f"b{number}", "bridge", bridge=PLAIN) for number in range(10, 200)]
    found = list(bridges([*many, BRIDGE, OURS, CARD]))
    assert found[0].topic == "bridge br0"
    assert found[-1].found == f"{191 - BRIDGES_MAX} more were not looked at"


@pytest.mark.vm
def test_a_real_bridge_with_vlans(host: Host) -> None:
    from etherws.kernel.link_facts import links

    host.command("ip link add br0 type bridge vlan_filtering 1")
    host.command("ip link add eth9 type veth peer name far")
    host.command("ip tuntap add ethws0 mode tap")
    for name in ("ethws0", "eth9"):
        host.command(f"ip link set {name} master br0")
    host.command("bridge vlan add dev eth9 vid 10 pvid untagged")
    with host.namespace.inside():
        found = [each for each in bridges(links()) if "VLAN 1, those of the other ports in 10" in each.found]
    assert found[0].verdict is Verdict.FAILED
