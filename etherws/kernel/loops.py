"""Finds loops in what a bridge tells of the addresses that it learns: one address that moves between two ports again
and again, since the same frame comes in by one and by the other.

A machine that migrates moves once. So does one that goes from one radio to another. Pure. Read next: loop_watch.py,
which listens and warns. Sources: rtnetlink(7), include/uapi/linux/neighbour.h, Linux net/bridge/br_fdb.c.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple, TypeVar

from etherws.kernel import netlink

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29

#: include/linux/socket.h; include/uapi/linux/neighbour.h
AF_BRIDGE = 7
NUD_PERMANENT = 0x80
NDA_LLADDR, NDA_VLAN, NDA_MASTER = 2, 5, 9

#: struct ndmsg: the family, the port's index, the state, flags and type.
_ENTRY = struct.Struct("=BxxxiHBB")

#: Bytes of an Ethernet address.
_ADDRESS = 6

#: So many moves of one address between the same two ports in so many seconds are a loop. A loop makes thousands in a
#: second. A machine that migrates makes one, or two if it goes back.
MOVES, WITHIN = 5, 10.0

#: Seconds without a move after which a loop is over.
QUIET = 10.0

#: How many addresses are remembered, and how many of their ways. A loop repeats the same few addresses, and a stranger
#: who sends from ever new ones must not fill the memory.
REMEMBERED = 1024

#: How many loops are followed at a time.
LOOPS_MAX = 64


class Loop(NamedTuple):
    """An address, "02:00:00:00:00:01", that moves between two ports of a bridge; these are indexes of interfaces."""

    bridge: int
    ports: tuple[int, int]
    address: str


class Loops:
    """Reads the notifications, in the order of their coming."""

    def __init__(self, ours: Callable[[], Container[int]]) -> None:
        """`ours` returns the indexes of our ports. A loop through none of them is left to others."""
        self._ours = ours
        #: The bridge that each port is in, as far as that was told. Only the last REMEMBERED ports.
        self.bridges: OrderedDict[int, int] = OrderedDict()
        self._ports: OrderedDict[tuple[int, int, bytes], int] = OrderedDict()
        self._moves: OrderedDict[tuple[Loop, int], deque[float]] = OrderedDict()
        #: When the last move was seen between the ports of each loop that goes on.
        self._last: dict[Loop, float] = {}

    @property
    def active(self) -> bool:
        """Whether a loop goes on."""
        return bool(self._last)

    def is_active_in(self, bridge: int) -> bool:
        """Whether a loop goes on in this bridge."""
        return any(loop.bridge == bridge for loop in self._last)

    def read(self, data: bytes, now: float) -> Iterator[Loop]:
        """Read messages that came at `now`, in seconds; return the loops that begin."""
        for kind, _, _, body, _ in netlink.messages(data):
            if kind not in (RTM_NEWNEIGH, RTM_DELNEIGH) or len(body) < _ENTRY.size:
                continue
            family, port, state, _, _ = _ENTRY.unpack_from(body)
            found = dict(netlink.attributes(body[_ENTRY.size :]))
            bridge, address = _number(found.get(NDA_MASTER)), bytes(found.get(NDA_LLADDR, b""))
            # Devices that are no bridges, such as VXLAN, have such entries too.
            if family != AF_BRIDGE or not bridge or len(address) != _ADDRESS:
                continue
            if kind == RTM_NEWNEIGH and port != bridge:
                _remember(self.bridges, port, bridge)
            if state & NUD_PERMANENT:
                # Nobody has learned it, and it does not move. A port has such an entry as long as it is in the bridge.
                if kind == RTM_DELNEIGH:
                    self.bridges.pop(port, None)
            else:
                yield from self._learned(kind, (bridge, _number(found.get(NDA_VLAN)), address), port, now)

    def ended(self, now: float) -> list[Loop]:
        """The loops that have ended since the last call."""
        over = [loop for loop, last in self._last.items() if now - last > QUIET]
        for loop in over:
            del self._last[loop]
        return over

    def _learned(self, kind: int, entry: tuple[int, int, bytes], port: int, now: float) -> Iterator[Loop]:
        if kind == RTM_DELNEIGH:
            # Forgotten and learned elsewhere: as when a cable is plugged in elsewhere, or spanning tree has changed.
            self._ports.pop(entry, None)
            return
        before = self._ports.get(entry, port)
        _remember(self._ports, entry, port)
        if before == port:
            return
        bridge, vlan, address = entry
        loop = Loop(bridge, (min(before, port), max(before, port)), address.hex(":"))
        for known in self._last:
            if known[:2] == loop[:2]:
                self._last[known] = now
                return
        moves = self._moves.get((loop, vlan)) or deque(maxlen=MOVES)
        moves.append(now)
        _remember(self._moves, (loop, vlan), moves)
        if len(moves) == MOVES and now - moves[0] <= WITHIN:
            # To look at each further move would be work for nothing.
            moves.clear()
            if self._is_new(loop):
                self._last[loop] = now
                yield loop

    def _is_new(self, loop: Loop) -> bool:
        """Whether this is ours, and not another view of a loop that is known: addresses move as well between its ports
        and those where they belong."""
        if any(known.bridge == loop.bridge and set(known.ports) & set(loop.ports) for known in self._last):
            return False
        ours = self._ours()
        return any(port in ours for port in loop.ports) and len(self._last) < LOOPS_MAX


def _remember(known: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _number(value: memoryview | None) -> int:
    """An integer attribute in the machine's byte order; 0 if it is missing."""
    if value is None or len(value) not in (2, 4):
        return 0
    return int(struct.unpack("=H" if len(value) == 2 else "=I", value)[0])
