"""Netlink messages: any bytes are read without an error, and right ones as a second, slower reading says."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from etherws.kernel.network_changes import DUMP_SEQUENCE, Changes

OWN = "ethws0"
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE = 16, 17, 20, 21, 24, 25

Attribute = tuple[int, bytes]
names = st.sampled_from([b"ethws0\0", b"eth0\0", b"br0\0", b"\xff\0", b""])
attributes = st.one_of(
    st.tuples(st.just(3), names),
    st.tuples(st.just(10), st.integers(0, 4).map(lambda index: struct.pack("=I", index))),
    st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=9)),
)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def message(kind: int, sequence: int, body: bytes) -> bytes:
    return padded(struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body)


def link(kind: int, sequence: int, family: int, index: int, flags: int, attributes: list[Attribute]) -> bytes:
    """A message about an interface."""
    body = struct.pack("=BxHiII", family, 1, index, flags, 0)
    for key, value in attributes:
        body += padded(struct.pack("=HH", 4 + len(value), key) + value)
    return message(kind, sequence, body)


links = st.builds(
    link,
    st.sampled_from([NEWLINK, NEWLINK, DELLINK]),
    st.sampled_from([0, 0, DUMP_SEQUENCE]),
    st.sampled_from([0, 0, 0, 7]),
    st.integers(1, 4),
    st.sampled_from([0, 0x40, 0x41]),
    st.lists(attributes, max_size=4),
)
changes_of_addresses = st.builds(
    lambda kind, index: message(kind, 0, struct.pack("=BBBBI", 2, 24, 0, 0, index)),
    st.sampled_from([NEWADDR, DELADDR]),
    st.integers(1, 4),
)
routes = st.builds(
    lambda kind, flags, bits, value: padded(
        struct.pack("=IHHII", 36, kind, flags, 0, 0)
        + struct.pack("=BBBBBBBBI", 2, bits, 0, 0, 254, 3, 0, 1, 0)
        + struct.pack("=HHI", 8, 4, value)
    ),
    st.sampled_from([NEWROUTE, DELROUTE]),
    st.sampled_from([0, 0x100]),
    st.integers(0, 2),
    st.integers(0, 4),
)
ends = st.builds(lambda kind: message(kind, DUMP_SEQUENCE, bytes(4)), st.sampled_from([2, 3]))
messages = st.one_of(
    links,
    changes_of_addresses,
    routes,
    ends,
    st.builds(message, st.integers(0, 30), st.just(0), st.binary(max_size=40)),
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[bytes]:
    """What several recv() give, one of them damaged in one place."""
    found = [b"".join(draw(st.lists(messages, max_size=4))) for _ in range(draw(st.integers(1, 4)))]
    at = draw(st.integers(0, len(found) - 1))
    data = bytearray(found[at])
    for place in draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=2)):
        data[place : place + 1] = draw(st.binary(max_size=1))
    found[at] = bytes(data)
    return found


@given(deliveries() | st.lists(st.binary(max_size=80), max_size=3))
def test_any_netlink_messages_are_read(data: list[bytes]) -> None:
    changes = Changes()
    for piece in data:
        assert isinstance(changes.read(piece, OWN), str)


State = dict[int, tuple[str, bool]]


@given(st.lists(st.tuples(st.sampled_from([NEWLINK, DELLINK]), st.integers(1, 3), st.booleans()), max_size=12))
def test_an_interface_that_comes_up_is_a_change(steps: list[tuple[int, int, bool]]) -> None:
    changes, up = Changes(), set[int]()
    for kind, index, running in steps:
        data = link(kind, 0, 0, index, 0x40 if running else 0, [(3, b"eth%d\0" % index)])
        expected = kind == NEWLINK and running and index not in up
        assert bool(changes.read(data, OWN)) == expected
        (up.add if kind == NEWLINK and running else up.discard)(index)
