"""Half an hour of everything at once, with a cut every twenty seconds: ``python bench/soak.py``, as root.

A few clients of one server (fleet.py). TCP connections of all sizes go up, down and between two clients, one after the
other on each way, and datagrams besides; the clients are cut off by turns, each time in a way by chance, and must come
back by themselves. The bytes of every connection must have the same hash at both ends. Says what went through, how long
the cuts lasted, and how the memory of the server and of a client grew.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.cuts import PATIENCE, left_over
from bench.fleet import CUTS, INNER_B, Client, Fleet, Prober, inside
from bench.lab import BenchError, Lab, Namespace, wait_until
from bench.tunnel import SO_MAX_PACING_RATE

#: Ways to cut a client off.
KINDS = ("reset", "silent", "silent-up", "silent-down", "path", "address", "interface", "client-killed")
#: Bytes of a connection: any order of magnitude between these is as likely.
LEAST, MOST = 100_000, 200_000_000
#: Seconds after which a connection that stands still has failed. A cut takes 30, those of two clients may overlap, and
#: TCP tries ever more rarely, up to every two minutes: between two clients one may miss the gaps several times.
STUCK = 600.0
#: Of the time, before memory counts: caches fill, and the allocator takes what it keeps.
WARM_UP = 0.2


@dataclass
class Way:
    """From one machine to another: connections one after the other, `near` opens them and sends unless `down`."""

    name: str
    near: Namespace
    far: Namespace
    address: str
    down: bool = False
    rate: int = 0
    carried: int = 0
    connections: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, until: float, seed: int) -> None:
        """Go on until then (time.monotonic()); what fails ends it."""
        rng = random.Random(seed)
        block = rng.randbytes(1 << 21)
        with inside(self.far):
            listener = socket.create_server((self.address, 0))
        with listener, ThreadPoolExecutor(1) as pool:
            listener.settimeout(STUCK)
            while time.monotonic() < until and not self.failures:
                size = int(LEAST * (MOST / LEAST) ** rng.random())
                try:
                    self._carry(listener, pool, block, size, rng)
                except OSError as exc:
                    self.failures.append(f"{size} bytes, of which were lost: {exc}")

    def _carry(
        self, listener: socket.socket, pool: ThreadPoolExecutor, block: bytes, size: int, rng: random.Random
    ) -> None:
        with inside(self.near):
            near = socket.socket()
        with near:
            near.settimeout(STUCK)
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            with far:
                far.settimeout(STUCK)
                source, sink = (far, near) if self.down else (near, far)
                source.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self.rate)
                # The generator is this connection's alone, so its bytes are those of the seed.
                sent = pool.submit(_send, source, block, size, random.Random(rng.random()))
                received = hashlib.sha256()
                while data := sink.recv(1 << 18):
                    received.update(data)
                    self.carried += len(data)
                if sent.result() != received.digest():
                    self.failures.append(f"{size} bytes were damaged")
        self.connections += 1


def _send(sock: socket.socket, block: bytes, size: int, rng: random.Random) -> bytes:
    """Send so many bytes; return their hash."""
    digest = hashlib.sha256()
    while size:
        at = rng.randrange(len(block) // 2)
        piece = block[at : at + min(size, 65536)]
        sock.sendall(piece)
        digest.update(piece)
        size -= len(piece)
    sock.shutdown(socket.SHUT_WR)
    return digest.digest()


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    if unknown := set(options.kinds.split(",")) - set(KINDS):
        raise BenchError(f"{unknown.pop()!r} is no kind of cut; choose of {', '.join(KINDS)}")
    seconds = 60 * options.minutes
    with Fleet(lab, options.clients) as fleet, Prober(lab, fleet) as prober:
        held, begun = fleet.holds(), time.monotonic()
        ways = _ways(lab, fleet, options.rate * 125_000)
        threads = [
            threading.Thread(target=way.run, args=(begun + seconds, options.seed + number), daemon=True)
            for number, way in enumerate(ways)
        ]
        for thread in threads:
            thread.start()
        took, memory = _cut(fleet, prober, options, begun)
        for thread in threads:
            thread.join(STUCK)
        if failures := [f"{way.name}: {text}" for way in ways for text in way.failures]:
            raise BenchError("; ".join(failures))
        if any(thread.is_alive() for thread in threads):
            raise BenchError("a connection stands still")
        return {
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "TCP connections, all hashes equal": sum(way.connections for way in ways),
            "GB": round(sum(way.carried for way in ways) / 1e9, 2),
            "cuts": Counter(kind for kind, _ in took),
            "cuts lasted, s": {
                "median": round(statistics.median(each for _, each in took), 2),
                "worst": round(max(each for _, each in took), 2),
            },
            "memory, MB": {name: _grown(samples) for name, samples in memory.items()},
            "held more than before": left_over(fleet, held),
        }


def _ways(lab: Lab, fleet: Fleet, rate: int) -> list[Way]:
    ways = []
    for client in fleet.clients:
        for down in (False, True):
            name = f"c{client.number} {'down' if down else 'up'}"
            ways.append(Way(name, client.namespace, lab.b, INNER_B, down, rate))
    for one, other in pairwise(fleet.clients[:2]):
        ways.append(Way("c0 to c1", one.namespace, other.namespace, other.inner, rate=rate))
    return ways


def _cut(
    fleet: Fleet, prober: Prober, options: argparse.Namespace, begun: float
) -> tuple[list[tuple[str, float]], dict[str, list[float]]]:
    """Cut, and see who comes back, until the time is over; (kind, seconds) of each, and samples of memory."""
    rng, kinds = random.Random(options.seed), options.kinds.split(",")
    took: list[tuple[str, float]] = []
    memory: dict[str, list[float]] = {"server": [], "c0": []}
    # Of each client, the cut that is not known to be over.
    open_cuts: dict[Client, tuple[str, float]] = {}

    def look(client: Client) -> bool:
        if client in open_cuts and (back := prober.answered(client.number, open_cuts[client][1])) is not None:
            kind, since = open_cuts.pop(client)
            took.append((kind, back - since))
        return client not in open_cuts

    due = 0
    while (due := due + options.every) <= 60 * options.minutes:
        time.sleep(max(0.0, begun + due - time.monotonic()))
        memory["server"].append(fleet.server.process.rss())
        memory["c0"].append(fleet.clients[0].process.rss())
        client = fleet.clients[due // options.every % len(fleet.clients)]
        wait_until(partial(look, client), f"c{client.number} to be back from {open_cuts.get(client)}", PATIENCE)
        prober.forget(client.number)
        client.filter()
        # The first one's memory is watched for all of the time.
        kind = rng.choice([kind for kind in kinds if client.number or kind != "client-killed"])
        cut = CUTS[kind]
        if cut.begin:
            cut.begin(client)
        if cut.mend:
            time.sleep(cut.outage)
            cut.mend(client)
        open_cuts[client] = kind, time.monotonic()
    for client in fleet.clients:
        wait_until(partial(look, client), f"c{client.number} to be back", PATIENCE)
    return took, memory


def _grown(samples: list[float]) -> dict[str, float]:
    """Of the samples after the warm-up: the first, the last, and the most."""
    counted = samples[int(len(samples) * WARM_UP) :]
    return {"first": round(counted[0], 1), "last": round(counted[-1], 1), "most": round(max(counted), 1)}


def main() -> int:
    """Measure; return the exit status."""
    return command(
        in_lab(measure),
        "Everything at once, and cuts.",
        [
            ("--minutes", 30.0, "how long"),
            ("--every", 20, "seconds between two cuts"),
            ("--clients", 3, "how many"),
            ("--rate", 40, "Mbit/s of a TCP connection at most; there are two for each client, and one more"),
            ("--kinds", ",".join(KINDS), "of cuts"),
            ("--seed", 1, "of sizes and cuts"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
