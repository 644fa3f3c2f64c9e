"""What a restart or a crash of one end costs: ``python bench/survival.py``, as root.

A server and a client under a stand-in for systemd (tests/lab/service_manager.py), and through the tunnel a TCP stream
whose bytes are compared at the end, and a ping every 10 ms. Each round ends the process of one end, by SIGTERM, by
SIGKILL, or has it execute its image anew, and waits until pings are answered again. After each round the interface must
have the index, address, bridge and counters of before. Prints the longest silence of each round: median and worst.

With ``--clients N`` the server has so many clients of one process instead (crowd.py's kind), and the figure is how long
it takes until all of them have their ports again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.fleet import inside
from bench.lab import OUTER_B, Lab, Namespace
from bench.process import BenchError, Process, wait_until

PORT = 8080
#: The addresses inside the tunnel.
INNER_A, INNER_B, PREFIX = "10.99.0.1", "10.99.0.2", "/24"
#: Seconds between two pings, and for which a round may last.
EVERY, BACK_WITHIN = 0.01, 30.0
SIGNALS = {"restart": signal.SIGTERM, "kill": signal.SIGKILL, "exec": signal.SIGUSR2}


class Service:
    """One end, under the stand-in for systemd."""

    def __init__(self, namespace: Namespace, *arguments: str) -> None:
        manager = ("-m", "tests.lab.service_manager", sys.executable, "-m", "etherws")
        self.namespace = namespace
        self.process: Process = namespace.spawn(sys.executable, *manager, *arguments)
        self._starts = 0
        self.wait()

    def wait(self) -> None:
        """Wait until it has started once more."""
        self._starts += 1
        wait_until(lambda: self.process.check() and self.ready() >= self._starts, "etherws: to start", BACK_WITHIN)

    def ready(self) -> int:
        """How often it was ready so far."""
        return self.process.so_far().count("ready ")

    def end(self, how: str) -> None:
        """End its present process, as `how` says."""
        os.kill(int(re.findall("^started ([0-9]+)", self.process.so_far(), re.MULTILINE)[-1]), SIGNALS[how])


class Pings:
    """A datagram every 10 ms, which comes back from the other end: when the last one did, and the longest silence."""

    def __init__(self, near: Namespace, far: Namespace, address: str) -> None:
        with inside(far):
            self._echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._echo.bind((address, 0))
        with inside(near):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._target = self._echo.getsockname()
        self.last = self.began = time.monotonic()
        self.gap = 0.0
        self._stop = False
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._answer, self._ask)]
        for each in self._threads:
            each.start()

    def _answer(self) -> None:
        self._echo.settimeout(0.5)
        while not self._stop:
            with contextlib.suppress(TimeoutError):
                data, address = self._echo.recvfrom(100)
                with contextlib.suppress(OSError):
                    self._echo.sendto(data, address)

    def _ask(self) -> None:
        while not self._stop:
            with contextlib.suppress(OSError):
                self._sock.sendto(b"ping", self._target)
            select.select([self._sock], [], [], EVERY)
            with contextlib.suppress(OSError):
                while self._sock.recv(100):
                    now = time.monotonic()
                    self.gap, self.last = max(self.gap, now - self.last), now
            time.sleep(EVERY)

    def close(self) -> None:
        """Stop."""
        self._stop = True
        for each in self._threads:
            each.join()
        self._echo.close()
        self._sock.close()


class Stream:
    """A TCP stream without an end, with the hash of its bytes at both ends."""

    def __init__(self, near: Namespace, far: Namespace, address: str, rate: int) -> None:
        with inside(far):
            listener = socket.create_server((address, 0))
        with inside(near):
            self._source = socket.socket()
        self._source.settimeout(BACK_WITHIN)
        self._source.connect(listener.getsockname())
        self._sink = listener.accept()[0]
        listener.close()
        self._pause = 65536 * 8 / rate
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self.bytes, self._stop = 0, False
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._take)]
        for each in self._threads:
            each.start()

    def _send(self) -> None:
        block = random.Random(1).randbytes(1 << 20)
        rng = random.Random(2)
        while not self._stop:
            at = rng.randrange(len(block) - 65536)
            piece = block[at : at + 65536]
            self._source.sendall(piece)
            self._sent.update(piece)
            time.sleep(self._pause)
        self._source.shutdown(socket.SHUT_WR)

    def _take(self) -> None:
        while data := self._sink.recv(1 << 18):
            self._got.update(data)
            self.bytes += len(data)

    def end(self) -> bool:
        """Whether all bytes came through as they were sent."""
        self._stop = True
        for each in self._threads:
            each.join(2 * BACK_WITHIN)
        self._source.close()
        self._sink.close()
        return self._sent.digest() == self._got.digest()


def looked(namespace: Namespace, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """What must not change of an interface, and its counters."""
    found = json.loads(namespace.ip("-j", "-s", "-d", "link", "show", "dev", name))[0]
    addresses = json.loads(namespace.ip("-j", "addr", "show"))
    kept: dict[str, Any] = {key: found.get(key) for key in ("ifindex", "address", "master", "mtu", "operstate")}
    kept["addresses"] = [[one["local"] for one in link.get("addr_info", [])] for link in addresses]
    kept["carrier changes"] = namespace.run("cat", f"/sys/class/net/{name}/carrier_changes").strip()
    counters = {f"{way}_{what}": found["stats64"][way][what] for way in ("rx", "tx") for what in ("packets", "bytes")}
    return kept, counters


@contextlib.contextmanager
def tunnel(lab: Lab, workers: int) -> Iterator[dict[str, Service]]:
    """Both ends, and addresses inside."""
    more = ["--workers", str(workers)] if workers else []
    server = Service(lab.b, "server", "--address", OUTER_B, "--port", str(PORT), "--bridge", "br0", *more)
    client = Service(lab.a, "client", "--bridge", "br0", f"ws://{OUTER_B}:{PORT}/")
    try:
        for namespace, address in ((lab.a, INNER_A), (lab.b, INNER_B)):
            namespace.ip("addr", "add", address + PREFIX, "dev", "br0")
        wait_until(lambda: lab.a.pings(INNER_B), "the tunnel")
        yield {"server": server, "client": client}
    finally:
        client.process.stop()
        server.process.stop()


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds; return the figures."""
    if options.clients:
        return crowd(lab, options)
    ends, hows = options.end.split(","), options.how.split(",")
    figures: dict[str, Any] = {}
    with tunnel(lab, options.workers) as services:
        for end in ends:
            for how in hows:
                figures[f"{end}, {how}"] = rounds(lab, services[end], how, options)
    return figures


