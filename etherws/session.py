"""The path of a frame, both ways: a TAP, a WebSocket, and the two greenlets between them.

    device -> tap.read_batch -> link.send_batch: wire (frames to messages), codec (messages to bytes) -> socket
    socket -> link.recv_batch: codec (bytes to messages), wire (messages to frames) -> tap.write_batch -> device

There is no queue between them: a full socket stops the reading of the TAP, and the kernel's ring drops. Read next:
tap.py, wire.py, websocket.py, link.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import gevent
from gevent.event import AsyncResult

from etherws.errors import DeviceLost, EtherwsError, LinkClosed, ProtocolError
from etherws.link import Link
from etherws.tap import Tap
from etherws.websocket import GOING_AWAY, INTERNAL_ERROR
from etherws.wire import Batch


def uplink(tap: Tap, link: Link, headroom: int) -> NoReturn:
    """Device to peer, for ever."""
    batch = Batch(headroom)
    while True:
        tap.read_batch(batch)
        link.send_batch(batch)


def downlink(link: Link, tap: Tap) -> NoReturn:
    """Peer to device, for ever."""
    while True:
        tap.write_batch(link.recv_batch())


class Session:
    """One tunnel from the upgrade to its end."""

    def __init__(self, tap: Tap, link: Link) -> None:
        self._tap = tap
        self._link = link
        self._end: AsyncResult[EtherwsError] = AsyncResult()

    def run(self) -> EtherwsError:
        """Carry frames until either side ends or stop() is called, then close the link; return the reason."""
        self._tap.discard()
        self._tap.drops.clear()
        up = gevent.spawn(self._until_error, uplink, self._tap, self._link, self._link.headroom)
        down = gevent.spawn(self._until_error, downlink, self._link, self._tap)
        try:
            reason = self._end.get()
            assert reason is not None
            down.kill()
            self._link.close(_close_code(reason), str(reason) if isinstance(reason, ProtocolError) else "")
            return reason
        finally:
            gevent.killall([up, down])
            self._link.close(None)

    def stop(self) -> None:
        """Make run() end, in 1.5 s at most; the peer is told that this side is going away (1001)."""
        self._finish(LinkClosed("this side is stopping", GOING_AWAY))

    def summary(self) -> str:
        """What was dropped, as the end of a line in the log; empty if nothing was."""
        drops = self._link.all_drops() + self._tap.drops
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
    if isinstance(reason, ProtocolError | LinkClosed):
        return reason.code
    return GOING_AWAY if isinstance(reason, DeviceLost) else INTERNAL_ERROR
