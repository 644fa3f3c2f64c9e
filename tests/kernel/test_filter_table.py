"""The order of a table's rules, and the limit of broadcast and multicast frames."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from etherws.kernel import filter_table, nftables
from etherws.kernel.rules import EVERYTHING, Rules, table_name
from tests.lab.frames import PEER
from tests.lab.hosts import Host
from tests.lab.lan import applied, passes
from tests.lab.packets import arp, frame

MULTICAST = b"\x01\0\x5e\0\0\xfb"


def test_broadcast_and_multicast_are_limited_and_nothing_else(lan: Host) -> None:
    sender, receiver = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(group_rate=1)) as port:
        # One each second, so that at most some more than the burst pass, however busy the machine is.
        for number in range(1000):
            for to in (b"\xff" * 6, MULTICAST, b"\x33\x33\0\0\0\1"):
                sender.send(frame(b"\x88\xb5" + number.to_bytes(2, "big"), to=to))
        for number in range(500):
            sender.send(frame(b"\x88\xb5one" + number.to_bytes(2, "big"), to=PEER))
        passed = {"group": 0, "one": 0}
        while passed["one"] < 500:
            passed["group" if receiver.receive()[0] & 1 else "one"] += 1
        assert filter_table.GROUP_BURST_MIN <= passed["group"] < 1000
        assert port.drops() == {"group-rate": 3000 - passed["group"]}


def test_a_small_burst_passes_at_a_high_rate(lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    with applied(lan, Rules(group_rate=10_000)) as port:
        for number in range(20):
            assert passes(*ends, frame(b"\x88\xb5" + bytes([number])))
        assert port.drops() == {}


def test_what_other_rules_drop_does_not_count(lan: Host) -> None:
    sender, receiver = lan.frames("far-port"), lan.frames("far-other")
    wanted = Rules(macs=1, addresses=frozenset({ip_network("192.0.2.7")}), group_rate=1)
    with applied(lan, wanted) as port:
        for _ in range(100):
            sender.send(frame(arp("192.0.2.8", "192.0.2.1")))
        sender.send(frame(arp("192.0.2.7", "192.0.2.1")))
        assert receiver.receive() == frame(arp("192.0.2.7", "192.0.2.1"))
        assert port.drops() == {"arp-sender": 100}


def test_a_table_can_be_read_by_nft(lan: Host) -> None:
    """docs/policy.rst tells operators to do so."""
    with applied(lan, replace(EVERYTHING, group_rate=1)):
        process = lan.run(lan.program("nft"), "list", "table", "netdev", table_name("port"))
        assert process.ends() == 0
        for words in ("chain ingress", "set addresses", "chain group", "limit rate over 1/second", "2001:db8::"):
            assert words in process.output, process.output
        assert nftables.frame_counts(table_name("port")).keys() == {
            *("bpdu", "dhcp-server", "router-advertisement", "source-address", "ip-source", "arp-sender"),
            *("neighbour-discovery", "group-rate", "disguised"),
        }
