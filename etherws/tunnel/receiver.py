"""The receiving half of a WebSocket connection: bytes from the stream to messages and control frames.

It waits for bytes, keeps the peer to its rate, and notes when bytes came last. connection.py decides what a frame
means; see also sender.py, the other half, and frames.py, the framing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from time import monotonic

import gevent

from etherws.errors import ConnectionClosed, ProtocolError
from etherws.tunnel.frames import CONTROL_MAX, Decoder, Opcode, header
from etherws.tunnel.long_messages import long_messages
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.stream import CONNECTION_LOST, Stream, connection_lost
from etherws.tunnel.turns import Turn
from etherws.tunnel.wire import Buffer

#: Bytes of a message whose rest does not come that are not counted: etherws sends messages of some 128 KiB. So a
#: thousand connections that stall together keep 128 MB of them at most, and LONG_MESSAGES_BYTES more.
HALF_MESSAGE_BYTES = 128 * 1024


#: Bytes of the longest control frame (RFC 6455, section 5.5): what is looked at, at rest, to see whether it is one.
SKIP_BYTES = 2 + 4 + CONTROL_MAX


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
        # What skip() was told by the kernel, which tells it once.
        self._failed: OSError | None = None
        self._pacer: Pacer | None = None

    def limit_rate(self, pacer: Pacer | None) -> None:
        """Receive at the rate of `pacer` from now on; None: as fast as the peer sends. What the peer sends beyond waits
        in TCP."""
        self._pacer = pacer

    def charge(self, size: int) -> None:
        """Count so many bytes more for the rate: the peer's packets become longer here."""
        if self._pacer:
            self._pacer.wait(size, monotonic())

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

    def quiet(self, seconds: float) -> bool:
        """Whether receive() waits for the peer, and nothing has come for so long. Then its greenlet may be ended."""
        return self._waiting and monotonic() - self.heard >= seconds and not self._stream.unread()

    def on_readable(self, call: Callable[[], object] | None) -> None:
        """No greenlet is in receive() any more: give the buffers back, but for a message that has not come whole, and
        let the event loop call `call` each time when more has come; or, with None, no longer."""
        if call is None:
            self._watcher.stop()
            return
        self._stream.rest()
        self._watcher.start(call)
        # What is much of a message is counted as a long one, at rest too.
        excess = max(0, self._decoder.rest() - HALF_MESSAGE_BYTES)
        try:
            self._hold(excess, partial(self._refuse, call))
        except ProtocolError as exc:
            self._refuse(call, exc)

    def skip(self, opcode: Opcode, payload: bytes) -> bool:
        """At rest, when something has come: whether it is this control frame alone. Then that is taken; whatever else
        it is, receive() returns it."""
        if self._early or self._failed or self._decoder.rest():
            return False
        try:
            self._early = memoryview(self._stream.take(SKIP_BYTES))
        except OSError as exc:
            self._failed = exc
            return False
        if self._early:
            self.heard = monotonic()
        if not is_control(bytes(self._early), opcode, payload, self._decoder.masked):
            return False
        self.read += len(self._early)
        self._early = memoryview(b"")
        return True

    def _refuse(self, call: Callable[[], object], exc: ProtocolError) -> None:
        """Have the next receive() raise `exc`, soon."""
        self._decoder.error = exc
        gevent.get_hub().loop.run_callback(call)

    def release(self) -> None:
        """Free the watcher, and the error, whose traceback would keep this object in memory."""
        self._watcher.close()
        self._hold(0)
        self._decoder.error = self._failed = None

    def _hold(self, excess: int, refuse: Callable[[ProtocolError], object] | None = None) -> None:
        if excess != self._excess or (excess and refuse):
            self._excess = excess
            long_messages.hold(self, self._source, excess, refuse)

    def _read(self, space: memoryview) -> int:
        """Put bytes into `space`; return how many."""
        if self._early:
            size = min(len(space), len(self._early))
            space[:size] = self._early[:size]
            self._early = self._early[size:]
            return size
        # If the kernel gave less than was asked for, it has no more now: to ask again would cost a system call and an
        # exception.
        if self._kernel_empty and self._stream.drained and not self._failed:
            self._waiting = True
            try:
                self._turn.wait(self._watcher)
            finally:
                self._waiting = False
        try:
            if self._failed:
                raise self._failed
            size = self._stream.recv_into(space)
        except OSError as exc:
            raise connection_lost(exc) from exc
        if not size:
            raise ConnectionClosed(f"{CONNECTION_LOST}: the peer ended TCP without a Close")
        self._kernel_empty = size < len(space)
        self.heard = monotonic()
        return size


def is_control(data: bytes, opcode: Opcode, payload: bytes, masked: int) -> bool:
    """Whether `data` is a control frame with this payload, and nothing else. `masked` is MASKED if it must be, or 0."""
    if data[:2] != header(opcode, len(payload), masked):
        return False
    # A few bytes only.
    key = data[2:6] if masked else b""
    return len(data) == 2 + len(key) + len(payload) and data[2 + len(key) :] == bytes(
        byte ^ mask for byte, mask in zip(payload, cycle(key or b"\0"), strict=False)
    )
