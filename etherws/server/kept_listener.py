"""The listening socket in the store: connections wait there while one process ends and the next one starts.

The next process uses it if it is to listen at the same place; else it makes another one. Read next: listen.py.
"""

from __future__ import annotations

import logging
import os
import socket
import stat

from gevent.socket import socket as GeventSocket

from etherws.kernel.store import Store
from etherws.server.listen import UNIX_PREFIX, UnixListener, listen, name_of, passed

log = logging.getLogger(__name__)

#: The name in the store.
NAME = "listen"


class KeptListener:
    """A listening socket, `socket`, and a copy of it in the store."""

    def __init__(self, store: Store, address: str | None, port: int) -> None:
        """Listen on `address` and `port`, as listen() does, by the socket in the store if it listens there. Raises
        ListenError."""
        self._store = store
        found = [_listening(fd) for fd in store.take(NAME)]
        fitting = next((sock for sock in found if sock and is_at(sock, address, port)), None)
        for sock in found:
            if sock is not None and sock is not fitting:
                log.warning("no longer listening on %s", name_of(sock))
                sock.close()
        if fitting is None:
            store.drop(NAME)
            self.socket = listen(address, port)
        elif address and address.startswith(UNIX_PREFIX):
            self.socket = UnixListener(address, fitting)
        else:
            fitting.setblocking(False)
            self.socket = GeventSocket(fileno=fitting.detach())
        # The server closes its own.
        self._copy = os.dup(self.socket.fileno())
        store.keep(NAME, self._copy)

    def close(self) -> None:
        """The server is about to close `socket`: remove all else, unless the store outlives this process."""
        if self._store.outlives:
            return
        self._store.drop(NAME)
        os.close(self._copy)
        if isinstance(self.socket, UnixListener):
            self.socket.remove()


def _listening(fd: int) -> socket.socket | None:
    """The listening socket of this descriptor; None, and the descriptor is closed, if it is no such socket."""
    try:
        return passed(fd)
    except OSError as exc:
        log.warning("what the process before has left to listen on cannot be used: %s", exc)
        return None


def is_at(sock: socket.socket, address: str | None, port: int) -> bool:
    """Whether the socket listens where it is to."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = (address or "").removeprefix(UNIX_PREFIX)
        if path == address or not path:
            return False
        if path.startswith("@"):
            return bool(name == b"\0" + path[1:].encode())
        # Somebody may have removed the file: then nobody could connect.
        return bool(name == path) and _is_socket(path)
    if address is None:
        return name[0] in ("::", "0.0.0.0") and port in (0, name[1])
    if address.startswith(UNIX_PREFIX):
        return False
    try:
        family, _, _, _, wanted = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        # No name server at present: it was right before.
        return port in (0, name[1])
    return bool(family == sock.family and (name[0], *name[2:]) == (wanted[0], *wanted[2:]) and port in (0, name[1]))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
