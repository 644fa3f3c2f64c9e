"""The environment of a program: complete, and without anything that a peer could use."""

from __future__ import annotations

from etherws.hooks.facts import CHANGE, CONNECTED, PATH, UP, Facts, environment


def test_a_program_is_told_all_and_nothing_else() -> None:
    facts = Facts("server", "ethws1", "br0", "192.0.2.2", "alice", ("10.9.0.1/24", "fd00:9::1/64"))
    assert environment(UP, CONNECTED, facts) == {
        b"ETHERWS_HOOK": b"up",
        b"ETHERWS_REASON": b"connected",
        b"ETHERWS_ROLE": b"server",
        b"ETHERWS_DEVICE": b"ethws1",
        b"ETHERWS_BRIDGE": b"br0",
        b"ETHERWS_PEER": b"192.0.2.2",
        b"ETHERWS_IDENTITY": b"alice",
        b"ETHERWS_ADDRESSES": b"10.9.0.1/24 fd00:9::1/64",
        b"PATH": PATH.encode(),
    }
    assert environment(CHANGE, CONNECTED, Facts("client", "ethws0"))[b"ETHERWS_IDENTITY"] == b""


def test_hostile_names_are_printable_and_short() -> None:
    name = "$(reboot)`id`;\x00\n\r\x1b[31m\u202e\udcff" + "x" * 100_000
    found = environment(UP, CONNECTED, Facts("server", "e\n", peer="\x00", identity=name))
    assert found[b"ETHERWS_IDENTITY"] == b"$(reboot)`id`;????[31m??".ljust(200, b"x")
    assert found[b"ETHERWS_PEER"] == b"?"
    assert all(value.decode().isprintable() for value in found.values())
