"""A connection's bytes, plain or in TLS: what http.py on the server, dial.py on the client and connection.py ask of it.

Read next: tls.py, the other kind of stream. Tests have a third, which needs no kernel: tests/lab/streams.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gevent.socket import socket as GeventSocket

from etherws.tunnel.wire import Buffer


class Stream(Protocol):
    """A connected stream socket of gevent's, and TLS over it if there is any. Errors are OSError."""

    @property
    def tcp(self) -> GeventSocket:
        """The TCP or UNIX socket below: for its options, for watchers, and for its end."""

    @property
    def dry(self) -> bool:
        """Whether all that the kernel gave so far has been received: more must be waited for there."""

    def recv_into(self, space: Buffer) -> int:
        """Receive into `space`; block this greenlet until there is something; return how many bytes, 0 at the end."""

    def recv(self, size: int) -> bytes:
        """As recv_into(), for up to `size` bytes."""

    def sendall(self, data: Buffer) -> None:
        """Send all of it; block this greenlet meanwhile."""

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """What to write to the socket below so as to send `buffers`."""

    def shutdown(self, how: int) -> None:
        """As socket.shutdown(); the end of sending is told in TLS too."""

    def close(self) -> None:
        """Close the socket below."""


class PlainStream:
    """A connection without TLS."""

    #: Nothing is kept above the kernel.
    dry = True

    def __init__(self, sock: GeventSocket) -> None:
        self.tcp = sock
        self.recv_into = sock.recv_into
        self.recv = sock.recv
        self.sendall = sock.sendall

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The same."""
        return buffers

    def __getattr__(self, name: str) -> Any:
        # What else an HTTP server asks of a socket: makefile, settimeout, getpeername and so on.
        return getattr(self.tcp, name)


def read_exactly(stream: Stream | GeventSocket, size: int) -> bytes:
    """Receive `size` bytes, and no byte more; fewer only if the stream ends before. Raises OSError."""
    data = b""
    while len(data) < size and (more := stream.recv(size - len(data))):
        data += more
    return data
