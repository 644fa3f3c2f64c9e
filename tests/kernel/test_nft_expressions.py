"""What rules are made of: each expression, set and element has the bytes that pyroute2 gives it, and is read again."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.nfnetlink import nftsocket as nft

from etherws.kernel import netlink, nfnetlink, nft_expressions
from etherws.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from etherws.kernel.nft_expressions import (
    AT_LEAST,
    DROP,
    ETHERNET_ADDRESSES,
    ETHERTYPE,
    JUMP,
    NETWORK,
    RETURN,
    TRANSPORT,
    UPPER,
    Expression,
    add_to_set,
    comment,
    comment_of,
    compare,
    count,
    counted,
    element,
    element_of,
    faster_than,
    in_set,
    load,
    load_extension,
    mask,
    verdict,
)
from etherws.kernel.nftables import ELEMENTS, ELEMENTS_SET, TABLE, Table

#: Where a message begins behind its header, which has flags.
HEAD = netlink.HEADER.size


def named(prefix: str, **values: Any) -> dict[str, Any]:
    """Attributes as pyroute2 wants them."""
    return {"attrs": [(prefix + name, value) for name, value in values.items()]}


def step(name: str, **values: Any) -> dict[str, Any]:
    return named("NFTA_EXPR_", NAME=name, DATA=named(f"NFTA_{name.upper()}_", **values))


def data(value: bytes) -> dict[str, Any]:
    return named("NFTA_DATA_", VALUE=value)


def decision(**values: Any) -> dict[str, Any]:
    return step("immediate", DREG=0, DATA=named("NFTA_DATA_", VERDICT=named("NFTA_VERDICT_", **values)))


def by_pyroute2(kind: int, form: Any, **values: Any) -> bytes:
    """A message of pyroute2's that adds something at the end."""
    made = form()
    made["nfgen_family"] = nfnetlink.NETDEV
    made["attrs"] = named(form.prefix, **values)["attrs"]
    made["header"]["type"] = kind | nfnetlink.NFNL_SUBSYS_NFTABLES << 8
    made["header"]["flags"] = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND
    made["header"]["sequence_number"] = nfnetlink.SEQUENCE
    made.encode()
    return bytes(made.data)


