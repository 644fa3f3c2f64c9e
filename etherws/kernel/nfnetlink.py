"""Requests to nf_tables and what the kernel answers, by netlink.

pyroute2 builds the messages, but does not send them: it would wait for ever when the kernel refuses a whole
transaction. The kernel answers before send() returns, so nothing here waits for an answer. Every function may raise
OSError. Used by nftables.py and address_sets.py.

Sources: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h, Linux net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import gevent
from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg

from etherws.kernel import netlink

#: include/uapi/linux/netlink.h, nfnetlink.h
NETLINK_NETFILTER = 12
BATCH_BEGIN, BATCH_END = 0x10, 0x11

#: The sequence number of all our requests, in this process and its children. Notifications of a change have that of the
#: request, which tells our changes from those of others. Random: others count from small numbers or from the time.
SEQUENCE = int.from_bytes(os.urandom(4), "big") | 1 << 31

#: The family whose chains belong to one interface (NFPROTO_NETDEV).
NETDEV = 5

#: Bytes of one recv(): more than the kernel puts into one answer.
_ANSWER = 1 << 18


def message(
    kind: int, form: Any, flags: int = NLM_F_CREATE | NLM_F_APPEND, family: int = NETDEV, **values: Any
) -> bytes:
    """One request of a family: NFT_MSG_..., pyroute2's class for it, and its attributes."""
    made = form()
    made["nfgen_family"] = family
    made["attrs"] = [(form.prefix + name, value) for name, value in values.items()]
    return _encoded(made, kind | NFNL_SUBSYS_NFTABLES << 8, flags)


def _encoded(message: Any, kind: int, flags: int = 0) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message["header"]["sequence_number"] = SEQUENCE
    message.encode()
    return bytes(message.data)


def transact(messages: Iterable[bytes]) -> None:
    """Have the kernel make all these changes, or none of them."""
    ends = []
    for kind in (BATCH_BEGIN, BATCH_END):
        end = nfgen_msg()
        end["res_id"] = NFNL_SUBSYS_NFTABLES
        ends.append(_encoded(end, kind))
    # The kernel sends no answer to what succeeds.
    _ask(b"".join([ends[0], *messages, ends[1]]))


def dump(kind: int, form: Any, *, family: int = NETDEV, **values: Any) -> Iterator[Any]:
    """Everything that NFT_MSG_GET... finds in a family, decoded by pyroute2; in all families if that is 0."""
    for got, data in _ask(message(kind, form, NLM_F_DUMP, family, **values)):
        # NFT_MSG_NEW... answers NFT_MSG_GET..., and its number is one less.
        if got == kind - 1 | NFNL_SUBSYS_NFTABLES << 8:
            answer = form(data)
            answer.decode()
            yield answer


def answers(kind: int, request: bytes) -> Iterator[memoryview]:
    """The attributes of each message that answers NFT_MSG_GET..."""
    for got, data in _ask(request):
        if got == kind - 1 | NFNL_SUBSYS_NFTABLES << 8:
            yield memoryview(data)[netlink.HEADER.size + 4 :]


def _ask(request: bytes) -> list[tuple[int, bytes]]:
    """Send the request; return the type and the whole of each message of the answer. Raises OSError if one is an
    error."""
    answers = []
    for data in parts(request):
        while len(data) >= netlink.HEADER.size:
            size, kind, _, _, _ = netlink.HEADER.unpack_from(data)
            netlink.check(kind, data)
            answers.append((kind, data[:size]))
            data = data[size + 3 & ~3 :]
    return answers


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
            received.append(sock.recv(_ANSWER))
    return received
