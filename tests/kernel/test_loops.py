"""What counts as a loop, told from notifications made by hand, on a clock made by hand."""

from __future__ import annotations

import struct

import pytest

from etherws.kernel import loops as loops_module
from etherws.kernel.loops import (
    AF_BRIDGE,
    MOVES,
    NDA_LLADDR,
    NDA_MASTER,
    NDA_VLAN,
    NUD_PERMANENT,
    QUIET,
    RTM_DELNEIGH,
    RTM_NEWNEIGH,
    WITHIN,
    Loop,
    Loops,
)

BRIDGE, OURS, SECOND, UPLINK, THIRD = 2, 4, 5, 6, 7
NUD_REACHABLE = 2
HOST = "52:54:00:00:00:01"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def told(
    port: int,
    address: str = HOST,
    *,
    kind: int = RTM_NEWNEIGH,
    bridge: int = BRIDGE,
    vlan: int | None = None,
    state: int = NUD_REACHABLE,
    family: int = AF_BRIDGE,
) -> bytes:
    """What the kernel tells when the bridge learns that the address is at the port."""
    body = struct.pack("=BxxxiHBB", family, port, state, 0, 0)
    body += attribute(NDA_LLADDR, bytes.fromhex(address.replace(":", "")))
    if bridge:
        body += attribute(NDA_MASTER, struct.pack("=I", bridge))
    if vlan is not None:
        body += attribute(NDA_VLAN, struct.pack("=H", vlan))
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


@pytest.fixture
def loops() -> Loops:
    return Loops(lambda: {OURS, SECOND})


def read(loops: Loops, *messages: bytes, now: float = 0.0) -> list[Loop]:
    return [loop for data in messages for loop in loops.read(data, now)]


def moves(count: int, *ports: int, **more: object) -> list[bytes]:
    """The messages of an address that is learned, and then moves so many times round these ports."""
    return [told(ports[number % len(ports)], **more) for number in range(count + 1)]  # type: ignore[arg-type]


def test_an_address_that_moves_between_two_ports_again_and_again_is_a_loop(loops: Loops) -> None:
    assert read(loops, *moves(MOVES - 1, SECOND, OURS)) == []
    assert not loops.active
    assert read(loops, told(OURS), told(SECOND)) == [Loop(BRIDGE, (OURS, SECOND), HOST)]
    assert loops.active
    assert loops.is_active_in(BRIDGE)
    assert not loops.is_active_in(BRIDGE + 1)


def test_a_storm_is_told_of_once_and_when_it_is_over(loops: Loops) -> None:
    loop = Loop(BRIDGE, (OURS, SECOND), HOST)
    assert read(loops, *moves(1000, OURS, SECOND)) == [loop]
    # Other addresses go round, too; and between the loop and the port where they belong.
    assert read(loops, *moves(100, OURS, SECOND, address="52:54:00:00:00:02"), now=1.0) == []
    assert read(loops, *moves(100, OURS, UPLINK, address="52:54:00:00:00:03"), now=2.0) == []
    assert loops.ended(1.0 + QUIET) == []
    assert loops.ended(1.5 + QUIET) == [loop]
    assert loops.ended(1.5 + QUIET) == []
    assert not loops.active
    # It may begin again.
    assert read(loops, *moves(MOVES, OURS, SECOND), now=30.0) == [loop]


@pytest.mark.parametrize("ports", [(OURS, UPLINK), (OURS, UPLINK, OURS), (OURS, UPLINK, SECOND, THIRD)])
def test_a_machine_that_migrates_or_roams_is_no_loop(loops: Loops, ports: tuple[int, ...]) -> None:
    assert read(loops, *map(told, ports)) == []


def test_moves_that_take_their_time_are_no_loop(loops: Loops) -> None:
    for number, message in enumerate(moves(50, OURS, UPLINK)):
        assert read(loops, message, now=number * (WITHIN / (MOVES - 1) + 0.01)) == []


def test_a_port_that_tells_of_the_same_address_again_is_no_move(loops: Loops) -> None:
    assert read(loops, *[told(OURS)] * 100) == []


