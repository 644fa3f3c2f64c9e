"""A gunicorn worker's events: told to the port process, and its log stays as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from etherws.events import JOIN, event
from etherws.gunicorn.worker_events import WorkerEvents, tell_events
from etherws.workers.messages import Message


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Channel:
    """Takes messages while there is `room`."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.room = True

    def offer(self, verb: str, values: Message) -> bool:
        assert verb == "event"
        if self.room:
            self.told.append(values)
        return self.room


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """One whose parent is a user's, which shows warnings."""
    parent = logging.getLogger("tests-of-worker-events")
    parent.setLevel(logging.WARNING)
    parent.propagate = False
    parent.addHandler(Kept())
    found = logging.getLogger("tests-of-worker-events.etherws")
    yield found
    for each in (parent, found):
        for handler in list(each.handlers):
            each.removeHandler(handler)
    found.propagate = True
    found.setLevel(logging.NOTSET)


def lines(logger: logging.Logger) -> Any:
    assert logger.parent is not None
    return logger.parent.handlers[0].lines  # type: ignore[attr-defined]


def test_events_are_told_and_the_log_is_as_before(logger: logging.Logger) -> None:
    own, channel = Kept(logging.ERROR), Channel()
    logger.addHandler(own)
    tell_events(channel.offer, logger)
    below = logging.getLogger(f"{logger.name}.server")
    below.info("alice joined", extra=event(JOIN, identity="alice"))
    below.info("nothing that matters")
    below.warning("a warning")
    below.error("an error")
    assert [message["text"] for message in channel.told] == ["alice joined"]
    assert lines(logger) == ["a warning", "an error"]
    assert own.lines == ["an error"]


def test_a_user_who_has_chosen_to_see_more_sees_it(logger: logging.Logger) -> None:
    logger.setLevel(logging.DEBUG)
    tell_events(Channel().offer, logger)
    logger.debug("small")
    assert lines(logger) == ["small"]


def test_a_logger_that_does_not_propagate_does_not(logger: logging.Logger) -> None:
    logger.propagate = False
    tell_events(Channel().offer, logger)
    logger.error("an error")
    assert lines(logger) == []


def test_what_finds_no_room_is_counted(logger: logging.Logger) -> None:
    channel = Channel()
    tell_events(channel.offer, logger)
    channel.room = False
    for _ in range(3):
        logger.info("x", extra=event(JOIN))
    channel.room = True
    logger.info("y", extra=event(JOIN))
    logger.info("z", extra=event(JOIN))
    assert [message["left_out"] for message in channel.told] == [3, 0]


def test_another_thread_does_not_use_the_channel() -> None:
    channel = Channel()
    handler = WorkerEvents(channel.offer)
    record = logging.makeLogRecord({"msg": "x", "levelno": logging.INFO, **event(JOIN)})
    gevent.get_hub().threadpool.apply(handler.handle, (record,))
    assert not channel.told
    handler.handle(record)
    assert channel.told[0]["left_out"] == 1
