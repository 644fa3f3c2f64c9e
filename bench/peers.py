"""The tunnels that are measured, a class each: start(lab) makes it ready to carry, stop(lab) ends it.

A new peer is a subclass of Tunnel that names two commands, or of Peer where the kernel itself is the tunnel, and a
line in PEERS. The client is in namespace a, the server in b.
"""

from __future__ import annotations

import hashlib
import importlib.util
import ssl
import sys
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path

from bench.lab import OUTER_A, OUTER_B, VETH, Lab, Namespace, Process, absent_programs, run, wait_until

#: The outer port, of the tunnel's server in its own namespace.
PORT = 8080
#: The tunnel's interface, at both ends; the namespaces keep the two apart.
DEVICE = "bench0"


class Peer:
    """One way from a to b: the device at either end, and the addresses on it."""

    name = "bare"
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    device = VETH
    address_a, address_b = OUTER_A, OUTER_B

    def __init__(self) -> None:
        self.processes: list[Process] = []

    def absent(self) -> list[str]:
        """Programs and Python modules that it needs and that are not installed."""
        modules = [name for name in self.modules if not importlib.util.find_spec(name)]
        return absent_programs(*self.programs) + modules

    def start(self, lab: Lab) -> None:
        """Bring it up, until b answers a's ping."""
        self.answers(lab)

    def stop(self) -> None:
        """End its processes, the client first, and with them their interfaces."""
        while self.processes:
            self.processes.pop().stop()

    def answers(self, lab: Lab) -> None:
        """Wait until b answers a's ping."""

        def answered() -> bool:
            return all(process.check() for process in self.processes) and lab.a.pings(self.address_b)

        wait_until(answered, f"{self.name}: an answer to ping")


class Tunnel(Peer, ABC):
    """A server process in b and a client process in a, each with a TAP of its own."""

    device = DEVICE

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.address_a, self.address_b = f"10.99.{number}.1", f"10.99.{number}.2"

    @abstractmethod
    def server(self, lab: Lab) -> list[str]:
        """The server's command; it listens on OUTER_B and PORT."""

    @abstractmethod
    def client(self, lab: Lab) -> list[str]:
        """The client's command."""

    def start(self, lab: Lab) -> None:
        """Start the server, then the client, give the TAPs their addresses, and wait for an answer to ping."""
        server = lab.b.spawn(*self.server(lab))
        self.processes.append(server)
        wait_until(lambda: server.listens(PORT), f"{self.name}: a listening server")
        client = lab.a.spawn(*self.client(lab))
        self.processes.append(client)
        for process, namespace, address in ((server, lab.b, self.address_b), (client, lab.a, self.address_a)):
            wait_until(partial(_appeared, process, namespace), f"{self.name}: {DEVICE}")
            namespace.ip("addr", "add", f"{address}/24", "dev", DEVICE)
            namespace.ip("link", "set", DEVICE, "up")
        self.answers(lab)


class Etherws(Tunnel):
    """etherws, of this checkout and this Python, over ws or wss."""

    modules = ("gevent", "geventwebsocket", "click", "pytun", "pyroute2", "websockets")

    def __init__(self, name: str, number: int, *, tls: bool) -> None:
        super().__init__(name, number)
        self._tls = tls
        if tls:
            self.programs = ("openssl",)

    def server(self, lab: Lab) -> list[str]:
        """Foreground, so that its process number is ours."""
        command = [sys.executable, "-m", "etherws", "server", "--foreground"]
        command += ["--address", OUTER_B, "--port", str(PORT), "--device", DEVICE]
        if self._tls:
            keyfile, certfile = certificate(lab)
            command += ["--keyfile", str(keyfile), "--certfile", str(certfile)]
        return command

    def client(self, lab: Lab) -> list[str]:
        """With TLS it verifies the server, as a user's would."""
        command = [sys.executable, "-m", "etherws", "client", "--foreground", "--device", DEVICE]
        command += ["--uri", f"{'wss' if self._tls else 'ws'}://{OUTER_B}:{PORT}/"]
        if self._tls:
            command += ["--cacert", str(certificate(lab)[1])]
        return command


class OpenVpn(Tunnel):
    """OpenVPN in tap mode, point to point, AES-256-GCM."""

    programs = ("openvpn", "openssl")

    def __init__(self, name: str, number: int, *, protocol: str) -> None:
        super().__init__(name, number)
        self._protocol = protocol

    def server(self, lab: Lab) -> list[str]:
        """The end that waits."""
        return [*self._common(lab), "--local", OUTER_B, "--lport", str(PORT), *self._role("server")]

    def client(self, lab: Lab) -> list[str]:
        """The end that connects."""
        return [*self._common(lab), "--remote", OUTER_B, str(PORT), "--nobind", *self._role("client")]

    def _role(self, role: str) -> list[str]:
        tls = ["--tls-server", "--dh", "none"] if role == "server" else ["--tls-client"]
        if self._protocol == "udp":
            return ["--proto", "udp", *tls]
        return ["--proto", f"tcp-{role}", "--socket-flags", "TCP_NODELAY", *tls]

    def _common(self, lab: Lab) -> list[str]:
        """OpenVPN 2.6 wants TLS: one throw-away certificate at both ends, known by its fingerprint."""
        keyfile, certfile = certificate(lab)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certfile.read_text())).hexdigest()
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
        command = ["openvpn", "--dev", DEVICE, "--dev-type", "tap", "--verb", "1", "--suppress-timestamps"]
        command += ["--key", str(keyfile), "--cert", str(certfile), "--peer-fingerprint", fingerprint]
        command += ["--data-ciphers", "AES-256-GCM", "--tun-mtu", "1500"]
        # Keep the inner MSS at 1,460, as it is for the others.
        if self._protocol == "tcp":
            command += ["--mssfix", "0"]
        return command


def _appeared(process: Process, namespace: Namespace) -> bool:
    """Whether the process has made its TAP; BenchError when it has ended instead."""
    return process.check() and namespace.has(DEVICE)


def certificate(lab: Lab) -> tuple[Path, Path]:
    """The run's throw-away key and self-signed certificate for OUTER_B, made at the first call."""
    keyfile, certfile = lab.directory / "key.pem", lab.directory / "cert.pem"
    if not certfile.exists():
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        names = ["-subj", "/CN=etherws benchmark", "-addext", f"subjectAltName=IP:{OUTER_B}"]
        usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        files = ["-keyout", str(keyfile), "-out", str(certfile)]
        run("openssl", "req", "-x509", *options, *names, *usage, *files)
        keyfile.chmod(0o600)
    return keyfile, certfile


#: By the name that --peers takes, in the order in which a round visits them.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Etherws("ws", 1, tls=False),
        Etherws("wss", 2, tls=True),
        OpenVpn("openvpn-tcp", 3, protocol="tcp"),
        OpenVpn("openvpn-udp", 4, protocol="udp"),
        Peer(),
    )
}
