"""A server and many clients of it, each a machine of its own, and what can part them: for cuts.py and soak.py.

    b, 10.98.0.2: the server, and HAProxy --- switch in middle --- c0, c1, ... 10.98.0.10 and on: a client each

Every machine has a bridge, br0, with the tunnel's interfaces in it; by 10.99.0.2 in b, 10.99.0.10 and on in the others.
The server knows its clients by their tokens. Its process and theirs are `fleet.py etherws ...`: the etherws command,
which says at SIGUSR1 what it holds.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import netns

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B, VETH, BenchError, Lab, Namespace, Process, wait_until
from etherws.access import passwd

#: The server's port, the reverse proxy's, and that of who answers datagrams in the tunnel.
PORT, FRONT, ECHO = 8080, 8081, 7
OUTER, INNER, INNER_B = "10.98.0.", "10.99.0.", "10.99.0.2"
#: The first client's number in both networks.
FIRST = 10
#: Seconds between two datagrams of a prober.
TICK = 0.02
#: Seconds that a path is gone for, if it comes back by itself.
OUTAGE = 5.0

HAPROXY = f"""
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    timeout tunnel 1h
frontend web
    bind {OUTER_B}:{FRONT}
    option forwardfor
    default_backend etherws
backend etherws
    server etherws {OUTER_B}:{PORT}
"""


def etherws(*arguments: str) -> list[str]:
    """The command for one that says what it holds."""
    return [sys.executable, __file__, "etherws", *arguments]


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Move this thread into the namespace and back; sockets opened inside stay there."""
    # By the thread's own name: pushns() of pyroute2 goes by the process's, and the two may differ.
    with open("/proc/thread-self/ns/net") as home:
        netns.setns(namespace.name)
        try:
            yield
        finally:
            netns.setns(home.fileno())


class Member:
    """A machine with etherws on it, client or server."""

    def __init__(self, namespace: Namespace, *command: str) -> None:
        self.namespace, self._command = namespace, command
        self.process = self.start()

    def start(self) -> Process:
        """Start etherws here, again if need be."""
        self.process = self.namespace.spawn(*etherws(*self._command))
        return self.process

    def said(self, text: str) -> int:
        """How often this has been in the log of the process."""
        return self.process.so_far().count(text)

    def holds(self) -> dict[str, int]:
        """Its greenlets, threads and descriptors, and its machine's interfaces."""
        before = self.said("counted ")
        self.process.notify(signal.SIGUSR1)
        wait_until(lambda: self.said("counted ") > before, "etherws to count")
        held = self.process.so_far().rpartition("counted ")[2].partition("\n")[0]
        return {**json.loads(held), "interfaces": len(self.interfaces())}

    def interfaces(self) -> dict[str, tuple[Any, ...]]:
        """Those of its bridge: index, bridge, MAC and IPv4 addresses by name."""
        found = {}
        for link in json.loads(self.namespace.ip("-j", "addr", "show")):
            if link["ifname"] == "br0" or link.get("master") == "br0":
                addresses = sorted(each["local"] for each in link["addr_info"] if each["family"] == "inet")
                found[link["ifname"]] = (link["ifindex"], link.get("master"), link["address"], addresses)
        return found


class Client(Member):
    """One client's machine."""

    def __init__(self, namespace: Namespace, number: int, *command: str) -> None:
        super().__init__(namespace, *command)
        self.number, self.address, self.inner = number, f"{OUTER}{FIRST + number}", f"{INNER}{FIRST + number}"

    def connected(self) -> bool:
        """Whether it has been; raises BenchError if it has ended."""
        return self.process.check() and self.said("connected to ") > 0

    def connection(self) -> int:
        """The port that its connection comes from."""
        for row in Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "01" and int(fields[2].partition(":")[2], 16) in (PORT, FRONT):
                return int(fields[1].partition(":")[2], 16)
        raise BenchError(f"{self.namespace.name} is not connected: {self.process.so_far()[-300:]}")

    def filter(self, outgoing: str = "", incoming: str = "") -> None:
        """Have nftables do so with what leaves and what comes; nothing by default."""
        rules = ["add table ip cut", "delete table ip cut", "add table ip cut"]
        for hook, rule in (("output", outgoing), ("input", incoming)):
            rules.append(f"add chain ip cut {hook} {{ type filter hook {hook} priority 0; }}")
            if rule:
                rules.append(f"add rule ip cut {hook} {rule}")
        file = self.namespace.file("cut.nft")
        file.write_text("\n".join(rules) + "\n")
        self.namespace.run("nft", "-f", str(file))


