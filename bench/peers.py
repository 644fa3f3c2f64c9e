"""The peers that are measured, one class for each, and PEERS, the list of them.

To add a peer, write a subclass of Tunnel (peer.py) with two commands, or of Peer where the kernel itself is the tunnel,
and add a line to PEERS. The client is in namespace a, the server in b.
"""

from __future__ import annotations

import hashlib
import ssl
import sys
from pathlib import Path

from bench.lab import CONGESTION, OUTER_A, OUTER_B, Lab
from bench.peer import DEVICE, Peer, Tunnel, certificate, inner_addresses
from bench.process import BenchError, run
from bench.softether import SoftEther

#: The source of the pump, and how it is compiled.
PUMP = Path(__file__).with_name("pump.c")
CC = ("cc", "-O2")


class Vxlan(Peer):
    """VXLAN, the kernel's own Ethernet over UDP. It adds 50 bytes to a packet, so the inner MTU is 1,450."""

    programs = ("unshare",)
    device = DEVICE

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.address_a, self.address_b = inner_addresses(number)
        self._lab: Lab | None = None

    def absent(self) -> list[str]:
        """Return the missing programs, and VXLAN where the kernel has none: it is tried in a temporary namespace."""
        absent = super().absent()
        if not absent:
            try:
                run("unshare", "--net", "ip", "link", "add", *self._link(OUTER_A, OUTER_B))
            except BenchError:
                absent.append("the kernel's vxlan")
        return absent

    def start(self, lab: Lab) -> None:
        """Make an interface at both ends. Its packets take the route to the other end."""
        self._lab = lab
        for namespace, here, there in ((lab.a, OUTER_A, OUTER_B), (lab.b, OUTER_B, OUTER_A)):
            namespace.ip("link", "add", *self._link(here, there))
        self._address(lab)
        self.answers(lab)

    def stop(self) -> None:
        """Remove the interfaces."""
        if self._lab:
            for namespace in (self._lab.a, self._lab.b):
                run("ip", "-n", namespace.name, "link", "del", DEVICE, check=False)
            self._lab = None

    @staticmethod
    def _link(here: str, there: str) -> list[str]:
        ends = ["local", here, "remote", there, "dstport", "4789"]
        return [DEVICE, "mtu", "1450", "type", "vxlan", "id", "1", *ends]


class Etherws(Tunnel):
    """etherws over ws or wss, with version 1 or 2 of the wire format, run by the given Python; by default this one."""

    modules = ("gevent", "geventwebsocket", "click", "pytun", "pyroute2", "websockets")

    def __init__(self, name: str, number: int, *, tls: bool, wire: int = 2, python: str = sys.executable) -> None:
        super().__init__(name, number)
        self._tls, self._wire, self._python = tls, wire, python
        if tls:
            self.programs = ("openssl",)

    def server(self, lab: Lab) -> list[str]:
        """In the foreground, so that we know its process number."""
        command = [self._python, "-m", "etherws", "server", "--foreground"]
        command += ["--address", OUTER_B, "--port", str(self.port), "--device", self.device]
        if self._tls:
            keyfile, certfile = certificate(lab)
            command += ["--keyfile", str(keyfile), "--certfile", str(certfile)]
        return command

    def client(self, lab: Lab) -> list[str]:
        """With TLS the client verifies the server, as a user's client does."""
        command = [self._python, "-m", "etherws", "client", "--foreground", "--device", self.device, "--proxy", ""]
        command += ["--uri", f"{'wss' if self._tls else 'ws'}://{OUTER_B}:{self.port}/"]
        # By default both ends use the newest version.
        if self._wire == 1:
            command += ["--wire", "1"]
        if self._tls:
            command += ["--cacert", str(certificate(lab)[1])]
        return command


class OpenVpn(Tunnel):
    """OpenVPN in tap mode, point to point, AES-256-GCM."""

    programs = ("openvpn", "openssl")

    def __init__(self, name: str, number: int, *, protocol: str, congestion: str = CONGESTION) -> None:
        super().__init__(name, number)
        self._protocol, self.congestion = protocol, congestion
        self.over_tcp = protocol == "tcp"

    def server(self, lab: Lab) -> list[str]:
        """The end that listens."""
        return [*self._common(lab), "--local", OUTER_B, "--lport", str(self.port), *self._role("server")]

    def client(self, lab: Lab) -> list[str]:
        """The end that connects."""
        return [*self._common(lab), "--remote", OUTER_B, str(self.port), "--nobind", *self._role("client")]

    def _role(self, role: str) -> list[str]:
        tls = ["--tls-server", "--dh", "none"] if role == "server" else ["--tls-client"]
        if self._protocol == "udp":
            return ["--proto", "udp", *tls]
        return ["--proto", f"tcp-{role}", "--socket-flags", "TCP_NODELAY", *tls]

    def _common(self, lab: Lab) -> list[str]:
        """OpenVPN 2.6 needs TLS: both ends have the same temporary certificate, and know it by its fingerprint."""
        keyfile, certfile = certificate(lab)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certfile.read_text())).hexdigest()
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
        command = ["openvpn", "--dev", self.device, "--dev-type", "tap", "--verb", "1", "--suppress-timestamps"]
        command += ["--key", str(keyfile), "--cert", str(certfile), "--peer-fingerprint", fingerprint]
        command += ["--data-ciphers", "AES-256-GCM", "--tun-mtu", "1500"]
        # Keeps the inner MSS at 1,460, as with the other peers.
        if self._protocol == "tcp":
            command += ["--mssfix", "0"]
        return command


