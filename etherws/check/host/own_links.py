"""The interfaces of etherws, who has claimed which bridge, and the interface that tunnels go out by.

The functions on links are pure: kernel/link_facts.py has asked the kernel. Read next: check/machine.py; bridges.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import text
from etherws.errors import printable, some_of
from etherws.kernel.link_facts import LinkFacts

#: Bytes: below this, IPv6 does not work (RFC 8200, section 5).
MTU_LEAST = 1280

#: The usual MTU of Ethernet.
MTU_USUAL = 1500

#: How a client claims the way from a bridge to a server (kernel/link_claim.py), as /proc/net/unix shows it.
_CLAIM = re.compile(r"@etherws/([^/\s]{1,15})/([0-9a-f]{32})$")

#: A line of the kernel's log about a loop (Linux, net/bridge/br_fdb.c), with its bridge and port.
_OWN_ADDRESS = re.compile(r"(\S{1,15}): received packet on (\S{1,15}) with own address as source address")

#: Records of the kernel's log that are looked at, the newest; and seconds within which they count.
RECORDS_MAX, RECENT = 5000, 3600.0


def own_links(links: Sequence[LinkFacts]) -> Iterator[Finding]:
    """Each interface of etherws."""
    by_index = {link.index: link for link in links}
    ours = [link for link in links if link.is_ours]
    if not ours:
        words = "none that is called ethws*: nothing runs here, or it has --device"
        yield Finding("interfaces", words, Verdict.NOTE, "etherws status NAME shows what runs", {"interfaces": []})
        return
    names = some_of([link.name for link in ours], 5)
    yield Finding("interfaces", f"of etherws: {names}", data={"interfaces": [link.name for link in ours[:1000]]})
    for link in ours:
        topic, data = f"interface {link.name}", {"up": link.up, "carrier": link.carrier}
        if not link.up:
            yield Finding(topic, "is down: no frame passes", Verdict.FAILED, f"ip link set {link.name} up", data)
        elif not link.carrier:
            yield Finding(
                topic,
                "has no carrier: it is not connected to the other side now",
                Verdict.WARNING,
                "its log says why: journalctl -t etherws, or etherws check URI",
                data,
            )
        yield from _queues(topic, link)
        if link.master is None:
            yield Finding(
                topic,
                "is in no bridge: it connects this machine alone",
                Verdict.NOTE,
                f"for a whole LAN: --bridge br0, or ip link set {link.name} master br0",
                {"bridge": None},
            )
        elif link.master in by_index and by_index[link.master].bridge is None:
            yield Finding(
                topic,
                f"is in {by_index[link.master].name}, which is no bridge",
                Verdict.WARNING,
                f"ip link set {link.name} nomaster",
            )


def _queues(topic: str, link: LinkFacts) -> Iterator[Finding]:
    """Whether a persistent TAP can have several connections, and who else may open it."""
    if link.tap is None or not link.tap.persistent:
        return
    anew = f"stop etherws; ip link del {link.name}; ip tuntap add dev {link.name} mode tap multi_queue user root"
    data = {"multi_queue": link.tap.multi_queue}
    if not link.tap.multi_queue:
        words = "is persistent and has one queue: with --connections there is one connection all the same"
        yield Finding(topic, words, Verdict.NOTE, f"if you want several: {anew}", data)
    elif not link.tap.owned:
        words = "has several queues and belongs to no user: each user of this machine can open one, and gets frames"
        yield Finding(topic, words, Verdict.WARNING, anew, data)


def same_addresses(links: Sequence[LinkFacts]) -> Iterator[Finding]:
    """Interfaces that have the Ethernet address of one of ours. A bridge may have that of its port."""
    ours = {link.address: link for link in links if link.is_ours}
    for link in links:
        own = ours.get(link.address)
        if own is None or link is own or link.index == own.master or link.master == own.index:
            continue
        yield Finding(
            f"interface {own.name}",
            f"has the same Ethernet address as {link.name}, {link.address}: switches send frames to one of them",
            Verdict.WARNING if link.master != own.master else Verdict.FAILED,
            "leave --mac out, or give another address; was this machine copied with its state directory?",
            {"address": link.address, "other": link.name},
        )


def claims(links: Sequence[LinkFacts], sockets: Path = Path("/proc/thread-self/net/unix")) -> Iterator[Finding]:
    """Clients that link the same bridge to several servers: a loop, if these are in one LAN. A client claims all
    servers that it is given, so two may be of one client."""
    by_bridge: dict[str, set[str]] = defaultdict(set)
    for line in text(sockets).splitlines():
        if found := _CLAIM.search(line):
            by_bridge[found[1]].add(found[2])
    for name, servers in sorted(by_bridge.items()):
        bridge = next((link.bridge for link in links if link.name == name), None)
        taps = [link for link in links if link.is_ours and bridge and _is_in(link, name, links)]
        if bridge is None or bridge.stp or len(servers) < 2 or len(taps) < 2:
            continue
        yield Finding(
            f"bridge {printable(name)}",
            f"{len(taps)} interfaces of etherws ({some_of([link.name for link in taps], 5)}) link it to"
            f" {len(servers)} servers: a loop, if these are in the same LAN",
            Verdict.WARNING,
            f"stop one of them, or: ip link set {name} type bridge stp_state 1",
            {"servers": len(servers), "interfaces": [link.name for link in taps[:1000]]},
        )


def _is_in(link: LinkFacts, bridge: str, links: Sequence[LinkFacts]) -> bool:
    return any(other.index == link.master and other.name == bridge for other in links)


def loops(links: Sequence[LinkFacts], records: Iterable[str], uptime: float) -> Iterator[Finding]:
    """What the kernel has logged of frames that came back to their bridge. `records` are lines of /dev/kmsg, `uptime`
    is in seconds."""
    bridges = {link.name for link in links if link.bridge is not None}
    found: dict[tuple[str, str], int] = defaultdict(int)
    for record in records:
        head, _, words = record.partition(";")
        match = _OWN_ADDRESS.search(words)
        if match and match[1] in bridges and _recent(head, uptime):
            found[match[1], match[2]] += 1
    for (bridge, port), count in sorted(found.items()):
        yield Finding(
            f"bridge {bridge}",
            f"there is a loop: its own frames came back by {port}, {count} times in the kernel's log of the last hour",
            Verdict.FAILED,
            f"find the second way between the two LANs, such as a cable or another tunnel; until then: ip link set"
            f" {port} down",
            {"port": port, "times": count},
        )


def _recent(head: str, uptime: float) -> bool:
    try:
        # Microseconds since the start (Documentation/ABI/testing/dev-kmsg).
        return int(head.split(",")[2]) / 1e6 > uptime - RECENT
    except (IndexError, ValueError):
        return False


def outgoing(links: Sequence[LinkFacts], folder: Path = Path("/proc/thread-self/net")) -> Iterator[Finding]:
    """The MTU of the interface of the default route, of IPv4 if that has one."""
    names = [fields[0] for fields in _rows(folder / "route") if fields[1:2] == ["00000000"]]
    names += [fields[-1] for fields in _rows(folder / "ipv6_route") if fields[:2] == ["0" * 32, "00"]]
    # The kernel's own route for IPv6 that leads nowhere is by lo.
    by_name = {link.name: link for link in links if not link.loopback}
    link = next((by_name[name] for name in names if name in by_name), None)
    if link is None:
        yield Finding("default route", "there is none", Verdict.NOTE, "ip route; ip -6 route", {"interface": None})
        return
    data = {"interface": link.name, "mtu": link.mtu}
    found = f"by {link.name}, MTU {link.mtu}"
    if link.mtu < MTU_LEAST:
        hint = f"ip link set {link.name} mtu {MTU_USUAL}, if the network carries that; else IPv6 does not work there"
        yield Finding("default route", f"{found}: less than {MTU_LEAST}", Verdict.WARNING, hint, data)
    elif link.is_ours:
        hint = "the tunnel needs another way to its server: take the default route by the tunnel away, or its metric up"
        yield Finding("default route", f"{found}: through the tunnel itself", Verdict.WARNING, hint, data)
    else:
        yield Finding("default route", found, data=data)


def _rows(path: Path) -> list[list[str]]:
    return [fields for fields in map(str.split, text(path).splitlines()) if fields]
