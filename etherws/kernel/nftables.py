"""nf_tables by netlink: tables of rules for what comes in by one interface, installed as a whole or not at all.

This module knows no policy: filter_table.py says which rules a client gets, port_filter.py when. Every function may
raise OSError. Read next: nft_expressions.py, what rules are made of; nfnetlink.py, which sends the requests.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL
from pyroute2.netlink.nfnetlink import nftsocket as nft

from etherws.kernel import netlink
from etherws.kernel.nfnetlink import answers, dump, message, parts, transact
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

#: The hook of chains that see a frame before a bridge or the host does (enum nf_dev_hooks).
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
            transact([_table(nft.NFT_MSG_NEWTABLE, self.name, NLM_F_CREATE | NLM_F_EXCL), *self._messages])
        except FileExistsError:
            transact(self.replacement())

    def dry_run(self) -> None:
        """Have the kernel check the table as install() would, but leave nothing behind."""
        transact([*self.replacement(), _table(nft.NFT_MSG_DELTABLE, self.name)])

    def replacement(self) -> list[bytes]:
        """The requests that put this table in, in place of one of its name if there is one."""
        # Make it first: to delete a table that is not there is an error, and undoes the whole transaction.
        new, old = (_table(kind, self.name) for kind in (nft.NFT_MSG_NEWTABLE, nft.NFT_MSG_DELTABLE))
        return [new, old, new, *self._messages]

    def _set(self, name: str, length: int, kind: int, **more: Any) -> None:
        self._sets += 1
        key = {"KEY_TYPE": kind, "KEY_LEN": length}
        self._add(nft.NFT_MSG_NEWSET, nft.nft_set_msg, NAME=name, ID=self._sets, **key, **more)

    def _add(self, kind: int, form: Any, **values: Any) -> None:
        self._messages.append(message(kind, form, TABLE=self.name, **values))


def remove(table: str) -> None:
    """Remove the table of this name, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        transact([_table(nft.NFT_MSG_DELTABLE, table)])


def remove_by_handle(handles: Iterable[int]) -> None:
    """Remove the tables that have these handles, all of them at once; see table_handles().

    A table that was made since then, under an old name, has another handle and stays. If one of the tables is gone
    already, none is removed, and that is no error.
    """
    messages = [message(nft.NFT_MSG_DELTABLE, nft.nft_table_msg, HANDLE=handle) for handle in handles]
    if messages:
        with contextlib.suppress(FileNotFoundError):
            transact(messages)


def table_handles() -> dict[str, int]:
    """The handle of each netdev table, by the table's name. The kernel gives each new table a new handle."""
    found = dump(nft.NFT_MSG_GETTABLE, nft.nft_table_msg)
    return {str(table.get_attr("NFTA_TABLE_NAME")): int(table.get_attr("NFTA_TABLE_HANDLE")) for table in found}


def handles() -> dict[str, set[int]]:
    """For each netdev table, by its name, its handle and those of its rules. What is made anew has a new handle."""
    found = {name: {handle} for name, handle in table_handles().items()}
    for body in answers(nft.NFT_MSG_GETRULE, message(nft.NFT_MSG_GETRULE, nft.nft_rule_msg, NLM_F_DUMP)):
        rule = dict(netlink.attributes(body))
        # NFTA_RULE_TABLE, NFTA_RULE_HANDLE
        if (name := netlink.text(rule[1])) in found:
            found[name].add(int.from_bytes(rule[3], "big"))
    return found


def frame_counts(table: str) -> Counter[str]:
    """How many frames the rules of a table have counted, by the rules' comments."""
    counts: Counter[str] = Counter()
    for rule in dump(nft.NFT_MSG_GETRULE, nft.nft_rule_msg, TABLE=table):
        # An old kernel answers with the rules of all tables.
        if rule.get_attr("NFTA_RULE_TABLE") != table:
            continue
        for step in rule.get_attr("NFTA_RULE_EXPRESSIONS"):
            if step.get_attr("NFTA_EXPR_NAME") == "counter":
                frames = step.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_COUNTER_PACKETS")
                counts[rule.get_attr("NFTA_RULE_USERDATA")] += frames
    return counts


def rules() -> list[bytes]:
    """All rules of all netdev tables, as nfnetlink.parts() gives them: for who reads them in turns. Raises OSError."""
    return parts(message(nft.NFT_MSG_GETRULE, nft.nft_rule_msg, NLM_F_DUMP))


def _table(kind: int, name: str, flags: int = NLM_F_CREATE) -> bytes:
    return message(kind, nft.nft_table_msg, flags, NAME=name)
