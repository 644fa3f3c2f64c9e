"""A server among strangers, and a client of it that behaves: ``python bench/hostile.py``, as root.

Broken handshakes and messages (strangers.py) against a real server in a namespace, while TCP streams through the
tunnel of an honest client; then a thousand connections that say next to nothing, while new clients come. Says what the
server's memory grew by, what the stream kept of its rate, and how long new clients took; a stream that is damaged, or a
server that has ended, is a failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.lab import Lab, Process, wait_until
from bench.strangers import ADDRESSES, MESSAGES
from bench.tunnel import figures, role, stream, tunnel

STRANGERS = str(Path(__file__).with_name("strangers.py"))
#: Seconds for what is not the attack itself, at most.
CALM = 10
#: Seconds that slow connections are watched for, at most; the server gives them ten.
PATIENT = 8


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    with tunnel(lab, ADDRESSES) as (server, client):
        found = _attacked(lab, server, options)
        with lab.a.running(*role(STRANGERS, "slow", min(PATIENT, options.seconds))) as many:
            wait_until(lambda: many.check() and "ready" in many.so_far(), "slow connections")
            with lab.a.running(*role(STRANGERS, "knock")) as knocking:
                found["new clients meanwhile, s"] = figures(knocking, 60)
            found["slow connections"] = figures(many, 60)
        found["the client's tunnel was lost"] = client.so_far().count("lost")
        return found


def _attacked(lab: Lab, server: Process, options: argparse.Namespace) -> dict[str, Any]:
    """Rates and memory before, during and after the attack."""

    def attackers(messages: int, handshakes: int, seconds: float, meanwhile: Callable[[], Any]) -> list[dict[str, Any]]:
        share = [messages // options.attackers, handshakes // options.attackers, seconds]
        crowd = [lab.a.spawn(*role(STRANGERS, "attack", *share, options.seed + at)) for at in range(options.attackers)]
        try:
            meanwhile()
            return [figures(process, 3 * seconds + 60) for process in crowd]
        finally:
            for process in crowd:
                process.stop()

    def alone() -> bool:
        # The kernel takes a while to remove that many interfaces.
        return lab.b.has("ethws0") and not lab.b.has("ethws1")

    calm = min(CALM, options.seconds)
    before = stream(lab, calm, options.rate)
    # Caches fill, and the allocator takes what it keeps.
    attackers(MESSAGES * 8 * calm, 400 * calm, calm, lambda: None)
    wait_until(alone, "the first strangers to be gone")
    small, rates = server.rss(), []

    def streaming() -> None:
        rates.append(stream(lab, options.seconds, options.rate))

    reports = attackers(options.messages, options.handshakes, options.seconds, streaming)
    wait_until(alone, "the strangers to be gone")
    large, after = server.rss(), stream(lab, calm, options.rate)
    return {
        "attack": reports,
        "server's memory, MB": {"before": small, "grown by": large - small, "peak": server.peak_rss()},
        "stream, Mbit/s": {"before": before, "meanwhile": rates[0], "after": after},
        "kept of the rate": rates[0] * 2 / (before + after),
    }


def main() -> int:
    """Measure; return the exit status."""
    return command(
        in_lab(measure),
        "A server among strangers.",
        [
            ("--messages", 1_000_000, "broken messages"),
            ("--handshakes", 100_000, "broken handshakes"),
            ("--seconds", 420, "over which they are spread"),
            ("--attackers", 4, "processes that send them"),
            ("--rate", 0, "of the honest stream, bytes a second, 0 for what it can"),
            ("--seed", 1, "of what is broken"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
