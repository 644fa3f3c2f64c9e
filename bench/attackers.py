"""The processes that broken.py sends against a server: ``attackers.py attack|slow|connect ...``.

`attack` sends broken handshakes and broken messages, which a seed decides. `slow` opens connections that send almost
nothing. `connect` is a number of normal clients, one after another. Each prints its figures as JSON.
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

from bench.lab import OUTER_B
from bench.raw_client import LINES, LINES_V2, PORT, accepted, address, connected, masked, request

#: The number of different messages and requests, and of messages in a connection. The last message ends the connection.
KINDS, MESSAGES = 2_000, 500
#: The number of connections that send almost nothing, and of the addresses that they come from.
SLOW, ADDRESSES = 1_000, 20
#: Normal clients that connect at the same time.
CLIENTS = 20


def bad_request(rng: random.Random) -> bytes:
    """Return a request that the server must refuse."""
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


def bad_message(rng: random.Random, version: int) -> bytes:
    """Return a message that does not end a session: text, fragments, pings, invalid Ethernet frames and records."""
    kind = rng.randrange(6)
    if kind == 0:
        return masked(rng, 0x81, b"text" * rng.randrange(20))
    if kind == 1:
        return masked(rng, rng.choice([0x89, 0x8A]), rng.randbytes(rng.randrange(126)))
    if kind == 2:
        return masked(rng, 0x01, b"a") + masked(rng, 0x00, b"") * rng.randrange(50) + masked(rng, 0x80, b"b")
    # The source MAC is our own. With another one the bridge could send the honest client's frames to us.
    frame = rng.randbytes(6) + b"\x02\xee" + rng.randbytes(4) + rng.randbytes(rng.randrange(2, 600))
    if version == 1:
        return masked(rng, 0x82, frame[: rng.choice([13, len(frame)])])
    vnet = rng.choice([bytes(10), b"\1\1\4\0\1\0\0\0\0\0", b"\1\0\0\0\0\0\2\0\2\0", b"\2" + bytes(9)])
    return masked(rng, 0x82, (10 + len(frame)).to_bytes(4, "big") + vnet + frame)


def last_message(rng: random.Random, version: int) -> bytes:
    """Return a message that ends the session."""
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


def rest(sock: socket.socket) -> bytes:
    """Read until the connection ends; return what came."""
    data = bytearray()
    with suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return bytes(data)


def attack(messages: int, handshakes: int, seconds: float, seed: int) -> dict[str, Any]:
    """Send that many messages and handshakes, evenly over the time if the server is fast enough."""
    rng = random.Random(seed)
    requests = [bad_request(rng) for _ in range(KINDS)]
    pools = {version: [bad_message(rng, version) for _ in range(KINDS)] for version in (1, 2)}
    sessions = messages // MESSAGES
    turns = ["session"] * sessions + ["handshake"] * handshakes
    rng.shuffle(turns)
    begun, wrongly_accepted, unserved = time.monotonic(), 0, 0
    for number, turn in enumerate(turns):
        time.sleep(max(0.0, begun + seconds * number / len(turns) - time.monotonic()))
        with connected() as sock, suppress(OSError):
            if turn == "handshake":
                sock.sendall(rng.choice(requests))
                if rng.randrange(8):
                    sock.shutdown(socket.SHUT_WR)
                    wrongly_accepted += accepted(rest(sock))
                continue
            version = rng.choice([1, 2])
            sock.sendall(request(LINES_V2 if version == 2 else LINES))
            answer = sock.recv(4096)
            unserved += not accepted(answer)
            sock.sendall(b"".join(rng.choices(pools[version], k=MESSAGES - 1)) + last_message(rng, version))
            sock.shutdown(socket.SHUT_WR)
            rest(sock)
    took = time.monotonic() - begun
    return {
        "seconds": took,
        "sessions": sessions,
        "broken handshakes accepted": wrongly_accepted,
        "sessions not served": unserved,
    }


def slow(seconds: float) -> dict[str, Any]:
    """Open the slow connections, send a byte a second on two thirds of them; return how many are open at the end."""
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
            # One third sends nothing at all.
            if number % 3:
                with suppress(OSError):
                    sock.send(text[at : at + 1])
        time.sleep(1)
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return {"held": SLOW - len(poll.poll(0))}


def connect() -> dict[str, Any]:
    """Connect normal clients, one after another; return the seconds until the 101."""
    took = []
    for _ in range(CLIENTS):
        begun = time.monotonic()
        with connected() as sock:
            sock.sendall(request(LINES))
            if not accepted(sock.recv(4096)):
                raise SystemExit("a client was refused")
            took.append(time.monotonic() - begun)
        time.sleep(0.1)
    return {"median": statistics.median(took), "worst": max(took)}


def main(role: str, *arguments: str) -> None:
    """Run one of the roles, and print its figures."""
    if role == "attack":
        messages, handshakes, seconds, seed = arguments
        found = attack(int(messages), int(handshakes), float(seconds), int(seed))
    else:
        found = slow(float(arguments[0])) if role == "slow" else connect()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
