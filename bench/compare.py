"""Two checkouts of etherws, measured in interleaved pairs: ``bench/compare.py BEFORE AFTER``, as root.

Each checkout runs by its own .venv, in a directory outside of both, so none imports the other's code. In each round the
tunnels of both checkouts are up side by side; a figure is measured on the one and at once on the other, and who comes
first alternates. Where to read next: pairs.py (what the pairs say), peers.py (the tunnels), crowd.py (many clients).
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

from bench.cli import cannot_run, names, progress, up_to
from bench.lab import OUTER_B, VETH, Lab
from bench.pairs import SIDES, Pairs
from bench.peer import PORT, Peer
from bench.peers import Etherws
from bench.process import BenchError, absent_programs, run, wait_until
from bench.raw_client import address
from bench.report import machine
from bench.scenarios import CONGESTION, Figure, answers, pps
from bench.scenarios import PORT as FLOW_PORT
from bench.tunnel import role

#: Seconds before a flow is measured, for TCP's slow start: thousands of round trips here.
WARM_UP = 0.5
#: Seconds of pings: far more than the thousand that a steady median takes.
PINGING = 1
#: Source addresses of the clients that connect at the same moment.
ADDRESSES = 40
#: Seconds for all of them to connect.
CROWD_LIMIT = 150.0
CROWD = str(Path(__file__).with_name("crowd.py"))

#: Measures one tunnel for so many seconds; returns figures by name.
Measure = Callable[[Peer, Lab, float], dict[str, float]]


def memory(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """The memory of both ends, connected and idle."""
    ends = dict(zip(("server", "client"), peer.processes, strict=True))
    return {f"{end} {kind}": getattr(process, kind)() for end, process in ends.items() for kind in ("rss", "pss")}


def ping(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """The median round trip of pings that leave when the one before is answered, nothing else going on."""
    text = lab.a.run("ping", "-n", "-A", "-w", str(PINGING), peer.address_b, check=False, timeout=PINGING + 20)
    return {"ping": statistics.median(answers(text))}


def flows(count: int, down: bool, peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """So many TCP flows at once; what the receiving end's interface got, and what CPU both ends took for that."""
    name = f"{'down' if down else 'up'}{count if count > 1 else ''}"
    command = ["iperf3", "--client", peer.address_b, "--port", str(FLOW_PORT), "--congestion", CONGESTION]
    # It is stopped below; if we are killed, it ends by itself.
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
    # Less than 1 Mbit/s is only the acknowledgements of what goes the other way, or nothing.
    if carried < took * 125_000:
        raise BenchError(f"{peer.name}: the flows do not arrive: {carried} bytes in {took:.1f} s")
    found = {name: carried * 8e-6 / took}
    return found if count > 1 else {**found, f"{name} cpu": used / (carried / 1e9)}


def frames(peer: Peer, lab: Lab, seconds: float) -> dict[str, float]:
    """As many frames of 64 bytes as go through, client to server."""
    return {"frames": pps(peer, lab, seconds)["pps"]}


@dataclass(frozen=True)
class Step:
    """A measurement on a tunnel, and the schemes for which it is taken."""

    measure: Measure
    schemes: tuple[str, ...] = ("ws", "wss")


#: By the names that --figures takes, in the order of a round: the quiet ones first.
STEPS = {
    "memory": Step(memory),
    "ping": Step(ping),
    "up": Step(partial(flows, 1, False)),
    "down": Step(partial(flows, 1, True)),
    "up8": Step(partial(flows, 8, False)),
    "down8": Step(partial(flows, 8, True)),
    "frames": Step(frames, ("ws",)),
}
#: What is not measured on a tunnel: a server to which many clients connect.
CLIENTS = "clients"

_OF_A_TUNNEL = {
    "server rss": Figure("memory of the server, one idle client: RSS", "MB", more_is_better=False),
    "server pss": Figure("memory of the server, one idle client: PSS", "MB", more_is_better=False),
    "client rss": Figure("memory of the client, connected and idle: RSS", "MB", more_is_better=False),
    "client pss": Figure("memory of the client, connected and idle: PSS", "MB", more_is_better=False),
    "ping": Figure("round trip, idle: median", "ms", more_is_better=False),
    "up": Figure("one TCP flow, client to server", "Mbit/s", more_is_better=True),
    "up cpu": Figure("CPU of both ends meanwhile", "s/GB", more_is_better=False),
    "down": Figure("one TCP flow, server to client", "Mbit/s", more_is_better=True),
    "down cpu": Figure("CPU of both ends meanwhile", "s/GB", more_is_better=False),
    "up8": Figure("eight TCP flows, client to server", "Mbit/s", more_is_better=True),
    "down8": Figure("eight TCP flows, server to client", "Mbit/s", more_is_better=True),
    "frames": Figure("64-byte frames, client to server: delivered", "1/s", more_is_better=True),
}
FIGURES = {f"{scheme} {name}": figure for scheme in ("ws", "wss") for name, figure in _OF_A_TUNNEL.items()} | {
    "clients connect": Figure("many clients at once: until the last is connected", "s", more_is_better=False),
    "clients server rss": Figure("memory of the server with all of them: RSS", "MB", more_is_better=False),
}


