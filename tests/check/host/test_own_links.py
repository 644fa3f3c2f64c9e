"""The interfaces of etherws as the doctor sees them; loops in the kernel's log; the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from etherws.check.findings import Verdict
from etherws.check.host.own_links import claims, loops, outgoing, own_links, same_addresses
from etherws.kernel.link_facts import BridgeFacts, LinkFacts, TapFacts

BRIDGE = LinkFacts(1, "br0", "bridge", address="02::1", bridge=BridgeFacts(False, 15, 300, False))
OURS = LinkFacts(2, "ethws0", "tap", address="02::2", master=1)
SECOND = LinkFacts(4, "ethws1", "tap", address="02::4", master=1)
CARD = LinkFacts(3, "eth0", address="02::3")


def test_none() -> None:
    (found,) = own_links([CARD, LinkFacts(9, "ethws9", "tun"), LinkFacts(8, "tap0", "tap")])
    assert found.verdict is Verdict.NOTE
    assert found.data["interfaces"] == []


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        ({}, None, ""),
        ({"up": False, "carrier": False}, Verdict.FAILED, "is down"),
        ({"carrier": False}, Verdict.WARNING, "not connected"),
        ({"master": None}, Verdict.NOTE, "in no bridge"),
        ({"master": 3}, Verdict.WARNING, "is in eth0, which is no bridge"),
        ({"master": 77}, None, ""),
        ({"tap": TapFacts(False, False, False)}, None, ""),
        ({"tap": TapFacts(True, False, False)}, Verdict.NOTE, "persistent and has one queue"),
        ({"tap": TapFacts(True, True, True)}, None, ""),
        ({"tap": TapFacts(True, True, False)}, Verdict.WARNING, "each user of this machine can open one"),
    ],
)
def test_one(change: dict[str, object], verdict: Verdict | None, words: str) -> None:
    found = list(own_links([BRIDGE, replace(OURS, **change), CARD]))  # type: ignore[arg-type]
    assert found[0].found == "of etherws: ethws0"
    assert [each.verdict for each in found[1:]] == [verdict] * (verdict is not None)
    assert all(words in each.found for each in found[1:])


def test_the_same_address_twice() -> None:
    assert not list(same_addresses([replace(BRIDGE, address="02::2"), OURS, CARD]))
    (found,) = same_addresses([BRIDGE, OURS, replace(CARD, address="02::2")])
    assert (found.verdict, found.data["other"]) == (Verdict.WARNING, "eth0")
    (found,) = same_addresses([BRIDGE, OURS, replace(CARD, address="02::2", master=1)])
    assert found.verdict is Verdict.FAILED


def claimed(path: Path, *names: str) -> Path:
    """What /proc/net/unix says of these claims."""
    lines = ["Num RefCount Protocol Flags Type St Inode Path", "0: 2 0 0 1 3 17 /run/x", "0: 2 0 0 1 3 17 @etherws/x"]
    path.write_text("\n".join([*lines, *(f"0: 2 0 0 1 3 17 @etherws/{name}" for name in names)]))
    return path


def test_two_links_of_one_bridge(tmp_path: Path) -> None:
    path = claimed(tmp_path / "unix", "br0/" + "a" * 32, "br0/" + "b" * 32, "br1/" + "a" * 32)
    (found,) = claims([BRIDGE, OURS, SECOND], path)
    assert found.verdict is Verdict.WARNING
    assert "ethws0, ethws1" in found.found
    # One client that was given two servers; spanning tree; one server.
    assert not list(claims([BRIDGE, OURS], path))
    assert not list(claims([replace(BRIDGE, bridge=BridgeFacts(True, 15, 300, False)), OURS, SECOND], path))
    assert not list(claims([BRIDGE, OURS, SECOND], claimed(path, "br0/" + "a" * 32)))
    assert not list(claims([OURS, SECOND], path))


def test_the_kernel_has_seen_a_loop() -> None:
    said = "br0: received packet on ethws0 with own address as source address (addr:02:00:00:00:00:01, vlan:0)"
    records = [
        f"4,900,9000000000,-;{said}",
        f"4,901,9000000001,-;{said}\n SUBSYSTEM=net",
        f"4,2,1000000,-;{said.replace('ethws0', 'old')}",
        f"4,1,9000000000,-;{said.replace('br0', 'br7')}",
        f"4,x,y;{said}",
        f"nothing;{said}",
        "4,901,9000000001,-;other",
        "",
    ]
    (found,) = loops([BRIDGE, OURS], records, 9500.0)
    assert found.verdict is Verdict.FAILED
    assert found.found.startswith("there is a loop: its own frames came back by ethws0, 2 times")
    assert "ip link set ethws0 down" in found.hint


ROUTE = "Iface\tDestination\tGateway\n{}\t00000000\t0101A8C0\neth9\t0001A8C0\t00000000\n"
ROUTE6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00 ffffffff 1 0 200200       lo\n{}\n"


@pytest.mark.parametrize(
    ("link", "verdict", "words"),
    [
        (CARD, Verdict.OK, "by eth0, MTU 1500"),
        (replace(CARD, mtu=1200), Verdict.WARNING, "less than 1280"),
        (replace(OURS, name="eth0"), Verdict.OK, "by eth0"),
        (OURS, Verdict.WARNING, "through the tunnel itself"),
        (replace(CARD, name="eth9"), Verdict.NOTE, "there is none"),
    ],
)
def test_the_way_out(tmp_path: Path, link: LinkFacts, verdict: Verdict, words: str) -> None:
    (tmp_path / "route").write_text(ROUTE.format("ethws0" if link.is_ours else "eth0"))
    (found,) = outgoing([link], tmp_path)
    assert found.verdict is verdict
    assert words in found.found


def test_the_way_out_by_ipv6_alone(tmp_path: Path) -> None:
    loopback = LinkFacts(1, "lo", loopback=True)
    zeros = "0" * 32
    (tmp_path / "ipv6_route").write_text(ROUTE6.format(f"{zeros} 00 {zeros} 00 fe80 400 1 0 3 eth0"))
    (found,) = outgoing([loopback, CARD], tmp_path)
    assert found.data == {"interface": "eth0", "mtu": 1500}
