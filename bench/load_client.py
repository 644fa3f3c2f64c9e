"""One client of load.py: a socket that never blocks, from the TCP connection to the end of the session.

It answers pings of the WebSocket and of IPv4, and ARP. It sends what its `Job` says, counts what it carries, and reads
nothing while it is stalled. load.py tells it when its socket is ready. The bytes are in load_frames.py.
"""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from bench import load_frames
from bench.load_frames import NOT_FORWARDED
from etherws.tunnel.frames import Opcode

#: Bytes read at once; of a message that is longer than MESSAGE_MAX only the length is looked at.
READ, MESSAGE_MAX = 1 << 16, 1 << 14
#: Bytes that a client who sends as fast as it may gives to the kernel at once.
BLOCK = 1 << 16
#: Frames of a client with a rate that may be late together; what is more is left out.
LATE_FRAMES = 1000


class State(Enum):
    """Where a client is on its way."""

    CONNECTING = "connecting"
    TLS = "TLS"
    ASKED = "asked"
    UP = "up"
    ENDED = "ended"


@dataclass
class Job:
    """What a busy client sends: frames of this size to a destination, so many a second, or as fast as it may (0)."""

    size: int
    to: str
    rate: float
    begun: float
    done: int = 0


class Client:
    """A client. `status` is that of the answer to its request; 0 if none came."""

    def __init__(self, number: int, version: int, tls: ssl.SSLContext | None, token: str) -> None:
        self.number, self.version, self._tls, self._token = number, version, tls, token
        self.state, self.status = State.ENDED, 0
        #: Bytes of the connection since the beginning, and frames that came, as far as they were looked at.
        self.sent = self.received = self.frames = 0
        self.stalled = False
        self._job: Job | None = None
        self._block = self._one = b""

    def connect(self, server: tuple[str, int], source: str, buffer: int) -> socket.socket:
        """Begin to connect; return the socket. `buffer`: bytes of its receive buffer, 0: the kernel's default."""
        self.sock = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if source:
            # Ports are chosen at connect(): else 1,000 clients could not have one address for long.
            self.sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            self.sock.bind((source, 0))
        self._rest, self._skip, self._out = b"", 0, memoryview(b"")
        self.state, self.status = State.CONNECTING, 0
        with suppress(BlockingIOError):
            self.sock.connect(server)
        return self.sock

    def work(self, job: Job | None, clients: int) -> None:
        """Do this job from now on; None: be idle."""
        self._job = job
        if job:
            place = load_frames.destination(job.to, self.number, clients)
            frame = load_frames.frame(place, load_frames.mac(self.number), job.size)
            self._one = load_frames.message(self.version, frame)
            self._block = load_frames.message(self.version, *[frame] * max(1, BLOCK // (job.size + 14)))

    def events(self) -> int:
        """Return what to wait for: events of epoll(7)."""
        if self.state is State.CONNECTING:
            return select.EPOLLOUT
        wanted = 0 if self.stalled and self.state is State.UP else select.EPOLLIN
        writes = self._out or (self.state is State.UP and self._job and not self._job.rate)
        return wanted | (select.EPOLLOUT if writes else 0)

    def ready(self, events: int) -> None:
        """Go on. OSError when the connection is lost, ConnectionError when the server ends or refuses it."""
        if self.state is State.CONNECTING:
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
            if self._tls:
                self.sock = self._tls.wrap_socket(self.sock, do_handshake_on_connect=False)
            self.state = State.TLS
        if self.state is State.TLS:
            if isinstance(self.sock, ssl.SSLSocket):
                # What the handshake wants to write fits into an empty socket.
                with suppress(ssl.SSLWantReadError):
                    self.sock.do_handshake()
                    self._ask()
                return
            self._ask()
            return
        if events & select.EPOLLOUT:
            self._write()
        if events & ~select.EPOLLOUT:
            self._read()

    def tick(self, now: float) -> None:
        """Send what is due at the time `now`, of a job with a rate."""
        job = self._job
        if not job or not job.rate or self.state is not State.UP:
            return
        due = int((now - job.begun) * job.rate) - job.done
        if due > LATE_FRAMES:
            job.done += due - LATE_FRAMES
            due = LATE_FRAMES
        if due > 0:
            job.done += due
            if not self._out:
                self._send(self._one * due)

    def close(self) -> None:
        """End the connection without a word."""
        self.state = State.ENDED
        self.sock.close()

    def _ask(self) -> None:
        self._send(load_frames.upgrade(self.version, self._token))
        self.state = State.ASKED

    def _send(self, data: bytes) -> None:
        if self._out:
            # Only small answers come here while there is something to send.
            self._out = memoryview(bytes(self._out) + data)
        else:
            self._out = memoryview(data)
            self._write()

    def _write(self) -> None:
        if not self._out and self.state is State.UP and self._job and not self._job.rate:
            self._out = memoryview(self._block)
        if self._out:
            with suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                count = self.sock.send(self._out)
                self._out = self._out[count:]
                self.sent += count

    def _read(self) -> None:
        while True:
            try:
                data = self.sock.recv(READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise ConnectionError("ended")
            self.received += len(data)
            self._take(data)
            # TLS may hold a part of what has come, which epoll does not know of.
            if not isinstance(self.sock, ssl.SSLSocket) or not self.sock.pending():
                return

    def _take(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            data = self._rest + data
        at = self._answered(data) if self.state is State.ASKED else 0
        whole = memoryview(data)
        while self.state is State.UP and (found := load_frames.head(whole, at)):
            opcode, begin, size = found
            if size > MESSAGE_MAX and begin + size > len(whole):
                self._skip, at = begin + size - len(whole), len(whole)
                break
            if begin + size > len(whole):
                break
            at = begin + size
            self._message(opcode, whole[begin:at])
        self._rest = data[at:]

    def _answered(self, data: bytes) -> int:
        """Look at the answer to our request; return where it ends, 0 if it is not whole."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        self.status = int(data[9:12])
        if self.status != 101:
            raise ConnectionError("refused")
        if self.version == 2 and b"etherws.v2" not in data[:end]:
            raise ConnectionError("no version 2")
        self.state = State.UP
        # The bridge knows where this address is from now on.
        self._send(load_frames.message(self.version, load_frames.frame(NOT_FORWARDED, load_frames.mac(self.number))))
        return end + 4

    def _message(self, opcode: int, payload: memoryview) -> None:
        if opcode == Opcode.PING:
            self._send(load_frames.pong(bytes(payload)))
        elif opcode == Opcode.CLOSE:
            raise ConnectionError("closed")
        elif opcode == Opcode.BINARY and len(payload) <= MESSAGE_MAX:
            for frame in load_frames.frames_of(self.version, payload):
                self.frames += 1
                if (reply := load_frames.answer(self.number, frame)) is not None:
                    self._send(load_frames.message(self.version, reply))
