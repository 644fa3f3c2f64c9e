"""The measurements: each is given a tunnel that is up, loads it for so many seconds, and returns figures by name.

A scenario's own warm-up is not counted. FIGURES says what each figure is, in which unit, and which way is better.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.lab import BenchError, Lab, wait_until
from bench.peers import Peer

#: The port of iperf3 and of the sink, at b's inner address.
PORT = 5201
#: Seconds before counting starts: TCP's slow start, and queues that fill.
WARM_UP = 1.0
#: Pings of one measurement, at most; fewer where they take longer than the seconds of a measurement.
PINGS = 5000
FLOOD = str(Path(__file__).with_name("flood.py"))


@dataclass(frozen=True)
class Figure:
    """What a number means."""

    title: str
    unit: str
    more_is_better: bool


FIGURES = {
    "rtt": Figure("round trip, idle: ping -f, mean", "ms", more_is_better=False),
    "tcp": Figure("one TCP flow, client to server: received", "Mbit/s", more_is_better=True),
    "cpu": Figure("CPU of both ends, client to server", "s/GB", more_is_better=False),
    "rss": Figure("memory of the larger end after that, peak", "MB", more_is_better=False),
    "tcp-r": Figure("one TCP flow, server to client: received", "Mbit/s", more_is_better=True),
    "pps": Figure("64-byte frames, client to server: delivered", "1/s", more_is_better=True),
}


def rtt(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Each ping leaves when the answer to the one before is there, so this is the tunnel's latency alone."""
    ping = ("ping", "-n", "-q", "-f", "-w", str(round(seconds)), "-c")
    lab.a.run(*ping, str(PINGS // 10), peer.address_b, check=False, timeout=seconds + 10)
    text = lab.a.run(*ping, str(PINGS), peer.address_b, check=False, timeout=seconds + 10)
    found = re.search(r"= [\d.]+/([\d.]+)/", text)
    if not found:
        raise BenchError(f"ping: no answers: {text.strip()[-200:]}")
    return {"rtt": float(found[1])}


def tcp(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """One flow from client to server; with it what the tunnel's processes used for what they carried."""
    used = -_cpu(peer)
    rate, carried = _iperf3(peer, lab, seconds)
    figures = {"tcp": rate}
    if peer.processes:
        used += _cpu(peer)
        figures["cpu"] = used / carried
        figures["rss"] = max(process.peak_rss() for process in peer.processes)
    return figures


def tcp_r(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """One flow from server to client."""
    return {"tcp-r": _iperf3(peer, lab, seconds, "--reverse")[0]}


def pps(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """More than the tunnel can carry goes in; what counts is what comes out of the receiver's interface."""
    # Both are stopped below; should we be killed, they end by themselves.
    end = (peer.address_b, str(PORT), str(WARM_UP + seconds + 10))
    with lab.b.running(sys.executable, FLOOD, "sink", *end) as sink:
        wait_until(lambda: sink.listens(PORT), "flood.py: a sink")
        with lab.a.running(sys.executable, FLOOD, "send", *end) as sender:
            time.sleep(WARM_UP)
            begun, (bytes_before, before) = time.monotonic(), sink.received(peer.device)
            time.sleep(seconds)
            ended, (bytes_after, after) = time.monotonic(), sink.received(peer.device)
            sender.check()
            sink.check()
    if not 63 <= (bytes_after - bytes_before) / max(after - before, 1) <= 65:
        raise BenchError("flood.py: what arrived were not frames of 64 bytes")
    return {"pps": (after - before) / (ended - begun)}


def _iperf3(peer: Peer, lab: Lab, seconds: float, *options: str) -> tuple[float, float]:
    """Mbit/s that the receiving end counted, and the gigabytes that were sent, warm-up included."""
    command = ["iperf3", "--client", peer.address_b, "--port", str(PORT), "--json"]
    command += ["--time", str(round(seconds)), "--omit", str(round(WARM_UP)), *options]
    with lab.b.running("iperf3", "--server", "--one-off", "--port", str(PORT)) as server:
        wait_until(lambda: server.listens(PORT), "iperf3: a listening server")
        report = json.loads(lab.a.run(*command, check=False, timeout=seconds + 20) or "{}")
    if "error" in report or "end" not in report:
        raise BenchError(f"iperf3: {report.get('error', 'no report')}")
    carried = sum(interval["sum"]["bytes"] for interval in report["intervals"])
    return report["end"]["sum_received"]["bits_per_second"] / 1e6, carried / 1e9


def _cpu(peer: Peer) -> float:
    """CPU seconds of the tunnel's processes, together."""
    return sum(process.cpu() for process in peer.processes)


#: By the name that --scenarios takes, in the order in which they run: the quiet one first.
SCENARIOS: dict[str, Callable[[Peer, Lab, float], dict[str, float]]] = {
    "rtt": rtt,
    "tcp": tcp,
    "tcp-r": tcp_r,
    "pps": pps,
}
#: Programs that a scenario needs.
NEEDED = {"rtt": ("ping",), "tcp": ("iperf3",), "tcp-r": ("iperf3",), "pps": ()}
