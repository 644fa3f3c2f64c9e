"""The two ends of a fetch, each a process: ``fetcher.py serve PORT CONGESTION``, ``fetcher.py get ADDRESS PORT ...``.

A fetch is a new TCP connection: `get` connects, asks for a number of bytes, and reads them. It prints its times as
JSON. The server gives each connection the congestion control, since it is the one that sends. For fetch.py and others.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

#: Bytes of one write, and of one read.
PIECE = 1 << 16
#: Seconds between two samples of what has arrived.
SAMPLE = 0.1


def serve(port: int, congestion: str) -> None:
    """Answer each connection with the bytes that it asks for, without end."""
    # Random, so that nobody on the way can compress it.
    piece = os.urandom(PIECE)
    with socket.create_server(("", port)) as listening:
        # Before a connection is there: one that has begun with BBR stays paced, also with cubic.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        while True:
            sock = listening.accept()[0]
            # A route of the lab may have chosen another.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
            threading.Thread(target=_answer, args=(sock, piece), daemon=True).start()


def _answer(sock: socket.socket, piece: bytes) -> None:
    # The other end may close early: its time is over.
    with sock, suppress(OSError):
        left = int(sock.makefile("rb").readline())
        while left > 0:
            sock.sendall(piece[:left])
            left -= PIECE


def get(address: str, port: int, size: int, patience: float) -> dict[str, Any]:
    """Fetch so many bytes; return when the first and the last came, and what had arrived after each SAMPLE.

    Times are seconds after the begin of the connection. "last" is None if the patience, in seconds, was over before.
    """
    begun = time.monotonic()
    arrived, first, last = 0, None, None
    samples: list[int] = []
    buffer = bytearray(PIECE)
    with suppress(TimeoutError), socket.create_connection((address, port), timeout=patience) as sock:
        sock.sendall(b"%d\n" % size)
        while (left := patience - (time.monotonic() - begun)) > 0:
            sock.settimeout(left)
            count = sock.recv_into(buffer)
            now = time.monotonic() - begun
            samples += [arrived] * (int(now / SAMPLE) - len(samples))
            first = first or now
            arrived += count
            if arrived >= size or not count:
                last = now if arrived >= size else None
                break
    return {"first": first, "last": last, "bytes": arrived, "samples": samples}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        print(json.dumps(get(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))))
