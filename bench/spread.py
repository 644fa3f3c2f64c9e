"""Two workers beside one: bytes per second of processor, how clients are spread, what a killed worker takes along.

One process plays all clients (raw_client.py), by version 1 of the wire. In a round, first one worker serves them, then
two, with the same load: the clients send full frames to the bridge of the server's
host. Then a worker is killed again
and again, while every client is pinged. Prints JSON. Read next: docs/workers.rst.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import signal
import socket
import statistics
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.cli import cannot_run, command, in_lab
from bench.fleet import inside
from bench.lab import OUTER_B, Lab, Namespace
from bench.process import BenchError, Process, wait_until
from bench.raw_client import LINES, PORT, accepted, connected, masked, request

#: The bridge of the server's host, which frames are sent to, and a type for experiments (IEEE 802).
BRIDGE, TYPE = bytes.fromhex("02ee000000b0"), b"\x88\xb5"
#: Bytes of a frame, and frames that a client sends at once.
FRAME, BATCH = 1514, 8
#: Seconds between two pings of a client, and for a client to be back.
PING, BACK = 0.05, 20.0
#: Seconds after a kill for which the others are watched.
OTHERS = 3.0


class Client:
    """A session, and when its last pong came."""

    def __init__(self, number: int) -> None:
        self.number, self.rng = number, random.Random(number)
        self.sock: socket.socket
        self.heard, self.gap = 0.0, 0.0
        own = bytes.fromhex("02ef0000") + number.to_bytes(2, "big")
        self.batch = b"".join([masked(self.rng, 0x82, (BRIDGE + own + TYPE).ljust(FRAME, b"x"))] * BATCH)
        self.left = b""

    def join(self) -> None:
        """Connect, as the same client. Raises OSError when refused."""
        self.sock = connected()
        self.sock.sendall(request([*LINES, b"Etherws-Resume: " + b"%022d" % self.number]))
        if not accepted(self.sock.recv(4096)):
            raise ConnectionRefusedError("no 101")
        self.sock.setblocking(False)
        self.heard, self.left = time.monotonic(), b""

    def send(self) -> None:
        """Send as much of a batch as there is room for, and go on there the next time."""
        data = self.left or self.batch
        with suppress(BlockingIOError):
            self.left = data[self.sock.send(data) :]

    def listen(self) -> bool:
        """Read; note the time. False if the connection is lost."""
        try:
            if not self.sock.recv(65536):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        now = time.monotonic()
        self.gap, self.heard = max(self.gap, now - self.heard), now
        return True


class Server:
    """The server with so many workers, in namespace b."""

    def __init__(self, host: Namespace, workers: int) -> None:
        self.host = host
        arguments = ["server", "--foreground", "--workers", str(workers), "--bridge", "br0", "--address", OUTER_B]
        argv = [sys.executable, "-m", "etherws", *arguments, "--port", str(PORT), "--log-level", "info"]
        self.process: Process = host.spawn(*argv)
        wait_until(lambda: "is up, listening" in self.process.so_far(), "the server to listen")
        self.workers = workers

    def pids(self) -> list[int]:
        """Of the workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def processor(self) -> float:
        """Seconds of processor that all its processes have used."""
        ticks = 0
        for pid in (self.process.pid, *self.pids()):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def received(self) -> int:
        """Bytes that its TAPs have given to the bridge."""
        rows = self.host.run("cat", "/proc/net/dev").splitlines()
        return sum(int(row.split()[1]) for row in rows if row.lstrip().startswith("ethws"))

    def spread(self) -> list[int]:
        """How many clients each worker has."""
        before = self.process.so_far().count(" sessions\n")
        self.process.notify(signal.SIGUSR1)
        wait_until(lambda: self.process.so_far().count(" sessions\n") >= before + self.workers, "the counters")
        return [int(count) for count in re.findall(r"(\d+) sessions\n", self.process.so_far())][-self.workers :]


def join_all(count: int) -> list[Client]:
    """So many clients, one after another."""
    clients = [Client(number) for number in range(count)]
    for client in clients:
        client.join()
    return clients


