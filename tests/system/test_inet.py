"""``--inet``: both ends talk by IP without another command, through new images and reconnects, and leave nothing."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.lab.hosts import Host, Process, until
from tests.lab.lan import addresses


def answers(host: Host, address: str) -> bool:
    return host.run("ping", "-n", "-c", "1", "-W", "1", address).ends() == 0


def test_both_ends_have_addresses_from_start_to_end(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """The server on a bridge of the user's, which has one of its addresses already, the client on its interface."""
    left, right = hosts
    left.bridge("br0")
    left.command("ip addr add 10.9.0.1/24 dev br0")
    before = addresses(left, "br0")
    server = left.etherws(
        *("server", "--foreground", "--bridge", "br0", "--inet", "10.9.0.1/24", "--inet", "fd00:9::1/64")
    )
    server.says("listening")
    config = tmp_path / "lan.toml"
    config.write_text('uri = "ws://192.0.2.1/"\ninet = ["10.9.0.2/24", "fd00:9::2/64"]\n')
    client = right.etherws("client", "--foreground", "--config", str(config))
    client.says("connected to")

    def talk() -> None:
        until(lambda: answers(right, "10.9.0.1") and answers(right, "fd00:9::1"), "both to talk by IPv4 and IPv6")

    talk()
    config.write_text('uri = "ws://192.0.2.1/"\ninet = ["10.9.0.3/24", "fd00:9::2/64"]\n')
    for process in (server, client):
        process.signal(signal.SIGUSR2)
        process.says("INFO handed over to version")
    client.says("connected to", 3)
    assert addresses(right, "ethws0") >= {"10.9.0.3/24", "fd00:9::2/64"}
    assert "10.9.0.2/24" not in addresses(right, "ethws0")
    talk()
    right.delete_link("ethws0")
    client.says("had been deleted and is made anew")
    client.says("connected to", 4)
    talk()
    client.stop()
    server.stop()
    assert addresses(left, "br0") == before


def test_an_address_of_the_other_side_is_said_and_a_start_that_fails_leaves_nothing(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    server = left.etherws("server", "--foreground", "--inet", "10.9.0.1/24", "--inet", "fd00:9::1/64")
    server.says("listening")
    right.command("ip tuntap add lan0 mode tap")
    twin = ("client", "--foreground", "--device", "lan0", "--inet", "10.9.0.1/24", "ws://192.0.2.1/")
    client: Process = right.etherws(*twin)
    mac = str(left.links()["ethws0"].get("address"))
    client.says(
        f"WARNING another machine of the LAN, with the Ethernet address {mac}, has the address 10.9.0.1 of lan0"
    )
    server.says("has the address 10.9.0.1 of ethws0, too: both lose packets until one of them has another address")
    client.stop()
    assert "10.9.0.1/24" not in addresses(right, "lan0")
    right.command("ip link set lan0 mtu 1000")
    failed = right.etherws(*twin, "--inet", "fd00:9::1/64")
    assert failed.ends() == 1
    assert "cannot give lan0 the address fd00:9::1/64" in failed.output
    assert "10.9.0.1/24" not in addresses(right, "lan0")
