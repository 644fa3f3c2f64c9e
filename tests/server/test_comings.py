"""The records of who joins and leaves: complete, never left out, harmless."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from etherws.counters import Traffic
from etherws.errors import ConnectionClosed, EtherwsError
from etherws.events import JOIN, LEAVE, event_of
from etherws.features import Membership
from etherws.server import comings
from etherws.server.comings import Parting
from etherws.server.port import ClientKey

ALICE = ClientKey("alice", None, "192.0.2.1", "198.51.100.1")


class Session:
    """One that has carried a little."""

    age = 61.5

    def status(self) -> dict[str, Any]:
        return {"wire": 2, "sent": {"bytes": 100}, "received": {"bytes": 50}, "drops": {"queue late": 2}}

    def counters(self, more: dict[str, int]) -> str:
        return "; sent 100 bytes, received 50"


def left(reason: EtherwsError, client: ClientKey = ALICE) -> None:
    comings.left(client, "ethws0", Session(), reason, {"source-address": 3, "queue late": 1})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")


def test_a_join_and_a_leave_have_all_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    comings.joined(ALICE, "ethws0", 2)
    left(ConnectionClosed("nothing heard for 30 s"))
    join, leave = map(event_of, caplog.records)
    who = {"identity": "alice", "address": "192.0.2.1", "proxy": "198.51.100.1", "device": "ethws0", "wire": 2}
    assert join == (JOIN, who)
    assert leave.kind == LEAVE
    assert leave.fields == {
        **who,
        "seconds": 61.5,
        "sent": 100,
        "received": 50,
        "drops": {"queue late": 3, "source-address": 3},
        "reason": "nothing heard for 30 s",
        "code": None,
    }
    assert caplog.records[1].getMessage() == (
        "192.0.2.1 as 'alice' left ethws0 after 62 s: nothing heard for 30 s; sent 100 bytes, received 50"
    )


def test_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        comings.joined(ALICE, "ethws0", 1)
    assert len(caplog.records) == 1000


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (ConnectionClosed("closed by the peer, code 1000", 1000), " (it was stopped, or left on purpose)"),
        (ConnectionClosed("closed by the peer, code 1012", 1012), " (it restarts, and comes back at once)"),
        (ConnectionClosed("closed by the peer, code 4000: bye", 4000), ""),
        (ConnectionClosed("closed by the peer, code none"), ""),
        # Ours: what it says is what it means.
        (ConnectionClosed("draining", 1012), ""),
        (EtherwsError("ethws0 is gone"), ""),
    ],
)
def test_a_close_code_is_told_in_words(reason: EtherwsError, words: str) -> None:
    assert comings.in_words(reason) == f"{reason}{words}"


def test_a_hostile_name_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    hostile = ClientKey("\x1b[31m<script>\n\u202e" + 10_000 * "x", None, "192.0.2.1")
    comings.joined(hostile, "ethws0", 2)
    left(EtherwsError("x"), hostile)
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert len(event_of(record).fields["identity"]) == 200
        assert event_of(record).fields["identity"].isprintable()


def test_a_client_with_a_link_is_one_that_joins_and_leaves(caplog: pytest.LogCaptureFixture) -> None:
    comings.joined(ALICE, "ethws0", 2, Membership(0, 8))
    comings.joined(ALICE, "ethws0", 2, Membership(0, 1))
    parting = Parting(Traffic(100, 2), Traffic(50), reason="closed by the peer, code 1000", code=1000)
    comings.link_left(ALICE, "ethws0", 61.5, parting, {"source-address": 3})
    comings.link_left(ALICE, "ethws0", 1.0, Parting(reason="cut"), {})
    assert [record.getMessage().removeprefix("192.0.2.1 as 'alice' ") for record in caplog.records] == [
        "joined on ethws0, by version 2 of the wire, with 8 connections at most",
        "joined on ethws0, by version 2 of the wire",
        "left ethws0 after 62 s: closed by the peer, code 1000; sent 100 bytes, received 50; dropped 3 source-address",
        "left ethws0 after 1 s: cut",
    ]
    leave = event_of(caplog.records[2])
    assert (leave.kind, leave.fields["sent"], leave.fields["drops"]) == (LEAVE, 100, {"source-address": 3})
    assert (leave.fields["wire"], leave.fields["seconds"], leave.fields["code"]) == (2, 61.5, 1000)


def test_one_connection_of_a_link_is_told_if_it_was_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: list[Callable[[], None]] = []
    monkeypatch.setattr(comings, "spawn_later", lambda _, *call: later.append(partial(*call)))
    for code, there in ((1000, 7), (None, 7), (None, 0)):
        parting = Parting(reason="nothing heard for 30 s", code=code)
        # Without others, by then, the client has left, and that has its own line.
        comings.member_left(ALICE, "ethws0", Membership(3, 8), parting, lambda there=there: there)  # type: ignore[misc]
    comings.member_joined(ALICE, "ethws0", Membership(3, 8))
    assert not caplog.records
    for call in later:
        call()
    (record,) = caplog.records
    assert record.getMessage() == (
        "192.0.2.1 as 'alice': lost connection 3 on ethws0: nothing heard for 30 s; 7 of 8 are there"
    )
    kind, fields = event_of(record)
    assert (kind, fields["what"], fields["member"], fields["identity"]) == ("port", "connection lost", 3, "alice")


def test_what_another_process_tells_of_an_end_is_checked() -> None:
    parting = Parting(Traffic(1, 2, 3), Traffic(4, 5, 6), reason="so", code=1001)
    parting.drops["queue late"] = 7
    values = parting.to_values()
    assert Parting.from_values(values) == parting
    assert Parting.from_values({**values, "reason": "a\nb"}).reason == "a?b"
    assert Parting.from_values({**values, "drops": {"a\nb": 1}}).drops == {"a?b": 1}
    for wrong in (
        {"sent": {"bytes": -1}},
        {"sent": {"bytes": "1"}},
        {"sent": {"octets": 1}},
        {"received": None},
        {"drops": {"x": 1.5}},
        {"drops": dict.fromkeys(map(str, range(1000)), 1)},
        {"drops": 7},
        # Together with a name such keys cannot be sorted.
        {"drops": [[1, 2]]},
        {"sent": {"bytes": 1 << 64}},
        {"code": -1},
        {"code": "1000"},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Parting.from_values({**values, **wrong})
    del values["sent"]
    with pytest.raises(KeyError):
        Parting.from_values(values)
