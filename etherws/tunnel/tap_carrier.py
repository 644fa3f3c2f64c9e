"""Switches the carrier of a TAP on and off: off a while after its last session has ended, if that is wanted.

Bridges, bonds and routes look at the carrier. Before Linux 5.0 it is always on. Read next: tap.py.
Source: Linux, drivers/net/tun.c (TUNSETCARRIER).
"""

from __future__ import annotations

import fcntl
import logging
import struct
from time import monotonic

import gevent

log = logging.getLogger(__name__)

#: include/uapi/linux/if_tun.h
TUNSETCARRIER = 0x400454E2


class CarrierTimeout:
    """What a TAP has for its carrier."""

    _fd: int
    name: str

    def __init__(self) -> None:
        #: Since when there is no session, by monotonic(); None while there is one.
        self.unconnected_since: float | None = None
        #: Switches the carrier off later; see start_carrier_timeout().
        self._carrier_timer: gevent.Greenlet[..., None] | None = None

    def start_carrier_timeout(self, timeout: float) -> None:
        """There is no session now: switch the carrier off in `timeout` seconds, unless begin() is called before.
        Nothing happens if `timeout` is 0, or the time runs already. It began at `unconnected_since`, if that is set:
        for the process that had the TAP before."""
        now = monotonic()
        if self.unconnected_since is None:
            self.unconnected_since = now
        if timeout and self._carrier_timer is None:
            left = max(0.0, self.unconnected_since + timeout - now)
            self._carrier_timer = gevent.spawn_later(left, self.carrier, False)

    def carrier(self, on: bool) -> None:
        """Switch the carrier on or off, as bridges, bonds and routes see it. Before Linux 5.0 it is always on."""
        try:
            fcntl.ioctl(self._fd, TUNSETCARRIER, struct.pack("i", on))
            log.debug("%s: carrier %s", self.name, "on" if on else "off")
        except OSError as exc:
            log.debug("%s: carrier stays as it is: %s", self.name, exc.strerror)

    def stop_carrier_timeout(self) -> None:
        """There is a session again, here or in another process: the carrier is not switched off."""
        self.stop_timer()
        self.unconnected_since = None

    def stop_timer(self) -> None:
        """The carrier is not switched off here; when the sessions ended is not forgotten."""
        if self._carrier_timer is not None:
            self._carrier_timer.kill(block=False)
            self._carrier_timer = None
