"""How long a server and a client take from their start until they are ready: what ``systemctl start`` waits for.

A round starts each once: a server with options alone, a server by a configuration, with TLS and a token, and its
client. Ready is READY=1 of sd_notify(3): the server listens, and the client is connected. All are in one network
namespace, so there is no path to wait for. The bytecode is there, as after an installation.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, command
from bench.process import ROOT, BenchError, Process, run
from etherws.kernel.netns import Namespace

#: Seconds after which a start has failed.
LIMIT = 30.0

ETHERWS = (sys.executable, "-m", "etherws")


class Starts:
    """Starts of this checkout, with what they need in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        line = str(folder / "line")
        run(
            *ETHERWS,
            "init",
            "server",
            "--config-dir",
            str(folder / "server"),
            "--host",
            "127.0.0.1:8443",
            "--out",
            line,
        )
        run(*ETHERWS, "init", "client", "--config-dir", str(folder / "client"), "--invitation", line, "--no-try")

    def round(self) -> dict[str, tuple[float, float]]:
        """Seconds of each kind: those that passed, and those of the processor. Raises BenchError."""
        with self._ready("server", "--port", "8080") as bare:
            pass
        with (
            self._ready("server", "--config", str(self._folder / "server" / "lan.toml")) as server,
            self._ready("client", "--config", str(self._folder / "client" / "lan.toml"), "--wait") as client,
        ):
            return {"server": bare, "server --config": server, "client --config": client}

    @contextmanager
    def _ready(self, role: str, *arguments: str) -> Iterator[tuple[float, float]]:
        """Start it, give the seconds until it is ready, as round(), and stop it at the end. Raises BenchError."""
        told = self._folder / f"{role}.notify"
        words = [*ETHERWS, role, *arguments, "--control", f"{self._folder}/{role}.control"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(told))
            notified.settimeout(1)
            began = time.perf_counter()
            process = Process(words, self._folder / f"{role}.log", ROOT, NOTIFY_SOCKET=str(told))
            try:
                while not _says_ready(notified):
                    process.check()
                    if time.perf_counter() - began > LIMIT:
                        raise BenchError(f"{' '.join(words)}: not ready within {LIMIT:.0f} s: {process.so_far()}")
                took = time.perf_counter() - began
                yield took, process.cpu()
            finally:
                process.stop()
                told.unlink()


def _says_ready(notified: socket.socket) -> bool:
    """Whether the next message says so; False if none comes within the socket's time."""
    try:
        return b"READY=1" in notified.recv(4096).split(b"\n")
    except TimeoutError:
        return False


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The median, the least and the most of each kind, in seconds; and the median of the processor's seconds, which
    is nearly the same on a machine that does nothing else."""
    with tempfile.TemporaryDirectory() as folder, Namespace() as namespace, namespace.inside():
        namespace.configure("lo")
        starts = Starts(Path(folder))
        # The first start of all writes the bytecode.
        starts.round()
        rounds = [starts.round() for _ in range(options.rounds)]
    figures = {}
    for kind in rounds[0]:
        seconds, processor = zip(*(each[kind] for each in rounds), strict=True)
        found = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
        found["processor"] = statistics.median(processor)
        figures[kind] = {name: round(value, 3) for name, value in found.items()}
    return figures


def main() -> int:
    """Run the command line; return the exit status."""
    if cannot_run():
        return 1
    return command(measure, "How long a start takes until etherws is ready, in seconds.", [("--rounds", 20, "starts")])


if __name__ == "__main__":
    sys.exit(main())