def throughput(server: Server, clients: list[Client], seconds: float, rate: float) -> float:
    """Bytes per second of processor, while all send at this rate, in Mbit/s together."""
    pause = len(clients) * BATCH * FRAME * 8 / (rate * 1e6)
    used, carried, begun = server.processor(), server.received(), time.monotonic()
    for turn in range(max(1, round(seconds / pause))):
        for number, client in enumerate(clients):
            # Evenly over the time, as far as this process is given any.
            due = begun + (turn + number / len(clients)) * pause
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            client.send()
            client.listen()
    # What still waits in sockets is carried as well.
    before = -1
    while before < (before := server.received()):
        time.sleep(0.5)
    return (server.received() - carried) / max(server.processor() - used, 0.01)


def pinged(clients: list[Client], until: float) -> set[Client]:
    """Ping all until then; return those whose connection was lost."""
    lost: set[Client] = set()
    while (now := time.monotonic()) < until:
        for client in clients:
            if client not in lost:
                with suppress(OSError):
                    client.sock.send(masked(client.rng, 0x89, b"p"))
        while (left := now + PING - time.monotonic()) > 0:
            waiting = {client.sock: client for client in clients if client not in lost}
            ready = select.select(list(waiting), [], [], left)[0]
            lost |= {waiting[sock] for sock in ready if not waiting[sock].listen()}
    return lost


def kill(server: Server, clients: list[Client]) -> dict[str, float]:
    """Kill the worker that has run for longest: how many clients were lost, the seconds until the last was back, and
    the longest silence of the others."""
    interfaces = server.host.run("ls", "/sys/class/net")
    for client in clients:
        client.gap, client.heard = 0.0, time.monotonic()
    os.kill(server.pids()[0], signal.SIGKILL)
    begun = time.monotonic()
    lost = pinged(clients, begun + 2 * PING)
    more: set[Client] = set()
    others = [client for client in clients if client not in lost]
    thread = threading.Thread(target=lambda: more.update(pinged(others, time.monotonic() + OTHERS)))
    thread.start()
    for client in lost:
        client.sock.close()
        while time.monotonic() < begun + BACK:
            with suppress(OSError):
                client.join()
                break
    took = time.monotonic() - begun
    thread.join()
    if server.host.run("ls", "/sys/class/net") != interfaces:
        raise BenchError("a client has another interface now")
    gap = max((client.gap for client in clients if client not in lost), default=0.0)
    return {"lost": len(lost), "lost later": len(more), "back": took, "gap": gap}


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    lab.b.ip("link", "add", "br0", "address", BRIDGE.hex(":"), "type", "bridge")
    lab.b.ip("link", "set", "br0", "up")
    rates: dict[int, list[float]] = {1: [], 2: []}
    spreads, kills = [], []
    with inside(lab.a):
        for number in range(options.rounds):
            for workers in (1, 2) if number % 2 else (2, 1):
                server = Server(lab.b, workers)
                clients = join_all(options.clients)
                rates[workers].append(throughput(server, clients, options.seconds, options.rate))
                if workers == 2:
                    spreads.append(server.spread())
                    if number == options.rounds - 1:
                        clients = fresh(clients)
                        kills = [one_kill(server, clients) for _ in range(options.kills)]
                for client in clients:
                    client.sock.close()
                server.process.stop()
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "bytes per second of processor": {f"{workers} workers": values for workers, values in rates.items()},
        "two workers against one": statistics.median(ratios),
        "clients of each worker": spreads,
        "kills": len(kills),
        "worst": {name: max(each[name] for each in kills) for name in kills[0]} if kills else {},
        "each kill": kills,
    }


def fresh(clients: list[Client]) -> list[Client]:
    """The same clients, with nothing on its way."""
    for client in clients:
        client.sock.close()
    for client in clients:
        client.join()
    return clients


def one_kill(server: Server, clients: list[Client]) -> dict[str, float]:
    """A kill, with both workers there before."""
    wait_until(lambda: len(server.pids()) == 2 and min(server.spread()) >= 0, "two workers")
    return kill(server, clients)


if __name__ == "__main__":
    if cannot_run():
        sys.exit(1)
    sys.exit(
        command(
            in_lab(measure),
            "Measure two workers against one.",
            [
                ("--rounds", 3, "rounds"),
                ("--clients", 200, "clients"),
                ("--seconds", 10.0, "seconds of load for each number of workers"),
                ("--rate", 200.0, "Mbit/s that all clients send together; less than one worker can carry"),
                ("--kills", 50, "how often a worker is killed"),
            ],
        )
    )
