"""The tunnels that are measured, a class each: start(lab) makes it ready to carry, stop() ends it.

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

from bench.lab import (
    OUTER_A,
    OUTER_B,
    ROOT,
    VETH,
    BenchError,
    Lab,
    Namespace,
    Process,
    absent_programs,
    run,
    wait_until,
)

#: The outer port, of the tunnel's server in its own namespace.
PORT = 8080
#: The tunnel's interface, at both ends; the namespaces keep the two apart.
DEVICE = "bench0"
#: The limit of what etherws could do, and how it is compiled.
PUMP = Path(__file__).with_name("pump.c")
CC = ("cc", "-O2")


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

    def cpu(self) -> float:
        """CPU seconds that its processes have used, together."""
        return sum(process.cpu() for process in self.processes)

    def _address(self, lab: Lab) -> None:
        """Give the interfaces their addresses, and take them up."""
        for namespace, address in ((lab.a, self.address_a), (lab.b, self.address_b)):
            namespace.ip("addr", "add", f"{address}/24", "dev", self.device)
            namespace.ip("link", "set", self.device, "up")


class Vxlan(Peer):
    """The kernel's own Ethernet over UDP. It adds 50 bytes to a packet, so the MTU inside is 1,450."""

    programs = ("unshare",)
    device = DEVICE

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.address_a, self.address_b = _inner(number)
        self._lab: Lab | None = None

    def absent(self) -> list[str]:
        """Programs, and the kernel's part of it: tried in a network namespace that ends with the trial."""
        absent = super().absent()
        if not absent:
            try:
                run("unshare", "--net", "ip", "link", "add", *self._link(OUTER_A, OUTER_B))
            except BenchError:
                absent.append("the kernel's vxlan")
        return absent

    def start(self, lab: Lab) -> None:
        """Make an interface at either end; its packets take the route that leads to the other."""
        self._lab = lab
        for namespace, here, there in ((lab.a, OUTER_A, OUTER_B), (lab.b, OUTER_B, OUTER_A)):
            namespace.ip("link", "add", *self._link(here, there))
        self._address(lab)
        self.answers(lab)

    def stop(self) -> None:
        """Take the interfaces away."""
        if self._lab:
            for namespace in (self._lab.a, self._lab.b):
                run("ip", "-n", namespace.name, "link", "del", DEVICE, check=False)
            self._lab = None

    @staticmethod
    def _link(here: str, there: str) -> list[str]:
        ends = ["local", here, "remote", there, "dstport", "4789"]
        return [DEVICE, "mtu", "1450", "type", "vxlan", "id", "1", *ends]


class Tunnel(Peer, ABC):
    """A server process in b and a client process in a, each with a TAP of its own."""

    device = DEVICE

    #: Its outer port, and the directory in which its programs start.
    port = PORT
    directory = ROOT

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.address_a, self.address_b = _inner(number)

    @abstractmethod
    def server(self, lab: Lab) -> list[str]:
        """The server's command; it listens on OUTER_B and the port."""

    @abstractmethod
    def client(self, lab: Lab) -> list[str]:
        """The client's command."""

    def start(self, lab: Lab) -> None:
        """Start the server, then the client, give the TAPs their addresses, and wait for an answer to ping."""
        server = lab.b.spawn(*self.server(lab), directory=self.directory)
        self.processes.append(server)
        wait_until(lambda: server.listens(self.port), f"{self.name}: a listening server")
        client = lab.a.spawn(*self.client(lab), directory=self.directory)
        self.processes.append(client)
        for process, namespace in ((server, lab.b), (client, lab.a)):
            wait_until(partial(_appeared, process, namespace, self.device), f"{self.name}: {self.device}")
        self._address(lab)
        self.answers(lab)


class Etherws(Tunnel):
    """etherws over ws or wss, with either version of its wire, run by a Python: this one, if no other is given."""

    modules = ("gevent", "geventwebsocket", "click", "pytun", "pyroute2", "websockets")

    def __init__(self, name: str, number: int, *, tls: bool, wire: int = 2, python: str = sys.executable) -> None:
        super().__init__(name, number)
        self._tls, self._wire, self._python = tls, wire, python
        if tls:
            self.programs = ("openssl",)

    def server(self, lab: Lab) -> list[str]:
        """Foreground, so that its process number is ours."""
        command = [self._python, "-m", "etherws", "server", "--foreground"]
        command += ["--address", OUTER_B, "--port", str(self.port), "--device", self.device]
        if self._tls:
            keyfile, certfile = certificate(lab)
            command += ["--keyfile", str(keyfile), "--certfile", str(certfile)]
        return command

    def client(self, lab: Lab) -> list[str]:
        """With TLS it verifies the server, as a user's would."""
        command = [self._python, "-m", "etherws", "client", "--foreground", "--device", self.device, "--proxy", ""]
        command += ["--uri", f"{'wss' if self._tls else 'ws'}://{OUTER_B}:{self.port}/"]
        # The newest version is what both ends take unless told.
        if self._wire == 1:
            command += ["--wire", "1"]
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


