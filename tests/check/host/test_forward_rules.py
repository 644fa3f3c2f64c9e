"""Rules for routed packets that eat bridged frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.host.forward_rules import forward_rules
from etherws.kernel.forward_chains import Chain

DOCKER = Chain("ip", "filter", "FORWARD", drops=True, rules=True)


def found(tmp_path: Path, on: str, *chains: Chain) -> list[Finding]:
    """What is found where these settings of br_netfilter are on."""
    folder = tmp_path / "net/bridge"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("iptables", "ip6tables"):
        (folder / f"bridge-nf-call-{name}").write_text(f"{int(name in on.split())}\n")
    return list(forward_rules(tmp_path, lambda: chains))


def test_off_nothing_is_eaten(tmp_path: Path) -> None:
    first, second = found(tmp_path, "", DOCKER)
    assert first.found.startswith("is off")
    assert second.verdict is Verdict.OK
    (tmp_path / "none").mkdir()
    assert next(forward_rules(tmp_path / "none", lambda: [])).verdict is Verdict.OK


def test_docker_eats_ip(tmp_path: Path) -> None:
    first, second = found(tmp_path, "iptables ip6tables", DOCKER)
    assert first.data["on"] == ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
    assert second.verdict is Verdict.WARNING
    assert second.found.startswith(
        "nf_tables: table ip filter, chain FORWARD: drops IP between ports of a bridge unless"
    )
    assert second.hint.startswith(
        "sysctl -w net.bridge.bridge-nf-call-iptables=0 turns that off; with Docker: iptables"
    )


@pytest.mark.parametrize(
    ("on", "chain", "verdict", "words"),
    [
        ("iptables", Chain("ip", "filter", "FORWARD", True, False, True), Verdict.FAILED, "iptables: table ip filter"),
        ("iptables", Chain("ip6", "filter", "FORWARD", True, False), Verdict.OK, "none that bridged frames meet"),
        ("ip6tables", Chain("ip6", "filter", "FORWARD", True, False), Verdict.FAILED, "drops all IPv6"),
        ("iptables", Chain("inet", "fw", "f", True, True), Verdict.WARNING, "table inet fw"),
        ("", Chain("inet", "fw", "f", True, True), Verdict.OK, "none that"),
        ("", Chain("bridge", "b", "f", True, False), Verdict.FAILED, "drops all frames"),
        ("", Chain("bridge", "b", "f", False, True), Verdict.OK, "drop nothing that is unknown; 1 chains have rules"),
    ],
)
def test_each_family(tmp_path: Path, on: str, chain: Chain, verdict: Verdict, words: str) -> None:
    last = found(tmp_path, on, chain)[-1]
    assert last.verdict is verdict
    assert words in last.found
    assert bool(last.hint) == (verdict is not Verdict.OK)


def test_who_may_not_look_is_told_so(tmp_path: Path) -> None:
    def refuse() -> list[Chain]:
        raise PermissionError(1, "Operation not permitted")

    last = list(forward_rules(tmp_path, refuse))[-1]
    assert (last.verdict, last.hint) == (Verdict.SKIPPED, "run this check as root")
