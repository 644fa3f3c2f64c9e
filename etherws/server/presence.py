"""Whether a client is still there while it waits for us.

A client that hangs up must not keep its place in a queue, and nothing more is to be done for it. The kernel tells at
once, also when bytes that nobody has read yet came before the end (EPOLLRDHUP, epoll_ctl(2)); gevent's own watchers
cannot ask for that. So one epoll descriptor watches all clients that wait, and gevent watches that descriptor.
Users: front_door.py, ports.py, and through http.py's environment whatever lets a client wait.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.monkey import get_original

from etherws.errors import ClientGone
from etherws.tunnel.scheduling import low_priority

#: The client has ended its sending, or TCP, or TCP was reset. A client that has ended its sending can never have a
#: tunnel.
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


#: Turns that a client needs from its first to its tunnel, at most: some of TLS, the request, the login, and its port.
#: One that asks for more waits behind those of its source that come for the first time.
STEPS = 8


class Presence:
    """One client, by its socket. None: nobody can tell whether it is there, so it is taken to be."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._required = False
        self._turns = 0

    def gone(self) -> bool:
        """Whether the client has hung up. Does not block."""
        if self._sock is None:
            return False
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return True
        # gevent's poll, which a patched process has, would run other greenlets.
        poll = get_original("select", "poll")()
        poll.register(descriptor, _GONE)
        return bool(poll.poll(0))

    @contextlib.contextmanager
    def required(self) -> Iterator[None]:
        """Raise ClientGone in this greenlet as soon as the client hangs up in the block.

        For blocks that wait for something else, such as a place in a queue. What they wait for must bear an exception
        at any time, as with gevent.Timeout.
        """
        if self.gone():
            raise ClientGone
        # A block inside another one.
        if self._required or self._sock is None:
            yield
            return
        watch = _hang_ups()
        descriptor = self._sock.fileno()
        self._required = True
        watch.add(descriptor, gevent.getcurrent())
        try:
            yield
        finally:
            watch.remove(descriptor)
            self._required = False

    @contextlib.contextmanager
    def turn(self, source: str) -> Iterator[None]:
        """As low_priority.turn(), but the wait for the turn ends with ClientGone when the client hangs up.

        Who has begun comes before others of its source who have not. When a thousand come at once, they come in one by
        one; else each would wait for the first step of all, and all would lose patience together.
        """
        ahead = 0 < self._turns <= STEPS
        self._turns += self._sock is not None
        with contextlib.ExitStack() as stack:
            with self.required():
                stack.enter_context(low_priority.turn(source, ahead=ahead))
            yield


#: Of a client whose server gives no socket; see http.py: PRESENCE.
UNKNOWN = Presence(None)


def prepare() -> None:
    """Have the descriptor that this module needs, before there are none left. Raises OSError."""
    _hang_ups()


class _HangUps:
    """Watches sockets, and raises ClientGone in the greenlet of each whose client hangs up."""

    def __init__(self) -> None:
        """Needs one descriptor. Raises OSError."""
        self._epoll = get_original("select", "epoll")()
        self._greenlets: dict[int, Any] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)

    def add(self, descriptor: int, greenlet: Any) -> None:
        """Watch a socket, until remove()."""
        # Once: what the greenlet does then may take time.
        self._epoll.register(descriptor, select.POLLRDHUP | select.EPOLLONESHOT)
        if not self._greenlets:
            self._watcher.start(self._look)
        self._greenlets[descriptor] = greenlet

    def remove(self, descriptor: int) -> None:
        """Watch it no longer. The socket may be closed."""
        del self._greenlets[descriptor]
        if not self._greenlets:
            self._watcher.stop()
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)

    def _look(self) -> None:
        """Called by the event loop."""
        for descriptor, _ in self._epoll.poll(0):
            # What the greenlet before does may end another's block.
            if greenlet := self._greenlets.get(descriptor):
                greenlet.throw(ClientGone())


_watching: dict[Any, _HangUps] = {}


def _hang_ups() -> _HangUps:
    """The one of this thread's event loop, made when it is first used."""
    hub = gevent.get_hub()
    if hub not in _watching:
        _watching[hub] = _HangUps()
    return _watching[hub]
