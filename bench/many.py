"""How a server grows with its clients, its workers, and the connections of a link: JSON, and plots by plots.py.

For each number of clients: how fast they connect at once, memory and processor time of idle ones, the total rate and
its shares, a ping of one client among busy ones, what a broadcast costs. For each number of connections: one link on a
clean and on a lossy path. many_lab.py has the measurements of the former, scenarios.py those of the latter.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, command, progress
from bench.crowd import give_addresses
from bench.lab import Lab
from bench.many_lab import ADDRESSES, Many
from bench.peers import Etherws
from bench.process import absent_programs
from bench.report import machine
from bench.scenarios import WARM_UP, Figure, iperf3, pinged

#: What the figures mean.
FIGURES = {
    "connect": Figure("all clients connect at once", "s", more_is_better=False),
    "connect cpu": Figure("the server's processor time for a client that connects", "ms", more_is_better=False),
    "memory": Figure("the server's memory (PSS) for an idle client", "kB", more_is_better=False),
    "kernel memory": Figure("the kernel's memory (slab) for a client, both ends", "kB", more_is_better=False),
    "idle": Figure("the server's processor time, all clients idle", "% of a core", more_is_better=False),
    "up": Figure("busy clients send, at most 50: total", "Mbit/s", more_is_better=True),
    "up jain": Figure("busy clients send, at most 50: Jain's index", "1: all the same", more_is_better=True),
    "up cpu": Figure("busy clients send, at most 50: processor time", "s/GB", more_is_better=False),
    "down": Figure("busy clients receive, at most 50: total", "Mbit/s", more_is_better=True),
    "down jain": Figure("busy clients receive, at most 50: Jain's index", "1: all the same", more_is_better=True),
    "ping idle": Figure("ping to a client, all idle: median", "ms", more_is_better=False),
    "ping": Figure("ping to a client, at most 50 others busy: median", "ms", more_is_better=False),
    "ping p99": Figure("ping to a client, at most 50 others busy: 99th percentile", "ms", more_is_better=False),
    "broadcast": Figure("the server's processor time of a broadcast for each client", "µs", more_is_better=False),
    "reached": Figure("clients that answer a ping from the bridge", "clients", more_is_better=True),
    "tcp8": Figure("one link, eight TCP flows, clean path: received", "Mbit/s", more_is_better=True),
    "lossy-rate": Figure(
        "one link, 100 Mbit/s, 40 ms, 1 % loss, eight uploads: received", "Mbit/s", more_is_better=True
    ),
    "lossy-ping": Figure(
        "one link, 100 Mbit/s, 40 ms, 1 % loss, eight uploads: ping, mean", "ms", more_is_better=False
    ),
}
#: Clients that are busy at most: each has an address of its own.
BUSY = ADDRESSES
#: Full frames per second for all clients together, more than a server can carry.
OFFERED = 150_000
#: Copies of broadcasts per second, which the clients' process can read.
COPIES = 10_000

#: A figure's values by what grows.
Values = dict[str, dict[int, float]]


class Linked(Etherws):
    """A link of so many connections."""

    def __init__(self, connections: int, workers: int) -> None:
        super().__init__(f"{connections} connections", 1, tls=False)
        self._connections, self._workers = connections, workers

    def server(self, lab: Lab) -> list[str]:
        """With workers."""
        return [*super().server(lab), *workers_option(self._workers)]

    def client(self, lab: Lab) -> list[str]:
        """With several connections; the option is not given for one, so older versions know this, too."""
        more = ["--connections", str(self._connections)] if self._connections > 1 else []
        return [*super().client(lab), *more]


def workers_option(workers: int) -> list[str]:
    """Return the server's option."""
    return ["--workers", str(workers)] if workers > 1 else []


def slab() -> float:
    """Return the kernel's memory for its own small things, of the whole machine, in kB."""
    return float(Path("/proc/meminfo").read_text().partition("Slab:")[2].split()[0]) * 1.024


