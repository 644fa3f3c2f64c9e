"""The outer TCP connection: its congestion control, and how many bytes wait in its kernel buffers.

TCP inside TCP is slow only where the outer TCP is. On a LAN the system's own congestion control is right. Where the
network is the limit, BBR is better: it does not fill the bottleneck's buffer, and does not slow down for each lost
packet. Which of the two it is can change during the connection; TCP_INFO tells. connection.py reports what the socket
does.

Sources: include/uapi/linux/tcp.h, tcp(7).
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import struct
from enum import Enum
from typing import Protocol

from etherws.errors import SettingsError
from etherws.tunnel.path_queue import UNLIMITED, Facts, PathQueue
from etherws.tunnel.wire import BATCH_BYTES

log = logging.getLogger(__name__)

#: The choice of a congestion control by what the network is like.
AUTO = "auto"
BBR = "bbr"

#: include/uapi/linux/tcp.h
TCP_NOTSENT_LOWAT, TCP_CC_INFO = 25, 26
#: include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE, SO_MAX_PACING_RATE, SO_BUF_LOCK = 33, 47, 72

#: struct tcp_info: tcpi_bytes_acked and tcpi_bytes_received (Linux 4.1).
_TCP_INFO_BYTES = struct.Struct("=120xQQ")

#: struct tcp_info up to tcpi_delivered (Linux 4.18): tcpi_snd_mss in bytes, tcpi_rtt in microseconds, the segments that
#: were sent again, tcpi_min_rtt in microseconds, and the segments that have arrived.
_QUEUE_INFO = struct.Struct("=16xI48xI28xI44xI40xI")

#: struct tcp_info up to tcpi_delivery_rate (Linux 4.9). Two fields matter: tcpi_min_rtt in microseconds, and
#: tcpi_delivery_rate in bytes per second.
_TCP_INFO = struct.Struct("=148xI8xQ")

#: The same: tcpi_last_ack_recv in milliseconds, and tcpi_rtt in microseconds.
_PATH_INFO = struct.Struct("=56xI8xI")

#: struct tcp_bbr_info (include/uapi/linux/inet_diag.h): the bandwidth in bytes per second, in two halves; the pacing
#: gain in 256ths.
_BBR_INFO = struct.Struct("=II4xI4x")

#: A pacing gain, in 256ths, above which BBR is in its startup phase. It is 2.89 there, and 1.25 at most later.
STARTUP_GAIN = 2 * 256

#: Seconds without a quarter more bandwidth, after which BBR's startup phase should be over.
STARTUP_TIMEOUT = 0.5

#: Seconds of round trip from which on the network is no LAN. There one lost segment in a hundred would leave cubic a
#: thirtieth of the rate (docs/performance.rst).
LONG_ROUND_TRIP = 0.005

#: Bytes from which on a message does not grow on a long path: its frames are delivered when all of it has come. With
#: whole batches, such as 60 KiB, the flows inside saw 60 ms instead of 40 in their first round trips, and left their
#: slow start at once (docs/performance.rst).
LONG_PATH_MESSAGE = 6 * 1024

#: Bytes per second above which the machines are the limit, not the network. There BBR's pacing costs a third of the
#: rate.
FAST_RATE = 125_000_000

#: Seconds of the rate that wait unsent in the kernel, and bytes: at least, at first and at most. A ping cannot overtake
#: what waits there. With too little the connection has nothing to send before this process wakes up.
UNSENT_SECONDS = 0.003
UNSENT_MIN, UNSENT_FIRST, UNSENT_MAX = 4 * 1024, 32 * 1024, 1024 * 1024

#: At a limited rate: seconds of it that wait received in the kernel, and the least receive window in bytes. A ping
#: waits as long. Rates of 20 and 200 Mbit/s are still reached.
RECEIVED_SECONDS, RECEIVE_WINDOW_MIN = 0.01, 16 * 1024

#: Bytes of the receive window when a limited rate is unlimited again: enough for 1 Gbit/s over 16 ms.
RECEIVE_WINDOW_WIDE = 2 * 1024 * 1024

#: Seconds between two looks at TCP_INFO.
UPDATE_INTERVAL = 0.1


class SocketOptions(Protocol):
    """What is needed of a socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As socket.getsockopt()."""

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        """As socket.setsockopt()."""


class SocketState(Enum):
    """What happened when a batch was sent."""

    #: The socket took everything.
    FREE = 0
    #: The socket did not take everything at once.
    FULL = 1
    #: The socket stayed full, and has room again: the network is the limit.
    BLOCKED = 2


# By these names they cost no look-up in the enum for each batch.
FREE, FULL, BLOCKED = SocketState.FREE, SocketState.FULL, SocketState.BLOCKED


def check(name: str) -> None:
    """Raise SettingsError unless this kernel offers this process the congestion control `name`, or it is AUTO."""
    if name == AUTO:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            # The kernel loads the module when a privileged process asks for it, so a try is the only test.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except (OSError, UnicodeError):
            raise SettingsError(
                f"--congestion {name!r} is not available in this kernel; see"
                " /proc/sys/net/ipv4/tcp_allowed_congestion_control, or use auto"
            ) from None


class CongestionControl:
    """Adapts one TCP connection to its network. Does nothing for a socket that is not TCP."""

    def __init__(self, sock: SocketOptions, choice: str = AUTO) -> None:
        """`choice` is a congestion control's name, or AUTO."""
        self._sock = sock
        self._auto = choice == AUTO
        self._next_update = self._grown_at = 0.0
        self._bandwidth = 0
        self._pacing_limit = UNLIMITED
        self._queue = PathQueue()
        #: Bytes to send at a time while the socket is full.
        self.chunk = UNSENT_FIRST
        self._current = self._read_current()
        # BBR costs rate on a LAN also where it is the system's own.
        self._for_fast = "cubic" if self._current == BBR else self._current
        with contextlib.suppress(OSError):
            # A frame must not wait until TCP has a full segment.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._set_unsent(UNSENT_FIRST)
        #: Whether the network is no LAN.
        self.long = self._info()[0] >= LONG_ROUND_TRIP
        if not self._auto:
            self._choose(choice)
        elif self.long:
            self._choose(BBR)

    @property
    def message(self) -> int:
        """Bytes from which on a message should not grow."""
        return LONG_PATH_MESSAGE if self.long else BATCH_BYTES

    @property
    def current(self) -> str:
        """The name of the one in use now; empty if the socket is not TCP."""
        return self._current

    def update(self, now: float, state: SocketState) -> None:
        """Adapt to the network, after a batch was sent at `now` (seconds of a monotonic clock); ten times a second at
        most.

        While the socket is free there is nothing to adapt, with two exceptions, both with BBR. On a short path its
        pacing keeps the socket free, and yet may be the limit. On a long path the flows inside may fill the
        bottleneck's buffer.
        """
        if state is FREE and (self._current != BBR or not (self.long or self._auto)):
            return
        if now < self._next_update:
            return
        self._next_update = now + UPDATE_INTERVAL
        min_rtt, rate = self._info()
        if not rate:
            return
        if state is not FREE:
            self._set_unsent(min(max(int(rate * UNSENT_SECONDS), UNSENT_MIN), UNSENT_MAX))
        self.long = min_rtt >= LONG_ROUND_TRIP
        if self._auto:
            if self.long:
                self._choose(BBR)
            elif rate > FAST_RATE:
                self._choose(self._for_fast)
            elif state is BLOCKED:
                self._choose(BBR)
        self._limit_pacing(now)

    def carried(self) -> tuple[int, int]:
        """Bytes that the peer has acknowledged, and that have come from it, headers and TLS included; zeros if the
        kernel does not count them, as on a UNIX socket."""
        return self._tcp_info(_TCP_INFO_BYTES) or (0, 0)

    def limit_receive_window(self, rate: int | None) -> None:
        """Let the peer have little more on its way, or waiting here, than the network itself holds at `rate` bits per
        second. None: as much as the kernel grants any connection.

        The rest then waits at the peer, which queues it by flow. Without CAP_NET_ADMIN it waits here, and pings wait
        with it: SO_RCVBUF, which needs no privilege, may be limited to less than a long path needs.
        """
        if rate is None:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_WINDOW_WIDE)
                # From Linux 5.14 on the kernel then fits the size to the network again.
                self._sock.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, 0)
            return
        window = max(int(rate / 8 * (self._info()[0] + RECEIVED_SECONDS)), RECEIVE_WINDOW_MIN)
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, window)

    def path(self) -> tuple[float, float]:
        """Seconds since the other end's kernel last acknowledged anything, and for a round trip on average lately;
        infinity and zero if unknown."""
        acknowledged, round_trip = self._tcp_info(_PATH_INFO) or (math.inf, 0)
        return acknowledged / 1e3, round_trip / 1e6

    def _limit_pacing(self, now: float) -> None:
        """Limit BBR's pacing while it would fill the network's buffers.

        BBR leaves its startup phase only after three round trips in which there always was more to send. TCP inside TCP
        sends in bursts, which rarely last that long: BBR would go on at three times the network's rate, and fill every
        buffer. On a long path path_queue.py has the limit: the bandwidth that BBR found so far may only be what the
        flows inside have asked for, and as a limit it would keep them from ever asking for more. On a short path, where
        round trips tell little, it is the limit until BBR leaves the phase: then the socket is soon full for long
        enough.
        """
        limit = UNLIMITED
        with contextlib.suppress(OSError, struct.error):
            if self._current == BBR:
                limit = self._queue.limit(now, self._facts()) if self.long else self._startup_limit(now)
            if limit != self._pacing_limit:
                self._sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("=Q", limit))
                self._pacing_limit = limit

    def _startup_limit(self, now: float) -> int:
        """The limit on a short path. Raises OSError, or struct.error, if the kernel does not tell BBR's state."""
        info = self._sock.getsockopt(socket.IPPROTO_TCP, TCP_CC_INFO, _BBR_INFO.size)
        low, high, gain = _BBR_INFO.unpack(info)
        bandwidth: int = low | high << 32
        if bandwidth > 1.25 * self._bandwidth:
            self._bandwidth, self._grown_at = bandwidth, now
        held = gain > STARTUP_GAIN and now - self._grown_at > STARTUP_TIMEOUT
        return bandwidth if held else UNLIMITED

    def _set_unsent(self, size: int) -> None:
        """Let about `size` bytes wait unsent in the kernel."""
        self.chunk = size // 2
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, size)

    def _choose(self, name: str) -> None:
        if name == self._current:
            return
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
            log.debug("congestion control %s, was %s", name, self._current)
            self._current = name
        except OSError as exc:
            log.debug("no congestion control %s: %s; stays %s", name, exc.strerror, self._current)

    def _read_current(self) -> str:
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        except OSError:
            self._auto = False
            return ""

    def _info(self) -> tuple[float, int]:
        """The shortest round trip so far in seconds, and the bytes per second delivered lately; zeros if unknown."""
        min_rtt, rate = self._tcp_info(_TCP_INFO) or (0, 0)
        return min_rtt / 1e6, rate

    def _facts(self) -> Facts:
        """What path_queue.py needs. Raises OSError, or struct.error if the kernel does not tell it."""
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE_INFO.size)
        segment, round_trip, again, shortest, arrived = _QUEUE_INFO.unpack(info)
        return Facts(arrived, again, round_trip / 1e6, shortest / 1e6, segment)

    def _tcp_info(self, fields: struct.Struct) -> tuple[int, int] | None:
        """Two fields of struct tcp_info; None if the kernel does not tell them, as of a UNIX socket."""
        try:
            first, second = fields.unpack(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, fields.size))
        except (OSError, struct.error):
            return None
        return first, second
