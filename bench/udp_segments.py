"""UDP in super-frames: ``python bench/udp_segments.py``, as root.

A program gives the kernel 40 datagrams of 1,400 bytes at once (UDP_SEGMENT), as QUIC does, and waits when the other one
has not told that it got them. Measured is what arrives at another program, with super-frames in the tunnel and without:
for the latter, the kernel is told to cut them before the TAP of the sender. Both are measured in turn on the same
tunnel, once with a receiver that takes many datagrams at once (UDP_GRO), and once with one that takes them one by one.

The two programs are this one too: ``send ADDRESS PORT SECONDS SIZE COUNT WINDOW``, ``take ADDRESS PORT SECONDS SIZE
GRO``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import socket
import statistics
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, names, progress, up_to
from bench.lab import Lab, Namespace
from bench.pairs import lower_bound
from bench.peer import Peer
from bench.peers import Etherws
from bench.process import BenchError, absent_programs, wait_until
from bench.report import machine

#: linux/udp.h; the socket option's level is IPPROTO_UDP.
UDP_SEGMENT, UDP_GRO = 103, 104

#: Seconds before a flow is measured, and the port of the programs.
WARM_UP, FLOW_PORT = 0.5, 5202

#: Bytes that are on their way at most: more datagrams, one by one, would not fit into the TAP's queue of 1,000 packets.
WINDOW = 1 << 20

#: Seconds after which what is on its way counts as lost; how numbers are written.
LOST, NUMBER = 0.05, struct.Struct("=Q")

#: Bytes that the kernel keeps for the receiver; include/uapi/asm-generic/socket.h.
RECEIVE_BUFFER, SO_RCVBUFFORCE = 8 << 20, 33

#: include/uapi/linux/sockios.h, ethtool.h
SIOCETHTOOL, ETHTOOL_SFEATURES = 0x8946, 0x3B

#: The figures by receiver; of each round; by side, which is one of NAMES.
Rounds = dict[str, list[dict[str, dict[str, float]]]]

NAMES = {"with": "UDP super-frames", "without": "cut before the TAP"}


def send(address: str, port: int, seconds: float, size: int, count: int, ahead: int) -> None:
    """Send for that many seconds, and no more than `ahead` bytes ahead of what the receiver has told. Each datagram
    begins with its number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sock.connect((address, port))
        sock.settimeout(LOST)
        data, window = bytearray(size * count), ahead // size
        numbers, number, told = memoryview(data).cast("Q"), 0, 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            while number - told >= window:
                try:
                    told = max(told, NUMBER.unpack(sock.recv(NUMBER.size))[0])
                except OSError:
                    # What was on its way is lost, or the receiver is not there yet.
                    told = number
            numbers[:: size // 8] = array("Q", range(number, number + count))
            number += count
            # ENOBUFS: a queue is full; ECONNREFUSED: the receiver has ended.
            with contextlib.suppress(OSError):
                sock.send(data)


def take(address: str, port: int, seconds: float, size: int, gro: bool) -> None:
    """Receive for that many seconds, from the first datagram and WARM_UP on; print what came. Tell the sender how far
    it has come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        if gro:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sock.bind((address, port))
        sock.settimeout(10)
        buffer = memoryview(bytearray(65_536))
        words = buffer.cast("Q")
        sock.connect(sock.recvfrom_into(buffer)[1])
        found = {"calls": 0, "datagrams": 0, "late": 0, "cut": 0}
        last, told, step = words[0], 0, WINDOW // size // 8
        first, begin = -1, time.monotonic() + WARM_UP
        while (now := time.monotonic()) < begin + seconds:
            length = sock.recv_into(buffer)
            counted, late = now >= begin, 0
            if counted and first < 0:
                first = last
            numbers = words[: length // 8 : size // 8].tolist()
            if numbers == list(range(last + 1, last + 1 + len(numbers))):
                last = numbers[-1]
            else:
                # Some are late, or some before them are lost.
                for number in numbers:
                    late += number <= last
                    last = max(last, number)
            if counted:
                found["calls"] += 1
                found["datagrams"] += len(numbers)
                found["late"] += late
                # All are of one length.
                found["cut"] += bool(length % size)
            if last - told >= step:
                told = last
                with contextlib.suppress(OSError):
                    sock.send(NUMBER.pack(last))
        print(json.dumps({**found, "expected": last - first, "seconds": seconds}))


def let_through(namespace: Namespace, device: str, *, whole: bool) -> None:
    """Have the kernel give the interface UDP super-frames as they are, or cut them before."""
    namespace.run(sys.executable, __file__, "feature", device, "1" if whole else "0")


def set_feature(device: str, value: int) -> None:
    """Set tx-udp-segmentation of an interface in this namespace, by its number (netdev_features.h)."""
    bit = feature_number(device, b"tx-udp-segmentation")
    blocks = bit // 32 + 1
    words = [
        part for at in range(blocks) for part in ((1 << bit % 32, value << bit % 32) if at == bit // 32 else (0, 0))
    ]
    ethtool(device, struct.pack(f"II{2 * blocks}I", ETHTOOL_SFEATURES, blocks, *words))


def feature_number(device: str, name: bytes) -> int:
    """The number of a feature in this kernel, by its strings (ETHTOOL_GSTRINGS, of the set 4)."""
    count = struct.unpack_from("I", ethtool(device, struct.pack("IIQI", 0x37, 0, 1 << 4, 0)), 16)[0]
    strings = ethtool(device, struct.pack("III", 0x1B, 4, count) + bytes(32 * count))[12:]
    found = [strings[at : at + 32].rstrip(b"\0") for at in range(0, 32 * count, 32)]
    if name not in found:
        raise BenchError(f"{device}: this kernel has no {name.decode()}")
    return found.index(name)


def ethtool(device: str, data: bytes) -> bytes:
    """What the kernel answers to this command."""
    value = ctypes.create_string_buffer(data, len(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), ctypes.addressof(value)))
    return value.raw


def measure(peer: Peer, lab: Lab, options: argparse.Namespace, *, gro: bool, window: int) -> dict[str, float]:
    """What one receiver gets from one sender, client to server, and the CPU that both ends of the tunnel use."""
    seconds = str(options.seconds)
    taking = (
        sys.executable,
        __file__,
        "take",
        peer.address_b,
        str(FLOW_PORT),
        seconds,
        str(options.size),
        str(int(gro)),
    )
    # It is stopped below. If we are killed, it ends after this time.
    sending = (str(WARM_UP + options.seconds + 5), str(options.size), str(options.count), str(window))
    with lab.b.running(*taking) as taker:
        wait_until(lambda: taker.listens(FLOW_PORT), "the receiver")
        used = -peer.cpu()
        with lab.a.running(sys.executable, __file__, "send", peer.address_b, str(FLOW_PORT), *sending):
            output = taker.output(WARM_UP + options.seconds + 20)
        used += peer.cpu()
    try:
        found = json.loads(output)
    except ValueError as exc:
        raise BenchError(f"{peer.name}: the receiver got nothing: {output}") from exc
    carried = found["datagrams"] * options.size / 1e9
    return {
        "rate": found["datagrams"] * options.size * 8e-6 / found["seconds"],
        "arrived": found["datagrams"] / max(1, found["expected"]),
        "late": found["late"] / max(1, found["datagrams"]),
        "wrong lengths": found["cut"],
        "datagrams a call": found["datagrams"] / max(1, found["calls"]),
        "cpu": used / max(1e-9, carried) * found["seconds"] / (found["seconds"] + WARM_UP),
    }


def run(options: argparse.Namespace) -> Rounds:
    """All rounds; the figures by scheme, receiver and side."""
    rounds: Rounds = {}
    steps, done = len(options.schemes) * options.rounds * 4, 0
    with Lab() as lab:
        for number, scheme in enumerate(options.schemes):
            peer = Etherws(scheme, number, tls=scheme == "wss")
            try:
                peer.start(lab)
                peer.answers(lab)
                for turn in range(options.rounds):
                    for gro in (True, False):
                        pair: dict[str, dict[str, float]] = {}
                        for side in sorted(NAMES, reverse=turn % 2 == 1):
                            done += 1
                            progress(done, steps, f"{scheme}, {NAMES[side]}")
                            let_through(lab.a, peer.device, whole=side == "with")
                            window = options.window << 20 if side == "with" else WINDOW
                            pair[side] = measure(peer, lab, options, gro=gro, window=window)
                        rounds.setdefault(f"{scheme}, receiver {'with' if gro else 'without'} UDP_GRO", []).append(pair)
            finally:
                peer.stop()
    return rounds


def show(rounds: Rounds) -> None:
    """Print a table: medians, and of the rates the ratio with its lower bound."""
    for name, pairs in rounds.items():
        ratios = [pair["with"]["rate"] / pair["without"]["rate"] for pair in pairs]
        bound = lower_bound(ratios)
        more = f", lower 95 % bound {bound:.2f}" if bound else ""
        print(f"{name}: {statistics.median(ratios):.2f} times the rate ({min(ratios):.2f} to {max(ratios):.2f}{more})")
        for side, words in NAMES.items():
            figures = {key: statistics.median(pair[side][key] for pair in pairs) for key in pairs[0][side]}
            print(
                f"  {words:20} {figures['rate']:8.0f} Mbit/s  {figures['arrived']:6.1%} of what was sent arrives,"
                f" {figures['late']:.2%} of that late, {figures['wrong lengths']:.0f} wrong lengths;"
                f" {figures['datagrams a call']:.1f} datagrams a call; {figures['cpu']:.2f} CPU s/GB"
            )


def eights(text: str) -> int:
    """An argparse type: bytes of a datagram. Numbers of eight bytes are at the beginning of each."""
    size = up_to(1472)(text)
    if size % 8:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 8")
    return size


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark, or one of its programs."""
    if arguments[:1] == ["send"]:
        send(arguments[1], int(arguments[2]), float(arguments[3]), *map(int, arguments[4:7]))
        return 0
    if arguments[:1] == ["take"]:
        take(arguments[1], int(arguments[2]), float(arguments[3]), int(arguments[4]), arguments[5] == "1")
        return 0
    if arguments[:1] == ["feature"]:
        set_feature(arguments[1], int(arguments[2]))
        return 0
    parser = argparse.ArgumentParser(description="UDP super-frames and the same datagrams one by one. Needs root.")
    parser.add_argument("--schemes", type=names(("ws", "wss")), default=["ws"], help="ws, wss; default: ws")
    parser.add_argument("--rounds", type=up_to(100), default=5, help="pairs; default: 5")
    parser.add_argument("--seconds", type=duration, default=3, help="of one measurement; default: 3")
    parser.add_argument("--size", type=eights, default=1400, help="bytes of a datagram, in eights; default: 1400")
    parser.add_argument("--count", type=up_to(128), default=40, help="datagrams of one call; default: 40")
    help_text = "MiB of super-frames that are on their way at most; default: 1, as for datagrams one by one"
    parser.add_argument("--window", type=up_to(8), default=1, help=help_text)
    parser.add_argument("--json", help="a file for the figures of each round")
    options = parser.parse_args(arguments)
    if cannot_run(*absent_programs("ip", "ping")):
        return 2
    try:
        rounds = run(options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    print(", ".join(machine().values()))
    show(rounds)
    if options.json:
        Path(options.json).write_text(json.dumps(rounds, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
