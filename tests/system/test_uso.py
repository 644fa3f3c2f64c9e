"""UDP super-frames through real tunnels: every datagram arrives, in order and intact, whoever is at the other end."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable

import pytest

from etherws.tunnel import tap_probe
from tests.lab.hosts import PATIENCE, Host, Process, until

#: linux/udp.h
UDP_SEGMENT = 103

#: Bytes of a datagram, and datagrams of one call.
SIZE, COUNT = 1400, 40

#: Starts a client that says this, with these options.
Connect = Callable[..., Process]


@pytest.fixture(autouse=True)
def needs_a_kernel(host: Host) -> None:
    with host.namespace.inside():
        if not tap_probe.takes_uso():
            pytest.skip("this kernel takes no UDP super-frames")


def packets(host: Host, name: str = "ethws0") -> int:
    """How many packets the TAP has given to its host."""
    return int(host.links()[name].get("stats64")["rx_packets"])


def burst(one: Host, other: Host, address: str, calls: int = 3) -> int:
    """Send datagrams, many at once, and compare what arrives; return as how many packets it came out of the TAP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    taker, sender = other.socket(family, socket.SOCK_DGRAM), one.socket(family, socket.SOCK_DGRAM)
    taker.settimeout(PATIENCE)
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    taker.bind((address, 0))
    sender.connect(taker.getsockname())
    # A first one, so that the addresses are known.
    sender.send(b"first")
    assert taker.recv(65_536) == b"first"
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
    before = packets(other)
    for call in range(calls):
        # The last datagram of each is shorter.
        data = random.Random(call).randbytes(SIZE * COUNT - 100)
        sender.send(data)
        for at in range(0, len(data), SIZE):
            assert taker.recv(65_536) == data[at : at + SIZE]
    return packets(other) - before


def lan(hosts: tuple[Host, Host]) -> None:
    for number, host in enumerate(hosts, 1):
        until(lambda host=host: "ethws0" in host.links(), "the interface")  # type: ignore[misc]
        for address in (f"10.0.0.{number}/24", f"fd00::{number}/64 nodad"):
            # The server's interface may be the one of the client before.
            host.command(f"ip addr replace {address} dev ethws0")


def carried_together(hosts: tuple[Host, Host]) -> list[bool]:
    """Whether super-frames arrive as they are, to the server by IPv4, to it by IPv6, and to the client in turn."""
    server, client = hosts
    ways = [(client, server, "10.0.0.1"), (client, server, "fd00::1"), (server, client, "10.0.0.2")]
    ways.append((server, client, "fd00::2"))
    # Some packets are the kernels' own.
    return [burst(one, other, address) < 100 for one, other, address in ways]


@pytest.fixture
def connect(hosts: tuple[Host, Host]) -> Connect:
    """Starts clients, each after the end of the one before."""
    running = list[Process]()

    def started(says: str, *options: str) -> Process:
        for process in running:
            process.signal(signal.SIGTERM)
            assert process.ends() == 0
        running[:] = [hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/", *options)]
        running[0].says(says)
        lan(hosts)
        return running[0]

    return started


def test_datagrams_travel_together_by_two_workers(hosts: tuple[Host, Host], connect: Connect) -> None:
    hosts[0].etherws("server", "--foreground", "--workers", "2").says("listening")
    connect("connected")
    assert carried_together(hosts) == [True] * 4
    connect("by 2 connections", "--connections", "2")
    assert carried_together(hosts) == [True] * 4


def test_a_process_that_takes_over_still_knows_and_a_peer_without_them_gets_datagrams(
    hosts: tuple[Host, Host], connect: Connect
) -> None:
    serving = hosts[0].etherws("server", "--foreground")
    serving.says("listening")
    process = connect("connected")
    for which, count in ((serving, 2), (process, 3)):
        which.signal(signal.SIGUSR2)
        process.says("connected", count)
        assert carried_together(hosts) == [True] * 4
    connect("by 2 connections", "--connections", "2")
    assert carried_together(hosts) == [True] * 4
    # The port is as it was, and its new session is another.
    connect("connected", "--wire", "1")
    assert carried_together(hosts) == [False] * 4
