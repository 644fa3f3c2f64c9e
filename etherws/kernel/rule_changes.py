"""Finds, in nf_tables' notifications, what others have done to our tables.

A notification has the sequence number of the request that made the change. All requests of this process have one
number, which others are unlikely to use: so our own changes are told from everybody else's. From our own this learns
which rules each table should have, in case notifications are lost.

Pure. Read next: guard.py, which has the socket and puts rules back. Sources: include/uapi/linux/netfilter/nf_tables.h,
nfnetlink.h; Linux net/netfilter/nf_tables_api.c (nf_tables_commit).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from etherws.kernel import netlink

#: include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
SUBSYSTEM = 10
NEWTABLE, DELTABLE, NEWRULE, NEWSETELEM, DELSETELEM, NEWGEN = 0, 2, 6, 12, 14, 15
#: struct nfgenmsg is a family, a version and two bytes more.
NFGENMSG = 4
NETDEV = 5
#: Attributes. The first of every kind of message is the table's name.
TABLE, TABLE_HANDLE, RULE_HANDLE, ELEMENTS_SET = 1, 4, 3, 2
PROCESS_ID, PROCESS_NAME = 2, 3


class Change(NamedTuple):
    """Others have changed a netdev table. `elements_of` is the set, if they changed only which elements it has."""

    table: str
    elements_of: str | None


class Finished(NamedTuple):
    """The end of one transaction of others, and who made it: a process's name and number; "" before Linux 4.14."""

    program: str
    process: int


class RuleChanges:
    """Reads the notifications, in the order of their coming."""

    def __init__(self, sequence: int) -> None:
        """`sequence` is the number of our own requests."""
        self._sequence = sequence
        #: Changes of sets' elements in the transaction that is being told of.
        self._elements: dict[Change, None] = {}
        #: For each of our tables its handle and those of its rules. The kernel never uses one again.
        self._ours: dict[str, set[int]] = {}

    def read(self, data: bytes) -> Iterator[Change | Finished]:
        """What others have done."""
        for kind, sequence, _, body, _ in netlink.messages(data):
            if kind >> 8 != SUBSYSTEM or len(body) < NFGENMSG:
                continue
            own = sequence == self._sequence
            if kind & 0xFF == NEWGEN:
                if not own:
                    yield from self._elements
                    yield _finished(body)
                self._elements.clear()
            elif body[0] != NETDEV:
                continue
            elif kind & 0xFF in (NEWSETELEM, DELSETELEM):
                # These alone have no sequence number: whose they are tells the end of the transaction.
                self._elements[_change(kind & 0xFF, body)] = None
            else:
                if own:
                    self._note(kind & 0xFF, body)
                else:
                    yield _change(kind & 0xFF, body)

    def differing(self, names: Iterable[str], present: Mapping[str, set[int]]) -> list[str]:
        """Those of our tables of these `names` that are not as we made them, or of which that is not known.

        `present` has, for each table that the kernel has, its handle and those of its rules.
        """
        return [name for name in names if name not in self._ours or present.get(name) != self._ours[name]]

    def _note(self, kind: int, body: memoryview) -> None:
        found = dict(netlink.attributes(body[NFGENMSG:]))
        table = netlink.text(found.get(TABLE, memoryview(b"")))
        if kind == NEWTABLE:
            self._ours[table] = {_number(found, TABLE_HANDLE)}
        elif kind == DELTABLE:
            self._ours.pop(table, None)
        elif kind == NEWRULE and table in self._ours:
            self._ours[table].add(_number(found, RULE_HANDLE))


def _change(kind: int, body: memoryview) -> Change:
    table = elements_of = None
    for key, value in netlink.attributes(body[NFGENMSG:]):
        if key == TABLE:
            table = netlink.text(value)
        elif key == ELEMENTS_SET and kind in (NEWSETELEM, DELSETELEM):
            elements_of = netlink.text(value)
        if key >= ELEMENTS_SET:
            # The rest may be long.
            break
    return Change(table or "", elements_of)


def _finished(body: memoryview) -> Finished:
    found = dict(netlink.attributes(body[NFGENMSG:]))
    process = int.from_bytes(found.get(PROCESS_ID, b""), "big")
    return Finished(netlink.text(found.get(PROCESS_NAME, memoryview(b""))), process)


def _number(found: Mapping[int, memoryview], key: int) -> int:
    return int.from_bytes(found.get(key, b""), "big")
