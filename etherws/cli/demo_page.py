"""The demo's live page: a door on this machine to the page inside the demo's namespaces, and traffic to look at.

The page itself is the server's, as everywhere. Nobody gets in without the address that is printed. Read next: demo.py.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click

from etherws.cli.operate.control import Control
from etherws.errors import DemoError, EtherwsError
from etherws.kernel.netns import Namespace

#: Where the server inside serves its page. Nothing else is in its namespace.
MONITOR = "127.0.0.1", 9402

#: Connections at once. A browser has a few; each has two threads.
CONNECTIONS_MAX = 32

#: Bytes that are passed on at once.
PART = 1 << 16

#: Seconds between two writes of the traffic, bytes of one on average, and the seconds in which they go up and down.
PAUSE, BYTES, WAVE = 0.1, 30_000, 40.0


class Door:
    """Listens on the loopback of the machine, and passes each connection on to the page inside."""

    def __init__(self) -> None:
        """To be called before this process enters a namespace: the socket stays in the machine's. Raises DemoError."""
        try:
            self._listener = socket.create_server(("127.0.0.1", 0))
        except OSError as exc:
            raise DemoError(f"cannot listen on 127.0.0.1 for the page: {exc.strerror}") from exc
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def authority(self) -> str:
        """HOST:PORT, as a browser of this machine needs it."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def open(self, inside: Namespace) -> None:
        """Let connections in from now on, to MONITOR in this namespace."""
        threading.Thread(target=self._accept, args=(inside,), daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more, and end all connections."""
        # Ends the thread that waits in accept(); on a socket that never was listened on by a thread it does no harm.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, inside: Namespace) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if len(self._open) >= 2 * CONNECTIONS_MAX:
                    raise OSError("too many connections")
                with inside.inside():
                    far = socket.create_connection(MONITOR, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._join, args=(near, far), daemon=True).start()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Pass bytes on both ways until both ends have ended."""
        back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
        back.start()
        _pass_on(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(PART):
            sink.sendall(data)
    # The other way may still go on, as an answer does after its request; but a browser that has gone takes no more.
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def show(door: Door, control: Path, server: Namespace, sender: Namespace, receiver: Namespace, address: str) -> None:
    """Print the page's address, and send traffic from `sender` to `receiver`, at `address`, until Ctrl-C.

    `control` is the server's control socket. Raises DemoError.
    """

    def tell() -> None:
        try:
            found = str(Control(str(control)).post("/page")["address"])
        except (EtherwsError, KeyError) as exc:
            raise DemoError(f"the page has no address: {exc}") from exc
        click.echo(f"  {urlsplit(found)._replace(netloc=door.authority).geturl()}")

    door.open(server)
    click.echo("the live page, for a browser on this machine")
    tell()
    more = "; Enter prints another address" if sys.stdin.isatty() else ""
    click.echo(f"\nThe address is good once, for a minute{more}. Ctrl-C ends the demo.")
    with contextlib.suppress(KeyboardInterrupt):
        _traffic(sender, receiver, address, tell)
    click.echo()


def _traffic(sender: Namespace, receiver: Namespace, address: str, tell: Callable[[], None]) -> None:
    """Send some, now more and now less; tell() at each line that the user types. Raises DemoError."""
    keyboard = [sys.stdin] if sys.stdin.isatty() else []
    with contextlib.ExitStack() as stack:
        try:
            with receiver.inside():
                listener = stack.enter_context(socket.create_server((address, 5002)))
            with sender.inside():
                near = stack.enter_context(socket.create_connection((address, 5002), timeout=30))
            far = stack.enter_context(listener.accept()[0])
            for end in (near, far):
                # If the tunnel is away, because somebody has ended the session on the page, the demo goes on.
                end.setblocking(False)
            while True:
                with contextlib.suppress(BlockingIOError):
                    near.send(bytes(int(BYTES * (1.1 + math.sin(time.monotonic() * 2 * math.pi / WAVE)))))
                time.sleep(PAUSE)
                with contextlib.suppress(BlockingIOError):
                    while far.recv(PART):
                        pass
                if keyboard and select.select(keyboard, [], [], 0)[0]:
                    if sys.stdin.readline():
                        tell()
                    else:
                        keyboard.clear()
        except OSError as exc:
            raise DemoError(f"TCP to {address}: {exc}") from exc
