"""A stream without a kernel: what it gives, what it takes and how it ends are the test's to say.

See etherws/tunnel/stream.py for the protocol. Events are reported to a watcher only when the test lets the event loop
run, and in one order, so that nothing depends on time.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent

from etherws.tunnel.wire import Buffer


class FakeSocket:
    """The socket at the bottom: remembers its options, and has none of TCP's."""

    family = 1

    def __init__(self) -> None:
        self.options: dict[tuple[int, int], object] = {}

    def setsockopt(self, level: int, option: int, value: object) -> None:
        """Remember it."""
        self.options[level, option] = value

    def getsockopt(self, *_: int) -> bytes:
        """As a UNIX socket that is asked for an option of TCP."""
        raise OSError(95, "Operation not supported")


class FakeWatcher:
    """Calls back while its condition holds, once for each turn of the event loop, as a level-triggered one does."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._call: Callable[[], object] | None = None
        self._timer: Any = None
        self.closed = False

    def start(self, callback: Callable[..., object], *args: Any) -> None:
        """Begin to watch."""
        assert not self.closed
        self._call = lambda: callback(*args)
        self.look()

    def stop(self) -> None:
        """Watch no longer."""
        self._call = None

    def close(self) -> None:
        """For good."""
        self.stop()
        self.closed = True

    def look(self) -> None:
        """Have the callback called by the event loop, if the condition holds then."""
        if self._call and self._ready():
            gevent.get_hub().loop.run_callback(self._fire)

    def _fire(self) -> None:
        if self._call and self._ready():
            self._call()
            self.look()


class FakeStream:
    """Give it what the peer sends by feed(), room for what is sent by `room`; read what was sent in `sent`."""

    def __init__(self, *pieces: bytes | OSError, room: int = 1 << 30) -> None:
        """Each piece is what one recv_into() finds: bytes, b"" for the end, or the error that it raises."""
        self.tcp: Any = FakeSocket()
        self.drained = True
        self._pieces: deque[bytes | OSError] = deque(pieces)
        self._watchers: list[FakeWatcher] = []
        self._room = room
        #: What was written, and how much at each call.
        self.sent, self.writes = bytearray(), list[int]()
        #: What the next encode() and the next write() raise.
        self.encode_error: OSError | None = None
        self.write_error: OSError | None = None
        #: Each shutdown's argument, and "close".
        self.ends: list[object] = []
        #: How often a greenlet has waited for something to read.
        self.reads = 0

    @property
    def room(self) -> int:
        """How many bytes it takes before a write would block."""
        return self._room

    @room.setter
    def room(self, size: int) -> None:
        self._room = size
        self._look()

    def feed(self, *pieces: bytes | OSError) -> None:
        """More from the peer."""
        self._pieces += pieces
        self._look()

    def fail(self, error: OSError) -> None:
        """Let the next write() raise `error`."""
        self.write_error = error
        self._look()

    def _look(self) -> None:
        for watcher in self._watchers:
            watcher.look()

    def readable(self) -> Any:
        """See Stream."""
        return self._watcher(lambda: bool(self._pieces))

    def writable(self) -> Any:
        """See Stream."""
        return self._watcher(lambda: self._room > 0 or self.write_error is not None)

    def _watcher(self, ready: Callable[[], bool]) -> FakeWatcher:
        self._watchers.append(FakeWatcher(ready))
        return self._watchers[-1]

    @property
    def watchers_closed(self) -> bool:
        """Whether every watcher was closed."""
        return all(watcher.closed for watcher in self._watchers)

    def tls_version(self) -> None:
        """See Stream."""

    def unread(self) -> int:
        """See Stream."""
        return sum(len(piece) for piece in self._pieces if isinstance(piece, bytes))

    def recv_into(self, space: Buffer) -> int:
        """See Stream. A piece that does not fit stays in part."""
        self.reads += 1
        assert self._pieces, "this would block for ever"
        piece = self._pieces.popleft()
        if isinstance(piece, OSError):
            raise piece
        size = min(len(piece), len(space))
        memoryview(space)[:size] = piece[:size]
        if size < len(piece):
            self._pieces.appendleft(piece[size:])
        return size

    def recv(self, size: int) -> bytes:
        """See Stream."""
        space = bytearray(size)
        return bytes(space[: self.recv_into(space)])

    def sendall(self, data: Buffer) -> None:
        """See Stream."""
        self.sent += data

    def rest(self) -> None:
        """See Stream."""

    def take(self, size: int) -> bytes:
        """See Stream."""
        return self.recv(size)

    def encode(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """See Stream."""
        if self.encode_error:
            raise self.encode_error
        return buffers

    def write(self, encoded: Sequence[Buffer]) -> int:
        """See Stream."""
        if self.write_error:
            raise self.write_error
        if self._room <= 0:
            raise BlockingIOError
        data = b"".join(encoded)[: self._room]
        self._room -= len(data)
        self.sent += data
        self.writes.append(len(data))
        return len(data)

    def shutdown(self, how: int) -> None:
        """See Stream."""
        self.ends.append(how)
        if how == socket.SHUT_RD:
            self.feed(b"")

    def close(self) -> None:
        """See Stream."""
        self.ends.append("close")
