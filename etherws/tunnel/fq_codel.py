"""FQ-CoDel (RFC 8290): the queue of one connection while its socket is full.

Pure: packets in, packets out; backlog.py does the rest. Each flow of the LAN has a queue of its own, and the queues
take turns. So a flow with few packets (a ping, a keystroke, a SYN) never waits behind one with many. Within a flow
CoDel (RFC 8289) drops packets that have waited too long, so that the sender slows down before the queue grows. Linux's
queueing discipline of the same name cannot do this: it would be where frames enter the device, and not see that the
socket is full.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from math import sqrt
from typing import NamedTuple

from etherws.tunnel.wire import VNET_BYTES

#: Bytes that a flow may send per turn (RFC 8290, section 5.2.2): a full frame.
QUANTUM = 1514

#: Seconds that a packet may wait; and seconds for which packets may wait longer before CoDel drops any (RFC 8289,
#: section 4.4, has 0.005 and 0.1; docs/performance.rst has the reason for more).
TARGET, INTERVAL = 0.02, 0.4

#: Bytes of memory for the queue at most. Only a flood fills it before CoDel acts.
CAP = 4 * 1024 * 1024

#: Bytes of memory for the queues of all connections together, and for one of them at least. A thousand clients that
#: stop reading at once would have four gigabytes otherwise. The least has room for a super-frame of 64 KiB, also when
#: an eighth is to be free.
ALL_CAP, PART_MIN = 64 * 1024 * 1024, 80 * 1024

#: Bytes of memory that Python needs to keep a packet with its time, beyond the packet's own bytes, and to keep a flow.
#: In a flood of small packets this is the larger part.
PACKET_OVERHEAD, FLOW_OVERHEAD = 128, 1536

#: Number of queues. Flows with the same hash share one. With so few, a search through all of them is short.
QUEUES = 1024

_IPV4, _IPV6, _ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
_VLAN = (b"\x81\x00", b"\x88\xa8")
#: Protocols whose header begins with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
_PORTS = frozenset((6, 17, 33, 132, 136))
#: IPv6 extension headers that tell their own length (RFC 8200, section 4): hop-by-hop, routing, destination.
_EXTENSIONS = frozenset((0, 43, 60))


def flow_of(packet: bytes) -> tuple[object, ...]:
    """What identifies the packet's flow: VLAN tags, addresses, protocol and ports; without IP, the Ethernet header.

    Fragments of a datagram have addresses and protocol only, since only the first of them has the ports.
    """
    at = VNET_BYTES + 12
    kind = packet[at : at + 2]
    tags = b""
    while kind in _VLAN and len(tags) < 8:
        tags += packet[at + 2 : at + 4]
        at += 4
        kind = packet[at : at + 2]
    at += 2
    if kind == _IPV4 and len(packet) >= at + 20:
        protocol, addresses = packet[at + 9], packet[at + 12 : at + 20]
        fragment = packet[at + 6] & 0x3F or packet[at + 7]
        at += 4 * (packet[at] & 0xF)
    elif kind == _IPV6 and len(packet) >= at + 40:
        protocol, addresses, fragment = packet[at + 6], packet[at + 8 : at + 40], 0
        at += 40
        # A datagram has few of these. The limit keeps a packet with very many from costing time.
        for _ in range(4):
            if protocol not in _EXTENSIONS or len(packet) < at + 8:
                break
            protocol, at = packet[at], at + 8 + 8 * packet[at + 1]
    else:
        return tags, kind, packet[VNET_BYTES : VNET_BYTES + 12]
    if fragment or protocol not in _PORTS:
        return tags, addresses, protocol
    return tags, addresses, protocol, packet[at : at + 4]


class Waiting(NamedTuple):
    """What is in a queue: how many packets and bytes, and for how many seconds the oldest one."""

    packets: int
    bytes: int
    seconds: float


class _Flow:
    """One flow's packets with the time of each, its credit, and the state of its CoDel (RFC 8289, section 5)."""

    __slots__ = ("bytes", "count", "credit", "dropping", "first_above", "next_drop", "packets")

    def __init__(self) -> None:
        self.packets: deque[tuple[float, bytes]] = deque()
        self.bytes = 0
        self.credit = QUANTUM
        self.first_above = 0.0
        self.dropping = False
        self.next_drop = 0.0
        self.count = 0


