"""A client that has stopped reading, beside an honest one: ``python bench/stalled.py``, as root.

A second client, the guest, joins the server, and the server's LAN floods it: small and full frames, of one flow and of
thousands, and broadcasts. There are three turns, all with the same flood. In "reading" the guest reads. In "stalled" it
reads nothing, but sends a keepalive every few seconds. In "nobody" there is no guest: the flood goes to another port of
the bridge. Each turn measures the honest client: a TCP stream, pings when idle, pings beside a moderate stream. Prints
each figure, the ratio of the stalled turn to the others, and how much the server's memory grew. The processes are
``stalled.py flood|join ...``.
"""

from __future__ import annotations

import argparse
import random
import re
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.lab import OUTER_B, Lab
from bench.process import BenchError, Process, wait_until
from bench.raw_client import LINES, LINES_V2, PORT, TIMEOUT, accepted, masked, request
from bench.scenarios import answers
from bench.tunnel import INNER_B, role, stream, tunnel
from etherws.tunnel.fq_codel import CAP
from etherws.tunnel.wire import COMPLETE

#: The guest's interface on the server, and the bridge port that replaces it when there is no guest.
GUEST, STAND_IN = "ethws1", "standin"
#: The turns: for each the interface, the address in the LAN, and the MAC.
TURNS = {
    "nobody": (STAND_IN, "10.99.0.3", "02:ee:00:00:00:03"),
    "reading": (GUEST, "10.99.0.4", "02:ee:00:00:00:04"),
    "stalled": (GUEST, "10.99.0.5", "02:ee:00:00:00:05"),
}
BROADCAST = "10.99.0.255"
#: One frame in this many is a broadcast, which the honest client receives too.
BROADCAST_EVERY = 20
#: UDP ports of the many flows: more than the server's fair queue has buckets.
FLOWS = 2000
#: Bytes of UDP payload in the smallest Ethernet frame and in a full one.
SMALL, FULL = 18, 1472
#: Seconds between two keepalives of the guest: far fewer than the server waits.
KEEPALIVE = 3
#: Bytes per second of the moderate stream.
MODERATE = 12_500_000
#: Seconds between pings.
INTERVAL = 0.01


