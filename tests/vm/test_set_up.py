"""``etherws init`` on a machine with systemd: both sides, enabled, by one line between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.units import INSTALLED, Unit, links, run

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("machine")]

ETC = Path("/etc/etherws")


@pytest.fixture
def units() -> Iterator[tuple[Unit, Unit]]:
    """The two units, of which nothing is there yet. At the end nothing is."""
    before = set(links())
    server, client = Unit("server"), Unit("client")
    yield server, client
    for unit in (client, server):
        run("systemctl", "disable", "--quiet", "--now", unit.name)
        (INSTALLED / f"etherws-{unit.role}@.service").unlink()
    run("systemctl", "daemon-reload")
    shutil.rmtree(ETC)
    while left := sorted(set(links()) - before):
        run("ip", "link", "delete", left[0])


def test_two_commands_and_a_line_make_a_link_that_starts_at_boot(units: tuple[Unit, Unit], tmp_path: Path) -> None:
    server, client = units
    line = tmp_path / "line"
    etherws = "/usr/local/bin/etherws"
    place = ["--bridge", "br0", "--enable"]
    run(etherws, "init", "server", "test", "--host", "127.0.0.1:8443", "--client", "b1", "--out", str(line), *place)
    server.is_in("active")
    place = ["--bridge", "br1", "--device", "ethws1", "--enable"]
    run(etherws, "init", "client", "--invitation", str(line), *place)
    client.says("connected to wss://127.0.0.1:8443")
    client.is_in("active")
    assert links()["ethws1"]["master"] == "br1"
    assert {run("systemctl", "is-enabled", unit.name) for unit in units} == {"enabled\n"}
    assert server.log("--priority=warning") == client.log("--priority=warning") == []

    # One more client: root copies the tokens for the server again.
    line.unlink()
    run(etherws, "init", "server", "test", "--client", "b2", "--out", str(line))
    run(etherws, "init", "client", "other", "--invitation", str(line))

    # A change counts after a restart, and a reload says so; a mistake ends the unit with the reason.
    path = ETC / "server" / "test.toml"
    text = path.read_text()
    path.write_text(f"{text}mtu = 1400\n")
    server.do("reload")
    server.says(f"{path} has changed: that counts after a restart")
    server.do("restart")
    assert links()["ethws0"]["mtu"] == 1400
    client.says("connected to wss://127.0.0.1:8443")
    path.write_text(f"{text}mtu = 3\n")
    server.do("restart", "--no-block")
    server.is_in("failed")
    assert any(f"{path}:{text.count(chr(10)) + 1}:7: --mtu 3 is out of range" in each for each in server.log())
