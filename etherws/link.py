"""The WebSocket: batches of frames out, lists of frames in, over one socket that is already upgraded.

Joins the wire (frames <-> messages), the codec (messages <-> bytes) and the socket. One greenlet reads; any may write,
one batch at a time, and control frames go ahead of the next batch. The opening handshake is elsewhere: server.py,
client.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter, deque
from collections.abc import Sequence
from time import monotonic

import gevent
from gevent.lock import BoundedSemaphore
from gevent.ssl import SSLSocket

from etherws.errors import LinkClosed, printable
from etherws.tap import SLICE
from etherws.websocket import BINARY, CLOSE, PING, PONG, Decoder, Encoder, parse_close
from etherws.wire import Batch, Buffer, Version1

#: Seconds that the last batch has to leave, and then the peer to end its side. Together with the rest of the way out
#: they stay below the 2 s in which SIGTERM ends the process.
FLUSH_TIMEOUT, DRAIN_TIMEOUT = 0.5, 1.0

#: Answers that wait while a batch is on its way. Of many pings the latest may do (RFC 6455, section 5.5.3).
CONTROL_QUEUE = 8


class Link:
    """One WebSocket connection after its opening handshake."""

    def __init__(self, sock: socket.socket, *, server: bool, wire: Version1, early: bytes = b"") -> None:
        """`sock` is gevent's, plain or TLS; `early` the bytes that came behind the handshake."""
        self._sock = sock
        self._wire = wire
        self._encoder = Encoder(server=server)
        self._decoder = Decoder(server=server, max_message=wire.max_message)
        self._early = memoryview(early)
        self._ended: LinkClosed | None = None
        self._closing = False
        self._torn = False
        self._writer = BoundedSemaphore(1)
        self._control: deque[bytes] = deque(maxlen=CONTROL_QUEUE)
        self._readable = gevent.get_hub().loop.io(sock.fileno(), 1)
        self._waited = 0.0
        self.drops: Counter[str] = Counter()
        # A frame of a LAN waits for nobody.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_batch(self, batch: Batch) -> None:
        """Send the batch's frames; blocks this greenlet while the socket is full.

        Raises LinkClosed once the link is closing or broken.
        """
        self._send(b"".join(self._encoder.data(self._wire.messages(batch))))

    def recv_batch(self) -> Sequence[Buffer]:
        """The next frames, one at least; blocks this greenlet until there are some. Valid until the next call.

        Pings are answered on the way. Raises ProtocolError at the peer's first mistake, LinkClosed at its Close and at
        the end of TCP.
        """
        while True:
            if self._ended:
                raise self._ended
            messages: list[Buffer] = []
            for opcode, payload in self._decoder.received(self._recv()):
                if opcode == BINARY:
                    messages.append(payload)
                elif opcode == PING:
                    self._answer(payload)
                elif opcode == CLOSE:
                    code, reason = parse_close(payload)
                    text = f"closed by the peer, code {code or 'none'}"
                    self._ended = LinkClosed(f"{text}: {printable(reason)}" if reason else text, code)
                    break
                elif opcode != PONG:
                    self.drops["text"] += 1
            frames = self._wire.frames(messages)
            if frames:
                return frames

    def close(self, code: int | None, reason: str = "") -> None:
        """End the link: Close with `code`, then TCP, in 1.5 s at most. Nobody may be in recv_batch() any more.

        A peer that reads nothing, or a batch that was torn when its greenlet was killed, gets the end of TCP alone.
        """
        if self._closing:
            return
        self._closing = True
        try:
            if self._writer.acquire(timeout=FLUSH_TIMEOUT) and not self._torn:
                with contextlib.suppress(OSError), gevent.Timeout(FLUSH_TIMEOUT, TimeoutError()):
                    self._sock.sendall(b"".join(self._control) + self._encoder.close(code, reason))
                with contextlib.suppress(OSError), gevent.Timeout(DRAIN_TIMEOUT, TimeoutError()):
                    # The other side still has bytes on their way to us; closing now would make a RST of them, which
                    # can overtake our Close. After the peer's own Close nothing more comes.
                    self._sock.shutdown(socket.SHUT_WR)
                    while not self._ended and self._sock.recv_into(self._decoder.space()):
                        pass
        finally:
            self._readable.close()
            # Not by close() alone: a server's handler may hold a file on the socket.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    @property
    def headroom(self) -> int:
        """Bytes that a batch must leave free before each frame."""
        return self._wire.headroom

    def all_drops(self) -> Counter[str]:
        """What was thrown away so far, by reason."""
        return self.drops + self._wire.drops

    def _send(self, data: bytes) -> None:
        with self._writer:
            if self._closing:
                raise LinkClosed("closing")
            # A greenlet killed between here and the end leaves half a frame behind: nothing may follow it.
            self._torn = True
            try:
                self._sock.sendall(self._urgent() + data if self._control else data)
                while self._control:
                    self._sock.sendall(self._urgent())
            except OSError as exc:
                raise LinkClosed(f"connection lost: {_why(exc)}") from exc
            self._torn = False

    def _urgent(self) -> bytes:
        data = b"".join(self._control)
        self._control.clear()
        return data

    def _answer(self, payload: Buffer) -> None:
        self._control.append(self._encoder.control(PONG, payload))
        # Whoever is writing sends it next; the reader itself must not stand behind a full socket.
        if not self._writer.locked():
            self._send(b"")

    def _recv(self) -> int:
        """Put bytes into the decoder's space; return how many."""
        space = self._decoder.space()
        if self._early:
            size = min(len(space), len(self._early))
            space[:size] = self._early[:size]
            self._early = self._early[size:]
            return size
        # A peer that sends without end must not keep the others from the event loop. Waiting costs one poll, in which
        # all that are ready get their turn; a sleep(0) would only run what is already due.
        if monotonic() - self._waited > SLICE and not _pending(self._sock):
            gevent.get_hub().wait(self._readable)
            self._waited = monotonic()
        try:
            size = self._sock.recv_into(space)
        except OSError as exc:
            raise LinkClosed(f"connection lost: {_why(exc)}") from exc
        if not size:
            raise LinkClosed("connection lost: the peer ended TCP without a Close")
        return size


def _pending(sock: socket.socket) -> bool:
    """Whether TLS holds decrypted bytes that no poll of the descriptor tells of."""
    return isinstance(sock, SSLSocket) and sock.pending() > 0


def _why(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__