def rounds(lab: Lab, service: Service, how: str, options: argparse.Namespace) -> dict[str, Any]:
    """The rounds of one end and one way."""
    gaps, failures = [], []
    stream = Stream(lab.a, lab.b, INNER_B, options.rate * 1_000_000)
    pings = Pings(lab.a, lab.b, INNER_B)
    before = {name: looked(namespace, "ethws0") for name, namespace in (("client", lab.a), ("server", lab.b))}
    for number in range(options.rounds):
        time.sleep(options.pause)
        pings.gap, carried, since = 0.0, stream.bytes, time.monotonic()
        service.end(how)
        if how == "exec":
            wait_until(lambda: pings.gap > 10 * EVERY, "the other image", BACK_WITHIN)
        else:
            service.wait()
        wait_until(_since(pings, stream, since, carried), f"round {number} to be over", BACK_WITHIN)
        gaps.append(pings.gap)
        for name, namespace in (("client", lab.a), ("server", lab.b)):
            kept, counters = looked(namespace, "ethws0")
            if kept != before[name][0]:
                failures.append(f"round {number}, {name}: {before[name][0]} became {kept}")
            if any(counters[key] < value for key, value in before[name][1].items()):
                failures.append(f"round {number}, {name}: a counter went back")
            before[name] = kept, counters
    pings.close()
    if not stream.end():
        failures.append("the stream was damaged")
    if failures:
        raise BenchError("; ".join(failures[:5]))
    return {
        "rounds": len(gaps),
        "longest silence, s": {"median": round(statistics.median(gaps), 2), "worst": round(max(gaps), 2)},
        "MB, hash equal": round(stream.bytes / 1e6, 1),
        "failures": len(failures),
    }


