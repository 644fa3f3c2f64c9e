"""Measure etherws beside its peers, between two network namespaces: python -m bench.run --help

Each round goes through the peers in turn, one up at a time, so that whatever else the machine does touches all alike.
Figures are medians over the rounds; compare them within one run only. Read next: peers.py, scenarios.py.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import click

import etherws
from bench.lab import BenchError, Lab, absent_programs
from bench.peers import PEERS, Peer
from bench.scenarios import FIGURES, NEEDED, SCENARIOS

#: samples[figure][peer], a number for each round.
Samples = dict[str, dict[str, list[float]]]

#: Whom the ratios are to.
BASE = "openvpn-tcp"


@click.command()
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Which, in this order.")
@click.option("--scenarios", default=",".join(SCENARIOS), show_default=True, help="Which, in this order.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 60), default=4, show_default=True, help="For each figure.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write all figures into this file.")
def main(peers: str, scenarios: str, rounds: int, seconds: float, path: str | None) -> None:
    """Measure etherws beside its peers. Needs root; makes network namespaces of its own and removes them."""
    if os.geteuid() != 0:
        raise click.ClickException("run it as root: it makes network namespaces")
    chosen = [PEERS[name] for name in _names(peers, PEERS)]
    wanted = _names(scenarios, SCENARIOS)
    for peer in list(chosen):
        if absent := peer.absent():
            click.echo(f"{peer.name} is left out: no {', '.join(absent)}", err=True)
            chosen.remove(peer)
    for name in list(wanted):
        if absent := absent_programs(*NEEDED[name]):
            click.echo(f"{name} is left out: no {', '.join(absent)}", err=True)
            wanted.remove(name)
    try:
        with Lab() as lab:
            samples = measure(lab, chosen, wanted, rounds, seconds)
    except BenchError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"\n{machine()}\nmedians of {rounds} rounds of {seconds:g} s (least to most); x: times {BASE}\n")
    click.echo(table(samples, [peer.name for peer in chosen]))
    if path:
        report = {"machine": machine(), "rounds": rounds, "seconds": seconds, "samples": samples}
        Path(path).write_text(json.dumps(report, indent=1) + "\n")


def measure(lab: Lab, peers: list[Peer], scenarios: list[str], rounds: int, seconds: float) -> Samples:
    """Go round and round; a peer that fails once is named, and misses that figure."""
    samples: Samples = {}
    steps = [(peer, name) for _ in range(rounds) for peer in peers for name in (None, *scenarios)]
    with click.progressbar(steps, label="measuring", file=sys.stderr) as bar:
        try:
            for peer, name in bar:
                try:
                    if name is None:
                        for other in peers:
                            other.stop()
                        peer.start(lab)
                        continue
                    for figure, value in SCENARIOS[name](peer, lab, seconds).items():
                        samples.setdefault(figure, {}).setdefault(peer.name, []).append(value)
                except BenchError as exc:
                    click.echo(f"\n{peer.name}, {name or 'start'}: {exc}", err=True)
        finally:
            for peer in peers:
                peer.stop()
    return samples


def table(samples: Samples, peers: list[str]) -> str:
    """A row for each figure, a column for each peer."""
    rows = [["", *peers]]
    for figure, meaning in FIGURES.items():
        if figure not in samples:
            continue
        by_peer = samples[figure]
        row = [f"{meaning.title}, {meaning.unit}"]
        for peer in peers:
            if peer not in by_peer:
                row.append("-")
                continue
            middle, least, most = statistics.median(by_peer[peer]), min(by_peer[peer]), max(by_peer[peer])
            text = f"{_short(middle)} ({_short(least)} to {_short(most)})"
            if peer != BASE and BASE in by_peer:
                text += f" {middle / statistics.median(by_peer[BASE]):.2f}x"
            row.append(text)
        rows.append(row)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def machine() -> str:
    """What this runs on."""
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return (
        f"etherws {etherws.__version__}, Python {platform.python_version()}, Linux {platform.release()},"
        f" {os.cpu_count()} x {models[0] if models else platform.machine()}"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _names(text: str, known: Mapping[str, object]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise click.ClickException(f"no {name}; there are {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
