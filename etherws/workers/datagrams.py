"""Datagrams with descriptors between two processes, over SOCK_SEQPACKET. Nobody waits for a peer that does not read.

What the socket does not take waits in a queue of a fixed length. What is in a datagram is channel.py's business.

Source: unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence

import gevent
from gevent.monkey import get_original

from etherws.errors import ChannelError

#: Bytes of one datagram: far less than what a socket takes at once (net.core.wmem_default, 208 KiB).
DATAGRAM_MAX = 64 << 10

#: Descriptors beside one datagram: the queues of one TAP, and a long message.
DESCRIPTORS_MAX = 16

#: Datagrams that wait for the peer to read. A thousand clients that come at once make as many, of some 300 bytes; a
#: socket takes 160 of these.
QUEUE_MAX = 8192


class Datagrams:
    """One end of a pair of sockets."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` belongs to this from now on."""
        # The blocking kind, whatever gevent has patched; it never blocks.
        self._socket: socket.socket = get_original("socket", "socket")(fileno=sock.detach())
        self._socket.setblocking(False)
        loop = gevent.get_hub().loop
        self._readable, self._writable = loop.io(self._socket.fileno(), 1), loop.io(self._socket.fileno(), 2)
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        #: Whether the descriptors of the last datagram are lost, because this process may open no more.
        self.lost = False

    def send(self, data: bytes, fds: Sequence[int] = ()) -> bool:
        """Send, or queue; return whether there was room. The descriptors may be closed after this. Raises OSError:
        EMFILE or ENFILE if this would have to wait, and there are none for copies."""
        if self._queue or not self._write(data, fds):
            if len(self._queue) >= QUEUE_MAX:
                return False
            self._queue.append((data, _copies(fds)))
            if len(self._queue) == 1:
                self._writable.start(self._flush)
        return True

    @property
    def waiting(self) -> int:
        """How many datagrams wait for the peer."""
        return len(self._queue)

    def receive(self) -> tuple[bytes, list[int]]:
        """Block this greenlet until a datagram comes; return it with its descriptors. An empty one may be the end of
        the peer: see peer_is_gone(). If this process may not open all its descriptors, there are none, and `lost` is
        set. Raises OSError at the end of the peer, ChannelError if a datagram is too long."""
        while True:
            # Each time, so that a flood does not keep others waiting.
            gevent.get_hub().wait(self._readable)
            try:
                data, beside, flags, _ = self._socket.recvmsg(
                    DATAGRAM_MAX, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            break
        fds = descriptors(beside)
        cut = bool(flags & socket.MSG_CTRUNC)
        # The peer is not to blame if the kernel had room for all, and gave fewer.
        self.lost = cut and len(fds) < DESCRIPTORS_MAX
        if flags & socket.MSG_TRUNC or cut:
            close_all(fds)
            fds = []
        if flags & socket.MSG_TRUNC or (cut and not self.lost):
            raise ChannelError("it sent a message that is too long")
        return data, fds

    def peer_is_gone(self) -> bool:
        """Whether the peer has closed its end, or has ended."""
        poll = get_original("select", "poll")()
        poll.register(self._socket.fileno(), 0)
        return bool(poll.poll(0))

    def drop_queue(self) -> None:
        """Send nothing of what waits."""
        while self._queue:
            close_all(self._queue.popleft()[1])
        self._writable.stop()

    def close(self) -> None:
        """Close the socket."""
        self.drop_queue()
        self._readable.close()
        self._writable.close()
        self._socket.close()

    def _write(self, data: bytes, fds: Sequence[int]) -> bool:
        """Whether the socket has taken it. Raises OSError."""
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([data], beside, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def _flush(self) -> None:
        """Send what waits. Called by the event loop."""
        try:
            while self._queue and self._write(*self._queue[0]):
                close_all(self._queue.popleft()[1])
        except OSError:
            # Who receives hears of the end.
            self.drop_queue()
        if not self._queue:
            self._writable.stop()


def _copies(fds: Sequence[int]) -> list[int]:
    """Copies of these descriptors. Raises OSError; then there are none."""
    made: list[int] = []
    try:
        made.extend(map(os.dup, fds))
    except OSError:
        close_all(made)
        raise
    return made


def descriptors(beside: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Those that came beside a message, of what recvmsg() returned. Python's recv_fds() does not pass on its flags, so
    programs that are started would inherit them."""
    fds = array.array("i")
    for level, kind, value in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
    return list(fds)


#: What sending says when the peer has ended.
ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


def close_all(fds: Iterable[int]) -> None:
    """Close these descriptors."""
    for fd in fds:
        os.close(fd)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets for the two ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return one, other
