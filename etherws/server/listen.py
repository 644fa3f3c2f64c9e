"""Listening sockets: TCP on one address or on all, and UNIX sockets (``--address unix:/...``).

A UNIX socket is for a reverse proxy on the same machine. Its file exists as long as the server does, and its owner and
group may connect. The file of a server that died is replaced; one on which a server answers is not. ``unix:@name`` has
no file: every process in the same network namespace may connect (unix(7)). Read next: taken_port.py, serve.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import stat

from gevent.socket import socket as GeventSocket

from etherws.addresses import authority
from etherws.errors import ListenError, NoSuchAddress
from etherws.server.taken_port import listening_program

log = logging.getLogger(__name__)

#: How --address names a UNIX socket.
UNIX_PREFIX = "unix:"

#: Connections that wait for accept(). listen(2) limits it to net.core.somaxconn, 4,096 by default.
BACKLOG = 1024

#: Options by which a socket takes an address that the machine does not have, by family: IP_FREEBIND of linux/in.h, and
#: IPV6_FREEBIND of linux/in6.h (Linux 4.15).
_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}

#: Permissions of the UNIX socket's file: for the user of etherws, and for a group that the proxy is in.
SOCKET_MODE = 0o660


def listen(address: str | None, port: int) -> GeventSocket:
    """A listening socket on `address`, or on all IPv4 and IPv6 addresses for None. Raises ListenError; NoSuchAddress if
    the address cannot be found now."""
    if address and address.startswith(UNIX_PREFIX):
        return UnixListener(address)
    try:
        sock = listen_on_all(port) if address is None else listen_on(address, port)
    except (OSError, UnicodeError) as exc:
        # A name server or an interface may come later.
        later = isinstance(exc, socket.gaierror) or getattr(exc, "errno", None) in (errno.EINVAL, errno.ENODEV)
        raise (NoSuchAddress if later else ListenError)(
            f"cannot listen on {authority(address or '*', port)}: {_tcp_reason(exc, address, port)}"
        ) from exc
    sock.setblocking(False)
    return GeventSocket(fileno=sock.detach())


def passed(fd: int) -> socket.socket:
    """The listening TCP or UNIX socket of a descriptor that another process has opened. Raises OSError if it is none;
    then the descriptor is closed."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError("it is no socket")
        sock = socket.socket(fileno=fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    if (
        sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        return sock
    sock.close()
    raise OSError("it does not listen")


def name_of(sock: socket.socket | GeventSocket) -> str:
    """Where a socket listens, for the log."""
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = where.decode(errors="replace") if isinstance(where, bytes) else str(where)
        return UNIX_PREFIX + text.replace("\0", "@", 1)
    return authority(where[0], where[1])


class UnixListener(GeventSocket):
    """A listening UNIX socket, and its file."""

    def __init__(self, address: str, listening: socket.socket | None = None, *, mode: int = SOCKET_MODE) -> None:
        """Listen on `address`, for example unix:/run/etherws.sock or unix:@etherws; by a socket that does so already,
        if there is one. `mode` is of the file. Raises ListenError."""
        self._path = address.removeprefix(UNIX_PREFIX)
        #: The device and inode of our file, once there is one.
        self._file: tuple[int, int] | None = None
        if listening is not None:
            listening.setblocking(False)
            super().__init__(fileno=listening.detach())
            with contextlib.suppress(OSError):
                self._file = _device_and_inode(self._path)
            return
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if self._path.startswith("@"):
                self.bind("\0" + self._path[1:])
            else:
                _remove_dead_socket(self._path)
                umask = os.umask(0o777 & ~mode)
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


def listen_on(address: str, port: int) -> socket.socket:
    """A listening socket on one address, which the machine may not have yet. Raises OSError, UnicodeError."""
    family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(target, family=family, backlog=BACKLOG)
    except OSError as exc:
        if exc.errno != errno.EADDRNOTAVAIL:
            raise
    # At boot an interface may come up later. The kernel can listen already: so the start does not wait, whatever is
    # started in which order, and there is no moment in which the address is there and nobody listens.
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(*_FREEBIND[family], 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    log.warning(
        "no interface of this machine has the address %s yet; port %d can be reached there as soon as one has it. If it"
        " never will, choose another address",
        address,
        sock.getsockname()[1],
    )
    return sock


def listen_on_all(port: int) -> socket.socket:
    """A listening socket on all addresses. Raises OSError."""
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
            raise ListenError(
                f"cannot listen on {UNIX_PREFIX}{path}: this file is not a socket; remove it if nobody"
                " needs it, or choose another path"
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(path)
    if error == errno.ECONNREFUSED:
        os.unlink(path)
    elif error in (0, errno.EAGAIN):
        raise ListenError(
            f"cannot listen on {UNIX_PREFIX}{path}: another process answers there; stop it, or choose another path"
        )
    else:
        raise OSError(error, os.strerror(error))


def _tcp_reason(exc: OSError | UnicodeError, address: str | None, port: int) -> str:
    """Why a port cannot be listened on, and what to do."""
    code = getattr(exc, "errno", None)
    if code == errno.EADDRINUSE:
        # It could be resolved before.
        host = address and socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][4][0]
        program = listening_program(str(host or ""), port)
        return f"port {port} is taken{program}; choose another --port, or stop that program"
    if isinstance(exc, socket.gaierror) or code == errno.EINVAL:
        return f"{getattr(exc, 'strerror', exc)}; {_address_hint(address or '', port)}"
    # Python puts the address behind the reason of some errors, in a form of its own.
    reason = str(getattr(exc, "strerror", None) or exc).partition(" (while attempting")[0]
    if isinstance(exc, PermissionError):
        return (
            f"{reason}; choose a --port above 1023, or run as root or with CAP_NET_BIND_SERVICE (in a container:"
            " --cap-add NET_BIND_SERVICE)"
        )
    return f"{reason}; choose an --address of this machine"


def _address_hint(address: str, port: int) -> str:
    """What to write in place of an --address that is none, or that cannot be found now."""
    host, _, zone = address.partition("%")
    if not address:
        return "--address is empty; leave it out to listen on all addresses"
    if "/" in address:
        return "write an address without a scheme, a path or a prefix length"
    if address.startswith("["):
        return f"write an IPv6 address without brackets, and the port as --port {port}"
    if re.fullmatch("[^:]+:[0-9]+", address):
        return f"write --address {address.rpartition(':')[0]} --port {address.rpartition(':')[2]}"
    if zone:
        return f"there is no interface {zone} yet; start etherws later, or name another --address of this machine"
    if ":" in host:
        return f"a link-local address needs its interface: {host}%eth0"
    return "name an --address of this machine. An address in numbers needs no name server, and may come up later"


def _unix_hint(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "create its folder first"
    if isinstance(exc, PermissionError):
        return "choose a folder that this user may write to"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return "choose a folder in which files can be made"
    if exc.errno == errno.EADDRINUSE:
        return "choose another name, or stop the program that listens there"
    return "choose another path, of at most 107 bytes"
