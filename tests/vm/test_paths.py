"""Paths as networks have them: long, lossy and out of order, cut for a while, and narrow behind a fair queue."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab.hosts import Host, Process, cable
from tests.lab.tunnels import add_addresses, conversation, stream

pytestmark = pytest.mark.vm

MIB = 1 << 20

#: One way. Packets that need not wait go ahead of others.
LONG, LOSSY = "delay 20ms 5ms", "delay 20ms 5ms loss 2% reorder 25% 50%"

#: Some times the round trip of an emulated machine.
NOTICE = ("--ping-interval", "3s", "--ping-timeout", "7s")


def join(hosts: tuple[Host, Host], *options: str) -> tuple[Process, Process]:
    """A server and a client, connected, with 10.0.0.1 and 10.0.0.2."""
    server = hosts[0].etherws("server", "--foreground", *options)
    server.says("listening on ws://")
    client = hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/", "--max-retry-interval", "1s", *NOTICE)
    client.says("connected to ws")
    for number, host in enumerate(hosts, 1):
        add_addresses(host, "ethws0", f"10.0.0.{number}/24", f"fd00::{number}/64")
    return server, client


class Tunnel(NamedTuple):
    """A server and a client, each on a machine of its own, with a cable between."""

    hosts: tuple[Host, Host]
    server: Process
    client: Process


@pytest.fixture(scope="module")
def shared(network: None) -> Iterator[Tunnel]:
    """One for all tests; what a test does to the path is undone by `tunnel`."""
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        yield Tunnel((one, other), *join((one, other), *NOTICE))


@pytest.fixture
def tunnel(shared: Tunnel) -> Iterator[Tunnel]:
    """A tunnel by a cable of which nothing is known yet."""
    yield shared
    for host in shared.hosts:
        if set(qdiscs(host, "eth0")) != {"noqueue"}:
            host.command("tc qdisc del dev eth0 root")


def qdiscs(host: Host, name: str) -> dict[str, dict[str, Any]]:
    """The queueing disciplines of an interface and their counters, by kind, as tc(8) shows them."""
    process = host.run("tc", "-s", "-json", "qdisc", "show", "dev", name)
    assert process.ends() == 0, process.output
    return {qdisc["kind"]: qdisc for qdisc in json.loads(process.output)}


def impair(hosts: tuple[Host, Host], how: str) -> None:
    """Have the path between them do this, both ways."""
    for host in hosts:
        host.command(f"tc qdisc replace dev eth0 root netem {how}")


@pytest.mark.parametrize("how", [LONG, LOSSY], ids=["long", "lossy"])
def test_streams_arrive_intact(tunnel: Tunnel, how: str) -> None:
    server, client = tunnel.hosts
    impair(tunnel.hosts, how)
    for one, other, address in ((client, server, "10.0.0.1"), (server, client, "fd00::2")):
        sent, got = stream(one, other, address, 2 * MIB)
        assert sent == got
    if how == LOSSY:
        assert all(qdiscs(host, "eth0")["netem"]["drops"] for host in tunnel.hosts)


def test_a_cut_is_noticed_and_mended_and_what_is_inside_goes_on(tunnel: Tunnel) -> None:
    server, client = tunnel.hosts
    impair(tunnel.hosts, LONG)
    connected, lost = (tunnel.client.output.count(f"{words} ws://") for words in ("connected to", "lost"))
    left = tunnel.server.output.count("left ethws0")
    with conversation(client, server, "10.0.0.1") as carry:
        carry(MIB)
        impair(tunnel.hosts, "loss 100%")
        tunnel.client.says("lost ws://", lost + 1)
        tunnel.server.says("left ethws0", left + 1)
        impair(tunnel.hosts, LOSSY)
        tunnel.client.says("connected to ws://", connected + 1)
        carry(MIB)


def test_a_short_cut_costs_no_session(tunnel: Tunnel) -> None:
    server, client = tunnel.hosts
    lost = tunnel.client.output.count("lost ws://")
    with conversation(client, server, "10.0.0.1") as carry:
        carry(MIB)
        impair(tunnel.hosts, "loss 100%")
        # Until it has met a packet.
        ping = client.run(client.program("ping"), "-c", "1", "-W", "1", "10.0.0.1")
        assert ping.ends() == 1, ping.output
        impair(tunnel.hosts, LONG)
        carry(MIB)
    assert tunnel.client.output.count("lost ws://") == lost


def test_a_narrow_uplink_with_a_fair_queue(tunnel: Tunnel) -> None:
    server, client = tunnel.hosts
    for host in tunnel.hosts:
        host.command("tc qdisc add dev eth0 root handle 1: tbf rate 20mbit burst 32kb latency 500ms")
        host.command("tc qdisc add dev eth0 parent 1:1 handle 10: fq_codel")
    ping = client.run(client.program("ping"), "-i", "0.5", "10.0.0.1")
    sent, got = stream(client, server, "10.0.0.1", 4 * MIB)
    assert sent == got
    # The tunnel's bytes went through it, and pings passed.
    assert qdiscs(client, "eth0")["fq_codel"]["bytes"] > 4 * MIB
    ping.says("bytes from 10.0.0.1")
    ping.signal(signal.SIGINT)
    assert ping.ends() == 0, ping.output


def test_the_interfaces_own_queue_is_fair_where_the_machines_default_is(tunnel: Tunnel) -> None:
    server, client = tunnel.hosts
    for host in tunnel.hosts:
        host.command("tc qdisc replace dev ethws0 root fq_codel")
    for one, other, address in ((client, server, "10.0.0.1"), (server, client, "10.0.0.2")):
        sent, got = stream(one, other, address, 4 * MIB)
        assert sent == got
        assert qdiscs(one, "ethws0")["fq_codel"]["bytes"] > 4 * MIB


def test_a_clients_limit_has_a_fair_queue(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    server, client = hosts
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nconnect = true\nrate-down = "20 Mbit/s"\n')
    join(hosts, "--policy", str(policy))
    sent, got = stream(server, client, "10.0.0.2", 4 * MIB)
    assert sent == got
    found = qdiscs(server, "ethws0")
    assert found["fq_codel"]["parent"].startswith(found["tbf"]["handle"])
    assert found["fq_codel"]["bytes"] > 4 * MIB
