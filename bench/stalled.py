"""A client that has stopped reading, and one that behaves: ``python bench/stalled.py``, as root.

A guest joins the server beside an honest client, and the server's LAN never stops sending to it: frames small and full,
of one flow and of thousands, and broadcasts. In turns the guest reads; is stalled, which is a guest that reads nothing,
but gives a sign of life every few seconds; or is no client at all, but another port of the bridge. All three get the
same flood, whose sender takes of the machine what it takes: between the first two only the stall differs, and the last
says what a server spends on nobody. Each turn has a TCP stream of the honest client, its pings while it does nothing
else, and its pings beside a stream of a moderate rate. Says what the stalled guest leaves of the rate and makes of the
pings, and by how much the server's memory grew meanwhile. The processes are ``stalled.py flood|join ...``.
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
from bench.lab import OUTER_B, BenchError, Lab, Process, wait_until
from bench.scenarios import answers
from bench.strangers import LINES, PORT, masked, request
from bench.tunnel import INNER_B, role, stream, tunnel
from etherws.tunnel.fq_codel import CAP
from etherws.tunnel.wire import COMPLETE

#: The guest's interface on the server, and the port of the bridge that stands in for it.
GUEST, STAND_IN = "ethws1", "standin"
#: Whose turn it is: the interface, the address in the LAN, and the MAC.
TURNS = {
    "nobody": (STAND_IN, "10.99.0.3", "02:ee:00:00:00:03"),
    "reading": (GUEST, "10.99.0.4", "02:ee:00:00:00:04"),
    "stalled": (GUEST, "10.99.0.5", "02:ee:00:00:00:05"),
}
BROADCAST = "10.99.0.255"
#: One frame of so many is a broadcast, which the honest client gets as well.
TO_ALL = 20
#: UDP ports of the many flows: more than the server's queue tells apart.
FLOWS = 2000
#: UDP payloads that make the least Ethernet frame and a full one.
SMALL, FULL = 18, 1472
#: Seconds between two signs of life: far fewer than the server waits.
SIGN = 3
#: Bytes a second of the moderate stream.
MODERATE = 12_500_000
#: Seconds between pings.
INTERVAL = 0.01


def flood(whom: str, rate: int, seconds: float) -> None:
    """Send so many datagrams a second, evenly."""
    payloads = bytes(SMALL), bytes(FULL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        begun = time.monotonic()
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            # Both sizes in one flow, and in the many.
            port = 10_000 + number % (2 * FLOWS) if number % 4 < 2 else 9
            sock.sendto(payloads[number % 2], (whom if number % TO_ALL else BROADCAST, port))


def join(turn: str, version: int, seconds: float) -> None:
    """Be the guest."""
    rng = random.Random(0)
    source = bytes.fromhex(TURNS[turn][2].replace(":", ""))
    frame = b"\xff" * 6 + source + b"\x88\xb5" + bytes(46)
    with socket.socket() as sock:
        sock.settimeout(20)
        if turn == "stalled":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((OUTER_B, PORT))
        sock.sendall(request([*LINES, b"Sec-WebSocket-Protocol: etherws.v2"] if version == 2 else LINES))
        if not sock.recv(4096).startswith(b"HTTP/1.1 101"):
            raise SystemExit("the guest was not let in")
        # From now on the bridge knows where its MAC is.
        record = (len(COMPLETE) + len(frame)).to_bytes(4, "big") + COMPLETE + frame
        sock.sendall(masked(rng, 0x82, record if version == 2 else frame))
        due, end = time.monotonic(), time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= due:
                sock.sendall(masked(rng, 0x8A, b""))
                due = now + SIGN
            if select.select([sock] if turn == "reading" else [], [], [], due - now)[0] and not sock.recv(1 << 18):
                raise SystemExit("the server hung up on a guest that reads")


@contextmanager
def _flooded(lab: Lab, server: Process, turn: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Whoever's turn it is, under the flood, with the queue full if it is the stalled one's; what was seen of it."""
    device, whom, _ = TURNS[turn]
    # Both are stopped below; should we be killed, they end by themselves.
    most = 10 * options.seconds + 60
    found: dict[str, Any] = {}
    guest = None if turn == "nobody" else lab.a.spawn(*role(__file__, "join", turn, options.wire, most))
    try:
        if guest:
            wait_until(lambda: guest.check() and lab.b.has(GUEST) and server.received(GUEST)[1] > 0, "a guest")
        found["before"] = server.rss()
        # The peak is counted from here on (proc(5)).
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        with lab.b.running(*role(__file__, "flood", whom, options.flood, most)) as flooding:
            # The queue of a stalled guest is full after that, with half of it again for the sockets' buffers; and in
            # every turn the flood's sender has long begun.
            already = server.sent(device)[0]
            wait_until(lambda: server.sent(device)[0] - already > 1.5 * CAP, "a full queue", 60)
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
    # The kernel takes a while to remove an interface.
    wait_until(lambda: not lab.b.has(GUEST), "the guest to be gone")


