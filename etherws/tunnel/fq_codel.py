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
#: section 4.4; docs/performance.rst has the reason for 0.2).
TARGET, INTERVAL = 0.005, 0.2

#: Bytes of memory for the queue at most. Only a flood fills it before CoDel acts.
CAP = 4 * 1024 * 1024

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


class FlowQueue:
    """Packets of all flows. `bytes` is the memory that they take. `drops` counts packets that were dropped, by reason:
    CoDel ("queue late") or CAP ("queue full"). `came` is when the packet came that pop() has returned last."""

    def __init__(self) -> None:
        self.bytes = 0
        self.came = 0.0
        self.drops: Counter[str] = Counter()
        # Flows that have sent nothing lately go first. An OrderedDict is a list from whose middle one can remove.
        self._new: OrderedDict[int, _Flow] = OrderedDict()
        self._old: OrderedDict[int, _Flow] = OrderedDict()

    def push(self, packet: bytes, now: float) -> None:
        """Queue a packet that came at `now`, in seconds. Above CAP the longest flows lose the older half."""
        # Python's hash of bytes has another key in each process: nobody can choose packets that share a victim's queue.
        key = hash(flow_of(packet)) % QUEUES
        flow = self._new.get(key) or self._old.get(key)
        if flow is None:
            flow = self._new[key] = _Flow()
            self.bytes += FLOW_OVERHEAD
        flow.packets.append((now, packet))
        flow.bytes += len(packet)
        self.bytes += len(packet) + PACKET_OVERHEAD
        if self.bytes > CAP:
            self._make_room()

    def pop(self, now: float) -> bytes | None:
        """The next packet at `now`, in seconds; None if the queue is empty (RFC 8290, section 4.2)."""
        while flows := self._new or self._old:
            key, flow = next(iter(flows.items()))
            if flow.credit <= 0:
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
                self.bytes -= FLOW_OVERHEAD
        return None

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

    def _make_room(self) -> None:
        """Halve the longest flows until an eighth of CAP is free.

        The search through all flows costs as much as many packets: in a flood of many flows it must not be needed for
        each packet.
        """
        flows = [*self._new.values(), *self._old.values()]
        while self.bytes > CAP - CAP // 8:
            half = max(flow.bytes for flow in flows) // 2
            for flow in flows:
                while flow.bytes > half:
                    self._drop(flow, "queue full")

    def _take(self, flow: _Flow) -> bytes:
        self.came, packet = flow.packets.popleft()
        flow.bytes -= len(packet)
        self.bytes -= len(packet) + PACKET_OVERHEAD
        return packet

    def _drop(self, flow: _Flow, why: str) -> None:
        self._take(flow)
        self.drops[why] += 1
