"""Compares two checkouts of etherws in interleaved pairs: ``python bench/compare.py BEFORE AFTER``, as root.

Each checkout is run by its own .venv in a directory outside of both, so that it cannot import the code of the other. In
a round, the tunnels of both are up at the same time. Each figure is measured on one checkout and directly after that on
the other; which one is first alternates. Where to read next: pairs.py (statistics), peers.py (the tunnels), crowd.py
(many clients).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, names, progress, up_to
from bench.crowd import ADDRESSES, Crowd, give_addresses
from bench.lab import OUTER_B, Lab
from bench.pairs import SIDES, Pairs
from bench.peer import PORT, Peer
from bench.peers import Etherws
from bench.process import BenchError, absent_programs, run, wait_until
from bench.report import machine
from bench.scenarios import CONGESTION, Figure, answers, pps
from bench.scenarios import PORT as FLOW_PORT

#: Seconds before a flow is measured. TCP's slow start needs far fewer: this is thousands of round trips.
WARM_UP = 0.5
#: Seconds of pings: several thousand round trips.
PINGING = 1

#: A function that measures a tunnel for that many seconds, and returns figures by name.
Measure = Callable[[Peer, Lab, float], dict[str, float]]


def memory(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure the memory of both ends, connected and idle."""
    ends = dict(zip(("server", "client"), peer.processes, strict=True))
    return {f"{end} {kind}": getattr(process, kind)() for end, process in ends.items() for kind in ("rss", "pss")}


