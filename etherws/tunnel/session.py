"""A frame's way in both directions: a TAP, a WebSocket connection, and two greenlets that carry frames between them.

    TAP -> tap.read_batch -> connection.send: wire (packets to messages), frames (messages to bytes) -> stream
    stream -> connection.recv: frames (bytes to messages), wire (messages to packets) -> sink.write_batch -> TAP

No frame waits between them while the socket takes everything. If it does not, the backlog queues frames by flow. While
nothing comes there are no greenlets and no buffers (direction.py). Read next: tap.py, wire.py, frames.py,
connection.py; backlog.py, keepalive.py, direction.py; session_status.py, what it counts and shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import NoReturn, Protocol

import gevent
from gevent.event import AsyncResult

from etherws.close_codes import CloseCode
from etherws.counters import Totals, Values
from etherws.errors import ConnectionClosed, DeviceLost, EtherwsError, ProtocolError
from etherws.settings import DeviceSettings
from etherws.tunnel.backlog import Backlog
from etherws.tunnel.connection import Connection
from etherws.tunnel.direction import Direction
from etherws.tunnel.keepalive import Keepalive
from etherws.tunnel.padding import Padding
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.sampling import sampler
from etherws.tunnel.session_status import SessionStatus
from etherws.tunnel.tap import Tap
from etherws.tunnel.timers import Alarm
from etherws.tunnel.wire import Batch, Buffer

#: Bytes of a packet that is sent before others are asked for. Longer ones, as full frames and super-frames, are bulk,
#: which has its packets in one message: one for each made the tunnel need 6 % more processor time.
ALONE_BYTES = 1024


def uplink(tap: Tap, connection: Connection, backlog: Backlog) -> None:
    """Carry frames from the TAP to the peer, until the backlog is retired."""
    batch = Batch()

    def send_alone() -> bool:
        """Carry a packet that has come alone; called by the event loop. Return whether no other has come."""
        if tap.poll_batch(batch, 1):
            if batch.spans[0][1] > ALONE_BYTES:
                tap.poll_batch(batch, more=True)
            elif connection.try_send(batch):
                # Asked only now: the packet is on its way meanwhile.
                return not tap.poll_batch(batch)
            else:
                # The socket is full. The greenlet waits, and sends no packet twice.
                batch.spans = []
        return False

    while not backlog.retired:
        tap.read_batch(batch, send_alone)
        if not connection.send(batch):
            backlog.drain()


def downlink(connection: Connection, sink: Sink) -> NoReturn:
    """Carry frames from the peer to the sink, without end."""
    try:
        while True:
            packets = connection.recv()
            # Looked up after the wait: the sink may hold packets back since (filtered_sink.py).
            sink.write_batch(packets)
            # Else they would be in memory, and the next ones elsewhere: 10 % of bulk, by the processor's caches.
            del packets
    finally:
        connection.end_turn()


class Sink(Protocol):
    """Where the peer's packets go: the TAP, or what a server's port has in front of it."""

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Take the packets. Raises DeviceError if it can take none any more."""


