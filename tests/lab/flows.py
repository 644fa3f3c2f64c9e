"""Flows of numbered UDP datagrams in frames: which arrive, in which order, and by which queue of a TAP."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from gevent import socket

from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import COMPLETE, VNET_BYTES, Batch
from tests.lab.frames import PEER, SOURCE
from tests.lab.hosts import Host
from tests.lab.packets import UDP, ipv4, udp

#: The ports of the two ends, beside the flow's number; and where ports and number are in a frame.
_PORTS, _FIELDS = (5000, 6000), struct.Struct(">HHHHI")

_AT = 34


def datagram(flow: int, number: int, *, back: bool = False, size: int = 60) -> bytes:
    """Datagram `number` of a flow, in a frame of `size` bytes or more; one from its other end with `back`."""
    ports = [port + flow for port in _PORTS]
    addresses, macs = [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))], [SOURCE, PEER]
    if back:
        ports.reverse()
        addresses.reverse()
        macs.reverse()
    payload = udp(ports[0], ports[1], number.to_bytes(4, "big").ljust(size - _AT - 8, b"\0"))
    return macs[1] + macs[0] + b"\x08\x00" + ipv4(UDP, payload, source=addresses[0], to=addresses[1])


def packet(flow: int, number: int, *, back: bool = False) -> bytes:
    """The datagram as it is written to a TAP."""
    return COMPLETE + datagram(flow, number, back=back)


def read(frame: bytes | memoryview) -> tuple[int, int] | None:
    """The flow and the number of a datagram; None for another frame."""
    frame = bytes(frame)
    if len(frame) < _AT + _FIELDS.size or frame[6:12] not in (SOURCE, PEER) or frame[12:14] != b"\x08\x00":
        return None
    sender, receiver, *_, number = _FIELDS.unpack_from(frame, _AT)
    return min(sender, receiver) - _PORTS[0], number


def waiting(tap: Tap) -> list[tuple[int, int]]:
    """The datagrams that wait in this queue of a TAP, taken out of it."""
    batch, found = Batch(), []
    while tap.poll_batch(batch):
        found += [each for start, end in batch.spans if (each := read(batch.view[start + VNET_BYTES : end]))]
    return found


class Wire:
    """What a machine sends and receives by an interface."""

    def __init__(self, host: Host, name: str) -> None:
        with host.namespace.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.bind((name, 3))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        host.keep(self._socket)

    def send(self, flow: int, number: int, *, back: bool = False, size: int = 60) -> None:
        """Send one datagram."""
        self._socket.send(datagram(flow, number, back=back, size=size))

    def receive(self, count: int) -> list[tuple[int, int]]:
        """So many datagrams that came, not those that were sent. Blocks this greenlet."""
        found: list[tuple[int, int]] = []
        while len(found) < count:
            frame, (_, _, kind, *_) = self._socket.recvfrom(2000)
            if kind != socket.PACKET_OUTGOING and (each := read(frame)):
                found.append(each)
        return found


def queue_of(queues: Sequence[Tap]) -> dict[int, int]:
    """By which queue each flow goes whose datagrams wait now. A flow that waits in two queues is an error."""
    found: dict[int, int] = {}
    for place, tap in enumerate(queues):
        for flow, _ in waiting(tap):
            assert found.setdefault(flow, place) == place, f"flow {flow} is in two queues"
    return found
