"""What a bug report says of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etherws import __version__
from etherws.bundle import machine_facts
from etherws.bundle.machine_facts import links, rules, sysctls, versions
from etherws.kernel import forward_chains
from etherws.kernel.rules import Rules
from tests.lab.hosts import Host
from tests.lab.lan import applied, make_lan


def test_versions(tmp_path: Path) -> None:
    found = versions()
    assert found["etherws"] == __version__
    assert found["libraries"]["gevent"]
    assert json.dumps(found)
    assert versions(tmp_path)["distribution"] == {}


def test_sysctls(tmp_path: Path) -> None:
    assert "net.ipv4.tcp_congestion_control" in sysctls()
    assert sysctls(tmp_path) == {}


def test_interfaces_bridges_and_rules(host: Host) -> None:
    make_lan(host)
    host.command("bridge fdb add 02:00:00:00:00:07 dev port master")
    with applied(host, Rules(macs=2)):
        found, ours = links(), rules()
    assert json.dumps([found, ours])
    assert {"br0", "port"} <= {link["name"] for link in found["links"]}
    assert found["counters"]["port"]["tx_packets"] >= 0 if "tx_packets" in found["counters"]["port"] else True
    assert found["tables"]
    assert len(ours["tables"]) == 1
    assert ours["forward_chains"] == []


def test_what_may_not_be_looked_at_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(forward_chains, "chains", refuse)
    assert rules()["forward_chains"] == {"left out": "[Errno 1] Operation not permitted"}
    assert machine_facts._version("no-such-library") == ""
