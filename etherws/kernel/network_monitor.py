"""Watches for changes of the machine's network: an interface has come up, or an address has come or gone.

watch() reports that there was a change, not which. The client then retries at once, or checks whether the server still
answers, so that a laptop which wakes up elsewhere does not wait. The client's own interface and the bridge that this is
in do not count: they change because of the client. Used by client/reconnect.py.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/rtnetlink.h, if_link.h, if.h.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent import socket

from etherws.kernel import netlink

log = logging.getLogger(__name__)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR = 16, 17, 18, 20, 21
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME, IFLA_MASTER = 3, 10
IFF_RUNNING = 0x40

#: struct ifinfomsg and ifaddrmsg.
_LINK, _ADDRESS = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")

#: The sequence number of our request for all links. The answers have the same number; the report of a change has the
#: number of the request that made the change, or 0. Any number that others are unlikely to use.
DUMP_SEQUENCE = 0x65746877

#: Seconds between two reports at least. One cable that is plugged in makes a dozen messages.
REPORT_INTERVAL = 1.0

#: Bytes of one recv(): more than the kernel puts into one.
RECEIVE = 64 * 1024


class _Link(NamedTuple):
    name: str
    master: int
    running: bool


class Changes:
    """Remembers the machine's links, and finds changes in netlink's messages. Does no I/O."""

    def __init__(self) -> None:
        self._links: dict[int, _Link] = {}

    def read(self, data: bytes, own: str) -> bool:
        """Read netlink messages; return whether one is a change that counts for the client whose interface is `own`.

        Answers to our own request are no changes: they say what is there already.
        """
        changed = False
        for kind, sequence, _, body in netlink.messages(data):
            # A body that is too short for its header is ignored.
            if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= _LINK.size:
                # A bridge, among others, reports its ports a second time, in an address family of its own.
                family, _, index, flags, _ = _LINK.unpack_from(body)
                if family == socket.AF_UNSPEC:
                    up = self._link(kind, index, bool(flags & IFF_RUNNING), body[_LINK.size :])
                    changed |= up and sequence != DUMP_SEQUENCE and not self._is_own(index, own)
            elif kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= _ADDRESS.size:
                changed |= not self._is_own(_ADDRESS.unpack_from(body)[4], own)
        return changed

    def _link(self, kind: int, index: int, running: bool, attributes: memoryview) -> bool:
        """Remember a link; return whether it has come up."""
        before = self._links.pop(index, None)
        if kind == RTM_DELLINK:
            return False
        name, master = "", 0
        for key, value in netlink.attributes(attributes):
            if key == IFLA_IFNAME:
                name = netlink.text(value)
            elif key == IFLA_MASTER and len(value) == 4:
                (master,) = struct.unpack("=I", value)
        self._links[index] = _Link(name, master, running)
        return running and not (before and before.running)

    def _is_own(self, index: int, own: str) -> bool:
        """Whether the link is the client's interface, or the bridge that this is in."""
        return any(link.name == own and index in (number, link.master) for number, link in self._links.items())


def watch(own: Callable[[], str], on_change: Callable[[], None]) -> None:
    """Call `on_change` after each change, once per REPORT_INTERVAL at most; without end.

    `own` returns the name of the client's interface. Returns only if netlink fails, which the log says (--debug).
    """
    changes = Changes()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            sock.setblocking(False)
            _request_links(sock)
            while True:
                socket.wait_read(sock.fileno())
                if _read_waiting(sock, changes, own()):
                    log.debug("the machine's network has changed")
                    on_change()
                    # Further messages of this change wait in the socket meanwhile, and make one more report at most.
                    gevent.sleep(REPORT_INTERVAL)
    except OSError as exc:
        log.debug("changes of the machine's network go unnoticed: %s", exc.strerror)


def _read_waiting(sock: socket.socket, changes: Changes, own: str) -> bool:
    """Read all messages that wait; return whether there was a change."""
    changed = False
    while True:
        try:
            data = sock.recv(RECEIVE)
        except BlockingIOError:
            return changed
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            # The kernel has dropped messages. Take that for a change, and ask for the present state.
            _request_links(sock)
            changed = True
        else:
            changed |= changes.read(data, own)


def _request_links(sock: socket.socket) -> None:
    """Ask the kernel for all links."""
    size = netlink.HEADER.size + _LINK.size
    sock.send(netlink.HEADER.pack(size, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, DUMP_SEQUENCE, 0) + bytes(_LINK.size))
