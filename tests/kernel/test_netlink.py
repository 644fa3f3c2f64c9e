"""Netlink's bytes, well-formed and not."""

from __future__ import annotations

import sys

import pytest

from etherws.kernel import netlink
from etherws.kernel.netlink import ATTRIBUTE, HEADER


def message(kind: int, body: bytes = b"", sequence: int = 7, port: int = 8) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, sequence, port) + body + bytes(-len(body) % 4)


def test_messages_are_read_one_after_the_other() -> None:
    first, second = netlink.messages(message(1, b"odd") + message(2, b"even"))
    assert (first[:3], bytes(first.body)) == ((1, 7, 8), b"odd")
    assert (second.kind, bytes(second.body)) == (2, b"even")


def test_what_follows_a_malformed_header_is_ignored() -> None:
    assert not list(netlink.messages(bytes(16) + message(1)))
    assert not list(netlink.messages(b"short"))
    assert not list(netlink.attributes(bytes(4) + netlink.attribute(1, b"x")))
    assert not list(netlink.attributes(b"s"))


def test_attributes_are_read_as_they_are_made() -> None:
    data = netlink.attribute(1, b"name\0") + netlink.attribute(2 | 1 << 15, b"four")
    assert len(data) % 4 == 0
    assert data[: ATTRIBUTE.size] == ATTRIBUTE.pack(9, 1)
    [(first, name), (second, value)] = netlink.attributes(data)
    assert (first, netlink.text(name), second, bytes(value)) == (1, "name", 2, b"four")
    assert netlink.text(memoryview(b"\xff\0")) == "\N{REPLACEMENT CHARACTER}"


def test_an_answer_is_an_error_only_with_a_number() -> None:
    head = bytes(netlink.HEADER.size)
    netlink.check(netlink.NLMSG_ERROR, head + bytes(4))
    netlink.check(16, head)
    with pytest.raises(PermissionError):
        netlink.check(netlink.NLMSG_ERROR, head + (-1).to_bytes(4, sys.byteorder, signed=True))
