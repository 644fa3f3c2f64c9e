"""nf_tables by netlink: tables of rules for what comes in by one interface, installed as a whole or not at all.

This module knows no policy: rules.py says which rules a client gets, port_filter.py when. Every function may raise
OSError. Read next: nfnetlink.py, which sends the requests.

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
from etherws.kernel.nfnetlink import answers, dump, message, transact

#: The hook of chains that see a frame before a bridge or the host does (enum nf_dev_hooks).
INGRESS = 0

#: Headers that load() reads from: Ethernet, IP, and TCP or UDP (enum nft_payload_bases).
LINK, NETWORK, TRANSPORT = 0, 1, 2
#: Keys of load_meta() (enum nft_meta_keys), operators of compare() (enum nft_cmp_ops), and verdicts (enum nft_verdicts,
#: and NF_DROP and NF_ACCEPT of include/uapi/linux/netfilter.h).
PROTOCOL, L4PROTO = 1, 16
EQUAL, UNEQUAL, AT_LEAST = 0, 1, 5
DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5

#: The register that every expression here uses; it holds 16 bytes.
_REGISTER = 1

#: Elements of a set in one message: a netlink attribute has 64 KiB at most.
_ELEMENTS = 1000

Expression = dict[str, Any]


class Table:
    """A netdev table under construction. Nothing reaches the kernel before install()."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._messages: list[bytes] = []

    def chain(self, name: str, device: str | None = None) -> None:
        """Add a chain: for what comes in by the interface `device`, or, with None, one to jump to."""
        more: dict[str, Any] = {}
        if device is not None:
            hook = _attributes("NFTA_HOOK_", HOOKNUM=INGRESS, PRIORITY=0, DEV=device)
            more = {"HOOK": hook, "POLICY": ACCEPT, "TYPE": "filter"}
        self._add(nft.NFT_MSG_NEWCHAIN, nft.nft_chain_msg, NAME=name, **more)

    def addresses(self, name: str, what: int | Sequence[bytes], ageing: float = 0.0) -> None:
        """Add a set of Ethernet addresses.

        `what` lists them; or it is the most that the rules may add, and each then stays for `ageing` seconds.
        """
        more: dict[str, Any] = {"FLAGS": set()}
        if isinstance(what, int):
            size = _attributes("NFTA_SET_DESC_", SIZE=what)
            more = {"FLAGS": {"NFT_SET_TIMEOUT", "NFT_SET_EVAL"}, "TIMEOUT": int(ageing * 1000), "DESC": size}
        kind = {"KEY_TYPE": nft.DATA_TYPE_ETHERADDR, "KEY_LEN": 6}
        self._add(nft.NFT_MSG_NEWSET, nft.nft_set_msg, NAME=name, ID=1, **kind, **more)
        listed = () if isinstance(what, int) else what
        for start in range(0, len(listed), _ELEMENTS):
            some = [_attributes("NFTA_SET_ELEM_", KEY=_data(address)) for address in listed[start : start + _ELEMENTS]]
            self._add(nft.NFT_MSG_NEWSETELEM, nft.nft_set_elem_list_msg, SET=name, ELEMENTS=some)

    def rule(self, chain: str, *steps: Expression, comment: str = "") -> None:
        """Add a rule at the end of `chain`. Its `steps` are expressions, made by the functions below."""
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
            transact(self._replacement())

    def dry_run(self) -> None:
        """Have the kernel check the table as install() would, but leave nothing behind."""
        transact([*self._replacement(), _table(nft.NFT_MSG_DELTABLE, self.name)])

    def _replacement(self) -> list[bytes]:
        # Make it first: to delete a table that is not there is an error, and undoes the whole transaction.
        new, old = (_table(kind, self.name) for kind in (nft.NFT_MSG_NEWTABLE, nft.NFT_MSG_DELTABLE))
        return [new, old, new, *self._messages]

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


def load(base: int, offset: int, length: int) -> Expression:
    """Load bytes of the LINK, NETWORK or TRANSPORT header. A frame that is too short for them does not match."""
    return _expression("payload", DREG=_REGISTER, BASE=base, OFFSET=offset, LEN=length)


def load_meta(key: int) -> Expression:
    """Load PROTOCOL, the EtherType, behind one VLAN tag if there is one; or L4PROTO, the protocol behind IP's header
    and IPv6's extension headers."""
    return _expression("meta", DREG=_REGISTER, KEY=key)


def load_extension(header: int, offset: int, length: int) -> Expression:
    """Load bytes of an IPv6 extension header. A frame without that header does not match."""
    return _expression("exthdr", DREG=_REGISTER, TYPE=header, OFFSET=offset, LEN=length)


def mask(bits: bytes) -> Expression:
    """Keep only these bits of what was loaded."""
    both = {"SREG": _REGISTER, "DREG": _REGISTER}
    return _expression("bitwise", **both, LEN=len(bits), MASK=_data(bits), XOR=_data(bytes(len(bits))))


def compare(value: bytes, how: int = EQUAL) -> Expression:
    """Match if what was loaded is EQUAL to `value`, UNEQUAL, or AT_LEAST it (both in network byte order)."""
    return _expression("cmp", SREG=_REGISTER, OP=how, DATA=_data(value))


def in_set(addresses: str) -> Expression:
    """Match if what was loaded is in the set."""
    return _expression("lookup", SET=addresses, SREG=_REGISTER, SET_ID=1)


def add_to_set(addresses: str) -> Expression:
    """Match if what was loaded is in the set, or if there is room to add it. Its time in the set starts again."""
    return _expression("dynset", SET_NAME=addresses, SET_ID=1, OP=1, SREG_KEY=_REGISTER)


def count() -> Expression:
    """Count the frame."""
    return _expression("counter", BYTES=0, PACKETS=0)


def verdict(code: int, chain: str | None = None) -> Expression:
    """DROP or ACCEPT the frame, JUMP to a chain, or RETURN from it."""
    where = {} if chain is None else {"CHAIN": chain}
    data = _attributes("NFTA_DATA_", VERDICT=_attributes("NFTA_VERDICT_", CODE=code, **where))
    return _expression("immediate", DREG=0, DATA=data)


def _attributes(prefix: str, **values: Any) -> dict[str, Any]:
    return {"attrs": [(prefix + name, value) for name, value in values.items()]}


def _data(value: bytes) -> dict[str, Any]:
    return _attributes("NFTA_DATA_", VALUE=value)


def _expression(name: str, **values: Any) -> Expression:
    return _attributes("NFTA_EXPR_", NAME=name, DATA=_attributes(f"NFTA_{name.upper()}_", **values))


def _table(kind: int, name: str, flags: int = NLM_F_CREATE) -> bytes:
    return message(kind, nft.nft_table_msg, flags, NAME=name)
