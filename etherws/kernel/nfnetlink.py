"""Requests to nf_tables and what the kernel answers, by netlink.

The kernel answers before send() returns, so nothing here waits for an answer. Every function may raise OSError. Used by
nftables.py, address_sets.py and forward_chains.py.

Sources: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h, Linux net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator

import gevent

from etherws.kernel import netlink
from etherws.kernel.netlink import NLM_F_REQUEST
from etherws.walks import in_turns

#: include/uapi/linux/netlink.h, nfnetlink.h
NETLINK_NETFILTER = 12
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10

#: enum nf_tables_msg_types. NEW... answers GET..., and its number is one less.
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, NEWRULE, GETRULE = 0, 1, 2, 3, 4, 6, 7
NEWSET, NEWSETELEM, GETSETELEM = 9, 12, 13

#: The sequence number of all our requests, in this process and its children. Notifications of a change have that of the
#: request, which tells our changes from those of others. Random: others count from small numbers or from the time.
SEQUENCE = int.from_bytes(os.urandom(4), "big") | 1 << 31

#: The family whose chains belong to one interface (NFPROTO_NETDEV), and what stands for all (NFPROTO_UNSPEC).
NETDEV, ALL = 5, 0

#: Bytes of struct nfgenmsg, which is before the attributes: family, version, and a number of two bytes.
NFGENMSG = 4

#: Bytes of one recv(): more than the kernel puts into one answer.
_ANSWER = 1 << 18


def message(kind: int, attributes: bytes = b"", flags: int = 0, family: int = NETDEV) -> bytes:
    """One request of a family, of one of enum nf_tables_msg_types; the attributes are encoded already."""
    return _request(kind | NFNL_SUBSYS_NFTABLES << 8, bytes([family, 0, 0, 0]) + attributes, flags)


def transact(messages: Iterable[bytes]) -> None:
    """Have the kernel make all these changes, or none of them."""
    begin, end = (
        _request(kind, bytes(2) + NFNL_SUBSYS_NFTABLES.to_bytes(2, "big")) for kind in (BATCH_BEGIN, BATCH_END)
    )
    # The kernel sends no answer to what succeeds.
    for data in parts(b"".join([begin, *messages, end])):
        for found in netlink.messages(data):
            _check(found)


def answers(kind: int, request: bytes) -> Iterator[memoryview]:
    """What follows the header in each message that answers GET...: struct nfgenmsg and the attributes. In turns: there
    may be some of each port. Raises OSError."""
    # One walk over all parts: each part alone takes less than a turn.
    for found in in_turns(found for part in parts(request) for found in netlink.messages(part)):
        _check(found)
        if found.kind == kind - 1 | NFNL_SUBSYS_NFTABLES << 8:
            yield found.body


def entries(kind: int, request: bytes) -> Iterator[dict[int, memoryview]]:
    """The attributes of each of answers(), by their types."""
    for body in answers(kind, request):
        yield dict(netlink.attributes(body[NFGENMSG:]))


def parts(request: bytes) -> list[bytes]:
    """The answer to a request, as the kernel gives it: parts of several messages, of which some may be errors. Raises
    OSError."""
    # Open the socket in this thread: another thread may be in another network namespace.
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    # The kernel may take tens of milliseconds to put rules in force, and some more to close the socket. In a thread, so
    # that the other clients' frames go on meanwhile.
    received: list[bytes] = gevent.get_hub().threadpool.apply(_exchange, (sock, request))
    return received


def _exchange(sock: socket.socket, request: bytes) -> list[bytes]:
    received = []
    with sock, contextlib.suppress(BlockingIOError):
        sock.setblocking(False)
        sock.sendto(request, (0, 0))
        while True:
            try:
                received.append(sock.recv(_ANSWER))
            except OSError as exc:
                # A thousand changes that all fail are a thousand errors. The first of them are still there.
                if exc.errno != errno.ENOBUFS:
                    raise
    return received


def _request(kind: int, body: bytes, flags: int = 0) -> bytes:
    return netlink.HEADER.pack(netlink.HEADER.size + len(body), kind, NLM_F_REQUEST | flags, SEQUENCE, 0) + body


def _check(found: netlink.Message) -> None:
    """Raise OSError if this message says that a request failed."""
    if found.kind == netlink.NLMSG_ERROR:
        netlink.check(found.kind, bytes(netlink.HEADER.size) + bytes(found.body))