class Room:
    """The memory that several queues have together: `bytes`, and how many `queues` of each source are not empty."""

    def __init__(self, cap: int = ALL_CAP) -> None:
        self.bytes = 0
        self.queues: Counter[str] = Counter()
        self._cap = cap

    def begin(self, source: str) -> None:
        """A queue of this source is not empty any more."""
        self.queues[source] += 1

    def end(self, source: str) -> None:
        """A queue of this source is empty again."""
        self.queues[source] -= 1
        if not self.queues[source]:
            del self.queues[source]

    def part(self, source: str) -> int:
        """How many bytes a queue of this source may have. As long as there is room for all, one may have CAP. Else each
        source has the same part, and its queues share that: who has many takes nothing from others."""
        if self.bytes <= self._cap:
            return CAP
        return min(CAP, max(PART_MIN, self._cap // len(self.queues) // self.queues[source]))


#: That of this process.
room = Room()


class FlowQueue:
    """Packets of all flows. `bytes` is the memory that they take. `drops` counts packets that were dropped, by reason:
    CoDel ("queue late"), CAP or the queue's part of the room ("queue full"). `came` is when the packet came that pop()
    has returned last."""

    def __init__(self, room: Room = room, source: str = "") -> None:
        """Queues of one `source` share its part of the room."""
        self.bytes = 0
        self._room, self._source = room, source
        self.came = 0.0
        self.drops: Counter[str] = Counter()
        # Flows that have sent nothing lately go first. An OrderedDict is a list from whose middle one can remove.
        self._new: OrderedDict[int, _Flow] = OrderedDict()
        self._old: OrderedDict[int, _Flow] = OrderedDict()

    def push(self, packet: bytes, now: float) -> None:
        """Queue a packet that came at `now`, in seconds. If that is too much, the longest flows lose the older half."""
        if not self.bytes:
            self._room.begin(self._source)
        # Python's hash of bytes has another key in each process: nobody can choose packets that share a victim's queue.
        key = hash(flow_of(packet)) % QUEUES
        flow = self._new.get(key) or self._old.get(key)
        if flow is None:
            flow = self._new[key] = _Flow()
            self._grow(FLOW_OVERHEAD)
        flow.packets.append((now, packet))
        flow.bytes += len(packet)
        self._grow(len(packet) + PACKET_OVERHEAD)
        if self.bytes > (cap := self._room.part(self._source)):
            self._make_room(cap)

    def pop(self, now: float) -> bytes | None:
        """The next packet at `now`, in seconds; None if the queue is empty (RFC 8290, section 4.2)."""
        while flows := self._new or self._old:
            key, flow = next(iter(flows.items()))
            if flow.credit <= 0:
                if flow.credit <= -QUANTUM and not self._new:
                    self._skip_rounds()
                flow.credit += QUANTUM
                del flows[key]
                self._old[key] = flow
                continue
            packet = self._codel(flow, now)
            if packet is not None:
                flow.credit -= len(packet)
                return packet
            del flows[key]
            # An empty flow stays for one more turn. If not, a flow with a packet now and then would always be a new
            # one.
            if flows is self._new and self._old:
                self._old[key] = flow
            else:
                self._grow(-FLOW_OVERHEAD)
                if not self.bytes:
                    self._room.end(self._source)
        return None

    def _skip_rounds(self) -> None:
        """Give each flow at once the credit of all rounds in which no flow could send. A super-frame costs 43 quanta:
        with as many rounds for each, eight flows of bulk took twice as much processor time as one."""
        rounds = -max(flow.credit for flow in self._old.values()) // QUANTUM
        if rounds > 0:
            for flow in self._old.values():
                flow.credit += rounds * QUANTUM

    def clear(self) -> None:
        """Give the memory back: nothing will be sent any more."""
        if self.bytes:
            self._grow(-self.bytes)
            self._room.end(self._source)
        self._new.clear()
        self._old.clear()

    def waiting(self, now: float) -> Waiting:
        """What waits at `now`, in seconds. This looks at each flow: it is for who asks, not for each packet."""
        flows = [flow for flows in (self._new, self._old) for flow in flows.values() if flow.packets]
        oldest = min((flow.packets[0][0] for flow in flows), default=now)
        return Waiting(sum(len(flow.packets) for flow in flows), sum(flow.bytes for flow in flows), now - oldest)

    def _codel(self, flow: _Flow, now: float) -> bytes | None:
        """The flow's next packet after CoDel's drops (RFC 8289, section 5.5)."""
        late = self._late(flow, now)
        if flow.dropping:
            if not late:
                flow.dropping = False
            while flow.dropping and now >= flow.next_drop:
                self._drop(flow, "queue late")
                flow.count += 1
                if self._late(flow, now):
                    flow.next_drop += INTERVAL / sqrt(flow.count)
                else:
                    flow.dropping = False
        elif late:
            self._drop(flow, "queue late")
            self._late(flow, now)
            flow.dropping = True
            # If it dropped not long ago, begin at nearly the rate of drops that was right then.
            recent = flow.count > 2 and now - flow.next_drop < 16 * INTERVAL
            flow.count = flow.count - 2 if recent else 1
            flow.next_drop = now + INTERVAL / sqrt(flow.count)
        return self._take(flow) if flow.packets else None

    def _late(self, flow: _Flow, now: float) -> bool:
        """Whether for an INTERVAL packets have waited longer than TARGET (RFC 8289, section 5.6)."""
        if flow.packets:
            since, packet = flow.packets[0]
        if not flow.packets or now - since < TARGET or flow.bytes - len(packet) <= QUANTUM:
            flow.first_above = 0.0
            return False
        if not flow.first_above:
            flow.first_above = now + INTERVAL
            return False
        return now >= flow.first_above

    def _grow(self, size: int) -> None:
        self.bytes += size
        self._room.bytes += size

    def _make_room(self, cap: int) -> None:
        """Halve the longest flows until an eighth of `cap` is free.

        The search through all flows costs as much as many packets: in a flood of many flows it must not be needed for
        each packet.
        """
        while self.bytes > cap - cap // 8:
            half = max(flow.bytes for flows in (self._new, self._old) for flow in flows.values()) // 2
            for flows in (self._new, self._old):
                for key, flow in [*flows.items()]:
                    while flow.bytes > half:
                        self._drop(flow, "queue full")
                    if not flow.packets:
                        # Many flows take more memory than their packets.
                        del flows[key]
                        self._grow(-FLOW_OVERHEAD)
        if not self.bytes:
            self._room.end(self._source)

    def _take(self, flow: _Flow) -> bytes:
        self.came, packet = flow.packets.popleft()
        flow.bytes -= len(packet)
        self._grow(-len(packet) - PACKET_OVERHEAD)
        return packet

    def _drop(self, flow: _Flow, why: str) -> None:
        self._take(flow)
        self.drops[why] += 1
