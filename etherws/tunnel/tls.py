"""A connection's bytes in TLS: what the server, gunicorn's worker and the client put around a plain stream.

ssl.SSLSocket reads and writes one record of 16 KiB per system call. Here OpenSSL works on memory (ssl.MemoryBIO), and
the socket is read and written in pieces as large as the kernel has them: 12 % more throughput, and the same kind of
non-blocking write for ws and wss. The class also has the methods of a socket that HTTP needs. Certificates and
contexts come from access/certificates.py. Read next: stream.py, which explains each method.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from gevent.socket import socket as GeventSocket

from etherws.tunnel.scheduling import pause
from etherws.tunnel.stream import Stream
from etherws.tunnel.wire import Buffer, buffer

#: Bytes that one system call reads at most: as many as the WebSocket's decoder asks for (frames.py).
TLS_READ_BYTES = 256 * 1024

#: Modules/_ssl.h, PY_SSL_ENCODING_DER.
_ENCODING_DER = 2

#: Bytes of plain text in one TLS record at most (RFC 8446, section 5.1). Buffers that fit into one are joined first.
TLS_RECORD_BYTES = 16 * 1024

#: Bytes of a record's header: type, version, and length in two bytes (RFC 8446, section 5.1).
RECORD_HEADER_BYTES = 5

#: Records that OpenSSL gets at once; 17 full ones are as many bytes as one read. One call of OpenSSL handles all that
#: have no data, and a key update takes 15 us.
RECORDS_AT_ONCE = 32

#: Full records that OpenSSL gets or makes by one call. The memory of an ssl.MemoryBIO grows to what was in it at once,
#: by a third more, and never goes back; with one record for each call, a GB takes a twentieth more processor time.
TOGETHER = 4

#: The same in bytes, with the most that encryption adds to each (RFC 8446, section 5.2); and in bytes of plain text.
FED_BYTES, WRITTEN_BYTES = TOGETHER * (RECORD_HEADER_BYTES + TLS_RECORD_BYTES + 256), TOGETHER * TLS_RECORD_BYTES

#: Bytes of OpenSSL's own records from which on they are taken.
PENDING_BYTES = TLS_RECORD_BYTES // 2

#: Records without data in a row, after which the connection ends. Honest peers send one or two: a key update, session
#: tickets. Other TLS libraries end it after 16 or 32, too.
USELESS_RECORDS = 32

#: Bytes of TLS's own answers, such as those to key updates, that may wait for the next data that is sent.
ANSWERS_BYTES = 16 * 1024

#: Makes a block for a part of the handshake.
Block = Callable[[], contextlib.AbstractContextManager[Any]]


class TlsStream:
    """A TLS connection on top of another stream. Errors of TLS are ssl.SSLError, which is an OSError."""

    def __init__(self, below: Stream, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        """The client's end if there is a `server_hostname`, which the certificate must have; else the server's end.
        `below` may be in TLS itself: a proxy with TLS."""
        self._below = below
        #: The socket at the bottom.
        self.tcp: GeventSocket = below.tcp
        self.readable, self.writable = below.readable, below.writable
        self.write, self.unread = below.write, below.unread
        self.close = below.close
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        # What the socket is read into; empty at rest.
        self._space = memoryview(b"")
        # What OpenSSL did not get yet of what was received.
        self._waiting = self._space
        # What is left of the record that OpenSSL got last: so many bytes, or all behind a part of its header.
        self._rest, self._header = 0, b""
        # Records that came since there was data.
        self._useless = 0
        #: Whether nothing more can be decrypted before the stream below has more bytes.
        self.drained = True

    def do_handshake(self, working: Block = contextlib.nullcontext, waiting: Block = contextlib.nullcontext) -> None:
        """Do the TLS handshake; blocks this greenlet. Raises OSError, also when the certificate does not verify.

        What costs processor time is done in a block of `working()`, and what waits for the peer in one of `waiting()`.
        """
        while True:
            try:
                with working():
                    self._tls.do_handshake()
            except ssl.SSLWantReadError:
                with waiting():
                    self._flush()
                    if self._waiting:
                        # Many small records: no deadline could end this otherwise.
                        pause()
                    self._feed()
            except ssl.SSLError:
                # OpenSSL has written an alert that tells the peer why.
                with waiting():
                    self._flush()
                raise
            else:
                with waiting():
                    self._flush()
                self._useless = 0
                return

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As ssl.SSLSocket.getpeercert(); None or empty if the peer sent no certificate, or it was not verified."""
        return self._tls.getpeercert(binary_form)

    def peer_chain(self) -> list[bytes]:
        """The certificates that the peer showed, in DER form, its own first; empty if it showed none."""
        return der_chain(self._tls)

    def cipher(self) -> tuple[str, str, int] | None:
        """As ssl.SSLSocket.cipher(): None until both ends have agreed on one."""
        return self._tls.cipher()

    def tls_version(self) -> tuple[str, str] | None:
        """As Stream.tls_version(); None also before both ends have agreed."""
        return tls_version(self._tls)

    def alpn(self) -> str | None:
        """The protocol that both ends have agreed on by ALPN (RFC 7301); None if the peer knows no ALPN."""
        return self._tls.selected_alpn_protocol()

    def rest(self) -> None:
        """As Stream.rest()."""
        if not self._waiting:
            self._waiting = self._space = memoryview(b"")
        self._below.rest()

    def take(self, size: int) -> bytes:
        """None: who wants to know has OpenSSL decrypt it."""
        return b""

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """The records that carry `buffers`. TLS's own records come first: its answer to a key update (RFC 8446,
        section 4.6.3) goes with the next data."""
        if sum(map(len, buffers)) <= TLS_RECORD_BYTES:
            buffers = (b"".join(buffers),)
        records: list[Buffer] = []
        for data in buffers:
            view = memoryview(data)
            for at in range(0, len(view), WRITTEN_BYTES):
                self._tls.write(view[at : at + WRITTEN_BYTES])
                if self._outgoing.pending > PENDING_BYTES:
                    records.append(self._outgoing.read())
        if self._outgoing.pending:
            records.append(self._outgoing.read())
        return self._below.encode(records)

    def recv_into(self, space: Buffer) -> int:
        """Decrypt into `space` as much as there is without waiting, one byte at least; 0 after the peer's
        close_notify."""
        view = memoryview(space)
        size = records = 0
        while size < len(view):
            if self.drained:
                if size and (not self._waiting or records >= RECORDS_AT_ONCE):
                    self.drained = not self._waiting and self._below.drained
                    return size
                records += self._feed()
            try:
                got = self._tls.read(len(view) - size, view[size:])
            except ssl.SSLWantReadError:
                self.drained = True
                self._check_useless()
            else:
                self._useless = 0
                if not got:
                    # The peer's close_notify: nothing follows it.
                    return size
                size += got  # type: ignore[operator]
                # Do not ask TLS itself: its SSLWantReadError costs more time than a small frame.
                self.drained = not self._incoming.pending
        # TLS may hold the rest of a record.
        self.drained = False
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
        """As socket.shutdown(); the end of sending is sent as a close_notify alert too (RFC 8446, section 6.1)."""
        if how != socket.SHUT_RD:
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
            self._flush()
        self._below.shutdown(how)

    def makefile(self, mode: str = "rb", bufsize: int = -1) -> io.BufferedReader:
        """A file to read from. An HTTP server needs no other."""
        return io.BufferedReader(_Reader(self))

    def __getattr__(self, name: str) -> Any:
        # An HTTP server needs more of a socket, which is the same in TLS: fileno, getpeername, settimeout and so on.
        # And _sock, the socket inside gevent's: pywsgi reads it without waiting before it closes the connection.
        return getattr(self.tcp, name)

    def _feed(self) -> int:
        """Give OpenSSL the next bytes, RECORDS_AT_ONCE records and FED_BYTES at most; blocks this greenlet until there
        are some. Return of how many records they are."""
        if not self._waiting:
            if not self._space:
                self._space = buffer(TLS_READ_BYTES)
            size = self._below.recv_into(self._space)
            if not size:
                raise _failed(ssl.SSLEOFError, ssl.SSL_ERROR_EOF, "the peer ended TCP without a TLS close_notify")
            self._waiting = self._space[:size]
        waiting, at, header, records = self._waiting, self._rest, self._header, 0
        end = len(waiting)
        while at < end and records < RECORDS_AT_ONCE:
            if not header and at + RECORD_HEADER_BYTES <= end:
                record = RECORD_HEADER_BYTES + (waiting[at + 3] << 8 | waiting[at + 4])
                if at and at + record > FED_BYTES:
                    break
                at += record
                records += 1
                continue
            more = waiting[at : at + RECORD_HEADER_BYTES - len(header)]
            header += more
            at += len(more)
            if len(header) == RECORD_HEADER_BYTES:
                at += int.from_bytes(header[3:], "big")
                header = b""
                records += 1
        size = min(at, end)
        self._rest, self._header = at - size, header
        self._incoming.write(waiting[:size])
        self._waiting = waiting[size:]
        self._useless += records
        self.drained = False
        return records

    def _check_useless(self) -> None:
        """OpenSSL has found no data. Raises SSLError if the peer only keeps it busy."""
        if self._useless > USELESS_RECORDS or self._outgoing.pending > ANSWERS_BYTES:
            raise _failed(ssl.SSLError, ssl.SSL_ERROR_SSL, "the peer sends TLS records without data")

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._below.sendall(data)


def tls_version(tls: Any) -> tuple[str, str] | None:
    """The version and the cipher of an ssl.SSLObject or SSLSocket; None before both ends have agreed on them."""
    # The version in cipher() is the first one that had the cipher.
    version, cipher = tls.version(), tls.cipher()
    return (str(version), str(cipher[0])) if version and cipher else None


def der_chain(tls: Any) -> list[bytes]:
    """The certificates that the peer of an ssl.SSLObject or SSLSocket showed, in DER form, its own first."""
    # A public method since Python 3.13; before, the one inside returns objects.
    inside = tls if hasattr(tls, "get_unverified_chain") else tls._sslobj
    chain = inside.get_unverified_chain() or []
    return [each if isinstance(each, bytes) else each.public_bytes(_ENCODING_DER) for each in chain]


def _failed(kind: type[ssl.SSLError], number: int, text: str) -> ssl.SSLError:
    exc = kind(number, text)
    # OpenSSL's own errors have it too.
    exc.reason = text
    return exc


class _Reader(io.RawIOBase):
    """The raw file below makefile()."""

    def __init__(self, sock: TlsStream) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, space: Any) -> int | None:
        try:
            return self._sock.recv_into(space)
        except BlockingIOError:
            return None
