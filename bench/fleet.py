"""A server and many clients, each in its own network namespace: for cuts.py and soak.py.

    b, 10.98.0.2: server and HAProxy --- switch in namespace middle --- c0, c1, ... 10.98.0.10 and up: clients

Each namespace has a bridge br0 that contains the interfaces of the tunnels. The addresses of the bridges are 10.99.0.2
in b, and 10.99.0.10 and up at the clients. The server identifies its clients by their tokens. All processes run
`fleet.py etherws ...`: the etherws command, which prints the resources that it holds when it gets SIGRTMIN.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import netns

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B, VETH, Lab, Namespace
from bench.process import BenchError, Process, wait_until
from etherws.access import passwd

#: The ports of the server and of the reverse proxy.
PORT, PROXY_PORT = 8080, 8081
#: The networks outside and inside the tunnels, and the address of b inside.
OUTER, INNER, INNER_B = "10.98.0.", "10.99.0.", "10.99.0.2"
#: The last byte of the first client's address, in both networks.
FIRST = 10
#: Seconds between two counts of what is held, and how long they may differ. A client says that it is connected before
#: its session has begun, and what is opened then stays.
SETTLED, SETTLED_WITHIN = 0.5, 10.0

HAPROXY = f"""
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    timeout tunnel 1h
frontend web
    bind {OUTER_B}:{PROXY_PORT}
    option forwardfor
    default_backend etherws
backend etherws
    server etherws {OUTER_B}:{PORT}
"""


def etherws(*arguments: str) -> list[str]:
    """Return the command for an etherws that prints what it holds when it gets SIGRTMIN."""
    return [sys.executable, __file__, "etherws", *arguments]


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Move this thread into the namespace, and back at the end. A socket that is opened inside stays there."""
    # The namespace of this thread. pushns() of pyroute2 reads that of the process, which may be another one.
    with open("/proc/thread-self/ns/net") as home:
        netns.setns(namespace.name)
        try:
            yield
        finally:
            netns.setns(home.fileno())


class Member:
    """A namespace in which etherws runs, as client or as server."""

    def __init__(self, namespace: Namespace, *command: str, kept: bool = False) -> None:
        """With `kept`, a stand-in for systemd keeps its interfaces, and starts it again when it ends."""
        self.namespace, self._command, self._kept = namespace, etherws(*command), kept
        if kept:
            self._command = [sys.executable, "-m", "tests.lab.service_manager", *self._command]
        self.process = self.start()

    def start(self) -> Process:
        """Start etherws here, the first time or again."""
        self.process = self.namespace.spawn(*self._command)
        return self.process

    @property
    def pid(self) -> int:
        """The number of the present process of etherws."""
        return int(re.findall("^started ([0-9]+)$", self.process.so_far(), re.MULTILINE)[-1])

    def kill(self) -> None:
        """End etherws by SIGKILL, and start it again."""
        if self._kept:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.process.kill()
            self.start()

    def rss(self) -> float:
        """Return the resident memory of etherws, in MB."""
        path = Path(f"/proc/{self.pid if self._kept else self.process.pid}/statm")
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def said(self, text: str) -> int:
        """Return how often the log of the process contains the text."""
        return self.process.so_far().count(text)

    def holds(self) -> dict[str, int]:
        """Return the numbers of its greenlets, threads and descriptors, these by kind, and of the interfaces of its
        bridge."""
        before = self.said("counted ")
        os.kill(self.pid if self._kept else self.process.pid, signal.SIGRTMIN)
        wait_until(lambda: self.said("counted ") > before, "etherws to count")
        held = self.process.so_far().rpartition("counted ")[2].partition("\n")[0]
        return {**json.loads(held), "interfaces": len(self.interfaces())}

    def interfaces(self) -> dict[str, tuple[Any, ...]]:
        """Return the bridge and its ports by name: index, bridge, MAC and IPv4 addresses."""
        found = {}
        for link in json.loads(self.namespace.ip("-j", "addr", "show")):
            if link["ifname"] == "br0" or link.get("master") == "br0":
                addresses = sorted(each["local"] for each in link["addr_info"] if each["family"] == "inet")
                found[link["ifname"]] = (link["ifindex"], link.get("master"), link["address"], addresses)
        return found


