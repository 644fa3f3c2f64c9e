"""VRFs: the far LAN in one, and the path to the server in one."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.lab.hosts import Host
from tests.lab.tunnels import add_addresses, start, stream

pytestmark = pytest.mark.vm

MIB = 1 << 20

#: What a program gives setsockopt(2) to be in the VRF.
IN_VRF = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"blue\0")


def put_into_vrf(host: Host, name: str) -> None:
    """Make the VRF blue, and put an interface into it."""
    host.command("ip link add blue type vrf table 10")
    host.set_link("blue", state="up")
    host.command(f"ip link set {name} master blue")


def pings(host: Host, address: str, *options: str) -> bool:
    """Whether the machine reaches the address."""
    return host.run(host.program("ping"), "-c", "1", "-W", "2", *options, address).ends() == 0


@pytest.mark.parametrize("name", ["br0", "ethws0"])
def test_the_far_lan_is_in_a_vrf(hosts: tuple[Host, Host], name: str) -> None:
    server, client = hosts
    start(hosts)
    if name == "br0":
        server.bridge("br0", "ethws0")
    put_into_vrf(server, name)
    add_addresses(server, name, "10.0.0.1/24", "fd00::1/64")
    add_addresses(client, "ethws0", "10.0.0.2/24", "fd00::2/64")
    for address in ("10.0.0.2", "fd00::2"):
        sent, got = stream(server, client, address, 4 * MIB, IN_VRF)
        assert sent == got
    assert not pings(server, "10.0.0.2")


def test_a_second_client_is_refused_while_the_first_interface_is_in_a_vrf(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    serving = server.etherws("server", "--foreground")
    serving.says("listening on ws://")
    client.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected to ws")
    put_into_vrf(server, "ethws0")
    other = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--device", "other0")
    other.says("503")
    serving.says("is in no bridge")


@pytest.mark.parametrize("way", ["ip vrf exec", "tcp_l3mdev_accept"])
def test_the_path_is_in_a_vrf(hosts: tuple[Host, Host], way: str) -> None:
    server, client = hosts
    for host in hosts:
        put_into_vrf(host, "eth0")
    within = ("ip", "vrf", "exec", "blue", sys.executable, "-m", "etherws")
    if way == "ip vrf exec":
        server.run(*within, "server", "--foreground").says("listening on ws://")
    else:
        with server.namespace.inside():
            Path("/proc/sys/net/ipv4/tcp_l3mdev_accept").write_text("1")
        server.etherws("server", "--foreground").says("listening on ws://")
    client.run(*within, "client", "--foreground", "ws://192.0.2.1/").says("connected to ws")
    for number, host in enumerate(hosts, 1):
        add_addresses(host, "ethws0", f"10.0.0.{number}/24")
    sent, got = stream(client, server, "10.0.0.1", 4 * MIB)
    assert sent == got
