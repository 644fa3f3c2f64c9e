"""Measure tunnels side by side: ``python bench/run.py``, as root.

Reads the command line, and runs each scenario on each peer in each round. Where to read next: peers.py (the tunnels),
scenarios.py (the measurements), lab.py (namespaces), report.py (tables and JSON), plots.py (SVG).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby, product
from pathlib import Path

if __name__ == "__main__":
    # Adds the directory above, so that it runs as a file and by -m.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, names, progress, up_to
from bench.lab import Lab
from bench.peers import PEERS
from bench.process import BenchError, absent_programs
from bench.report import Results, machine
from bench.scenarios import SCENARIOS


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 when any measurement failed, 130 when interrupted."""
    options = _options(argv)
    if cannot_run(*absent_programs("ip", "ping")):
        return 1
    if options.plots and not find_spec("matplotlib"):
        print("bench: --plots needs matplotlib; see bench/requirements.txt", file=sys.stderr)
        return 1
    scenarios = _present({name: absent_programs(*SCENARIOS[name].programs) for name in options.scenarios})
    peers = _present({name: PEERS[name].absent() for name in options.peers})
    if not (peers and scenarios):
        print("bench: nothing is left to measure", file=sys.stderr)
        return 1
    results = Results(machine(), options.rounds, options.seconds)
    status = 0
    try:
        _measure(results, peers, scenarios, options.limit)
    except BenchError as exc:
        results.failures.append(str(exc))
        print(f"bench: {exc}", file=sys.stderr)
    except KeyboardInterrupt:
        results.failures.append("interrupted")
        print("\nbench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    print(results.tables() if options.tables else results.text())
    if options.json:
        options.json.write_text(json.dumps(results.as_dict(), indent=2) + "\n")
    if options.plots:
        from bench.plots import draw

        draw(results.as_dict(), options.plots)
    return status or (1 if results.failures else 0)


def _measure(results: Results, peers: list[str], scenarios: list[str], limit: float) -> None:
    """Measure all peers in each round, so that a slow minute of the machine affects all of them.

    No round begins that would end after the limit in seconds, by the time that the round before took.
    """
    # A peer starts on the path on which it is measured, as it does for its users.
    paths = [list(group) for _, group in groupby(scenarios, lambda name: SCENARIOS[name].path)]
    steps, done = results.rounds * len(peers) * len(scenarios), 0
    with Lab() as lab:
        begun = last = time.monotonic()
        for number in range(1, results.rounds + 1):
            now = time.monotonic()
            if now + (now - last) > begun + limit:
                break
            last = now
            lab.seed = number
            for name, group in product(peers, paths):
                peer, where = PEERS[name], f"round {number}/{results.rounds}, {name}"
                try:
                    with SCENARIOS[group[0]].path(lab):
                        progress(done, steps, f"{where}: start")
                        try:
                            peer.start(lab)
                            for position, scenario in enumerate(group):
                                progress(done + position, steps, f"{where}: {scenario}")
                                # The tunnel may still carry what is left of the scenario before.
                                peer.answers(lab)
                                results.add(number, name, SCENARIOS[scenario].measure(peer, lab, results.seconds))
                        finally:
                            peer.stop()
                except BenchError as exc:
                    results.failures.append(f"{where}: {exc}")
                    print(f"\nbench: {where}: {exc}", file=sys.stderr)
                done += len(group)
        progress(done, steps, "done\n")


def _present(wanted: dict[str, list[str]]) -> list[str]:
    """Return those for which nothing is missing; print what is missing for the others."""
    for name, absent in wanted.items():
        if absent:
            print(f"bench: {name} skipped, not installed: {', '.join(absent)}", file=sys.stderr)
    return [name for name, absent in wanted.items() if not absent]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description="Measure tunnels side by side between two network namespaces. Needs root."
    )
    for option, known in (("--peers", list(PEERS)), ("--scenarios", list(SCENARIOS))):
        text = f"of {', '.join(known)}; default: all"
        parser.add_argument(option, type=names(known), default=known, metavar="NAME,...", help=text)
    parser.add_argument("--rounds", type=up_to(100), default=3, metavar="N", help="default: 3")
    parser.add_argument("--seconds", type=up_to(60), default=5, metavar="S", help="of a measurement; default: 5")
    text = "no more rounds after this time; default: none"
    parser.add_argument("--limit", type=float, default=math.inf, metavar="S", help=text)
    text = "print the tables as the documentation has them, and no others"
    parser.add_argument("--tables", action="store_true", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw the figures there, as SVG files")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
