"""What the kernel tells of one TCP connection: its congestion control, round trips, and what it had to send again.

Asked for a check, and while padding is sent; congestion.py reads what a session needs all the time. Source:
include/uapi/linux/tcp.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from etherws.tunnel.congestion import SocketOptions

#: struct tcp_info up to tcpi_data_segs_out (Linux 4.6): tcpi_snd_mss, tcpi_unacked, tcpi_pmtu, tcpi_rtt, tcpi_snd_cwnd,
#: tcpi_total_retrans, tcpi_notsent_bytes, tcpi_min_rtt, tcpi_data_segs_out.
_TCP_INFO = struct.Struct("=16xI4xI32xI4xI8xI16xI40xII4xI")


_SLOW_START = Path("/proc/sys/net/ipv4/tcp_slow_start_after_idle")


class TcpFacts(NamedTuple):
    """`segment` and `path_mtu` are in bytes: the largest segment that is sent, and what the kernel knows of the path.
    `round_trip` is the average of late, `shortest` the shortest so far, both in seconds. `retransmitted` of `segments`
    with data were sent again. `window` segments may be on their way, and so many are; `unsent` bytes wait in the kernel
    to be sent. All is zero, and the name empty, if the kernel does not tell."""

    congestion: str = ""
    segment: int = 0
    path_mtu: int = 0
    round_trip: float = 0.0
    shortest: float = 0.0
    retransmitted: int = 0
    segments: int = 0
    window: int = 0
    on_their_way: int = 0
    unsent: int = 0


def read(sock: SocketOptions) -> TcpFacts:
    """The facts of a connection; of one that is not TCP there are none."""
    with contextlib.suppress(OSError, struct.error):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        segment, sent, path_mtu, round_trip, window, again, unsent, shortest, segments = _TCP_INFO.unpack(info)
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode("ascii", "replace")
        times = round_trip / 1e6, shortest / 1e6
        return TcpFacts(name, segment, path_mtu, *times, again, segments, window, sent, unsent)
    return TcpFacts()


def slow_start_after_idle() -> bool:
    """Whether this kernel's TCP begins slowly again after a pause (Documentation/networking/ip-sysctl.rst)."""
    try:
        return _SLOW_START.read_text().strip() != "0"
    except OSError:
        return False
