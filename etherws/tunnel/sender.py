"""The sending half of a WebSocket connection: messages and control frames to bytes, bytes to the stream.

To send never blocks. What the kernel does not take at once is sent by the event loop, as soon as there is room. Until
then no other message may be sent, so a control frame waits behind one message at most. connection.py decides what to
send; see also receiver.py, the other half, and frames.py, the framing.
"""

from __future__ import annotations

from collections.abc import Sequence

import gevent
from gevent.event import Event

from etherws.errors import ConnectionClosed
from etherws.tunnel.frames import Encoder, Opcode
from etherws.tunnel.stream import Stream, connection_lost
from etherws.tunnel.wire import Buffer

#: Pings and pongs that may wait behind a message at a time. Of the pings that come while as many wait, only the latest
#: is answered (RFC 6455, section 5.5.3).
CONTROL_QUEUE = 8

#: Buffers that one system call takes as they are. More are joined first, if the first one has fewer bytes than
#: JOINED_BYTES: to copy a few bytes costs less than to pass many pointers. TLS gives records of 16 KiB.
WRITE_BUFFERS, JOINED_BYTES = 2, 4096

#: Buffers that one system call takes at most: the longest batch in TLS has as many.
WRITE_BUFFERS_MAX = 16


class Sender:
    """Sends for one connection. `error` says why it can send no more; None while it can."""

    def __init__(self, stream: Stream, encoder: Encoder) -> None:
        self.error: ConnectionClosed | None = None
        #: Bytes that the kernel has taken.
        self.written = 0
        # Whether a message had to wait for the kernel.
        self._waited = False
        self._stream, self._encoder = stream, encoder
        self._unsent: list[memoryview] = []
        # Set while nothing is unsent.
        self._flushed = Event()
        self._flushed.set()
        self._controls_waiting = 0
        self._owed_pong: bytes | None = None
        self._closed = False
        self._flush_watcher, self._wait_watcher = stream.writable(), stream.writable()

    def send(self, messages: Sequence[Buffer]) -> bool:
        """Send the messages; return whether the stream took everything.

        If not, the messages must stay unchanged, and no others be sent, until flush() returns True. Raises
        ConnectionClosed once sending has failed.
        """
        if not self.error:
            self._write(self._encoder.data(messages))
        if self.error:
            raise self.error
        if self._unsent:
            self._waited = True
            return False
        return True

    def pad(self, message: Buffer) -> bool:
        """Send a message of padding; return whether it was sent. It is not if a message of send() had to wait so far,
        or anything waits now, or nothing may be sent any more."""
        if self.error or self._closed or self._unsent or self._waited:
            return False
        self._write(self._encoder.data([message]))
        return True

    def ping(self, payload: bytes) -> bool:
        """Send a ping, unless too many control frames wait already; return whether it was sent."""
        if self.error or self._closed or not self._control_may_wait():
            return False
        self._write([self._encoder.control(Opcode.PING, payload)])
        return True

    def pong(self, payload: Buffer) -> None:
        """Answer a ping; later, and only the latest, if too many control frames wait."""
        if self.error or self._closed:
            return
        if self._control_may_wait():
            self._write([self._encoder.control(Opcode.PONG, payload)])
        else:
            self._owed_pong = bytes(payload)

    def close(self, code: int | None, reason: str) -> None:
        """Send a Close frame. No frame may follow it (RFC 6455, section 5.5.1)."""
        self._closed = True
        if not self.error:
            self._write([self._encoder.close(code, reason)])

    def flush(self, timeout: float | None = None) -> bool:
        """Block this greenlet until nothing is unsent, or sending has failed; return False after `timeout` seconds."""
        return self._flushed.wait(timeout)

    def wait_writable(self) -> None:
        """Block this greenlet until nothing is unsent here, and little in the kernel (TCP_NOTSENT_LOWAT)."""
        self._flushed.wait()
        if not self.error and not self._closed:
            gevent.get_hub().wait(self._wait_watcher)

    def release(self) -> None:
        """Free the watchers, and the error, whose traceback would keep this object in memory."""
        self._flush_watcher.close()
        self._wait_watcher.close()
        self.error = None

    def _write(self, buffers: Sequence[Buffer]) -> None:
        try:
            buffers = self._stream.encode(buffers)
        except OSError as exc:
            self.error = connection_lost(exc)
            return
        if len(buffers) > WRITE_BUFFERS and len(buffers[0]) < JOINED_BYTES:
            buffers = (b"".join(buffers),)
        self._unsent += map(memoryview, buffers)
        if self._flushed.is_set():
            self._flush()

    def _flush(self) -> None:
        """Write what the kernel takes. The event loop calls this again while bytes are left."""
        unsent = self._unsent
        try:
            while unsent:
                size = self._stream.write(unsent[:WRITE_BUFFERS_MAX])
                self.written += size
                while unsent and size >= len(unsent[0]):
                    size -= len(unsent.pop(0))
                if size:
                    unsent[0] = unsent[0][size:]
        except BlockingIOError:
            if self._flushed.is_set():
                self._flushed.clear()
                self._flush_watcher.start(self._flush)
            return
        except OSError as exc:
            self.error = connection_lost(exc)
            unsent.clear()
        if not self._flushed.is_set():
            self._flush_watcher.stop()
            self._flushed.set()
            self._controls_waiting = 0
            owed, self._owed_pong = self._owed_pong, None
            if owed is not None:
                self.pong(owed)

    def _control_may_wait(self) -> bool:
        """Whether one more control frame may be written, though a message may be on its way."""
        self._controls_waiting += not self._flushed.is_set()
        return self._controls_waiting <= CONTROL_QUEUE
