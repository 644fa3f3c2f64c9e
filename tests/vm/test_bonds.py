"""Bonds: a tunnel beside one in a bridge, a tunnel over one whose active port goes, and a bond of two tunnels."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.lab.hosts import Host, Process, until
from tests.lab.tunnels import add_addresses, conversation

pytestmark = pytest.mark.vm

MIB = 1 << 20


def bond(host: Host, *ports: str) -> None:
    """Make bond0 of these ports, one of which carries at a time. It sees by its carrier that a port is gone."""
    host.command("ip link add bond0 type bond mode active-backup miimon 50")
    for port in ports:
        host.command(f"ip link set {port} down")
        host.command(f"ip link set {port} master bond0")
    host.set_link("bond0", state="up")


def active(host: Host) -> str:
    """The port of bond0 that carries."""
    process = host.run("ip", "-json", "-details", "link", "show", "bond0")
    assert process.ends() == 0, process.output
    return str(json.loads(process.output)[0]["linkinfo"]["info_data"].get("active_slave", ""))


def switch(host: Host, machine: Host) -> None:
    """Two cables from a host's port0 and port1 to a bridge of the machine's, its `switch`."""
    for number in range(2):
        host.namespace.cable(f"port{number}", machine.namespace, f"far{number}")
        machine.set_link(f"far{number}", state="up")
    machine.bridge("switch", "far0", "far1")


def cut(host: Host, machine: Host) -> None:
    """Take the carrier from the port that carries, and wait until the other one does."""
    before = active(host)
    machine.set_link(f"far{before[-1]}", state="down")
    until(lambda: active(host) not in ("", before), f"bond0 to leave {before}")


@pytest.fixture
def machines(network: None) -> Iterator[tuple[Host, Host, Host]]:
    """Three machines."""
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(contextlib.closing(Host())) for _ in range(3))
        yield one, two, three


def serve(host: Host, *options: str) -> Process:
    """A server."""
    process = host.etherws("server", "--foreground", *options)
    process.says("listening on ws://")
    return process


def join(client: Host, device: str = "ethws0") -> Process:
    """A client that is connected."""
    process = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--device", device)
    process.says("connected to ws")
    return process


def test_the_uplink_is_a_bond_whose_active_port_goes(machines: tuple[Host, Host, Host]) -> None:
    server, client, _ = machines
    switch(client, server)
    bond(client, "port0", "port1")
    add_addresses(server, "switch", "192.0.2.1/24")
    add_addresses(client, "bond0", "192.0.2.2/24")
    serve(server)
    process = join(client)
    for number, host in enumerate((server, client), 1):
        add_addresses(host, "ethws0", f"10.0.0.{number}/24")
    with conversation(client, server, "10.0.0.1") as carry:
        carry(4 * MIB)
        cut(client, server)
        carry(4 * MIB)
    assert "lost ws://" not in process.output


def test_a_tunnel_beside_a_bond(hosts: tuple[Host, Host], machines: tuple[Host, Host, Host]) -> None:
    server, client = hosts
    machine = machines[0]
    switch(server, machine)
    bond(server, "port0", "port1")
    server.bridge("br0", "bond0")
    serve(server, "--bridge", "br0")
    join(client)
    add_addresses(machine, "switch", "10.0.0.1/24")
    add_addresses(client, "ethws0", "10.0.0.2/24")
    with conversation(client, machine, "10.0.0.1") as carry:
        carry(4 * MIB)
        cut(server, machine)
        carry(4 * MIB)


def test_a_bond_of_two_tunnels(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    serve(server, "--bridge", "br0")
    ports = {name: join(client, name) for name in ("port0", "port1")}
    bond(client, *ports)
    add_addresses(server, "br0", "10.0.0.1/24")
    add_addresses(client, "bond0", "10.0.0.2/24")
    with conversation(client, server, "10.0.0.1") as carry:
        carry(4 * MIB)
        before = active(client)
        ports[before].stop()
        until(lambda: active(client) not in ("", before), f"bond0 to leave {before}")
        carry(4 * MIB)


def test_a_second_client_is_refused_while_the_first_interface_is_in_a_bond(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    serving = serve(server)
    join(client)
    server.command("ip link add bond0 type bond mode active-backup miimon 50")
    server.command("ip link set ethws0 down")
    server.command("ip link set ethws0 master bond0")
    other = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--device", "other0")
    other.says("503")
    serving.says("is in no bridge")
