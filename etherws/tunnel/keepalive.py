"""Whether the peer is still there: pings, and the end of a connection on which nothing came for too long.

A sign of life is any byte that is received: a pong, or half a frame. So a peer is alive too that answers no ping but
sends, or that reads nothing but sends. Bytes that are sent prove nothing: a path that is cut in one direction still
takes them. No frame passes here; receiver.py notes when bytes came last.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import NoReturn

import gevent
from gevent.event import Event

from etherws.errors import ConnectionClosed, NetworkChanged
from etherws.tunnel.connection import Connection

#: Seconds for a sign of life after the network may have changed, beside PROBE_ROUND_TRIPS. A ping is small, but it may
#: be lost once. If a peer is declared lost too early, the client connects again within a second; if the path is gone,
#: waiting does not help.
PROBE_TIMEOUT, PROBE_ROUND_TRIPS = 2.0, 4

#: Seconds that the connection's own address may be away: who renews a lease, or configures an interface anew, may take
#: it away and give it back. TCP outlives that.
ADDRESS_ABSENCE = 0.5

#: Seconds without a byte after which the memory of a busy connection goes back to the kernel.
IDLE = 1.0


class Keepalive:
    """Watches one connection."""

    def __init__(self, connection: Connection, interval: float, timeout: float) -> None:
        """Send a ping every `interval` seconds. The peer is lost after `interval` and `timeout` seconds of silence."""
        self._connection, self._interval, self._timeout = connection, interval, timeout
        self._probe, self._urgent = Event(), False

    def probe(self, *, urgent: bool = True) -> None:
        """The network may have changed: see whether the connection's address is still there, and ping now. If `urgent`,
        expect a sign of life within PROBE_TIMEOUT, or `timeout` if that is shorter; within `timeout` if the path is
        there, as acknowledgements show: where much is on its way, a ping and its answer wait behind it."""
        self._urgent = self._urgent or urgent
        self._probe.set()

    def run(self) -> NoReturn:
        """Watch without end. Raises ConnectionClosed when nothing came for `interval` and `timeout` together, and
        NetworkChanged when nothing came after a probe()."""
        connection, silence_max = self._connection, self._interval + self._timeout
        ping_at, probed, probe_timeout = monotonic() + self._interval, math.inf, self._timeout
        unread_at = 0.0
        while True:
            if probe := self._probe.is_set():
                self._probe.clear()
                self._look_for_address()
            now = monotonic()
            if probe:
                ping_at = now
            if probe and self._urgent:
                self._urgent, probed = False, now
                round_trip = max(connection.delays.round_trip or 0, connection.congestion.path()[1])
                probe_timeout = min(self._timeout, PROBE_TIMEOUT + PROBE_ROUND_TRIPS * round_trip)
            heard = max(connection.heard, unread_at)
            if heard > probed:
                probed = math.inf
            deadline = min(heard + silence_max, probed + probe_timeout)
            if now >= deadline:
                # What was acknowledged in the first half may have been on its way before the change.
                if probe_timeout < self._timeout and connection.congestion.path()[0] < (now - probed) / 2:
                    probe_timeout = self._timeout
                    continue
                # Bytes that were not read yet are a sign of life: this process may have been stopped, or be too busy.
                if not connection.unread():
                    kind = ConnectionClosed if probed == math.inf else NetworkChanged
                    raise connection.lost(kind(f"nothing heard for {round(now - heard, 1):g} s"))
                unread_at = now
                continue
            if now >= ping_at:
                if now - heard >= IDLE:
                    connection.free_memory()
                connection.ping()
                ping_at = now + self._interval
            self._probe.wait(min(ping_at, deadline) - now)

    def _look_for_address(self) -> None:
        """Raises NetworkChanged if the connection's own address is gone, and does not come back at once."""
        if self._connection.local_address_gone():
            gevent.sleep(ADDRESS_ABSENCE)
            if self._connection.local_address_gone():
                raise self._connection.lost(NetworkChanged("the address that it came from is gone"))
