"""The receiving half of a WebSocket connection: bytes from the stream to messages and control frames.

It waits for bytes, keeps the peer to its rate, and notes when bytes came last. connection.py decides what a frame
means; see also sender.py, the other half, and frames.py, the framing.
"""

from __future__ import annotations

from time import monotonic

import gevent

from etherws.errors import ConnectionClosed
from etherws.tunnel.frames import Decoder
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.scheduling import TURN_SECONDS
from etherws.tunnel.stream import Stream, connection_lost
from etherws.tunnel.wire import Buffer


class Receiver:
    """Receives for one connection, in one greenlet. `heard` is when bytes came last, by monotonic(), in seconds."""

    def __init__(self, stream: Stream, decoder: Decoder, early: bytes = b"") -> None:
        """`early` are bytes of the WebSocket that were received together with the handshake."""
        self.heard = monotonic()
        self._stream, self._decoder = stream, decoder
        self._early = memoryview(early)
        self._watcher = stream.readable()
        self._waited = 0.0
        self._kernel_empty = False
        self._pacer: Pacer | None = None

    def limit_rate(self, pacer: Pacer) -> None:
        """Receive at the rate of `pacer` from now on. What the peer sends beyond waits in TCP."""
        self._pacer = pacer

    def receive(self) -> list[tuple[int, Buffer]]:
        """Block this greenlet until bytes come; return (opcode, payload) of each message and control frame that they
        complete, perhaps none. Payloads are valid until the next call.

        Raises ProtocolError at the peer's first mistake, ConnectionClosed when the stream ends or fails.
        """
        if self._decoder.error:
            raise self._decoder.error
        if self._pacer:
            gevent.sleep(self._pacer.wait(0, monotonic()))
            # Others that share it may have let bytes pass meanwhile.
            while pause := self._pacer.wait(0, monotonic()):
                gevent.sleep(pause)
        received = self._read(self._decoder.space())
        if self._pacer:
            # Counted are bytes, not packets: messages without any would be free otherwise. And at once: a connection
            # that ends now owes them as well.
            self._pacer.wait(received, monotonic())
        return self._decoder.received(received)

    def discard(self) -> None:
        """Receive and ignore everything until the peer ends the stream. Raises OSError."""
        while self._stream.recv_into(self._decoder.space()):
            pass

    def release(self) -> None:
        """Free the watcher, and the error, whose traceback would keep this object in memory."""
        self._watcher.close()
        self._decoder.error = None

    def _read(self, space: memoryview) -> int:
        """Put bytes into `space`; return how many."""
        if self._early:
            size = min(len(space), len(self._early))
            space[:size] = self._early[:size]
            self._early = self._early[size:]
            return size
        # If the kernel gave less than was asked for, it has no more now: to ask again would cost a system call and an
        # exception. And a peer that never stops must let other connections have their turn.
        if (self._kernel_empty or monotonic() - self._waited > TURN_SECONDS) and self._stream.drained:
            gevent.get_hub().wait(self._watcher)
            self._waited = monotonic()
        try:
            size = self._stream.recv_into(space)
        except OSError as exc:
            raise connection_lost(exc) from exc
        if not size:
            raise ConnectionClosed("connection lost: the peer ended TCP without a Close")
        self._kernel_empty = size < len(space)
        self.heard = monotonic()
        return size