def clients(lab: Lab, count: int, workers: int, options: argparse.Namespace) -> dict[str, float]:
    """Measure with so many clients and workers."""
    seconds, busy, kernel = options.seconds, min(BUSY, count), slab()
    with Many(lab, count, options.kinds, *workers_option(workers)) as many:
        # What is left of the handshakes goes first.
        time.sleep(options.idle / 4)
        used, begun = many.processor(), time.monotonic()
        time.sleep(options.idle)
        found = {
            "connect": many.connect_seconds,
            "connect cpu": many.connect_cpu * 1000 / count,
            "idle": (many.processor() - used) / (time.monotonic() - begun) * 100,
            # Before any client was busy.
            "memory": (many.memory() - many.empty) / count,
            "kernel memory": (slab() - kernel) / count,
            "reached": many.reached(),
        }
        found |= many.up(busy, seconds)
        found |= many.down(busy, OFFERED / busy, seconds)
        found |= many.sparse(busy, seconds)
        if count > 1:
            found |= many.broadcast(min(200.0, COPIES / count), seconds)
    return found


def link(lab: Lab, connections: int, workers: int, seconds: float) -> dict[str, float]:
    """Measure one link of so many connections."""
    peer = Linked(connections, workers)
    found = {}
    try:
        peer.start(lab)
        found["tcp8"] = iperf3(peer, lab, seconds, "--parallel", "8")[0]
    finally:
        peer.stop()
    with lab.lossy():
        try:
            peer.start(lab)
            rate, pings = pinged(peer, lab, max(seconds, WARM_UP), "--parallel", "8")
        finally:
            peer.stop()
    return found | {"lossy-rate": rate, "lossy-ping": sum(pings) / len(pings)}


def has_connections() -> bool:
    """Return whether this version has links of several connections."""
    done = subprocess.run([sys.executable, "-m", "etherws", "client", "--help"], capture_output=True, text=True)
    return "--connections" in done.stdout


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    counts, workers, connections = (
        [int(text) for text in chosen.split(",") if text]
        for chosen in (options.clients, options.workers, options.connections)
    )
    steps = [("clients", count, number) for number in workers for count in counts]
    if connections and has_connections():
        steps += [("connections", count, number) for number in workers for count in connections]
    figures: dict[str, dict[str, Any]] = {}
    for done, (what, count, number) in enumerate(steps):
        progress(done + 1, len(steps), f"{count} {what}, {number} workers")
        with Lab() as lab:
            give_addresses(lab.a, ADDRESSES)
            if what == "clients":
                found = clients(lab, count, number, options)
            else:
                found = link(lab, count, number, options.seconds)
        for name, value in found.items():
            about = FIGURES[name]
            figure = figures.setdefault(name, {"title": about.title, "unit": about.unit, "grows": what, "workers": {}})
            figure["workers"].setdefault(str(number), {})[str(count)] = value
    return {"machine": machine(), "kinds": options.kinds, "seconds": options.seconds, "figures": figures}


def checks(found: dict[str, Any]) -> Iterable[str]:
    """What is flat, and what is not: the cost of a client at the largest number, to that at 10."""
    for name in ("connect cpu", "memory", "broadcast"):
        for number, values in found["figures"].get(name, {"workers": {}})["workers"].items():
            if "10" in values:
                last = list(values)[-1]
                yield f"{name}, {number} workers: {last} clients to 10: {values[last] / values['10']:.2f}"


def main() -> int:
    """Run the command line; return the exit status."""
    if cannot_run(*absent_programs("ip", "ping", "openssl")):
        return 1
    return command(
        lambda options: (found := measure(options)) | {"growth": list(checks(found))},
        "How a server grows with its clients, workers and connections.",
        [
            ("--clients", "1,10,100,500,1000", "numbers of clients"),
            ("--workers", "1,2", "numbers of workers"),
            ("--connections", "1,2,4,8", "connections of one link; needs iperf3"),
            ("--kinds", "ws2", "kinds of clients, in turn: ws1, ws2, wss1, wss2"),
            ("--seconds", 3.0, "seconds of each measurement"),
            ("--idle", 40.0, "seconds in which all clients are idle: two pings of each"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