def flood(target: str, rate: int, seconds: float) -> None:
    """Send that many datagrams per second to the target, evenly."""
    payloads = bytes(SMALL), bytes(FULL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        begun = time.monotonic()
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            # Both sizes occur in the one flow and in the many.
            port = 10_000 + number % (2 * FLOWS) if number % 4 < 2 else 9
            sock.sendto(payloads[number % 2], (target if number % BROADCAST_EVERY else BROADCAST, port))


def join(turn: str, version: int, seconds: float) -> None:
    """Be the guest for that many seconds."""
    rng = random.Random(0)
    source = bytes.fromhex(TURNS[turn][2].replace(":", ""))
    frame = b"\xff" * 6 + source + b"\x88\xb5" + bytes(46)
    with socket.socket() as sock:
        sock.settimeout(TIMEOUT)
        if turn == "stalled":
            # Before connect(), since the window scale is fixed there (tcp(7)).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((OUTER_B, PORT))
        sock.sendall(request(LINES_V2 if version == 2 else LINES))
        if not accepted(sock.recv(4096)):
            raise SystemExit("the guest was refused")
        # With its first frame the bridge learns the guest's MAC.
        record = (len(COMPLETE) + len(frame)).to_bytes(4, "big") + COMPLETE + frame
        sock.sendall(masked(rng, 0x82, record if version == 2 else frame))
        due, end = time.monotonic(), time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= due:
                sock.sendall(masked(rng, 0x8A, b""))
                due = now + KEEPALIVE
            if select.select([sock] if turn == "reading" else [], [], [], due - now)[0] and not sock.recv(1 << 18):
                raise SystemExit("the server closed the connection of a guest that reads")


@contextmanager
def _flooded(lab: Lab, server: Process, turn: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the flood of a turn; yield when it has begun, in the stalled turn when the queue is full.

    The dictionary that it yields gets the figures of the flood and the server's memory.
    """
    device, target, _ = TURNS[turn]
    # Both are stopped below. If we are killed, they end after this time.
    most = 10 * options.seconds + 60
    found: dict[str, Any] = {}
    guest = None if turn == "nobody" else lab.a.spawn(*role(__file__, "join", turn, options.wire, most))
    try:
        if guest:
            wait_until(lambda: guest.check() and lab.b.has(GUEST) and server.received(GUEST)[1] > 0, "a guest")
        found["before"] = server.rss()
        # Resets the peak of the memory (proc(5)).
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        with lab.b.running(*role(__file__, "flood", target, options.flood, most)) as flooding:
            # After this, the queue of a stalled guest is full; what comes in addition is for the sockets' buffers.
            already, enough = server.sent(device)[0], (2 if turn == "stalled" else 1.5) * CAP
            wait_until(lambda: server.sent(device)[0] - already > enough, "a full queue", 60)
            begun, frames = time.monotonic(), server.sent(device)[1]
            yield found
            flooding.check()
            found["stayed"] = lab.b.has(device)
            if found["stayed"]:
                found["frames/s"] = (server.sent(device)[1] - frames) / (time.monotonic() - begun)
        found["peak"] = server.peak_rss()
        if guest and turn == "reading":
            guest.check()
    finally:
        if guest:
            guest.stop()
    # The kernel needs some time to remove an interface.
    wait_until(lambda: not lab.b.has(GUEST), "the end of the guest's session")


def _pings(text: str) -> dict[str, float]:
    """Return the median and the 95th percentile of what ping printed, in ms."""
    times = answers(text)
    return {"median": statistics.median(times), "p95": statistics.quantiles(times, n=20, method="inclusive")[-1]}


def _turn(lab: Lab, server: Process, turn: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the honest client's figures in this turn."""
    ping = ["ping", "-n", "-i", str(INTERVAL), "-c", str(round(options.seconds / INTERVAL)), INNER_B]
    with _flooded(lab, server, turn, options) as found:
        found["rate"] = stream(lab, options.seconds, 0)
        found["idle"] = _pings(lab.a.run(*ping, check=False, timeout=3 * options.seconds + 30))
        with lab.a.running(*ping) as pinging:
            stream(lab, options.seconds, MODERATE)
            found["beside a stream"] = _pings(pinging.output(3 * options.seconds + 30))
    return found


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all turns in each round; return the figures."""
    with tunnel(lab, 0) as (server, client):
        # The other end of this veth pair drops what it receives.
        lab.b.ip("link", "add", STAND_IN, "type", "veth", "peer", "name", STAND_IN, "netns", lab.a.name)
        lab.b.ip("link", "set", STAND_IN, "master", "br0", "up")
        lab.a.ip("link", "set", STAND_IN, "up")
        lab.b.run("bridge", "fdb", "add", TURNS["nobody"][2], "dev", STAND_IN, "master", "static")
        for _, target, mac in TURNS.values():
            lab.b.ip("neigh", "add", target, "lladdr", mac, "dev", "br0")
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            # Each round begins with another turn, so a slow minute of the machine affects all. The first round ends
            # with the stalled turn: then the memory that the other turns need is already in use.
            order = [*TURNS][number % 3 :] + [*TURNS][: number % 3]
            rounds.append({turn: _turn(lab, server, turn, options) for turn in order})
        return _summary(rounds, server.so_far(), client.so_far(), options)


def _summary(
    rounds: list[dict[str, dict[str, Any]]], server: str, client: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of all rounds, and the ratios of the stalled turn to the others."""
    dropped = sum(map(int, re.findall(rf"left {GUEST} .*?(\d+) queue full", server)))
    if not dropped:
        raise BenchError("the queue of the stalled client was never full")
    pings = [(load, figure) for load in ("idle", "beside a stream") for figure in ("median", "p95")]
    stalled = [each["stalled"] for each in rounds]
    arrived = [each.get("frames/s", 0) for turns in rounds for each in turns.values() if each["stayed"]]
    if min(arrived) < options.flood / 2:
        raise BenchError(f"only {min(arrived):.0f} frames per second of the flood arrived; half of the rate is needed")

    def against(other: str) -> dict[str, float]:
        ratios = {"rate": statistics.median(each["stalled"]["rate"] / each[other]["rate"] for each in rounds)}
        for load, figure in pings:
            ratios[f"ping {load}, {figure}"] = statistics.median(
                each["stalled"][load][figure] / each[other][load][figure] for each in rounds
            )
        return ratios

    return {
        turn: {
            "stream, Mbit/s": [each[turn]["rate"] for each in rounds],
            **{f"ping {load}, {figure}, ms": [each[turn][load][figure] for each in rounds] for load, figure in pings},
            "flood, frames/s": [each[turn].get("frames/s") for each in rounds],
        }
        for turn in TURNS
    } | {
        "stalled by nobody": against("nobody"),
        "stalled by reading": against("reading"),
        "server's memory, MB": {
            "before": stalled[0]["before"],
            "peak": max(each["peak"] for each in stalled),
            "grown by": max(each["peak"] for each in stalled) - stalled[0]["before"],
            "the queue's cap": CAP / 1e6,
        },
        "stalled sessions": {
            "stayed": sum(each["stayed"] for each in stalled),
            "ended": sum(not each["stayed"] for each in stalled),
            "dropped, queue full": dropped,
        },
        "the honest tunnel was lost": client.count("lost"),
    }


def main() -> int:
    """Run the command line or one of the processes; return the exit status."""
    if sys.argv[1:2] == ["flood"]:
        flood(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return 0
    if sys.argv[1:2] == ["join"]:
        join(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return 0
    return command(
        in_lab(measure),
        "A client that has stopped reading.",
        [
            ("--flood", 4000, "frames per second that the LAN sends"),
            ("--seconds", 2.0, "duration of a measurement"),
            ("--rounds", 5, "repetitions"),
            ("--wire", 2, "the guest's version of the wire format"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