def ping(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure the median idle round trip. Each ping waits for the answer to the one before."""
    text = lab.a.run("ping", "-n", "-A", "-w", str(PINGING), peer.address_b, check=False, timeout=PINGING + 20)
    return {"ping": statistics.median(answers(text))}


def flows(count: int, down: bool, peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure TCP flows at once by the receiving end's interface; for a single flow also the CPU of both ends."""
    name = f"{'down' if down else 'up'}{count if count > 1 else ''}"
    command = ["iperf3", "--client", peer.address_b, "--port", str(FLOW_PORT), "--congestion", CONGESTION]
    # It is stopped below. If we are killed, it ends after this time.
    command += ["--time", str(round(seconds + 10)), "--parallel", str(count), *(["--reverse"] if down else [])]
    receiver = peer.processes[1 if down else 0]
    with lab.b.running("iperf3", "--server", "--one-off", "--port", str(FLOW_PORT)) as server:
        wait_until(lambda: server.listens(FLOW_PORT), "iperf3 to listen")
        with lab.a.running(*command) as client:
            time.sleep(WARM_UP)
            begun, before, used = time.monotonic(), receiver.received(peer.device)[0], peer.cpu()
            time.sleep(seconds)
            took, after, used = time.monotonic() - begun, receiver.received(peer.device)[0], peer.cpu() - used
            client.check()
    carried = after - before
    # At less than 1 Mbit/s there was no flow.
    if carried < took * 125_000:
        raise BenchError(f"{peer.name}: the flows do not arrive: {carried} bytes in {took:.1f} s")
    found = {name: carried * 8e-6 / took}
    return found if count > 1 else {**found, f"{name} cpu": used / (carried / 1e9)}


def frames(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """Measure how many frames of 64 bytes per second pass, client to server."""
    return {"frames": pps(peer, lab, seconds)["pps"]}


@dataclass(frozen=True)
class Step:
    """A measurement of a tunnel, and the schemes with which it is done."""

    measure: Measure
    schemes: tuple[str, ...] = ("ws", "wss")


#: By the names that --figures takes, in the order of a round: first without load.
STEPS = {
    "memory": Step(memory),
    "ping": Step(ping),
    "up": Step(partial(flows, 1, False)),
    "down": Step(partial(flows, 1, True)),
    "up8": Step(partial(flows, 8, False)),
    "down8": Step(partial(flows, 8, True)),
    "frames": Step(frames, ("ws",)),
}
#: The one figure that is not of a tunnel: many clients connect to a server.
CLIENTS = "clients"

_OF_A_TUNNEL = {
    "server rss": Figure("memory of the server, one idle client: RSS", "MB", more_is_better=False),
    "server pss": Figure("memory of the server, one idle client: PSS", "MB", more_is_better=False),
    "client rss": Figure("memory of the client, connected and idle: RSS", "MB", more_is_better=False),
    "client pss": Figure("memory of the client, connected and idle: PSS", "MB", more_is_better=False),
    "ping": Figure("round trip, idle: median", "ms", more_is_better=False),
    "up": Figure("one TCP flow, client to server", "Mbit/s", more_is_better=True),
    "up cpu": Figure("CPU of both ends, one TCP flow", "s/GB", more_is_better=False),
    "down": Figure("one TCP flow, server to client", "Mbit/s", more_is_better=True),
    "down cpu": Figure("CPU of both ends, one TCP flow", "s/GB", more_is_better=False),
    "up8": Figure("eight TCP flows, client to server", "Mbit/s", more_is_better=True),
    "down8": Figure("eight TCP flows, server to client", "Mbit/s", more_is_better=True),
    "frames": Figure("64-byte frames, client to server: delivered", "1/s", more_is_better=True),
}
FIGURES = {f"{scheme} {name}": figure for scheme in ("ws", "wss") for name, figure in _OF_A_TUNNEL.items()} | {
    "clients connect": Figure("many clients at once: until the last is connected", "s", more_is_better=False),
    "clients server rss": Figure("memory of the server with all of them: RSS", "MB", more_is_better=False),
}


def checked(path: Path) -> Path:
    """Return the checkout's Python; BenchError if there is none, or if it imports etherws from somewhere else."""
    python = path.resolve() / ".venv" / "bin" / "python"
    if not python.exists():
        raise BenchError(f"{path} has no .venv/bin/python; make one there, for example by `make demo`")
    # In the root directory: Python also imports from the current directory.
    asked = [str(python), "-c", "import etherws; print(etherws.__file__)"]
    found = Path(subprocess.run(asked, cwd="/", capture_output=True, text=True, timeout=60).stdout.strip())
    if not found.is_relative_to(path.resolve()):
        raise BenchError(f"{python} runs etherws of {found}; install the checkout there: pip install -e {path}")
    return python


def described(path: Path) -> str:
    """Return the path, the commit and the Python version of a checkout."""
    commit = run("git", "-C", str(path), "describe", "--always", "--dirty", check=False).strip() or "no commit"
    return f"{path} ({commit}), {run(str(checked(path)), '--version').strip()}"


class Comparison:
    """The two checkouts by their sides, and the figures that are measured."""

    def __init__(self, pythons: dict[str, Path], options: argparse.Namespace) -> None:
        self.pairs, self.congestion = Pairs(FIGURES), set[str]()
        self.kinds: dict[str, type[Etherws]] = dict.fromkeys(SIDES, Etherws)
        self._pythons, self._options = pythons, options
        self._steps = [step for name, step in STEPS.items() if name in options.figures]
        self._taken = 0

    def round(self, number: int) -> None:
        """Measure each figure once on both sides, in a new lab."""
        self._taken = number
        with Lab() as lab:
            give_addresses(lab.a)
            for scheme in self._options.schemes:
                if steps := [step for step in self._steps if scheme in step.schemes]:
                    self._tunnels(number, scheme, steps, lab)
            if CLIENTS in self._options.figures:
                for side in self._order():
                    self.pairs.add(number, side, self._clients(side, lab))

    def _order(self) -> Sequence[str]:
        """Return the sides in the order of measurement. It alternates between figures and between rounds."""
        self._taken += 1
        return SIDES if self._taken % 2 else SIDES[::-1]

    def _tunnels(self, number: int, scheme: str, steps: list[Step], lab: Lab) -> None:
        tunnels = {side: self._tunnel(side, scheme, lab) for side in SIDES}
        try:
            for side in self._order():
                tunnels[side].start(lab)
            for step in steps:
                for side in self._order():
                    # The tunnel may still carry what is left of the step before.
                    tunnels[side].answers(lab)
                    found = step.measure(tunnels[side], lab, self._options.seconds)
                    self.pairs.add(number, side, {f"{scheme} {name}": value for name, value in found.items()})
            for tunnel in tunnels.values():
                told = lab.a.run("ss", "-tniH", "dport", "=", f":{tunnel.port}")
                self.congestion.update(re.findall(r"^\s+(?:ts |sack |ecn )*(\w+) wscale", told, re.MULTILINE))
        finally:
            for tunnel in tunnels.values():
                tunnel.stop()

    def _tunnel(self, side: str, scheme: str, lab: Lab) -> Etherws:
        """Return a tunnel that is not started. It has its own port, interface and network."""
        number = 1 + SIDES.index(side)
        tunnel = self.kinds[side](f"{side} {scheme}", number, tls=scheme == "wss", python=str(self._pythons[side]))
        tunnel.port, tunnel.device, tunnel.directory = PORT + number, f"bench{number}", lab.directory
        return tunnel

    def _clients(self, side: str, lab: Lab) -> dict[str, float]:
        """Let all clients connect at the same moment to a new server with a bridge."""
        server = [str(self._pythons[side]), "-m", "etherws", "server", "--foreground", "--bridge", "br0"]
        server += ["--address", OUTER_B, "--port", str(PORT)]
        with lab.b.running(*server, directory=lab.directory) as serving:
            wait_until(lambda: serving.listens(PORT), f"{side}: the server to listen")
            with Crowd(lab.a, self._options.clients, "--addresses", str(ADDRESSES)) as crowd:
                if crowd.joined["refused"]:
                    raise BenchError(f"{side}: clients were refused: {crowd.joined['refused']}")
                return {"clients connect": crowd.joined["seconds"], "clients server rss": serving.rss()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 when a measurement failed, 130 when interrupted."""
    options = _options(argv)
    if cannot_run(*absent_programs("ip", "ping", "iperf3", "openssl", "ss")):
        return 1
    status, begun = 0, time.monotonic()
    try:
        pythons = {side: checked(getattr(options, side)) for side in SIDES}
        about = {side: described(getattr(options, side)) for side in SIDES} | _machine(options)
        comparison = Comparison(pythons, options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    try:
        for number in range(1, options.rounds + 1):
            progress(number - 1, options.rounds, f"round {number}, {time.monotonic() - begun:.0f} s so far")
            try:
                comparison.round(number)
            except BenchError as exc:
                # The next rounds can still give pairs.
                print(f"bench: round {number} failed: {exc}", file=sys.stderr)
                status = 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    about["congestion control outside"] = ", ".join(sorted(comparison.congestion)) or "not seen"
    print(*(f"{key}: {value}" for key, value in about.items()), "", comparison.pairs.text(), sep="\n")
    if options.json:
        found = {"machine": about, "rounds": options.rounds, "figures": comparison.pairs.as_dict()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return status


def _machine(options: argparse.Namespace) -> dict[str, str]:
    """What this runs on, and how; by name."""
    found = {key: value for key, value in machine().items() if key in ("cpu", "kernel", "load", "iperf3")}
    found["rounds"] = f"{options.rounds}, {options.seconds:g} s for each flow"
    found["clients at the same moment"] = f"{options.clients} from {ADDRESSES} addresses, version 1 of the wire"
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    found["congestion control inside"] = f"{CONGESTION} (this machine's default: {default})"
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/compare.py", description="Measure two checkouts of etherws in interleaved pairs. Needs root."
    )
    for side in SIDES:
        parser.add_argument(side, type=Path, metavar=side.upper(), help="a checkout with a .venv of its own")
    known = [*STEPS, CLIENTS]
    help_text = f"of {', '.join(known)}; default: all"
    parser.add_argument("--figures", type=names(known), default=known, metavar="NAME,...", help=help_text)
    schemes = ["ws", "wss"]
    parser.add_argument("--schemes", type=names(schemes), default=schemes, metavar="NAME,...", help="default: ws,wss")
    parser.add_argument("--rounds", type=up_to(100), default=10, metavar="N", help="pairs of each figure; default: 10")
    parser.add_argument("--seconds", type=duration, default=2.0, metavar="S", help="of each flow; default: 2")
    help_text = "that connect at the same moment; default: 1000"
    parser.add_argument("--clients", type=up_to(1000), default=1000, metavar="N", help=help_text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of every round there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
