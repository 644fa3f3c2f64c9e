"""The receiving half of a WebSocket connection: bytes from the stream to messages and control frames.

It waits for bytes, keeps the peer to its rate, and notes when bytes came last. connection.py decides what a frame
means; see also sender.py, the other half, and frames.py, the framing.
"""

from __future__ import annotations

from time import monotonic

from etherws.errors import ConnectionClosed
from etherws.tunnel.frames import Decoder
from etherws.tunnel.long_messages import long_messages
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.stream import CONNECTION_LOST, Stream, connection_lost
from etherws.tunnel.turns import Turn
from etherws.tunnel.wire import Buffer


class Receiver:
    """Receives for one connection, in one greenlet. `heard` is when bytes came last, by monotonic(), in seconds."""

    def __init__(self, stream: Stream, decoder: Decoder, turn: Turn, early: bytes = b"", source: str = "") -> None:
        """`turn` is the receiving greenlet's; this ends it while nothing comes. `early` are bytes of the WebSocket that
        were received together with the handshake. The connections of one `source` share the room for long messages."""
        self.heard = monotonic()
        #: Bytes that came, without those of TLS.
        self.read = 0
        self._stream, self._decoder, self._turn, self._source = stream, decoder, turn, source
        self._excess = 0
        self._early = memoryview(early)
        self._watcher = stream.readable()
        self._kernel_empty, self._waiting = True, False
        self._pacer: Pacer | None = None

    def limit_rate(self, pacer: Pacer | None) -> None:
        """Receive at the rate of `pacer` from now on; None: as fast as the peer sends. What the peer sends beyond waits
        in TCP."""
        self._pacer = pacer

    @property
    def undecoded(self) -> bool:
        """Whether bytes are here that receive() would decode without waiting for the kernel."""
        return bool(self._decoder.pending or self._early or not self._stream.drained)

    def receive(self) -> list[tuple[int, Buffer]]:
        """Block this greenlet until bytes come; return (opcode, payload) of each message and control frame that they
        complete, perhaps none: so many as one turn has time for. Payloads are valid until the next call.

        Raises ProtocolError at the peer's first mistake, ConnectionClosed when the stream ends or fails.
        """
        if self._decoder.error:
            raise self._decoder.error
        if self._decoder.pending:
            return self._decoder.received(0)
        if self._pacer:
            # Others that share it may let bytes pass meanwhile.
            while delay := self._pacer.wait(0, monotonic()):
                self._turn.sleep(delay)
        space = self._decoder.space()
        if self._excess:
            # It may be less now.
            self._hold(self._decoder.excess)
        size = self._read(space)
        self._turn.received += size
        self.read += size
        if self._pacer:
            # Counted are bytes, not packets: messages without any would be free otherwise. And at once: a connection
            # that ends now owes them as well.
            self._pacer.wait(size, monotonic())
        events = self._decoder.received(size)
        self._hold(self._decoder.excess)
        return events

    def discard(self) -> None:
        """Receive and ignore everything until the peer ends the stream. Raises OSError."""
        space = self._decoder.space()
        while self._stream.recv_into(space):
            # Otherwise no timeout could end this while the peer sends.
            if self._turn.over():
                self._turn.wait()

    def free(self) -> None:
        """Give back the memory that holds nothing, if receive() waits for the peer."""
        if self._waiting:
            self._decoder.free()

    def release(self) -> None:
        """Free the watcher, and the error, whose traceback would keep this object in memory."""
        self._watcher.close()
        self._hold(0)
        self._decoder.error = None

    def _hold(self, excess: int) -> None:
        if excess != self._excess:
            self._excess = excess
            long_messages.hold(self, self._source, excess)

    def _read(self, space: memoryview) -> int:
        """Put bytes into `space`; return how many."""
        if self._early:
            size = min(len(space), len(self._early))
            space[:size] = self._early[:size]
            self._early = self._early[size:]
            return size
        # If the kernel gave less than was asked for, it has no more now: to ask again would cost a system call and an
        # exception.
        if self._kernel_empty and self._stream.drained:
            self._waiting = True
            self._turn.wait(self._watcher)
            self._waiting = False
        try:
            size = self._stream.recv_into(space)
        except OSError as exc:
            raise connection_lost(exc) from exc
        if not size:
            raise ConnectionClosed(f"{CONNECTION_LOST}: the peer ended TCP without a Close")
        self._kernel_empty = size < len(space)
        self.heard = monotonic()
        return size