class Vtun(Tunnel):
    """vtund, Ethernet over TCP, without compression and without encryption."""

    programs = ("vtund",)

    def server(self, lab: Lab) -> list[str]:
        """The end that listens."""
        return self._vtund(lab, "-s", "-L", OUTER_B)

    def client(self, lab: Lab) -> list[str]:
        """The end that connects: it names the session and the server's address."""
        return self._vtund(lab, "bench", OUTER_B)

    def _vtund(self, lab: Lab, *arguments: str) -> list[str]:
        """In the foreground. vtund always writes a PID file in /run, so it gets a /run of its own.

        It already runs in a mount namespace of its own, made by `ip netns exec`.
        """
        settings = lab.directory / "vtund.conf"
        settings.write_text(
            f"options {{ port {self.port}; }}\n"
            f"bench {{ passwd bench; device {self.device}; type ether; proto tcp; compress no; encrypt no; }}\n"
        )
        command = ["vtund", "-n", "-f", str(settings), *arguments]
        return ["sh", "-c", 'mount -t tmpfs bench /run && exec "$@"', "sh", *command]


class Tinc(Tunnel):
    """tinc in switch mode with two nodes, Ethernet over UDP with its default cipher."""

    programs = ("tincd",)
    over_tcp = False

    def server(self, lab: Lab) -> list[str]:
        """The node that listens."""
        return self._node(lab, "server")

    def client(self, lab: Lab) -> list[str]:
        """The node that connects."""
        return self._node(lab, "client")

    def _node(self, lab: Lab, name: str) -> list[str]:
        """In the foreground, with its own directory. The first call makes the directories of both nodes."""
        nets = lab.directory / "tinc"
        if not nets.exists():
            self._make(nets)
        return ["tincd", "--no-detach", "--config", str(nets / name), "--pidfile", str(nets / f"{name}.pid")]

    def _make(self, nets: Path) -> None:
        # The size that fits into a datagram. tinc would need ten seconds to find it, and use TCP until then.
        common = f"Port = {self.port}\nPMTU = 1451\nPMTUDiscovery = no\n"
        hosts = {"server": f"Address = {OUTER_B}\n{common}", "client": common}
        for name, host in hosts.items():
            (nets / name / "hosts").mkdir(parents=True)
            (nets / name / "hosts" / name).write_text(host)
            connect = "ConnectTo = server\n" if name == "client" else ""
            settings = f"Name = {name}\nMode = switch\nInterface = {self.device}\n{connect}"
            (nets / name / "tinc.conf").write_text(settings)
            # Without a terminal it asks no questions, and appends the public key to the host file.
            run("tincd", "--config", str(nets / name), "--generate-keys=2048", timeout=60)
        for name, other in (("server", "client"), ("client", "server")):
            (nets / other / "hosts" / name).write_text((nets / name / "hosts" / name).read_text())


class Pump(Tunnel):
    """pump.c: the design of etherws in C without WebSocket, masking and TLS, as the upper limit of its throughput."""

    programs = ("cc",)

    def server(self, lab: Lab) -> list[str]:
        """The end that listens."""
        return [self._program(lab), "listen", OUTER_B, str(self.port), self.device]

    def client(self, lab: Lab) -> list[str]:
        """The end that connects."""
        return [self._program(lab), "connect", OUTER_B, str(self.port), self.device]

    @staticmethod
    def _program(lab: Lab) -> str:
        """Return the program; the first call compiles it."""
        program = lab.directory / "pump"
        if not program.exists():
            run(*CC, "-o", str(program), str(PUMP), timeout=60)
        return str(program)


#: The peers by the names that --peers takes, in the order of a round.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Etherws("ws", 1, tls=False),
        Etherws("wss", 2, tls=True),
        Etherws("ws-v1", 3, tls=False, wire=1),
        Etherws("wss-v1", 4, tls=True, wire=1),
        OpenVpn("openvpn-tcp", 5, protocol="tcp"),
        # OpenVPN at its best on a path that loses packets.
        OpenVpn("openvpn-tcp-bbr", 11, protocol="tcp", congestion="bbr"),
        OpenVpn("openvpn-udp", 6, protocol="udp"),
        SoftEther("softether", 12),
        Vtun("vtun", 7),
        Tinc("tinc", 8),
        Pump("pump", 9),
        Vxlan("vxlan", 10),
        Peer(),
    )
}
