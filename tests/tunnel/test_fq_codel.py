"""The queue of a full socket: nothing invented, nothing reordered within a flow, all delivered or counted."""

from __future__ import annotations

import struct
import tracemalloc
from collections import defaultdict
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.tunnel.fq_codel import (
    CAP,
    INTERVAL,
    PART_MIN,
    TARGET,
    FlowQueue,
    Room,
    flow_of,
)
from etherws.tunnel.wire import COMPLETE

MACS = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02"


def ipv4(source: int, port: int, size: int = 60, protocol: int = 6, fragment: int = 0, options: int = 0) -> bytes:
    """A packet from 10.0.0.`source`."""
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45 + options, 0, 0, 0, fragment, 64, protocol, 0, bytes((10, 0, 0, source)), b"\x0a\0\0\x63"
    )
    packet = COMPLETE + MACS + b"\x08\x00" + head + bytes(4 * options) + struct.pack(">HH", port, 80)
    return packet + bytes(max(0, size - len(packet)))


def ipv6(source: int, port: int, *extensions: int, protocol: int = 6) -> bytes:
    """A packet from fd00::`source`, with these extension headers of 8 bytes each."""
    kinds = [*extensions, protocol]
    head = struct.pack(">IHBB", 0x60000000, 20, kinds[0], 64) + b"\xfd" + bytes(14) + bytes((source,)) + bytes(16)
    chain = b"".join(bytes((kind, 0)) + bytes(6) for kind in kinds[1:])
    return COMPLETE + MACS + b"\x86\xdd" + head + chain + struct.pack(">HH", port, 80) + bytes(16)


def tagged(packet: bytes, tci: int) -> bytes:
    """The packet in a VLAN."""
    return packet[:22] + struct.pack(">HH", 0x8100, tci) + packet[22:]


ARP = COMPLETE + MACS + b"\x08\x06" + bytes(28)

DIFFERENT = [
    ipv4(1, 1000),
    ipv4(1, 1001),
    ipv4(2, 1000),
    ipv4(1, 1000, protocol=17),
    ipv4(1, 0, protocol=1),
    ipv6(1, 1000),
    ipv6(1, 1001),
    ipv6(2, 1000),
    ipv6(1, 1000, 0),
    tagged(ipv4(1, 1000), 5),
    tagged(ipv4(1, 1000), 6),
    tagged(tagged(ipv4(1, 1000), 5), 6),
    ARP,
    COMPLETE + MACS + b"\x88\xb5" + bytes(50),
    COMPLETE + MACS[::-1] + b"\x88\xb5" + bytes(50),
]


def test_flows_are_told_apart() -> None:
    flows = [flow_of(packet) for packet in DIFFERENT]
    # Only ports tell flows apart, not how they are wrapped: an option or an extension header changes nothing.
    assert flow_of(ipv6(1, 1000, 0)) == flow_of(ipv6(1, 1000)) == flow_of(ipv6(1, 1000, 0, 60, 43))
    assert flow_of(ipv4(1, 1000, options=3)) == flow_of(ipv4(1, 1000))
    assert len(set(flows)) == len(DIFFERENT) - 1


def test_of_many_extension_headers_only_the_first_are_read() -> None:
    chain = (0, 60, 43, 0, 60)
    assert flow_of(ipv6(1, 1000, *chain)) == flow_of(ipv6(1, 1001, *chain))
    assert flow_of(ipv6(1, 1000, *chain)) != flow_of(ipv6(2, 1000, *chain))


def test_the_size_of_a_packet_does_not_matter_to_its_flow() -> None:
    assert flow_of(ipv4(1, 1000, 60)) == flow_of(ipv4(1, 1000, 1500))


def test_fragments_go_by_addresses_alone() -> None:
    first, second = ipv4(1, 1000, fragment=0x2000), ipv4(1, 4321, fragment=0x0001)
    assert flow_of(first) == flow_of(second) != flow_of(ipv4(1, 1000))
    # "Do not fragment" is no fragment.
    assert flow_of(ipv4(1, 1000, fragment=0x4000)) == flow_of(ipv4(1, 1000))


@given(st.sampled_from(DIFFERENT), st.integers(24, 120), st.binary(max_size=100))
def test_cut_and_broken_packets_have_a_flow_too(packet: bytes, size: int, garbage: bytes) -> None:
    hash(flow_of(packet[:size]))
    hash(flow_of(packet[:size] + garbage))
    hash(flow_of(packet[:24] + garbage))