class Client(Member):
    """The namespace of a client."""

    def __init__(self, namespace: Namespace, number: int, *command: str, kept: bool = False) -> None:
        super().__init__(namespace, *command, kept=kept)
        self.number, self.address, self.inner = number, f"{OUTER}{FIRST + number}", f"{INNER}{FIRST + number}"

    def connected(self) -> bool:
        """Return whether it has connected; raises BenchError when its process has ended."""
        return self.process.check() and self.said("connected to ") > 0

    def connection(self) -> int:
        """Return the source port of its connection; raises BenchError when it is not connected."""
        for row in Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "01" and int(fields[2].partition(":")[2], 16) in (PORT, PROXY_PORT):
                return int(fields[1].partition(":")[2], 16)
        raise BenchError(f"{self.namespace.name} is not connected: {self.process.so_far()[-300:]}")

    def filter(self, outgoing: str = "", incoming: str = "") -> None:
        """Set the nftables rules for outgoing and incoming packets; by default there are none."""
        rules = ["add table ip cut", "delete table ip cut", "add table ip cut"]
        for hook, rule in (("output", outgoing), ("input", incoming)):
            rules.append(f"add chain ip cut {hook} {{ type filter hook {hook} priority 0; }}")
            if rule:
                rules.append(f"add rule ip cut {hook} {rule}")
        file = self.namespace.file("cut.nft")
        file.write_text("\n".join(rules) + "\n")
        self.namespace.run("nft", "-f", str(file))


class Fleet:
    """The server and its clients. They run until the `with` block ends."""

    def __init__(
        self, lab: Lab, clients: int, *, proxied: bool = False, persistent: bool = False, kept: bool = False
    ) -> None:
        """With `proxied`, the clients connect through HAProxy. `kept` is as in Member.

        With `persistent`, the TAPs exist before etherws starts, and stay when it ends: ethws0 at the clients; at the
        server one for each client, with the client's name.
        """
        self._lab, self._count, self._proxied, self._persistent = lab, clients, proxied, persistent
        self._kept = kept
        self.clients: list[Client] = []

    def __enter__(self) -> Fleet:
        lab, tokens = self._lab, self._lab.directory / "tokens"
        # The server's namespace is connected to a switch, instead of the veth pair of the other benchmarks.
        lab.b.ip("link", "del", VETH)
        lab.middle.ip("link", "add", "switch", "up", "type", "bridge")
        self._plug(lab.b, "server", OUTER_B, INNER_B)
        names = [f"c{number}" for number in range(self._count)]
        secrets = [passwd.add_token(tokens, name) for name in names]
        ends = ["--address", OUTER_B, "--port", str(PORT), "--token-file", str(tokens), "--trusted-proxy", OUTER_B]
        if self._persistent:
            for name in ("ethws0", *names):
                _persistent(lab.b, name)
            (policy := lab.b.file("policy.toml")).write_text(
                "".join(f'[client.{name}]\ndevice = "{name}"\n' for name in names)
            )
            ends += ["--policy", str(policy)]
        serving = ["server", "--foreground", "--bridge", "br0", "--device", "ethws0", *ends]
        self.server = Member(lab.b, *serving, kept=self._kept)
        self.listening()
        if self._proxied:
            self.start_proxy()
        uri = f"ws://{OUTER_B}:{PROXY_PORT if self._proxied else PORT}/"
        for number, (name, secret) in enumerate(zip(names, secrets, strict=True)):
            namespace = lab.namespace(name)
            self._plug(namespace, name, f"{OUTER}{FIRST + number}", f"{INNER}{FIRST + number}")
            (file := namespace.file("token")).write_text(secret)
            if self._persistent:
                _persistent(namespace, "ethws0")
            joining = ["client", "--foreground", "--bridge", "br0", "--device", "ethws0", "--token-file", str(file)]
            self.clients.append(Client(namespace, number, *joining, uri, kept=self._kept))
        for client in self.clients:
            wait_until(client.connected, "a client to connect")
        self._set_neighbours()
        return self

    def __exit__(self, *_: object) -> None:
        for member in (*self.clients, self.server):
            member.process.stop()
        if self._proxied:
            self.proxy.stop()

    def listening(self) -> None:
        """Wait until the server listens."""
        wait_until(lambda: self.server.process.listens(PORT), "the server to listen")

    def start_proxy(self) -> None:
        """Start the reverse proxy."""
        (file := self._lab.b.file("haproxy.cfg")).write_text(HAPROXY)
        self.proxy = self._lab.b.spawn("haproxy", "-db", "-f", str(file))
        wait_until(lambda: self.proxy.listens(PROXY_PORT), "HAProxy to listen")

    def holds(self) -> Counter[str]:
        """Return what all processes hold together."""
        total = Counter(self.server.holds())
        for client in self.clients:
            total.update(client.holds())
        return total

    def settled(self) -> Counter[str]:
        """As holds(), once two counts in a row are the same: what is opened a moment after a tunnel is there counts as
        well. After SETTLED_WITHIN seconds whatever is held then."""
        end, before, now = time.monotonic() + SETTLED_WITHIN, None, self.holds()
        while now != before and time.monotonic() < end:
            time.sleep(SETTLED)
            before, now = now, self.holds()
        return now

    def _plug(self, namespace: Namespace, port: str, address: str, inner: str) -> None:
        self._lab.middle.ip("link", "add", port, "type", "veth", "peer", "name", VETH, "netns", namespace.name)
        self._lab.middle.ip("link", "set", port, "master", "switch", "up")
        # etherws removes a bridge that it has made. Without a MAC of its own, a bridge takes that of a port.
        namespace.ip("link", "add", "br0", "address", _mac(inner), "type", "bridge")
        for device, own in ((VETH, address), ("br0", inner)):
            namespace.ip("link", "set", device, "up")
            namespace.ip("addr", "add", f"{own}/24", "dev", device)

    def _set_neighbours(self) -> None:
        """Set the MACs of the other ends. After a cut, ARP would retry only once a second, and distort the times."""
        for client in self.clients:
            for namespace, other in ((client.namespace, INNER_B), (self._lab.b, client.inner)):
                namespace.ip("neigh", "replace", other, "lladdr", _mac(other), "dev", "br0", "nud", "permanent")


