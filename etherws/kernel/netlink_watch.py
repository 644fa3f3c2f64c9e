"""Listens to what netlink tells of changes, without end: a socket that is read, and opened anew when it fails.

Knows no message; who listens gives the function that reads. Read next: guard.py (rules), link_watch.py (interfaces),
loop_watch.py (addresses that bridges learn), network_monitor.py (this machine's network).
Source: netlink(7).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import gevent
from gevent import socket

from etherws.errors import DeviceError
from etherws.log_limit import LogLimit

log = logging.getLogger(__name__)

#: include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE = 33

#: Bytes of one recv(): more than the kernel puts into one.
RECEIVE = 64 * 1024

#: Bytes of messages that may wait: those of a firewall of some 10,000 rules that is loaded at once.
RECEIVE_BUFFER = 4 << 20

#: Seconds until a socket that has failed is opened anew.
REOPEN_INTERVAL = 5.0


class NetlinkWatch:
    """One socket, and the greenlet that reads it."""

    def __init__(
        self,
        protocol: int,
        join: Callable[[socket.socket], None],
        read: Callable[[socket.socket], None],
        missed: Callable[[], None],
        what: str,
    ) -> None:
        """Listen from now on to this protocol of netlink. `join` puts a new socket into its groups; it and `read` may
        raise OSError, and `read` goes on without end. `missed` is called when changes may have gone unnoticed: after
        the socket was opened anew. `what` is in the log what goes unnoticed meanwhile."""
        self._protocol, self._join = protocol, join
        self._read, self._missed, self._what = read, missed, what
        self._limit = LogLimit(log)
        self._socket = self._opened()
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Listen no longer."""
        self._greenlet.kill()
        self._end()

    def _opened(self) -> socket.socket | None:
        with contextlib.ExitStack() as stack:
            try:
                sock = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol))
                self._join(sock)
            except OSError as exc:
                self._limit.log(logging.DEBUG, "open", "%s go unnoticed: %s", self._what, exc.strerror)
                return None
            stack.pop_all()
            return sock

    def _run(self) -> None:
        while True:
            if self._socket is not None:
                try:
                    self._read(self._socket)
                except (OSError, DeviceError) as exc:
                    self._limit.log(
                        logging.WARNING,
                        "read",
                        "%s go unnoticed for %g s, then etherws listens to the kernel anew: %s",
                        self._what,
                        REOPEN_INTERVAL,
                        exc,
                    )
                self._end()
            gevent.sleep(REOPEN_INTERVAL)
            self._socket = self._opened()
            if self._socket is not None:
                self._missed()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def make_room(sock: socket.socket) -> None:
    """Let RECEIVE_BUFFER bytes of messages wait in the socket. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
