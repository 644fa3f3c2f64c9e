"""A bridge that ifupdown2 makes, as on Proxmox, and what its commands do to our port in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import until
from tests.lab.units import Unit, installed, links, run

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("machine")]

INTERFACES = Path("/etc/network/interfaces")

BRIDGE = """
auto br0
iface br0 inet static
    address 10.0.0.1/24
    bridge-ports none
    bridge-stp off
"""

CONDONE = "    bridge-ports-condone-regex ^ethws[0-9]+$\n"


def write(text: str) -> None:
    """Have ifupdown2 do what the file says."""
    INTERFACES.write_text("auto lo\niface lo inet loopback\n" + text)
    run("ifreload", "-a")


@pytest.fixture
def server() -> Iterator[Unit]:
    """A server that is to be in br0."""
    before = INTERFACES.read_text()
    try:
        write(BRIDGE)
        with installed() as (server, _):
            server.options(address="127.0.0.1", bridge="br0")
            server.do("start")
            assert links()["ethws0"]["master"] == "br0"
            yield server
    finally:
        write("")
        INTERFACES.write_text(before)


def joins(server: Unit) -> int:
    """How often our port has joined its bridge again."""
    return sum("joined br0 again" in line for line in server.log())


def test_a_reload_is_undone(server: Unit) -> None:
    index = links()["ethws0"]["ifindex"]
    run("ifreload", "-a")
    until(lambda: joins(server) == 1, lambda: f"ethws0 in br0: {server.log()}")
    assert links()["ethws0"]["master"] == "br0"
    assert links()["ethws0"]["ifindex"] == index
    server.says("bridge-ports-condone-regex", "--priority=warning")


def test_the_line_that_the_log_names_keeps_it_in(server: Unit) -> None:
    # The first reload knows the line already.
    write(BRIDGE + CONDONE)
    run("ifreload", "-a")
    assert links()["ethws0"]["master"] == "br0"
    server.do("restart")
    run("ifreload", "-a")
    assert links()["ethws0"]["master"] == "br0"
    assert joins(server) == 0


def test_a_bridge_that_is_made_anew_is_joined(server: Unit) -> None:
    before = links()["br0"]["ifindex"]
    run("ifdown", "br0")
    assert "br0" not in links()
    run("ifup", "br0")
    until(lambda: links().get("ethws0", {}).get("master") == "br0", lambda: f"ethws0 in br0: {server.log()}")
    assert links()["br0"]["ifindex"] != before
