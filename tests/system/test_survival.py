"""What outlives a server's process, by a stand-in for systemd: interfaces, rules, and what runs through the tunnel."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host, Process, cable, until
from tests.lab.lan import source
from tests.lab.peer import Peer, masked, request
from tests.lab.tunnels import Stream, add_addresses

#: What must not change of an interface.
KEPT = ("address", "master", "mtu", "operstate", "carrier_changes", "carrier_up_count")


class Service:
    """etherws as a service."""

    def __init__(self, host: Host, *arguments: str) -> None:
        command = [sys.executable, "-m", "etherws", *arguments]
        self.manager = host.run(sys.executable, "-m", "tests.lab.service_manager", *command)
        self.starts = 0
        self.wait()

    def wait(self) -> None:
        """Wait until it has started once more."""
        self.starts += 1
        self.manager.says("ready ", self.starts)

    @property
    def pid(self) -> int:
        """Of its present process."""
        return int(self.manager.output.rpartition("started ")[2].split()[0])

    def end(self, number: signal.Signals) -> None:
        """End it; wait until it is there again."""
        os.kill(self.pid, number)
        self.wait()


def settle(host: Host) -> None:
    """Wait until the machine's end of the cable has a carrier: the kernel says so up to a second later."""
    until(lambda: host.links()["eth0"].get("operstate") == "UP", "the cable to have a carrier")


def look(host: Host) -> dict[str, tuple[Any, ...]]:
    return {name: (link["index"], *map(link.get, KEPT)) for name, link in host.links().items()}


def counters(host: Host, name: str) -> dict[str, int]:
    return dict(host.links()[name].get("stats64"))


#: The client's own interface, and one virtual machine behind it.
POLICY = """
[default]
macs = 2
isolated = true
rate-down = "100 Mbit/s"
"""

TOKEN = "t" * 22


class Pair(NamedTuple):
    """A server under its service manager, and a client that is connected."""

    one: Host
    other: Host
    service: Service
    client: Process

    def back(self, number: signal.Signals) -> None:
        """End the server's process, and wait until the client is connected to the next one, as both say."""
        connected = self.client.output.count("connected to ws")
        joined = self.service.manager.output.count("joined on")
        self.service.end(number)
        self.client.says("connected to ws", connected + 1)
        self.service.manager.says("joined on", joined + 1)

    def peer(self) -> tuple[Peer, str]:
        """A further client, and its interface at the server."""
        peer = Peer(self.other, ("192.0.2.1", 80))
        joined = self.service.manager.output.count("joined on")
        peer.say(request(Etherws_Resume=TOKEN))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        said = self.service.manager.says("joined on", joined + 1)
        return peer, said.rpartition("joined on ")[2].split(",")[0]


#: Tests with the same two machines follow each other on one worker of pytest.
with_pair = pytest.mark.xdist_group("survival")


@pytest.fixture(scope="module")
def pair(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    policy = tmp_path_factory.mktemp("survival") / "policy"
    policy.write_text(POLICY)
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        service = Service(one, "server", "--address", "192.0.2.1", "--bridge", "br0", "--policy", str(policy))
        # Its sessions are so short that it would wait longer and longer.
        client = other.etherws("client", "--foreground", "--max-retry-interval", "0.5", "ws://192.0.2.1/")
        client.says("connected to ws")
        service.manager.says("joined on")
        add_addresses(one, "br0", "10.0.0.1/24")
        add_addresses(other, "ethws0", "10.0.0.2/24")
        settle(one)
        yield Pair(one, other, service, client)


@with_pair
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "kill -9"])
def test_a_server_that_starts_again_has_all_as_it_was(pair: Pair, number: signal.Signals) -> None:
    far, near = pair.other.frames("ethws0"), pair.one.frames("br0")
    stream = Stream(pair.other, pair.one, "10.0.0.1")
    stream.goes_on()
    before, counted = look(pair.one), counters(pair.one, "ethws0")
    for _ in range(2):
        # The second address of two is taken; a third one gets nothing through, in whichever process.
        far.send(frame(60, to=BROADCAST, source=source(1)))
        assert near.receive()[6:12] == source(1)
        pair.back(number)
        far.send(frame(60, to=BROADCAST, source=source(2)))
        far.send(frame(60, to=BROADCAST, source=source(1)))
        assert near.receive()[6:12] == source(1)
        stream.goes_on()
        assert look(pair.one) == before
        now = counters(pair.one, "ethws0")
        assert all(now[key] >= counted[key] for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"))
        counted = now
    stream.finish()
    assert "Traceback" not in pair.service.manager.output


@with_pair
def test_a_server_that_stops_for_another_one_says_so(pair: Pair) -> None:
    peer, name = pair.peer()
    index = look(pair.one)[name][0]
    pair.back(signal.SIGTERM)
    # 1012, service restart (IANA).
    while (got := peer.frame())[0] != 0x88:
        pass
    assert got[1][:2] == (1012).to_bytes(2, "big")
    peer, again = pair.peer()
    assert (again, look(pair.one)[again][0]) == (name, index)
    peer.close()


@with_pair
def test_a_client_that_ends_for_another_one_finds_its_port(pair: Pair) -> None:
    peer, name = pair.peer()
    index = look(pair.one)[name][0]
    left = pair.service.manager.output.count(" left ")
    peer.say(masked(0x88, (1012).to_bytes(2, "big")))
    pair.service.manager.says(" left ", left + 1)
    peer.close()
    peer, again = pair.peer()
    assert (again, look(pair.one)[again][0]) == (name, index)
    peer.close()


def test_the_last_stop_closes_what_was_kept(host: Host) -> None:
    service = Service(host, "server", "--address", "127.0.0.1", "--bridge", "br0")
    service.end(signal.SIGKILL)
    assert {"ethws0", "br0"} <= host.links().keys()
    service.manager.stop()
    assert not {"ethws0", "br0"} & host.links().keys()


def test_a_client_that_starts_again_has_all_as_it_was(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    server = one.etherws("server", "--foreground", "--bridge", "br0")
    server.says("listening on ws")
    arguments = ["--bridge", "br1", "--drop", "bpdu", "--mtu", "1400", "ws://192.0.2.1/"]
    service = Service(other, "client", *arguments)
    for host, name, address in ((one, "br0", "10.0.0.1/24"), (other, "br1", "10.0.0.2/24")):
        add_addresses(host, name, address)
    stream = Stream(other, one, "10.0.0.1")
    stream.goes_on()
    settle(other)
    before, counted, first = look(other), counters(other, "ethws0"), service.pid
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2, signal.SIGTERM):
        service.end(number)
        stream.goes_on()
        assert look(other) == before
        now = counters(other, "ethws0")
        assert all(now[key] >= counted[key] for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"))
        counted = now
    stream.finish()
    # The server keeps the port for a client that says that it comes again.
    assert server.output.count("closed by the peer, code 1012") == 3
    assert server.output.count("joined on ethws0") == 5
    assert service.manager.output.count("started ") == 4
    assert service.pid != first
    assert "br1 stays" not in service.manager.output
    assert "Traceback" not in service.manager.output
