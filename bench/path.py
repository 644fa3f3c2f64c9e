"""A long, slow or bad path between two network namespaces: ``path.py NAMESPACE_A NAMESPACE_B``, as root.

Makes a TUN `path0` in both namespaces, and carries IP packets between them. Some packets are lost at random, or all of
them for a while. The others wait for a line of the given rate, which may change while it runs; a full buffer drops the
newest packet. A policer drops what is too fast, and has no buffer. Then packets are delayed, some of them for longer.
Both directions have the same properties, and are independent. The caller sets addresses and routes. Prints "ready" when
the TUNs exist, and runs until SIGTERM or SIGINT. SIGUSR1 begins the times of --rates and --bursts, again each time.

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
#: Bytes per second.
MBIT = 1e6 / 8

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Line:
    """The properties of a direction: seconds of delay, share that is lost, bytes per second, seconds of buffer.

    The others are for bad paths. The buffer has a fixed number of bytes: seconds at the first rate.
    """

    delay: float
    loss: float
    rate: float
    buffer: float
    #: The share of packets that take `late` seconds longer than the others, so that others overtake them.
    reorder: float = 0.0
    late: float = 0.0
    #: Each `burst_every` seconds all packets are lost for `burst` seconds, first after `burst_every`.
    burst_every: float = 0.0
    burst: float = 0.0
    #: If not 0, there is a policer instead of the line: a token bucket of so many bytes, filled at the rate.
    policer: float = 0.0
    #: Pairs: from that second on, this rate in bytes per second.
    rates: tuple[tuple[float, float], ...] = ()


class Direction:
    """The packets that travel in one direction. It uses no TUN and no clock: times are arguments."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._random = line, random.Random(seed).random
        self._rate, self._depth = line.rate, line.buffer * line.rate
        # When the line will have sent all packets that it has.
        self._idle_at = 0.0
        # The packets in the order of their arrival, with its time; and those that take longer.
        self._travelling: deque[tuple[float, bytes]] = deque()
        self._late: deque[tuple[float, bytes]] = deque()
        # What the policer lets through at once, in bytes, and when this was calculated.
        self._tokens, self._filled = line.policer, 0.0
        # Before the begin, the first rate is used, and no bursts are lost.
        self._begun: float | None = None
        self._changes: deque[tuple[float, float]] = deque()

    def begin(self, now: float) -> None:
        """Count the times of the rates and of the bursts from now on, with the first rate."""
        self._begun = now
        self._change(self._line.rate, now)
        self._changes = deque((now + after, rate) for after, rate in self._line.rates)

    def advance(self, now: float) -> None:
        """Change the rate if it is time. The caller does this before it calls the other methods."""
        while self._changes and self._changes[0][0] <= now:
            at, rate = self._changes.popleft()
            self._change(rate, at)

    def _change(self, rate: float, now: float) -> None:
        """From now on, the line has this rate, also for packets that wait for it."""
        stretch, delay = self._rate / rate, self._line.delay
        self._fill(now)
        self._rate = rate
        if self._idle_at <= now:
            return
        self._idle_at = now + (self._idle_at - now) * stretch
        for waiting, after in ((self._travelling, delay), (self._late, delay + self._line.late)):
            for number, (due, packet) in enumerate(waiting):
                if (left := due - after - now) > 0:
                    waiting[number] = now + left * stretch + after, packet

    def enter(self, packet: bytes, now: float) -> bool:
        """Take a packet at the time `now`; return False when it is lost."""
        line = self._line
        if self._random() < line.loss or (line.burst and self._in_burst(now)):
            return False
        if line.policer:
            self._fill(now)
            if self._tokens < len(packet):
                return False
            self._tokens -= len(packet)
            leaves = now
        else:
            begins = max(now, self._idle_at)
            if (begins - now) * self._rate > self._depth:
                return False
            leaves = self._idle_at = begins + len(packet) / self._rate
        if line.reorder and self._random() < line.reorder:
            self._late.append((leaves + line.delay + line.late, packet))
        else:
            self._travelling.append((leaves + line.delay, packet))
        return True

    def _in_burst(self, now: float) -> bool:
        if self._begun is None or (since := now - self._begun) < self._line.burst_every:
            return False
        return since % self._line.burst_every < self._line.burst

    def _fill(self, now: float) -> None:
        """Give the policer the tokens of the time since the last call."""
        self._tokens = min(self._line.policer, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now

    def due(self) -> float | None:
        """Return when the next packet arrives; None when there is none."""
        return min((queue[0][0] for queue in (self._travelling, self._late) if queue), default=None)

    def arrived(self, now: float) -> list[bytes]:
        """Remove and return the packets that have arrived by the time `now`, in the order of their arrival."""
        packets, travelling, late = [], self._travelling, self._late
        while late and late[0][0] <= now:
            while travelling and travelling[0][0] <= late[0][0]:
                packets.append(travelling.popleft()[1])
            packets.append(late.popleft()[1])
        while travelling and travelling[0][0] <= now:
            packets.append(travelling.popleft()[1])
        return packets


class Begin:
    """When the times of the directions have to begin anew; None when no signal came since the last begin."""

    def __init__(self) -> None:
        self.at: float | None = None

    def want(self, *_: object) -> None:
        """Note the time; a handler of signals. The directions may be in use, so it does not change them."""
        self.at = time.monotonic()


def carry(ends: tuple[int, int], directions: tuple[Direction, Direction], begin: Begin) -> None:
    """Carry packets between two TUN descriptors without end. What is read from one goes into its direction."""
    ways = tuple(zip(ends, reversed(ends), directions, strict=True))
    while True:
        dues = [due for direction in directions if (due := direction.due()) is not None]
        pause = max(0.0, min(dues) - TICK - time.monotonic()) if dues else NAP
        select.select(ends, [], [], pause)
        woken = time.monotonic()
        time.sleep(TICK)
        now = time.monotonic()
        if begin.at is not None:
            begun, begin.at = begin.at, None
            for direction in directions:
                direction.begin(begun)
        for source, target, direction in ways:
            direction.advance(now)
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


def _numbers(text: str) -> tuple[float, float]:
    """An argparse type: two positive numbers with a colon between them."""
    first, second = map(float, text.split(":"))
    if not (first > 0 and second > 0):
        raise ValueError
    return first, second


def _rates(text: str) -> tuple[tuple[float, float], ...]:
    """An argparse type: seconds and Mbit/s, in the order of time."""
    return tuple(sorted(_numbers(pair) for pair in text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    """Carry packets until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench/path.py", description="A long, slow or bad path between two namespaces."
    )
    parser.add_argument("namespaces", nargs=2, metavar="NAMESPACE", help="as `ip netns` names it")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="of one way")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of the packets, at random")
    parser.add_argument("--rate", type=float, default=1000, metavar="MBIT", help="per second; default: 1000")
    parser.add_argument("--buffer", type=float, default=50, metavar="MS", help="before the line; default: 50")
    parser.add_argument("--reorder", type=float, default=0, metavar="PERCENT", help="of the packets take longer")
    parser.add_argument("--late", type=float, default=5, metavar="MS", help="so much longer; default: 5")
    parser.add_argument("--policer", type=float, default=0, metavar="KB", help="drops what is faster; no buffer")
    text = "from SIGUSR1 on: at these seconds these rates"
    parser.add_argument("--rates", type=_rates, default=(), metavar="S:MBIT,...", help=text)
    text = "from SIGUSR1 on: each so many seconds nothing arrives for so many ms"
    parser.add_argument("--bursts", type=_numbers, default=(0.0, 0.0), metavar="S:MS", help=text)
    parser.add_argument("--seed", type=int, default=1, help="of the losses; default: 1")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = Begin()
    signal.signal(signal.SIGUSR1, begin.want)
    line = Line(
        options.delay / 1e3,
        options.loss / 100,
        options.rate * MBIT,
        options.buffer / 1e3,
        reorder=options.reorder / 100,
        late=options.late / 1e3,
        burst_every=options.bursts[0],
        burst=options.bursts[1] / 1e3,
        policer=options.policer * 1e3,
        rates=tuple((after, rate * MBIT) for after, rate in options.rates),
    )
    first, second = (open_tun(namespace) for namespace in options.namespaces)
    try:
        print("ready", flush=True)
        directions = Direction(line, 2 * options.seed), Direction(line, 2 * options.seed + 1)
        carry((first, second), directions, begin)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
