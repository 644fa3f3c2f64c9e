"""Watches for changes of the machine's network, and reports that there was one.

The client then retries at once, or checks whether the server still answers, so that a laptop which wakes up elsewhere
does not wait. Used by client/local_end.py. Read next: network_changes.py, which says what counts as a change.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic

import gevent
from gevent import socket

from etherws.kernel import socket_filter
from etherws.kernel.netlink_watch import RECEIVE, NetlinkWatch
from etherws.kernel.network_changes import DEFAULT_BITS, RTM_DELROUTE, RTM_NEWROUTE, Changes

log = logging.getLogger(__name__)

#: include/uapi/linux/rtnetlink.h
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = (
    0x1,
    0x10,
    0x40,
    0x100,
    0x400,
)
GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE

#: Seconds between two reports at least. One cable that is plugged in makes a dozen messages.
REPORT_INTERVAL = 1.0

#: So many urgent reports may follow each other that closely, as when a laptop wakes up elsewhere. Then there is one in
#: so many seconds: what a tunnel brings, such as an address for its bridge, must not end the tunnel again and again.
REPORTS_AT_ONCE, REPORT_PAUSE = 10, 10.0


class Budget:
    """Which reports are urgent: REPORTS_AT_ONCE are free, and one more each REPORT_PAUSE seconds."""

    def __init__(self) -> None:
        self._left = float(REPORTS_AT_ONCE)
        self._at = 0.0

    def spend(self, now: float) -> float:
        """An urgent report is to be made at `now`, in seconds of a monotonic clock. Return 0.0 if it may be; else after
        how many seconds to ask again."""
        self._left = min(self._left + (now - self._at) / REPORT_PAUSE, float(REPORTS_AT_ONCE))
        self._at = now
        if self._left < 1:
            return (1 - self._left) * REPORT_PAUSE
        self._left -= 1
        return 0.0


def watch(
    own: Callable[[], str], local: Callable[[], Iterable[str]], on_change: Callable[[bool], None]
) -> NetlinkWatch:
    """Call `on_change` after each change, until the watch is closed. Its argument says whether the change is urgent:
    whether it may be the connection's way that has changed, and Budget allows it now. If Budget does not, a second call
    follows. A failure of netlink also counts as a change, once it is over.

    `own` returns the name of the client's interface; `local` the addresses that its connections have on this machine,
    none without a connection.
    """
    budget = Budget()

    def read(sock: socket.socket) -> None:
        # When a change is to be reported as urgent.
        changes, due = Changes(), math.inf
        while True:
            ask(sock, changes)
            left = None if due == math.inf else max(0.0, due - monotonic())
            gevent.with_timeout(left, socket.wait_read, sock.fileno(), timeout_value=None)
            losses, now = changes.losses, monotonic()
            # Further messages of this change wait in the socket meanwhile, and make one more report at most.
            if found := read_waiting(sock, changes, own()):
                log.debug("the machine's network has changed: %s", found)
                if changes.take_near(*local()):
                    due = min(due, now)
            if urgent := now >= due:
                wait = budget.spend(now)
                due, urgent = now + wait if wait else math.inf, not wait
            if found or urgent:
                on_change(urgent)
                gevent.sleep(REPORT_INTERVAL)
            elif changes.losses > losses:
                # A flood must not have us ask for everything without end.
                gevent.sleep(REPORT_INTERVAL)

    missed, what = partial(on_change, True), "changes of this machine's network"
    return NetlinkWatch(socket.NETLINK_ROUTE, open_groups, read, missed, what)


def open_groups(sock: socket.socket) -> None:
    """Have the kernel tell this netlink socket of changes; of routes only of default routes. Raises OSError."""
    # A router may learn a million routes at once. The kernel leaves them out before they cost us anything.
    with contextlib.suppress(OSError):
        socket_filter.attach(sock, socket_filter.short_routes((RTM_NEWROUTE, RTM_DELROUTE), DEFAULT_BITS))
    sock.bind((0, GROUPS))
    sock.setblocking(False)


def ask(sock: socket.socket, changes: Changes) -> None:
    """Send the next request, if there is one."""
    if request := changes.request():
        sock.send(request)


def read_waiting(sock: socket.socket, changes: Changes, own: str) -> str:
    """Read all messages that wait; return the first change, as text; empty if there is none."""
    found = ""
    while True:
        try:
            data = sock.recv(RECEIVE)
        except BlockingIOError:
            return found
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            # The kernel has dropped messages.
            changes.lost()
        else:
            found = changes.read(data, own) or found
