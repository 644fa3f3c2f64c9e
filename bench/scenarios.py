"""The measurements of run.py: each loads a tunnel that is up for some seconds, and returns figures by name.

The warm-up of a scenario is not counted. FIGURES has the meaning and the unit of each figure, and whether more or less
is better. compare.py uses a part of this for its own measurements.
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

from bench.lab import Lab
from bench.peer import Peer
from bench.process import BenchError, wait_until

#: The port of iperf3 and of flood.py's sink, at b's inner address.
PORT = 5201
#: Seconds before counting starts: in these, TCP leaves its slow start and the queues fill.
WARM_UP = 1.0
#: The same on a slow or long path, where this takes more and longer round trips. A tunnel over TCP repairs losses, so
#: its round trips vary. Cubic inside then leaves its slow start early, and needs some seconds to reach its rate.
LONG_WARM_UP = 6.0
#: The most pings of a measurement. There are fewer if they take longer than the measurement.
PINGS = 5000
#: Seconds between pings under load: often enough to show the queue, and almost no load.
INTERVAL = 0.05
#: Seconds of pings on the idle path, before the load.
IDLE = 2.0
#: The congestion control of the flows inside, instead of this machine's default. Most machines have cubic.
CONGESTION = "cubic"
FLOOD = str(Path(__file__).with_name("flood.py"))


@dataclass(frozen=True)
class Figure:
    """The meaning of a figure."""

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
    "slow-ping": Figure("20 Mbit/s: ping during eight uploads, mean", "ms", more_is_better=False),
    "slow-p95": Figure("20 Mbit/s: ping during eight uploads, 95th percentile", "ms", more_is_better=False),
    "slow-rate": Figure("20 Mbit/s, eight uploads: received", "Mbit/s", more_is_better=True),
    "lossy-idle": Figure("100 Mbit/s, 40 ms, 1 % loss: ping, idle, mean", "ms", more_is_better=False),
    "lossy-ping": Figure("100 Mbit/s, 40 ms, 1 % loss: ping during one upload, mean", "ms", more_is_better=False),
    "lossy-rate": Figure("100 Mbit/s, 40 ms, 1 % loss, one upload: received", "Mbit/s", more_is_better=True),
}


def rtt(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure the idle round trip. Each ping waits for the answer to the one before, so there is no queue."""
    ping = ("ping", "-n", "-q", "-f", "-w", str(round(seconds)), "-c")
    lab.a.run(*ping, str(PINGS // 10), peer.address_b, check=False, timeout=seconds + 10)
    text = lab.a.run(*ping, str(PINGS), peer.address_b, check=False, timeout=seconds + 10)
    found = re.search(r"= [\d.]+/([\d.]+)/", text)
    if not found:
        raise BenchError(f"ping: no answers: {text.strip()[-200:]}")
    return {"rtt": float(found[1])}


def tcp(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure one flow from client to server, the CPU that the tunnel's processes used for it, and their memory."""
    used = -peer.cpu()
    rate, carried = iperf3(peer, lab, seconds)
    figures = {"tcp": rate}
    if peer.processes:
        used += peer.cpu()
        figures["cpu"] = used / carried
        figures["rss"] = max(process.peak_rss() for process in peer.processes)
    return figures


def tcp_r(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure one flow from server to client."""
    return {"tcp-r": iperf3(peer, lab, seconds, "--reverse")[0]}


def tcp8(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure eight flows at once from client to server."""
    return {"tcp8": iperf3(peer, lab, seconds, "--parallel", "8")[0]}


def slow(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure pings while eight uploads fill the bottleneck."""
    rate, pings = pinged(peer, lab, seconds, "--parallel", "8")
    # The last of twenty equal parts begins at the 95th percentile.
    worst = statistics.quantiles(pings, n=20, method="inclusive")[-1]
    return {"slow-ping": statistics.mean(pings), "slow-p95": worst, "slow-rate": rate}


def lossy(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure one upload over a long path that loses packets, and pings before it and during it."""
    ping = _ping(peer, IDLE)
    idle = answers(lab.a.run(*ping, check=False, timeout=IDLE + 30))
    rate, pings = pinged(peer, lab, seconds)
    return {"lossy-idle": statistics.mean(idle), "lossy-ping": statistics.mean(pings), "lossy-rate": rate}


def pps(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Send more frames than the tunnel can carry; count those that leave it at the receiver's interface."""
    # Both are stopped below. If we are killed, they end after this time.
    end = (peer.address_b, str(PORT), str(WARM_UP + seconds + 10))
    with lab.b.running(sys.executable, FLOOD, "sink", *end) as sink:
        wait_until(lambda: sink.listens(PORT), "flood.py's sink to listen")
        with lab.a.running(sys.executable, FLOOD, "send", *end) as sender:
            time.sleep(WARM_UP)
            begun, (bytes_before, before) = time.monotonic(), sink.received(peer.device)
            time.sleep(seconds)
            ended, (bytes_after, after) = time.monotonic(), sink.received(peer.device)
            sender.check()
            sink.check()
    # Only the flood may have come this way. VXLAN counts frames without their header of 14 bytes.
    if not 49 <= (bytes_after - bytes_before) / max(after - before, 1) <= 65:
        raise BenchError("flood.py: the frames that arrived do not have 64 bytes")
    return {"pps": (after - before) / (ended - begun)}


def pinged(peer: Peer, lab: Lab, seconds: float, *options: str) -> tuple[float, list[float]]:
    """As iperf3(), on a slow or long path; return Mbit/s, and the round trips in ms of the pings during the flows."""
    with lab.a.running(*_ping(peer, LONG_WARM_UP + seconds)) as ping:
        rate, _ = iperf3(peer, lab, seconds, *options, warm_up=LONG_WARM_UP)
        return rate, answers(ping.output(30), after=round(LONG_WARM_UP / INTERVAL))


def _ping(peer: Peer, seconds: float) -> list[str]:
    """Return the command that sends pings from a to b for that many seconds."""
    return ["ping", "-n", "-i", str(INTERVAL), "-c", str(round(seconds / INTERVAL)), peer.address_b]


def answers(text: str, after: int = 0) -> list[float]:
    """Return the round trips in ms that ping printed, without the first `after` of them."""
    found = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", text)
    times = [float(time) for number, time in found if int(number) > after]
    if len(times) < 2:
        raise BenchError(f"ping: fewer than two answers: {text.strip()[-200:]}")
    return times


def iperf3(peer: Peer, lab: Lab, seconds: float, *options: str, warm_up: float = WARM_UP) -> tuple[float, float]:
    """Return the Mbit/s that the receiver counted, and the gigabytes that were sent, with those of the warm-up."""
    command = ["iperf3", "--client", peer.address_b, "--port", str(PORT), "--json", "--congestion", CONGESTION]
    command += ["--time", str(round(seconds)), "--omit", str(round(warm_up)), *options]
    with lab.b.running("iperf3", "--server", "--one-off", "--port", str(PORT)) as server:
        wait_until(lambda: server.listens(PORT), "iperf3 to listen")
        report = json.loads(lab.a.run(*command, check=False, timeout=warm_up + seconds + 20) or "{}")
    if "error" in report or "end" not in report:
        raise BenchError(f"iperf3: {report.get('error', 'no report')}")
    carried = sum(interval["sum"]["bytes"] for interval in report["intervals"])
    return report["end"]["sum_received"]["bits_per_second"] / 1e6, carried / 1e9


@dataclass(frozen=True)
class Scenario:
    """A measurement, the programs that it needs, and the path between a and b that it uses."""

    measure: Callable[[Peer, Lab, float], dict[str, float]]
    programs: tuple[str, ...]
    path: Callable[[Lab], AbstractContextManager[None]] = Lab.clean


#: By the names that --scenarios takes, in their order: first without load; those of the same path together.
SCENARIOS = {
    "rtt": Scenario(rtt, ("ping",)),
    "tcp": Scenario(tcp, ("iperf3",)),
    "tcp-r": Scenario(tcp_r, ("iperf3",)),
    "tcp8": Scenario(tcp8, ("iperf3",)),
    "pps": Scenario(pps, ()),
    "slow": Scenario(slow, ("iperf3", "ping", "tc"), Lab.slow),
    "lossy": Scenario(lossy, ("iperf3", "ping"), Lab.lossy),
}
