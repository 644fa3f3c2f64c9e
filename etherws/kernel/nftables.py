"""nf_tables by netlink: tables of rules for what comes in by one interface, installed as a whole or not at all.

This module knows no policy: filter_table.py says which rules a client gets, port_filter.py when. Every function may
raise OSError. Read next: nft_expressions.py, what rules are made of; nfnetlink.py, which sends the requests.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from etherws.kernel import nfnetlink, nft_expressions
from etherws.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, text
from etherws.kernel.nfnetlink import entries, message, parts, transact
from etherws.kernel.nft_expressions import (
    ACCEPT,
    DROP,
    ETHERNET_ADDRESSES,
    Expression,
    Value,
    attributes,
    count,
    element,
    verdict,
    wide,
)
from etherws.walks import in_turns

#: The hook of chains that see a frame before a bridge or the host does (enum nf_dev_hooks).
INGRESS = 0

#: Attributes of each kind of message (enum nft_table_attributes, nft_chain_attributes, nft_rule_attributes,
#: nft_set_attributes, nft_set_elem_list_attributes). The first of each is the table's name.
TABLE = 1
TABLE_HANDLE = 4
CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 3, 4, 5, 7
RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 2, 3, 4, 7
SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN, SET_DESC, SET_ID, SET_TIMEOUT = 2, 3, 4, 5, 9, 10, 11
ELEMENTS_SET, ELEMENTS = 2, 3

#: Attributes within these (enum nft_hook_attributes, nft_set_desc_attributes).
HOOK_HOOKNUM, HOOK_PRIORITY, HOOK_DEV = 1, 2, 3
DESC_SIZE = 1

#: enum nft_set_flags: elements have a time, and rules add some.
SET_HAS_TIMEOUT, SET_EVAL = 0x10, 0x20

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
        values: dict[int, Value] = {CHAIN_NAME: name}
        if device is not None:
            hook = attributes({HOOK_HOOKNUM: INGRESS, HOOK_PRIORITY: 0, HOOK_DEV: device})
            values |= {CHAIN_HOOK: hook, CHAIN_POLICY: ACCEPT, CHAIN_TYPE: "filter"}
        self._add(nfnetlink.NEWCHAIN, values)

    def addresses(self, name: str, what: int | Sequence[bytes], ageing: float = 0.0) -> None:
        """Add a set of Ethernet addresses.

        `what` lists them; or it is the most that the rules may add, and each then stays for `ageing` seconds.
        """
        if not isinstance(what, int):
            self.values(name, ETHERNET_ADDRESSES, what)
            return
        flags, size = SET_HAS_TIMEOUT | SET_EVAL, attributes({DESC_SIZE: what})
        more: dict[int, Value] = {SET_FLAGS: flags, SET_TIMEOUT: wide(int(ageing * 1000)), SET_DESC: size}
        self._set(name, 6, ETHERNET_ADDRESSES, more)

    def values(self, name: str, kind: int, listed: Sequence[bytes]) -> None:
        """Add a set of values that does not change; one at least, all of one length. `kind` is how nft shows them."""
        self._set(name, len(listed[0]), kind, {SET_FLAGS: 0})
        for start in range(0, len(listed), _ELEMENTS):
            some = b"".join(map(element, listed[start : start + _ELEMENTS]))
            self._add(nfnetlink.NEWSETELEM, {ELEMENTS_SET: name, ELEMENTS: some})

    def rule(self, chain: str, *steps: Expression, comment: str = "") -> None:
        """Add a rule at the end of `chain`. Its `steps` are expressions, made in nft_expressions.py."""
        values: dict[int, Value] = {RULE_CHAIN: chain, RULE_EXPRESSIONS: b"".join(steps)}
        if comment:
            values[RULE_USERDATA] = nft_expressions.comment(comment)
        self._add(nfnetlink.NEWRULE, values)

    def drop(self, chain: str, reason: str, *steps: Expression) -> None:
        """Add a rule that counts and drops the frames which match all `steps`. frame_counts() has it as `reason`."""
        self.rule(chain, *steps, count(), verdict(DROP), comment=reason)

    def install(self) -> None:
        """Give the table to the kernel, in place of one of the same name. Frames see the old rules or the new ones."""
        try:
            # Without an old table this takes the kernel 0.3 ms. To remove one takes it about 13 ms.
            transact([_table(nfnetlink.NEWTABLE, self.name, NLM_F_CREATE | NLM_F_EXCL), *self._messages])
        except FileExistsError:
            transact(self.replacement())

    def dry_run(self) -> None:
        """Have the kernel check the table as install() would, but leave nothing behind."""
        transact([*self.replacement(), _table(nfnetlink.DELTABLE, self.name)])

    def replacement(self) -> list[bytes]:
        """The requests that put this table in, in place of one of its name if there is one."""
        # Make it first: to delete a table that is not there is an error, and undoes the whole transaction.
        new, old = (_table(kind, self.name) for kind in (nfnetlink.NEWTABLE, nfnetlink.DELTABLE))
        return [new, old, new, *self._messages]

    def _set(self, name: str, length: int, kind: int, more: Mapping[int, Value]) -> None:
        self._sets += 1
        key = {SET_KEY_TYPE: kind, SET_KEY_LEN: length}
        self._add(nfnetlink.NEWSET, {SET_NAME: name, SET_ID: self._sets, **key, **more})

    def _add(self, kind: int, values: Mapping[int, Value]) -> None:
        self._messages.append(message(kind, attributes({TABLE: self.name, **values}), NLM_F_CREATE | NLM_F_APPEND))


def remove(table: str) -> None:
    """Remove the table of this name, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        transact([_table(nfnetlink.DELTABLE, table)])


