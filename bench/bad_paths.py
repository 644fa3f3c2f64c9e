"""Uploads on bad paths, from their first second, and pings at the same time: ``python bench/bad_paths.py``, as root.

For each path of PATHS, all tunnels are up at the same time. One after another they carry one upload, or several, with a
ping 20 times a second, which begins BEFORE. It prints a table: the rate from the first second, and the pings under
load. With --plots it draws rate and ping over time. Where to read next: path.py (the paths), fetcher.py (the two ends
of an upload), together.py (the tunnels), plots.py.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, names, progress, up_to
from bench.fetch import FETCH_PORT, FETCHER
from bench.fetcher import SAMPLE
from bench.lab import Lab
from bench.peer import Peer
from bench.process import BenchError, Process, absent_programs, wait_until
from bench.report import LABELS, digits, label, simple_table
from bench.together import about, add_options, chosen, outside, together

DEFAULT = ["ws", "openvpn-tcp", "openvpn-udp", "bare"]
#: Seconds between two pings: often enough to show a queue, and almost no load.
INTERVAL = 0.05
#: Seconds of pings before the upload.
BEFORE = 1.0
#: Seconds without load before that: what was in the queues is gone.
REST = 0.5
#: More bytes than any path carries in a minute.
ENDLESS = 1 << 40


@dataclass(frozen=True)
class BadPath:
    """What a path is called in the table, its options for path.py, and the number of uploads."""

    title: str
    options: tuple[str, ...]
    flows: int = 1


_40MS = ("--delay", "20", "--rate", "100")
#: By the names that --paths takes. All have 100 Mbit/s, 40 ms and 50 ms of buffer, if nothing else is said.
PATHS = {
    "clean": BadPath("clean", _40MS),
    "lossy": BadPath("1 % loss", (*_40MS, "--loss", "1")),
    "rates": BadPath("to a tenth at 2 s, tenfold at 4 s", (*_40MS, "--rates", "2:10,4:100")),
    "bursts": BadPath("200 ms lost, each 2 s", (*_40MS, "--bursts", "2:200")),
    "reorder": BadPath("2 % come 5 ms late", (*_40MS, "--reorder", "2")),
    "policer": BadPath("policer, 125 kB at once", (*_40MS, "--policer", "125")),
    "short": BadPath("5 ms of buffer", (*_40MS, "--buffer", "5")),
    "long": BadPath("500 ms of buffer", (*_40MS, "--buffer", "500")),
    "slow": BadPath("20 Mbit/s, eight uploads", ("--rate", "20", "--buffer", "30"), flows=8),
}


@dataclass
class Course:
    """One measurement: the Mbit/s of each SAMPLE, and pings as seconds since the upload's begin and milliseconds."""

    path: str
    peer: str
    outside: str
    rates: list[float]
    pings: list[tuple[float, float]]
    sent: int

    def rate(self) -> float:
        """Return the mean rate from the first second."""
        return statistics.mean(self.rates)

    def idle(self) -> float:
        """Return the median of the pings before the load."""
        return statistics.median([ms for at, ms in self.pings if at < 0] or [float("nan")])

    def loaded(self) -> list[float]:
        """Return the milliseconds of the pings under load, in order of size."""
        return sorted(ms for at, ms in self.pings if at >= 0)

    def lost(self) -> float:
        """Return the share of pings that had no answer, in per cent."""
        return 100 * (1 - len(self.pings) / self.sent)


@dataclass
class Courses:
    """The measurements of all rounds."""

    found: list[Course] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def measure(self, peers: list[Peer], options: argparse.Namespace) -> None:
        """Measure each peer on each path in each round, until the limit."""
        ends, steps = time.monotonic() + options.limit, options.rounds * len(options.paths)
        for step in range(steps):
            number, name = step // len(options.paths) + 1, options.paths[step % len(options.paths)]
            if time.monotonic() >= ends:
                break
            progress(step, steps, f"round {number}: {name}")
            try:
                with Lab() as lab:
                    lab.seed = number
                    self._path(lab, name, peers[number % len(peers) :] + peers[: number % len(peers)], options)
            except BenchError as exc:
                self.failures.append(f"round {number}, {name}: {exc}")

    def _path(self, lab: Lab, name: str, peers: list[Peer], options: argparse.Namespace) -> None:
        serve = [sys.executable, FETCHER, "serve", str(FETCH_PORT), options.inside]
        with lab.path(*PATHS[name].options) as emulator, lab.a.running(*serve) as server, together(lab, peers):
            wait_until(lambda: server.listens(FETCH_PORT), "fetcher.py to listen")
            for peer in peers:
                time.sleep(REST)
                self.found.append(upload(lab, emulator, peer, name, options.seconds))


