"""A tunnel between two machines, and streams through it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator

from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.pki import Certificate


def start(hosts: tuple[Host, Host], tls: Certificate | None = None, *options: str) -> None:
    """Start a server on the first machine and a client on the second, and wait until they are connected."""
    server, client = hosts
    if tls:
        server.etherws("server", "--foreground", "--keyfile", str(tls.key), "--certfile", str(tls.cert), *options).says(
            "listening on wss://"
        )
        uri = ["wss://192.0.2.1/", "--cacert", str(tls.cert)]
    else:
        server.etherws("server", "--foreground", *options).says("listening on ws://")
        uri = ["ws://192.0.2.1/"]
    client.etherws("client", "--foreground", "--uri", *uri, *options).says("connected to ws")


def stream(
    one: Host, other: Host, address: str, size: int, option: tuple[int, int, bytes] | None = None
) -> tuple[str, str]:
    """Send `size` random bytes by TCP from `one` to `address` on `other`; return both sides' hashes. `option` is a
    level, a name and a value for the sender's setsockopt(2)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = other.socket(family, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    got = hashlib.sha256()

    def take() -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        while data := connection.recv(1 << 16):
            got.update(data)
        connection.close()

    taker = threading.Thread(target=take)
    taker.start()
    sent = hashlib.sha256()
    source = one.socket(family, socket.SOCK_STREAM)
    source.settimeout(PATIENCE)
    if option:
        source.setsockopt(*option)
    source.connect(listener.getsockname())
    chunk = random.Random(size).randbytes(1 << 20)
    for _ in range(size >> 20):
        source.sendall(chunk)
        sent.update(chunk)
    source.close()
    taker.join(2 * PATIENCE)
    listener.close()
    return sent.hexdigest(), got.hexdigest()


def add_addresses(host: Host, name: str, *addresses: str) -> None:
    """Give the interface addresses, at once usable."""
    for value in addresses:
        host.command(f"ip addr add {value} dev {name}" + (" nodad" if ":" in value else ""))


@contextlib.contextmanager
def conversation(one: Host, other: Host, address: str) -> Iterator[Callable[[int], None]]:
    """One TCP connection from `one` to `address` on `other`. What it yields sends so many random bytes each way, and
    fails unless they arrive as they were."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener, near = other.socket(family, socket.SOCK_STREAM), one.socket(family, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    near.settimeout(2 * PATIENCE)
    near.connect(listener.getsockname())
    far, _ = listener.accept()
    other.keep(far).settimeout(2 * PATIENCE)

    def carry(size: int) -> None:
        for sender, receiver in ((near, far), (far, near)):
            data = random.Random(size).randbytes(size)
            sending = threading.Thread(target=sender.sendall, args=(data,))
            sending.start()
            got = bytearray()
            while len(got) < size and (piece := receiver.recv(1 << 16)):
                got += piece
            sending.join()
            assert got == data

    yield carry


class Stream:
    """A TCP connection from one machine to an address of the other, on which random bytes go until finish()."""

    def __init__(self, one: Host, other: Host, address: str) -> None:
        listener = other.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((address, 0))
        listener.listen()
        self._near = one.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._near.settimeout(2 * PATIENCE)
        self._near.connect(listener.getsockname())
        far, _ = listener.accept()
        self._far = other.keep(far)
        self._far.settimeout(2 * PATIENCE)
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self._received = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._take)]
        for each in self._threads:
            each.start()

    def _send(self) -> None:
        chunk = random.Random(1).randbytes(1 << 16)
        # Some Mbit/s: it must not take the processor from the processes that start.
        while not self._over.wait(0.05):
            self._near.sendall(chunk)
            self._sent.update(chunk)
        self._near.shutdown(socket.SHUT_WR)

    def _take(self) -> None:
        while data := self._far.recv(1 << 16):
            self._got.update(data)
            self._received += len(data)

    def goes_on(self) -> None:
        """Wait until more has arrived."""
        before = self._received
        until(lambda: self._received > before, "the connection inside the tunnel to go on")

    def finish(self) -> None:
        """End it; what was sent must have arrived."""
        self._over.set()
        for each in self._threads:
            each.join(2 * PATIENCE)
        assert self._received > 0
        assert self._sent.digest() == self._got.digest()
