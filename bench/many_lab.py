"""A server with a bridge and a crowd of clients, and what is read of them: memory, processor time, bytes of each port.

many.py measures with it. The clients are those of load.py; spray.py sends them frames.
"""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from bench import load_frames
from bench.crowd import Crowd
from bench.fleet import inside
from bench.lab import OUTER_B, Lab
from bench.light_session import BRIDGE
from bench.load_frames import jain
from bench.peer import certificate
from bench.process import BenchError, Process, wait_until
from bench.raw_client import PORT
from bench.scenarios import answers

#: The port for TLS, if there are clients with it and clients without.
TLS_PORT = PORT + 1
#: The bridge's address inside the tunnels.
INNER = IPv4Address("10.99.0.2")
SPRAY = str(Path(__file__).with_name("spray.py"))
#: Source addresses of the clients: one for each that is busy, since a server shares its time among addresses.
ADDRESSES = 50
#: Seconds until busy clients are measured, and in which each client must have answered a ping.
WARM_UP, REACH = 1.0, 20.0
#: The number of the client that is pinged while others are busy; no crowd is as large.
SPARSE = 4000


class Many:
    """Server and clients, until the block ends. `processes` are the servers: one for ws, one for wss."""

    def __init__(self, lab: Lab, clients: int, kinds: str, *options: str) -> None:
        self.lab, self.clients, self.kinds, self._options = lab, clients, kinds, options
        self.processes: list[Process] = []

    def __enter__(self) -> Many:
        with ExitStack() as stack:
            for tls, port in ((False, PORT), (True, TLS_PORT)):
                if any(kind.startswith("wss") is tls for kind in self.kinds.split(",")):
                    self.processes.append(stack.enter_context(self._server(tls, port)))
            self.lab.b.ip("link", "set", "br0", "address", BRIDGE.hex(":"), "up")
            self.lab.b.ip("addr", "add", f"{INNER}/16", "dev", "br0")
            self.empty = self.memory()
            before = self.processor()
            self.crowd = stack.enter_context(self.more(self.clients, "--addresses", str(ADDRESSES)))
            self.connect_seconds: float = self.crowd.joined["seconds"]
            self.connect_cpu = self.processor() - before
            if self.crowd.joined["refused"]:
                raise BenchError(f"clients were refused: {self.crowd.joined['refused']}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def more(self, clients: int, *options: str) -> Crowd:
        """So many clients, of the same kinds, in a process of their own."""
        ports = ("--port", str(PORT), "--tls-port", str(TLS_PORT))
        return Crowd(self.lab.a, clients, "--kinds", self.kinds, *ports, *options)

    @contextlib.contextmanager
    def _server(self, tls: bool, port: int) -> Iterator[Process]:
        command = [sys.executable, "-m", "etherws", "server", "--foreground", "--bridge", "br0", "--log-level"]
        command += ["warning", "--address", OUTER_B, "--port", str(port), *self._options]
        if tls:
            keyfile, certfile = certificate(self.lab)
            command += ["--keyfile", str(keyfile), "--certfile", str(certfile)]
        with self.lab.b.running(*command) as process:
            wait_until(lambda: process.listens(port), "the server to listen")
            wait_until(lambda: self.lab.b.has("br0"), "the bridge")
            yield process

    def memory(self) -> float:
        """Return the PSS of all processes of the servers, in kB."""
        return sum(process.pss_of_all() for process in self.processes) * 1000

    def processor(self) -> float:
        """Return the seconds of processor that the servers have used."""
        return sum(process.cpu() for process in self.processes)

    def ports(self, column: int) -> dict[str, int]:
        """Return the bytes of each port: column 0, from its client; column 8, for it."""
        rows = Path(f"/proc/{self.processes[0].pid}/net/dev").read_text()
        found = re.findall(r"^ *(ethws\d+): *(.*)$", rows, re.MULTILINE)
        return {name: int(fields.split()[column]) for name, fields in found}

    def carried(self, column: int, busy: int, seconds: float) -> tuple[list[float], float]:
        """Return the bytes per second of the busiest ports, so many, and the server's seconds of processor per
        second."""
        time.sleep(min(WARM_UP, seconds))
        begun, before, cpu = time.monotonic(), self.ports(column), self.processor()
        time.sleep(seconds)
        ended, after, used = time.monotonic(), self.ports(column), self.processor() - cpu
        rates = [(after[name] - before.get(name, 0)) / (ended - begun) for name in after]
        return sorted(rates)[-busy:], used / (ended - begun)

    def up(self, busy: int, seconds: float) -> dict[str, float]:
        """So many clients send full frames to the bridge as fast as they may."""
        self.crowd.ask(f"busy {busy}")
        rates, used = self.carried(0, busy, seconds)
        self.crowd.ask("stop")
        return {"up": sum(rates) * 8 / 1e6, "up jain": jain(rates), "up cpu": used / (sum(rates) / 1e9)}

    def down(self, busy: int, rate: float, seconds: float) -> dict[str, float]:
        """The server's host sends to so many clients, each this many full frames per second."""
        spray = (sys.executable, SPRAY, str(busy), str(rate), str(seconds + 2 * min(WARM_UP, seconds)))
        before = sum(self.ports(8).values())
        with self.lab.b.running(*spray) as sprayed:
            # More than the kernels send by themselves. On a busy machine it takes a second until the process has begun.
            wait_until(lambda: sum(self.ports(8).values()) > before + 100_000, "the first frames")
            time.sleep(min(WARM_UP, seconds))
            found = self.crowd.measure(seconds)
            sprayed.output(seconds + 20)
        rates = found["received"][:busy]
        return {"down": sum(rates) * 8 / 1e6, "down jain": jain(rates)}

    def ping(self, seconds: float) -> list[float]:
        """Return the round trips in ms of pings from the bridge to client SPARSE."""
        command = ["ping", "-n", "-i", "0.01", "-c", str(round(seconds / 0.01)), str(load_frames.ip(SPARSE))]
        return answers(self.lab.b.run(*command, check=False, timeout=seconds + 30))

    def sparse(self, busy: int, seconds: float) -> dict[str, float]:
        """The ping of a client in a process of its own, idle, and while so many others send as fast as they may."""
        with self.more(1, "--first", str(SPARSE)):
            self.ping(0.2)
            idle = statistics.median(self.ping(seconds))
            self.crowd.ask(f"busy {busy}")
            time.sleep(min(WARM_UP, seconds))
            loaded = self.ping(seconds)
            self.crowd.ask("stop")
        p99 = statistics.quantiles(loaded, n=100, method="inclusive")[-1]
        return {"ping idle": idle, "ping": statistics.median(loaded), "ping p99": p99}

    def broadcast(self, rate: float, seconds: float) -> dict[str, float]:
        """One client sends so many broadcasts a second; what each costs the server per client that gets it, in µs."""
        self.crowd.ask(f"busy 1 rate={rate} size=60 to=all")
        before = self.ports(9)
        _, used = self.carried(9, 1, seconds)
        carried = sum(self.ports(9).values()) - sum(before.values())
        self.crowd.ask("stop")
        return {"broadcast": used * (seconds + min(WARM_UP, seconds)) / max(carried, 1) * 1e6}

    def reached(self) -> int:
        """Ping each client from the bridge; return how many have answered."""
        answered = set[int]()
        with inside(self.lab.b), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as sock:
            sock.bind(("br0", 0x0800))
            sock.settimeout(0.2)
            deadline = time.monotonic() + REACH
            while len(answered) < self.clients and time.monotonic() < deadline:
                for number in sorted(set(range(self.clients)) - answered)[:50]:
                    sock.send(load_frames.ping(BRIDGE, INNER, number, 0))
                with contextlib.suppress(TimeoutError):
                    while True:
                        data = sock.recv(2048)
                        # An echo reply (RFC 792) without IP options.
                        if data[:6] == BRIDGE and data[23] == 1 and data[34] == 0:
                            answered.add(int(IPv4Address(data[26:30])) - int(load_frames.FIRST_IP))
        return len(answered)
