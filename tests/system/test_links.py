"""Links of several connections, with a client made of bare sockets: one process, --workers and gunicorn."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import packets
from tests.lab.hosts import Host, Process, until
from tests.lab.peer import VERSION_2, Peer, masked, request
from tests.lab.records import record, vnet
from tests.lab.servers import gunicorn

#: The client's machine, and another one in the LAN.
THEIRS, OTHER = bytes([2, 0xEE, 0, 0, 0, 1]), bytes([2, 0xEE, 0, 0, 0, 2])

LINK, TOKEN = "x" * 22, "t" * 22

#: Flows of the LAN. With four queues, one that gets none of them is less likely than 1 in 50,000.
FLOWS = 40


class Running:
    """A server in a bridge, in which the test has an interface as well."""

    def __init__(self, host: Host, kind: str) -> None:
        self.host = host
        with host.netlink() as route:
            route.link("add", ifname="lan0", kind="veth", peer="far0")
        for name in ("lan0", "far0"):
            host.command(f"ip link set {name} addrgenmode none")
            host.set_link(name, state="up")
        host.bridge("br0", "lan0")
        if kind == "gunicorn":
            pytest.importorskip("gunicorn", reason="gunicorn is not installed")
            self.process: Process = gunicorn(host, "-w", "2", "-b", "127.0.0.1:80", ETHERWS_SERVER_BRIDGE="br0")
            self.process.says("Booting worker", times=2)
        else:
            several = ["--workers", "2"] if kind == "workers" else []
            address = ["--address", "127.0.0.1", "--port", "80"]
            self.process = host.etherws("server", "--foreground", "--bridge", "br0", *address, *several)
            self.process.says("is up, listening")
        #: gunicorn shows warnings only.
        self.logs = kind != "gunicorn"
        self.several = kind != "one process"
        until(lambda: "ethws0" in host.links(), lambda: f"ethws0 to appear; {self.process.output}")
        self.lan = host.frames("far0")

    def ask(self, number: int, *, new: bool = False, link: str = LINK) -> tuple[Peer, bytes]:
        """A connection of the link, and the head of what it is answered."""
        features = f"v2, link={number};of=4;id={link}" + (";new" if new else "")
        answers: list[tuple[Peer, bytes]] = []

        def answered() -> bool:
            # The kernel resets what is in the queue of a worker that was killed.
            with contextlib.suppress(ConnectionError):
                peer = Peer(self.host)
                peer.say(request(**{**VERSION_2, "Etherws_Features": features}, Etherws_Resume=TOKEN))
                if head := peer.head():
                    answers.append((peer, head))
            return bool(answers)

        until(answered, lambda: f"an answer; {self.process.output}")
        return answers[0]

    def join(self, number: int, *, new: bool = False) -> Peer:
        """A connection that is a member of the link."""
        peer, head = self.ask(number, new=new)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert f"link={number};of=4, proof=".encode() in head, head
        return peer

    def taps(self) -> int:
        """How many interfaces clients have."""
        return sum(name.startswith("ethws") for name in self.host.links())

    def queues(self) -> int:
        """How many queues the first interface has, to which the kernel gives frames."""
        data = self.host.links()["ethws0"].get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        return int(data.get_attr("IFLA_TUN_NUM_QUEUES"))

    def owners(self) -> list[int]:
        """The processes that have queues, but for the one with the ports: workers with connections."""
        found = []
        for each in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                same = each.name.isdecimal() and os.path.samefile(each / "ns/net", f"/proc/{self.process.pid}/ns/net")
                command = (each / "cmdline").read_bytes() if same else b""
                if b"port_process" not in command and (b"gunicorn" in command or b"etherws.workers" in command):
                    fds = [os.readlink(fd) for fd in (each / "fd").iterdir()]
                    found += [int(each.name)] * ("/dev/net/tun" in fds)
        return found


def passes(peer: Peer, running: Running, number: int) -> bool:
    """Whether a frame of this connection comes to the LAN."""
    sent = packets.frame(b"\x88\xb5" + bytes([number]), sender=THEIRS)
    peer.say(masked(0x82, record(vnet() + sent)))
    while (got := running.lan.receive()) != sent:
        assert got
    return True


def heard(peers: list[Peer], running: Running, begin: int) -> list[int]:
    """Send a frame of each of many flows from the LAN; return how many of them come by each connection, when all have
    come: each once."""
    flows = {
        packets.frame(packets.IPV4 + packets.ipv4(packets.UDP, packets.udp(begin + at, 2000)), sender=OTHER)
        for at in range(FLOWS)
    }
    for sent in flows:
        running.lan.send(sent)
    counts = [0] * len(peers)
    missing = set(flows)
    while missing:
        readable = [peer for peer in peers if peer._left or select.select([peer._socket], [], [], 0.01)[0]]
        for peer in readable:
            opcode, payload = peer.frame()
            if opcode == 0x89:
                peer.say(masked(0x8A, payload))
                continue
            assert opcode == 0x82, payload
            while payload:
                size = int.from_bytes(payload[:4], "big")
                frame, payload = payload[14 : 4 + size], payload[4 + size :]
                if frame in flows:
                    missing.remove(frame)
                    counts[peers.index(peer)] += 1
    return counts


@pytest.fixture(params=["one process", "workers", "gunicorn"])
def running(host: Host, request: pytest.FixtureRequest) -> Iterator[Running]:
    found = Running(host, request.param)
    yield found
    assert "Traceback" not in found.process.output, found.process.output


def test_a_link_lives_as_long_as_one_of_its_connections(running: Running) -> None:
    # Where nobody has the link, it is refused with the mend.
    _, head = running.ask(1)
    assert head.startswith(b"HTTP/1.1 409 Conflict"), head
    peers = [running.join(0, new=True), *(running.join(number) for number in (1, 2, 3))]
    assert running.taps() == 1

    def are_at_both() -> bool:
        peers[3].reset()
        peers[3] = running.join(3)
        return len(running.owners()) == 2

    if running.owners():
        until(are_at_both, "connections at both workers")
    assert all(passes(peer, running, number) for number, peer in enumerate(peers))
    assert min(heard(peers, running, 1000)) > 0
    _, head = running.ask(1, link="y" * 22)
    assert head.startswith(b"HTTP/1.1 409 Conflict"), head

    def is_at_both() -> bool:
        # A worker that was slow to begin has none yet.
        if len(running.owners()) < 2:
            peers[3] = running.join(3)
        return len(running.owners()) == 2

    if running.several:
        until(is_at_both, "connections at both workers")
    # Some end at once, the founder among them: their worker is killed, or they are cut.
    if workers := running.owners():
        os.kill(workers[0], signal.SIGKILL)
    else:
        for peer in peers[:2]:
            peer.reset()
    left = [peer for peer in peers if peer.alive()]
    assert 0 < len(left) < 4
    until(lambda: running.queues() == len(left), lambda: f"their queues to go: {running.queues()}")
    assert all(passes(peer, running, 10 + number) for number, peer in enumerate(left))
    assert sum(heard(left, running, 2000)) == FLOWS
    # Others take their places, and one replaces another.
    back = [running.join(number) for number in range(4) if peers[number] not in left]
    now = [*left, *back]
    assert all(passes(peer, running, 20 + number) for number, peer in enumerate(now))
    assert sum(heard(now, running, 3000)) == FLOWS
    instead = running.join(peers.index(left[0]))
    assert instead.alive()
    # With workers, the old one may go on for a moment.
    assert sum(heard([instead, *now], running, 4000)) == FLOWS
    # What its client still sends by the old one arrives.
    assert passes(left[0], running, 30)
    # Another worker takes the place of the one that was killed, and its connections are of the link as well.
    more = [instead]

    def is_at_both_again() -> bool:
        more.append(running.join(3))
        return len(running.owners()) == 2

    if workers:
        until(is_at_both_again, "connections at both workers")
    if running.logs:
        line = re.compile(r": lost connection \d on ethws0: .*; \d of 4 are there")
        until(lambda: len(line.findall(running.process.output)) >= 4 - len(left), "a line for each that was lost")
    for peer in (*now, *more):
        assert " left ethws0 after " not in running.process.output
        peer.say(masked(0x88, b"\x03\xe8"))
        peer.rest()
    # And the interface is free for the next one.
    assert passes(running.join(0, new=True), running, 40)
    assert running.taps() == running.queues() == 1
    if running.logs:
        assert running.process.output.count(" joined on ") == 2
        assert running.process.output.count(" left ethws0 after ") == 1
