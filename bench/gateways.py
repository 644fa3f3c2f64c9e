"""What several gateways cost: how fast BGP tells them where addresses are, and what a broadcast takes.

Gateways are network namespaces with contrib/evpn, Debian's FRR and an etherws server (tests/lab/gateways.py). Machines
appear at the first gateway all at once, as after its restart, and then move to the second, as when it has died. What
counts is the processor time of each process: the seconds are those of a machine on which all gateways share the cores.
docs/gateways.rst has the figures.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, command
from bench.process import BenchError
from bench.raw_client import LINES, accepted, request
from etherws.kernel.announce import FRAME, NEAREST_BRIDGE, TYPE
from etherws.kernel.netns import Namespace
from tests.lab.gateways import (
    FRR,
    VXLAN,
    Gateway,
    Network,
    address_of,
    gateway_network,
    join,
    mac_of,
    machine_behind,
    pings,
)
from tests.lab.hosts import Host

#: Seconds until all gateways must know.
LIMIT = 300.0
#: Seconds between two looks.
LOOK = 0.1
#: A network to which the copies of a broadcast go for gateways that are not there.
AWAY = "198.51.100"
#: The least of so many measurements is taken: others use the machine, too.
TRIES = 5
#: Seconds between two broadcasts that come one by one.
PAUSE = 0.01
#: Hundredths of a second, of /proc/PID/stat.
TICK = os.sysconf("SC_CLK_TCK")


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid: int) -> float:
    """MB of memory that a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1000


