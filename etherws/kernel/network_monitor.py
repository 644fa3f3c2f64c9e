"""Notices that the machine's network has changed: a link has come up, or an address has come or gone.

A doorbell says that, and no more. The client then tries at once, or asks whether the server is still there, so that a
laptop which wakes up elsewhere need not wait. Its own interface and the bridge that this is in do not count: they
change because of us.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/rtnetlink.h, if_link.h, if.h.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gevent
from gevent import socket

log = logging.getLogger(__name__)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR = 16, 17, 18, 20, 21
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME, IFLA_MASTER = 3, 10
IFF_RUNNING = 0x40

#: struct nlmsghdr, ifinfomsg, ifaddrmsg and rtattr.
_MESSAGE, _LINK, _ADDRESS, _ATTRIBUTE = (struct.Struct(form) for form in ("=IHHII", "=BxHiII", "=BBBBI", "=HH"))

#: The number of our question for what there is. The answers bear it; news bears that of whoever made the change, or 0.
QUESTION = 0x65746877

#: Seconds in which the bell rings once. A cable that is plugged in makes a dozen messages.
QUIET = 1.0

#: Bytes of messages at once: more than the kernel sends.
RECEIVE = 64 * 1024


class _Link(NamedTuple):
    name: str
    master: int
    running: bool


class Changes:
    """Knows the links, and tells from netlink's messages whether there is news. Pure but for what it is fed."""

    def __init__(self) -> None:
        self._links: dict[int, _Link] = {}

    def learn(self, data: bytes, own: str) -> bool:
        """Take some messages in; return whether they are worth a ring, as the client whose interface is `own` sees it.

        Answers to our own question are none: they say what has been so.
        """
        news = False
        for kind, number, body in _messages(data):
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                # A bridge and others tell of their ports too, each in a family of its own.
                family, _, index, flags, _ = _LINK.unpack_from(body)
                if family == socket.AF_UNSPEC:
                    up = self._link(kind, index, bool(flags & IFF_RUNNING), body[_LINK.size :])
                    news |= up and number != QUESTION and not self._ours(index, own)
            elif kind in (RTM_NEWADDR, RTM_DELADDR):
                news |= not self._ours(_ADDRESS.unpack_from(body)[4], own)
        return news

    def _link(self, kind: int, index: int, running: bool, attributes: bytes) -> bool:
        """Remember a link; return whether it has come up."""
        before = self._links.pop(index, None)
        if kind == RTM_DELLINK:
            return False
        name, master = "", 0
        for key, value in _attributes(attributes):
            if key == IFLA_IFNAME:
                name = value.rstrip(b"\0").decode(errors="replace")
            elif key == IFLA_MASTER:
                (master,) = struct.unpack("=I", value)
        self._links[index] = _Link(name, master, running)
        return running and not (before and before.running)

    def _ours(self, index: int, own: str) -> bool:
        return any(link.name == own and index in (number, link.master) for number, link in self._links.items())


def watch(own: Callable[[], str], ring: Callable[[], None]) -> None:
    """Call `ring` at each change, once a second at most, for ever. `own` is the name of the client's interface."""
    changes = Changes()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            sock.setblocking(False)
            _ask(sock)
            while True:
                socket.wait_read(sock.fileno())
                if _news(sock, changes, own()):
                    log.debug("the machine's network has changed")
                    ring()
                    # The others of this change wait in the socket meanwhile, and are one more ring at most.
                    gevent.sleep(QUIET)
    except OSError as exc:
        log.debug("changes of the machine's network go unnoticed: %s", exc.strerror)


def _news(sock: socket.socket, changes: Changes, own: str) -> bool:
    """Take in all messages that wait; return whether there was news."""
    news = False
    while True:
        try:
            data = sock.recv(RECEIVE)
        except BlockingIOError:
            return news
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            # There were too many to keep: what they said must be asked for.
            _ask(sock)
            news = True
        else:
            news |= changes.learn(data, own)


def _ask(sock: socket.socket) -> None:
    size = _MESSAGE.size + _LINK.size
    sock.send(_MESSAGE.pack(size, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, QUESTION, 0) + bytes(_LINK.size))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        size, kind, _, number, _ = _MESSAGE.unpack_from(data, at)
        if size < _MESSAGE.size:
            return
        yield kind, number, data[at + _MESSAGE.size : at + size]
        at += size + 3 & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, key = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield key, data[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3
