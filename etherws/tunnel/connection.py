"""The WebSocket: messages out, lists of packets in, over one socket that is already upgraded.

Joins the wire (packets <-> messages), the codec (messages <-> bytes) and the socket. One greenlet reads, one sends. To
send never blocks: what the socket does not take at once the event loop sends as soon as it does, and whoever sends
waits for that before the next message. So a control frame stands behind one message at most. Elsewhere are the opening
handshake (server/serve.py, client/reconnect.py), and when to ping and when to give up (keepalive.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections import Counter
from collections.abc import Sequence
from time import monotonic

import gevent
from gevent.event import Event

from etherws.errors import ConnectionClosed, printable
from etherws.tunnel.congestion import AUTO, Path
from etherws.tunnel.frames import Decoder, Encoder, Opcode, parse_close
from etherws.tunnel.stream import Stream
from etherws.tunnel.tap import SLICE
from etherws.tunnel.wire import Buffer, Version1, Version2

#: Seconds that the last batch has to leave, and then the peer to end its side. Together with the rest of the way out
#: they stay below the 2 s in which SIGTERM ends the process.
FLUSH_TIMEOUT, DRAIN_TIMEOUT = 0.5, 1.0

#: Answers and pings that wait while a message is on its way. Of more pings the latest is answered (RFC 6455, section
#: 5.5.3).
CONTROL_QUEUE = 8

#: Buffers that one system call takes without being joined first. To copy a few bytes is cheaper than to name them.
GATHER = 2


class Connection:
    """One WebSocket connection after its opening handshake."""

    def __init__(
        self,
        stream: Stream,
        *,
        server: bool,
        wire: Version1 | Version2,
        congestion: str = AUTO,
        early: bytes = b"",
    ) -> None:
        """`early` are the bytes that came behind the handshake."""
        self.wire = wire
        self.path = Path(stream.tcp, congestion)
        self.drops: Counter[str] = Counter()
        #: Set while the socket has taken everything.
        self.sent = Event()
        self.sent.set()
        #: When bytes came last, by monotonic(), in seconds.
        self.heard = monotonic()
        #: Seconds from the last ping that was answered to its pong; None before.
        self.round_trip: float | None = None
        self._stream = stream
        self._fd = stream.tcp.fileno()
        self._encoder = Encoder(server=server)
        self._decoder = Decoder(server=server, max_message=wire.max_message)
        self._early = memoryview(early)
        self._unsent: list[memoryview] = []
        self._answers = 0
        self._owed: bytes | None = None
        self._pinged: tuple[bytes, float] | None = None
        self._ended: ConnectionClosed | None = None
        self._closing = self._given_up = False
        self._readable, self._writable, self._room = stream.readable(), stream.writable(), stream.writable()
        self._waited = 0.0
        self._dry = False

    def send(self, messages: Sequence[Buffer]) -> bool:
        """Send the messages; return whether the socket took everything. If not, they must stay as they are, and
        nothing more be sent, until `sent` is set.

        Raises ConnectionClosed once the link is closing or broken.
        """
        if self._closing or self._ended:
            raise self._ended or ConnectionClosed("closing")
        self._write(self._encoder.data(messages))
        if self._ended:
            raise self._ended
        return not self._unsent

    def wait_writable(self) -> None:
        """Block this greenlet until everything is sent and little waits in the kernel (congestion.py)."""
        self.sent.wait()
        if not self._closing and not self._ended:
            gevent.get_hub().wait(self._room)

    def recv(self) -> Sequence[Buffer]:
        """The next packets, one at least; blocks this greenlet until there are some. Valid until the next call.

        Pings are answered on the way. Raises ProtocolError at the peer's first mistake, ConnectionClosed at its Close
        and at the end of TCP.
        """
        while True:
            if error := self._ended or self._decoder.error:
                raise error
            messages: list[Buffer] = []
            for opcode, payload in self._decoder.received(self._recv()):
                if opcode == Opcode.BINARY:
                    messages.append(payload)
                elif opcode == Opcode.PING:
                    self._answer(payload)
                elif opcode == Opcode.CLOSE:
                    code, reason = parse_close(payload)
                    text = f"closed by the peer, code {code or 'none'}"
                    self._ended = ConnectionClosed(f"{text}: {printable(reason)}" if reason else text, code)
                    break
                elif opcode == Opcode.PONG:
                    if self._pinged and payload == self._pinged[0]:
                        self.round_trip = monotonic() - self._pinged[1]
                        self._pinged = None
                else:
                    self.drops["text"] += 1
            packets = self.wire.unpack(messages)
            if packets:
                return packets

    def ping(self) -> None:
        """Ask the peer for a sign of life, ahead of the next message; its pong tells the round trip."""
        if self._closing or self._ended or not self._may_wait():
            return
        self._pinged = os.urandom(8), monotonic()
        self._write([self._encoder.control(Opcode.PING, self._pinged[0])])

    def unread(self) -> int:
        """How many bytes of the peer's wait in the kernel (tcp(7), SIOCINQ)."""
        return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0])

    def lost(self, reason: ConnectionClosed) -> ConnectionClosed:
        """Give the peer up. Returns what to raise; close() then neither waits for it nor leaves TCP to try on."""
        self._ended = self._ended or reason
        self._given_up = True
        # Ends by a RST. Close and FIN would stand behind what is not acknowledged; and a peer that hears us, but is not
        # heard, must learn of it.
        with contextlib.suppress(OSError):
            self._stream.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self._ended

    def close(self, code: int | None, reason: str = "") -> None:
        """End the link: Close with `code`, then TCP, in 1.5 s at most. Nobody may be in recv() any more.

        A peer that reads nothing gets the end of TCP alone.
        """
        if self._closing:
            return
        self._closing = True
        try:
            self._write([self._encoder.close(code, reason)])
            if self.sent.wait(0 if self._given_up else FLUSH_TIMEOUT):
                with contextlib.suppress(OSError), gevent.Timeout(DRAIN_TIMEOUT, TimeoutError()):
                    # The other side still has bytes on their way to us; closing now would make a RST of them, which
                    # can overtake our Close. After the peer's own Close nothing more comes.
                    self._stream.shutdown(socket.SHUT_WR)
                    while not self._ended and self._stream.recv_into(self._decoder.space()):
                        pass
        finally:
            for watcher in (self._readable, self._writable, self._room):
                watcher.close()
            # Not by close() alone: a server's handler may hold a file on the socket.
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
            self._stream.close()
            # What was raised holds on to us by its traceback, and megabytes with us until Python looks for such rings.
            self._ended = self._decoder.error = None

    def all_drops(self) -> Counter[str]:
        """What was thrown away so far, by reason."""
        return self.drops + self.wire.drops

    def _write(self, buffers: Sequence[Buffer]) -> None:
        try:
            buffers = self._stream.encode(buffers)
        except OSError as exc:
            self._ended = self._ended or ConnectionClosed(f"connection lost: {_why(exc)}")
            return
        if len(buffers) > GATHER:
            buffers = (b"".join(buffers),)
        self._unsent += map(memoryview, buffers)
        if self.sent.is_set():
            self._flush()

    def _flush(self) -> None:
        """Give the socket what it takes; called by the event loop while there is more."""
        unsent = self._unsent
        try:
            while unsent:
                size = self._stream.write(unsent[:GATHER])
                while unsent and size >= len(unsent[0]):
                    size -= len(unsent.pop(0))
                if size:
                    unsent[0] = unsent[0][size:]
        except BlockingIOError:
            if self.sent.is_set():
                self.sent.clear()
                self._writable.start(self._flush)
            return
        except OSError as exc:
            self._ended = self._ended or ConnectionClosed(f"connection lost: {_why(exc)}")
            unsent.clear()
        if not self.sent.is_set():
            self._writable.stop()
            self.sent.set()
            self._answers = 0
            owed, self._owed = self._owed, None
            if owed is not None:
                self._answer(owed)

    def _answer(self, payload: Buffer) -> None:
        if self._closing:
            return
        if self._may_wait():
            self._write([self._encoder.control(Opcode.PONG, payload)])
        else:
            self._owed = bytes(payload)

    def _may_wait(self) -> bool:
        """Whether there is room for one more control frame behind the message that is on its way, if one is."""
        self._answers += not self.sent.is_set()
        return self._answers <= CONTROL_QUEUE

    def _recv(self) -> int:
        """Put bytes into the decoder's space; return how many."""
        space = self._decoder.space()
        if self._early:
            size = min(len(space), len(self._early))
            space[:size] = self._early[:size]
            self._early = self._early[size:]
            return size
        # A socket that gave less than it was asked for is empty: to ask again costs a call and an exception. And a peer
        # that sends without end must not keep the others from the event loop: waiting costs one poll, in which all
        # that are ready get their turn; a sleep(0) would only run what is already due.
        if (self._dry or monotonic() - self._waited > SLICE) and self._stream.drained:
            gevent.get_hub().wait(self._readable)
            self._waited = monotonic()
        try:
            size = self._stream.recv_into(space)
        except OSError as exc:
            raise ConnectionClosed(f"connection lost: {_why(exc)}") from exc
        if not size:
            raise ConnectionClosed("connection lost: the peer ended TCP without a Close")
        self._dry = size < len(space)
        self.heard = monotonic()
        return size


def _why(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__
