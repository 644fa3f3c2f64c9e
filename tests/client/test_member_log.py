"""What the log says of the members of a link."""

from __future__ import annotations

from functools import partial

import pytest

from etherws.client import member_log
from etherws.client.member_log import MemberLog
from etherws.errors import ConnectError
from etherws.log_limit import LogLimit


def test_each_loss_and_each_return_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    there = 1
    log = MemberLog("ws://a", 3, lambda: there)
    for number in (1, 2):
        there += 1
        log.joined(number)
    there = 2
    log.lost(1, "connection lost", back=False)
    log.failed(1, ConnectError("Connection refused"))
    log.failed(1, ConnectError("Connection refused"))
    assert log.trouble == "ws://a: 2 of 3 are there; no further connection: Connection refused"
    there = 3
    log.joined(1)
    assert log.trouble == ""
    # One that is back before the line is written.
    log.lost(2, "closed by the peer, code 1012", back=True)
    log.joined(2)
    log.failed(0, ConnectError("Connection refused"))
    assert caplog.messages == [
        "connected to ws://a by 3 connections",
        "lost connection 1 to ws://a: connection lost; 2 of 3 are there, trying again",
        "cannot connect to ws://a by a further connection: Connection refused; 2 of 3 are there, trying again",
        "connection 1 to ws://a is there again",
        "lost connection 2 to ws://a: closed by the peer, code 1012; it is there again",
        "cannot connect to ws://a by a further connection: Connection refused; 3 of 3 are there, trying again",
    ]


def test_connections_that_come_and_go_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    # What is said later would be in the log of another test.
    monkeypatch.setattr(member_log, "LogLimit", partial(LogLimit, later=lambda *_: None))
    log = MemberLog("ws://a", 2, lambda: 2)
    for _ in range(1000):
        log.lost(1, "connection lost", back=True)
    assert len(caplog.messages) <= 6
    # A link of one connection that is replaced says nothing when it is complete.
    caplog.clear()
    MemberLog("ws://a", 1, lambda: 1).joined(0)
    assert caplog.messages == []
