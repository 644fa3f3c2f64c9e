"""What the counters and a scraper cost: ``python bench/counters.py BEFORE AFTER``, as root.

BEFORE is a checkout without counters, or any: nobody asks it. AFTER is asked for /metrics and /status at both ends each
second, over the control sockets, while it is measured. The pairs are those of compare.py: one flow, frames of 64 bytes,
the idle round trip, over ws. With the same checkout twice, only the scraper is measured; with --no-scraper, only the
counters. Exit status 1: a figure is worse by more than 2 %.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, names, progress, up_to
from bench.compare import Comparison, Measure, Step, checked, described
from bench.lab import Lab
from bench.pairs import SIDES
from bench.peer import Peer
from bench.peers import Etherws
from bench.process import BenchError, absent_programs
from bench.report import machine

#: Seconds between two questions, and what is asked.
INTERVAL, PATHS = 1.0, ("/metrics", "/status")

#: The least median of a figure's ratios that is well: 2 % less than before.
LEAST = 0.98

#: Seconds for an answer.
TIMEOUT = 10.0

FIGURES = ("ping", "up", "down", "frames")


class Scraped(Etherws):
    """A tunnel whose ends have their control sockets in the lab's directory."""

    def control(self, role: str) -> Path:
        """The control socket of one end."""
        return Path(self.directory) / f"{role}-{self.device}"

    def server(self, lab: Lab) -> list[str]:
        """See Etherws."""
        return [*super().server(lab), "--control", str(self.control("server"))]

    def client(self, lab: Lab) -> list[str]:
        """See Etherws."""
        return [*super().client(lab), "--control", str(self.control("client"))]


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def ask(control: Path, path: str) -> bytes:
    """Return the answer. Raises BenchError if it is none."""
    connection = _OverSocket(control)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise BenchError(f"{control}: no answer to {path}: {exc}") from exc
    finally:
        connection.close()
    if answer.status != 200 or not body:
        raise BenchError(f"{control}: {path}: {answer.status}, {len(body)} bytes")
    return body


@contextlib.contextmanager
def scraper(controls: Sequence[Path]) -> Iterator[None]:
    """Ask each control socket at once, and each INTERVAL, until the block ends. Raises BenchError then if an answer was
    none."""
    over, failures = threading.Event(), list[BenchError]()

    def run() -> None:
        try:
            while True:
                for control in controls:
                    for path in PATHS:
                        ask(control, path)
                if over.wait(INTERVAL):
                    return
        except BenchError as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def scraped(measure: Measure) -> Measure:
    """The same measurement, while a Scraped tunnel is scraped."""

    def measure_it(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
        if not isinstance(peer, Scraped):
            return measure(peer, lab, seconds)
        with scraper([peer.control(role) for role in ("server", "client")]):
            return measure(peer, lab, seconds)

    return measure_it


class Counted(Comparison):
    """A comparison in which the second side is scraped."""

    def __init__(self, pythons: dict[str, Path], options: argparse.Namespace) -> None:
        super().__init__(pythons, options)
        if not options.no_scraper:
            self.kinds = {SIDES[0]: Etherws, SIDES[1]: Scraped}
        self._steps = [Step(scraped(step.measure), step.schemes) for step in self._steps]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench/counters.py", description="Measure what counters and a scraper cost, in pairs. Needs root."
    )
    for side in SIDES:
        parser.add_argument(side, type=Path, metavar=side.upper(), help="a checkout with a .venv of its own")
    help_text = f"of {', '.join(FIGURES)}; default: all"
    parser.add_argument("--figures", type=names(FIGURES), default=list(FIGURES), metavar="NAME,...", help=help_text)
    parser.add_argument("--rounds", type=up_to(100), default=10, metavar="N", help="pairs of each figure; default: 10")
    parser.add_argument("--seconds", type=duration, default=5.0, metavar="S", help="of each flow; default: 5")
    parser.add_argument("--no-scraper", action="store_true", help="nobody asks AFTER either")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of every round there")
    options = parser.parse_args(argv)
    options.schemes, options.clients = ["ws"], 1
    if cannot_run(*absent_programs("ip", "ping", "iperf3", "ss")):
        return 1
    begun = time.monotonic()
    try:
        comparison = Counted({side: checked(getattr(options, side)) for side in SIDES}, options)
        for number in range(1, options.rounds + 1):
            progress(number - 1, options.rounds, f"round {number}, {time.monotonic() - begun:.0f} s so far")
            comparison.round(number)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    about = {side: described(getattr(options, side)) for side in SIDES}
    about |= {key: value for key, value in machine().items() if key in ("cpu", "kernel", "load")}
    about["scraper"] = "none" if options.no_scraper else f"each {INTERVAL:g} s: {', '.join(PATHS)} at both ends"
    worse = [name for name, found in comparison.pairs.summary().items() if found.ratio < LEAST]
    print(*(f"{key}: {value}" for key, value in about.items()), "", comparison.pairs.text(), sep="\n")
    print(f"median ratio below {LEAST}: {', '.join(worse) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "figures": comparison.pairs.as_dict()}, indent=2) + "\n")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
