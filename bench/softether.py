"""SoftEther VPN as a peer of the benchmark: Ethernet over TLS, or over UDP where that works, with its own defaults.

Its server and its client are set up by vpncmd while they run. Where to read next: peer.py, peers.py.
"""

from __future__ import annotations

from functools import partial

from bench.lab import OUTER_B, Lab, Namespace
from bench.peer import Tunnel
from bench.process import Process, run, wait_until

#: What it calls its hub, user, account and interface.
NAME = "bench"
#: Where Debian has the programs.
PROGRAMS = "/usr/libexec/softether"
#: The server listens here by itself.
PORT = 443
#: The port where the client listens for vpncmd.
CLIENT_PORT = 9931


class SoftEther(Tunnel):
    """SoftEther VPN. By default it changes to UDP as soon as that works."""

    programs = (f"{PROGRAMS}/vpnserver/vpnserver", f"{PROGRAMS}/vpnclient/vpnclient", "vpncmd")
    over_tcp = False

    def server(self, lab: Lab) -> list[str]:
        """The end that listens."""
        return self._service("vpnserver")

    def client(self, lab: Lab) -> list[str]:
        """The end that connects."""
        return self._service("vpnclient")

    @staticmethod
    def _service(program: str) -> list[str]:
        """In the foreground, with directories of its own: it always writes to these."""
        folders = "/run /var/lib /var/log"
        mounts = f"for each in {folders}; do mount -t tmpfs bench $each && mkdir $each/softether || exit; done"
        return ["sh", "-c", f'{mounts}; exec "$@"', "sh", f"{PROGRAMS}/{program}/{program}", "execsvc"]

    def _start(self, lab: Lab) -> None:
        server = lab.b.spawn(*self.server(lab))
        self.processes.append(server)
        wait_until(lambda: server.listens(PORT), f"{self.name}: a listening server")
        hub = [f"HubCreate {NAME} /PASSWORD:{NAME}", f"Hub {NAME}"]
        user = [f"UserCreate {NAME} /GROUP:none /REALNAME:none /NOTE:none", f"UserPasswordSet {NAME} /PASSWORD:{NAME}"]
        bridge = f"BridgeCreate {NAME} /DEVICE:{NAME} /TAP:yes"
        self._tell(lab, lab.b, f"localhost:{PORT}", "/SERVER", *hub, *user, bridge)
        client = lab.a.spawn(*self.client(lab))
        self.processes.append(client)
        wait_until(lambda: client.listens(CLIENT_PORT), f"{self.name}: a client that listens for vpncmd")
        account = f"AccountCreate {NAME} /SERVER:{OUTER_B}:{PORT} /HUB:{NAME} /USERNAME:{NAME} /NICNAME:{NAME}"
        password = f"AccountPasswordSet {NAME} /PASSWORD:{NAME} /TYPE:standard"
        connect = f"AccountConnect {NAME}"
        self._tell(lab, lab.a, "localhost", "/CLIENT", f"NicCreate {NAME}", account, password, connect)
        # It names them itself, and another at each end.
        for process, namespace, device in ((server, lab.b, f"tap_{NAME}"), (client, lab.a, f"vpn_{NAME}")):
            wait_until(partial(_appeared, process, namespace, device), f"{self.name}: {device}")
            namespace.ip("link", "set", device, "down")
            namespace.ip("link", "set", device, "name", self.device)
        self._address(lab)
        self.answers(lab)

    @staticmethod
    def _tell(lab: Lab, namespace: Namespace, where: str, role: str, *orders: str) -> None:
        file = lab.directory / "vpncmd.txt"
        file.write_text("\n".join(orders) + "\n")
        run(*namespace.command("vpncmd", where, role, f"/IN:{file}"))


def _appeared(process: Process, namespace: Namespace, device: str) -> bool:
    return process.check() and namespace.has(device)
