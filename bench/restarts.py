"""How long an IP address on the server's ethws0 is not reached when the server is restarted: ``bench/restarts.py``.

A server and a client, each with an address on its ethws0, no bridge. The server is ended by SIGTERM and started again,
and its interface gets its address as soon as it is there. The client pings that address fifty times a second all the
time, so it has a neighbour entry of before. Prints the seconds from the SIGTERM to the first answer. See also cuts.py.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.cuts import STEADY
from bench.fleet import inside
from bench.lab import OUTER_B, Lab
from bench.process import BenchError, Process, wait_until
from bench.raw_client import PORT
from bench.tunnel import INNER_A, INNER_B

DEVICE = "ethws0"
#: Seconds between two pings: the resolution of what is measured.
TICK = 0.02
#: Seconds in which an answer must come. Linux uses a neighbour entry for 45 s at most before it asks again.
BACK_WITHIN = 90.0
#: Seconds by which the time between two restarts is longer, at random: neighbour entries have any age then.
SPREAD = 2.0

#: An echo request (RFC 792); the kernel fills in the checksum and the identifier.
_ECHO = struct.Struct("!BBHHH")


def serve(lab: Lab) -> Process:
    """Start the server, and give its interface the address."""
    server = lab.b.spawn(
        *(sys.executable, "-m", "etherws", "server", "--foreground", "--address", OUTER_B, "--port", str(PORT))
    )
    try:
        wait_until(lambda: server.check() and lab.b.has(DEVICE), "the server's interface")
        lab.b.ip("addr", "add", f"{INNER_B}/24", "dev", DEVICE)
    except BaseException:
        server.stop()
        raise
    return server


def first_answer(sock: socket.socket) -> float:
    """Ping until an answer comes to a ping that was sent from now on; return when that was, by time.monotonic()."""
    deadline, first, number = time.monotonic() + BACK_WITHIN, random.randrange(1 << 16), 0
    while (now := time.monotonic()) < deadline:
        with suppress(OSError):
            sock.sendto(_ECHO.pack(8, 0, 0, 0, (first + number) & 0xFFFF), (INNER_B, 0))
        number = min(number + 1, (1 << 15) - 1)
        while (left := now + TICK - time.monotonic()) > 0:
            sock.settimeout(left)
            with suppress(OSError):
                kind, _, _, _, answered = _ECHO.unpack_from(sock.recv(64))
                # An answer to a ping of before counts for nothing.
                if kind == 0 and (answered - first) & 0xFFFF <= number:
                    return time.monotonic()
    raise BenchError(f"no answer within {BACK_WITHIN:g} s after a restart")


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """Restart the server again and again, and return the figures."""
    lab.a.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 0")
    with inside(lab.a):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    took: list[float] = []
    rng = random.Random(options.seed)
    server = serve(lab)
    try:
        client = [sys.executable, "-m", "etherws", "client", "--foreground", f"ws://{OUTER_B}:{PORT}/"]
        with sock, lab.a.running(*client) as running:
            wait_until(lambda: running.check() and "connected to" in running.so_far(), "the client to connect")
            lab.a.ip("addr", "add", f"{INNER_A}/24", "dev", DEVICE)
            for _ in range(options.restarts):
                first_answer(sock)
                time.sleep(options.steady + rng.uniform(0, SPREAD))
                begun = time.monotonic()
                server.stop()
                server = serve(lab)
                took.append(first_answer(sock) - begun)
    finally:
        server.stop()
    return {
        "restarts": len(took),
        "reachable again after, s": {"median": round(statistics.median(took), 2), "worst": round(max(took), 2)},
    }


if __name__ == "__main__":
    sys.exit(
        command(
            in_lab(measure),
            "Measure how long an address on the server's interface is not reached when the server is restarted.",
            [("--restarts", 50, "how often"), ("--seed", 1, "decides when"), ("--steady", STEADY, "s between two")],
        )
    )
