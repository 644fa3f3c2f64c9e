"""Whether the peer is still there: pings, and the end of a connection on which nothing came for too long.

A sign of life is any byte that is received: a pong, or half a frame. So a peer is alive too that answers no ping but
sends, or that reads nothing but sends. Bytes that are sent prove nothing: a path that is cut in one direction still
takes them. No frame passes here; receiver.py notes when bytes came last, and timers.py calls when something is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from gevent.event import AsyncResult

from etherws.errors import ConnectionClosed, EtherwsError, NetworkChanged
from etherws.tunnel.connection import Connection
from etherws.tunnel.timers import Alarm

#: Seconds for a sign of life after the network may have changed, beside PROBE_ROUND_TRIPS. A ping is small, but it may
#: be lost once. If a peer is declared lost too early, the client connects again within a second; if the path is gone,
#: waiting does not help.
PROBE_TIMEOUT, PROBE_ROUND_TRIPS = 2.0, 4

#: Seconds that the connection's own address may be away: who renews a lease, or configures an interface anew, may take
#: it away and give it back. TCP outlives that.
ADDRESS_ABSENCE = 0.5


class Keepalive:
    """Watches one connection."""

    __slots__ = (
        *("_absent_until", "_alarm", "_connection", "_end", "_interval", "_ping_at", "_probe", "_probe_timeout"),
        *("_probed", "_timeout", "_unread_at", "_urgent"),
    )

    def __init__(self, connection: Connection, interval: float, timeout: float) -> None:
        """Send a ping every `interval` seconds. The peer is lost after `interval` and `timeout` seconds of silence."""
        self._connection, self._interval, self._timeout = connection, interval, timeout
        self._probe = self._urgent = False
        self._alarm: Alarm | None = None
        self._end: Callable[[EtherwsError], object] | None = None
        # When to ping next; when probe() asked for a sign of life that has not come, and how long that may take; until
        # when the connection's address may be away; when unread bytes were found last. By monotonic().
        self._ping_at, self._probed, self._probe_timeout = 0.0, math.inf, timeout
        self._absent_until, self._unread_at = math.inf, 0.0

    def probe(self, *, urgent: bool = True) -> None:
        """The network may have changed: see whether the connection's address is still there, and ping now. If `urgent`,
        expect a sign of life within PROBE_TIMEOUT, or `timeout` if that is shorter; within `timeout` if the path is
        there, as acknowledgements show: where much is on its way, a ping and its answer wait behind it."""
        self._probe, self._urgent = True, self._urgent or urgent
        if self._alarm:
            self._alarm.set(0.0)

    def begin(self, end: Callable[[EtherwsError], object]) -> None:
        """Watch until stop(). Call `end`, once, with ConnectionClosed when nothing came for `interval` and `timeout`
        together, and with NetworkChanged when nothing came after a probe()."""
        self._end, self._alarm = end, Alarm(self._due)
        self._ping_at = monotonic() + self._interval
        self._alarm.set(0.0 if self._probe else self._interval)

    def stop(self) -> None:
        """Watch no longer."""
        if self._alarm:
            self._alarm.cancel()
        self._end = self._alarm = None

    def run(self) -> NoReturn:
        """Watch without end. Raises what begin() tells."""
        over: AsyncResult[EtherwsError] = AsyncResult()
        self.begin(over.set)
        try:
            reason = over.get()
            assert reason is not None
            raise reason
        finally:
            self.stop()

    def _due(self) -> None:
        assert self._alarm
        assert self._end
        try:
            self._alarm.set(self._look(monotonic()))
        except EtherwsError as exc:
            self._end(exc)
        except Exception as exc:
            self._end(EtherwsError(f"unexpected {type(exc).__name__}: {exc}"))
            raise

    def _look(self, now: float) -> float:
        """Do what is due at `now`; return the seconds until the next time. Raises as begin() says."""
        connection = self._connection
        if self._probe:
            if (absent := self._address_absent(now)) > 0:
                return absent
            self._probe, self._ping_at = False, now
            if self._urgent:
                self._urgent, self._probed = False, now
                round_trip = max(connection.delays.round_trip or 0, connection.congestion.path()[1])
                self._probe_timeout = min(self._timeout, PROBE_TIMEOUT + PROBE_ROUND_TRIPS * round_trip)
        while now >= (deadline := self._deadline()):
            # What was acknowledged in the first half may have been on its way before the change.
            if self._probe_timeout < self._timeout and connection.congestion.path()[0] < (now - self._probed) / 2:
                self._probe_timeout = self._timeout
            # Bytes that were not read yet are a sign of life: this process may have been stopped, or be too busy.
            elif connection.unread():
                self._unread_at = now
            else:
                kind = ConnectionClosed if self._probed == math.inf else NetworkChanged
                silence = now - max(connection.heard, self._unread_at)
                raise connection.lost(kind(f"nothing heard for {round(silence, 1):g} s"))
        if now >= self._ping_at:
            connection.ping()
            self._ping_at = now + self._interval
        return min(self._ping_at, deadline) - now

    def _deadline(self) -> float:
        """Until when something must come."""
        heard = max(self._connection.heard, self._unread_at)
        if heard > self._probed:
            self._probed = math.inf
        return min(heard + self._interval + self._timeout, self._probed + self._probe_timeout)

    def _address_absent(self, now: float) -> float:
        """For how many seconds the connection's own address may still be away; 0 if it is there. Raises NetworkChanged
        if it has been gone for too long."""
        if not self._connection.local_address_gone():
            self._absent_until = math.inf
            return 0.0
        if self._absent_until == math.inf:
            self._absent_until = now + ADDRESS_ABSENCE
        if now >= self._absent_until:
            raise self._connection.lost(NetworkChanged("the address that it came from is gone"))
        return self._absent_until - now
