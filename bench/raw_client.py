"""A client made of bare bytes: upgrade requests, masked frames and sockets, for benchmarks that play many clients.

It is no full client: it reads no frames and answers no pings. attackers.py, load_client.py, logins.py and stalled.py
use it.
"""

from __future__ import annotations

import random
import socket

from bench.lab import OUTER_A, OUTER_B

#: The server's port.
PORT = 8080
#: The key of the example in RFC 6455, section 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
#: The header lines of an upgrade request for version 1 of the wire format.
LINES = [
    b"Host: x",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
]
#: The same for version 2.
LINES_V2 = [*LINES, b"Sec-WebSocket-Protocol: etherws.v2", b"Etherws-Features: v2"]
#: Seconds for a connection to open, and for an answer.
TIMEOUT = 20.0


def request(lines: list[bytes], first: bytes = b"GET / HTTP/1.1") -> bytes:
    """Return an upgrade request with these header lines."""
    return b"\r\n".join([first, *lines, b"", b""])


def masked(rng: random.Random, first: int, payload: bytes) -> bytes:
    """Return a client's frame (RFC 6455, section 5.2) with this first byte; the masking key is random."""
    size, key = len(payload), rng.randbytes(4)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + size.to_bytes(2, "big")
    whole_key = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ whole_key).to_bytes(size, "big")


def connected(source: str = "") -> socket.socket:
    """Return a TCP connection to the server, from one of our addresses if one is given."""
    return socket.create_connection((OUTER_B, PORT), TIMEOUT, source_address=(source, 0) if source else None)


def accepted(answer: bytes) -> bool:
    """Return whether this answer to an upgrade request accepts it."""
    return answer.startswith(b"HTTP/1.1 101")


def address(number: int) -> str:
    """Return one of the additional addresses in namespace a, from 0 to about 150."""
    return f"{OUTER_A.rpartition('.')[0]}.{101 + number}"
