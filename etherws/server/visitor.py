"""One connection before it is a tunnel: when we wait for it, when it waits for us, and whose time its work costs.

Each step (PROXY header, TLS, request) gives the client STEP_TIMEOUT seconds, without those in which it waits for us.
What costs processor time runs as a turn of low-priority work, counted to the client's address. Read next:
waiting_list.py, presence.py, tunnel/scheduling.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import gevent
from gevent.socket import socket as GeventSocket

from etherws.server.presence import Presence
from etherws.server.waiting_list import WaitingList

#: Seconds that a client has for each step: the PROXY header, the TLS handshake, the request's headers (http.py). An
#: honest client needs some milliseconds.
STEP_TIMEOUT = 10.0


class Visitor:
    """One accepted connection."""

    def __init__(self, sock: GeventSocket, source: str = "", waiting: WaitingList | None = None) -> None:
        """`source` is the key by which its address is counted. Without `waiting` it is in a list of its own."""
        self.presence = Presence(sock)
        self._sock = sock
        self._place = (WaitingList() if waiting is None else waiting).enter(source, self._hang_up)

    @property
    def source(self) -> str:
        """The key by which its address is counted. A PROXY header changes it."""
        return self._place.source

    @source.setter
    def source(self, source: str) -> None:
        self._place.source = source

    def begin_step(self) -> None:
        """The client has done a step, and has its time for the next one."""
        self._place.begin_step()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """In the block, we wait for the client. Raises TimeoutError when its time for this step is over.

        Meanwhile it may be hung up on, if too many connections are silent; then its socket ends.
        """
        left = STEP_TIMEOUT - self._place.silent_for
        with gevent.Timeout(max(left, 0.0), TimeoutError(f"not done within {STEP_TIMEOUT:g} s")):
            self._place.listen()
            try:
                yield
            finally:
                self._place.heard()

    def working(self) -> contextlib.AbstractContextManager[None]:
        """The block is work for this client; wait for its turn first. Raises ClientGone if the client hangs up before.

        Nothing in the block may wait for the client.
        """
        return self.presence.turn(self.source)

    def leave(self) -> None:
        """It has become a tunnel, or is closed. May be repeated."""
        self._place.leave()

    def _hang_up(self) -> None:
        # The greenlet that reads from it sees the end, and closes it.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
