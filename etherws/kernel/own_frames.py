"""Notices that an interface's own frames come back to it: what it sends goes round, or another machine has its address.

The interface is a bridge, or a TAP that is in none. The kernel does not notify of that, since a bridge does not learn
its own address. So a packet socket on the interface takes frames from that address. At a bridge the kernel runs its
filter for what goes to this machine only, not for what is passed on. Read next: packet_sockets.py, loop_watch.py.
Sources: packet(7), Linux net/bridge/br_input.c.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket as blocking
from collections import deque
from collections.abc import Callable
from time import monotonic

import gevent
from gevent import socket

from etherws.kernel import links, packet_sockets, socket_filter
from etherws.kernel.loops import MOVES, QUIET, WITHIN
from etherws.kernel.packet_sockets import ETH_P_ALL

log = logging.getLogger(__name__)

#: Bytes of a frame that are looked at: its two addresses and type.
HEADER = 14

#: At most so many frames are read at once, and not sooner again than after so many seconds.
FRAMES, PAUSE = 16, 0.2

#: Seconds in which the port is looked for by which they come in, and between two looks.
SEARCH, SEARCH_PAUSE = 1.0, 0.05


class OwnFrames:
    """Watches one bridge, or one TAP."""

    def __init__(
        self, index: int, address: str, notice: Callable[[int, int | None], None], *, is_bridge: bool = True
    ) -> None:
        """`index` is the interface's, `address` its Ethernet address.

        `notice` is called with the index and, if it is a bridge, the index of the port by which frames come back, or
        None if that is not known; once for each time that they come again and again. Raises OSError.
        """
        self._index, self._address, self._notice, self._is_bridge = index, b"", notice, is_bridge
        #: When the last of them came, if they come again and again.
        self.last: float | None = None
        self._socket = packet_sockets.take()
        try:
            self.set_address(address)
            self._socket.bind((blocking.if_indextoname(index), ETH_P_ALL))
        except OSError:
            packet_sockets.give_back(self._socket)
            raise
        self._greenlet = gevent.spawn(self._watch)

    def set_address(self, address: str) -> None:
        """The interface has this address now."""
        raw = bytes.fromhex(address.replace(":", ""))
        if raw != self._address:
            socket_filter.attach(self._socket, socket_filter.frames_from(raw, HEADER))
            self._address = raw

    def has_ended(self, now: float) -> bool:
        """Whether they came again and again, and come no more."""
        if self.last is None or now - self.last <= QUIET:
            return False
        self.last = None
        return True

    def close(self) -> None:
        """Watch no longer."""
        try:
            self._greenlet.kill()
        finally:
            # Who waits here may be ended meanwhile.
            packet_sockets.give_back(self._socket)

    def _watch(self) -> None:
        """Look at what comes, without end: until the interface is gone."""
        recent: deque[float] = deque(maxlen=MOVES)
        while True:
            socket.wait_read(self._socket.fileno())
            now = monotonic()
            try:
                for _ in range(FRAMES):
                    if self._socket.recv(HEADER)[6:12] == self._address:
                        recent.append(now)
            except BlockingIOError:
                pass
            except OSError as exc:
                # It is down, or gone.
                log.debug("whether own frames come back to interface %d is not seen: %s", self._index, exc.strerror)
                if exc.errno != errno.ENETDOWN:
                    return
            if self.last is not None:
                self.last = now
            elif len(recent) == MOVES and now - recent[0] <= WITHIN:
                self.last = now
                self._notice(self._index, self._search() if self._is_bridge else None)
            gevent.sleep(PAUSE)

    def _search(self) -> int | None:
        """The port by which a frame comes in next: a second socket looks at all interfaces for a moment."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
            sock = packet_sockets.take()
            undo.callback(packet_sockets.give_back, sock)
            program = socket_filter.frames_from(self._address, HEADER, but_not_on=self._index)
            socket_filter.attach(sock, program)
            packet_sockets.listen_everywhere(sock)
            deadline = monotonic() + SEARCH
            while (left := deadline - monotonic()) > 0:
                gevent.with_timeout(left, socket.wait_read, sock.fileno(), timeout_value=None)
                with contextlib.suppress(BlockingIOError):
                    for _ in range(FRAMES):
                        frame, source = sock.recvfrom(HEADER)
                        if frame[6:12] == self._address and (port := self._port(source)) is not None:
                            return port
                gevent.sleep(SEARCH_PAUSE)
        return None

    def _port(self, source: tuple[str, int, int]) -> int | None:
        """The index of the interface that a frame came in by, if that is in the bridge."""
        name, _, kind = source[:3]
        if kind == blocking.PACKET_OUTGOING:
            return None
        link = links.get(name)
        return link.number if link.master == self._index else None