def remove_by_handle(handles: Iterable[int]) -> None:
    """Remove the tables that have these handles, all of them at once; see table_handles().

    A table that was made since then, under an old name, has another handle and stays. If one of the tables is gone
    already, none is removed, and that is no error.
    """
    # A thousand clients may leave at once.
    messages = [message(nfnetlink.DELTABLE, attributes({TABLE_HANDLE: wide(handle)})) for handle in in_turns(handles)]
    if messages:
        with contextlib.suppress(FileNotFoundError):
            transact(messages)


def table_handles() -> dict[str, int]:
    """The handle of each netdev table, by the table's name. The kernel gives each new table a new handle."""
    request = message(nfnetlink.GETTABLE, flags=NLM_F_DUMP)
    return {
        text(table[TABLE]): int.from_bytes(table[TABLE_HANDLE], "big") for table in entries(nfnetlink.GETTABLE, request)
    }


def handles() -> dict[str, set[int]]:
    """For each netdev table, by its name, its handle and those of its rules. What is made anew has a new handle."""
    found = {name: {handle} for name, handle in table_handles().items()}
    for rule in entries(nfnetlink.GETRULE, message(nfnetlink.GETRULE, flags=NLM_F_DUMP)):
        if (name := text(rule[TABLE])) in found:
            found[name].add(int.from_bytes(rule[RULE_HANDLE], "big"))
    return found


def frame_counts(table: str) -> Counter[str]:
    """How many frames the rules of a table have counted, by the rules' comments."""
    counts: Counter[str] = Counter()
    for rule in entries(nfnetlink.GETRULE, message(nfnetlink.GETRULE, attributes({TABLE: table}), NLM_F_DUMP)):
        # An old kernel answers with the rules of all tables.
        if text(rule[TABLE]) == table and (reason := reason_of(rule)):
            counts[reason] += frames_of(rule)
    return counts


def reason_of(rule: Mapping[int, memoryview]) -> str:
    """The comment of a rule, which for Table.drop() is the reason; empty if it has none. `rule` has its attributes."""
    return nft_expressions.comment_of(rule.get(RULE_USERDATA, memoryview(b"")))


def frames_of(rule: Mapping[int, memoryview]) -> int:
    """How many frames the counters of a rule have counted. `rule` has its attributes."""
    return nft_expressions.counted(rule.get(RULE_EXPRESSIONS, memoryview(b"")))


def rules() -> list[bytes]:
    """All rules of all netdev tables, as nfnetlink.parts() gives them: for who reads them in turns. Raises OSError."""
    return parts(message(nfnetlink.GETRULE, flags=NLM_F_DUMP))


def _table(kind: int, name: str, flags: int = NLM_F_CREATE) -> bytes:
    return message(kind, attributes({TABLE: name}), flags)
