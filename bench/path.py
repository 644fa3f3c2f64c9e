"""A long and lossy path between two network namespaces: ``path.py NAMESPACE_A NAMESPACE_B``, as root.

Makes a TUN `path0` in both namespaces, and carries IP packets between them. It loses some packets at random. The others
wait for a line of the given rate; a full buffer drops the newest packet. Then they are delayed. Both directions have
the same properties, and are independent. The caller sets addresses and routes. Prints "ready" when the TUNs exist, and
runs until SIGTERM or SIGINT.

The kernel's netem does the same, but many kernels do not have it. This carries 50,000 packets per second.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import select
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

DEVICE = "path0"
MTU = 1500
#: Seconds for which packets are collected. This needs far fewer wake-ups, and delays are wrong by at most this.
TICK = 0.0005
#: The most packets that are read from one end before the other end is read.
TURN = 64
#: The most seconds of a sleep, so that a signal that came just before the sleep is noticed.
NAP = 0.5

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Line:
    """The properties of a direction: seconds of delay, share that is lost, bytes per second, seconds of buffer."""

    delay: float
    loss: float
    rate: float
    buffer: float


class Direction:
    """The packets that travel in one direction. It uses no TUN and no clock: times are arguments."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._random = line, random.Random(seed).random
        # When the line will have sent all packets that it has.
        self._idle_at = 0.0
        self._travelling: deque[tuple[float, bytes]] = deque()

    def enter(self, packet: bytes, now: float) -> bool:
        """Take a packet at the time `now`; return False when it is lost."""
        line = self._line
        if self._random() < line.loss:
            return False
        begins = max(now, self._idle_at)
        if begins - now > line.buffer:
            return False
        self._idle_at = begins + len(packet) / line.rate
        self._travelling.append((self._idle_at + line.delay, packet))
        return True

    def due(self) -> float | None:
        """Return when the next packet arrives; None when there is none."""
        return self._travelling[0][0] if self._travelling else None

    def arrived(self, now: float) -> list[bytes]:
        """Remove and return the packets that have arrived by the time `now`, in order."""
        packets, travelling = [], self._travelling
        while travelling and travelling[0][0] <= now:
            packets.append(travelling.popleft()[1])
        return packets


def carry(ends: tuple[int, int], directions: tuple[Direction, Direction]) -> None:
    """Carry packets between two TUN descriptors without end. What is read from one goes into its direction."""
    ways = tuple(zip(ends, reversed(ends), directions, strict=True))
    while True:
        dues = [due for direction in directions if (due := direction.due()) is not None]
        pause = max(0.0, min(dues) - TICK - time.monotonic()) if dues else NAP
        select.select(ends, [], [], pause)
        woken = time.monotonic()
        time.sleep(TICK)
        now = time.monotonic()
        for source, target, direction in ways:
            # What arrived during the sleep counts from its begin. After a sleep that lasted too long on a busy machine,
            # this would make the delay too short, so it counts from TICK before the reading at the earliest.
            _read(source, direction, max(woken, time.monotonic() - TICK))
            for packet in direction.arrived(now):
                try:
                    os.write(target, packet)
                except OSError:
                    # The interface is down, or its queue is full. On a real path this is a loss too.
                    continue


def _read(source: int, direction: Direction, now: float) -> None:
    try:
        for _ in range(TURN):
            direction.enter(os.read(source, MTU), now)
    except OSError:
        # There is nothing to read, or the interface is down.
        return


def open_tun(namespace: str) -> int:
    """Make the TUN DEVICE in a namespace of `ip netns`; return its non-blocking descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(handle, CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), namespace)
    finally:
        os.close(handle)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def main(argv: Sequence[str] | None = None) -> int:
    """Carry packets until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench/path.py", description="A long and lossy path between two namespaces.")
    parser.add_argument("namespaces", nargs=2, metavar="NAMESPACE", help="as `ip netns` names it")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="of one way")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of the packets, at random")
    parser.add_argument("--rate", type=float, default=1000, metavar="MBIT", help="per second; default: 1000")
    parser.add_argument("--buffer", type=float, default=50, metavar="MS", help="before the line; default: 50")
    parser.add_argument("--seed", type=int, default=1, help="of the losses; default: 1")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    line = Line(options.delay / 1e3, options.loss / 100, options.rate * 1e6 / 8, options.buffer / 1e3)
    first, second = (open_tun(namespace) for namespace in options.namespaces)
    try:
        print("ready", flush=True)
        carry((first, second), (Direction(line, 2 * options.seed), Direction(line, 2 * options.seed + 1)))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
