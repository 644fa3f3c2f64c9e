"""The measurements: each is given a tunnel that is up, loads it for so many seconds, and returns figures by name.

A scenario's own warm-up is not counted. FIGURES says what each figure is, in which unit, and which way is better.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.lab import BenchError, Lab, wait_until
from bench.peers import Peer

#: The port of iperf3 and of the sink, at b's inner address.
PORT = 5201
#: Seconds before counting starts: TCP's slow start, and queues that fill.
WARM_UP = 1.0
#: The same on a slow or a long path, where all of that takes more round trips, and longer ones. Cubic inside a tunnel
#: that mends losses sees round trips that vary, leaves its slow start early for that, and climbs for some seconds.
LONG_WARM_UP = 6.0
#: Pings of one measurement, at most; fewer where they take longer than the seconds of a measurement.
PINGS = 5000
#: Seconds between pings under load: often enough to see the queue, and next to no load of their own.
INTERVAL = 0.05
#: Seconds of ping on the idle path, before the load.
IDLE = 2.0
#: The congestion control of the flows inside, whatever this machine has by default; most have this.
CONGESTION = "cubic"
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
    "tcp8": Figure("eight TCP flows, client to server: received", "Mbit/s", more_is_better=True),
    "pps": Figure("64-byte frames, client to server: delivered", "1/s", more_is_better=True),
    "slow-ping": Figure("20 Mbit/s, eight uploads: ping meanwhile, mean", "ms", more_is_better=False),
    "slow-p95": Figure("20 Mbit/s, eight uploads: ping meanwhile, 95th percentile", "ms", more_is_better=False),
    "slow-rate": Figure("20 Mbit/s, eight uploads: received", "Mbit/s", more_is_better=True),
    "lossy-idle": Figure("100 Mbit/s, 40 ms, 1 % loss: ping, idle, mean", "ms", more_is_better=False),
    "lossy-ping": Figure("100 Mbit/s, 40 ms, 1 % loss, one upload: ping meanwhile, mean", "ms", more_is_better=False),
    "lossy-rate": Figure("100 Mbit/s, 40 ms, 1 % loss, one upload: received", "Mbit/s", more_is_better=True),
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
    used = -peer.cpu()
    rate, carried = _iperf3(peer, lab, seconds)
    figures = {"tcp": rate}
    if peer.processes:
        used += peer.cpu()
        figures["cpu"] = used / carried
        figures["rss"] = max(process.peak_rss() for process in peer.processes)
    return figures


def tcp_r(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """One flow from server to client."""
    return {"tcp-r": _iperf3(peer, lab, seconds, "--reverse")[0]}


def tcp8(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Eight flows at once from client to server."""
    return {"tcp8": _iperf3(peer, lab, seconds, "--parallel", "8")[0]}


def slow(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Eight uploads fill the bottleneck; what does someone feel who only types?"""
    rate, pings = _pinged(peer, lab, seconds, "--parallel", "8")
    # Of twenty parts of equal size, the last begins at the 95th percentile.
    worst = statistics.quantiles(pings, n=20, method="inclusive")[-1]
    return {"slow-ping": statistics.mean(pings), "slow-p95": worst, "slow-rate": rate}


def lossy(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """One upload over a long path that loses packets, and ping before and meanwhile."""
    ping = _ping(peer, IDLE)
    idle = answers(lab.a.run(*ping, check=False, timeout=IDLE + 30))
    rate, pings = _pinged(peer, lab, seconds)
    return {"lossy-idle": statistics.mean(idle), "lossy-ping": statistics.mean(pings), "lossy-rate": rate}


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
    # Nothing but the flood came this way; VXLAN counts frames without their header of 14 bytes.
    if not 49 <= (bytes_after - bytes_before) / max(after - before, 1) <= 65:
        raise BenchError("flood.py: what arrived were not frames of 64 bytes")
    return {"pps": (after - before) / (ended - begun)}


def _pinged(peer: Peer, lab: Lab, seconds: float, *options: str) -> tuple[float, list[float]]:
    """As _iperf3, but on a slow or long path: Mbit/s, and the pings in ms that were answered meanwhile."""
    with lab.a.running(*_ping(peer, LONG_WARM_UP + seconds)) as ping:
        rate, _ = _iperf3(peer, lab, seconds, *options, warm_up=LONG_WARM_UP)
        return rate, answers(ping.output(30), after=round(LONG_WARM_UP / INTERVAL))


def _ping(peer: Peer, seconds: float) -> list[str]:
    """The command for pings from a to b for so many seconds."""
    return ["ping", "-n", "-i", str(INTERVAL), "-c", str(round(seconds / INTERVAL)), peer.address_b]


def answers(text: str, after: int = 0) -> list[float]:
    """The round trips in ms that ping printed, without its first ones."""
    found = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", text)
    times = [float(time) for number, time in found if int(number) > after]
    if len(times) < 2:
        raise BenchError(f"ping: hardly an answer: {text.strip()[-200:]}")
    return times


def _iperf3(peer: Peer, lab: Lab, seconds: float, *options: str, warm_up: float = WARM_UP) -> tuple[float, float]:
    """Mbit/s that the receiving end counted, and the gigabytes that were sent, warm-up included."""
    command = ["iperf3", "--client", peer.address_b, "--port", str(PORT), "--json", "--congestion", CONGESTION]
    command += ["--time", str(round(seconds)), "--omit", str(round(warm_up)), *options]
    with lab.b.running("iperf3", "--server", "--one-off", "--port", str(PORT)) as server:
        wait_until(lambda: server.listens(PORT), "iperf3: a listening server")
        report = json.loads(lab.a.run(*command, check=False, timeout=warm_up + seconds + 20) or "{}")
    if "error" in report or "end" not in report:
        raise BenchError(f"iperf3: {report.get('error', 'no report')}")
    carried = sum(interval["sum"]["bytes"] for interval in report["intervals"])
    return report["end"]["sum_received"]["bits_per_second"] / 1e6, carried / 1e9


@dataclass(frozen=True)
class Scenario:
    """A measurement, the programs that it needs, and the path between a and b on which it is taken."""

    measure: Callable[[Peer, Lab, float], dict[str, float]]
    programs: tuple[str, ...]
    path: Callable[[Lab], AbstractContextManager[None]] = Lab.clean


#: By the name that --scenarios takes, in the order in which they run: the quiet one first, those of one path together.
SCENARIOS = {
    "rtt": Scenario(rtt, ("ping",)),
    "tcp": Scenario(tcp, ("iperf3",)),
    "tcp-r": Scenario(tcp_r, ("iperf3",)),
    "tcp8": Scenario(tcp8, ("iperf3",)),
    "pps": Scenario(pps, ()),
    "slow": Scenario(slow, ("iperf3", "ping", "tc"), Lab.slow),
    "lossy": Scenario(lossy, ("iperf3", "ping"), Lab.lossy),
}
