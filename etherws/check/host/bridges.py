"""The bridges, and what is in them: up, spanning tree, MTU, VLAN filtering, isolation, and the ports of etherws.

Pure: kernel/link_facts.py has asked the kernel. A bridge without an interface of etherws is only described: it may be
as its owner wants it. Read next: check/machine.py; own_links.py, the interfaces themselves.
Source: Linux, Documentation/networking/bridge.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from etherws.check.findings import Finding, Verdict
from etherws.errors import some_of
from etherws.kernel.link_facts import BridgeFacts, LinkFacts

#: Names in one line.
NAMED = 5

#: Bridges that are described; a hypervisor may have hundreds.
BRIDGES_MAX = 50


def bridges(links: Sequence[LinkFacts]) -> Iterator[Finding]:
    """Look at each bridge."""
    found = [link for link in links if link.bridge is not None]
    if not found:
        yield Finding("bridges", "there is none", Verdict.NOTE, "etherws makes one with --bridge NAME", {"bridges": []})
    # Those with something of etherws first.
    ours = {link.master for link in links if link.is_ours}
    found.sort(key=lambda bridge: (bridge.index not in ours, bridge.index))
    for bridge in found[:BRIDGES_MAX]:
        members = [link for link in links if link.master == bridge.index]
        yield from _bridge(bridge, members, links)
    if len(found) > BRIDGES_MAX:
        yield Finding("bridges", f"{len(found) - BRIDGES_MAX} more were not looked at", Verdict.SKIPPED)


def _bridge(bridge: LinkFacts, members: Sequence[LinkFacts], links: Sequence[LinkFacts]) -> Iterator[Finding]:
    assert bridge.bridge is not None
    ours, others = [link for link in members if link.is_ours], [link for link in members if not link.is_ours]
    topic = f"bridge {bridge.name}"
    stp = "on" if bridge.bridge.stp else "off"
    yield Finding(
        topic,
        f"{'up' if bridge.up else 'down'}, MTU {bridge.mtu}, STP {stp}, VLAN filtering"
        f" {'on' if bridge.bridge.vlan_filtering else 'off'}, ports: {_names(members)}",
        Verdict.OK if ours else Verdict.NOTE,
        ""
        if ours
        else "no interface called ethws* is in it; unless --device has named one otherwise, --bridge puts one there",
        {
            "bridge": bridge.name,
            "up": bridge.up,
            "mtu": bridge.mtu,
            "stp": bridge.bridge.stp,
            "forward_delay": bridge.bridge.forward_delay,
            "vlan_filtering": bridge.bridge.vlan_filtering,
            "ports": [link.name for link in members[:1000]],
        },
    )
    if not ours:
        return
    if not bridge.up:
        yield Finding(
            topic, "is down: it passes no frame", Verdict.FAILED, f"ip link set {bridge.name} up", {"up": False}
        )
    yield from _members(topic, bridge, ours, others, links)
    yield from _mtus(topic, bridge, members)
    yield from _settings(topic, bridge, bridge.bridge)
    if bridge.bridge.vlan_filtering:
        yield from _vlans(topic, bridge, ours, others)


def _members(
    topic: str,
    bridge: LinkFacts,
    ours: Sequence[LinkFacts],
    others: Sequence[LinkFacts],
    links: Sequence[LinkFacts],
) -> Iterator[Finding]:
    """Whether a frame from the tunnel has anywhere to go."""
    if not others:
        full = [link.name for link in links if link.bridge and link.index != bridge.index and _has_card(link, links)]
        where = f"; {_listed(full)} has other interfaces: is that the LAN?" if full else ""
        yield Finding(
            topic,
            f"only etherws is in it ({_names(ours)}): clients reach each other and this machine, and no LAN behind it",
            Verdict.WARNING,
            f"ip link set dev INTERFACE master {bridge.name} puts the LAN's interface into it{where}",
            {"others": full},
        )
    for link in others:
        if not link.up or not link.carrier:
            mend = f"ip link set {link.name} up" if not link.up else "look at its cable, or at what is at its other end"
            verdict = Verdict.WARNING if link.up or len(others) > 1 else Verdict.FAILED
            yield Finding(
                topic,
                f"its port {link.name} {'has no carrier' if link.up else 'is down'}: nothing passes there",
                verdict,
                mend,
                {"port": link.name, "up": link.up, "carrier": link.carrier},
            )
    ports = [link for link in (*ours, *others) if link.port is not None]
    isolated = [link for link in ports if link.port and link.port.isolated]
    if len(ports) > 1 and len(isolated) == len(ports):
        yield Finding(
            topic,
            "all its ports are isolated: it passes nothing from one to another",
            Verdict.FAILED,
            f"bridge link set dev {(others or ours)[0].name} isolated off",
            {"isolated": [link.name for link in isolated]},
        )
    for link in ports:
        if link.port and bridge.up and link.up and link.carrier and link.port.state != "forwarding":
            yield _not_forwarding(topic, bridge, link, link.port.state)


def _not_forwarding(topic: str, bridge: LinkFacts, link: LinkFacts, state: str) -> Finding:
    data = {"port": link.name, "state": state}
    found = f"its port {link.name} is {state}: it passes no frame"
    if state in ("listening", "learning"):
        delay = 2 * bridge.bridge.forward_delay if bridge.bridge else 30
        return Finding(topic, f"{found} yet", Verdict.WARNING, f"wait {delay:.0f} s after it came up", data)
    if state == "blocking":
        hint = "spanning tree has found a second way to the same LAN, and has closed this one; that is its task"
        return Finding(topic, found, Verdict.WARNING, hint, data)
    return Finding(topic, found, Verdict.FAILED, f"bridge link set dev {link.name} state 3", data)


def _mtus(topic: str, bridge: LinkFacts, members: Sequence[LinkFacts]) -> Iterator[Finding]:
    mtus = {link.name: link.mtu for link in members}
    if len(set(mtus.values())) < 2:
        return
    least = min(mtus.values())
    some = some_of([f"{name} {mtu}" for name, mtu in mtus.items()], NAMED)
    yield Finding(
        topic,
        f"the MTUs of its ports differ ({some}): it drops frames that are larger than the port they go to",
        Verdict.WARNING,
        f"ip link set {max(mtus, key=lambda name: mtus[name])} mtu {least}, or --mtu, so that all are the same",
        {"mtus": dict(list(mtus.items())[:1000])},
    )


def _settings(topic: str, bridge: LinkFacts, facts: BridgeFacts) -> Iterator[Finding]:
    if facts.stp and facts.forward_delay >= 2:
        yield Finding(
            topic,
            f"STP is on: a new client waits {2 * facts.forward_delay:.0f} s until its frames pass",
            Verdict.NOTE,
            f"if there is one way alone to this LAN: ip link set {bridge.name} type bridge stp_state 0",
            {"forward_delay": facts.forward_delay},
        )


def _vlans(topic: str, bridge: LinkFacts, ours: Sequence[LinkFacts], others: Sequence[LinkFacts]) -> Iterator[Finding]:
    """Whether untagged frames of ours and of the others are in the same VLAN."""
    own = {link.port.pvid for link in ours if link.port}
    theirs = {link.port.pvid for link in others if link.port}
    data = {"ours": sorted(map(str, own)), "others": sorted(map(str, theirs))}
    if others and not own & theirs - {None}:
        yield Finding(
            topic,
            f"VLAN filtering is on: untagged frames of etherws are in VLAN {_numbers(own)}, those of the other ports"
            f" in {_numbers(theirs)}: none passes between them",
            Verdict.FAILED,
            f"bridge vlan add dev {ours[0].name} vid {_numbers(theirs - {None}) or 'NUMBER'} pvid untagged",
            data,
        )
    else:
        yield Finding(
            topic,
            f"VLAN filtering is on: untagged frames of etherws are in VLAN {_numbers(own)}, other VLANs do not pass",
            Verdict.NOTE,
            "bridge vlan show; another one passes after: bridge vlan add dev ethws0 vid NUMBER",
            data,
        )


def _numbers(vlans: Iterable[int | None]) -> str:
    return _listed([str(vlan or "none") for vlan in sorted(vlans, key=lambda vlan: vlan or 0)])


def _has_card(bridge: LinkFacts, links: Sequence[LinkFacts]) -> bool:
    return any(link.master == bridge.index and not link.is_ours for link in links)


def _names(links: Sequence[LinkFacts]) -> str:
    return _listed([link.name for link in links]) or "none"


def _listed(names: Sequence[str]) -> str:
    return some_of(names, NAMED)
