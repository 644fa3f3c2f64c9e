"""The results of run.py as text tables and as JSON. It measures nothing, and needs neither root nor a network.

The figure of a peer is the median of its rounds, with the least and the most beside it. Its ratio to REFERENCE is the
median of the ratios of each round. The two values of a round were measured within a minute, so a machine that becomes
slower during the run does not distort the ratio.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

from bench.scenarios import FIGURES

#: The peer to which the ratios are calculated.
REFERENCE = "openvpn-tcp"
#: The figures of each table of the documentation, and the headers of the columns.
TABLES = (
    ("tcp", "tcp-r", "tcp8"),
    ("pps", "rtt", "cpu", "rss"),
    ("slow-ping", "slow-p95", "slow-rate"),
    ("lossy-idle", "lossy-ping", "lossy-rate"),
)
COLUMNS = {
    "tcp": "TCP up, Mbit/s",
    "tcp-r": "TCP down, Mbit/s",
    "tcp8": "eight TCP up, Mbit/s",
    "pps": "64-byte frames, 1/s",
    "rtt": "round trip, idle, ms",
    "cpu": "CPU, s per GB",
    "rss": "memory of an end, MB",
    "slow-ping": "20 Mbit/s: ping, ms",
    "slow-p95": "20 Mbit/s: ping, 95th, ms",
    "slow-rate": "20 Mbit/s: rate, Mbit/s",
    "lossy-idle": "lossy: ping, idle, ms",
    "lossy-ping": "lossy: ping, ms",
    "lossy-rate": "lossy: rate, Mbit/s",
}
#: How the documentation and the plots name the peers.
LABELS = {
    "ws": "etherws ws",
    "wss": "etherws wss",
    "ws-v1": "ws, version 1",
    "wss-v1": "wss, version 1",
    "openvpn-tcp": "OpenVPN TCP",
    "openvpn-tcp-bbr": "OpenVPN TCP, bbr",
    "openvpn-udp": "OpenVPN UDP",
    "softether": "SoftEther",
    "pump": "C pump",
    "vxlan": "VXLAN",
    "bare": "no tunnel",
}


class Results:
    """The figures of each round and peer, and the failures."""

    def __init__(self, machine: dict[str, str], rounds: int, seconds: int) -> None:
        self.machine, self.rounds, self.seconds = machine, rounds, seconds
        self.failures: list[str] = []
        # figure -> peer -> round -> value
        self._values: dict[str, dict[str, dict[int, float]]] = {}

    def add(self, number: int, peer: str, figures: dict[str, float]) -> None:
        """Add the figures of one peer in one round."""
        for figure, value in figures.items():
            self._values.setdefault(figure, {}).setdefault(peer, {})[number] = value

    def ratio(self, figure: str, peer: str) -> float | None:
        """Return the peer's figure divided by the reference's; None if one of the two is missing."""
        peers = self._values[figure]
        reference = peers.get(REFERENCE, {})
        ratios = [value / reference[number] for number, value in peers[peer].items() if reference.get(number)]
        return statistics.median(ratios) if ratios else None

    def text(self) -> str:
        """Return a table of all medians, and a table for each figure with its spread and ratios."""
        lines = [f"{key}: {value}" for key, value in self.machine.items()]
        lines += [f"rounds: {self.rounds} of {self.seconds} s; medians, with the least and the most"]
        if self._values:
            lines += ["", *self._overview()]
        for name, figure in FIGURES.items():
            if peers := self._values.get(name):
                better = "more" if figure.more_is_better else "less"
                title = f"{name}: {figure.title}, {figure.unit} ({better} is better)"
                lines += ["", title, *self._rows(name, peers)]
        lines += [f"failed: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def _overview(self) -> list[str]:
        figures = [name for name in FIGURES if name in self._values]
        peers = dict.fromkeys(peer for name in figures for peer in self._values[name])
        rows = [f"{'':12}" + "".join(f"{name:>11}" for name in figures)]
        rows.append(f"{'':12}" + "".join(f"{FIGURES[name].unit:>11}" for name in figures))
        for peer in peers:
            rounds = [list(self._values[name].get(peer, {}).values()) for name in figures]
            shown = [digits(statistics.median(values)) if values else "" for values in rounds]
            rows.append((f"{peer:12}" + "".join(f"{value:>11}" for value in shown)).rstrip())
        return rows

    def _rows(self, figure: str, peers: dict[str, dict[int, float]]) -> list[str]:
        rows = [f"  {'peer':14}{'median':>10}{'least':>10}{'most':>10}"]
        if REFERENCE in peers:
            rows[0] += f"  / {REFERENCE}"
        for peer, rounds in peers.items():
            values = list(rounds.values())
            shown = [digits(value) for value in (statistics.median(values), min(values), max(values))]
            ratio = self.ratio(figure, peer)
            last = "" if ratio is None else f"{ratio:8.2f}"
            rows.append(f"  {peer:14}{shown[0]:>10}{shown[1]:>10}{shown[2]:>10}{last}".rstrip())
        return rows

    def tables(self) -> str:
        """Return the tables of reStructuredText for which there are figures, as the documentation has them."""
        found = []
        for wanted in TABLES:
            if names := [name for name in wanted if name in self._values]:
                rows = [["", *(COLUMNS[name] for name in names)]]
                for peer in dict.fromkeys(peer for name in names for peer in self._values[name]):
                    rows.append([label(peer), *(self._cell(name, peer) for name in names)])
                found.append(simple_table(rows))
        return "\n\n".join([*found, *(f"failed: {failure}" for failure in self.failures)])

    def _cell(self, figure: str, peer: str) -> str:
        values = list(self._values[figure].get(peer, {}).values())
        if not values:
            return ""
        least, middle, most = (digits(value) for value in (min(values), statistics.median(values), max(values)))
        return f"{middle} ({least} to {most})" if len(values) > 1 else middle

    def as_dict(self) -> dict[str, Any]:
        """Return all for JSON, with the value of each round: null where the round failed."""
        figures = {}
        for name, peers in self._values.items():
            figure = FIGURES[name]
            figures[name] = {
                "title": figure.title,
                "unit": figure.unit,
                "more_is_better": figure.more_is_better,
                "peers": {peer: self._summary(name, peer, values) for peer, values in peers.items()},
            }
        return {
            "machine": self.machine,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "reference": REFERENCE,
            "figures": figures,
            "failures": self.failures,
        }

    def _summary(self, figure: str, peer: str, rounds: dict[int, float]) -> dict[str, Any]:
        values = list(rounds.values())
        return {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "ratio": self.ratio(figure, peer),
            "rounds": [rounds.get(number) for number in range(1, self.rounds + 1)],
        }


def label(peer: str) -> str:
    """Return how the documentation and the plots name a peer."""
    return LABELS.get(peer, peer)


def simple_table(rows: list[list[str]]) -> str:
    """Return a simple table of reStructuredText; the first row is the header, and an empty first cell is escaped."""
    rows = [[row[0] or "\\", *(cell or "\\-" for cell in row[1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = " ".join("=" * width for width in widths)
    head, *body = (
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join([line, head, line, *body, line])


def machine() -> dict[str, str]:
    """Return what describes the machine, by name; absolute figures mean little without it."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = cpu.partition("model name")[2].partition(": ")[2].partition("\n")[0] or platform.machine()
    found = {
        "cpu": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        # This shows whether the machine had other work.
        "load": f"{os.getloadavg()[0]:.2f} at the start",
    }
    for program in ("openvpn", "vtund", "tincd", "iperf3"):
        found[program] = _version(program)
    return found


def _version(program: str) -> str:
    """Return the first number with a point that the program prints for --version. vtund prints it as an error."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    except OSError:
        return "none"
    number = re.search(r"\b\d+\.\w+(\.\w+)*", done.stdout + done.stderr)
    return number[0] if number else "unknown"


def digits(value: float) -> str:
    """Format the value with at least three digits, and only as many decimals as that needs."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"
