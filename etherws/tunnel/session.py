"""The path of a frame, both ways: a TAP, a WebSocket, and the two greenlets between them.

    device -> tap.read_batch -> wire.pack (packets to messages) -> link.send: codec (messages to bytes) -> socket
    socket -> link.recv: codec (bytes to messages), wire.unpack (messages to packets) -> tap.write_batch -> device

There is no queue between them while the socket takes everything. When it does not, fq_codel.py decides what goes next.
A third greenlet watches whether the peer is still there: keepalive.py. Read next: tap.py, wire.py, frames.py,
connection.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import gevent
from gevent.event import AsyncResult

from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, DeviceLost, EtherwsError, ProtocolError
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.fq_codel import FlowQueue
from etherws.tunnel.keepalive import Keepalive
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Batch, Buffer

#: Seconds that a full socket may stay so before frames are queued. On a fast path it takes more at once, and to sort
#: frames by their flows would only cost.
PATIENCE = 0.002


def uplink(tap: Tap, link: Connection, queue: FlowQueue) -> NoReturn:
    """Device to peer, for ever."""
    batch, spare = Batch(), Batch()
    while True:
        tap.read_batch(batch)
        if link.send(link.wire.pack(batch)):
            if link.path.doubtful:
                link.path.look(monotonic(), full=False)
            continue
        link.path.look(monotonic())
        if not link.sent.wait(PATIENCE):
            # The batch is still being sent from: another takes what comes.
            _queue_up(tap, link, queue, spare)


def _queue_up(tap: Tap, link: Connection, queue: FlowQueue, batch: Batch) -> None:
    """Device to peer through the queue, from a full socket until all that was queued is sent.

    The event loop moves packets from the device to the queue while this greenlet waits for the socket.
    """

    def fill() -> None:
        try:
            tap.poll_batch(batch)
        except DeviceLost:
            # The next to read from it, outside the event loop, is told again.
            tap.on_readable(None)
            return
        now = monotonic()
        for start, end in batch.spans:
            queue.push(bytes(batch.view[start:end]), now)

    tap.on_readable(fill)
    try:
        while True:
            link.wait_writable()
            now = monotonic()
            link.path.look(now, narrow=True)
            packets: list[bytes] = []
            room = link.path.chunk
            while room > 0 and (packet := queue.pop(now)):
                packets.append(packet)
                room -= len(packet)
            if not packets:
                return
            link.send(link.wire.pack_queued(packets))
    finally:
        tap.on_readable(None)


def downlink(link: Connection, sink: Sink, pacer: Pacer | None) -> NoReturn:
    """Peer to device, for ever."""
    while pacer is None:
        sink.write_batch(link.recv())
    while True:
        packets = link.recv()
        sink.write_batch(packets)
        gevent.sleep(pacer.wait(sum(map(len, packets)), monotonic()))


class Sink(Protocol):
    """Where the peer's packets go: the TAP, or what a server's port has before it."""

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Take the packets. Raises DeviceError if none may pass."""


class Session:
    """One tunnel from the upgrade to its end."""

    def __init__(
        self,
        tap: Tap,
        link: Connection,
        settings: DeviceSettings,
        rate: int | None = None,
        sink: Sink | None = None,
    ) -> None:
        """`rate`: the bits per second that the peer may send; as many as it can by None. What it sends goes to `sink`,
        by default to the TAP."""
        self._sink = sink or tap
        self._pacer = Pacer(rate) if rate else None
        if rate:
            link.path.narrow(rate)
        self._tap = tap
        self._link = link
        self._settings = settings
        self._keepalive = Keepalive(link, settings.ping_interval, settings.ping_timeout)
        self._queue = FlowQueue()
        self._end: AsyncResult[EtherwsError] = AsyncResult()

    def run(self) -> EtherwsError:
        """Carry frames until either side ends, or stop() or evict() is called; return the reason, which close() wants.

        Nothing uses the TAP any more when this returns.
        """
        self._tap.begin(offload=self._link.wire.offload)
        work = [
            gevent.spawn(self._until_error, uplink, self._tap, self._link, self._queue),
            gevent.spawn(self._until_error, downlink, self._link, self._sink, self._pacer),
        ]
        if self._settings.ping_interval:
            work.append(gevent.spawn(self._until_error, self._keepalive.run))
        try:
            reason = self._end.get()
            assert reason is not None
        finally:
            # Also when this greenlet is killed.
            gevent.killall(work)
            self._tap.unlinked(self._settings.carrier_timeout)
        # Tracebacks would hold on to all of this, and this to them; see Connection.close().
        reason.__cause__ = reason.__context__ = None
        return reason.with_traceback(None)

    def close(self, reason: EtherwsError | None = None) -> None:
        """End the link, in 1.5 s at most; the peer is told what it did wrong."""
        code = _close_code(reason) if reason else None
        self._link.close(code, str(reason) if isinstance(reason, ProtocolError) else "")

    def stop(self) -> None:
        """Make run() end; the peer will be told that this side is going away (1001)."""
        self._finish(ConnectionClosed("this side is stopping", CloseCode.GOING_AWAY))

    def evict(self) -> None:
        """Make run() end for another connection of the same client; the peer will be told so (1008)."""
        self._finish(ConnectionClosed("replaced by another connection of this client", CloseCode.POLICY_VIOLATION))

    def probe(self) -> None:
        """The path may have changed: ask the peer for a sign of life, and end without one within the ping timeout."""
        self._keepalive.probe()

    def summary(self, more: Mapping[str, int] = MappingProxyType({})) -> str:
        """What was dropped, here and, as `more` says, elsewhere: the end of a line in the log, empty if nothing was."""
        drops = self._link.all_drops() + self._tap.drops + self._queue.drops + Counter(more)
        return "; dropped " + ", ".join(f"{count} {why}" for why, count in sorted(drops.items())) if drops else ""

    def _until_error(self, pump: Callable[..., NoReturn], *ends: Any) -> None:
        try:
            pump(*ends)
        except EtherwsError as exc:
            self._finish(exc)
        except Exception as exc:
            self._finish(EtherwsError(f"unexpected {type(exc).__name__}: {exc}"))
            raise

    def _finish(self, reason: EtherwsError) -> None:
        # The first reason is the cause; what the other pump then says is only its consequence.
        if not self._end.ready():
            self._end.set(reason)


def _close_code(reason: EtherwsError) -> int | None:
    """What the peer is told (RFC 6455, section 7.4.1): its own code back, or what is wrong."""
    if isinstance(reason, ProtocolError | ConnectionClosed):
        return reason.code
    return CloseCode.GOING_AWAY if isinstance(reason, DeviceLost) else CloseCode.INTERNAL_ERROR
