"""The attackers of hostile.py: ``hostile_flood.py KIND CONNECTIONS SCHEME``, one process for all connections.

Each connection is a greenlet that acts as its kind says (hostile_kinds.py), again and again, until SIGTERM. "ready" is
printed when all of them are connected. At the end the process prints as JSON how much the server took. Addresses,
requests and frames by hand: raw_client.py, hostile_frames.py.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket as blocking
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.ssl import SSLContext

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B
from bench.raw_client import LINES, LINES_V2, PORT, TIMEOUT, accepted, address, request

#: Seconds after which "ready" is printed though not all are connected: a busy server may refuse some for ever.
READY_TIMEOUT = 40.0
#: Seconds at the beginning in which it only fills the buffers.
WARM_UP = 1.0
#: Seconds to wait before a new try, if the connection was refused at once.
PAUSE = 0.01
#: A socket of gevent, with TLS or without.
Socket = Any


class Attack:
    """What all connections of one attack share."""

    def __init__(self, connections: int, scheme: str, addresses: int) -> None:
        self.connections, self.tls = connections, scheme == "wss"
        self.sent = self.opened = self.answered = self.refused = self.failed = 0
        self._addresses, self._ready, self._due = addresses, 0, 0.0
        self._begun, self._before = 0.0, 0
        self._all_ready = gevent.event.Event()
        self._context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    def run(self, act: Callable[[Attack, int], None]) -> None:
        """Let each connection act until SIGTERM, which prints the figures. Does not return."""
        # Not gevent's, which would wait for its turn beside greenlets that always have something to do.
        signal.signal(signal.SIGTERM, self._stop)
        for number in range(self.connections):
            gevent.spawn(self._again, act, number)
        self._all_ready.wait(READY_TIMEOUT)
        print("ready", flush=True)
        gevent.sleep(WARM_UP)
        self._begun, self._before = monotonic(), self.sent
        while True:
            gevent.sleep(TIMEOUT)

    def _stop(self, *_: object) -> None:
        """Print the figures, and end the process."""
        seconds = monotonic() - self._begun if self._begun else 0.0
        rate = (self.sent - self._before) / seconds if seconds else 0.0
        counts = {name: getattr(self, name) for name in ("opened", "answered", "refused", "failed")}
        print(json.dumps({"MB/s": rate / 1e6, "sent": self.sent, **counts}), flush=True)
        # Thousands of connections at once end by a RST.
        os._exit(0)

    def _again(self, act: Callable[[Attack, int], None], number: int) -> None:
        while True:
            opened = self.opened
            with suppress(OSError, EOFError):
                act(self, number)
                gevent.sleep(0)
                continue
            self.failed += 1
            gevent.sleep(0 if self.opened > opened else PAUSE)

    def ready(self) -> None:
        """Count one more connection that does what its kind is about."""
        self._ready += 1
        if self._ready >= self.connections:
            self._all_ready.set()

    def turn(self, rate: float) -> None:
        """Wait, so that all connections together have `rate` turns per second."""
        self._due = max(self._due, monotonic()) + 1 / rate
        gevent.sleep(max(0.0, self._due - monotonic()))

    def connect(self, number: int, *, tls: bool | None = None, window: int = 0) -> Socket:
        """Return a new connection. `tls` is whether TLS is spoken, as the scheme says by default; `window` is the size
        of the receive buffer in bytes."""
        sock = socket.socket()
        try:
            sock.settimeout(TIMEOUT)
            if window:
                # Before connect(), since the window scale is fixed there (tcp(7)).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            sock.setsockopt(blocking.IPPROTO_TCP, blocking.TCP_NODELAY, 1)
            sock.bind((address(number % self._addresses), 0))
            sock.connect((OUTER_B, PORT))
            self.opened += 1
            return self._context.wrap_socket(sock) if (self.tls if tls is None else tls) else sock
        except BaseException:
            sock.close()
            raise

    def send(self, sock: Socket, data: bytes) -> None:
        """Send all of it, and let the other connections have their turn."""
        sock.sendall(data)
        self.sent += len(data)
        gevent.sleep(0)

    def flood(self, sock: Socket, data: bytes) -> None:
        """Send it again and again, until an OSError comes."""
        self.ready()
        while True:
            self.send(sock, data)

    def ask(self, sock: Socket, text: bytes) -> bytes:
        """Send a request, and return the first bytes of the answer; raises EOFError if there is none."""
        self.send(sock, text)
        answer: bytes = sock.recv(4096)
        if not answer:
            raise EOFError
        self.answered += 1
        return answer

    def join(self, number: int, version: int = 1, *lines: bytes, window: int = 0) -> Socket:
        """Return a session with this version of the wire; raises EOFError if it is refused."""
        sock = self.connect(number, window=window)
        try:
            text = request([*(LINES_V2 if version == 2 else LINES), *lines])
            if not accepted(self.ask(sock, text)):
                self.refused += 1
                raise EOFError
            if not window:
                # What the LAN sends to all must not fill the buffers.
                gevent.spawn(rest, sock)
            return sock
        except BaseException:
            sock.close()
            raise


def rest(sock: Socket) -> None:
    """Read and forget, until the connection ends."""
    with suppress(OSError):
        sock.settimeout(None)
        while sock.recv(65536):
            pass


def reset(sock: Socket) -> None:
    """End the connection by a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def main(kind: str, connections: str, scheme: str) -> None:
    """Run the attack of one kind."""
    from bench.hostile_kinds import KINDS

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # What is unfinished when the process ends is no news.
    gevent.get_hub().exception_stream = None
    found = KINDS[kind]
    Attack(int(connections), scheme, found.addresses).run(found.act())


if __name__ == "__main__":
    main(*sys.argv[1:])