def drain(queue: FlowQueue, now: float) -> list[bytes]:
    """All that is left."""
    found = []
    while (packet := queue.pop(now)) is not None:
        found.append(packet)
    return found


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from((60, 1514, 1600, 9000, 30_000, 65_000))), max_size=60))
def test_rounds_that_are_skipped_change_no_order(packets: list[tuple[int, int]]) -> None:
    quick, slow = FlowQueue(Room()), FlowQueue(Room())
    slow._skip_rounds = lambda: None  # type: ignore[method-assign]
    came = iter(packets)
    while True:
        # Three come, two go.
        for source, size in islice(came, 3):
            for queue in (quick, slow):
                queue.push(ipv4(source, 1000, size), 0.0)
        found = [quick.pop(0.0), quick.pop(0.0)]
        assert found == [slow.pop(0.0), slow.pop(0.0)]
        if found[-1] is None:
            break
    assert drain(quick, 0.0) == drain(slow, 0.0)


def test_super_frames_take_few_rounds() -> None:
    queue = FlowQueue()
    for source in range(8):
        for _ in range(4):
            queue.push(ipv4(source, 1000, 65_000), 0.0)
    skipped, skip = list[None](), queue._skip_rounds
    queue._skip_rounds = lambda: skipped.append(skip())  # type: ignore[method-assign]
    assert len(drain(queue, 0.0)) == 32
    assert 0 < len(skipped) < 32


def test_a_sparse_flow_goes_ahead_of_a_long_one() -> None:
    queue = FlowQueue()
    for _ in range(50):
        queue.push(ipv4(1, 1000, 1500), 0.0)
    assert queue.pop(0.0) == ipv4(1, 1000, 1500)
    queue.push(ipv4(2, 2000), 0.001)
    assert ipv4(2, 2000) in (queue.pop(0.001), queue.pop(0.001))


def test_what_waits_is_told_and_since_when() -> None:
    queue = FlowQueue()
    assert queue.waiting(5.0) == (0, 0, 0.0)
    for port, now in ((1, 1.0), (1, 2.0), (2, 3.0)):
        queue.push(ipv4(1, port, 100), now)
    assert queue.waiting(5.0) == (3, 300, 4.0)
    assert queue.pop(5.0) is not None
    assert queue.came == 1.0
    assert queue.waiting(5.0) == (2, 200, 3.0)
    while queue.pop(5.0):
        pass
    # Flows that are empty may be there still.
    assert queue.waiting(6.0) == (0, 0, 0.0)


def test_flows_share_by_bytes() -> None:
    queue = FlowQueue()
    for _ in range(300):
        queue.push(ipv4(1, 1000, 1500), 0.0)
        for _ in range(3):
            queue.push(ipv4(2, 2000, 500), 0.0)
    sizes: dict[object, int] = defaultdict(int)
    for _ in range(400):
        packet = queue.pop(0.0)
        assert packet is not None
        sizes[flow_of(packet)] += len(packet)
    first, second = sizes.values()
    assert first == pytest.approx(second, rel=0.05)


def test_a_short_wait_drops_nothing_and_a_long_one_does() -> None:
    queue = FlowQueue()
    now = 0.0
    for at in range(2000):
        queue.push(ipv4(1, 1000, 1500), now)
        queue.push(ipv4(1, 1000, 1500), now)
        now += TARGET / 2
        assert queue.pop(now)
        if now < INTERVAL:
            assert not queue.drops, at
    assert queue.drops["queue late"] > 50


def dropping(packets: int, now: float) -> FlowQueue:
    """A queue with so many packets of one flow, which has just dropped one, at `now`."""
    queue = FlowQueue()
    for _ in range(packets + 3):
        queue.push(ipv4(1, 1000, 1514), now - INTERVAL - TARGET)
    assert queue.pop(now - INTERVAL)
    assert queue.pop(now)
    assert queue.drops == {"queue late": 1}
    return queue


def test_drops_end_when_so_much_was_sent_that_the_queue_is_short() -> None:
    queue = dropping(5, 1.0)
    assert len(drain(queue, 1.0)) == 5
    assert queue.drops == {"queue late": 1}


def test_drops_end_when_a_drop_makes_the_queue_short() -> None:
    queue = dropping(3, 1.0)
    assert len(drain(queue, 1.0 + 10 * INTERVAL)) == 2
    assert queue.drops == {"queue late": 2}


def test_a_queue_that_stays_short_is_left_alone() -> None:
    queue = FlowQueue()
    for at in range(1000):
        queue.push(ipv4(1, 1000, 1500), at * 0.01)
        assert queue.pop(at * 0.01 + TARGET * 0.9)
    assert not queue.drops