def slab() -> float:
    """MB of memory that the kernel's small objects have, of the whole machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Slab:"))) / 1000


class Speaker:
    """Machines at a port of a gateway: frames come from their addresses."""

    def __init__(self, gateway: Host) -> None:
        gateway.command("ip link add speaker type veth peer name speaks")
        for name in ("speaker", "speaks"):
            gateway.command(f"ip link set {name} addrgenmode none up")
        gateway.command("ip link set speaker master br0")
        self._sock = gateway.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.bind(("speaks", 0))

    def speak(self, machines: int) -> None:
        """One frame from each. Bridges learn from it, and do not pass it on."""
        for number in range(machines):
            source = b"\x02\xee" + number.to_bytes(4, "big")
            self._sock.send((NEAREST_BRIDGE + source + TYPE).ljust(FRAME, b"\0"))

    def broadcast(self, count: int, pause: float = 0.0) -> float:
        """Send broadcasts, with a pause in seconds behind each; return the microseconds of processor time that each
        took, the bridge and VXLAN included."""
        frame = (b"\xff" * 6 + b"\x02\xee" + b"\xff" * 4 + TYPE).ljust(FRAME, b"\0")
        begun = time.process_time()
        for _ in range(count):
            self._sock.send(frame)
            if pause:
                time.sleep(pause)
        return (time.process_time() - begun) / count * 1e6


def known(gateway: Gateway, at: Gateway) -> int:
    """How many addresses this gateway sends to that other one."""
    process = gateway.run("bridge", "fdb", "show", "dev", VXLAN)
    if process.ends() != 0:
        raise BenchError(process.output)
    # One of these lines is of broadcasts.
    return process.output.count(f" dst {at.address} ") - (at.address in gateway.peers())


def spread(network: Network, speaker: Speaker, machines: int, at: int) -> dict[str, Any]:
    """Machines speak at the gateway of this index: what each process used until all others knew where they are."""
    others = [gateway for number, gateway in enumerate(network.gateways) if number != at]
    pids = {
        (number, name): process.pid
        for number, gateway in enumerate(network.gateways)
        for name, process in zip(("zebra", "bgpd"), gateway.frr.processes, strict=True)
    }
    before = {who: processor(pid) for who, pid in pids.items()}
    begun = time.monotonic()
    speaker.speak(machines)
    while any(known(gateway, network.gateways[at]) < machines for gateway in others):
        if time.monotonic() > begun + LIMIT:
            raise BenchError(f"not all gateways know {machines} addresses after {LIMIT:.0f} s")
        time.sleep(LOOK)
    seconds = time.monotonic() - begun
    found: dict[str, Any] = {"seconds": round(seconds, 2), "addresses per second": round(machines / seconds)}
    for name in ("zebra", "bgpd"):
        used = {number: processor(pid) - before[number, name] for (number, each), pid in pids.items() if each == name}
        found[f"{name} µs per address, where they are"] = round(used.pop(at) / machines * 1e6)
        found[f"{name} µs per address, elsewhere"] = round(max(used.values()) / machines * 1e6)
    found["MB of zebra, bgpd"] = [round(resident(pids[at, name]), 1) for name in ("zebra", "bgpd")]
    return found


def addresses(machines: int, gateways: int) -> dict[str, Any]:
    """Machines appear at the first gateway, and then at the second."""
    with gateway_network(gateways) as network:
        first, second = map(Speaker, network.gateways[:2])
        empty = [round(resident(process.pid), 1) for process in network.gateways[0].frr.processes]
        return {
            "MB of zebra, bgpd before": empty,
            "appear": spread(network, first, machines, 0),
            "move": spread(network, second, machines, 1),
        }


def entries(count: int) -> float:
    """Bytes of kernel memory for each address in a bridge and in VXLAN, as at a gateway of which it is not."""
    host = Host()
    try:
        host.command("ip link add br0 type bridge")
        host.command("ip link add vxlan100 type vxlan id 100 local 127.0.0.1 dstport 4789 nolearning")
        host.command("ip link set vxlan100 master br0")
        batch = "".join(
            f"fdb add 02:ee:{n >> 24:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x} dev vxlan100 {what}\n"
            for n in range(count)
            for what in ("master extern_learn dynamic", f"self dst {AWAY}.1 extern_learn dynamic")
        )
        path = Path(f"/tmp/entries-{os.getpid()}")
        path.write_text(batch)
        try:
            before = slab()
            process = host.run("bridge", "-batch", str(path))
            if process.ends(LIMIT) != 0:
                raise BenchError(process.output)
            return (slab() - before) / count * 1e6
        finally:
            path.unlink()
    finally:
        host.close()


def copies(speaker: Speaker, gateway: Host, frames: int, count: int) -> float:
    """Microseconds for each copy of a broadcast to another gateway."""
    gateway.command("ip link add away type veth peer name nowhere")
    for name in ("away", "nowhere"):
        gateway.command(f"ip link set {name} addrgenmode none arp off up")
    gateway.command(f"ip route add {AWAY}.0/24 dev away")
    without = min(speaker.broadcast(frames) for _ in range(TRIES))
    for number in range(1, count + 1):
        gateway.command(f"bridge fdb append 00:00:00:00:00:00 dst {AWAY}.{number} dev {VXLAN}")
    return (min(speaker.broadcast(frames) for _ in range(TRIES)) - without) / count


def clients(host: Host, count: int) -> list[socket.socket]:
    """Connections of clients by version 1 of the wire to the first gateway. Nobody reads them."""
    found = []
    for _ in range(count):
        sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.connect((address_of(1), 80))
        sock.send(request(LINES))
        if not accepted(sock.recv(4096)):
            raise BenchError("a client was refused")
        found.append(sock)
    return found


def broadcasts(frames: int, ports: int, gateways: int) -> dict[str, Any]:
    """What a broadcast takes for each port, and for each gateway."""
    with gateway_network(1) as network:
        gateway = network.gateways[0]
        speaker = Speaker(gateway)
        copy = copies(speaker, gateway, frames, gateways)
        host = network.machine(11)
        clients(host, ports)
        if gateway.server is None:
            raise BenchError("no server")
        kernel, used = {}, {}
        for how, pause in (("at once", 0.0), ("one by one", PAUSE)):
            before, last = processor(gateway.server.pid), -1.0
            kernel[how] = speaker.broadcast(frames, pause) / ports
            while last != (now := processor(gateway.server.pid)):
                last = now
                time.sleep(1)
            used[how] = (now - before) / frames / ports * 1e6
        return {
            "kernel µs for each other gateway": round(copy, 2),
            "kernel µs for each port, of many at once": round(kernel["at once"], 2),
            **{f"server µs for each port, {how}": round(each, 1) for how, each in used.items()},
        }


def moves(count: int) -> list[float]:
    """A client moves to and fro between two gateways, and the machine behind it says nothing: seconds from the new
    connection until the far side reaches it, by a ping each 0.1 s."""
    found = []
    with gateway_network(2) as network:
        far, _ = network.client(12, "--uri", "ws://192.0.2.2/")
        near, client = network.client(11, "--uri", "ws://192.0.2.1/")
        silent = machine_behind(near, 99)
        pings(far, 99)
        far.command(f"ip neigh replace 10.0.0.99 lladdr {mac_of(99)} dev br0 nud permanent")
        silent.command(f"ip neigh replace 10.0.0.12 lladdr {mac_of(12)} dev eth0 nud permanent")
        for turn in range(count):
            client.signal(signal.SIGKILL)
            client.ends()
            client = join(near, 11, "--uri", f"ws://192.0.2.{2 - turn % 2}/")
            begun = time.monotonic()
            while far.run("ping", "-c1", "-W0.1", "10.0.0.99").ends() != 0:
                if time.monotonic() > begun + LIMIT:
                    raise BenchError("a client that moved is not reached")
            found.append(round(time.monotonic() - begun, 2))
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    own = Namespace()
    with own, own.inside():
        own.configure("lo")
        found: dict[str, Any] = {"bytes of the kernel per address": round(entries(options.entries))}
        found["seconds until a client that moved is reached"] = moves(options.moves)
        found["broadcasts"] = broadcasts(options.broadcasts, options.ports, options.others)
        for count in map(int, options.machines.split(",")):
            found[f"{count} machines"] = addresses(count, options.gateways)
        return found


def main() -> int:
    """Run the command line; return the exit status."""
    if cannot_run(*([] if (FRR / "bgpd").exists() else ["frr"])):
        return 1
    return command(
        measure,
        "What several gateways cost, with FRR.",
        [
            ("--gateways", 3, "gateways that know each other"),
            ("--machines", "1000,3000,10000", "machines that appear and move at once"),
            ("--entries", 50_000, "addresses whose memory is measured"),
            ("--broadcasts", 200, "broadcasts"),
            ("--ports", 100, "clients of one gateway that get them"),
            ("--moves", 6, "moves of a client"),
            ("--others", 11, "other gateways that get them"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
