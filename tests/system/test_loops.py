"""The same client twice in one bridge: refused, or let in on purpose and then noticed at both ends."""

from __future__ import annotations

import signal

import pytest

from tests.lab.hosts import Host, Process

#: No IPv6 of its own: no storm begins before the test sends a frame.
QUIET = ("--foreground", "--bridge", "br0")


@pytest.fixture
def linked(hosts: tuple[Host, Host]) -> tuple[Process, Process]:
    """A server and a client, both with br0."""
    server = hosts[0].etherws("server", *QUIET)
    server.says("listening")
    client = hosts[1].etherws("client", *QUIET, "ws://192.0.2.1/")
    client.says("connected to")
    return server, client


def test_a_second_client_in_the_bridge_is_refused_and_a_loop_that_is_made_is_noticed(
    hosts: tuple[Host, Host], linked: tuple[Process, Process]
) -> None:
    server, first = linked
    refused = hosts[1].etherws("client", *QUIET, "--uri", "ws://192.0.2.1:80")
    assert refused.ends() == 73
    assert f"Error: process {first.pid} links br0 to 192.0.2.1:80/ already" in refused.output
    assert set(hosts[1].links()) == {"lo", "eth0", "br0", "ethws0"}
    second = hosts[1].etherws("client", *QUIET, "--allow-second-link", "ws://192.0.2.1/")
    second.says("connected to")
    server.says("joined on ethws1")
    # A machine of the client's LAN says something, once.
    hosts[1].command("ip link add name lan type veth peer name far-lan")
    hosts[1].set_link("far-lan", state="up")
    hosts[1].set_link("lan", state="up", master=int(hosts[1].links()["br0"]["index"]))
    hosts[1].frames("far-lan").send(b"\xff" * 6 + b"\x02\xee\0\0\0\1\x88\xb5".ljust(54, b"\0"))
    warning = "WARNING frames go in a loop between ethws0 "
    for process in (server, first, second):
        process.says(warning)
    second.stop()
    assert "between ethws0 (192.0.2.2) and ethws1 (192.0.2.2) in br0" in server.output
    assert "between ethws0 and ethws1 in br0" in first.output
    for process in (server, first, second):
        assert process.output.count("frames go in a loop") == 1


def test_a_client_that_was_stopped_or_killed_can_be_started_at_once(
    hosts: tuple[Host, Host], linked: tuple[Process, Process]
) -> None:
    """Nor is it in the way that the old one is still stopping."""
    _, client = linked
    for number in (signal.SIGTERM, signal.SIGKILL):
        client.signal(number)
        client = hosts[1].etherws("client", *QUIET, "ws://192.0.2.1/")
        client.says("connected to")