class Session:
    """One tunnel, from the opening handshake to its end."""

    def __init__(
        self,
        tap: Tap,
        connection: Connection,
        settings: DeviceSettings,
        sink: Sink | None = None,
        totals: Totals | None = None,
    ) -> None:
        """The peer's packets go to `sink`, by default to the TAP. What the session counts is counted in `totals`, too:
        see totals_now()."""
        self._tap = tap
        self._sink = sink or tap
        self._connection = connection
        self._settings = settings
        self._keepalive = Keepalive(connection, settings.ping_interval, settings.ping_timeout)
        self._backlog = Backlog(tap, connection)
        self._padding: Padding | None = None
        self._end: AsyncResult[EtherwsError] = AsyncResult()
        self._sending: Direction | None = None
        self._status = SessionStatus(connection, self._backlog, tap, totals or Totals())

    def run(self, *, linked: bool = False, joining: bool = False, prepared: bool = False) -> EtherwsError:
        """Carry frames until either side ends, or stop() or evict() is called. Return the reason, for close().

        If it is `linked`, it is one of a link: the carrier is the business of who has the link. If it is `joining`, the
        link is there already: see Tap.begin(). If the TAP is `prepared`, that was called before, and what has come
        since then is carried. When this returns, the session uses the TAP no longer.
        """
        if not prepared:
            self._tap.begin(offload=self._connection.wire.offload, joining=joining)
        sampler.begin(self._status)
        self._sending = Direction(self._uplink, self._tap, self.end)
        receiving = Direction(lambda: downlink(self._connection, self._sink), self._connection, self.end)
        if self._settings.ping_interval:
            self._keepalive.begin(self.end)
        if self._connection.wire.padding and not self._backlog.retired:
            self._padding = Padding(self._connection, Alarm, self._tap.name)
            self._padding.begin()
        try:
            reason = self._end.get()
            assert reason is not None
        finally:
            # Also if this greenlet is killed.
            self._keepalive.stop()
            self._stop_padding()
            gevent.killall([*self._sending.stop(), *receiving.stop()])
            self._sending = None
            # Before the TAP has another session, whose drops are not of this one.
            sampler.end(self._status)
            self._status.leave_tap()
            if not (linked or joining):
                self._tap.start_carrier_timeout(self._settings.carrier_timeout)
        # A traceback would keep all of this in memory, and this would keep the traceback; see Connection.close().
        reason.__cause__ = reason.__context__ = None
        return reason.with_traceback(None)

    def close(self, reason: EtherwsError | None = None) -> None:
        """End the connection, in 1.5 s at most. The peer is told the close code for `reason`, and its mistake if it
        made one, or what `reason` has to tell it."""
        code = _close_code(reason) if reason else None
        words = str(reason) if isinstance(reason, ProtocolError) else getattr(reason, "tell", "")
        self._connection.close(code, words)

    def stop(self) -> None:
        """End run(); the peer will be told that this side is going away (1001)."""
        self.end(ConnectionClosed("this side is stopping", CloseCode.GOING_AWAY))

    def restart(self) -> None:
        """End run(); the peer will be told that this side is there again in a moment (1012)."""
        self.end(ConnectionClosed("this side restarts", CloseCode.SERVICE_RESTART))

    def evict(self) -> None:
        """End run() because the same client has another connection; the peer will be told so (1008)."""
        self.end(ConnectionClosed("replaced by another connection of this client", CloseCode.POLICY_VIOLATION))

    def end(self, reason: EtherwsError) -> None:
        """End run(); it returns `reason`, unless there was one before. The peer will be told its close code."""
        # What another greenlet raises after the first error is only a consequence.
        if not self._end.ready():
            self._end.set(reason)

    def retire(self) -> None:
        """Send no more packets from the TAP, apart from those that wait in the backlog: another session of the link
        reads it from now on, when this returns, in a moment. What the peer sends is still received until it closes."""
        self._stop_padding()
        sending = self._sending
        if sending is None:
            # Before and after run() the TAP is another session's.
            self._backlog.retired = True
            return
        sending.leave()
        if self._backlog.retire():
            gevent.killall(sending.stop())
        self._status.leave_tap()

    def limit_rate(self, pacer: Pacer | None) -> None:
        """Receive at the rate of `pacer` from now on; None: as fast as the peer sends."""
        self._connection.limit_rate(pacer)

    def probe(self, *, urgent: bool = True) -> None:
        """The network may have changed: ask the peer for a sign of life now; if `urgent`, end soon without one
        (keepalive.py)."""
        self._keepalive.probe(urgent=urgent)

    @property
    def local_address(self) -> str:
        """The address of this machine that the connection has; empty if it has none."""
        return self._connection.local_address

    @property
    def waiting(self) -> bool:
        """Whether packets wait in its queue to be sent."""
        return bool(self._backlog.waiting(monotonic()).packets)

    def summary(self, more: Mapping[str, int] = MappingProxyType({})) -> str:
        """What was dropped, here and, as `more` says, elsewhere: the end of a log line; empty if nothing was
        dropped."""
        drops = self._status.drops() + Counter(more)
        return "; dropped " + ", ".join(f"{count} {why}" for why, count in sorted(drops.items())) if drops else ""

    def counters(self, more: Mapping[str, int] = MappingProxyType({}), others: tuple[int, int] = (0, 0)) -> str:
        """What the connection has carried so far, with the bytes that `others` have sent and received, and the summary:
        the end of a log line."""
        sent, received = (own + theirs for own, theirs in zip(self._connection.carried(), others, strict=True))
        return (f"; sent {sent} bytes, received {received}" if sent or received else "") + self.summary(more)

    @property
    def age(self) -> float:
        """For how many seconds it has been there."""
        return self._status.age

    @property
    def silence(self) -> float:
        """For how many seconds nothing has come from the peer."""
        return monotonic() - self._connection.heard

    def status(self) -> Values:
        """The session's own part of docs/status.rst."""
        return self._status.values()

    def history(self) -> Values:
        """The last ten minutes, as tunnel/history.py has them."""
        return self._status.history()

    def _stop_padding(self) -> None:
        if self._padding:
            self._padding.stop()
            self._padding = None

    def _uplink(self) -> None:
        try:
            uplink(self._tap, self._connection, self._backlog)
        except ConnectionClosed:
            # The peer may have sent frames before the connection ended. The way down delivers them, and tells the end.
            self._connection.end_receiving()


def totals_now(totals: Totals) -> Totals:
    """Bring `totals` up to date: add what the sessions that run now have counted. Return it. Others have their turns
    meanwhile."""
    return sampler.count_live(totals)


def _close_code(reason: EtherwsError) -> int | None:
    """The close code for the peer (RFC 6455, section 7.4.1): its own code back, or what is wrong."""
    if isinstance(reason, ProtocolError | ConnectionClosed):
        return reason.code
    return CloseCode.GOING_AWAY if isinstance(reason, DeviceLost) else CloseCode.INTERNAL_ERROR