def test_the_cap_takes_from_the_longest_flow() -> None:
    queue = FlowQueue()
    queue.push(ipv4(2, 2000), 0.0)
    for _ in range(2 * CAP // 1500):
        queue.push(ipv4(1, 1000, 1500), 0.0)
        assert queue.bytes <= CAP
    assert queue.drops["queue full"] > 0
    assert ipv4(2, 2000) in drain(queue, 0.0)
    assert queue.bytes == 0


def test_many_queues_share_their_room() -> None:
    room = Room(1_000_000)
    queues = [FlowQueue(room, str(at)) for at in range(100)]
    # One may have more than its part, as long as there is room.
    for _ in range(300):
        queues[0].push(ipv4(1, 1000, 1500), 0.0)
    assert queues[0].bytes > PART_MIN
    assert not queues[0].drops
    for _ in range(100):
        for queue in queues:
            queue.push(ipv4(1, 1000, 1500), 0.0)
    assert all(0 < queue.bytes <= PART_MIN for queue in queues)
    assert room.queues.total() == len(room.queues) == 100
    assert room.bytes == sum(queue.bytes for queue in queues)
    # What ends or is sent gives all back.
    for queue in queues[:50]:
        queue.clear()
        queue.clear()
        assert queue.pop(0.0) is None
    for queue in queues[50:]:
        while queue.pop(0.0):
            pass
    assert (room.bytes, room.queues) == (0, {})


def test_who_has_many_queues_takes_no_room_from_others() -> None:
    room = Room(8_000_000)
    many = [FlowQueue(room, "many") for _ in range(100)]
    for _ in range(100):
        for queue in many:
            queue.push(ipv4(1, 1000, 1500), 0.0)
    other = FlowQueue(room, "other")
    for _ in range(2000):
        other.push(ipv4(1, 1000, 1500), 0.0)
    assert other.bytes > 3_000_000
    assert not other.drops


def test_however_many_have_a_queue_each_may_have_a_super_frame() -> None:
    room = Room(0)
    queue = FlowQueue(room)
    for _ in range(10):
        queue.push(ipv4(1, 1000, 65_549), 0.0)
        assert queue.bytes
    assert queue.drops["queue full"] == 9
    assert queue.pop(0.0)


def test_flows_without_packets_take_no_room() -> None:
    room = Room(0)
    queue, other = FlowQueue(room), FlowQueue(room)
    for port in range(200):
        queue.push(ipv4(1, port, 100), 0.0)
        assert queue.bytes <= PART_MIN
    assert queue.drops["queue full"] > 0
    # More than there is room for.
    other.push(ipv4(1, 1, PART_MIN), 0.0)
    assert (other.bytes, other.pop(0.0), room.queues.total()) == (0, None, 1)
    while queue.pop(0.0):
        pass
    assert (room.bytes, room.queues) == (0, {})


def test_the_cap_counts_what_small_packets_weigh() -> None:
    tracemalloc.start()
    try:
        queue = FlowQueue()
        for at in range(CAP // 64):
            queue.push(bytes(ipv4(1, at % 5000)), float(at))
        assert queue.drops["queue full"] > 0
        assert tracemalloc.get_traced_memory()[1] < CAP
    finally:
        tracemalloc.stop()


def test_a_full_queue_of_many_flows_makes_room_for_more_than_a_packet() -> None:
    """To find the longest of a thousand flows takes as long as to queue fifty packets."""
    queue, at = FlowQueue(), 0
    while not queue.drops:
        queue.push(ipv4(1, at := at + 1, 1500), 0.0)
    full = queue.drops.total()
    for _ in range(300):
        queue.push(ipv4(1, at := at + 1, 1500), 0.0)
    assert queue.drops.total() == full


def test_a_super_frame_that_is_alone_is_delivered_however_late() -> None:
    queue = FlowQueue()
    for at in range(100):
        packet = ipv4(1, 1000, 65_000)
        queue.push(packet, float(at))
        assert queue.pop(at + 0.9) == packet


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(60, 3000), st.floats(0, 0.05), st.integers(0, 3)), max_size=200)
)
def test_nothing_is_invented_reordered_or_lost_uncounted(steps: list[tuple[int, int, float, int]]) -> None:
    queue, now, serial = FlowQueue(), 0.0, 0
    sent: dict[int, list[bytes]] = defaultdict(list)
    got: dict[int, list[bytes]] = defaultdict(list)

    def take(packet: bytes | None) -> None:
        if packet is not None:
            got[packet[10 + 14 + 15]].append(packet)

    for source, size, pause, pops in steps:
        serial += 1
        packet = ipv4(source, 1000, size) + serial.to_bytes(4, "big")
        sent[source].append(packet)
        queue.push(packet, now)
        now += pause
        for _ in range(pops):
            take(queue.pop(now))
    for packet in drain(queue, now):
        take(packet)
    for source, packets in got.items():
        # In the order in which they came: a subsequence.
        rest = iter(sent[source])
        assert all(packet in rest for packet in packets)
    assert sum(map(len, got.values())) + sum(queue.drops.values()) == serial
    assert queue.bytes == 0
    assert queue.pop(now) is None