def checked(path: Path) -> Path:
    """The checkout's Python; BenchError when it has none, or when that would run other code than the checkout's."""
    python = path.resolve() / ".venv" / "bin" / "python"
    if not python.exists():
        raise BenchError(f"{path} has no .venv/bin/python; make one there, for example by `make demo`")
    # In the root directory, so that only the .venv decides what is imported.
    asked = [str(python), "-c", "import etherws; print(etherws.__file__)"]
    found = Path(subprocess.run(asked, cwd="/", capture_output=True, text=True, timeout=60).stdout.strip())
    if not found.is_relative_to(path.resolve()):
        raise BenchError(f"{python} runs etherws of {found}; install the checkout there: pip install -e {path}")
    return python


def described(path: Path) -> str:
    """The checkout's path, commit and Python."""
    commit = run("git", "-C", str(path), "describe", "--always", "--dirty", check=False).strip() or "no commit"
    return f"{path} ({commit}), {run(str(checked(path)), '--version').strip()}"


class Comparison:
    """Two checkouts, by the side that they are on, and what is measured on them."""

    def __init__(self, pythons: dict[str, Path], options: argparse.Namespace) -> None:
        self.pairs, self.congestion = Pairs(FIGURES), set[str]()
        self._pythons, self._options = pythons, options
        self._steps = [step for name, step in STEPS.items() if name in options.figures]
        self._taken = 0

    def round(self, number: int) -> None:
        """Measure every figure on both sides once, in a lab of its own."""
        self._taken = number
        with Lab() as lab:
            for at in range(ADDRESSES):
                lab.a.ip("addr", "add", f"{address(at)}/24", "dev", VETH)
            for scheme in ("ws", "wss"):
                if steps := [step for step in self._steps if scheme in step.schemes]:
                    self._tunnels(number, scheme, steps, lab)
            if CLIENTS in self._options.figures:
                for side in self._order():
                    self.pairs.add(number, side, self._clients(side, lab))

    def _order(self) -> Sequence[str]:
        """Who is measured first: it alternates from figure to figure, and for one figure from round to round."""
        self._taken += 1
        return SIDES if self._taken % 2 else SIDES[::-1]

    def _tunnels(self, number: int, scheme: str, steps: list[Step], lab: Lab) -> None:
        tunnels = {side: self._tunnel(side, scheme, lab) for side in SIDES}
        try:
            for side in self._order():
                tunnels[side].start(lab)
            for step in steps:
                for side in self._order():
                    # The tunnel may still have to carry what is left of the step before.
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
        """Not started; it shares no port, interface or network with the other side's."""
        number = 1 + SIDES.index(side)
        tunnel = Etherws(f"{side} {scheme}", number, tls=scheme == "wss", python=str(self._pythons[side]))
        tunnel.port, tunnel.device, tunnel.directory = PORT + number, f"bench{number}", lab.directory
        return tunnel

    def _clients(self, side: str, lab: Lab) -> dict[str, float]:
        """All clients connect at the same moment to a new server with a bridge."""
        server = [str(self._pythons[side]), "-m", "etherws", "server", "--foreground", "--bridge", "br0"]
        server += ["--address", OUTER_B, "--port", str(PORT)]
        with lab.b.running(*server, directory=lab.directory) as serving:
            wait_until(lambda: serving.listens(PORT), f"{side}: the server to listen")
            with lab.a.running(*role(CROWD, self._options.clients, ADDRESSES)) as crowd:
                wait_until(lambda: crowd.check() and "}" in crowd.so_far(), f"{side}: all clients", CROWD_LIMIT)
                seconds = float(json.loads(crowd.so_far())["seconds"])
                return {"clients connect": seconds, "clients server rss": serving.rss()}


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
            comparison.round(number)
    except BenchError as exc:
        print(f"bench: round {number}: {exc}", file=sys.stderr)
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
    found["rounds"] = f"{options.rounds}, {options.seconds} s for each flow"
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
    for option, most, default, what in (
        ("--rounds", 100, 10, "pairs of each figure"),
        ("--seconds", 60, 2, "of each flow"),
        ("--clients", 1000, 1000, "that connect at the same moment"),
    ):
        help_text = f"{what}; default: {default}"
        parser.add_argument(option, type=up_to(most), default=default, metavar="N", help=help_text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of every round there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
