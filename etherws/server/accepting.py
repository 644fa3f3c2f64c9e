"""How connections are accepted: as low-priority work, while there is room, and also when descriptors have run out.

gevent's servers accept up to 100 connections in one callback of the event loop. Here a greenlet accepts them in turns,
so a flood of connections does not hold up sessions. Connections for which there is no room stay in the kernel's queue
(listen.py). Of several workers, one that is ahead leaves the next connection to the others for a moment
(workers/balance.py). Read next: front_door.py, which each accepted connection passes, and waiting_list.py.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent.event import Event

from etherws.errors import DESCRIPTORS_HINT
from etherws.server.front_door import FrontDoor
from etherws.server.scarcity import MEMORY_HINT, MEMORY_OF_EACH, MEMORY_TO_ACCEPT, has_memory
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

#: Seconds between two looks at whether another worker has taken a connection that was left to it. It is told of the
#: connection at the same moment; to begin a turn takes it a millisecond.
LOOK = 0.002

#: Looks after which the connection is taken all the same: if the others have taken nothing meanwhile, or even if they
#: take one after another. So no connection waits for more than 10 or 50 ms, also if another worker hangs or is flooded.
LOOKS_IN_VAIN, LOOKS = 5, 25

#: What the kernel says then (accept(2)).
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

#: The listening socket is closed: the server stops.
_CLOSED = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


def allow_descriptors() -> None:
    """Allow this process as many descriptors as it may have. The usual limit of 1,024 exists only for programs that use
    select(2); a tunnel has two."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


class Others(Protocol):
    """The other workers that accept from the same socket: workers/balance.py."""

    def look(self) -> tuple[int, int]:
        """How many connections to take now, 0 to leave the next to another; and how many the others have."""

    def publish(self, more: int = 0) -> None:
        """Tell the others how loaded this worker is; `more` connections were accepted a moment ago."""

    def become_full(self, full: bool) -> None:
        """Tell the others whether this worker can take no more now."""


class Accepting:
    """For a gevent server, before its class: accepts connections as described above."""

    #: Set by the server after gevent's __init__().
    front_door: FrontDoor

    #: Set by a worker that is one of several.
    others: Others | None = None

    # gevent's.
    loop: Any
    socket: Any
    pool: Any
    do_read: Any
    do_handle: Any

    _acceptor: gevent.Greenlet[..., None] | None = None
    _readable: Any = None

    def start_accepting(self) -> None:
        """As gevent's."""
        if self._acceptor is None:
            self._room = Event()
            self.front_door.waiting.on_room = self._room.set
            self._quiet_until = 0.0
            # How many to take the next time that the others leave all to this worker.
            self._in_vain = 1
            self._readable = self.loop.io(self.socket.fileno(), 1)
            self._acceptor = gevent.spawn(self._accept)
        self._room.set()

    def stop_accepting(self) -> None:
        """As gevent's."""
        if self._acceptor is not None:
            self._be_full(True)
            self._acceptor.kill(block=False)
            self._acceptor = None
            self._readable.close()

    def _accept(self) -> None:
        while True:
            gevent.get_hub().wait(self._readable)
            room = self._wait_for_room()
            if self.others:
                room = min(room, self._share(self.others))
            if not room:
                continue
            with low_priority.turn(ACCEPT):
                pause = self._accept_some(room)
            if pause:
                self._be_full(True)
                self.front_door.waiting.hang_up_on(ROOM)
                self._room.clear()
                self._room.wait(pause)
                self._be_full(False)

    def _share(self, others: Others) -> int:
        """How many of the connections that wait this worker should accept. If others have fewer, they get some
        milliseconds to take them: then 0."""
        share, before = others.look()
        looks = in_vain = 0
        while not share and looks < LOOKS and in_vain < LOOKS_IN_VAIN:
            gevent.sleep(LOOK)
            if not self._one_waits():
                return 0
            share, now = others.look()
            looks, in_vain = looks + 1, 0 if now > before else in_vain + 1
            before = now
        if share:
            self._in_vain = 1
            return share
        # They have no time for connections. While that lasts, take more each time, so that no queue builds up.
        share, self._in_vain = self._in_vain, min(2 * self._in_vain, ROOM)
        return share

    def _one_waits(self) -> bool:
        """Whether a connection waits in the kernel's queue."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _be_full(self, full: bool) -> None:
        if self.others:
            self.others.become_full(full)

    def _wait_for_room(self) -> int:
        """Wait until there is room for another connection; return for how many there is."""
        while True:
            self._room.clear()
            room, pause = self.front_door.waiting.make_room(ROOM)
            # gunicorn's worker_connections: here sessions count, too.
            if self.pool is not None and self.pool.free_count() < room:
                room = self.pool.free_count()
                if not room:
                    self._be_full(True)
                    pause = self.front_door.waiting.hang_up_on(1)[1] or GRACE
                    # The greenlet of who was hung up on has not ended yet. The pool tells it nobody but who waits.
                    self.pool.wait_available(timeout=pause)
                    continue
            if room > 0:
                self._be_full(False)
                return room
            self._be_full(True)
            self._room.wait(pause)

    def _accept_some(self, room: int) -> float:
        """Accept up to `room` connections; return the seconds to wait before the next try, usually 0."""
        end = monotonic() + TURN_SECONDS
        count = 0
        try:
            if not has_memory(MEMORY_TO_ACCEPT + self.front_door.waiting.count * MEMORY_OF_EACH):
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            while count < room and (accepted := self.do_read()):
                self.do_handle(*accepted)
                count += 1
                if monotonic() > end:
                    break
        except OSError as exc:
            return self._failed(exc)
        finally:
            if self.others and count:
                self.others.publish(count)
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
            limit = (
                f" ({resource.getrlimit(resource.RLIMIT_NOFILE)[0]} are allowed)" if exc.errno == errno.EMFILE else ""
            )
            hint = MEMORY_HINT if exc.errno in (errno.ENOMEM, errno.ENOBUFS) else DESCRIPTORS_HINT
            words = "cannot accept more connections: %s%s; %s; tunnels that run go on"
            log.warning(words, exc.strerror, limit, hint)
        self._quiet_until = now + QUIET
        return RETRY
