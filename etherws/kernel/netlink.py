"""Netlink's bytes: messages and attributes, read in place.

Pure: opens no socket, and knows no family of netlink. pyroute2 does what is asked for seldom. This is for what comes in
floods, such as the report of a firewall's 10,000 new rules, and for what each client needs: pyroute2 takes thirty
times as long, and leaves garbage (garbage.py). Used by network_changes.py, rule_changes.py, links.py, nfnetlink.py.

Sources: netlink(7), include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

#: struct nlmsghdr and nlattr.
HEADER, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")

#: The kernel's answer to a request that failed, or, with the number 0, that did not; the number is behind its header.
NLMSG_ERROR, _NUMBER = 2, struct.Struct("=i")

#: Flags of a request: it is one; have it acknowledged; answer with all that there is; put this in place of what is
#: there; not if there is one; make it; at the end. What the same bits mean depends on the kind of request.
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800

#: An attribute's type has two flags beside it (NLA_F_NESTED and NLA_F_NET_BYTEORDER).
TYPE_MASK = 0x3FFF


class Message(NamedTuple):
    """One message. `sequence` and `port` are of the request that it answers, or that made the change it reports."""

    kind: int
    sequence: int
    port: int
    body: memoryview
    flags: int


def check(kind: int, message: bytes | memoryview) -> None:
    """Raise OSError if a whole message of this kind says that a request failed."""
    if kind == NLMSG_ERROR and (number := -_NUMBER.unpack_from(message, HEADER.size)[0]):
        raise OSError(number, os.strerror(number))


def messages(data: bytes | memoryview) -> Iterator[Message]:
    """Each message. What follows a malformed header is ignored."""
    view, at = memoryview(data), 0
    while at + HEADER.size <= len(view):
        size, kind, flags, sequence, port = HEADER.unpack_from(view, at)
        if size < HEADER.size:
            return
        yield Message(kind, sequence, port, view[at + HEADER.size : at + size], flags)
        # The next message begins at a multiple of 4 bytes (NLMSG_ALIGN).
        at += size + 3 & ~3


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, value) of each attribute. What follows a malformed one is ignored."""
    view, at = memoryview(data), 0
    while at + ATTRIBUTE.size <= len(view):
        size, kind = ATTRIBUTE.unpack_from(view, at)
        if size < ATTRIBUTE.size:
            return
        yield kind & TYPE_MASK, view[at + ATTRIBUTE.size : at + size]
        at += size + 3 & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def text(value: memoryview) -> str:
    """A text attribute, which ends with a zero byte."""
    return bytes(value).rstrip(b"\0").decode(errors="replace")