class Vtun(Tunnel):
    """vtund, Ethernet over TCP, without compression and encryption."""

    programs = ("vtund",)

    def server(self, lab: Lab) -> list[str]:
        """The end that waits."""
        return self._vtund(lab, "-s", "-L", OUTER_B)

    def client(self, lab: Lab) -> list[str]:
        """The end that connects: to a session by its name, and a server by its address."""
        return self._vtund(lab, "bench", OUTER_B)

    @staticmethod
    def _vtund(lab: Lab, *arguments: str) -> list[str]:
        """Foreground. It insists on a PID file in /run: one of its own spares the machine's.

        The mount namespace is there already, made by `ip netns exec`.
        """
        settings = lab.directory / "vtund.conf"
        settings.write_text(
            f"options {{ port {PORT}; }}\n"
            f"bench {{ passwd bench; device {DEVICE}; type ether; proto tcp; compress no; encrypt no; }}\n"
        )
        command = ["vtund", "-n", "-f", str(settings), *arguments]
        return ["sh", "-c", 'mount -t tmpfs bench /run && exec "$@"', "sh", *command]


class Tinc(Tunnel):
    """tinc, a switch of two nodes, Ethernet over UDP with the cipher that it has by default."""

    programs = ("tincd",)

    def server(self, lab: Lab) -> list[str]:
        """The node that waits."""
        return self._node(lab, "server")

    def client(self, lab: Lab) -> list[str]:
        """The node that connects."""
        return self._node(lab, "client")

    def _node(self, lab: Lab, name: str) -> list[str]:
        """Foreground, with its directory; the first call makes both."""
        nets = lab.directory / "tinc"
        if not nets.exists():
            self._make(nets)
        return ["tincd", "--no-detach", "--config", str(nets / name), "--pidfile", str(nets / f"{name}.pid")]

    @staticmethod
    def _make(nets: Path) -> None:
        # What fits into a datagram, as it would find out by itself in ten seconds; until then all went by TCP.
        common = f"Port = {PORT}\nPMTU = 1451\nPMTUDiscovery = no\n"
        hosts = {"server": f"Address = {OUTER_B}\n{common}", "client": common}
        for name, host in hosts.items():
            (nets / name / "hosts").mkdir(parents=True)
            (nets / name / "hosts" / name).write_text(host)
            connect = "ConnectTo = server\n" if name == "client" else ""
            settings = f"Name = {name}\nMode = switch\nInterface = {DEVICE}\n{connect}"
            (nets / name / "tinc.conf").write_text(settings)
            # Without a terminal it asks nothing, and puts the public key behind what we wrote of the host.
            run("tincd", "--config", str(nets / name), "--generate-keys=2048", timeout=60)
        for name, other in (("server", "client"), ("client", "server")):
            (nets / other / "hosts" / name).write_text((nets / name / "hosts" / name).read_text())


class Pump(Tunnel):
    """pump.c: what the design of etherws could do at most, in C, without WebSocket, masking and TLS."""

    programs = ("cc",)

    def server(self, lab: Lab) -> list[str]:
        """The end that waits."""
        return [self._program(lab), "listen", OUTER_B, str(PORT), DEVICE]

    def client(self, lab: Lab) -> list[str]:
        """The end that connects."""
        return [self._program(lab), "connect", OUTER_B, str(PORT), DEVICE]

    @staticmethod
    def _program(lab: Lab) -> str:
        """Compiled at the first call."""
        program = lab.directory / "pump"
        if not program.exists():
            run(*CC, "-o", str(program), str(PUMP), timeout=60)
        return str(program)


def _inner(number: int) -> tuple[str, str]:
    """The inner addresses of a and b: of another network for each tunnel."""
    return f"10.99.{number}.1", f"10.99.{number}.2"


def _appeared(process: Process, namespace: Namespace, device: str) -> bool:
    """Whether the process has made its TAP; BenchError when it has ended instead."""
    return process.check() and namespace.has(device)


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
        Etherws("ws-v1", 3, tls=False, wire=1),
        Etherws("wss-v1", 4, tls=True, wire=1),
        OpenVpn("openvpn-tcp", 5, protocol="tcp"),
        OpenVpn("openvpn-udp", 6, protocol="udp"),
        Vtun("vtun", 7),
        Tinc("tinc", 8),
        Pump("pump", 9),
        Vxlan("vxlan", 10),
        Peer(),
    )
}
