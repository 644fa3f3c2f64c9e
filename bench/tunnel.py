"""A server, one honest client, and a checked TCP stream through their tunnel.

For broken.py, hostile.py, logins.py and stalled.py.

The ends of the stream are processes, ``tunnel.py send|sink ...``. They are roles: a role is a process of a benchmark
that prints its figures as JSON when it ends.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B, VETH, Lab
from bench.process import BenchError, Process, wait_until
from bench.raw_client import PORT, address

#: The port of the sink, at INNER_B.
STREAM_PORT = 8081
#: The addresses inside the tunnel: of the client's interface in a, of the server's bridge in b.
INNER_A, INNER_B = "10.99.0.1", "10.99.0.2"
#: asm-generic/socket.h
SO_MAX_PACING_RATE = 47


@contextmanager
def tunnel(
    lab: Lab, addresses: int, serving: Sequence[str] = (), joining: Sequence[str] = ()
) -> Iterator[tuple[Process, Process]]:
    """Run a server in b and an honest client in a, with these options; yield both when b answers a ping from a.

    Namespace a gets that many additional addresses. BenchError when the server does not run any longer at the end.
    """
    etherws = [sys.executable, "-m", "etherws"]
    batch = lab.a.file("addresses")
    batch.write_text("".join(f"addr add {address(number)}/24 dev {VETH}\n" for number in range(addresses)))
    lab.a.ip("-batch", str(batch))
    ends = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0"]
    with lab.b.running(*etherws, "server", "--foreground", *ends, *serving) as server:
        wait_until(lambda: server.listens(PORT), "the server to listen")
        with lab.a.running(*etherws, "client", "--foreground", f"ws://{OUTER_B}:{PORT}/", *joining) as client:
            wait_until(lambda: client.check() and "connected" in client.so_far(), "the client to connect")
            for namespace, device, own in ((lab.a, "ethws0", INNER_A), (lab.b, "br0", INNER_B)):
                namespace.ip("addr", "add", f"{own}/24", "dev", device)
                namespace.ip("link", "set", device, "up")
            wait_until(lambda: lab.a.pings(INNER_B), "an answer to a ping")
            yield server, client
        server.check()


def stream(lab: Lab, seconds: float, rate: int) -> float:
    """Send a stream through the tunnel; return its Mbit/s. BenchError when bytes are lost or damaged.

    The rate is a limit in bytes per second; 0: no limit.
    """
    with lab.b.running(*role(__file__, "sink")) as receiver:
        wait_until(lambda: receiver.listens(STREAM_PORT), "the sink to listen")
        with lab.a.running(*role(__file__, "send", seconds, rate)) as sender:
            sent, received = figures(sender, 2 * seconds + 60), figures(receiver, 60)
    if received["damaged"] or sent["bytes"] != received["bytes"]:
        raise BenchError(f"the stream was damaged: {sent}, {received}")
    return float(received["Mbit/s"])


def figures(process: Process, timeout: float) -> dict[str, Any]:
    """Wait until a role ends; return the figures that it printed."""
    text = process.output(timeout)
    try:
        found = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError(f"{process.name}: {text[-500:]}") from None
    assert isinstance(found, dict)
    return found


def role(file: str, *arguments: object) -> list[str]:
    """Return the command that runs a role of the file."""
    return [sys.executable, file, *map(str, arguments)]


def _block() -> bytes:
    """Return the block that the stream repeats."""
    return random.Random(0).randbytes(1 << 20)


def send(seconds: float, rate: int) -> dict[str, Any]:
    """Send a stream to the sink, with at most `rate` bytes per second if that is not 0."""
    size, block = 0, _block()
    with socket.create_connection((INNER_B, STREAM_PORT), timeout=60) as sock:
        if rate:
            sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock.sendall(block)
            size += len(block)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    return {"bytes": size}


def sink() -> dict[str, Any]:
    """Receive one stream, and compare each byte: a hash would take as much CPU as the tunnel."""
    size, block = 0, _block()
    twice = block + block
    with socket.create_server((INNER_B, STREAM_PORT)) as server, server.accept()[0] as sock:
        begun = time.monotonic()
        while data := sock.recv(1 << 18):
            at = size % len(block)
            if data != twice[at : at + len(data)]:
                return {"bytes": size, "damaged": True}
            size += len(data)
    return {"bytes": size, "damaged": False, "Mbit/s": size * 8e-6 / (time.monotonic() - begun)}


if __name__ == "__main__":
    print(json.dumps(sink() if sys.argv[1] == "sink" else send(float(sys.argv[2]), int(sys.argv[3]))))
