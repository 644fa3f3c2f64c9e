"""Listening sockets: TCP on one address or on all, and UNIX sockets (``--address unix:/...``).

A UNIX socket is for a reverse proxy on the same machine. Its file exists as long as the server does, and its owner and
group may connect. The file of a server that died is replaced; one on which a server answers is not. ``unix:@name`` has
no file: every process in the same network namespace may connect (unix(7)). Read next: serve.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from gevent.socket import socket as GeventSocket

from etherws.addresses import authority
from etherws.errors import ListenError

#: How --address names a UNIX socket.
UNIX_PREFIX = "unix:"

#: Connections that wait for accept(). listen(2) limits it to net.core.somaxconn, 4,096 by default.
BACKLOG = 1024

#: Permissions of the UNIX socket's file: for the user of etherws, and for a group that the proxy is in.
SOCKET_MODE = 0o660


def listen(address: str | None, port: int) -> GeventSocket:
    """A listening socket on `address`, or on all IPv4 and IPv6 addresses for None. Raises ListenError."""
    if address and address.startswith(UNIX_PREFIX):
        return UnixListener(address)
    try:
        if address is None:
            sock = _listen_on_all(port)
        else:
            family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            sock = socket.create_server(target, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", exc)
        raise ListenError(f"cannot listen on {authority(address or '*', port)}: {reason}; {_tcp_hint(exc)}") from exc
    sock.setblocking(False)
    return GeventSocket(fileno=sock.detach())


class UnixListener(GeventSocket):
    """A listening UNIX socket, and its file."""

    def __init__(self, address: str) -> None:
        """Listen on `address`, for example unix:/run/etherws.sock or unix:@etherws. Raises ListenError."""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = address.removeprefix(UNIX_PREFIX)
        #: The device and inode of our file, once there is one.
        self._file: tuple[int, int] | None = None
        try:
            if self._path.startswith("@"):
                self.bind("\0" + self._path[1:])
            else:
                _remove_dead_socket(self._path)
                umask = os.umask(0o777 & ~SOCKET_MODE)
                try:
                    self.bind(self._path)
                finally:
                    os.umask(umask)
                self._file = _device_and_inode(self._path)
            self.listen(BACKLOG)
        except OSError as exc:
            self.remove()
            self.close()
            raise ListenError(f"cannot listen on {address}: {exc.strerror or exc}; {_unix_hint(exc)}") from exc
        except ListenError:
            self.close()
            raise

    def remove(self) -> None:
        """Remove the file, unless another server has replaced it."""
        with contextlib.suppress(OSError):
            if self._file and self._file == _device_and_inode(self._path):
                os.unlink(self._path)


def _listen_on_all(port: int) -> socket.socket:
    # A kernel without IPv6, or with ipv6.disable=1, has no dual-stack socket.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", port), backlog=BACKLOG)


def _device_and_inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_dead_socket(path: str) -> None:
    """Remove the socket file at `path` if no server answers on it. Raises OSError, or ListenError if the file must
    stay."""
    if not path.startswith("/"):
        raise ListenError(
            f"--address {UNIX_PREFIX}{path} is not an absolute path; write {UNIX_PREFIX}/run/etherws.sock, or"
            f" {UNIX_PREFIX}@NAME"
        )
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"cannot listen on {UNIX_PREFIX}{path}: this file is not a socket; remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(path)
    if error == errno.ECONNREFUSED:
        os.unlink(path)
    elif error in (0, errno.EAGAIN):
        raise ListenError(f"cannot listen on {UNIX_PREFIX}{path}: another server answers there; stop it first")
    else:
        raise OSError(error, os.strerror(error))


def _tcp_hint(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, PermissionError):
        return "run as root or with CAP_NET_BIND_SERVICE, or choose a --port above 1023"
    if isinstance(exc, (socket.gaierror, UnicodeError)) or "assign" in str(exc):
        return "choose an --address of this machine"
    return "choose another --port, or stop the program that listens there"


def _unix_hint(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "create its folder first"
    if isinstance(exc, PermissionError):
        return "choose a folder that this user may write to"
    if exc.errno == errno.EADDRINUSE:
        return "choose another name, or stop the program that listens there"
    return "choose another path, of at most 107 bytes"
