"""Many light clients, and those who look at their server: ``watchers.py crowd|leaving|looking ...``, for observe.py.

A crowd of sessions of version 1 of the wire format is in one process. Each sends a frame a second, reads all that
comes, and answers pings. "leaving" joins and leaves again and again. "looking" has live pages open, some of which read
slowly, and scrapes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import crowd
from bench.counters import ask
from bench.light_session import BRIDGE, TYPE, join
from bench.raw_client import address, masked
from etherws.tunnel.frames import Opcode

#: Addresses of the crowd: a server lets so many join at once from one.
ADDRESSES = 40
#: Seconds between two frames of a session.
EVERY = 1.0
#: Bytes that a slow page reads at once, and seconds between two reads.
SLOW_BYTES, SLOW_SECONDS = 8192, 0.25
#: One of so many pages is slow.
SLOW_ONE_OF = 3
#: How politely those who look share the machine's cores: what is measured is the server (nice(2)).
NICE = 10


def serve_crowd(clients: int) -> None:
    """Join so many clients, print how long that took, and live until this process is stopped."""
    found, sockets = crowd.connect(clients, ADDRESSES)
    print(json.dumps(found), flush=True)
    poll, rng = select.epoll(), random.Random(1)
    open_ = {sock.fileno(): sock for sock in sockets}
    rests = dict.fromkeys(open_, b"")
    for descriptor in open_:
        poll.register(descriptor, select.EPOLLIN)
    # A frame of each, with a source of its own, so that the bridge learns it.
    frames = [
        masked(rng, 0x82, (BRIDGE + b"\x02\xee\x01\0" + number.to_bytes(2, "big") + TYPE.to_bytes(2, "big")).ljust(60))
        for number in range(clients)
    ]
    turn, due = 0, time.monotonic()
    while open_:
        for descriptor, _ in poll.poll(max(0.0, due - time.monotonic())):
            sock = open_[descriptor]
            data = sock.recv(1 << 18) if sock else b""
            if not data:
                # Kicked, or drained.
                poll.unregister(descriptor)
                open_.pop(descriptor).close()
                continue
            pings, rests[descriptor] = pings_in(rests[descriptor] + data)
            for payload in pings:
                _send(sock, masked(rng, 0x80 | Opcode.PONG, payload))
        if time.monotonic() >= due:
            due += EVERY / clients
            if sending := open_.get(sockets[turn].fileno()):
                _send(sending, frames[turn])
            turn = (turn + 1) % clients


def pings_in(data: bytes) -> tuple[list[bytes], bytes]:
    """The payloads of the pings in a server's bytes (RFC 6455, section 5.2), and the rest, which is no whole frame."""
    pings, at = [], 0
    while len(data) - at >= 2:
        size, head = data[at + 1] & 0x7F, 2
        if size > 125:
            length = 2 if size == 126 else 8
            size, head = int.from_bytes(data[at + 2 : at + 2 + length], "big"), 2 + length
        if len(data) - at < head + size:
            break
        if data[at] & 0xF == Opcode.PING:
            pings.append(data[at + head : at + head + size])
        at += head + size
    return pings, data[at:]


def _send(sock: socket.socket, data: bytes) -> None:
    # One that has no room is lost, and one that was ended is seen by its next recv().
    with contextlib.suppress(OSError):
        sock.send(data)


def leave_again(rate: int) -> None:
    """Join and leave so many times a second, until this process is stopped."""
    due, number, count = time.monotonic(), 0, 0
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        due, number = due + 1 / rate, (number + 1) % ADDRESSES
        with contextlib.suppress(OSError):
            join(address(number), False).close()
            count += 1


def look(control: Path, pages: int, path: str) -> None:
    """Have so many open, and ask each second for the others, until this process is stopped."""
    os.nice(NICE)
    read = [0] * pages
    for number in range(pages):
        threading.Thread(target=_page, args=(control, path, number, read), daemon=True).start()
    due = time.monotonic()
    while True:
        for asked in ("/metrics", "/status"):
            ask(control, asked)
        print(json.dumps({"read": read}), flush=True)
        due = max(due + 1, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _page(control: Path, path: str, number: int, read: list[int]) -> None:
    slow = number % SLOW_ONE_OF == SLOW_ONE_OF - 1
    while True:
        with contextlib.suppress(OSError):
            for data in stream(control, path, SLOW_BYTES if slow else 1 << 16):
                read[number] += len(data)
                if slow:
                    time.sleep(SLOW_SECONDS)
        # It was cut: as a browser, it comes again.
        time.sleep(1)


def stream(control: Path, path: str, size: int = 1 << 16) -> Iterator[bytes]:
    """The bytes of an answer without end, its head included, until the server ends it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(control))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while data := sock.recv(size):
            yield data


def main() -> None:
    """Be one of them."""
    match sys.argv[1:]:
        case ["crowd", clients]:
            serve_crowd(int(clients))
        case ["leaving", rate]:
            leave_again(int(rate))
        case ["looking", control, pages, path]:
            look(Path(control), int(pages), path)


if __name__ == "__main__":
    main()
