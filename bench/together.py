"""Tunnels that are up at the same time on one emulated path, and the options for them: for fetch.py and bad_paths.py.

Each has its own port and interface. So they can be measured one directly after another, and a slow minute of the
machine affects all of them. Other checkouts of etherws can be among them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.cli import names
from bench.compare import checked
from bench.lab import CONGESTION, Lab
from bench.peer import PORT, Peer, Tunnel
from bench.peers import PEERS, Etherws
from bench.report import machine


def add_options(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Add the options that choose the peers; without them, these peers are measured."""
    text = f"of {', '.join(PEERS)}; default: {','.join(default)}"
    parser.add_argument("--peers", type=names(PEERS), default=list(default), metavar="NAME,...", help=text)
    text = "another checkout of etherws with its own .venv; may be given several times"
    parser.add_argument("--tree", type=Path, action="append", default=[], metavar="PATH", help=text)
    text = "congestion control of the tunnels over TCP, unless they choose another; default: cubic"
    parser.add_argument("--outside", default=CONGESTION, metavar="NAME", help=text)
    text = "congestion control of the flows inside; default: cubic"
    parser.add_argument("--inside", default=CONGESTION, metavar="NAME", help=text)


def chosen(options: argparse.Namespace) -> list[Peer]:
    """Return the peers of the options; those that are not installed are named and left out.

    Raises BenchError when a checkout cannot be run.
    """
    peers = list[Peer]()
    for name in options.peers:
        if absent := PEERS[name].absent():
            print(f"bench: {name} skipped, not installed: {', '.join(absent)}", file=sys.stderr)
        else:
            peers.append(PEERS[name])
    for number, tree in enumerate(options.tree):
        peers.append(Etherws(f"ws of {tree.resolve().name}", 100 + number, tls=False, python=str(checked(tree))))
    for number, peer in enumerate(peers):
        if isinstance(peer, Tunnel):
            peer.port, peer.device = PORT + number, f"bench{number}"
            if peer.congestion == CONGESTION:
                peer.congestion = options.outside
    return peers


@contextmanager
def together(lab: Lab, peers: Sequence[Peer]) -> Iterator[None]:
    """Start all peers; stop them when the block ends."""
    started = list[Peer]()
    try:
        for peer in peers:
            started.append(peer)
            if isinstance(peer, Tunnel) and peer.name not in PEERS:
                # Python also imports from the current directory, which must not be this checkout.
                peer.directory = lab.directory
            peer.start(lab)
        yield
    finally:
        for peer in started:
            peer.stop()


def outside(lab: Lab, peer: Peer, *, server: bool) -> str:
    """Return the congestion control of the peer's own TCP connection, at its server or at its client; or "UDP"."""
    if not isinstance(peer, Tunnel):
        return ""
    if not peer.over_tcp:
        return "UDP"
    namespace, side = (lab.b, "sport") if server else (lab.a, "dport")
    told = namespace.run("ss", "-tniH", side, "=", f":{peer.port}")
    found = set(re.findall(r"^\s+(?:ts |sack |ecn |ecnseen )*(\w+) wscale", told, re.MULTILINE))
    return ", ".join(sorted(found))


def about() -> dict[str, str]:
    """Return what describes the machine and the peers, by name."""
    found = machine()
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {**found, "congestion control": f"as each row says; this machine's default: {default}"}