def _kind(number: int) -> str:
    """What a descriptor of this process is: numbers in its name would make each its own kind."""
    try:
        name = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        # The one that listed them.
        return "closed"
    if not name.startswith("socket:"):
        return re.sub("[0-9]+", "N", name)
    with socket.socket(fileno=os.dup(number)) as sock:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return f"{sock.family.name} {sock.type.name}{' that listens' if listens else ''}"


def _mac(inner: str) -> str:
    """Return the MAC of the bridge that has this inner address."""
    return f"02:00:00:00:00:{int(inner.rpartition('.')[2]):02x}"


def _persistent(namespace: Namespace, name: str) -> None:
    namespace.ip("tuntap", "add", "dev", name, "mode", "tap")
    namespace.ip("link", "set", name, "master", "br0", "up")


def main() -> None:
    """Run the etherws command; at SIGRTMIN it prints the resources that it holds."""
    import gevent
    from greenlet import greenlet

    from etherws.cli.commands import main as command
    from etherws.kernel import packet_sockets

    def count() -> None:
        # What etherws has put aside (etherws/garbage.py) is not in get_objects(), and when it does so is by chance.
        gc.unfreeze()
        gc.collect()
        greenlets = sum(isinstance(each, greenlet) and not each.dead for each in gc.get_objects())
        held = Counter({"greenlets": greenlets, "threads": len(os.listdir("/proc/self/task"))})
        held.update(f"descriptors, {_kind(int(number))}" for number in os.listdir("/proc/self/fd"))
        # How many are in its supply depends on whether the first was needed before the supply was made.
        held["descriptors, AF_PACKET SOCK_RAW"] -= len(packet_sockets.descriptors())
        print("counted", json.dumps(held), flush=True)

    gevent.signal_handler(signal.SIGRTMIN, count)
    command(sys.argv[2:], prog_name="etherws")


if __name__ == "__main__":
    main()
