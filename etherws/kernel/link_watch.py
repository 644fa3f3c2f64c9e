"""Tells which interfaces have changed, or their place in a bridge or their queueing discipline: one socket for all.

Says that something may have changed, not what it is now. Read next: link_changes.py, which reads the messages;
bridges.py and guard.py, which are told. Source: rtnetlink(7).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping

from gevent import socket

from etherws.kernel import link_changes
from etherws.kernel.link_changes import Touched
from etherws.kernel.netlink_watch import RECEIVE, NetlinkWatch, make_room
from etherws.walks import in_turns

#: include/uapi/linux/rtnetlink.h
RTMGRP_LINK, RTMGRP_TC = 0x1, 0x8

#: When messages are about so many interfaces, listeners are told: nobody waits until a flood of them is over.
INTERFACES = 32

#: What is called with the indexes of the interfaces, and what may have changed of each; with None if anything may have.
Listener = Callable[[Mapping[int, Touched] | None], None]


class LinkWatch:
    """The changes of all interfaces of this network namespace."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._watch: NetlinkWatch | None = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` after each change, in the order in which they came here. It may let others go on in between,
        and may raise OSError or DeviceError: then all are called with None some seconds later."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Watch from now on."""
        self._watch = NetlinkWatch(
            socket.NETLINK_ROUTE, _join, self._read, lambda: self._tell(None), "changes of interfaces"
        )

    def close(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _read(self, sock: socket.socket) -> None:
        while True:
            socket.wait_read(sock.fileno())
            touched, complete = dict[int, Touched](), True
            try:
                # One change makes some five messages, so what many are about is asked once. A thousand clients that
                # come at once make tens of thousands.
                for found in in_turns(_waiting(sock)):
                    for index, what in found.items():
                        touched[index] = touched.get(index, what) | what
                    if len(touched) >= INTERFACES:
                        break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                # The kernel has dropped messages.
                complete = False
            self._tell(touched if complete else None)

    def _tell(self, touched: Mapping[int, Touched] | None) -> None:
        for listener in self._listeners:
            listener(touched)


def _waiting(sock: socket.socket) -> Iterator[dict[int, Touched]]:
    """What each message is about that waits in the socket. Raises OSError."""
    while True:
        try:
            data = sock.recv(RECEIVE)
        except BlockingIOError:
            return
        yield link_changes.touched(data)


def _join(sock: socket.socket) -> None:
    sock.bind((0, RTMGRP_LINK | RTMGRP_TC))
    make_room(sock)
    sock.setblocking(False)