class Fleet:
    """All of it, from `with` to its end."""

    def __init__(self, lab: Lab, clients: int, *, proxied: bool = False, persistent: bool = False) -> None:
        """By `proxied` the clients come through HAProxy; by `persistent` the TAPs are there before etherws, and stay:
        ethws0 on the clients, one named as its client on the server."""
        self._lab, self._count, self._proxied, self._persistent = lab, clients, proxied, persistent
        self.clients: list[Client] = []

    def __enter__(self) -> Fleet:
        lab, tokens = self._lab, self._lab.directory / "tokens"
        # The server's machine and a switch, instead of the pair of the other benchmarks.
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
        self.server = Member(lab.b, "server", "--foreground", "--bridge", "br0", "--device", "ethws0", *ends)
        self.listening()
        if self._proxied:
            self.start_proxy()
        uri = f"ws://{OUTER_B}:{FRONT if self._proxied else PORT}/"
        for number, (name, secret) in enumerate(zip(names, secrets, strict=True)):
            namespace = lab.namespace(name)
            self._plug(namespace, name, f"{OUTER}{FIRST + number}", f"{INNER}{FIRST + number}")
            (file := namespace.file("token")).write_text(secret)
            if self._persistent:
                _persistent(namespace, "ethws0")
            joining = ["client", "--foreground", "--bridge", "br0", "--device", "ethws0", "--token-file", str(file)]
            self.clients.append(Client(namespace, number, *joining, uri))
        for client in self.clients:
            wait_until(client.connected, "a client to connect")
        self._introduce()
        return self

    def __exit__(self, *_: object) -> None:
        for member in (*self.clients, self.server):
            member.process.stop()
        if self._proxied:
            self.proxy.stop()

    def listening(self) -> None:
        """Wait for the server to listen."""
        wait_until(lambda: self.server.process.listens(PORT), "the server to listen")

    def start_proxy(self) -> None:
        """Start the reverse proxy."""
        (file := self._lab.b.file("haproxy.cfg")).write_text(HAPROXY)
        self.proxy = self._lab.b.spawn("haproxy", "-db", "-f", str(file))
        wait_until(lambda: self.proxy.listens(FRONT), "HAProxy to listen")

    def holds(self) -> dict[str, int]:
        """What all hold together."""
        total = self.server.holds()
        for client in self.clients:
            total = {name: count + total[name] for name, count in client.holds().items()}
        return total

    def _plug(self, namespace: Namespace, port: str, address: str, inner: str) -> None:
        self._lab.middle.ip("link", "add", port, "type", "veth", "peer", "name", VETH, "netns", namespace.name)
        self._lab.middle.ip("link", "set", port, "master", "switch", "up")
        # A bridge that etherws makes goes with it. And without a MAC of its own a bridge has that of one of its ports.
        namespace.ip("link", "add", "br0", "address", _mac(inner), "type", "bridge")
        for device, own in ((VETH, address), ("br0", inner)):
            namespace.ip("link", "set", device, "up")
            namespace.ip("addr", "add", f"{own}/24", "dev", device)

    def _introduce(self) -> None:
        """Tell the machines each other's MACs. Who asks for them gets an answer at the next full second, and that is
        not what is measured."""
        for client in self.clients:
            for namespace, other in ((client.namespace, INNER_B), (self._lab.b, client.inner)):
                namespace.ip("neigh", "replace", other, "lladdr", _mac(other), "dev", "br0", "nud", "permanent")


def _mac(inner: str) -> str:
    """The bridge's, of the machine that has this address in the tunnel."""
    return f"02:00:00:00:00:{int(inner.rpartition('.')[2]):02x}"


def _persistent(namespace: Namespace, name: str) -> None:
    namespace.ip("tuntap", "add", "dev", name, "mode", "tap")
    namespace.ip("link", "set", name, "master", "br0", "up")


