"""Those who mean no good, each a process: ``strangers.py attack|slow|knock ...`` prints its figures as JSON.

`attack` sends broken handshakes and messages from a seed, `slow` opens connections that hardly speak, `knock` is honest
and in a hurry. hostile.py sends them, in a namespace of their own, against a real server.
"""

from __future__ import annotations

import json
import random
import select
import socket
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_A, OUTER_B

#: The server's port.
PORT = 8080
#: How many different messages and requests there are, and how many messages a connection carries. The last of them is
#: one that ends it.
KINDS, MESSAGES = 2_000, 500
#: Connections that hardly speak, and over how many addresses they are spread.
SLOW, ADDRESSES = 1_000, 20
#: Clients that come meanwhile.
KNOCKS = 20

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LINES = [
    b"Host: x",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
]


def request(lines: list[bytes], first: bytes = b"GET / HTTP/1.1") -> bytes:
    """An upgrade request."""
    return b"\r\n".join([first, *lines, b"", b""])


def bad_request(rng: random.Random) -> bytes:
    """One that must not be let in."""
    lines = LINES.copy()
    at = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at] = lines[at][: lines[at].index(b":")] + b": " + rng.randbytes(rng.randrange(60))
    elif kind == 2:
        lines += [b"X: " + b"y" * rng.randrange(300)] * rng.randrange(100, 300)
    elif kind == 3:
        lines.insert(at, rng.choice([b"Content-Length: +5", b"Transfer-Encoding: chunked", b" folded", b"A : b"]))
    elif kind == 4:
        return request(lines, b"GET /" + b"a" * rng.randrange(1, 9_000) + b" HTTP/1.1")
    elif kind == 5:
        return rng.randbytes(rng.randrange(1, 500))
    elif kind == 6:
        return request(lines, rng.choice([b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET http://x/ HTTP/1.1", b"GET /"]))
    else:
        return request(lines)[: rng.randrange(1, 100)]
    return request(lines)


def masked(rng: random.Random, first: int, payload: bytes) -> bytes:
    """A client's frame."""
    size, key = len(payload), rng.randbytes(4)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + size.to_bytes(2, "big")
    turned = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ turned).to_bytes(size, "big")


def bad_message(rng: random.Random, version: int) -> bytes:
    """One that a session survives: text, fragments, pings, and frames and records that make no sense."""
    kind = rng.randrange(6)
    if kind == 0:
        return masked(rng, 0x81, b"text" * rng.randrange(20))
    if kind == 1:
        return masked(rng, rng.choice([0x89, 0x8A]), rng.randbytes(rng.randrange(126)))
    if kind == 2:
        return masked(rng, 0x01, b"a") + masked(rng, 0x00, b"") * rng.randrange(50) + masked(rng, 0x80, b"b")
    # A source address of our own, or the bridge would send the honest client's frames here.
    frame = rng.randbytes(6) + b"\x02\xee" + rng.randbytes(4) + rng.randbytes(rng.randrange(2, 600))
    if version == 1:
        return masked(rng, 0x82, frame[: rng.choice([13, len(frame)])])
    vnet = rng.choice([bytes(10), b"\1\1\4\0\1\0\0\0\0\0", b"\1\0\0\0\0\0\2\0\2\0", b"\2" + bytes(9)])
    return masked(rng, 0x82, (10 + len(frame)).to_bytes(4, "big") + vnet + frame)


def last_message(rng: random.Random, version: int) -> bytes:
    """One that ends the session."""
    frames = [
        masked(rng, 0x83, b""),
        masked(rng, 0xC2, rng.randbytes(20)),
        masked(rng, 0x80, b""),
        masked(rng, 0x09, b""),
        masked(rng, 0x81, b"\xff"),
        masked(rng, 0x88, b"\x03\xed" + rng.randbytes(20)),
        b"\x82\x0e" + bytes(14),
        b"\x82\xff" + rng.randrange(1 << 21, 1 << 64).to_bytes(8, "big"),
        b"\x82\xfe\x00\x01",
        masked(rng, 0x02, bytes(60_000)) + masked(rng, 0x00, bytes(60_000)) * 20,
    ]
    return masked(rng, 0x82, rng.randbytes(40)) if version == 2 and rng.randrange(2) else rng.choice(frames)


def connected() -> socket.socket:
    """A connection to the server."""
    return socket.create_connection((OUTER_B, PORT), timeout=20)


def connected_from(whence: str) -> socket.socket:
    """A connection to the server from one of our addresses."""
    return socket.create_connection((OUTER_B, PORT), timeout=20, source_address=(whence, 0))


def rest(sock: socket.socket) -> bytes:
    """Everything up to the end."""
    data = bytearray()
    with suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return bytes(data)


def attack(messages: int, handshakes: int, seconds: float, seed: int) -> dict[str, Any]:
    """So many of each, evenly over the time if the server is fast enough."""
    rng = random.Random(seed)
    requests = [bad_request(rng) for _ in range(KINDS)]
    pools = {version: [bad_message(rng, version) for _ in range(KINDS)] for version in (1, 2)}
    sessions = messages // MESSAGES
    turns = ["session"] * sessions + ["handshake"] * handshakes
    rng.shuffle(turns)
    begun, let_in, unserved = time.monotonic(), 0, 0
    for number, turn in enumerate(turns):
        time.sleep(max(0.0, begun + seconds * number / len(turns) - time.monotonic()))
        with connected() as sock, suppress(OSError):
            if turn == "handshake":
                sock.sendall(rng.choice(requests))
                if rng.randrange(8):
                    sock.shutdown(socket.SHUT_WR)
                    let_in += rest(sock).startswith(b"HTTP/1.1 101")
                continue
            version = rng.choice([1, 2])
            sock.sendall(request([*LINES, b"Sec-WebSocket-Protocol: etherws.v2"] if version == 2 else LINES))
            answer = sock.recv(4096)
            unserved += not answer.startswith(b"HTTP/1.1 101")
            sock.sendall(b"".join(rng.choices(pools[version], k=MESSAGES - 1)) + last_message(rng, version))
            sock.shutdown(socket.SHUT_WR)
            rest(sock)
    took = time.monotonic() - begun
    return {"seconds": took, "sessions": sessions, "let in": let_in, "sessions not served": unserved}


def slow(seconds: float) -> dict[str, Any]:
    """Open the connections that hardly speak, and let each say a byte a second; how many were still held at the end."""
    socks = []
    for number in range(SLOW):
        sock = socket.socket()
        sock.bind((address(number % ADDRESSES), 0))
        sock.connect((OUTER_B, PORT))
        socks.append(sock)
    text = request(LINES)
    print("ready", flush=True)
    for at in range(round(seconds)):
        for number, sock in enumerate(socks):
            # A third says nothing at all.
            if number % 3:
                with suppress(OSError):
                    sock.send(text[at : at + 1])
        time.sleep(1)
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return {"held": SLOW - len(poll.poll(0))}


def knock() -> dict[str, Any]:
    """Honest clients, one after the other: seconds from the look-up to the 101."""
    took = []
    for _ in range(KNOCKS):
        begun = time.monotonic()
        with connected() as sock:
            sock.sendall(request(LINES))
            if not sock.recv(4096).startswith(b"HTTP/1.1 101"):
                raise SystemExit("a client was not let in")
            took.append(time.monotonic() - begun)
        time.sleep(0.1)
    return {"median": statistics.median(took), "worst": max(took)}


def address(number: int) -> str:
    """One of the addresses in a from which slow connections come."""
    return f"{OUTER_A.rpartition('.')[0]}.{101 + number}"


def main(role: str, *arguments: str) -> None:
    """Play a role."""
    if role == "attack":
        messages, handshakes, seconds, seed = arguments
        found = attack(int(messages), int(handshakes), float(seconds), int(seed))
    else:
        found = slow(float(arguments[0])) if role == "slow" else knock()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
