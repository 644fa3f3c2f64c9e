"""``--address unix:/...``: a UNIX socket to listen on, for a reverse proxy on the same machine.

The file is there for as long as the server is, and lets its owner and group in. What another server left behind when it
died is replaced; what somebody answers on is not. ``unix:@name`` has no file, and lets in everybody in the same network
namespace (unix(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from gevent import socket as gevent_socket

from etherws.errors import ListenError

PREFIX = "unix:"

#: Whom the file's owner and group are meant to be: etherws's user, and the proxy's group.
MODE = 0o660


class Listener(gevent_socket.socket):
    """A listening socket, and its file."""

    def __init__(self, address: str, backlog: int) -> None:
        """Listen on `address`, such as unix:/run/etherws.sock or unix:@etherws. Raises ListenError."""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        name = address.removeprefix(PREFIX)
        self._file: tuple[int, int] | None = None
        self._path = name
        try:
            if name.startswith("@"):
                self.bind("\0" + name[1:])
            else:
                _replace(name)
                before = os.umask(0o777 & ~MODE)
                try:
                    self.bind(name)
                finally:
                    os.umask(before)
                self._file = _identity(name)
            self.listen(backlog)
        except OSError as exc:
            self.remove()
            self.close()
            raise ListenError(f"cannot listen on {address}: {exc.strerror or exc}; {_hint(exc)}") from exc
        except ListenError:
            self.close()
            raise

    def remove(self) -> None:
        """Remove the file, unless it is another's by now."""
        with contextlib.suppress(OSError):
            if self._file and self._file == _identity(self._path):
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _replace(path: str) -> None:
    """Remove the socket at `path` if nobody answers there. Raises OSError, or ListenError if it is to stay."""
    if not path.startswith("/"):
        raise ListenError(f"--address {PREFIX}{path} is no path; write {PREFIX}/run/etherws.sock, or {PREFIX}@NAME")
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"cannot listen on {PREFIX}{path}: there is something else; remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(path)
    if refused == errno.ECONNREFUSED:
        os.unlink(path)
    elif refused in (0, errno.EAGAIN):
        raise ListenError(f"cannot listen on {PREFIX}{path}: another server answers there; stop it first")
    else:
        raise OSError(refused, os.strerror(refused))


def _hint(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "make its folder first"
    if isinstance(exc, PermissionError):
        return "choose a folder that this user may write to"
    if exc.errno == errno.EADDRINUSE:
        return "choose another name, or stop what listens there"
    return "choose another path, of 107 bytes at most"
