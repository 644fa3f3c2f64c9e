"""What outlives a server's process, by a stand-in for systemd: interfaces, rules, and what runs through the tunnel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.hosts import PATIENCE, Host, Process, cable, until
from tests.lab.tunnels import add_addresses

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


class Stream:
    """A TCP stream that goes on until it is to end, and is compared then."""

    def __init__(self, one: Host, other: Host, address: str) -> None:
        listener = other.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((address, 0))
        listener.listen()
        self._source = one.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._source.settimeout(2 * PATIENCE)
        self._source.connect(listener.getsockname())
        self._sink, _ = listener.accept()
        self._sink.settimeout(2 * PATIENCE)
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self.carried = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._take)]
        for each in self._threads:
            each.start()

    def _send(self) -> None:
        chunk = random.Random(1).randbytes(1 << 16)
        while not self._stop.is_set():
            self._source.sendall(chunk)
            self._sent.update(chunk)
            # Some Mbit/s: it must not take the processor from the processes that start.
            self._stop.wait(0.05)
        self._source.shutdown(socket.SHUT_WR)

    def _take(self) -> None:
        while data := self._sink.recv(1 << 16):
            self._got.update(data)
            self.carried += len(data)

    def goes_on(self) -> None:
        """Wait until more has come through."""
        before = self.carried
        until(lambda: self.carried > before, "the stream to go on")

    def end(self) -> bool:
        """Whether all came through as it was sent."""
        self._stop.set()
        for each in self._threads:
            each.join(2 * PATIENCE)
        self._source.close()
        self._sink.close()
        return self._sent.digest() == self._got.digest() and self.carried > 0


def look(host: Host) -> dict[str, tuple[Any, ...]]:
    return {name: (link["index"], *map(link.get, KEPT)) for name, link in host.links().items()}


def counters(host: Host, name: str) -> dict[str, int]:
    return dict(host.links()[name].get("stats64"))


POLICY = """
[default]
macs = 2
isolated = true
rate-down = "100 Mbit/s"
drop = ["dhcp-server"]
"""


@pytest.fixture(scope="module")
def pair(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host, Service, Process]]:
    """A server under its service manager, and a client that is connected."""
    policy = tmp_path_factory.mktemp("survival") / "policy"
    policy.write_text(POLICY)
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        service = Service(one, "server", "--address", "192.0.2.1", "--bridge", "br0", "--policy", str(policy))
        client = other.etherws("client", "--foreground", "ws://192.0.2.1/")
        client.says("connected to ws")
        add_addresses(one, "br0", "10.0.0.1/24")
        add_addresses(other, "ethws0", "10.0.0.2/24")
        yield one, other, service, client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "kill -9"])
def test_a_server_that_starts_again_has_all_as_it_was(
    pair: tuple[Host, Host, Service, Process], number: signal.Signals
) -> None:
    one, other, service, client = pair
    stream = Stream(other, one, "10.0.0.1")
    stream.goes_on()
    before, counted = look(one), counters(one, "ethws0")
    for _ in range(3):
        connected = client.output.count("connected to ws")
        service.end(number)
        client.says("connected to ws", connected + 1)
        stream.goes_on()
        assert look(one) == before
        now = counters(one, "ethws0")
        assert all(now[key] >= counted[key] for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"))
        counted = now
    assert stream.end()
    assert "Traceback" not in service.manager.output
