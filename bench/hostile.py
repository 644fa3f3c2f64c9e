"""Each sort of input that a stranger or a tenant can send, flat out: ``python bench/hostile.py``, as root.

A TCP stream runs through an honest tunnel, and a light session sends a frame a hundred times a second. For each kind of
attack (hostile_kinds.py), from one connection and from 64, it prints the stream's rate before, during and after; the
time of the light session's frames; and the server's memory. The goal: frames in at most 50 ms at the 99th percentile,
and 70 % of the rate. With --client, a hostile server floods a client (hostile_server.py). broken.py has another attack,
which looks for damage. Read next: hostile_lab.py, light_session.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import hostile_server
from bench.cli import cannot_run, duration, names, progress, up_to
from bench.compare import checked, described
from bench.hostile_kinds import KINDS, Kind
from bench.hostile_lab import ATTACKERS, Victim
from bench.lab import Lab
from bench.process import ROOT, BenchError, absent_programs, wait_until
from bench.report import machine
from bench.tunnel import figures, role

#: The goal: milliseconds at the 99th percentile, and the share of the rate.
P99_MAX, KEPT_MIN = 50.0, 0.7
#: Seconds before an attack is measured, in which it fills the buffers.
WARM_UP = 1.0
#: Seconds in which the attackers must be ready, and the server must have removed their interfaces.
READY, QUIET = 60.0, 60.0

Row = dict[str, Any]


def measure(options: argparse.Namespace, rows: list[Row]) -> int:
    """Measure all kinds, each setup in a lab of its own; append to the rows of the table, and return the exit
    status."""
    wanted = [(_setup(KINDS[name], options), name) for name in options.kinds]
    steps = [(setup, name, count) for setup, name in wanted for count in KINDS[name].connections or options.connections]
    status = 0
    for setup in dict.fromkeys(setup for setup, _, _ in steps):
        try:
            with Lab() as lab, Victim(lab, setup, options.checkout, options.stream) as victim:
                calm = victim.measured(options.seconds / 2)
                for name, count in [step[1:] for step in steps if step[0] == setup]:
                    progress(len(rows), len(steps), f"{name}, {count}")
                    try:
                        row, calm = _row(victim, name, count, options, calm)
                    except BenchError as exc:
                        row, status = {"failed": str(exc)}, 1
                        print(f"bench: {name}, {count}: {exc}", file=sys.stderr)
                        victim.again()
                        calm = victim.measured(options.seconds / 2)
                    rows.append({"kind": name, "connections": count, "setup": setup, **row})
        except BenchError as exc:
            status = 1
            print(f"bench: {setup}: {exc}", file=sys.stderr)
    return status


def _setup(kind: Kind, options: argparse.Namespace) -> str:
    return "wss" if kind.setup == "ws" and options.wss else kind.setup


def _row(victim: Victim, name: str, count: int, options: argparse.Namespace, before: Row) -> tuple[Row, Row]:
    """Return the figures of one attack, and the calm ones behind it, which are those before the next attack."""
    kind, memory, devices = KINDS[name], victim.memory(), victim.devices()
    attackers = victim.lab.a.spawn(*role(ATTACKERS, name, count, victim.scheme))
    try:
        wait_until(lambda: attackers.check() and "ready" in attackers.so_far(), f"{name}: the attackers", READY)
        time.sleep(min(WARM_UP, options.seconds))
        with victim.joining(kind.joins) as joins:
            during = victim.measured(options.seconds)
        attackers.check()
    finally:
        begun = time.monotonic()
        attackers.stop()
    attack = figures(attackers, 5)
    wait_until(lambda: victim.devices() <= devices, f"{name}: the end of the attackers' sessions", QUIET)
    # After a long stop, TCP takes its time to begin again.
    wait_until(victim.flows, f"{name}: the stream after the attack", QUIET)
    quiet = time.monotonic() - begun
    latency = victim.latency(during)
    after = victim.measured(options.seconds / 2)
    calm = (before["rate"] + after["rate"]) / 2
    grown, stays = memory.peak() - memory.now, victim.memory().now - memory.now
    row: Row = {
        "attack": attack,
        "rate": {"before": before["rate"], "during": during["rate"], "after": after["rate"]},
        "kept": during["rate"] / calm if calm else None,
        "light": latency,
        "light before": victim.latency(before),
        "memory": {"before": memory.now, "grown": grown, "stays": stays},
        "seconds until quiet": quiet,
        "lost": during["lost"],
    }
    if kind.joins:
        took = [seconds for seconds in joins if seconds is not None]
        row["joins"] = {"tried": len(joins), "let in": len(took), "worst": max(took, default=None)}
    p99 = latency["p99"]
    row["good"] = p99 is not None and p99 <= P99_MAX and not latency["lost"] and (row["kept"] or 0) >= KEPT_MIN
    return row, after


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'':24} connec-  MB/s of    honest stream, Mbit/s      kept   light session, ms       memory  new clients",
        f"{'kind':24}   tions   attack  before  during   after    of it  median    p99   worst    + MB let in, worst s",
    ]
    for row in rows:
        head = f"{row['kind']:24} {row['connections']:7}"
        if "failed" in row:
            lines.append(f"{head}  failed: {row['failed']}")
            continue
        rate, light = row["rate"], row["light"]
        text = f"{head} {row['attack']['MB/s']:8.2f} " + "".join(f"{rate[at]:7,.0f} " for at in rate)
        text += f"{100 * (row['kept'] or 0):6.0f} % " + "".join(_number(light[at]) for at in ("median", "p99", "worst"))
        text += f" {row['memory']['grown']:6.1f}"
        if joins := row.get("joins"):
            text += f"   {joins['let in']:3} of {joins['tried']:3} {_number(joins['worst'])}"
        notes = [f"{light['lost']} frames never came"] if light["lost"] else []
        notes += [f"sessions lost: {row['lost']}"] if row["lost"] else []
        lines.append(f"{text}  {'' if row['good'] else '<- '}{', '.join(notes)}".rstrip())
    good = sum(row.get("good", False) for row in rows)
    goal = f"p99 of at most {P99_MAX:.0f} ms, and {100 * KEPT_MIN:.0f} % of the rate"
    return "\n".join([*lines, "", f"{good} of {len(rows)} reach the goal: {goal}; <- marks the others"])


def _number(value: float | None) -> str:
    return f"{value:8.2f}" if value is not None else "       -"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 when a measurement failed, 130 when interrupted."""
    options = _options(argv)
    if options.list:
        print(*(f"{name:24} {kind.setup:6} {kind.about}" for name, kind in KINDS.items()), sep="\n")
        return 0
    if cannot_run(*absent_programs("ip", "iperf3", "openssl")):
        return 1
    try:
        about = {"checkout": described(options.checkout), **machine()}
        checked(options.checkout)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    rows: list[Row] = []
    try:
        if options.client:
            print(json.dumps(hostile_server.measure(options.checkout, options.seconds), indent=2))
            return 0
        status = measure(options, rows)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    print(table(rows))
    if options.json:
        options.json.write_text(
            json.dumps({"machine": about, "seconds": options.seconds, "rows": rows}, indent=2) + "\n"
        )
    return status


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/hostile.py", description="Each sort of hostile input, beside an honest tunnel. Needs root."
    )
    parser.add_argument("--kinds", type=names(KINDS), default=[*KINDS], metavar="NAME,...", help="default: all")
    counts = "numbers of connections; default: 1,64"
    parser.add_argument("--connections", type=_counts, default=[1, 64], metavar="N,...", help=counts)
    parser.add_argument("--seconds", type=duration, default=6.0, metavar="S", help="of each attack; default: 6")
    text = "the most of the honest stream, more than 100; default: all that passes"
    parser.add_argument("--stream", type=int, metavar="MBIT", help=text)
    parser.add_argument("--wss", action="store_true", help="make the attacks in TLS that can be made without")
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="PATH", help="attack this one, by its own .venv")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--client", action="store_true", help="flood the client instead, and end it by SIGTERM")
    parser.add_argument("--list", action="store_true", help="print the kinds and what they are")
    return parser.parse_args(argv)


def _counts(text: str) -> list[int]:
    return [up_to(1000)(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
