"""Events on their way from a worker: what comes out is what went in, and nothing that was made up."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from etherws.errors import ChannelError
from etherws.events import JOIN, event, event_of
from etherws.workers.told_events import FIELDS_MAX, TEXT_MAX, event_message, record_of


def record(text: str = "alice joined", kind: str = JOIN, **fields: Any) -> logging.LogRecord:
    extra = event(kind, **fields)
    return logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "levelname": "INFO", **extra})


def passed(message: dict[str, Any]) -> logging.LogRecord:
    """As the other process gets it."""
    return record_of(json.loads(json.dumps(message)), "etherws.workers")


def test_a_record_arrives_with_its_fields() -> None:
    found = passed(event_message(record(identity="alice", seconds=1.5, drops={"queue late": 2})))
    assert (found.getMessage(), found.levelname, found.name) == ("alice joined", "INFO", "etherws.workers")
    assert event_of(found) == (JOIN, {"identity": "alice", "seconds": 1.5, "drops": {"queue late": 2}})


def test_what_was_left_out_is_said() -> None:
    text = passed(event_message(record(), left_out=7)).getMessage()
    assert text.startswith("alice joined (7 events before it were left out")


def test_what_is_too_long_is_cut_off() -> None:
    found = passed(event_message(record("x" * 10_000, identity="y" * 10_000)))
    assert len(found.getMessage()) == TEXT_MAX
    assert event_of(found) == (JOIN, {})


def test_what_json_cannot_have_becomes_text() -> None:
    assert event_of(passed(event_message(record(what=Exception("no"))))).fields == {"what": "no"}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "made up"},
        {"kind": None},
        {"fields": []},
        {"fields": {"x": "y" * (FIELDS_MAX + 1)}},
        {"level": "high"},
        {"level": 1000},
        {"text": 7},
        {"text": "x" * (TEXT_MAX + 1)},
        {"left_out": -1},
    ],
)
def test_what_is_malformed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        passed({**event_message(record()), **change})
