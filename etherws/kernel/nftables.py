"""nf_tables by netlink: tables of rules for what comes in by one interface, installed as a whole or not at all.

pyroute2 builds the messages, but does not send them: it would wait for ever when the kernel refuses a whole
transaction. The kernel answers before send() returns, so nothing here waits for an answer. This module knows no
policy: filter_table.py says which rules a client gets, port_filter.py when. nft_expressions.py has what rules are made
of. Every function may raise OSError.

Sources: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h, Linux net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gevent
from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink import nftsocket as nft

from etherws.kernel.nft_expressions import (
    ACCEPT,
    DROP,
    ETHERNET_ADDRESSES,
    Expression,
    as_data,
    attributes,
    count,
    verdict,
)

#: include/uapi/linux/netlink.h, nfnetlink.h
NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
BATCH_BEGIN, BATCH_END = 0x10, 0x11
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")

#: Bytes of one recv(): more than the kernel puts into one answer.
_ANSWER = 1 << 18

#: The family whose chains belong to one interface and see a frame before a bridge or the host does; and its hook.
NETDEV = nft.NFPROTO_NETDEV
INGRESS = 0

#: Elements of a set in one message: a netlink attribute has 64 KiB at most.
_ELEMENTS = 1000


class Table:
    """A netdev table under construction. Nothing reaches the kernel before install()."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._messages: list[bytes] = []
        self._sets = 0

    def chain(self, name: str, device: str | None = None) -> None:
        """Add a chain: for what comes in by the interface `device`, or, with None, one to jump to."""
        more: dict[str, Any] = {}
        if device is not None:
            hook = attributes("NFTA_HOOK_", HOOKNUM=INGRESS, PRIORITY=0, DEV=device)
            more = {"HOOK": hook, "POLICY": ACCEPT, "TYPE": "filter"}
        self._add(nft.NFT_MSG_NEWCHAIN, nft.nft_chain_msg, NAME=name, **more)

    def addresses(self, name: str, what: int | Sequence[bytes], ageing: float = 0.0) -> None:
        """Add a set of Ethernet addresses.

        `what` lists them; or it is the most that the rules may add, and each then stays for `ageing` seconds.
        """
        if not isinstance(what, int):
            self.values(name, ETHERNET_ADDRESSES, what)
            return
        size = attributes("NFTA_SET_DESC_", SIZE=what)
        more = {"FLAGS": {"NFT_SET_TIMEOUT", "NFT_SET_EVAL"}, "TIMEOUT": int(ageing * 1000), "DESC": size}
        self._set(name, 6, ETHERNET_ADDRESSES, **more)

    def values(self, name: str, kind: int, listed: Sequence[bytes]) -> None:
        """Add a set of values that does not change; one at least, all of one length. `kind` is how nft shows them."""
        self._set(name, len(listed[0]), kind, FLAGS=set())
        for start in range(0, len(listed), _ELEMENTS):
            some = [attributes("NFTA_SET_ELEM_", KEY=as_data(value)) for value in listed[start : start + _ELEMENTS]]
            self._add(nft.NFT_MSG_NEWSETELEM, nft.nft_set_elem_list_msg, SET=name, ELEMENTS=some)

    def rule(self, chain: str, *steps: Expression, comment: str = "") -> None:
        """Add a rule at the end of `chain`. Its `steps` are expressions, made in nft_expressions.py."""
        more = {"USERDATA": {"value": comment}} if comment else {}
        self._add(nft.NFT_MSG_NEWRULE, nft.nft_rule_msg, CHAIN=chain, EXPRESSIONS=list(steps), **more)

    def drop(self, chain: str, reason: str, *steps: Expression) -> None:
        """Add a rule that counts and drops the frames which match all `steps`. frame_counts() has it as `reason`."""
        self.rule(chain, *steps, count(), verdict(DROP), comment=reason)

    def install(self) -> None:
        """Give the table to the kernel, in place of one of the same name. Frames see the old rules or the new ones."""
        try:
            # Without an old table this takes the kernel 0.3 ms. To remove one takes it about 13 ms.
            _transact([_table(nft.NFT_MSG_NEWTABLE, self.name, NLM_F_CREATE | NLM_F_EXCL), *self._messages])
        except FileExistsError:
            _transact(self._replacement())

    def dry_run(self) -> None:
        """Have the kernel check the table as install() would, but leave nothing behind."""
        _transact([*self._replacement(), _table(nft.NFT_MSG_DELTABLE, self.name)])

    def _replacement(self) -> list[bytes]:
        # Make it first: to delete a table that is not there is an error, and undoes the whole transaction.
        new, old = (_table(kind, self.name) for kind in (nft.NFT_MSG_NEWTABLE, nft.NFT_MSG_DELTABLE))
        return [new, old, new, *self._messages]

    def _set(self, name: str, length: int, kind: int, **more: Any) -> None:
        self._sets += 1
        key = {"KEY_TYPE": kind, "KEY_LEN": length}
        self._add(nft.NFT_MSG_NEWSET, nft.nft_set_msg, NAME=name, ID=self._sets, **key, **more)

    def _add(self, kind: int, form: Any, **values: Any) -> None:
        self._messages.append(_message(kind, form, TABLE=self.name, **values))


