"""A server under broken handshakes and messages, and an honest client of it: ``python bench/broken.py``, as root.

Broken handshakes and messages (attackers.py) go to a server, while a TCP stream runs through the tunnel of an honest
client. Then a thousand connections send almost nothing, while new clients connect. Prints how much the server's memory
grew, the stream's rate before, during and after the attack, and how long new clients took to connect. A damaged stream
is a failure, and so is a server that has ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.attackers import ADDRESSES, MESSAGES
from bench.cli import command, in_lab
from bench.lab import Lab
from bench.process import Process, wait_until
from bench.tunnel import figures, role, stream, tunnel

ATTACKERS = str(Path(__file__).with_name("attackers.py"))
#: The most seconds for each measurement without an attack.
CALM = 10
#: The most seconds for which the slow connections are watched; the server ends them after ten.
WATCHED = 8


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """Run the attack and the slow connections; return the figures."""
    with tunnel(lab, ADDRESSES) as (server, client):
        found = _attacked(lab, server, options)
        with lab.a.running(*role(ATTACKERS, "slow", min(WATCHED, options.seconds))) as many:
            wait_until(lambda: many.check() and "ready" in many.so_far(), "the slow connections")
            with lab.a.running(*role(ATTACKERS, "connect")) as connecting:
                found["new clients at the same time, s"] = figures(connecting, 60)
            found["slow connections"] = figures(many, 60)
        found["the client's tunnel was lost"] = client.so_far().count("lost")
        return found


def _attacked(lab: Lab, server: Process, options: argparse.Namespace) -> dict[str, Any]:
    """Return the rates and the memory before, during and after the attack."""

    def attackers(messages: int, handshakes: int, seconds: float, during: Callable[[], Any]) -> list[dict[str, Any]]:
        share = [messages // options.attackers, handshakes // options.attackers, seconds]
        crowd = [lab.a.spawn(*role(ATTACKERS, "attack", *share, options.seed + at)) for at in range(options.attackers)]
        try:
            during()
            return [figures(process, 3 * seconds + 60) for process in crowd]
        finally:
            for process in crowd:
                process.stop()

    def alone() -> bool:
        # The kernel needs some time to remove that many interfaces.
        return lab.b.has("ethws0") and not lab.b.has("ethws1")

    calm = min(CALM, options.seconds)
    before = stream(lab, calm, options.rate)
    # A short attack first, which fills the caches and the allocator's pools.
    attackers(MESSAGES * 8 * calm, 400 * calm, calm, lambda: None)
    wait_until(alone, "the end of the first sessions")
    small, rates = server.rss(), []

    def measure_stream() -> None:
        rates.append(stream(lab, options.seconds, options.rate))

    reports = attackers(options.messages, options.handshakes, options.seconds, measure_stream)
    wait_until(alone, "the end of the attackers' sessions")
    large, after = server.rss(), stream(lab, calm, options.rate)
    return {
        "attack": reports,
        "server's memory, MB": {"before": small, "grown by": large - small, "peak": server.peak_rss()},
        "stream, Mbit/s": {"before": before, "during": rates[0], "after": after},
        "kept of the rate": rates[0] * 2 / (before + after),
    }


def main() -> int:
    """Run the command line; return the exit status."""
    return command(
        in_lab(measure),
        "A server under attack.",
        [
            ("--messages", 1_000_000, "broken messages"),
            ("--handshakes", 100_000, "broken handshakes"),
            ("--seconds", 420, "duration of the attack"),
            ("--attackers", 4, "processes that send them"),
            ("--rate", 0, "of the honest stream, bytes per second; 0: no limit"),
            ("--seed", 1, "decides what is broken, and how"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
