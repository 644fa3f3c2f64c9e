"""A long and lossy path between two network namespaces: ``path.py NAMESPACE_A NAMESPACE_B``, as root.

Makes a TUN of the name `path0` in both namespaces, and carries IP packets from the one to the other: some are lost at
random, the others wait their turn on a line of the given rate, where a full buffer drops what comes last, and then
travel for the given delay. Both directions are alike and independent. Addresses and routes are the caller's. Prints
"ready" when the TUNs are there, and runs until SIGTERM or SIGINT.

The kernel's netem does all this, but is missing from many kernels. This carries 50,000 packets a second.
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
#: Seconds in which packets gather: far fewer wake-ups than packets, for delays that are wrong by that at most.
TICK = 0.0005
#: Packets read from one end before the other has its turn.
TURN = 64
#: Seconds to sleep at most, so that a signal that came just before the sleep is seen.
NAP = 0.5

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Line:
    """What one direction is like: seconds of delay, share that is lost, bytes a second, seconds of buffer."""

    delay: float
    loss: float
    rate: float
    buffer: float


class Direction:
    """The packets on their way from one TUN to the other. Knows nothing of TUNs or clocks: times are arguments."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._random = line, random.Random(seed).random
        # When the line has sent what it was given.
        self._idle_at = 0.0
        self._travelling: deque[tuple[float, bytes]] = deque()

    def enter(self, packet: bytes, now: float) -> bool:
        """Take a packet at the time `now`; False when it is lost."""
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
        """When the next packet arrives; None when none is under way."""
        return self._travelling[0][0] if self._travelling else None

    def arrived(self, now: float) -> list[bytes]:
        """Take out those that have arrived by the time `now`, in order."""
        packets, travelling = [], self._travelling
        while travelling and travelling[0][0] <= now:
            packets.append(travelling.popleft()[1])
        return packets


def carry(ends: tuple[int, int], directions: tuple[Direction, Direction]) -> None:
    """Carry packets between two descriptors, each of which is read into its direction, for ever."""
    ways = tuple(zip(ends, reversed(ends), directions, strict=True))
    while True:
        dues = [due for direction in directions if (due := direction.due()) is not None]
        pause = max(0.0, min(dues) - TICK - time.monotonic()) if dues else NAP
        select.select(ends, [], [], pause)
        woken = time.monotonic()
        time.sleep(TICK)
        now = time.monotonic()
        for source, target, direction in ways:
            _read(source, direction, woken)
            for packet in direction.arrived(now):
                try:
                    os.write(target, packet)
                except OSError:
                    # The interface is down, or its queue full: on a path that is a loss too.
                    continue


def _read(source: int, direction: Direction, now: float) -> None:
    try:
        for _ in range(TURN):
            direction.enter(os.read(source, MTU), now)
    except OSError:
        # Nothing is left, or the interface is down.
        return


def open_tun(namespace: str) -> int:
    """A TUN of the name DEVICE in a namespace as named by `ip netns`, up; returns its non-blocking descriptor."""
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
    """Carry until told to end."""
    parser = argparse.ArgumentParser(prog="bench/path.py", description="A long and lossy path between two namespaces.")
    parser.add_argument("namespaces", nargs=2, metavar="NAMESPACE", help="as `ip netns` names it")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="of one way")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of the packets, at random")
    parser.add_argument("--rate", type=float, default=1000, metavar="MBIT", help="per second; 1000 unless told")
    parser.add_argument("--buffer", type=float, default=50, metavar="MS", help="before the line; 50 unless told")
    parser.add_argument("--seed", type=int, default=1, help="of the losses; 1 unless told")
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
