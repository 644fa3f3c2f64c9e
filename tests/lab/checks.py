"""Both ends of a check in this process, over a pair of sockets: the server's session, and a connection to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gevent
from gevent import socket
from gevent.event import Event

from etherws.access.policy import Profile
from etherws.errors import EtherwsError
from etherws.server.responder import CheckSession
from etherws.tunnel.connection import Connection
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.turns import LastAccount, Turn
from etherws.tunnel.wire import Version1, Version2
from tests.lab.hosts import PATIENCE

USUAL = Profile()


class Pair:
    """`session` is the server's, `connection` the client's; `reason` is why the session ended, when it has."""

    def __init__(self, version: type[Version1 | Version2], profile: Profile, size: int | None, seconds: float) -> None:
        near, far = socket.socketpair()
        payer = LastAccount("test")
        server = Connection(PlainStream(far), server=True, wire=version(), payer=payer)
        self.session = CheckSession(server, Turn(payer), profile, size)
        self.connection = Connection(PlainStream(near), server=False, wire=version())
        self.reason: EtherwsError | None = None
        self._over = Event()
        self._greenlet = gevent.spawn(self._run, seconds)

    def _run(self, seconds: float) -> None:
        self.reason = self.session.run(seconds)
        self._over.set()
        self.session.close(self.reason)

    def ended(self) -> EtherwsError:
        """Wait for the end of the session; return the reason."""
        self._over.wait(PATIENCE)
        assert self.reason is not None
        return self.reason

    def close(self) -> None:
        """End both."""
        self.connection.close(1000)
        self._greenlet.join(PATIENCE)


@contextlib.contextmanager
def check_pair(
    version: type[Version1 | Version2] = Version2,
    profile: Profile = USUAL,
    *,
    size: int | None = None,
    seconds: float = PATIENCE,
) -> Iterator[Pair]:
    """A pair, ended with the block."""
    with gevent.Timeout(2 * PATIENCE):
        pair = Pair(version, profile, size, seconds)
        try:
            yield pair
        finally:
            pair.close()
