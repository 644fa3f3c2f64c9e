"""Many clients that connect at the same moment: ``crowd.py CLIENTS ADDRESSES``, for compare.py.

One process has a socket for each client; the sockets share that many source addresses. Each client sends an upgrade
request for version 1 of the wire format, and waits for the 101. Prints the seconds until the last 101 as JSON, and
keeps the connections open until it is stopped.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B
from bench.raw_client import LINES, PORT, accepted, address, request

#: Seconds until all clients must be connected.
LIMIT = 120.0
#: Seconds for which the connections stay open, if nobody stops the process.
KEEP = 120.0


def connect(clients: int, addresses: int) -> tuple[dict[str, Any], list[socket.socket]]:
    """Connect all clients; return the seconds and the connections. SystemExit when a client does not get its 101."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    text, poll = request(LINES), select.epoll()
    sockets = {}
    begun = time.monotonic()
    for number in range(clients):
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((address(number % addresses), 0))
        with suppress(BlockingIOError):
            sock.connect((OUTER_B, PORT))
        sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT)
    waiting = set(sockets)
    while waiting:
        if not (events := poll.poll(max(0.0, begun + LIMIT - time.monotonic()))):
            raise SystemExit(f"{len(waiting)} of {clients} clients are not connected after {LIMIT:.0f} s")
        for descriptor, event in events:
            sock = sockets[descriptor]
            if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                sock.send(text)
                poll.modify(sock, select.EPOLLIN)
                continue
            # Frames may come right behind it. They stay in the socket.
            answer = sock.recv(sock.recv(4096, socket.MSG_PEEK).find(b"\r\n\r\n") + 4)
            if not accepted(answer):
                raise SystemExit(f"a client was refused: {answer[:100]!r}")
            waiting.discard(descriptor)
            poll.unregister(sock)
    return {"seconds": time.monotonic() - begun}, [*sockets.values()]


if __name__ == "__main__":
    # The list keeps the connections open.
    found, kept = connect(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(found), flush=True)
    time.sleep(KEEP)