def test_an_address_that_was_forgotten_meanwhile_has_not_moved(loops: Loops) -> None:
    """As when a cable is plugged in elsewhere, or spanning tree changes its mind."""
    for port in (OURS, UPLINK) * 10:
        assert read(loops, told(port), told(port, kind=RTM_DELNEIGH)) == []


def test_a_loop_of_others_ports_is_left_to_others_and_hides_none_of_ours(loops: Loops) -> None:
    assert read(loops, *moves(100, UPLINK, THIRD)) == []
    assert not loops.active
    assert read(loops, *moves(100, UPLINK, OURS)) == [Loop(BRIDGE, (OURS, UPLINK), HOST)]


def test_a_loop_elsewhere_is_another_loop(loops: Loops) -> None:
    read(loops, *moves(MOVES, OURS, UPLINK))
    elsewhere = Loop(BRIDGE + 10, (SECOND, THIRD), HOST)
    assert read(loops, *moves(MOVES, SECOND, THIRD, bridge=BRIDGE + 10)) == [elsewhere]
    same_bridge = Loop(BRIDGE, (SECOND, THIRD), HOST)
    assert read(loops, *moves(MOVES + 1, SECOND, THIRD)) == [same_bridge]


def test_one_address_in_two_vlans_does_not_move(loops: Loops) -> None:
    for _ in range(10):
        assert read(loops, told(OURS, vlan=1), told(UPLINK, vlan=2)) == []
    assert read(loops, *moves(MOVES, OURS, UPLINK, vlan=3)) == [Loop(BRIDGE, (OURS, UPLINK), HOST)]


def test_no_more_loops_are_followed_than_there_is_room_for(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops_module, "LOOPS_MAX", 1)
    assert read(loops, *moves(MOVES, OURS, UPLINK))
    assert read(loops, *moves(MOVES, SECOND, THIRD)) == []


def test_a_stranger_who_sends_from_ever_new_addresses_fills_no_memory(loops: Loops) -> None:
    for number in range(3 * loops_module.REMEMBERED):
        address = f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}"
        read(loops, told(OURS, address), told(SECOND, address), told(1000 + number, state=NUD_PERMANENT))
    sizes = [len(held) for held in vars(loops).values() if hasattr(held, "__len__")]
    assert max(sizes) == loops_module.REMEMBERED
    # What goes round now is seen all the same.
    assert read(loops, *moves(MOVES, OURS, SECOND))


def test_it_knows_which_bridge_a_port_is_in(loops: Loops) -> None:
    read(loops, told(OURS, state=NUD_PERMANENT), told(BRIDGE, state=NUD_PERMANENT), told(UPLINK, bridge=9))
    assert dict(loops.bridges) == {OURS: BRIDGE, UPLINK: 9}
    read(loops, told(OURS, state=NUD_PERMANENT, kind=RTM_DELNEIGH), told(UPLINK, bridge=9, kind=RTM_DELNEIGH))
    assert dict(loops.bridges) == {UPLINK: 9}


def test_entries_that_somebody_has_set_do_not_move(loops: Loops) -> None:
    assert read(loops, *moves(100, OURS, SECOND, state=NUD_PERMANENT)) == []


@pytest.mark.parametrize(
    "messages",
    [
        moves(100, OURS, SECOND, family=2),
        moves(100, OURS, SECOND, bridge=0),
        moves(100, OURS, SECOND, kind=30),
        moves(100, OURS, SECOND, address="52:54:00"),
        [struct.pack("=IHHII", 18, RTM_NEWNEIGH, 0, 0, 0) + bytes(2)],
        [message.replace(struct.pack("=HHI", 8, NDA_MASTER, BRIDGE), struct.pack("=HHHH", 7, NDA_MASTER, 2, 0))
         for message in moves(100, OURS, SECOND)],
    ],
    ids=["another family", "no bridge", "another message", "another kind of address", "short", "a malformed number"],
)  # fmt: skip
def test_what_is_not_of_a_bridge_or_malformed_is_ignored(loops: Loops, messages: list[bytes]) -> None:
    assert read(loops, *messages) == []
    assert not loops.bridges