#: An expression, and what pyroute2 makes it of.
EXPRESSIONS = {
    "load": (load(NETWORK, 12, 4), step("payload", DREG=1, BASE=1, OFFSET=12, LEN=4)),
    "load far": (load(TRANSPORT, 300, 16), step("payload", DREG=1, BASE=2, OFFSET=300, LEN=16)),
    "extension": (load_extension(44, 0, 1), step("exthdr", DREG=1, TYPE=44, OFFSET=0, LEN=1)),
    "mask": (mask(b"\x3f\xff"), step("bitwise", SREG=1, DREG=1, LEN=2, MASK=data(b"\x3f\xff"), XOR=data(bytes(2)))),
    "equal": (compare(b"\x08\x00"), step("cmp", SREG=1, OP=0, DATA=data(b"\x08\x00"))),
    "at least": (compare(b"\x01", AT_LEAST), step("cmp", SREG=1, OP=5, DATA=data(b"\x01"))),
    "in a set": (in_set("some"), step("lookup", SET="some", SREG=1)),
    "add to a set": (add_to_set("some"), step("dynset", SET_NAME="some", OP=1, SREG_KEY=1)),
    "limit": (faster_than(10**10, 77), step("limit", RATE=10**10, UNIT=1, BURST=77, TYPE=0, FLAGS=1)),
    "count": (count(), step("counter", BYTES=0, PACKETS=0)),
    "drop": (verdict(DROP), decision(CODE=0)),
    "return": (verdict(RETURN), decision(CODE=-5)),
    "jump": (verdict(JUMP, "chain"), decision(CODE=-3, CHAIN="chain")),
    "EtherType": (ETHERTYPE, step("meta", DREG=1, KEY=1)),
    "protocol": (UPPER, step("meta", DREG=1, KEY=16)),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_what_pyroute2_makes(name: str) -> None:
    ours, theirs = EXPRESSIONS[name]
    table = Table("table")
    table.rule("chain", ours)
    whole = by_pyroute2(nfnetlink.NEWRULE, nft.nft_rule_msg, TABLE="table", CHAIN="chain", EXPRESSIONS=[theirs])
    assert table.replacement()[-1] == whole


def test_a_table_is_what_pyroute2_makes() -> None:
    table = Table("tablé")
    table.chain("begin", "port0")
    table.chain("other")
    table.addresses("learned", 65536, 300.5)
    table.addresses("fixed", [b"\x02\0\0\0\0\x01"])
    table.drop("begin", "reason", ETHERTYPE)
    hook = named("NFTA_HOOK_", HOOKNUM=0, PRIORITY=0, DEV="port0")
    timed = {
        "FLAGS": {"NFT_SET_TIMEOUT", "NFT_SET_EVAL"},
        "TIMEOUT": 300500,
        "DESC": named("NFTA_SET_DESC_", SIZE=65536),
    }
    key = {"KEY_TYPE": ETHERNET_ADDRESSES, "KEY_LEN": 6}
    one = [named("NFTA_SET_ELEM_", KEY=data(b"\x02\0\0\0\0\x01"))]
    steps = [EXPRESSIONS[name][1] for name in ("EtherType", "count", "drop")]
    rule = {"CHAIN": "begin", "EXPRESSIONS": steps, "USERDATA": {"value": "reason"}}
    new, _, _, *messages = table.replacement()
    assert new[HEAD:] == by_pyroute2(nfnetlink.NEWTABLE, nft.nft_table_msg, NAME="tablé")[HEAD:]
    assert messages == [
        by_pyroute2(kind, form, TABLE="tablé", **values)
        for kind, form, values in (
            (nfnetlink.NEWCHAIN, nft.nft_chain_msg, {"NAME": "begin", "HOOK": hook, "POLICY": 1, "TYPE": "filter"}),
            (nfnetlink.NEWCHAIN, nft.nft_chain_msg, {"NAME": "other"}),
            (nfnetlink.NEWSET, nft.nft_set_msg, {"NAME": "learned", "ID": 1, **key, **timed}),
            (nfnetlink.NEWSET, nft.nft_set_msg, {"NAME": "fixed", "ID": 2, **key, "FLAGS": set()}),
            (nfnetlink.NEWSETELEM, nft.nft_set_elem_list_msg, {"SET": "fixed", "ELEMENTS": one}),
            (nfnetlink.NEWRULE, nft.nft_rule_msg, rule),
        )
    ]


def test_an_element_has_a_time_or_stays() -> None:
    value = b"\x02\0\0\0\0\x01"
    for seconds, more in ((None, {}), (12.3456, {"EXPIRATION": 12345}), (0.0, {"EXPIRATION": 1})):
        ours = nft_expressions.attributes({TABLE: "table", ELEMENTS_SET: "set", ELEMENTS: element(value, seconds)})
        theirs = [named("NFTA_SET_ELEM_", KEY=data(value), **more)]
        whole = by_pyroute2(nfnetlink.NEWSETELEM, nft.nft_set_elem_list_msg, TABLE="table", SET="set", ELEMENTS=theirs)
        assert nfnetlink.message(nfnetlink.NEWSETELEM, ours, NLM_F_CREATE | NLM_F_APPEND) == whole
        [(_, read)] = netlink.attributes(element(value, seconds))
        assert element_of(read) == (value, more.get("EXPIRATION", 0) / 1000)


def test_a_comment_is_read_again_and_others_may_leave_anything_in_its_place() -> None:
    assert comment_of(memoryview(comment("source-address"))) == "source-address"
    for odd in (b"", b"\0", b"\x01\x02ab"):
        assert comment_of(memoryview(odd)) == "", odd


def test_counters_are_added_up() -> None:
    def counter(frames: int) -> Expression:
        return nft_expressions._expression("counter", bytes(8), frames.to_bytes(8, "big"))

    named_only = netlink.attribute(1, nft_expressions.attributes({1: "counter"}))
    nameless = netlink.attribute(1, nft_expressions.attributes({2: b""}))
    empty = nft_expressions._expression("counter")
    steps = [load(NETWORK, 0, 1), counter(3), counter(1 << 33), named_only, nameless, empty, verdict(DROP)]
    assert counted(memoryview(b"".join(steps))) == 3 + (1 << 33)
    assert counted(memoryview(b"")) == 0
