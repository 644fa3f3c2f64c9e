"""A connection whose TLS another server has begun: a stream on top of gevent's TLS socket.

OpenSSL reads and writes the socket by itself there, one record of 16 KiB per call. Our own server and the client use
tls.py. The TLS handshake is over when this begins. Users: server/takeover.py, server/http.py. Read next: stream.py,
which explains each method.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from gevent.socket import socket as GeventSocket
from gevent.socket import wait_read, wait_write
from gevent.ssl import SSLSocket

from etherws.tunnel.stream import PlainStream, Stream
from etherws.tunnel.tls import RECORDS_AT_ONCE, TLS_RECORD_BYTES, tls_version
from etherws.tunnel.wire import Buffer


class GeventTlsStream:
    """A TLS connection of gevent's own. Errors of TLS are ssl.SSLError, which is an OSError."""

    def __init__(self, sock: Any) -> None:
        """`sock` is a gevent.ssl.SSLSocket after its handshake. Nobody else may read or write it from now on."""
        #: The socket at the bottom, for its options and its addresses.
        self.tcp: Any = sock
        below = PlainStream(sock)
        self.readable, self.writable = below.readable, below.writable
        self.unread, self.close = below.unread, below.close
        # So that its methods raise SSLWantReadError and SSLWantWriteError where they would wait.
        sock.settimeout(0.0)
        #: Whether OpenSSL has no more plain text: only the kernel can have more.
        self.drained = not sock.pending()

    def tls_version(self) -> tuple[str, str] | None:
        """As Stream.tls_version()."""
        return tls_version(self.tcp)

    def rest(self) -> None:
        """OpenSSL does that by itself (SSL_MODE_RELEASE_BUFFERS, which Python sets)."""

    def take(self, size: int) -> bytes:
        """None: who wants to know has OpenSSL decrypt it."""
        return b""

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The same buffers; small ones as one, so that they fit into one record."""
        return (b"".join(buffers),) if sum(map(len, buffers)) <= TLS_RECORD_BYTES else buffers

    def shutdown(self, how: int) -> None:
        """As socket.shutdown(); the end of sending is sent as a close_notify alert too (RFC 8446, section 6.1)."""
        if how != socket.SHUT_RD:
            # It is sent at once. What is raised then: the peer has not answered it yet.
            with contextlib.suppress(OSError, ValueError):
                self.tcp.unwrap()
        # The method of SSLSocket would forget TLS, and what comes would be read as plain text.
        GeventSocket.shutdown(self.tcp, how)

    def recv_into(self, space: Buffer) -> int:
        """As Stream.recv_into(): what there is without waiting, RECORDS_AT_ONCE records at most."""
        view = memoryview(space)
        size = 0
        for _ in range(RECORDS_AT_ONCE):
            try:
                got = self._read(view[size:], wait=not size)
            except ssl.SSLWantReadError:
                self.drained = True
                return size
            size += got
            if not got:
                # The end: the next call tells it at once.
                self.drained = False
                return size
            if size == len(view):
                break
        self.drained = not self.tcp.pending()
        return size

    def _read(self, view: memoryview, *, wait: bool) -> int:
        """Read some bytes of one record; 0 at the end. Without `wait`, raises SSLWantReadError if there are none."""
        while True:
            try:
                return int(self.tcp.read(len(view), view))
            except ssl.SSLWantReadError:
                if not wait:
                    raise
                wait_read(self.tcp.fileno())
            except ssl.SSLWantWriteError:
                wait_write(self.tcp.fileno())
            except ValueError:
                # Both sides have sent their close_notify, so gevent has ended TLS.
                return 0

    def recv(self, size: int) -> bytes:
        """As socket.recv()."""
        space = bytearray(size)
        return bytes(space[: self.recv_into(space)])

    def write(self, encoded: Sequence[Buffer]) -> int:
        """As Stream.write(). The next call must begin with the bytes that this one did not take: OpenSSL has made a
        record of them already."""
        size = 0
        for data in encoded:
            view = memoryview(data)
            while len(view):
                try:
                    got = self.tcp.write(view)
                except ssl.SSLWantWriteError:
                    if size:
                        return size
                    raise BlockingIOError from None
                except ValueError as exc:
                    raise BrokenPipeError("TLS has ended") from exc
                size += got
                view = view[got:]
        return size

    def sendall(self, data: Buffer) -> None:
        """As socket.sendall()."""
        view = memoryview(data)
        while len(view):
            try:
                view = view[self.write((view,)) :]
            except BlockingIOError:
                wait_write(self.tcp.fileno())


def stream_of(sock: Any) -> Stream:
    """The stream of another server's gevent socket, with TLS if it has TLS."""
    if isinstance(sock, SSLSocket):
        return GeventTlsStream(sock)
    sock.settimeout(None)
    return PlainStream(sock)
