"""The throughput under gunicorn's workers: ours, its own gevent, gevent-websocket's: ``bench/workers.py``.

One TCP flow from client to server. In a round, all tunnels of a scheme are up at the same time and measured one after
the other, each time in another order; the table has the ratios to our worker in the same round. Read next: peers.py.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":
    # In place of this directory: a name here must not hide a library.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.cli import cannot_run, duration, progress, up_to
from bench.lab import OUTER_B, Lab
from bench.peer import PORT, certificate
from bench.peers import Etherws
from bench.process import BenchError, absent_programs
from bench.scenarios import CONGESTION, tcp

#: gunicorn's workers by a short name. The first is what the others are compared with.
WORKERS = {
    "ours": "etherws.worker.Worker",
    "gevent": "gevent",
    "gevent-websocket": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
}
OURS = "ours"
SCHEMES = ("ws", "wss")


class Gunicorn(Etherws):
    """etherws under gunicorn with one of the workers; the client is ``etherws client``."""

    def __init__(self, worker: str, number: int, *, tls: bool) -> None:
        super().__init__(f"{worker} {'wss' if tls else 'ws'}", number, tls=tls)
        self._worker, self.port, self.device = WORKERS[worker], PORT + number, f"bench{number}"

    def server(self, lab: Lab) -> list[str]:
        """In the foreground."""
        command = ["env", f"ETHERWS_SERVER_DEVICE={self.device}", sys.executable, "-m", "gunicorn"]
        command += ["-k", self._worker, "--no-control-socket", "-b", f"{OUTER_B}:{self.port}"]
        if self._tls:
            keyfile, certfile = certificate(lab)
            command += ["--keyfile", str(keyfile), "--certfile", str(certfile)]
        return [*command, "etherws.wsgi"]


def measure(lab: Lab, rounds: int, seconds: float) -> tuple[dict[tuple[str, str], list[float]], set[str]]:
    """The Mbit/s of each round, by scheme and worker, and the congestion controls of the outer connections."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    congestion: set[str] = set()
    names = list(WORKERS)
    for number in range(rounds):
        for scheme in SCHEMES:
            progress(number * len(SCHEMES) + SCHEMES.index(scheme), rounds * len(SCHEMES), f"round {number + 1}")
            with ExitStack() as stack:
                tunnels = {name: Gunicorn(name, 1 + at, tls=scheme == "wss") for at, name in enumerate(names)}
                for tunnel in tunnels.values():
                    stack.callback(tunnel.stop)
                    tunnel.start(lab)
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    tunnels[name].answers(lab)
                    found[scheme, name].append(tcp(tunnels[name], lab, seconds)["tcp"])
                    told = lab.a.run("ss", "-tniH", "dport", "=", f":{tunnels[name].port}")
                    congestion.update(re.findall(r"^\s+(?:ts |sack |ecn )*(\w+) wscale", told, re.MULTILINE))
    return found, congestion


def table(found: dict[tuple[str, str], list[float]]) -> str:
    """One line for each scheme and worker: the median rate, and the ratios to our worker: median, least, most."""
    lines = [f"{'':4} {'worker':17} {'Mbit/s':>8} {'ratio':>7} {'least':>7} {'most':>7}"]
    for (scheme, name), rates in found.items():
        ratios = [rate / ours for rate, ours in zip(rates, found[scheme, OURS], strict=True)]
        numbers = " ".join(f"{value:7.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))
        lines.append(f"{scheme:4} {name:17} {statistics.median(rates):8.0f} {numbers}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure etherws under gunicorn's workers. Needs root.")
    parser.add_argument("--rounds", type=up_to(100), default=3, metavar="N", help="default: 3")
    parser.add_argument("--seconds", type=duration, default=5.0, metavar="S", help="of each flow; default: 5")
    options = parser.parse_args(argv)
    if cannot_run(*absent_programs("ip", "ping", "iperf3", "openssl", "ss")):
        return 1
    try:
        with Lab() as lab:
            found, congestion = measure(lab, options.rounds, options.seconds)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        return 130
    print(f"congestion control inside: {CONGESTION}, outside: {', '.join(sorted(congestion)) or 'not seen'}")
    print(f"rounds: {options.rounds}, {options.seconds:g} s for each flow\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
