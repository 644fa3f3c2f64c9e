"""Claims the way from one bridge to one server, so that a second client that would make a loop of it is refused.

A claim is an abstract UNIX socket: its name is seen in this network namespace only, as the bridge is, and it vanishes
with the process, however that ends. Anybody on this machine may take the name: then there is a warning, and no refusal.
What goes another way round is noticed when it happens: see loop_watch.py. Source: unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import socket as blocking
import struct
from collections.abc import Iterable
from time import monotonic

import gevent
from gevent import socket

from etherws.errors import AlreadyLinked
from etherws.kernel import links
from etherws.kernel.store import Store

log = logging.getLogger(__name__)

#: The name of all claims in the store.
NAME = "claims"

#: Seconds to wait for a process that is stopping: SIGTERM ends a client within two.
STOPPING = 2.0

#: Seconds between two looks whether it has ended.
POLL_INTERVAL = 0.05

#: How many others may be waiting to be told who has the claim; and seconds between two of them. They only connect.
BACKLOG, ANSWER_INTERVAL = 16, 0.01

#: struct ucred of socket(7): process, user and group.
_CREDENTIALS = struct.Struct("=iII")


#: Users that systemd makes for units, and that nobody else can become (systemd.exec(5), DynamicUser=).
_USERS_OF_UNITS = range(61184, 65520)


class LinkClaim:
    """The claims of one client. It has none until claim(). They are kept in the store: if another process goes on with
    the link, nobody can take its claims meanwhile."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store = store or Store()
        #: Those of the last process, by their addresses.
        self._found = {sock.getsockname(): sock for sock in map(_opened, store.take(NAME)) if sock}
        self._sockets: list[socket.socket] = []
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def claim(self, bridge: str | None, device: str, servers: Iterable[str], *, second: bool = False) -> None:
        """Claim the way from `bridge` to each of `servers`; these are any texts that are the same for the same server.

        Without `bridge` it is the one that `device` is in, if there is such an interface. Raises AlreadyLinked if
        another process of root's, of this user's or of a unit's has a claim, unless `second` is true, or spanning tree
        is on in the bridge. A process that is stopping is waited for.
        """
        bridge = bridge or _bridge_of(device)
        if bridge is not None:
            self._claim_all(bridge, servers, second)
        for sock in self._found.values():
            sock.close()
        self._found.clear()
        if self._sockets:
            self._store.keep(NAME, *(sock.fileno() for sock in self._sockets))
        else:
            self._store.drop(NAME)

    def _claim_all(self, bridge: str, servers: Iterable[str], second: bool) -> None:
        second = second or _has_spanning_tree(bridge)
        for server in sorted(set(servers)):
            try:
                process = self._claim(bridge, server)
            except OSError as exc:
                log.warning("whether %s is linked to %s already cannot be found: %s", bridge, server, exc.strerror)
                continue
            if process is None:
                continue
            # The number is 0 for a process in a container that this one does not see.
            which, stop = (f"process {process}", f" (kill {process})") if process else ("another process", "")
            if not second:
                self.close()
                raise AlreadyLinked(
                    f"{which} links {bridge} to {server} already, and a second link would make a loop; stop that one"
                    f" first{stop}, or turn spanning tree on (ip link set {bridge} type bridge stp_state 1), or give"
                    " --allow-second-link"
                )
            log.info("%s links %s to %s already; this is a second link", which, bridge, server)

    def leave(self) -> None:
        """This client is about to end: others need not be refused, but wait until close(). If another process goes on
        with the link, they are refused."""
        if self._store.outlives:
            return
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the claims up."""
        gevent.killall(self._greenlets)
        if self._store.outlives:
            for sock in self._sockets:
                sock.detach()
        else:
            self._store.drop(NAME)
            for sock in self._sockets:
                sock.close()
        self._sockets.clear()

    def _claim(self, bridge: str, server: str) -> int | None:
        """Return the process that has the claim already; None if it is ours now, or if that cannot be found. Raises
        OSError."""
        address = _address(bridge, server)
        if (kept := self._found.pop(address.encode(), None)) is not None:
            # The kernel tells others that this process listens now.
            kept.listen(BACKLOG)
            self._hold(kept)
            return None
        deadline = monotonic() + STOPPING
        while True:
            if (sock := _taken(address)) is not None:
                self._hold(sock)
                return None
            if (holder := _holder(address)) is not None:
                process, user = holder
                if user not in (0, os.geteuid()) and user not in _USERS_OF_UNITS:
                    raise PermissionError(errno.EACCES, f"user {user} has taken the name that says so")
                return process
            if monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "a process that has the name that says so does not answer")
            gevent.sleep(POLL_INTERVAL)

    def _hold(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        self._greenlets.append(gevent.spawn(_answer, sock))


def _opened(descriptor: int) -> socket.socket | None:
    """The socket of a descriptor that was kept; None, and it is closed, if it is none of ours."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM and isinstance(sock.getsockname(), bytes):
        return sock
    sock.close()
    return None


def _address(bridge: str, server: str) -> str:
    # At most 107 bytes (unix(7)). A URI may be longer.
    return f"\0etherws/{bridge}/{hashlib.sha256(server.encode(errors='replace')).hexdigest()[:32]}"


def _taken(address: str) -> socket.socket | None:
    """A listening socket of this name; None if somebody has the name. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        if exc.errno != errno.EADDRINUSE:
            raise
        return None
    return sock


def _holder(address: str) -> tuple[int, int] | None:
    """The process and the user that listen at this name. None if nobody does, or if too many want to know."""
    with blocking.socket(blocking.AF_UNIX, blocking.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(address)
            found = sock.getsockopt(blocking.SOL_SOCKET, blocking.SO_PEERCRED, _CREDENTIALS.size)
        except (BlockingIOError, ConnectionError):
            return None
        process, user, _ = _CREDENTIALS.unpack(found)
        return process, user


def _answer(sock: socket.socket) -> None:
    """Let others connect: the kernel tells them who listens. Until leave()."""
    with contextlib.suppress(OSError):
        while True:
            sock.accept()[0].close()
            gevent.sleep(ANSWER_INTERVAL)


def _bridge_of(device: str) -> str | None:
    """The name of the bridge that this interface is in; None if there is no such interface, or it is in none."""
    with contextlib.suppress(OSError):
        if master := links.get(device).master:
            return links.get(master).name
    return None


def _has_spanning_tree(bridge: str) -> bool:
    """Whether spanning tree is on; False for a bridge that is still to be made."""
    with contextlib.suppress(OSError):
        return links.has_spanning_tree(links.get(bridge).number)
    return False
