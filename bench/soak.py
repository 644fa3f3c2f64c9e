"""Half an hour of load and cuts at the same time: ``python bench/soak.py``, as root.

A server has a few clients (fleet.py). TCP connections of all sizes run up, down and between two clients, one after
another on each route, together with datagrams. Every twenty seconds one client, by turns, is cut off in a random way
(cut_kinds.py), and must come back without help. Every minute the server or a client is restarted, by turns, in one of
the ways of RESTARTS; both are under a stand-in for systemd (tests/lab/service_manager.py). The hash of the bytes of
each connection must be the same at both ends. Prints what was carried, how long cuts and restarts lasted, and how the
memory of the server and of a client grew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.cut_kinds import CUTS
from bench.cuts import BACK_WITHIN, left_over
from bench.fleet import INNER_B, Client, Fleet, Member, inside
from bench.lab import Lab, Namespace
from bench.prober import Prober
from bench.process import BenchError, wait_until
from bench.tunnel import SO_MAX_PACING_RATE

#: The kinds of cuts that are for a single client.
KINDS = ("reset", "silent", "silent-up", "silent-down", "path", "address", "interface", "client-killed")
#: What a restart is: the signal, and what the log says when it is over. A new image, a crash, a stop and a start.
RESTARTS = {
    "exec": (signal.SIGUSR2, "handed over to version"),
    "kill": (signal.SIGKILL, "\nready "),
    "restart": (signal.SIGTERM, "\nready "),
}
#: The least and the most bytes of a connection. The logarithm of the size is distributed evenly between them.
LEAST, MOST = 100_000, 200_000_000
#: Seconds without progress after which a connection has failed. A cut takes 30 s, and the cuts of two clients may
#: overlap. TCP retransmits less and less often, down to once in two minutes. So a connection between two clients may
#: miss the times in which both are connected more than once.
STUCK = 600.0
#: The share of the time before memory is counted: first the caches and the allocator's pools fill.
WARM_UP = 0.2


@dataclass
class Way:
    """A route between two namespaces, with one connection after another. `near` opens them; if `down`, `far` sends."""

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
        """Make connections until the time `until` (time.monotonic()), or until one fails."""
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
                    self.failures.append(f"a connection of {size} bytes: {exc}")

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
                # This connection has its own generator, so the seed decides its bytes.
                sent = pool.submit(_send, source, block, size, random.Random(rng.random()))
                received = hashlib.sha256()
                while data := sink.recv(1 << 18):
                    received.update(data)
                    self.carried += len(data)
                if sent.result() != received.digest():
                    self.failures.append(f"{size} bytes were damaged")
        self.connections += 1


def _send(sock: socket.socket, block: bytes, size: int, rng: random.Random) -> bytes:
    """Send that many bytes; return their hash."""
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
    """Run the load and the cuts, and return the figures."""
    if unknown := set(options.kinds.split(",")) - set(KINDS):
        raise BenchError(f"unknown kind of cut: {unknown.pop()!r}; known: {', '.join(KINDS)}")
    seconds = 60 * options.minutes
    with Fleet(lab, options.clients, kept=options.restart_every > 0) as fleet, Prober(lab, fleet) as prober:
        prober.wait_for_all()
        held, begun = fleet.settled(), time.monotonic()
        ways = _ways(lab, fleet, options.rate * 125_000)
        threads = [
            threading.Thread(target=way.run, args=(begun + seconds, options.seed + number), daemon=True)
            for number, way in enumerate(ways)
        ]
        for thread in threads:
            thread.start()
        took, restarts, memory = _cut(fleet, prober, options, begun)
        for thread in threads:
            thread.join(STUCK)
        if failures := [f"{way.name}: {text}" for way in ways for text in way.failures]:
            raise BenchError("; ".join(failures))
        if any(thread.is_alive() for thread in threads):
            raise BenchError("a connection makes no progress")
        return {
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "TCP connections, all hashes equal": sum(way.connections for way in ways),
            "GB": round(sum(way.carried for way in ways) / 1e9, 2),
            "cuts": Counter(kind for kind, _ in took),
            "cuts lasted, s": _figures(took),
            "restarts": Counter(kind for kind, _ in restarts),
            "restarts lasted, s": _figures(restarts),
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


def _figures(took: list[tuple[str, float]]) -> dict[str, float]:
    """The median and the worst of these seconds."""
    seconds = [each for _, each in took]
    return {"median": round(statistics.median(seconds), 2), "worst": round(max(seconds), 2)} if seconds else {}


def _answered(prober: Prober, client: Client, since: float) -> bool:
    return prober.answered(client.number, since) is not None


def _restart(fleet: Fleet, prober: Prober, member: Member, how: str) -> float:
    """Restart the member; return the longest silence of a client whose connection was lost by that, in seconds."""
    number, done = RESTARTS[how]
    lost = [member] if isinstance(member, Client) else fleet.clients
    before = member.said(done)
    for client in lost:
        prober.forget(client.number)
    since = time.monotonic()
    os.kill(member.pid, number)
    wait_until(lambda: member.process.check() and member.said(done) > before, f"{how}: the next process", BACK_WITHIN)
    there = time.monotonic()
    for client in lost:
        answered = partial(_answered, prober, client, there)
        wait_until(answered, f"c{client.number} to be back after {how} of {member.namespace.name}", BACK_WITHIN)
    return max(prober.silence(client.number, since) for client in lost)


def _cut(
    fleet: Fleet, prober: Prober, options: argparse.Namespace, begun: float
) -> tuple[list[tuple[str, float]], list[tuple[str, float]], dict[str, list[float]]]:
    """Cut clients off, and restart, until the time is over; return (kind, seconds) of each cut and of each restart, and
    samples of memory."""
    rng, kinds = random.Random(options.seed), options.kinds.split(",")
    took: list[tuple[str, float]] = []
    restarts: list[tuple[str, float]] = []
    # The memory of the first client is sampled all the time, so its process must not be killed.
    turns = cycle((how, end) for how in RESTARTS for end in ("server", "client"))
    restart_due: float = options.restart_every
    memory: dict[str, list[float]] = {"server": [], "c0": []}
    # The cut of each client that is not known to be over: its kind, and when it began.
    open_cuts: dict[Client, tuple[str, float]] = {}

    def is_back(client: Client) -> bool:
        if client in open_cuts and (back := prober.answered(client.number, open_cuts[client][1])) is not None:
            kind, since = open_cuts.pop(client)
            took.append((kind, back - since))
        return client not in open_cuts

    def all_back() -> None:
        for client in fleet.clients:
            wait_until(partial(is_back, client), f"c{client.number} to be back", BACK_WITHIN)

    due = 0
    while (due := due + options.every) <= 60 * options.minutes:
        time.sleep(max(0.0, begun + due - time.monotonic()))
        memory["server"].append(fleet.server.rss())
        memory["c0"].append(fleet.clients[0].rss())
        client = fleet.clients[due // options.every % len(fleet.clients)]
        wait_until(partial(is_back, client), f"c{client.number} to be back from {open_cuts.get(client)}", BACK_WITHIN)
        prober.forget(client.number)
        client.filter()
        kind = rng.choice([kind for kind in kinds if client.number or kind != "client-killed"])
        cut = CUTS[kind]
        if cut.start:
            cut.start(client)
        if cut.restore:
            time.sleep(cut.outage)
            cut.restore(client)
        open_cuts[client] = kind, time.monotonic()
        if 0 < restart_due <= due:
            restart_due += options.restart_every
            all_back()
            how, end = next(turns)
            seconds = _restart(fleet, prober, fleet.server if end == "server" else fleet.clients[-1], how)
            restarts.append((f"{end}, {how}", seconds))
    all_back()
    return took, restarts, memory


def _grown(samples: list[float]) -> dict[str, float]:
    """Return the first, the last and the largest of the samples after the warm-up."""
    counted = samples[int(len(samples) * WARM_UP) :]
    return {"first": round(counted[0], 1), "last": round(counted[-1], 1), "most": round(max(counted), 1)}


def main() -> int:
    """Run the command line; return the exit status."""
    return command(
        in_lab(measure),
        "Load and cuts at the same time.",
        [
            ("--minutes", 30.0, "duration"),
            ("--every", 20, "seconds between two cuts"),
            ("--clients", 3, "clients"),
            (
                "--rate",
                40,
                "Mbit/s of a TCP connection at most; there are two connections for each client, and one more",
            ),
            ("--kinds", ",".join(KINDS), "the kinds of cuts"),
            ("--restart-every", 60, "seconds between two restarts; 0: none"),
            ("--seed", 1, "decides the sizes and the cuts"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
