"""The units of contrib/ under systemd: both on one machine, each with a bridge of its own."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.doors import ask
from tests.lab.pages import all_commands, commands, shown_once
from tests.lab.units import CONTRIB, INSTALLED, Unit, links, run

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("machine")]


def test_each_is_ready_when_it_listens_or_is_connected(units: tuple[Unit, Unit]) -> None:
    server, client = units
    client.do("start", "--no-block")
    client.says("cannot connect")
    assert client.property("ActiveState") == "activating"
    server.do("start")
    assert "127.0.0.1:80 " in run("ss", "--no-header", "--listening", "--tcp", "--numeric")
    client.is_in("active")
    client.says("connected to ws://127.0.0.1:80")
    assert links()["ethws0"]["master"] == "br0"
    assert links()["ethws1"]["master"] == "br1"


def test_they_start_with_the_machine(units: tuple[Unit, Unit]) -> None:
    # The target is reached already. What it wants and what is not there is started, as at boot.
    run("systemctl", "start", "--no-block", "multi-user.target")
    for unit in units:
        unit.is_in("active")


def test_the_journal_has_the_levels_and_one_time(units: tuple[Unit, Unit]) -> None:
    server, client = units
    client.do("start", "--no-block")
    client.says("cannot connect")
    server.do("start")
    client.says("connected to ws")
    lines, warnings = client.log(), client.log("--priority=warning")
    # systemd's own lines of the unit are of another sender.
    assert [line for line in lines if re.match(r"<\d>|\d{4}-|INFO|WARNING", line)] == []
    assert any("cannot connect" in line for line in warnings)
    assert not any("connected to ws" in line for line in warnings)
    assert server.log("--priority=err") == client.log("--priority=err") == []


def test_each_has_its_control_socket(units: tuple[Unit, Unit]) -> None:
    server, client = units
    paths = {unit: Path(f"/run/etherws/{unit.role}-test/control") for unit in units}
    client.do("start", "--no-block")
    for verb in ("start", "restart"):
        server.do(verb)
        client.is_in("active")
        for unit, path in paths.items():
            user = int(run("stat", "--format=%u", f"/proc/{unit.property('MainPID')}"))
            assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (user, 0o600)
            assert user
            assert ask(path, "GET /status").json["role"] == unit.role
    for unit in reversed(units):
        unit.do("stop")
    assert not any(path.parent.exists() for path in paths.values())


def test_a_restart_keeps_a_bridge_that_has_an_address(units: tuple[Unit, Unit]) -> None:
    server, client = units
    server.do("start")
    client.do("start")
    run("ip", "address", "add", "10.0.0.1/24", "dev", "br0")
    before = links()["br0"]
    server.do("restart")
    after = links()
    assert after["br0"]["ifindex"] == before["ifindex"]
    assert any(address["local"] == "10.0.0.1" for address in after["br0"]["addr_info"])  # type: ignore[attr-defined]
    assert after["ethws0"]["master"] == "br0"
    server.says("joined on ethws0")
    assert client.property("NRestarts") == "0"


def test_a_bridge_that_has_a_vlan_stays(units: tuple[Unit, Unit]) -> None:
    server, _ = units
    server.do("start")
    run("ip", "link", "add", "link", "br0", "name", "br0.5", "type", "vlan", "id", "5")
    run("ip", "address", "add", "10.5.0.1/24", "dev", "br0.5")
    before = links()["br0"]
    server.log()
    server.do("stop")
    server.says("br0.5 is on top of it", "--priority=warning")
    assert "ethws0" not in links()
    server.do("start")
    after = links()
    assert after["br0"]["ifindex"] == before["ifindex"]
    assert after["br0.5"]["link"] == after["ethws0"]["master"] == "br0"


def test_a_stop_leaves_nothing(units: tuple[Unit, Unit]) -> None:
    before = set(links()), run("nft", "list", "ruleset")
    for unit in units:
        unit.do("start")
    for unit in reversed(units):
        unit.do("stop")
        assert unit.property("Result") == "success"
        assert unit.property("ExecMainStatus") == "0"
    assert (set(links()), run("nft", "list", "ruleset")) == before


def test_a_mistake_in_the_options_is_not_tried_again(units: tuple[Unit, Unit]) -> None:
    server, _ = units
    server.options(port="many")
    server.do("start", "--no-block")
    server.is_in("failed")
    assert server.property("ExecMainStatus") == "2"
    assert server.property("NRestarts") == "0"


def test_an_address_may_come_after_the_start(units: tuple[Unit, Unit]) -> None:
    server, client = units
    server.options(address="10.9.0.1", bridge="br0")
    client.options(uri="ws://10.9.0.1/", device="ethws1", bridge="br1", wait="forever")
    server.do("start")
    server.says("10.9.0.1", "--priority=warning")
    client.do("start", "--no-block")
    client.says("cannot connect")
    run("ip", "link", "add", "late0", "type", "dummy")
    run("ip", "link", "set", "late0", "up")
    run("ip", "address", "add", "10.9.0.1/24", "dev", "late0")
    client.is_in("active")
    assert server.property("NRestarts") == client.property("NRestarts") == "0"


def test_what_docs_type_by_hand() -> None:
    """Both sides on this machine, so the client has a bridge of its own, and the server's address is here."""
    lines, before = commands("units.rst", "The units of systemd"), set(links())
    clients = next(number for number, line in enumerate(lines) if "client" in line)
    names = [f"etherws-{role}@lan.service" for role in ("server", "client")]
    run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    try:
        for number, line in enumerate(lines):
            here = line.replace("br0", "br1") if number > clients else line
            run("sh", "-c", f"cd {CONTRIB.parent} && {here}")
            typed.note(line)
        assert run("systemctl", "is-active", *names) == "active\nactive\n"
        for line in all_commands("logs.rst"):
            run("sh", "-c", shown_once(line))
            typed.note(line)
        assert {"br0", "br1"} <= set(links())
    finally:
        run("systemctl", "disable", "--quiet", "--now", *names)
        run("rm", "-rf", "/etc/etherws", *(str(INSTALLED / name.replace("lan", "")) for name in names))
        run("systemctl", "daemon-reload")
        run("ip", "address", "del", "192.0.2.1/32", "dev", "lo")
    while left := sorted(set(links()) - before):
        run("ip", "link", "delete", left[0])