class Prober:
    """A datagram through each tunnel fifty times a second, and back; when which was answered."""

    _STAMP = struct.Struct("=Hd")

    def __init__(self, lab: Lab, fleet: Fleet) -> None:
        self._stop = threading.Event()
        self._sockets, self._answers = [], [list[tuple[float, float]]() for _ in fleet.clients]
        for namespace, address in ((lab.b, (INNER_B, ECHO)), *((each.namespace, None) for each in fleet.clients)):
            with inside(namespace):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            if address:
                sock.bind(address)
            self._sockets.append(sock)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def answered(self, number: int, since: float) -> float | None:
        """When the first answer came to what this client sent after `since` (time.monotonic()), if one has."""
        # Appended to by the other thread meanwhile.
        for sent, received in self._answers[number].copy():
            if sent > since:
                return received
        return None

    def forget(self, number: int) -> None:
        """Start anew with this client."""
        self._answers[number].clear()

    def _run(self) -> None:
        echo, *senders = self._sockets
        due = time.monotonic()
        poll = select.epoll()
        numbers = {sock.fileno(): number for number, sock in enumerate(senders)}
        for sock in self._sockets:
            poll.register(sock, select.EPOLLIN)
        while not self._stop.is_set():
            if (now := time.monotonic()) >= due:
                due = max(due + TICK, now)
                for number, sock in enumerate(senders):
                    # What the interface or the machine's own neighbours say against it is what it is about.
                    with suppress(OSError):
                        sock.sendto(self._STAMP.pack(number, now), (INNER_B, ECHO))
            for descriptor, _ in poll.poll(max(0.0, due - time.monotonic())):
                with suppress(OSError):
                    if descriptor == echo.fileno():
                        echo.sendto(*echo.recvfrom(64))
                    else:
                        number = numbers[descriptor]
                        _, sent = self._STAMP.unpack(senders[number].recv(64))
                        self._answers[number].append((sent, time.monotonic()))
        poll.close()


@dataclass(frozen=True)
class Cut:
    """A way to part a client from the server, and the way back if it needs one, `outage` seconds later. One that parts
    all at once is of the fleet."""

    begin: Callable[[Client], None] | None = None
    mend: Callable[[Client], None] | None = None
    outage: float = 0.0
    all_at_once: Callable[[Fleet], float] | None = None
    proxied: bool = False


def _reset(client: Client) -> None:
    port = client.connection()
    # The reset itself passes here as well.
    verdict = "tcp flags & rst == 0 reject with tcp reset"
    client.filter(f"tcp sport {port} {verdict}", f"tcp dport {port} {verdict}")


def _silence(*, up: bool, down: bool) -> Callable[[Client], None]:
    """Of this connection alone, as when a firewall forgets it: a new one would get through."""

    def begin(client: Client) -> None:
        port = client.connection()
        client.filter(f"tcp sport {port} drop" if up else "", f"tcp dport {port} drop" if down else "")

    return begin


def _move(client: Client) -> None:
    """To the other one of two addresses, as with another lease."""
    old = client.address
    host = int(old.rpartition(".")[2])
    client.address = f"{OUTER}{host + 100 if host < 100 else host - 100}"
    client.namespace.ip("addr", "del", f"{old}/24", "dev", VETH)
    client.namespace.ip("addr", "add", f"{client.address}/24", "dev", VETH)


def _kill_client(client: Client) -> None:
    client.process.kill()
    client.start()


def _kill_server(fleet: Fleet) -> float:
    fleet.server.process.kill()
    begun = time.monotonic()
    fleet.server.start()
    return begun


def _restart_server(fleet: Fleet) -> float:
    begun = time.monotonic()
    fleet.server.process.stop()
    fleet.server.start()
    return begun


def _restart_proxy(fleet: Fleet) -> float:
    begun = time.monotonic()
    fleet.proxy.stop()
    fleet.start_proxy()
    return begun


def _set(state: str) -> Callable[[Client], None]:
    def change(client: Client) -> None:
        client.namespace.ip("link", "set", VETH, state)

    return change


CUTS = {
    "reset": Cut(_reset),
    "silent": Cut(_silence(up=True, down=True)),
    "silent-up": Cut(_silence(up=True, down=False)),
    "silent-down": Cut(_silence(up=False, down=True)),
    "path": Cut(lambda client: client.filter("drop", "drop"), lambda client: client.filter(), OUTAGE),
    "address": Cut(_move),
    "interface": Cut(_set("down"), _set("up"), OUTAGE),
    "client-killed": Cut(_kill_client),
    "server-killed": Cut(all_at_once=_kill_server),
    "server-restarted": Cut(all_at_once=_restart_server),
    "proxy-restarted": Cut(all_at_once=_restart_proxy, proxied=True),
}


def main() -> None:
    """``etherws``, which says at SIGUSR1 what it holds."""
    import gevent
    from greenlet import greenlet

    from etherws.cli.commands import main as command

    def count() -> None:
        gc.collect()
        greenlets = sum(isinstance(each, greenlet) and not each.dead for each in gc.get_objects())
        held = {"greenlets": greenlets}
        for name, folder in (("threads", "task"), ("descriptors", "fd")):
            held[name] = len(os.listdir(f"/proc/self/{folder}"))
        print("counted", json.dumps(held), flush=True)

    gevent.signal_handler(signal.SIGUSR1, count)
    command(sys.argv[2:], prog_name="etherws")


if __name__ == "__main__":
    main()
