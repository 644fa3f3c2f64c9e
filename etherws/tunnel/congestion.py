"""How the outer TCP connection behaves: its congestion control, and how much of it waits in the kernel.

TCP over TCP is slow only where the outer TCP is. On a LAN the system's own congestion control is right; where the path
is the limit BBR is: it neither fills the path's buffer nor takes each lost packet for a full one. Which of the two this
is can change while the connection lives, and TCP_INFO tells.

Sources: include/uapi/linux/tcp.h, tcp(7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
from typing import Any

from etherws.errors import SettingsError

log = logging.getLogger(__name__)

TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT = 25, 18

#: struct tcp_info up to tcpi_delivery_rate (Linux 4.9), of which two fields matter: tcpi_min_rtt, microseconds, and
#: tcpi_delivery_rate, bytes per second.
_TCP_INFO = struct.Struct("=148xI8xQ")

#: And tcpi_notsent_bytes.
_UNSENT = struct.Struct("=144xI")

#: struct tcp_bbr_info (include/uapi/linux/inet_diag.h): the bandwidth in bytes per second, in two halves; the pacing
#: gain in 256ths.
_BBR_INFO = struct.Struct("=II4xI4x")
TCP_CC_INFO, SO_MAX_PACING_RATE = 26, 47
UNLIMITED = 2**64 - 1

#: BBR paces at 2.89 times the bandwidth that it knows while it starts up, and with at most 1.25 times later.
START_UP = 2 * 256

#: Seconds without a quarter more bandwidth after which the start-up should be over.
STARTED = 0.5

#: Seconds of round trip from which on a path is no LAN. There a single lost segment in a hundred would leave cubic a
#: thirtieth of the rate (docs/performance.rst).
FAR = 0.005

AUTO = "auto"
BBR = "bbr"

#: Bytes per second above which no path is the limit, but the machines: there BBR's pacing costs a third of the rate.
FAST = 125_000_000

#: Seconds' worth of data that waits in the kernel, unsent. What waits there no ping can overtake; too little, and the
#: connection runs dry before this process wakes up.
WAITING = 0.003
LEAST, FIRST, MOST = 4 * 1024, 32 * 1024, 1024 * 1024

#: Of what is received at a limited rate: the seconds' worth that waits in the kernel, and the bytes at least. A ping
#: waits as long, and a rate of 20 or 200 Mbit/s is still reached.
STANDING, NARROWEST = 0.01, 16 * 1024
#: include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE = 33

#: Seconds between two looks at TCP_INFO.
LOOK = 0.1


def check(name: str) -> None:
    """Raise SettingsError unless this kernel has the congestion control `name` for us, or it is AUTO."""
    if name == AUTO:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            # By trying: the kernel loads a module for those who may.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except (OSError, UnicodeError):
            raise SettingsError(
                f"--congestion {name!r} is not to be had from this kernel; see"
                " /proc/sys/net/ipv4/tcp_allowed_congestion_control, or say auto"
            ) from None


class Path:
    """The path below one connection. Does nothing where the socket is no TCP socket."""

    def __init__(self, sock: Any, choice: str = AUTO) -> None:
        """`choice` is a congestion control's name, or AUTO."""
        self._sock = sock
        self._auto = choice == AUTO
        self._look_at = self._grown_at = 0.0
        self._bandwidth = 0
        self._limit = UNLIMITED
        #: Bytes to send in one go while the socket is full.
        self.chunk = FIRST
        self._current = self._congestion()
        # Where BBR is the system's own, its pacing has its price on a LAN all the same.
        self._unpaced = "cubic" if self._current == BBR else self._current
        with contextlib.suppress(OSError):
            # A frame of a LAN waits for nobody.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep_waiting(FIRST)
        self._far = self._info()[0] >= FAR
        if not self._auto:
            self._choose(choice)
        elif self._far:
            self._choose(BBR)

    @property
    def doubtful(self) -> bool:
        """Whether BBR is on though the path is short: to be looked at even while the socket takes everything, which a
        paced one always does."""
        return self._auto and self._current == BBR and not self._far

    def look(self, now: float, *, full: bool = True, narrow: bool = False) -> None:
        """Adapt to the path, ten times a second at most. `now` is in seconds; `full`: the socket did not take
        everything; `narrow`: and stays so. While it takes everything there is nothing to adapt, unless `doubtful`.
        """
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        min_rtt, rate = self._info()
        if not rate:
            return
        if full:
            self._keep_waiting(min(max(int(rate * WAITING), LEAST), MOST))
        self._far = min_rtt >= FAR
        if self._auto:
            if self._far:
                self._choose(BBR)
            elif rate > FAST:
                self._choose(self._unpaced)
            elif narrow:
                self._choose(BBR)
        self._hold(now)

    def narrow(self, rate: int) -> None:
        """Have hardly more on its way here, or wait here, than the path itself holds at `rate`, in bits per second.

        The rest then waits with the peer, which sorts it by flows. Without CAP_NET_ADMIN it waits here, and pings with
        it: what SO_RCVBUF alone may ask for can be too little for a long path.
        """
        window = max(int(rate / 8 * (self._info()[0] + STANDING)), NARROWEST)
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, window)

    def expect_acks(self, patience: float, *, full: bool = False) -> None:
        """Let the kernel end the connection once what was sent has not been acknowledged for `patience` seconds. To be
        called more often than that: `full` says that the socket does not take everything at present.

        A peer that has no room, and says so, is alive. The kernel would count that against it as well, so nothing is
        expected while more waits to be sent.
        """
        with contextlib.suppress(OSError, struct.error):
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNSENT.size)
            if full or _UNSENT.unpack(info)[0]:
                patience = 0
            self._sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(patience * 1000))

    def uprooted(self) -> bool:
        """Whether the address that the connection comes from is no longer this machine's, and nothing can come."""
        if self._sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        address, _, *scope = self._sock.getsockname()
        with socket.socket(self._sock.family, socket.SOCK_DGRAM) as other:
            try:
                other.bind((address, 0, *scope))
            except OSError as exc:
                return exc.errno == errno.EADDRNOTAVAIL
        return False

    def _hold(self, now: float) -> None:
        """Hold BBR to the bandwidth that it found, until it believes that this is it.

        It leaves its start-up only after three round trips in which there always was more to send. The bursts of TCP
        inside TCP hardly ever give it those: it would go on at three times the path's rate, and fill every buffer.
        Held to the rate, it soon finds the socket full, and leaves.
        """
        limit = UNLIMITED
        with contextlib.suppress(OSError, struct.error):
            if self._current == BBR:
                info = self._sock.getsockopt(socket.IPPROTO_TCP, TCP_CC_INFO, _BBR_INFO.size)
                low, high, gain = _BBR_INFO.unpack(info)
                bandwidth = low | high << 32
                if bandwidth > 1.25 * self._bandwidth:
                    self._bandwidth, self._grown_at = bandwidth, now
                if gain > START_UP and now - self._grown_at > STARTED:
                    limit = bandwidth
            if limit != self._limit:
                self._sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("=Q", limit))
                self._limit = limit

    def _keep_waiting(self, size: int) -> None:
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

    def _congestion(self) -> str:
        try:
            return str(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode())
        except OSError:
            self._auto = False
            return ""

    def _info(self) -> tuple[float, int]:
        """The least round trip so far in seconds, and the bytes per second that lately arrived; zeros if unknown."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            min_rtt, rate = _TCP_INFO.unpack(info)
        except (OSError, struct.error):
            return 0.0, 0
        return min_rtt / 1e6, rate
