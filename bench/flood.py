"""The two ends of the packets-per-second scenario, each a process: ``flood.py send|sink ADDRESS PORT SECONDS``.

`send` sends UDP datagrams as fast as the kernel takes them: one call of sendmmsg(2) sends 64, so Python needs little
CPU. `sink` holds the port, so that the kernel sends no ICMP errors. It reads nothing: the interface counts the frames.
Neither needs a control connection, which the flood would delay or break.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time

#: Bytes of payload: with 14 of Ethernet, 20 of IPv4 and 8 of UDP they make a frame of 64.
PAYLOAD = 22
#: Datagrams of one system call.
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
    """Send for that many seconds."""
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
                # A full queue is what we want to measure, not a failure.
                error = ctypes.get_errno()
                if error not in (errno.ENOBUFS, errno.EAGAIN, errno.ECONNREFUSED):
                    raise OSError(error, os.strerror(error))


def sink(address: str, port: int, seconds: float) -> None:
    """Hold the port for that many seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        time.sleep(seconds)


if __name__ == "__main__":
    _, role, address, port, seconds = sys.argv
    {"send": send, "sink": sink}[role](address, int(port), float(seconds))
