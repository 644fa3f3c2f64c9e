"""Events of a worker, on their way to the process that keeps those of all: to messages, and back to records of the log.

Workers of ``etherws server --workers`` need none of this: their log is a pipe that the parent reads (worker_log.py).
Those of gunicorn have a log of their own, and so tell their events by their channel. Nobody waits for that; what finds
no room is counted. Read next: channel.py; gunicorn/worker_events.py and gunicorn/observed_ports.py, the two ends.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from etherws.errors import ChannelError
from etherws.events import KINDS, Event, event_of
from etherws.workers.messages import Message, number, text

#: Characters of an event's text and of its fields, as JSON: more are cut off, or left out.
TEXT_MAX, FIELDS_MAX = 4000, 8000


def event_message(record: logging.LogRecord, left_out: int = 0) -> Message:
    """The message that tells of a record, and of how many events were left out before it."""
    kind, fields = event_of(record)
    values: Any = json.loads(json.dumps(dict(fields), default=str))
    if len(json.dumps(values)) > FIELDS_MAX:
        values = {}
    said = record.getMessage()[:TEXT_MAX]
    return {"level": record.levelno, "text": said, "kind": kind, "fields": values, "left_out": left_out}


def record_of(message: Message, name: str) -> logging.LogRecord:
    """The record of a message, as of the logger `name`. Raises ChannelError if it is malformed."""
    kind, fields = text(message, "kind"), message.get("fields")
    if kind not in KINDS or not isinstance(fields, dict) or len(json.dumps(fields)) > FIELDS_MAX:
        raise ChannelError("an event is malformed")
    level, said = number(message, "level", logging.CRITICAL), text(message, "text", TEXT_MAX)
    if left_out := number(message, "left_out"):
        said += f" ({left_out} events before it were left out: they came faster than they were read)"
    values = {"name": name, "levelno": level, "levelname": logging.getLevelName(level), "msg": said}
    return logging.makeLogRecord({**values, "event": Event(kind, fields)})
