"""One link over several connections: they come, are lost and are replaced, and what else goes on meanwhile."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

from tests.lab.datagrams import Flows
from tests.lab.hosts import Host, Process, until
from tests.lab.tunnels import add_addresses

#: The one who falls silent is noticed soon, and the others have time on a busy machine.
PINGS = ("--ping-interval", "500ms", "--ping-timeout", "1500ms")
AGAIN = ("--retry-interval", "50ms", "--max-retry-interval", "50ms")


def link(hosts: tuple[Host, Host], *options: str, server: tuple[str, ...] = ()) -> tuple[Process, Process]:
    """A server on the first machine and a client with these options on the second, connected; 10.0.0.1 and 10.0.0.2
    are at the ends of the tunnel."""
    one, other = hosts
    serving = one.etherws("server", "--foreground", "--debug", *server)
    serving.says("listening on")
    client = other.etherws("client", "--foreground", "--debug", "ws://192.0.2.1/", *AGAIN, *options)
    client.says("connected to ws")
    add_addresses(one, "ethws0", "10.0.0.1/24")
    add_addresses(other, "ethws0", "10.0.0.2/24")
    return serving, client


def ports(host: Host) -> set[int]:
    """The local ports of the client's connections."""
    process = host.run("ss", "-tnH", "state", "established", "dport = :80")
    process.ends()
    return {int(port) for port in re.findall(r"192\.0\.2\.2:(\d+)", process.output)}


def connections(host: Host, count: int) -> set[int]:
    """Wait until there are so many connections; their ports."""
    found: set[int] = until(lambda: len(now := ports(host)) == count and now, f"{count} connections")
    return found


def test_of_several_connections_one_fails_and_the_flows_of_the_others_do_not_notice(hosts: tuple[Host, Host]) -> None:
    server, client = link(hosts, "--connections", "4", *PINGS, server=PINGS)
    client.says("connected to ws://192.0.2.1:80 by 4 connections")
    first = connections(hosts[1], 4)
    flows = Flows(hosts[1], hosts[0], "10.0.0.1", 12)
    flows.go_on()

    def fails(cut: Callable[[int], None], times: int) -> None:
        """Cut one connection; the link has four again."""
        victim = min(ports(hosts[1]))
        cut(victim)
        client.says("lost connection ", times)
        client.says("there again", times)
        assert victim not in connections(hosts[1], 4)
        flows.go_on()

    fails(lambda port: hosts[1].command(f"ss -K dport = :80 and sport = :{port}"), 1)
    hosts[1].command("nft add table ip cut")
    hosts[1].command("nft add chain ip cut in { type filter hook input priority 0 ; }")
    fails(lambda port: hosts[1].command(f"nft add rule ip cut in tcp dport {port} drop"), 2)
    flows.finish()
    assert "nothing heard for " in client.output
    assert len(first & ports(hosts[1])) == 2
    # Each cut hurts the flows of one connection only; the kernel spreads twelve over the four.
    unhurt = [port for port, lost in flows.lost().items() if not lost]
    assert unhurt, flows.lost()
    # For both ends it was one link all the time.
    assert client.output.count("lost connection ") == 2
    assert "lost ws://" not in client.output
    assert server.output.count("joined on ethws0") == 1
    assert "left ethws0" not in server.output
    # A new image of the process has the interface, and founds the link anew.
    client.signal(signal.SIGUSR2)
    client.says("connected to ws://192.0.2.1:80 by 4 connections", 2)
    flows = Flows(hosts[1], hosts[0], "10.0.0.1", 4)
    flows.go_on()
    flows.finish()
    client.stop()
    server.says("left ethws0", 2)
    for process in (server, client):
        assert "Traceback" not in process.output


def test_connections_are_replaced_before_their_greatest_age_without_loss(hosts: tuple[Host, Host]) -> None:
    server, client = link(hosts, "--connections", "2", "--max-age", "10s")
    client.says("by 2 connections")
    flows = Flows(hosts[1], hosts[0], "10.0.0.1", 6)
    first = connections(hosts[1], 2)
    until(lambda: not first & ports(hosts[1]), "the end of the first connections", 60)
    assert len(ports(hosts[1])) >= 2
    flows.go_on()
    flows.finish()
    assert set(flows.lost().values()) == {0}
    assert flows.disordered() == []
    assert "lost" not in client.output
    assert "left ethws0" not in server.output
    client.stop()


def test_another_server_behind_a_load_balancer_is_named_with_the_mend(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    servers = [one.etherws("server", "--foreground", "--port", port) for port in ("8001", "8002")]
    for each in servers:
        each.says("listening on")
    one.command("nft add table ip spread")
    one.command("nft add chain ip spread in { type nat hook prerouting priority -100 ; }")
    one.command("nft add rule ip spread in tcp dport 80 redirect to :numgen inc mod 2 map { 0 : 8001, 1 : 8002 }")
    client = other.etherws("client", "--foreground", "ws://192.0.2.1/", "--connections", "4", *AGAIN)
    client.says("answered 409 Conflict; further connections of a link must reach the server that has the first one")
    assert "it says: this server does not have the link that connection 1 belongs to" in client.output
    assert "1 of 4 are there, trying again" in client.output
    # The waits are long, and the link goes on.
    assert client.output.count("409 Conflict") == 1
    assert len(ports(other)) == 1
    assert [each.output.count(" joined on ") for each in servers] == [1, 0]
    client.stop()


def test_who_cannot_have_several_has_one_and_is_told_why(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    one.etherws("server", "--foreground").says("listening on")
    other.command("ip tuntap add dev lan0 mode tap")
    other.command("ip tuntap add dev lan1 mode tap multi_queue")
    for options, words in (
        (
            ("--device", "lan0"),
            "lan0 can have one queue only, so the link has one connection and not 2; delete it, and",
        ),
        (("--device", "lan1"), "connected to ws://192.0.2.1:80 by 2 connections"),
    ):
        client = other.etherws("client", "--foreground", "ws://192.0.2.1/", "--connections", "2", *options)
        client.says(words)
        assert len(ports(other)) == (2 if "lan1" in options else 1)
        client.stop()
