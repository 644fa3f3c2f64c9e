"""The two ends of the packets-per-second scenario, each a process: ``flood.py send|sink ADDRESS PORT SECONDS``.

`send` sends UDP datagrams as fast as the kernel takes them: sendmmsg(2) hands over 64 with one call, so that Python
costs next to nothing. `sink` holds the port, so that the kernel answers with no ICMP errors, and reads nothing: what
arrived is counted on the interface. Neither needs a control connection, which would drown in the flood.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time

#: 14 bytes of Ethernet, 20 of IPv4, 8 of UDP and these make a frame of 64.
PAYLOAD = 22
#: Datagrams in one system call.
BATCH = 64


class _Iovec(ctypes.Structure):
    """struct iovec, readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    """struct msghdr, sendmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    """struct mmsghdr, sendmmsg(2)."""

    _fields_ = (("header", _Msghdr), ("sent", ctypes.c_uint))


def send(address: str, port: int, seconds: float) -> None:
    """Send for so many seconds."""
    payload = ctypes.create_string_buffer(PAYLOAD)
    iovec = _Iovec(ctypes.addressof(payload), PAYLOAD)
    batch = (_Mmsghdr * BATCH)()
    for message in batch:
        message.header.iov, message.header.iov_length = ctypes.pointer(iovec), 1
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if sendmmsg(sock.fileno(), batch, BATCH, 0) < 0:
                # A full queue on the way is what we are here for.
                error = ctypes.get_errno()
                if error not in (errno.ENOBUFS, errno.EAGAIN, errno.ECONNREFUSED):
                    raise OSError(error, os.strerror(error))


def sink(address: str, port: int, seconds: float) -> None:
    """Hold the port for so many seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        time.sleep(seconds)


if __name__ == "__main__":
    _, role, address, port, seconds = sys.argv
    {"send": send, "sink": sink}[role](address, int(port), float(seconds))
