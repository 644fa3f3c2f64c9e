"""How long a fetch takes through each tunnel and without one: ``python bench/fetch.py``, as root.

For each path, all tunnels are up at the same time. In a round each of them fetches each size once, in an order that
changes; a tunnel rests before it fetches. So a slow minute of the machine affects all of them. It prints a table for
each size: medians with the least and the most, the ratio to the path without a tunnel, and the difference to REFERENCE
in pairs of the same round, with a sign test. With --tree, it also measures other checkouts of etherws. Where to read
next: together.py (the tunnels), fetcher.py (the two ends of a fetch), path.py (the path), pairs.py (the test).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, names, progress, up_to
from bench.lab import Lab
from bench.pairs import sign_test
from bench.peer import Peer
from bench.process import BenchError, absent_programs, wait_until
from bench.report import digits, label, simple_table
from bench.together import about, add_options, chosen, outside, together

#: The port of fetcher.py's server.
FETCH_PORT = 5202
FETCHER = str(Path(__file__).with_name("fetcher.py"))
#: The peers to which differences and ratios are calculated.
REFERENCE, BARE = "openvpn-udp", "bare"
#: The peers that are measured by default.
DEFAULT = ["ws", "wss", "openvpn-tcp", "openvpn-tcp-bbr", "openvpn-udp", "tinc", "bare"]
SIZES = {"1k": 1_000, "100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
#: Seconds between two fetches of anybody: longer than a buffer takes to drain, and than the last acknowledgements.
GAP = 0.4


@dataclass(frozen=True)
class Case:
    """What is fetched over which path: milliseconds, per cent, and the size's name."""

    rtt: float
    loss: float
    size: str


@dataclass
class Row:
    """The fetches of one peer in one case. Seconds by round; infinite where the patience was over."""

    peer: str
    outside: str = ""
    seconds: dict[int, float] = field(default_factory=dict)

    def median(self) -> float:
        """Return the median of the seconds. The median of an even number is the lower one, so it may be infinite."""
        return statistics.median_low(self.seconds.values())

    def paired(self, other: Row) -> list[tuple[float, float]]:
        """Return the seconds of both in each round that both have, except where both are infinite."""
        both = ((own, other.seconds[number]) for number, own in self.seconds.items() if number in other.seconds)
        return [pair for pair in both if not math.isinf(min(pair))]


class Fetches:
    """All tunnels on all paths. `rows` grows while it measures."""

    def __init__(self, peers: list[Peer], options: argparse.Namespace) -> None:
        self._peers, self._options = peers, options
        self.rows: dict[Case, dict[str, Row]] = {}
        self.failures: list[str] = []

    def measure(self) -> None:
        """Measure each path. With a limit, each path gets the same part of the time that is left."""
        paths = list(product(self._options.rtts, self._options.losses))
        ends = time.monotonic() + (self._options.limit or math.inf)
        for number, (rtt, loss) in enumerate(paths):
            now = time.monotonic()
            try:
                with Lab() as lab:
                    self._path(lab, rtt, loss, now + (ends - now) / (len(paths) - number))
            except BenchError as exc:
                self.failures.append(f"{rtt:g} ms, {loss:g} %: {exc}")

    def _path(self, lab: Lab, rtt: float, loss: float, ends: float) -> None:
        options = self._options
        line = ["--delay", str(rtt / 2), "--loss", str(loss), "--rate", str(options.rate)]
        line += ["--buffer", str(options.buffer)]
        serve = [sys.executable, FETCHER, "serve", str(FETCH_PORT), options.inside]
        with lab.path(*line), lab.b.running(*serve) as server, together(lab, self._peers):
            wait_until(lambda: server.listens(FETCH_PORT), "fetcher.py to listen")
            self._rounds(lab, rtt, loss, ends)

    def _rounds(self, lab: Lab, rtt: float, loss: float, ends: float) -> None:
        options, order = self._options, list(self._peers)
        rested = dict.fromkeys((peer.name for peer in order), time.monotonic())
        shuffle = random.Random(1).shuffle
        for number in range(1, options.rounds + 1):
            progress(number - 1, options.rounds, f"{rtt:g} ms, {loss:g} %: round {number}")
            for size in options.sizes:
                shuffle(order)
                rows = self.rows.setdefault(Case(rtt, loss, size), {peer.name: Row(peer.name) for peer in self._peers})
                for peer in order:
                    if options.fresh:
                        peer.stop()
                        peer.start(lab)
                        rested[peer.name] = time.monotonic()
                    ready = max(rested[peer.name] + options.rest, max(rested.values()) + GAP)
                    time.sleep(max(0.0, ready - time.monotonic()))
                    rows[peer.name].seconds[number] = fetch(lab, peer, SIZES[size], options.patience)
                    rested[peer.name] = time.monotonic()
                    rows[peer.name].outside = outside(lab, peer, server=True)
            if time.monotonic() >= ends:
                break