def _pings(text: str) -> dict[str, float]:
    """What ping printed, in ms."""
    times = answers(text)
    return {"median": statistics.median(times), "p95": statistics.quantiles(times, n=20, method="inclusive")[-1]}


def _turn(lab: Lab, server: Process, turn: str, options: argparse.Namespace) -> dict[str, Any]:
    """The honest client's figures meanwhile."""
    ping = ["ping", "-n", "-i", str(INTERVAL), "-c", str(round(options.seconds / INTERVAL)), INNER_B]
    with _flooded(lab, server, turn, options) as found:
        found["rate"] = stream(lab, options.seconds, 0)
        found["idle"] = _pings(lab.a.run(*ping, check=False, timeout=3 * options.seconds + 30))
        with lab.a.running(*ping) as pinging:
            stream(lab, options.seconds, MODERATE)
            found["beside a stream"] = _pings(pinging.output(3 * options.seconds + 30))
    return found


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    with tunnel(lab, 0) as (server, client):
        # Its other end drops what comes.
        lab.b.ip("link", "add", STAND_IN, "type", "veth", "peer", "name", STAND_IN, "netns", lab.a.name)
        lab.b.ip("link", "set", STAND_IN, "master", "br0", "up")
        lab.a.ip("link", "set", STAND_IN, "up")
        lab.b.run("bridge", "fdb", "add", TURNS["nobody"][2], "dev", STAND_IN, "master", "static")
        for _, whom, mac in TURNS.values():
            lab.b.ip("neigh", "add", whom, "lladdr", mac, "dev", "br0")
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            # Each begins with another, so that a slow minute falls on all alike; the first ends with the stalled one,
            # when the others have taken what memory they take.
            order = [*TURNS][number % 3 :] + [*TURNS][: number % 3]
            rounds.append({turn: _turn(lab, server, turn, options) for turn in order})
        return _summary(rounds, server.so_far(), client.so_far(), options)


def _summary(
    rounds: list[dict[str, dict[str, Any]]], server: str, client: str, options: argparse.Namespace
) -> dict[str, Any]:
    """What the turns come to."""
    dropped = sum(map(int, re.findall(rf"left {GUEST} .*?(\d+) queue full", server)))
    if not dropped:
        raise BenchError("the queue of the stalled client was never full")
    pings = [(load, figure) for load in ("idle", "beside a stream") for figure in ("median", "p95")]
    stalled = [each["stalled"] for each in rounds]
    arrived = [each.get("frames/s", 0) for turns in rounds for each in turns.values() if each["stayed"]]
    if min(arrived) < options.flood / 2:
        raise BenchError(f"the flood reached its end at {min(arrived):.0f} frames a second, which is too slow")

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
    """Measure, or be one of the processes; return the exit status."""
    if sys.argv[1:2] == ["flood"]:
        flood(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return 0
    if sys.argv[1:2] == ["join"]:
        join(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return 0
    return command(
        in_lab(measure),
        "A client that reads nothing.",
        [
            ("--flood", 4000, "frames a second that the LAN sends"),
            ("--seconds", 2, "of one measurement"),
            ("--rounds", 5, "how often"),
            ("--wire", 2, "version that the guest speaks"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
