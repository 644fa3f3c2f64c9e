"""The records of who joins and leaves: complete, never left out, harmless."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from etherws.errors import ConnectionClosed, EtherwsError
from etherws.events import JOIN, LEAVE, event_of
from etherws.server import comings
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
