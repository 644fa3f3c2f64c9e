"""What all peers have in common: start(lab) makes a peer ready to carry frames, stop() ends it.

Peer is the veth pair itself. Tunnel has a server process in namespace b and a client process in a. See peers.py for
each of them.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path

from bench.lab import CONGESTION, OUTER_A, OUTER_B, VETH, Lab, Namespace
from bench.process import ROOT, Process, absent_programs, run, wait_until

#: The outer port, of the tunnel's server in namespace b.
PORT = 8080
#: The tunnel's interface, in both namespaces.
DEVICE = "bench0"


class Peer:
    """A way from a to b, with the interface at both ends and its addresses; here the veth pair without a tunnel."""

    name = "bare"
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    device = VETH
    address_a, address_b = OUTER_A, OUTER_B

    def __init__(self) -> None:
        self.processes: list[Process] = []

    def absent(self) -> list[str]:
        """Return the programs and Python modules that it needs and that are not installed."""
        modules = [name for name in self.modules if not importlib.util.find_spec(name)]
        return absent_programs(*self.programs) + modules

    def start(self, lab: Lab) -> None:
        """Start it, and wait until b answers a ping from a."""
        self.answers(lab)

    def stop(self) -> None:
        """Stop its processes, the client first. Their interfaces are removed with them."""
        while self.processes:
            self.processes.pop().stop()

    def answers(self, lab: Lab) -> None:
        """Wait until b answers a ping from a."""

        def answered() -> bool:
            return all(process.check() for process in self.processes) and lab.a.pings(self.address_b)

        wait_until(answered, f"{self.name}: an answer to ping")

    def cpu(self) -> float:
        """Return the CPU seconds that its processes have used together."""
        return sum(process.cpu() for process in self.processes)

    def _address(self, lab: Lab) -> None:
        """Set the addresses of the interfaces, and set the interfaces up.

        The flows inside use CONGESTION, unless a program chooses another. A program that changes it later, as iperf3
        does at the end that accepts, cannot undo that a connection has begun with BBR: it stays paced.
        """
        for namespace, address in ((lab.a, self.address_a), (lab.b, self.address_b)):
            namespace.ip("addr", "add", f"{address}/32", "dev", self.device)
            namespace.ip("link", "set", self.device, "up")
            network = f"{address.rpartition('.')[0]}.0/24"
            namespace.ip("route", "add", network, "dev", self.device, "src", address, "congctl", CONGESTION)


class Tunnel(Peer, ABC):
    """A server process in b and a client process in a, each with its own TAP."""

    device = DEVICE

    #: The server's outer port, and the directory in which both processes start.
    port = PORT
    directory = ROOT
    #: The congestion control of its TCP connections, unless it chooses another itself.
    congestion = CONGESTION
    #: Whether frames travel over TCP.
    over_tcp = True

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.address_a, self.address_b = inner_addresses(number)

    @abstractmethod
    def server(self, lab: Lab) -> list[str]:
        """Return the server's command. The server must listen on OUTER_B and self.port."""

    @abstractmethod
    def client(self, lab: Lab) -> list[str]:
        """Return the client's command."""

    def start(self, lab: Lab) -> None:
        """Start the server, then the client; set the addresses of the TAPs; wait for an answer to a ping."""
        if self.congestion == CONGESTION:
            self._start(lab)
            return
        lab.congestion(self.congestion)
        try:
            self._start(lab)
        finally:
            lab.congestion(CONGESTION)

    def _start(self, lab: Lab) -> None:
        server = lab.b.spawn(*self.server(lab), directory=self.directory)
        self.processes.append(server)
        wait_until(lambda: server.listens(self.port), f"{self.name}: a listening server")
        client = lab.a.spawn(*self.client(lab), directory=self.directory)
        self.processes.append(client)
        for process, namespace in ((server, lab.b), (client, lab.a)):
            wait_until(partial(_appeared, process, namespace, self.device), f"{self.name}: {self.device}")
        self._address(lab)
        self.answers(lab)


def inner_addresses(number: int) -> tuple[str, str]:
    """Return the inner addresses of a and b. Each tunnel has its own network."""
    return f"10.99.{number}.1", f"10.99.{number}.2"


def _appeared(process: Process, namespace: Namespace, device: str) -> bool:
    """Return whether the process has made its TAP; raise BenchError when the process has ended."""
    return process.check() and namespace.has(device)


def certificate(lab: Lab) -> tuple[Path, Path]:
    """Return the files of a temporary key and a self-signed certificate for OUTER_B. The first call makes them."""
    keyfile, certfile = lab.directory / "key.pem", lab.directory / "cert.pem"
    if not certfile.exists():
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        names = ["-subj", "/CN=etherws benchmark", "-addext", f"subjectAltName=IP:{OUTER_B}"]
        usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        files = ["-keyout", str(keyfile), "-out", str(certfile)]
        run("openssl", "req", "-x509", *options, *names, *usage, *files)
        keyfile.chmod(0o600)
    return keyfile, certfile
