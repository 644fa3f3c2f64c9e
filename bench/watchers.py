"""Clients that come and go, and those who look at their server: ``watchers.py leaving|looking ...``, for observe.py.

"leaving" joins and leaves again and again. "looking" has live pages open, some of which read slowly, and scrapes. The
clients that stay are those of load.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.counters import ask
from bench.crowd import ADDRESSES
from bench.light_session import join
from bench.raw_client import address

#: Bytes that a slow page reads at once, and seconds between two reads.
SLOW_BYTES, SLOW_SECONDS = 8192, 0.25
#: One of so many pages is slow.
SLOW_ONE_OF = 3
#: How politely those who look share the machine's cores: what is measured is the server (nice(2)).
NICE = 10


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
        case ["leaving", rate]:
            leave_again(int(rate))
        case ["looking", control, pages, path]:
            look(Path(control), int(pages), path)


if __name__ == "__main__":
    main()