def fetch(lab: Lab, peer: Peer, size: int, patience: float) -> float:
    """Fetch so many bytes from b to a; return the seconds, infinite when the patience was over."""
    command = [sys.executable, FETCHER, "get", peer.address_b, str(FETCH_PORT), str(size), str(patience)]
    found = json.loads(lab.a.run(*command, timeout=patience + 20))
    if found["last"] is None and found["bytes"] == 0:
        raise BenchError(f"{peer.name}: nothing came within {patience:g} s")
    return math.inf if found["last"] is None else float(found["last"])


def tables(fetches: Fetches, inside: str, patience: float) -> str:
    """Return a table of reStructuredText for each size. Who took longer than the patience counts as that long."""

    def seconds(value: float) -> str:
        return f"> {patience:g}" if math.isinf(value) else digits(value)

    found = []
    for size in dict.fromkeys(case.size for case in fetches.rows):
        header = ["path", "tunnel", "outside", "inside", "seconds", "to bare", f"minus {label(REFERENCE)}", "p", "n"]
        table = [header]
        for case, rows in fetches.rows.items():
            if case.size != size:
                continue
            for row in rows.values():
                if not row.seconds:
                    continue
                spread = f"{seconds(min(row.seconds.values()))} to {seconds(max(row.seconds.values()))}"
                to_bare, minus, p = "", "", ""
                if (bare := rows.get(BARE)) and row is not bare:
                    ratios = [min(own, patience) / min(other, patience) for own, other in row.paired(bare)]
                    to_bare = f"{statistics.median(ratios):.2f}" if ratios else ""
                if (reference := rows.get(REFERENCE)) and row is not reference:
                    differences = [min(own, patience) - min(other, patience) for own, other in row.paired(reference)]
                    minus = f"{statistics.median(differences):+.3f}" if differences else ""
                    chance = sign_test(differences)
                    p = "" if chance is None else f"{chance:.3f}"
                path = f"{case.rtt:g} ms" + (f", {case.loss:g} %" if case.loss else "")
                times = f"{seconds(row.median())} ({spread})"
                table.append(
                    [path, label(row.peer), row.outside, inside, times, to_bare, minus, p, str(len(row.seconds))]
                )
        found.append(f"Fetch of {size}B, server to client:\n\n{simple_table(table)}")
    return "\n\n".join(found)


def as_dict(fetches: Fetches, told: dict[str, str], inside: str) -> dict[str, Any]:
    """Return all for JSON; null where the patience was over."""
    found = []
    for case, rows in fetches.rows.items():
        for row in rows.values():
            values = [None if math.isinf(value) else value for value in row.seconds.values()]
            found.append(
                {**asdict(case), "peer": row.peer, "outside": row.outside, "inside": inside, "seconds": values}
            )
    return {"machine": told, "fetches": found, "failures": fetches.failures}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 when a measurement failed, 130 when interrupted."""
    options = _options(argv)
    if cannot_run(*absent_programs("ip", "ping", "ss")):
        return 1
    status = 0
    try:
        fetches = Fetches(chosen(options), options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    try:
        fetches.measure()
    except KeyboardInterrupt:
        print("\nbench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    told = about()
    told["path"] = (
        f"{options.rate:g} Mbit/s, {options.buffer:g} ms of buffer; {options.rest:g} s of rest before a fetch"
    )
    print(*(f"{key}: {value}" for key, value in told.items()), "", sep="\n")
    print(tables(fetches, options.inside, options.patience))
    print(*(f"failed: {failure}" for failure in fetches.failures), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(as_dict(fetches, told, options.inside), indent=2) + "\n")
    return status or (1 if fetches.failures else 0)


def _values(text: str) -> list[float]:
    """An argparse type: numbers that are not negative, separated by commas."""
    found = [float(word) for word in text.split(",")]
    if min(found) < 0 or max(found) > 10_000:
        raise ValueError
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/fetch.py", description="Measure fetches through tunnels, server to client. Needs root."
    )
    add_options(parser, DEFAULT)
    sizes_text = f"of {', '.join(SIZES)}; default: all"
    parser.add_argument("--sizes", type=names(SIZES), default=list(SIZES), metavar="NAME,...", help=sizes_text)
    parser.add_argument("--rtts", type=_values, default=[40.0], metavar="MS,...", help="round trips; default: 40")
    parser.add_argument("--losses", type=_values, default=[0.0], metavar="PERCENT,...", help="default: 0")
    parser.add_argument("--rate", type=float, default=100.0, metavar="MBIT", help="of the path; default: 100")
    parser.add_argument("--buffer", type=float, default=50.0, metavar="MS", help="of the path; default: 50")
    parser.add_argument("--rounds", type=up_to(200), default=20, metavar="N", help="default: 20")
    parser.add_argument("--rest", type=duration, default=1.5, metavar="S", help="before a fetch; default: 1.5")
    fresh_text = "start each tunnel anew before each of its fetches"
    parser.add_argument("--fresh", action="store_true", help=fresh_text)
    parser.add_argument("--patience", type=duration, default=10.0, metavar="S", help="for a fetch; default: 10")
    limit_text = "no more rounds after this time; each path gets an equal part. Default: none"
    parser.add_argument("--limit", type=float, default=0.0, metavar="S", help=limit_text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of every round there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
