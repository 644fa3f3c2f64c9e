"""Sends datagrams through every tunnel of a fleet, and records when each was answered: for cuts.py and soak.py."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from itertools import pairwise

from bench.fleet import INNER_B, Fleet, inside
from bench.lab import Lab
from bench.process import wait_until

#: The UDP port in b that returns each datagram.
ECHO = 7
#: Seconds between two datagrams to a tunnel: the resolution of the times that are measured.
TICK = 0.02


class Prober:
    """Sends a datagram through each tunnel fifty times a second, from a thread of its own."""

    _STAMP = struct.Struct("=Hd")

    def __init__(self, lab: Lab, fleet: Fleet) -> None:
        self._stop = threading.Event()
        self._sockets, self._answers = [], [list[tuple[float, float]]() for _ in fleet.clients]
        for namespace, address in ((lab.b, (INNER_B, ECHO)), *((each.namespace, None) for each in fleet.clients)):
            with inside(namespace):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            if address:
                sock.bind(address)
            self._sockets.append(sock)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def answered(self, number: int, since: float) -> float | None:
        """Return when the first answer came to a datagram that this client sent after `since`; None without an answer.

        Both times are of time.monotonic().
        """
        # The other thread may append to it at the same time.
        for sent, received in self._answers[number].copy():
            if sent > since:
                return received
        return None

    def wait_for_all(self) -> None:
        """Wait until every tunnel carries. Raises BenchError if one does not."""
        since = time.monotonic()
        numbers = range(len(self._answers))
        wait_until(lambda: all(self.answered(number, since) for number in numbers), "every tunnel to carry")

    def silence(self, number: int, since: float) -> float:
        """Return the longest time without an answer for this client since then, until its last answer, in seconds."""
        answers = [received for _, received in self._answers[number].copy() if received > since]
        return max((later - one for one, later in pairwise([since, *answers])), default=0.0)

    def forget(self, number: int) -> None:
        """Forget the answers that this client has had."""
        self._answers[number].clear()

    def _run(self) -> None:
        echo, *senders = self._sockets
        due = time.monotonic()
        poll = select.epoll()
        numbers = {sock.fileno(): number for number, sock in enumerate(senders)}
        for sock in self._sockets:
            poll.register(sock, select.EPOLLIN)
        while not self._stop.is_set():
            if (now := time.monotonic()) >= due:
                due = max(due + TICK, now)
                for number, sock in enumerate(senders):
                    # An interface that is down or a missing neighbour is what we measure, not a failure.
                    with suppress(OSError):
                        sock.sendto(self._STAMP.pack(number, now), (INNER_B, ECHO))
            for descriptor, _ in poll.poll(max(0.0, due - time.monotonic())):
                with suppress(OSError):
                    if descriptor == echo.fileno():
                        echo.sendto(*echo.recvfrom(64))
                    else:
                        number = numbers[descriptor]
                        _, sent = self._STAMP.unpack(senders[number].recv(64))
                        self._answers[number].append((sent, time.monotonic()))
        poll.close()
