"""A light honest session beside an attack, and honest clients that join meanwhile: for hostile.py.

LightSession sends a small frame a hundred times a second through a session of its own, to the bridge of the server's
host, and measures how long each takes. Joiner opens a new session again and again. Both run in threads of the
benchmark, with a higher priority: what is measured is the server, not this process.
"""

from __future__ import annotations

import os
import random
import select
import socket
import ssl
import statistics
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pyroute2 import netns

from bench.fleet import inside
from bench.lab import Lab
from bench.raw_client import LINES, accepted, connected, masked, request

#: The address of the server's bridge, which the benchmark sets, our own, and an Ethernet type for experiments (IEEE
#: 802); hostile_frames.py uses the other one.
BRIDGE, OWN, TYPE = bytes.fromhex("02ee000000b0"), bytes.fromhex("02ee00000065"), 0x88B5
#: Seconds between two frames: 100 a second.
TICK = 0.01
#: Seconds in which the last frames of a measurement must arrive.
LATE = 20.0
#: Seconds between two clients that join.
JOIN_EVERY = 0.2
#: The priority of our threads (nice(2)).
PRIORITY = -10
#: asm-generic/socket.h: the kernel notes when a packet came, by CLOCK_REALTIME.
SO_TIMESTAMPNS = 35

#: Behind the Ethernet header: the number of the frame, and when it was made, in ns.
_STAMP = struct.Struct("=QQ")
_HEADER = BRIDGE + OWN + TYPE.to_bytes(2, "big")


def join(source: str, tls: bool, *lines: bytes) -> socket.socket:
    """Return a session of version 1, made by a request with these additional lines. Raises OSError when refused."""
    sock = connected(source)
    try:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        sock.sendall(request([*LINES, *lines]))
        if not accepted(sock.recv(4096)):
            raise ConnectionRefusedError("no 101")
        return sock
    except BaseException:
        sock.close()
        raise


class _Thread:
    """Runs in the namespace a of the lab until the block ends."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._stop = lab, threading.Event()
        self._thread = threading.Thread(target=self._enter, daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LATE)

    def _enter(self) -> None:
        # Both are of this thread alone.
        netns.setns(self._lab.a.name)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        self._run()

    def _run(self) -> None:
        raise NotImplementedError


class LightSession(_Thread):
    """Sends and measures. `lost` counts how often its session was lost."""

    def __init__(self, lab: Lab, opened: Callable[[], socket.socket], bridge: str) -> None:
        """`opened` makes a session; `bridge` is the name of the bridge in namespace b."""
        super().__init__(lab)
        self.lost, self._opened = 0, opened
        self._sent, self._arrived = 0, dict[int, float]()
        with inside(lab.b):
            self._far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TYPE))
            self._far.bind((bridge, TYPE))
        self._far.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._far.setblocking(False)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._far.close()

    def sent(self) -> int:
        """Return how many frames were sent so far: the beginning or the end of a measurement."""
        return self._sent

    def works(self) -> bool:
        """Return whether a frame has arrived."""
        return bool(self._arrived)

    def times(self, begin: int, end: int) -> list[float]:
        """Return what each of the frames from `begin` on and before `end` took, in ms; nothing for one that never
        arrived."""
        deadline = time.monotonic() + LATE
        while time.monotonic() < deadline and not all(number in self._arrived for number in range(begin, end)):
            time.sleep(TICK)
        return [self._arrived[number] for number in range(begin, end) if number in self._arrived]

    def latency(self, begin: int, end: int) -> dict[str, float | None]:
        """Return the median, the 99th percentile and the worst of those frames, in ms, and how many never arrived."""
        times = self.times(begin, end)
        found: dict[str, float | None] = {"median": None, "p99": None, "worst": None, "lost": end - begin - len(times)}
        if len(times) > 1:
            p99 = statistics.quantiles(times, n=100, method="inclusive")[-1]
            found |= {"median": statistics.median(times), "p99": p99, "worst": max(times)}
        return found

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError), self._opened() as sock:
                sock.setblocking(False)
                self._use(sock)
            self.lost += not self._stop.is_set()

    def _use(self, sock: socket.socket) -> None:
        """Send and receive until the session is lost."""
        rng, due = random.Random(4), time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= due:
                due = max(due + TICK, time.monotonic())
                frame = (_HEADER + _STAMP.pack(self._sent, time.time_ns())).ljust(60, b"\0")
                # One that the socket has no room for is one that is lost.
                self._sent += 1
                with suppress(BlockingIOError, ssl.SSLWantWriteError):
                    sock.sendall(masked(rng, 0x82, frame))
            ready, _, _ = select.select([sock, self._far], [], [], max(0.0, due - time.monotonic()))
            if self._far in ready:
                self._take()
            if sock in ready:
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    if not sock.recv(65536):
                        return

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, extra, _, _ = self._far.recvmsg(64, 64)
                seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
                number, made = _STAMP.unpack_from(data, len(_HEADER))
                self._arrived[number] = (seconds * 1_000_000_000 + nanoseconds - made) / 1e6


class Joiner(_Thread):
    """New honest clients, one after another, while `on` is true; `results` has the seconds of each, None if refused."""

    def __init__(self, lab: Lab, opened: Callable[[], socket.socket]) -> None:
        super().__init__(lab)
        self.on, self.results = False, list[float | None]()
        self._opened, self._idle = opened, threading.Event()

    def finished(self) -> list[float | None]:
        """Return the results when the client that is under way has ended."""
        self._idle.wait(LATE)
        return self.results

    def _run(self) -> None:
        while not self._stop.wait(JOIN_EVERY):
            if not self.on:
                self._idle.set()
                continue
            self._idle.clear()
            begun, took = time.monotonic(), None
            with suppress(OSError), self._opened() as sock:
                took = time.monotonic() - begun
                sock.sendall(masked(random.Random(5), 0x88, b"\x03\xe8"))
                # Until the server has ended it too.
                sock.settimeout(1)
                while sock.recv(65536):
                    pass
            self.results.append(took)