def _since(pings: Pings, stream: Stream, since: float, carried: int) -> Callable[[], bool]:
    def over() -> bool:
        # Both go on: a ping has come back after the end, and the stream has carried something.
        return pings.gap > 5 * EVERY and pings.last > time.monotonic() - 0.1 and stream.bytes > carried

    return over


def crowd(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """How long it takes until many clients have their ports again, after the end of the server's process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    tokens = [f"{number:022d}" for number in range(options.clients)]
    more = ["--workers", str(options.workers)] if options.workers else []
    service = Service(lab.b, "server", "--address", OUTER_B, "--port", str(PORT), "--bridge", "br0", *more)
    figures: dict[str, Any] = {}
    try:
        with inside(lab.a):
            connected = _connect(tokens)
        before = _interfaces(lab.b)
        for how in options.how.split(","):
            took = []
            for _ in range(options.rounds):
                begun = time.monotonic()
                service.end(how)
                _all_closed(connected)
                with inside(lab.a):
                    connected = _connect(tokens)
                took.append(time.monotonic() - begun)
                if _interfaces(lab.b) != before:
                    raise BenchError("interfaces have changed")
                if how != "exec":
                    service.wait()
            figures[f"{options.clients} clients back, {how}, s"] = {
                "median": round(statistics.median(took), 2),
                "worst": round(max(took), 2),
            }
    finally:
        service.process.stop()
    return figures


def _interfaces(namespace: Namespace) -> dict[str, tuple[int, str]]:
    links = json.loads(namespace.ip("-j", "link", "show"))
    return {link["ifname"]: (link["ifindex"], link.get("address", "")) for link in links}


def _connect(tokens: list[str]) -> list[socket.socket]:
    """Connect a client for each token, all at once, and again until each is let in; return the connections."""
    poll, waiting, done = select.epoll(), {}, []
    deadline = time.monotonic() + BACK_WITHIN

    def start(token: str) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((OUTER_B, PORT))
        waiting[sock.fileno()] = sock, token
        poll.register(sock, select.EPOLLOUT)

    for token in tokens:
        start(token)
    while waiting:
        if time.monotonic() > deadline:
            raise BenchError(f"{len(waiting)} of {len(tokens)} clients are not back")
        for descriptor, event in poll.poll(0.1):
            sock, token = waiting[descriptor]
            try:
                if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                    sock.send(_request(token))
                    poll.modify(sock, select.EPOLLIN)
                    continue
                answer = sock.recv(4096)
            except OSError:
                answer = b""
            poll.unregister(sock)
            del waiting[descriptor]
            if answer.startswith(b"HTTP/1.1 101"):
                done.append(sock)
            else:
                sock.close()
                start(token)
    return done


def _request(token: str) -> bytes:
    lines = (
        *("GET / HTTP/1.1", f"Host: {OUTER_B}", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Etherws-Resume: {token}"),
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _all_closed(connected: list[socket.socket]) -> None:
    """Wait until the server has ended all of them."""
    for sock in connected:
        sock.settimeout(BACK_WITHIN)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                # A Close is answered by hanging up.
                if data[-4:-3] == b"\x88":
                    break
        sock.close()


def main() -> int:
    """Run the command line; return the exit status."""
    return command(
        in_lab(measure),
        "Restarts and crashes of one end, under load.",
        [
            ("--rounds", 20, "rounds of each kind"),
            ("--end", "server,client", "which ends"),
            ("--how", "restart,kill", "restart (SIGTERM), kill (SIGKILL), exec (SIGUSR2)"),
            ("--pause", 11.0, "seconds between two rounds; after shorter sessions a client waits longer and longer"),
            ("--workers", 0, "workers of the server; 0: as etherws does without the option"),
            ("--rate", 40, "Mbit/s of the TCP stream"),
            ("--clients", 0, "so many clients instead: how long until all are back"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
