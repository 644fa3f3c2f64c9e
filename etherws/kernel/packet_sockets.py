"""Packet sockets (packet(7)), which need CAP_NET_RAW to be made, but not to be used.

A process that gives that capability up makes a supply of them before. From then on they come from the supply, and go
back there. own_frames.py and announce.py use them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterable

#: include/uapi/linux/if_packet.h. Since Linux 4.20: what this machine sends does not come to the socket.
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23

#: include/uapi/linux/if_ether.h: every protocol; one that nobody uses by now.
ETH_P_ALL, ETH_P_LOOP = 0x0003, 0x0060

#: How many are needed at once: the client's for its bridge, to search, to announce what is behind it (announce.py), and
#: to find duplicates of its IP addresses; the server's for BRIDGES_MAX of loop_watch.py, to search, and for duplicates.
#: Here, since who only makes the supply need not import that.
CLIENT_NEEDS, SERVER_NEEDS = 4, 66

#: Part of the descriptors that this process may have open, which the supply takes at most. Clients need the others.
SHARE = 1 / 8

_libc = ctypes.CDLL(None, use_errno=True)

#: Those that nobody uses at the moment; None as long as each is made when it is needed.
_supply: list[int] | None = None


def checksum(data: bytes) -> int:
    """The Internet checksum of a frame's part that is made here: RFC 1071, of a whole number of 16-bit words."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def reserve(count: int) -> None:
    """Have `count` of them, since this process can make no more soon; fewer if it may open few files. Raises
    OSError."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(min(count, int(limit * SHARE))):
        # One by one: those before a failure stay in the supply.
        adopt([_made().detach()])


def adopt(descriptors: Iterable[int]) -> None:
    """Have these, which another process or program has made, in the supply."""
    global _supply
    _supply = [*(_supply or ()), *descriptors]


def take() -> socket.socket:
    """One that gets no frames until it is bound. Raises OSError."""
    if _supply:
        sock = socket.socket(fileno=_supply.pop())
        sock.setblocking(False)
        return sock
    return _made()


def listen_everywhere(sock: socket.socket) -> None:
    """Have it get the frames of all interfaces. Raises OSError."""
    # Python's bind() needs the name of one. struct sockaddr_ll of include/uapi/linux/if_packet.h.
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0, bytes(8))
    if _libc.bind(sock.fileno(), address, len(address)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def give_back(sock: socket.socket) -> None:
    """It is not needed any more."""
    if _supply is None:
        sock.close()
        return
    with contextlib.suppress(OSError):
        sock.bind(("lo", ETH_P_LOOP))
    # What came before that. An error that waits in it is read as well.
    for _ in range(_frames_max(sock)):
        try:
            sock.recv(1)
        except BlockingIOError:
            break
        except OSError:
            continue
    _supply.append(sock.detach())


def descriptors() -> list[int]:
    """Those in the supply, for a program that takes this one's place."""
    return list(_supply or ())


def close() -> None:
    """Close the supply; from now on each is made when it is needed."""
    global _supply
    supply, _supply = _supply or [], None
    # With each the kernel waits until no processor looks at it (synchronize_rcu): some milliseconds. Those that are
    # closed at the same time wait together; a process that ends would close them one after another.
    threads = [threading.Thread(target=os.close, args=(descriptor,)) for descriptor in supply]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _made() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    return sock


def _frames_max(sock: socket.socket) -> int:
    """More frames than it can hold: each takes 256 bytes of its buffer at least (struct sk_buff alone is as long)."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 256
