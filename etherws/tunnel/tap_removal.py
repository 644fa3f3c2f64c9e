"""Removes TAPs that go, several with one message to the kernel: to remove eight takes it hardly longer than one.

A thousand clients may leave at once. The kernel waits for all processors before an interface is gone, which takes tens
of milliseconds, and for a part of that time nobody can change an interface. A thread of its own does that, so that
neither sessions nor logins, which use gevent's threads, wait for it. Read next: tap.py; kernel/links.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from etherws.kernel import links
from etherws.tunnel import tap_driver

#: TAPs that are removed with one message. Of 300 that went, eight at a time took 2.6 ms each, and a new port waited for
#: 10 ms at most; with 64 at a time these were 1 ms and 57 ms (measured).
AT_ONCE = 8

#: The same when nobody waits for a new port: at the end.
AT_ONCE_AT_THE_END = 64


class _Going(NamedTuple):
    """A TAP that goes. `sock` is a socket of the network namespace `where` its interface has this number; None if it is
    gone, or elsewhere: then its descriptor is to be closed, and no more."""

    fd: int
    number: int
    sock: socket.socket | None
    where: tuple[int, int] | None
    gone: Event


class _Removals:
    """All of one event loop."""

    def __init__(self) -> None:
        self._going: deque[_Going] = deque()
        self._pool = ThreadPool(1)
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._at_once = AT_ONCE

    def finish(self) -> None:
        """See finish() below."""
        if self._greenlet is not None:
            self._at_once = AT_ONCE_AT_THE_END
            self._greenlet.join()

    def remove(self, going: _Going) -> None:
        """Remove this one, perhaps with others; block this greenlet until it is gone."""
        self._going.append(going)
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)
        going.gone.wait()

    def _run(self) -> None:
        while self._going:
            some = [self._going.popleft()]
            while self._going and len(some) < self._at_once and self._going[0].where == some[0].where:
                some.append(self._going.popleft())
            try:
                self._pool.apply(_remove, (some,))
            finally:
                for one in some:
                    one.gone.set()
        self._greenlet, self._at_once = None, AT_ONCE


_removals: dict[Any, _Removals] = {}


def remove(fd: int) -> None:
    """Remove the TAP of this descriptor, and close that. If another process has it too, it is removed all the same.
    Blocks this greenlet only."""
    index, where, sock = None, None, None
    with contextlib.suppress(OSError):
        index, where = tap_driver.place(fd)[1], tap_driver.own_namespace(fd)
        # Opened here: the thread may be in another network namespace.
        sock = links.request_socket() if index else None
    hub = gevent.get_hub()
    if hub not in _removals:
        _removals[hub] = _Removals()
    _removals[hub].remove(_Going(fd, index or 0, sock, where, Event()))


def finish() -> None:
    """The end is near: remove what still waits for that, more at once, and block this greenlet until all is gone. When
    a process ends, the kernel would remove one after the other."""
    if removals := _removals.get(gevent.get_hub()):
        removals.finish()


def _remove(some: list[_Going]) -> None:
    """In a thread. All are in the same network namespace."""
    here = [one for one in some if one.sock is not None]
    if here:
        assert here[0].sock is not None
        # If this user may not do that, or some are gone, to close them is enough in most cases.
        with contextlib.suppress(OSError):
            links.delete([one.number for one in here], here[0].sock)
    for one in some:
        if one.sock is not None:
            one.sock.close()
        # An error here would leave the others waiting. The descriptor is closed in any case (close(2)).
        with contextlib.suppress(OSError):
            os.close(one.fd)
