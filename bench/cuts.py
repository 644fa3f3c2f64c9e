"""How long a tunnel is down after each kind of cut (cut_kinds.py): ``python bench/cuts.py``, as root.

Many clients of one server (fleet.py) are cut off again and again, while a prober sends a datagram through every tunnel
fifty times a second. A cut is over when a datagram that was sent after it is answered. Prints how long that took from
the cut, or from the end of the outage, which interfaces have changed, and which resources the processes hold that they
did not hold before. A tunnel that does not come back is a failure.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command
from bench.cut_kinds import CUTS, Cut
from bench.fleet import Client, Fleet, Member
from bench.lab import Lab
from bench.prober import Prober
from bench.process import BenchError, wait_until

#: Seconds between two cuts. If a tunnel is lost within 10 s, the client waits longer before each retry.
STEADY = 11.0
#: Seconds in which a tunnel must come back.
BACK_WITHIN = 90.0
#: Seconds in which all that was opened because of a cut must be closed: the server keeps a parked port for 30.
CLOSED_WITHIN = 45.0
#: Seconds between two counts meanwhile. Each makes every process look through all its objects.
RECOUNT = 2.0


def once(fleet: Fleet, prober: Prober, cut: Cut) -> list[float]:
    """Cut all clients off; return the seconds until each of them was back."""
    since = {}
    if cut.all_at_once:
        begun = cut.all_at_once(fleet)
        since = dict.fromkeys(fleet.clients, begun)
    for action in (cut.start, cut.restore):
        if action:
            if action is cut.restore:
                time.sleep(cut.outage)
            for client in fleet.clients:
                action(client)
                since[client] = time.monotonic()
    took = []
    for client, begun in since.items():

        def back(number: int = client.number, begun: float = begun) -> bool:
            return prober.answered(number, begun) is not None

        try:
            wait_until(back, "a tunnel to come back", BACK_WITHIN)
        except BenchError as exc:
            raise BenchError(f"{exc}: {client.process.so_far()[-500:]} {fleet.server.process.so_far()[-500:]}") from exc
        took.append((prober.answered(client.number, begun) or 0.0) - begun)
    return took


def measure(lab: Lab, options: argparse.Namespace, cut: Cut) -> dict[str, Any]:
    """Make as many cuts of one kind as the options say; return its figures."""
    made = Fleet(lab, options.clients, proxied=cut.proxied, persistent=options.persistent)
    with made as fleet, Prober(lab, fleet) as prober:
        prober.wait_for_all()
        time.sleep(options.steady)
        held, members = fleet.settled(), [*fleet.clients, fleet.server]
        before = [member.interfaces() for member in members]
        took: list[float] = []
        while len(took) < options.cuts:
            took += once(fleet, prober, cut)
            for client in fleet.clients:
                prober.forget(client.number)
            time.sleep(options.steady)
        changed = Counter(
            f"{'server' if member is fleet.server else 'client'}'s {_kind(name)}"
            for member, was in zip(members, before, strict=True)
            for name in _changed(member, was)
        )
        return {
            "cuts": len(took),
            "median, s": round(statistics.median(took), 3),
            "95th percentile, s": round(statistics.quantiles(took, n=20)[-1], 3),
            "worst, s": round(max(took), 3),
            "lost and found again": Counter(reason for client in fleet.clients for reason in _reasons(client)),
            "interfaces changed": changed,
            "held more than before": left_over(fleet, held),
        }


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each kind that the options name; print its figures on standard error as soon as they are known."""
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(CUTS):
        raise BenchError(f"unknown kind of cut: {unknown.pop()!r}; known: {', '.join(CUTS)}")
    found = {}
    for kind in kinds:
        # A new lab for each: what one kind leaves behind must not count for the next.
        with Lab() as lab:
            found[kind] = measure(lab, options, CUTS[kind])
        print(f"{kind}: {json.dumps(found[kind])}", file=sys.stderr, flush=True)
    return found


def left_over(fleet: Fleet, before: Counter[str]) -> Counter[str]:
    """Return what is held now in addition to before, after at most CLOSED_WITHIN seconds."""

    end = time.monotonic() + CLOSED_WITHIN
    while (found := fleet.holds() - before) and time.monotonic() < end:
        time.sleep(RECOUNT)
    return found


def _reasons(client: Client) -> list[str]:
    """Return the reasons for which its process has lost the server, with figures replaced."""
    found = re.findall(
        r"lost ws://[\d.:]+: (.*?)(?:; dropped .*)?; (?:trying|retry|reconnect)", client.process.so_far()
    )
    return [re.sub(r"[\d.]+ s$", "... s", reason) for reason in found]


def _changed(member: Member, was: dict[str, tuple[Any, ...]]) -> list[str]:
    now = member.interfaces()
    return [name for name in was.keys() | now.keys() if was.get(name) != now.get(name)]


def _kind(name: str) -> str:
    return name if name == "br0" else "TAP"


def main() -> int:
    """Run the command line; return the exit status."""
    return command(
        measure_all,
        "How long a tunnel is down after a cut.",
        [
            ("--kinds", ",".join(CUTS), "the kinds of cuts"),
            ("--cuts", 200, "cuts of each kind"),
            ("--clients", 20, "clients"),
            ("--steady", STEADY, "seconds between two cuts"),
            ("--persistent", False, "TAPs that exist before etherws starts, and stay"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