def remove(table: str) -> None:
    """Remove the table of this name, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        _transact([_table(nft.NFT_MSG_DELTABLE, table)])


def remove_by_handle(handles: Iterable[int]) -> None:
    """Remove the tables that have these handles, all of them at once; see table_handles().

    A table that was made since then, under an old name, has another handle and stays. If one of the tables is gone
    already, none is removed, and that is no error.
    """
    messages = [_message(nft.NFT_MSG_DELTABLE, nft.nft_table_msg, HANDLE=handle) for handle in handles]
    if messages:
        with contextlib.suppress(FileNotFoundError):
            _transact(messages)


def table_handles() -> dict[str, int]:
    """The handle of each netdev table, by the table's name. The kernel gives each new table a new handle."""
    found = _dump(nft.NFT_MSG_GETTABLE, nft.nft_table_msg)
    return {str(table.get_attr("NFTA_TABLE_NAME")): int(table.get_attr("NFTA_TABLE_HANDLE")) for table in found}


def frame_counts(table: str) -> Counter[str]:
    """How many frames the rules of a table have counted, by the rules' comments."""
    counts: Counter[str] = Counter()
    for rule in _dump(nft.NFT_MSG_GETRULE, nft.nft_rule_msg, TABLE=table):
        # An old kernel answers with the rules of all tables.
        if rule.get_attr("NFTA_RULE_TABLE") != table:
            continue
        for step in rule.get_attr("NFTA_RULE_EXPRESSIONS"):
            if step.get_attr("NFTA_EXPR_NAME") == "counter":
                frames = step.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_COUNTER_PACKETS")
                counts[rule.get_attr("NFTA_RULE_USERDATA")] += frames
    return counts


def _message(kind: int, form: Any, flags: int = NLM_F_CREATE | NLM_F_APPEND, **values: Any) -> bytes:
    message = form()
    message["nfgen_family"] = NETDEV
    message["attrs"] = [(form.prefix + name, value) for name, value in values.items()]
    return _encoded(message, kind | NFNL_SUBSYS_NFTABLES << 8, flags)


def _table(kind: int, name: str, flags: int = NLM_F_CREATE) -> bytes:
    return _message(kind, nft.nft_table_msg, flags, NAME=name)


def _encoded(message: Any, kind: int, flags: int = 0) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message.encode()
    return bytes(message.data)


def _transact(messages: Iterable[bytes]) -> None:
    ends = []
    for kind in (BATCH_BEGIN, BATCH_END):
        end = nfgen_msg()
        end["res_id"] = NFNL_SUBSYS_NFTABLES
        ends.append(_encoded(end, kind))
    # The kernel sends no answer to what succeeds.
    _ask(b"".join([ends[0], *messages, ends[1]]))


def _dump(kind: int, form: Any, **values: Any) -> Iterator[Any]:
    for got, data in _ask(_message(kind, form, NLM_F_DUMP, **values)):
        # NFT_MSG_NEW... answers NFT_MSG_GET..., and its number is one less.
        if got == kind - 1 | NFNL_SUBSYS_NFTABLES << 8:
            message = form(data)
            message.decode()
            yield message


def _ask(request: bytes) -> list[tuple[int, bytes]]:
    """Send the request; return the type and the whole of each message of the answer. Raises OSError if one is an
    error."""
    # Open the socket in this thread: another thread may be in another network namespace.
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    # The kernel may take tens of milliseconds to put rules in force, and some more to close the socket. In a thread, so
    # that the other clients' frames go on meanwhile.
    received: list[bytes] = gevent.get_hub().threadpool.apply(_exchange, (sock, request))
    answers = []
    for data in received:
        while len(data) >= _HEADER.size:
            size, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == NLMSG_ERROR and (number := -_ERROR.unpack_from(data, _HEADER.size)[0]):
                raise OSError(number, os.strerror(number))
            answers.append((kind, data[:size]))
            data = data[size + 3 & ~3 :]
    return answers


def _exchange(sock: socket.socket, request: bytes) -> list[bytes]:
    received = []
    with sock, contextlib.suppress(BlockingIOError):
        sock.setblocking(False)
        sock.sendto(request, (0, 0))
        while True:
            received.append(sock.recv(_ANSWER))
    return received
