"""Refusals: counted by reason, told with a number, and no flood fills the log."""

from __future__ import annotations

import logging

import pytest

from etherws.errors import Refused
from etherws.events import REFUSED, event_of
from etherws.log_limit import BURST, LogLimit
from etherws.server import refusals as refusals_module
from etherws.server.refusals import OTHER, Refusals

log = logging.getLogger("etherws.tests")


@pytest.fixture
def noted(caplog: pytest.LogCaptureFixture) -> Refusals:
    """On a clock that stands still, without timers."""
    caplog.set_level(logging.INFO, "etherws")
    return Refusals(LogLimit(log, clock=lambda: 0.0, later=lambda seconds, call: None))


def test_a_refusal_has_a_number_in_the_log_and_in_its_event(noted: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    refusal = Refused("403 Forbidden", "no", kind="policy", warning="was refused: the policy says no")
    number = noted.note(refusal, "192.0.2.1", "alice")
    assert len(number) == 8
    assert int(number, 16) >= 0
    record = caplog.records[0]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"192.0.2.1 as 'alice' was refused: the policy says no (refusal {number})"
    kind, fields = event_of(record)
    assert kind == REFUSED
    assert fields == {
        "address": "192.0.2.1",
        "identity": "alice",
        "reason": "the policy says no",
        "cause": "policy",
        "status": 403,
        "refusal": number,
    }
    assert noted.counts() == {"policy": 1}


def test_what_needs_nobody_is_told_at_a_lower_level_with_its_status(
    noted: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    number = noted.note(Refused("404 Not Found", "there is no tunnel at this path"), "192.0.2.1")
    text = "192.0.2.1 was refused: 404 Not Found: there is no tunnel at this path"
    assert caplog.records[0].getMessage() == f"{text} (refusal {number})"
    assert caplog.records[0].levelno == logging.INFO
    assert noted.counts() == {"not found": 1}


def test_a_flood_is_counted_and_fills_nothing(noted: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    refusal = Refused("401 Unauthorized", "wrong", kind="wrong token", warning="login refused: wrong token")
    for _ in range(10_000):
        noted.note(refusal, "192.0.2.1")
    assert len(caplog.records) == BURST
    assert noted.counts() == {"wrong token": 10_000}


def test_reasons_are_bounded(noted: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "REASONS_MAX", 2)
    for kind in ("one", "two", "three", "one", "four"):
        noted.count(kind)
    assert noted.counts() == {"one": 2, "two": 1, OTHER: 2}


def test_a_hostile_name_is_harmless_in_the_log(noted: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    noted.note(Refused("403 Forbidden", "no"), "192.0.2.1", "\x1b[31m<b>\n\u202e" + 10_000 * "x")
    line = caplog.records[0].getMessage()
    assert line.isprintable()
    assert len(line) < 400
    assert len(event_of(caplog.records[0]).fields["identity"]) <= 200
