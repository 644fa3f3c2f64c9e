"""A WebSocket connection after its opening handshake: packets in, packets out.

Joins the wire (packets <-> messages), the sender, the receiver and the congestion control, and keeps the state between
them: how the connection ended, and whether it is closing. One greenlet may send, another receive. The opening handshake
is in server/handshake.py and client/upgrade.py. Read next: sender.py, receiver.py, keepalive.py (when to ping).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic

import gevent

from etherws.close_codes import closed_by_peer
from etherws.errors import ConnectionClosed
from etherws.tunnel import tcp_facts
from etherws.tunnel.acknowledgements import newest
from etherws.tunnel.congestion import AUTO, BLOCKED, FREE, FULL, CongestionControl
from etherws.tunnel.delays import Delays
from etherws.tunnel.frames import Decoder, Encoder, Opcode
from etherws.tunnel.peer_warnings import PeerWarnings
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.receiver import Receiver
from etherws.tunnel.sender import Sender
from etherws.tunnel.stream import Stream, local_address, local_address_gone
from etherws.tunnel.turns import Account, Turn, account
from etherws.tunnel.wire import Batch, Buffer, Version1, Version2

#: Seconds for a full socket to become free before packets are queued. On a fast path it takes less, and to sort packets
#: by flow would only cost time.
FULL_SOCKET_TIMEOUT = 0.002

#: Seconds for the last bytes to leave, and then for the peer to end its side. With everything else at the end they stay
#: below the 2 s in which SIGTERM ends the process.
FLUSH_TIMEOUT, DISCARD_TIMEOUT = 0.5, 1.0

#: Seconds for which what came before is read and delivered, once sending has failed.
LAST_READ_TIMEOUT = 0.5

_BINARY = int(Opcode.BINARY)  # A plain integer is compared faster than a member of an IntEnum.


class Connection:
    """One WebSocket connection. `drops` counts what was received and ignored, `wire` is the version that is spoken."""

    def __init__(
        self,
        stream: Stream,
        *,
        server: bool,
        wire: Version1 | Version2,
        congestion: str = AUTO,
        early: bytes = b"",
        source: str = "",
        name: str = "the peer",
        mtu: Callable[[], int | None] | None = None,
        peer_mtu: int | None = None,
        agreed: Sequence[str] = (),
        payer: Account | None = None,
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        """`server` is whether this end is the server. `congestion` is the name of a congestion control, or AUTO;
        `early` are bytes that were received together with the handshake. The connections of one `source` share its
        part of this process's time; `payer` is another account for it. `name` is the peer's in the log. `mtu` returns
        that of the interface here, in bytes: a peer of version 1 that sends larger frames is warned of. `peer_mtu`
        is the one that the peer has told, None if none. `agreed` are the names of the features that both ends have.
        `encoder` and `decoder` replace the usual framing."""
        self.wire = wire
        self.congestion = CongestionControl(stream.tcp, congestion)
        self.drops: Counter[str] = Counter()
        self.features = tuple(agreed)
        self.peer_mtu = peer_mtu
        #: Round trips by ping, and how long packets waited in the backlog.
        self.delays = Delays()
        self._stream = stream
        self._sender = Sender(stream, encoder or Encoder(server=server))
        self.pad = self._sender.pad
        #: The turns of the greenlet in recv(). What other greenlets send is counted there too.
        payer = payer or account(source)
        self._turn, self.source = Turn(payer), payer.source
        decoder = decoder or Decoder(server=server, max_message=wire.max_message)
        self._receiver = Receiver(stream, decoder, self._turn, early, payer.source)
        self.quiet = self._receiver.quiet
        if isinstance(wire, Version2):
            wire.charge = self._receiver.charge
        # What was received and not returned by recv() yet: packets, and behind them the Close.
        self._slices: Iterator[Sequence[Buffer]] = iter(())
        self._close: Buffer | None = None
        # Until when what came is still read after sending has failed, by monotonic().
        self._read_until = 0.0
        self._pinged: tuple[bytes, float] | None = None
        self._ended: ConnectionClosed | None = None
        self._closing = self._lost = False
        self._warnings = PeerWarnings(name, mtu if wire.number == 1 else None)

    @property
    def heard(self) -> float:
        """When bytes came last, by monotonic(), in seconds."""
        return self._receiver.heard

    @property
    def written(self) -> int:
        """How many bytes the kernel has taken."""
        return self._sender.written

    def send(self, batch: Batch) -> bool:
        """As try_send(), but wait for FULL_SOCKET_TIMEOUT. After a try_send() that failed, `batch` may be empty."""
        return self.try_send(batch) or self._sender.flush(FULL_SOCKET_TIMEOUT)

    def try_send(self, batch: Batch) -> bool:
        """Send the packets; return whether the socket took everything at once. If not, let `batch`'s buffer be, and
        send nothing, until send() or wait_writable() is done. Raises ConnectionClosed once closing or lost."""
        if self._closing or self._ended:
            raise self._ended or ConnectionClosed("closing")
        if batch.spans:
            self._turn.sent += batch.spans[-1][1]
        if self._sender.send(self.wire.pack(batch, self.congestion.message)):
            self.congestion.update(monotonic(), FREE)
            return True
        self.congestion.update(monotonic(), FULL)
        return False

    def send_queued(self, packets: Sequence[bytes]) -> bool:
        """Send packets that waited in a queue; return whether the socket took everything. Raises as send()."""
        if self._closing or self._ended:
            raise self._ended or ConnectionClosed("closing")
        self._turn.sent += sum(map(len, packets))
        return self._sender.send(self.wire.pack_queued(packets))

    def wait_writable(self) -> int:
        """Block this greenlet until the full socket has room again; return how many bytes to send next."""
        self._sender.wait_writable()
        self.congestion.update(monotonic(), BLOCKED)
        return self.congestion.chunk

    def flush(self, timeout: float | None = None) -> bool:
        """Block this greenlet until the socket has taken everything; return False after `timeout` seconds."""
        return self._sender.flush(timeout)

    def tcp_facts(self) -> tcp_facts.TcpFacts:
        """What the kernel tells of it."""
        return tcp_facts.read(self._stream.tcp)

    def recv(self) -> Sequence[Buffer]:
        """Block this greenlet until packets come; return some, one at least. They are valid until the next call.

        Pings are answered meanwhile. Raises ProtocolError at the peer's first mistake, ConnectionClosed at its Close
        and at the end of TCP: after all packets that came before.
        """
        while True:
            if self._turn.over():
                self._turn.wait()
            for packets in self._slices:
                if packets:
                    return newest(packets) if self.congestion.long else packets
                if self._turn.over():  # All of these were dropped.
                    self._turn.wait()
            self._receive()

    def end_receiving(self) -> None:
        """Let recv() return what has come, and then raise why the connection ended."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RD)

    def on_readable(self, call: Callable[[], object] | None) -> None:
        """As Receiver.on_readable(); no greenlet is in recv() any more."""
        self._slices = iter(())
        self._receiver.on_readable(partial(self._woken, call) if call else None)

    def _woken(self, call: Callable[[], object]) -> None:
        # The answer to our ping, alone, is not worth a greenlet and buffers: an idle peer sends nothing else.
        if self._pinged and self._receiver.skip(Opcode.PONG, self._pinged[0]):
            self._other(Opcode.PONG, self._pinged[0])
        else:
            call()

    def end_turn(self) -> None:
        """Let others have their turn: the greenlet that was in recv() goes on to something else, or ends."""
        self._turn.end()

    def _receive(self) -> None:
        """Replace `_slices`, all of which have been returned, by what comes next."""
        if self._close is not None:
            self._ended = self._ended or closed_by_peer(self._close)
        if self._ended:
            raise self._ended
        if self._sender.error and not self._more_came():
            raise self._sender.error
        messages: list[Buffer] = []
        ping: Buffer | None = None
        for opcode, payload in self._receiver.receive():
            if opcode == _BINARY:
                messages.append(payload)
            elif opcode == Opcode.PING:
                ping = payload
            elif opcode == Opcode.CLOSE:
                self._close = payload  # Nothing follows it.
                break
            else:
                self._other(opcode, payload)
        if ping is not None:
            self._sender.pong(ping)  # An answer to the latest of several is enough (RFC 6455, section 5.5.3).
        self._warnings.frames(messages)
        self._slices = self.wire.unpack(messages)

    def _other(self, opcode: int, payload: Buffer) -> None:
        """A pong, or text."""
        if opcode != Opcode.PONG:
            self._warnings.text()
            self.drops["text"] += 1
        elif self._pinged and payload == self._pinged[0]:
            self.delays.answered(self._pinged[1], monotonic())
            self._pinged = None

    def _more_came(self) -> bool:
        """After sending has failed: whether there are bytes that came before."""
        now = monotonic()
        self._read_until = self._read_until or now + LAST_READ_TIMEOUT
        return now < self._read_until and (self._receiver.undecoded or self.unread() > 0)

    def limit_rate(self, pacer: Pacer | None) -> None:
        """Receive at the rate of `pacer` from now on, which several may share; None: as fast as the peer sends."""
        self.congestion.limit_receive_window(pacer.rate if pacer else None)
        self._receiver.limit_rate(pacer)

    def ping(self) -> None:
        """Send a ping, ahead of the next message. Its pong tells the round trip: see `delays`."""
        payload = os.urandom(8)
        if not self._ended and self._sender.ping(payload):
            self._pinged = payload, monotonic()

    def unread(self) -> int:
        """How many bytes from the peer wait in the kernel."""
        return self._stream.unread()

    def carried(self) -> tuple[int, int]:
        """Bytes that the peer's kernel has acknowledged, and that have come from it, headers and TLS included.

        Where the kernel does not count them, as on a UNIX socket: bytes that it has taken, and that came without TLS.
        """
        found = self.congestion.carried()
        return found if any(found) else (self._sender.written, self._receiver.read)

    @property
    def tls(self) -> tuple[str, str] | None:
        """The version of TLS and the cipher; None without TLS on this side of a proxy."""
        return self._stream.tls_version()

    @property
    def local_address(self) -> str:
        """The IP address that it has on this machine; empty if it has none, or no more."""
        return local_address(self._stream.tcp)

    def local_address_gone(self) -> bool:
        """Whether this machine no longer has the connection's local address, so that nothing can come any more."""
        return local_address_gone(self._stream.tcp)

    def lost(self, reason: ConnectionClosed) -> ConnectionClosed:
        """Declare the peer lost; return the error to raise. close() then does not wait for the peer."""
        self._ended = self._ended or self._sender.error or reason
        self._lost = True
        # By a RST: a Close and a FIN would wait behind bytes that nobody acknowledges, and the peer may hear us still.
        with contextlib.suppress(OSError):
            self._stream.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self._ended

    def close(self, code: int | None, reason: str = "") -> None:
        """End the connection: a Close with `code`, then TCP, in 1.5 s at most. No greenlet may be in recv() any more.

        A peer that reads nothing sees only the end of TCP.
        """
        if self._closing:
            return
        self._closing = True
        try:
            self._sender.close(code, reason)
            if self._sender.flush(0 if self._lost else FLUSH_TIMEOUT):
                with contextlib.suppress(OSError), gevent.Timeout(DISCARD_TIMEOUT, TimeoutError()):
                    # Wait for the peer's end, and receive what it sent before. To close a socket with unread bytes
                    # sends a RST, which can overtake our Close. After the peer's own Close nothing more comes.
                    self._stream.shutdown(socket.SHUT_WR)
                    if not self._ended and not self._sender.error:
                        self._receiver.discard()
        finally:
            # close() alone does not end TCP: the HTTP server may still have a file on the socket.
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
            self._sender.release()
            self._receiver.release()
            self._stream.close()
            # Its traceback would keep this object in memory, with megabytes of buffers, until a garbage collection.
            self._ended = None
