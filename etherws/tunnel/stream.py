"""The bytes of a connection, plain or in TLS: what the WebSocket and both ends' HTTP need of a socket.

`Stream` is the protocol, `PlainStream` a connection without TLS; tls.py has the one with TLS. The tests have a third
kind, which needs no kernel: tests/lab/streams.py. sender.py and receiver.py use it; read them next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.socket import socket as GeventSocket

from etherws.errors import ConnectionClosed
from etherws.tunnel.wire import Buffer

if TYPE_CHECKING:
    # Waits for one kind of event, such as room in a socket: by start(callback), stop() and close(), or by gevent's
    # hub.wait(watcher). The type is in gevent's stubs alone.
    from gevent._types import _Watcher as Watcher

#: How the reason begins if TCP has ended, or failed, without a Close.
CONNECTION_LOST = "connection lost"

#: Events of an I/O watcher (libev, ev.h: EV_READ, EV_WRITE).
_READ, _WRITE = 1, 2


class Stream(Protocol):
    """A connected stream socket of gevent, alone or with TLS on top. All errors are OSError."""

    @property
    def tcp(self) -> GeventSocket:
        """The TCP or UNIX socket at the bottom, for its options and its addresses."""

    @property
    def drained(self) -> bool:
        """Whether all bytes that the kernel delivered so far have been received: only the kernel can have more."""

    def tls_version(self) -> tuple[str, str] | None:
        """The version of TLS and the cipher that both ends have agreed on; None without TLS."""

    def readable(self) -> Watcher:
        """A new watcher for bytes to read from the kernel."""

    def writable(self) -> Watcher:
        """A new watcher for room to write to the kernel."""

    def unread(self) -> int:
        """How many bytes wait in the kernel to be read."""

    def recv_into(self, space: Buffer) -> int:
        """Receive into `space`, one byte at least; block this greenlet until there is one. Return how many bytes, 0 at
        the end of the stream."""

    def recv(self, size: int) -> bytes:
        """Receive up to `size` bytes, as recv_into() does."""

    def sendall(self, data: Buffer) -> None:
        """Send all of `data`; block this greenlet until it is written."""

    def rest(self) -> None:
        """Give buffers back that are of use only while something comes. No greenlet is receiving."""

    def take(self, size: int) -> bytes:
        """What has come, up to `size` bytes, without waiting; none if that cannot be told without more work."""

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The bytes for write() that carry `buffers`: in TLS, the records. Each must be written, in this order."""

    def write(self, encoded: Sequence[Buffer]) -> int:
        """Write bytes that encode() returned, without blocking. Return how many the kernel took; BlockingIOError if
        none."""

    def shutdown(self, how: int) -> None:
        """As socket.shutdown(). In TLS the end of sending is also sent to the peer as a close_notify alert."""

    def close(self) -> None:
        """Close the socket at the bottom."""


class PlainStream:
    """A connection without TLS."""

    #: Nothing is kept above the kernel.
    drained = True

    def __init__(self, sock: GeventSocket) -> None:
        self.tcp = sock
        self.recv_into = sock.recv_into
        self.recv = sock.recv
        self.sendall = sock.sendall
        # Called for each batch, so without a Python function around it.
        self.write: Callable[[Sequence[Buffer]], int] = partial(os.writev, sock.fileno())

    def tls_version(self) -> None:
        """There is none."""

    def readable(self) -> Watcher:
        """A new watcher for bytes to read."""
        return gevent.get_hub().loop.io(self.tcp.fileno(), _READ)

    def writable(self) -> Watcher:
        """A new watcher for room to write; TCP_NOTSENT_LOWAT says how much (congestion.py)."""
        return gevent.get_hub().loop.io(self.tcp.fileno(), _WRITE)

    def unread(self) -> int:
        """How many bytes wait in the kernel to be read (tcp(7), SIOCINQ)."""
        return int(struct.unpack("i", fcntl.ioctl(self.tcp.fileno(), termios.FIONREAD, bytes(4)))[0])

    def rest(self) -> None:
        """It has none."""

    def take(self, size: int) -> bytes:
        """What has come, up to `size` bytes; none at the end of the stream."""
        return os.read(self.tcp.fileno(), size)

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The same buffers."""
        return buffers

    def shutdown(self, how: int) -> None:
        """As socket.shutdown()."""
        self.tcp.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self.tcp.close()

    def __getattr__(self, name: str) -> Any:
        # An HTTP server needs more of a socket: makefile, settimeout, getpeername and so on.
        return getattr(self.tcp, name)


def local_address(sock: GeventSocket) -> str:
    """The IP address that a connection has on this machine; empty if it has none, or no more."""
    with contextlib.suppress(OSError):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return str(sock.getsockname()[0])
    return ""


def local_address_gone(sock: GeventSocket) -> bool:
    """Whether this machine no longer has the connection's local address, so that nothing can come any more."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    address, _, *scope = sock.getsockname()
    with socket.socket(sock.family, socket.SOCK_DGRAM) as other:
        try:
            other.bind((address, 0, *scope))
        except OSError as exc:
            return exc.errno == errno.EADDRNOTAVAIL
    return False


def read_exactly(stream: Stream | GeventSocket, size: int) -> bytes:
    """Receive `size` bytes, and no byte more; fewer only if the stream ends before. Raises OSError."""
    data = b""
    while len(data) < size and (more := stream.recv(size - len(data))):
        data += more
    return data


def connection_lost(exc: OSError) -> ConnectionClosed:
    """The error for a connection whose stream failed by `exc`."""
    return ConnectionClosed(f"{CONNECTION_LOST}: {exc.strerror or str(exc) or type(exc).__name__}")
