"""The doctor of this machine as a whole, with real bridges, interfaces and rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.check import machine as doctor
from etherws.check.findings import Finding, Verdict
from etherws.check.machine import looked_at, machine
from etherws.kernel.link_facts import BridgeFacts, LinkFacts
from tests.lab.hosts import Host

LINKS = [LinkFacts(1, "br0", "bridge", bridge=BridgeFacts(False, 15, 300, False)), LinkFacts(2, "ethws0", "tap")]


@pytest.fixture
def lan(host: Host) -> Host:
    """A host whose br0 has ethws0 and eth9, a cable to nowhere else."""
    host.command("ip link add eth9 type veth peer name far")
    host.command("ip tuntap add ethws0 mode tap")
    host.bridge("br0", "ethws0", "eth9")
    for name in ("eth9", "far", "ethws0"):
        host.set_link(name, state="up")
    return host


def bad(host: Host, *topics: str) -> list[str]:
    """What is wrong with the network of this host."""
    with host.namespace.inside():
        found = list(machine())
    assert all(isinstance(each.values()["data"], dict) for each in found)
    return [
        each.found
        for each in found
        if each.verdict in (Verdict.WARNING, Verdict.FAILED)
        and (each.topic in topics or each.topic.startswith("bridge"))
    ]


def test_a_bridge_that_is_all_right(lan: Host) -> None:
    assert bad(lan) == []


def test_a_bridge_that_is_down_and_of_different_mtus(lan: Host) -> None:
    lan.set_link("eth9", mtu=1400)
    lan.set_link("br0", state="down")
    down, mtus = bad(lan)
    assert down == "is down: it passes no frame"
    assert "ethws0 1500" in mtus
    assert "eth9 1400" in mtus


def test_a_server_in_another_bridge(lan: Host) -> None:
    lan.bridge("br1")
    lan.set_link("ethws0", master=lan.links()["br1"]["index"])
    with lan.namespace.inside():
        found = [each for each in machine() if "only etherws is in it" in each.found]
    assert [each.topic for each in found] == ["bridge br1"]
    assert "br0 has other interfaces: is that the LAN?" in found[0].hint


def test_rules_that_eat_bridged_frames(lan: Host) -> None:
    for name in ("iptables", "ip6tables"):
        with lan.namespace.inside():
            path = Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}")
            if not path.exists():
                pytest.skip("this kernel has no br_netfilter")
            path.write_text("1")
    lan.command("nft add table ip filter")
    lan.command("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
    assert bad(lan, "forward rules") == [
        "nf_tables: table ip filter, chain FORWARD: drops all IP between ports of a bridge: it has no rule"
    ]


def test_a_part_that_fails_does_not_end_the_others() -> None:
    def part() -> Iterator[Finding]:
        yield Finding("x", "first")
        raise OSError(5, "Input/output error\n")

    assert [(each.found, each.verdict) for each in looked_at("x", part)] == [
        ("first", Verdict.OK),
        ("cannot be looked at: [Errno 5] Input/output error?", Verdict.SKIPPED),
    ]


def test_the_kernels_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(doctor._loops(LINKS[1:]))
    assert [each.verdict for each in doctor._loops(LINKS, str(tmp_path / "none"))] == [Verdict.SKIPPED]
    said = b"br0: received packet on ethws0 with own address as source address"
    answers: list[bytes | OSError] = [b"4,1,5000000,-;" + said, BrokenPipeError(), BlockingIOError()]

    def read(fd: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    (tmp_path / "uptime").write_text("10.00 5.00\n")
    (tmp_path / "kmsg").touch()
    monkeypatch.setattr(os, "read", read)
    (found,) = doctor._loops(LINKS, str(tmp_path / "kmsg"), tmp_path / "uptime")
    assert found.found.startswith("there is a loop")
    answers.append(b"")
    assert not list(doctor._records(0))