def upload(lab: Lab, emulator: Process, peer: Peer, name: str, seconds: float) -> Course:
    """Measure the uploads of one peer. Their receivers are in b, so they say what has arrived."""
    count = round((BEFORE + seconds) / INTERVAL)
    ping = ["ping", "-n", "-i", str(INTERVAL), "-c", str(count), peer.address_b]
    get = [sys.executable, FETCHER, "get", peer.address_a, str(FETCH_PORT), str(ENDLESS), str(seconds)]
    with ExitStack() as stack:
        pinging = stack.enter_context(lab.a.running(*ping))
        time.sleep(BEFORE)
        emulator.notify(signal.SIGUSR1)
        getting = [stack.enter_context(lab.b.running(*get)) for _ in range(PATHS[name].flows)]
        outputs = [process.output(seconds + 20) for process in getting]
        outer = outside(lab, peer, server=False)
        answers = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", pinging.output(30))
    samples = [json.loads(text)["samples"] for text in outputs]
    totals = [sum(each) for each in zip(*samples, strict=False)]
    if not totals or not totals[-1]:
        raise BenchError(f"{peer.name}: nothing was carried")
    steps = [after - before for before, after in zip([0, *totals], totals, strict=False)]
    pings = [((int(number) - 1) * INTERVAL - BEFORE, float(ms)) for number, ms in answers]
    return Course(name, peer.name, outer, [step * 8e-6 / SAMPLE for step in steps], pings, count)


def table(courses: list[Course], inside: str) -> str:
    """Return a table of reStructuredText: medians of the rounds, and the worst ping of all."""
    header = ["path", "tunnel", "outside", "inside", "Mbit/s", "ping, idle", "ping", "ping, 95th", "ping, worst"]
    rows = [[*header, "pings lost"]]
    # The peers take turns in who is first. In the table they are always in the same order.
    paths, peers = list(PATHS), list(LABELS)
    pairs = {(course.path, course.peer) for course in courses}
    for path, peer in sorted(pairs, key=lambda pair: (paths.index(pair[0]), [*peers, pair[1]].index(pair[1]))):
        those = [course for course in courses if (course.path, course.peer) == (path, peer)]
        loaded = [course.loaded() or [float("nan")] for course in those]
        rates = [course.rate() for course in those]
        spread = f" ({digits(min(rates))} to {digits(max(rates))})" if len(rates) > 1 else ""
        cells = [
            statistics.median(course.idle() for course in those),
            statistics.median(map(statistics.median, loaded)),
            statistics.median(pings[int(0.95 * (len(pings) - 1))] for pings in loaded),
            max(pings[-1] for pings in loaded),
        ]
        lost = statistics.mean(course.lost() for course in those)
        row = [PATHS[path].title, label(peer), those[0].outside, inside, digits(statistics.median(rates)) + spread]
        rows.append([*row, *(f"{cell:,.0f} ms" if cell >= 10 else f"{cell:.1f} ms" for cell in cells), f"{lost:.0f} %"])
    return simple_table(rows)


def as_dict(courses: Courses, told: dict[str, str], inside: str) -> dict[str, Any]:
    """Return all for JSON."""
    found = [
        {
            "path": course.path,
            "title": PATHS[course.path].title,
            "peer": course.peer,
            "outside": course.outside,
            "inside": inside,
            "rates": course.rates,
            "pings": course.pings,
            "sent": course.sent,
        }
        for course in courses.found
    ]
    return {"machine": told, "sample": SAMPLE, "courses": found, "failures": courses.failures}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 when a measurement failed, 130 when interrupted."""
    options = _options(argv)
    if cannot_run(*absent_programs("ip", "ping", "ss")):
        return 1
    courses, status = Courses(), 0
    try:
        courses.measure(chosen(options), options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    told = about()
    print(*(f"{key}: {value}" for key, value in told.items()), "", sep="\n")
    print(f"Upload of {options.seconds:g} s from its first second, and pings meanwhile:\n")
    print(table(courses.found, options.inside))
    print(*(f"failed: {failure}" for failure in courses.failures), sep="\n")
    results = as_dict(courses, told, options.inside)
    if options.json:
        options.json.write_text(json.dumps(results) + "\n")
    if options.plots:
        from bench.plots import draw_courses

        draw_courses(results, options.plots)
    return status or (1 if courses.failures else 0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/bad_paths.py", description="Measure uploads and pings on bad paths. Needs root."
    )
    text = f"of {', '.join(PATHS)}; default: all"
    parser.add_argument("--paths", type=names(PATHS), default=list(PATHS), metavar="NAME,...", help=text)
    add_options(parser, DEFAULT)
    parser.add_argument("--rounds", type=up_to(100), default=1, metavar="N", help="default: 1")
    parser.add_argument("--seconds", type=duration, default=9.0, metavar="S", help="of an upload; default: 9")
    text = "no more paths after this time; default: 280"
    parser.add_argument("--limit", type=float, default=280.0, metavar="S", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw rate and ping over time there, as SVG")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
