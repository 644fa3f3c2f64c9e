"""How connections are accepted: as low-priority work, while there is room, and also when descriptors have run out.

gevent's servers accept up to 100 connections in one callback of the event loop. Here a greenlet accepts them in turns,
so a flood of connections does not hold up sessions. Connections for which there is no room stay in the kernel's queue
(listen.py). Read next: front_door.py, which each accepted connection passes, and waiting_list.py.
"""

from __future__ import annotations

import errno
import logging
import resource
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from etherws.errors import DESCRIPTORS_HINT
from etherws.server.front_door import FrontDoor
from etherws.server.waiting_list import GRACE
from etherws.tunnel.scheduling import TURN_SECONDS, low_priority

log = logging.getLogger(__name__)

#: The source of this work. No address and no name of a client is written so.
ACCEPT = "accept()"

#: Connections for which room is made at once. To look for silent ones among 2,048 costs a quarter of a millisecond.
ROOM = 16

#: Seconds after which accept() is tried again when the kernel had no descriptor or memory for a connection.
RETRY = 0.5

#: Seconds without such an error after which the next one is a warning again. Clients come and go at the limit.
QUIET = 60.0

#: What the kernel says then (accept(2)).
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

#: The listening socket is closed: the server stops.
_CLOSED = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


def allow_descriptors() -> None:
    """Allow this process as many descriptors as it may have. The usual limit of 1,024 exists only for programs that use
    select(2); a tunnel has two."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


class Accepting:
    """For a gevent server, before its class: accepts connections as described above."""

    #: Set by the server after gevent's __init__().
    front_door: FrontDoor

    # gevent's.
    loop: Any
    socket: Any
    pool: Any
    do_read: Any
    do_handle: Any

    _acceptor: gevent.Greenlet[..., None] | None = None
    _readable: Any = None

    def start_accepting(self) -> None:
        """As gevent's. gevent also calls it when its pool of greenlets, if there is one, has room again."""
        if self._acceptor is None:
            self._room = Event()
            self.front_door.waiting.on_room = self._room.set
            self._quiet_until = 0.0
            self._readable = self.loop.io(self.socket.fileno(), 1)
            self._acceptor = gevent.spawn(self._accept)
        self._room.set()

    def stop_accepting(self) -> None:
        """As gevent's."""
        if self._acceptor is not None:
            self._acceptor.kill(block=False)
            self._acceptor = None
            self._readable.close()

    def _accept(self) -> None:
        while True:
            gevent.get_hub().wait(self._readable)
            room = self._wait_for_room()
            with low_priority.turn(ACCEPT):
                pause = self._accept_some(room)
            if pause:
                self.front_door.waiting.hang_up_on(ROOM)
                self._room.clear()
                self._room.wait(pause)

    def _wait_for_room(self) -> int:
        """Wait until there is room for another connection; return for how many there is."""
        while True:
            self._room.clear()
            room, pause = self.front_door.waiting.make_room(ROOM)
            # gunicorn's worker_connections: here sessions count, too.
            if self.pool is not None and self.pool.free_count() < room:
                room, pause = self.pool.free_count(), GRACE
                if not room:
                    self.front_door.waiting.hang_up_on(1)
                    # Its greenlet has not ended yet.
                    self._room.clear()
            if room > 0:
                return room
            self._room.wait(pause)

    def _accept_some(self, room: int) -> float:
        """Accept up to `room` connections; return the seconds to wait before the next try, usually 0."""
        end = monotonic() + TURN_SECONDS
        for _ in range(room):
            try:
                accepted = self.do_read()
            except OSError as exc:
                return self._failed(exc)
            if not accepted:
                break
            self.do_handle(*accepted)
            if monotonic() > end:
                break
        return 0.0

    def _failed(self, exc: OSError) -> float:
        """What accept() said instead of giving a connection; return as _accept_some()."""
        if exc.errno in _CLOSED:
            raise exc
        if exc.errno not in _SHORT:
            # The client's connection is over already (accept(2), "Error handling").
            log.debug("accept() failed: %s", exc.strerror)
            return 0.0
        now = monotonic()
        if now >= self._quiet_until:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.warning(
                "cannot accept more connections: %s (%d are allowed); %s; tunnels that run go on",
                exc.strerror,
                limit,
                DESCRIPTORS_HINT,
            )
        self._quiet_until = now + QUIET
        return RETRY
