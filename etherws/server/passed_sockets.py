"""The listening socket of a socket unit: systemd has opened it, and passes it at the start.

A socket unit is somebody's choice of where to listen: it holds, whatever the options say. Read next: kept_listener.py,
the socket that etherws opens itself; kernel/store.py, where both are found.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence

from gevent.socket import socket as GeventSocket

from etherws.kernel.store import Store
from etherws.server import kept_listener
from etherws.server.listen import name_of, passed

log = logging.getLogger(__name__)

#: How the name of a socket unit ends, by which systemd calls its socket.
SUFFIX = ".socket"


class UnitListener:
    """A listening socket, `socket`, and a copy of it in the store, for a new image of this process."""

    def __init__(self, store: Store, name: str, sock: socket.socket) -> None:
        """`name` is that in the store."""
        self._store, self._name = store, name
        sock.setblocking(False)
        self.socket = GeventSocket(fileno=sock.detach())
        # The server closes its own.
        self._copy = os.dup(self.socket.fileno())
        store.keep(name, self._copy)

    @classmethod
    def found(cls, store: Store, address: str | None, port: int, *, chosen: bool = True) -> UnitListener | None:
        """The one that was passed; None if there is none. `address` and `port` are as in listen(); `chosen` is whether
        the user gave one of them: then a difference is logged, and so is what is not used."""
        sockets = [
            (name, sock)
            for name in store.names()
            if name.endswith(SUFFIX)
            for sock in _listening(name, store.take(name))
        ]
        if not sockets:
            return None
        name, used = sockets[0]
        for _, sock in sockets[1:]:
            # The copy that a process before this one has kept is the same.
            if os.fstat(sock.fileno()).st_ino != os.fstat(used.fileno()).st_ino:
                log.warning("does not listen at %s: one ListenStream= of the socket unit is used", name_of(sock))
            sock.close()
        if chosen and not kept_listener.is_at(used, address, port):
            log.warning(
                "listens at %s, where the socket unit says, and not where --address and --port say; leave these out,"
                " or disable the socket unit",
                name_of(used),
            )
        for descriptor in store.take(kept_listener.NAME):
            os.close(descriptor)
        store.drop(kept_listener.NAME)
        return cls(store, name, used)

    def close(self) -> None:
        """The server is about to close `socket`; systemd still has it."""
        if not self._store.outlives:
            self._store.drop(self._name)
            os.close(self._copy)


def _listening(name: str, descriptors: Sequence[int]) -> Iterator[socket.socket]:
    """Those that are listening stream sockets. The others are closed, and logged."""
    for descriptor in descriptors:
        try:
            yield passed(descriptor)
        except OSError:
            log.warning(
                "systemd has passed a descriptor of %s that is not a listening TCP or UNIX socket; write ListenStream="
                " and Accept=no into the socket unit",
                name,
            )
