"""Listening sockets that others have opened for this process: a socket unit of systemd, root before a unit's start, or
the process that was here before.

A socket unit is somebody's choice of where to listen: it holds. Any other is used if it listens where the options say,
and closed if not. Read next: listen.py, which opens sockets; kernel/service_manager.py, which has the descriptors.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence

from gevent.socket import socket as GeventSocket

from etherws.kernel import service_manager
from etherws.server.listen import UNIX_PREFIX

log = logging.getLogger(__name__)

#: The name of a socket that etherws has opened itself, before or in another process.
LISTEN = "listen"

#: Names of other descriptors of ours begin so.
_OURS = ("port-", "rates", "packet")


def take(
    passed: Mapping[str, Sequence[int]], address: str | None, port: int, *, chosen: bool = True
) -> GeventSocket | None:
    """The socket to listen on, of the descriptors that were `passed`, by name; None if there is none.

    `address` and `port` are as in listen(); `chosen` is whether the user gave one of them. Listening sockets that are
    not used are closed, and logged; descriptors of other kinds stay as they are.
    """
    units: list[socket.socket] = []
    own: list[socket.socket] = []
    for name, descriptors in passed.items():
        if not name.startswith(_OURS):
            (own if name == LISTEN else units).extend(_listening(name, descriptors))
    fitting = [sock for sock in own if _listens_at(sock, address, port)]
    found = next(iter([*units, *fitting]), None)
    if units and found and chosen and not _listens_at(found, address, port):
        log.warning(
            "listens at %s, where the socket unit says, and not where --address and --port say; leave these out, or"
            " disable the socket unit",
            name_of(found),
        )
    for sock in (*units, *own):
        if sock is not found:
            log.log(logging.WARNING if sock in units else logging.INFO, "listens at %s no longer", name_of(sock))
            sock.close()
    if any(sock is not found for sock in own):
        # systemd has them open as well, under one name.
        service_manager.drop(LISTEN)
        if found in own:
            service_manager.keep(LISTEN, found.fileno())
    if found is None:
        return None
    found.setblocking(False)
    return GeventSocket(fileno=found.detach())


def name_of(sock: socket.socket | GeventSocket) -> str:
    """Where a socket listens, for the log."""
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = where.decode(errors="replace") if isinstance(where, bytes) else str(where)
        return UNIX_PREFIX + text.replace("\0", "@", 1)
    return f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"{where[0]}:{where[1]}"


def _listening(name: str, descriptors: Sequence[int]) -> Iterator[socket.socket]:
    """Those that are listening stream sockets. Of the others the log says what they are not."""
    for descriptor in descriptors:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            sock = socket.socket(fileno=descriptor)
            families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
            if (
                sock.family in families
                and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            ):
                yield sock
                continue
            sock.detach()
        log.warning(
            "systemd has passed the descriptor %s, which is not a listening TCP or UNIX socket; write ListenStream= and"
            " Accept=no into the socket unit",
            name,
        )


def _listens_at(sock: socket.socket, address: str | None, port: int) -> bool:
    """Whether the socket listens where the options say."""
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return name_of(sock) == address
    if port not in (0, where[1]):
        return False
    if address is None:
        return where[0] in ("::", "0.0.0.0")
    try:
        found = socket.getaddrinfo(address, where[1], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return where in [target[:2] if sock.family == socket.AF_INET else target for *_, target in found]
