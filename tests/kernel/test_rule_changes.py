"""What nf_tables' notifications tell of others and of us."""

from __future__ import annotations

from etherws.kernel.netlink import HEADER, attribute
from etherws.kernel.rule_changes import (
    DELTABLE,
    ELEMENTS_SET,
    NETDEV,
    NEWGEN,
    NEWRULE,
    NEWSETELEM,
    NEWTABLE,
    PROCESS_ID,
    PROCESS_NAME,
    RULE_HANDLE,
    SUBSYSTEM,
    TABLE,
    TABLE_HANDLE,
    Change,
    Finished,
    RuleChanges,
)

OURS, THEIRS = 0x8765_4321, 1
INET = 1


def message(kind: int, *attributes: bytes, sequence: int = OURS, family: int = NETDEV) -> bytes:
    body = bytes([family, 0, 0, 0]) + b"".join(attributes)
    return HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | kind, 0, sequence, 99) + body


def named(name: str = "etherws-a") -> bytes:
    return attribute(TABLE, name.encode() + b"\0")


def handle(kind: int, number: int) -> bytes:
    return attribute(kind, number.to_bytes(8, "big"))


def end(sequence: int) -> bytes:
    name, process = attribute(PROCESS_NAME, b"nft\0"), attribute(PROCESS_ID, (42).to_bytes(4, "big"))
    return message(NEWGEN, process, name, sequence=sequence, family=0)


MADE = message(NEWTABLE, named(), handle(TABLE_HANDLE, 5)) + message(NEWRULE, named(), handle(RULE_HANDLE, 2))


def test_changes_of_others_are_told_and_ours_are_not() -> None:
    changes = RuleChanges(OURS)
    assert not list(changes.read(MADE + end(OURS)))
    removal = message(DELTABLE, named(), handle(TABLE_HANDLE, 5), sequence=THEIRS)
    assert list(changes.read(removal + end(THEIRS))) == [Change("etherws-a", None), Finished("nft", 42)]
    # An old kernel does not say who it was.
    assert list(changes.read(message(NEWGEN, sequence=THEIRS, family=0))) == [Finished("", 0)]


def test_whose_elements_a_set_got_is_known_at_the_end() -> None:
    changes = RuleChanges(OURS)
    elements = message(NEWSETELEM, named(), attribute(ELEMENTS_SET, b"addresses\0"), sequence=0)
    assert not list(changes.read(elements + elements + end(OURS)))
    assert not list(changes.read(elements))
    assert list(changes.read(end(THEIRS))) == [Change("etherws-a", "addresses"), Finished("nft", 42)]
    assert list(changes.read(end(THEIRS))) == [Finished("nft", 42)]


def test_other_families_and_other_messages_do_not_count() -> None:
    changes = RuleChanges(OURS)
    other = message(DELTABLE, named(), sequence=THEIRS, family=INET)
    link = HEADER.pack(HEADER.size, 16, 0, THEIRS, 0)
    short = HEADER.pack(HEADER.size, SUBSYSTEM << 8 | DELTABLE, 0, THEIRS, 0)
    nameless = message(DELTABLE, sequence=THEIRS)
    assert list(changes.read(other + link + short + nameless)) == [Change("", None)]


def test_tables_that_are_not_as_we_made_them_are_found() -> None:
    changes = RuleChanges(OURS)
    assert changes.differing(["etherws-a"], {"etherws-a": {5, 2}}) == ["etherws-a"]
    assert not list(changes.read(MADE))
    assert not changes.differing(["etherws-a"], {"etherws-a": {5, 2}, "theirs": {9}})
    for present in ({}, {"etherws-a": {5}}, {"etherws-a": {5, 2, 3}}, {"etherws-a": {6, 2}}):
        assert changes.differing(["etherws-a"], present) == ["etherws-a"]
    # Removed by us; and a rule of a table that we do not know.
    removal = message(DELTABLE, named()) + message(NEWRULE, named("b"), handle(RULE_HANDLE, 1))
    assert not list(changes.read(removal))
    assert changes.differing(["etherws-a"], {}) == ["etherws-a"]
