"""TLS over a gevent socket, by way of memory: what server/serve.py, worker.py and client/reconnect.py wrap a connection
in.

ssl.SSLSocket reads one record of 16 KiB with each call to the kernel, and writes likewise. Here OpenSSL works on
memory (ssl.MemoryBIO), and the socket is read and written in pieces as large as the kernel has them: an eighth more
throughput, and the same kind of non-blocking write for ws and wss. It looks like a socket, as far as HTTP needs one.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from gevent.socket import socket as GeventSocket

from etherws.tunnel.stream import Stream
from etherws.tunnel.wire import Buffer, buffer

#: Bytes asked of the kernel at once.
READ_BYTES = 256 * 1024

#: The most that one TLS record holds (RFC 8446, section 5.1). What fits into one is joined first.
RECORD_BYTES = 16 * 1024


class TlsStream:
    """One TLS connection. Errors of the socket and of TLS are OSError, as with ssl.SSLSocket."""

    def __init__(self, below: Stream, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        """A client's if a `server_hostname` is given, to verify; else a server's. `below` may be TLS itself, to a proxy
        that has TLS."""
        self._below = below
        #: The connection below all TLS.
        self.tcp: GeventSocket = below.tcp
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._space = buffer(READ_BYTES)
        #: Whether nothing can be decrypted before more comes from the wire.
        self.dry = True

    def do_handshake(self) -> None:
        """Shake hands; blocks this greenlet. Raises OSError, also when the certificate does not verify."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError:
                # The alert that says why.
                self._flush()
                raise
            else:
                self._flush()
                return

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As ssl.SSLSocket.getpeercert(); None or empty if the peer showed none, or it was not verified."""
        return self._tls.getpeercert(binary_form)

    def cipher(self) -> Any:
        """As ssl.SSLSocket.cipher(): None before the two have agreed on one."""
        return self._tls.cipher()

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The records that carry `buffers`, after whatever TLS itself had to say: an answer to a key update (RFC 8446,
        section 4.6.3) goes with the next data."""
        if sum(map(len, buffers)) <= RECORD_BYTES:
            buffers = (b"".join(buffers),)
        for data in buffers:
            if len(data):
                self._tls.write(data)
        return self._below.encode((self._outgoing.read(),))

    def recv_into(self, space: Buffer) -> int:
        """Decrypt into `space`, as much as there is without waiting, but at least something; 0 at the end."""
        view = memoryview(space)
        size = 0
        while size < len(view):
            if self.dry:
                if size:
                    self.dry = self._below.dry
                    return size
                self._feed()
            try:
                got = self._tls.read(len(view) - size, view[size:])
            except ssl.SSLWantReadError:
                self.dry = True
            else:
                if not got:
                    # The end, told in TLS; nothing follows it.
                    return size
                size += got  # type: ignore[operator]
                # Known without asking TLS: an exception costs more than a small frame.
                self.dry = not self._incoming.pending
        # TLS may hold the rest of a record.
        self.dry = False
        return size

    def recv(self, size: int) -> bytes:
        """As socket.recv()."""
        space = bytearray(size)
        return bytes(space[: self.recv_into(space)])

    def sendall(self, data: Buffer) -> None:
        """As socket.sendall()."""
        for piece in self.encode((data,)):
            self.tcp.sendall(piece)

    def shutdown(self, how: int) -> None:
        """As socket.shutdown(); the end of sending is told in TLS too (RFC 8446, section 6.1)."""
        if how != socket.SHUT_RD:
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
            self._flush()
        self._below.shutdown(how)

    def makefile(self, mode: str = "rb", bufsize: int = -1) -> io.BufferedReader:
        """A file to read from, which is all that an HTTP server asks for."""
        return io.BufferedReader(_Reader(self))

    def __getattr__(self, name: str) -> Any:
        # What TLS does not change: fileno, getpeername, setsockopt, settimeout, close and so on. And _sock, the socket
        # below gevent's, which pywsgi reads without waiting before it hangs up.
        return getattr(self.tcp, name)

    def _feed(self) -> None:
        """Hand the next bytes of the wire to TLS; blocks this greenlet until there are some."""
        size = self._below.recv_into(self._space)
        if not size:
            end = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer ended TCP without a TLS close_notify")
            # As those have that OpenSSL raises.
            end.reason = end.strerror or ""
            raise end
        self._incoming.write(self._space[:size])
        self.dry = False

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._below.sendall(data)


class _Reader(io.RawIOBase):
    def __init__(self, sock: TlsStream) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, space: Any) -> int | None:
        try:
            return self._sock.recv_into(space)
        except BlockingIOError:
            return None
