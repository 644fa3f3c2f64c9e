"""A server among strangers, and a client of it that behaves: ``python bench/hostile.py``, as root.

Broken handshakes and messages (strangers.py) against a real server in a namespace, while TCP streams through the
tunnel of an honest client; then a thousand connections that say next to nothing, while new clients come. Says what the
server's memory grew by, what the stream kept of its rate, and how long new clients took; a stream that is damaged, or a
server that has ended, is a failure. The stream's ends are processes: ``hostile.py send|sink ...``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B, VETH, BenchError, Lab, Process, wait_until
from bench.strangers import ADDRESSES, MESSAGES, PORT, address

STRANGERS = str(Path(__file__).with_name("strangers.py"))
STREAM_PORT = 8081
#: The LAN in the tunnel: the client's interface in a, the server's bridge in b.
INNER_A, INNER_B = "10.99.0.1", "10.99.0.2"
#: Seconds for what is not the attack itself, at most.
CALM = 10
#: Seconds that slow connections are watched for, at most; the server gives them ten.
PATIENT = 8
#: asm-generic/socket.h
SO_MAX_PACING_RATE = 47


def send(seconds: float, rate: int) -> dict[str, Any]:
    """Stream to the sink, at `rate` bytes a second at most if that is not 0, and take the hash of it."""
    digest, size, block = hashlib.sha256(), 0, random.Random(0).randbytes(1 << 20)
    with socket.create_connection((INNER_B, STREAM_PORT), timeout=60) as sock:
        if rate:
            sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            piece = block[size // 7 % 65536 :][:65536]
            sock.sendall(piece)
            digest.update(piece)
            size += len(piece)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sink() -> dict[str, Any]:
    """Take one stream."""
    digest, size = hashlib.sha256(), 0
    with socket.create_server((INNER_B, STREAM_PORT)) as server, server.accept()[0] as sock:
        begun = time.monotonic()
        while data := sock.recv(1 << 18):
            digest.update(data)
            size += len(data)
    return {"bytes": size, "sha256": digest.hexdigest(), "Mbit/s": size * 8e-6 / (time.monotonic() - begun)}


def figures(process: Process, timeout: float) -> dict[str, Any]:
    """What a role printed at its end."""
    text = process.output(timeout)
    try:
        found = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError(f"{process.name}: {text[-500:]}") from None
    assert isinstance(found, dict)
    return found


def role(file: str, *arguments: object) -> list[str]:
    """The command for one."""
    return [sys.executable, file, *map(str, arguments)]


def stream(lab: Lab, seconds: float, rate: int) -> float:
    """Mbit/s of a stream through the tunnel, whose bytes must arrive."""
    with lab.b.running(*role(__file__, "sink")) as receiver:
        wait_until(lambda: receiver.listens(STREAM_PORT), "the sink to listen")
        with lab.a.running(*role(__file__, "send", seconds, rate)) as sender:
            sent, received = figures(sender, 2 * seconds + 60), figures(receiver, 60)
    if sent["sha256"] != received["sha256"]:
        raise BenchError(f"the stream was damaged: {sent}, {received}")
    return float(received["Mbit/s"])


@contextmanager
def tunnel(
    lab: Lab, addresses: int, serving: Sequence[str] = (), joining: Sequence[str] = ()
) -> Iterator[tuple[Process, Process]]:
    """A server in b and an honest client in a, with these options, whose LAN answers; and so many addresses in a for
    strangers. The server must still run at the end."""
    etherws = [sys.executable, "-m", "etherws"]
    for number in range(addresses):
        lab.a.ip("addr", "add", f"{address(number)}/24", "dev", VETH)
    ends = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0"]
    with lab.b.running(*etherws, "server", "--foreground", *ends, *serving) as server:
        wait_until(lambda: server.listens(PORT), "the server to listen")
        with lab.a.running(*etherws, "client", "--foreground", f"ws://{OUTER_B}:{PORT}/", *joining) as client:
            wait_until(lambda: client.check() and "connected" in client.so_far(), "the client to connect")
            for namespace, device, own in ((lab.a, "ethws0", INNER_A), (lab.b, "br0", INNER_B)):
                namespace.ip("addr", "add", f"{own}/24", "dev", device)
                namespace.ip("link", "set", device, "up")
            wait_until(lambda: lab.a.pings(INNER_B), "an answer to ping")
            yield server, client
        server.check()


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    with tunnel(lab, ADDRESSES) as (server, client):
        found = _attacked(lab, server, options)
        with lab.a.running(*role(STRANGERS, "slow", min(PATIENT, options.seconds))) as many:
            wait_until(lambda: many.check() and "ready" in many.so_far(), "slow connections")
            with lab.a.running(*role(STRANGERS, "knock")) as knocking:
                found["new clients meanwhile, s"] = figures(knocking, 60)
            found["slow connections"] = figures(many, 60)
        found["the client's tunnel was lost"] = client.so_far().count("lost")
        return found


def _attacked(lab: Lab, server: Process, options: argparse.Namespace) -> dict[str, Any]:
    """Rates and memory before, during and after the attack."""

    def attackers(messages: int, handshakes: int, seconds: float, meanwhile: Callable[[], Any]) -> list[dict[str, Any]]:
        share = [messages // options.attackers, handshakes // options.attackers, seconds]
        crowd = [lab.a.spawn(*role(STRANGERS, "attack", *share, options.seed + at)) for at in range(options.attackers)]
        try:
            meanwhile()
            return [figures(process, 3 * seconds + 60) for process in crowd]
        finally:
            for process in crowd:
                process.stop()

    def alone() -> bool:
        # The kernel takes a while to remove that many interfaces.
        return lab.b.has("ethws0") and not lab.b.has("ethws1")

    calm = min(CALM, options.seconds)
    before = stream(lab, calm, options.rate)
    # Caches fill, and the allocator takes what it keeps.
    attackers(MESSAGES * 8 * calm, 400 * calm, calm, lambda: None)
    wait_until(alone, "the first strangers to be gone")
    small, rates = server.rss(), []

    def streaming() -> None:
        rates.append(stream(lab, options.seconds, options.rate))

    reports = attackers(options.messages, options.handshakes, options.seconds, streaming)
    wait_until(alone, "the strangers to be gone")
    large, after = server.rss(), stream(lab, calm, options.rate)
    return {
        "attack": reports,
        "server's memory, MB": {"before": small, "grown by": large - small, "peak": server.peak_rss()},
        "stream, Mbit/s": {"before": before, "meanwhile": rates[0], "after": after},
        "kept of the rate": rates[0] * 2 / (before + after),
    }


def main() -> int:
    """Measure, or be an end of the stream; return the exit status."""
    if sys.argv[1:2] == ["send"]:
        print(json.dumps(send(float(sys.argv[2]), int(sys.argv[3]))))
        return 0
    if sys.argv[1:2] == ["sink"]:
        print(json.dumps(sink()))
        return 0
    parser = argparse.ArgumentParser(prog="bench/hostile.py", description="A server among strangers. Needs root.")
    for option, default, text in (
        ("--messages", 1_000_000, "1,000,000 unless told"),
        ("--handshakes", 100_000, "100,000 unless told"),
        ("--seconds", 420, "over which they are spread; 420 unless told"),
        ("--attackers", 4, "processes that send them; 4 unless told"),
        ("--rate", 0, "of the honest stream, bytes a second; what it can unless told"),
        ("--seed", 1, "1 unless told"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=text)
    return report(measure, parser.parse_args())


def report(measure: Callable[[Lab, argparse.Namespace], dict[str, Any]], options: argparse.Namespace) -> int:
    """Measure in a lab, print what was found, and return the exit status."""
    try:
        with Lab() as lab:
            print(json.dumps(measure(lab, options), indent=2))
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
