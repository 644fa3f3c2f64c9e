"""Paths as networks have them: long, lossy and out of order, cut for a while, and narrow behind a fair queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import Host, Process
from tests.lab.tunnels import add_addresses, conversation, stream

pytestmark = pytest.mark.vm

MIB = 1 << 20

#: One way. Packets that need not wait go ahead of others.
LONG, LOSSY = "delay 20ms 5ms", "delay 20ms 5ms loss 2% reorder 25% 50%"

#: Some times the round trip of an emulated machine.
NOTICE = ("--ping-interval", "2s", "--ping-timeout", "3s")


def join(hosts: tuple[Host, Host], *options: str) -> tuple[Process, Process]:
    """A server and a client, connected, with 10.0.0.1 and 10.0.0.2."""
    server = hosts[0].etherws("server", "--foreground", *options)
    server.says("listening on ws://")
    client = hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/", "--max-retry-interval", "1s", *options)
    client.says("connected to ws")
    for number, host in enumerate(hosts, 1):
        add_addresses(host, "ethws0", f"10.0.0.{number}/24", f"fd00::{number}/64")
    return server, client


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
def test_streams_arrive_intact(hosts: tuple[Host, Host], how: str) -> None:
    server, client = hosts
    impair(hosts, how)
    join(hosts)
    for one, other, address in ((client, server, "10.0.0.1"), (server, client, "fd00::2")):
        sent, got = stream(one, other, address, 2 * MIB)
        assert sent == got
    if how == LOSSY:
        assert all(qdiscs(host, "eth0")["netem"]["drops"] for host in hosts)


def test_a_cut_is_noticed_and_mended_and_what_is_inside_goes_on(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    impair(hosts, LONG)
    serving, joined = join(hosts, *NOTICE)
    with conversation(client, server, "10.0.0.1") as carry:
        carry(MIB)
        impair(hosts, "loss 100%")
        joined.says("lost ws://192.0.2.1:80")
        serving.says("left ethws0")
        impair(hosts, LOSSY)
        joined.says("connected to ws", times=2)
        carry(MIB)


def test_a_short_cut_costs_no_session(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    _, joined = join(hosts)
    with conversation(client, server, "10.0.0.1") as carry:
        carry(MIB)
        impair(hosts, "loss 100%")
        # Until it has met a packet.
        ping = client.run(client.program("ping"), "-c", "2", "-W", "1", "10.0.0.1")
        assert ping.ends() == 1, ping.output
        impair(hosts, LONG)
        carry(MIB)
    assert "lost ws://" not in joined.output


def test_a_narrow_uplink_with_a_fair_queue(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    for host in hosts:
        host.command("tc qdisc add dev eth0 root handle 1: tbf rate 20mbit burst 32kb latency 500ms")
        host.command("tc qdisc add dev eth0 parent 1:1 handle 10: fq_codel")
    join(hosts)
    before = qdiscs(client, "eth0")["fq_codel"]["bytes"]
    ping = client.run(client.program("ping"), "-i", "0.5", "10.0.0.1")
    sent, got = stream(client, server, "10.0.0.1", 8 * MIB)
    assert sent == got
    # The tunnel's bytes went through it, and a ping overtook them.
    assert qdiscs(client, "eth0")["fq_codel"]["bytes"] - before > 8 * MIB
    ping.says("bytes from 10.0.0.1")
    ping.signal(2)
    assert ping.ends() == 0, ping.output


def test_the_interfaces_own_queue_is_fair_where_the_machines_default_is(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    join(hosts)
    for host in hosts:
        host.command("tc qdisc replace dev ethws0 root fq_codel")
    for one, other, address in ((client, server, "10.0.0.1"), (server, client, "10.0.0.2")):
        sent, got = stream(one, other, address, 4 * MIB)
        assert sent == got
        assert qdiscs(one, "ethws0")["fq_codel"]["bytes"] > 4 * MIB


def test_a_clients_limit_has_a_fair_queue(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    server, client = hosts
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nconnect = true\nrate-down = "20 Mbit/s"\n')
    server.etherws("server", "--foreground", "--policy", str(policy)).says("listening on ws://")
    client.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected to ws")
    for number, host in enumerate(hosts, 1):
        add_addresses(host, "ethws0", f"10.0.0.{number}/24")
    sent, got = stream(server, client, "10.0.0.2", 4 * MIB)
    assert sent == got
    found = qdiscs(server, "ethws0")
    assert found["fq_codel"]["parent"].startswith(found["tbf"]["handle"])
    assert found["fq_codel"]["bytes"] > 4 * MIB
